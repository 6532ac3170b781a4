//! A select over channels that are fed and closed, with its runs polled, cancelled and dropped at
//! any time. Every message is taken once and in its order, and none by a run that is dropped while
//! it waits.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::FutureExt;
use watershed::testing::Simulation;
use watershed::{BoxError, CancellationSource, Clock, ErrorCode, Source, StepContext};

use super::live_sources::yield_times;
use super::program::Bytes;

/// Operations in one run; a longer one shows nothing new.
const MOST: usize = 200;

pub fn select(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let simulation = Simulation::new(0);
    let world = simulation.world();
    let context = world.context("select");
    let called = Arc::new(Mutex::new(Vec::new()));
    let stop = CancellationSource::new();
    let mut select = watershed::channels::Select::<(usize, u32)>::new(&context);
    let mut senders = Vec::new();
    let mut rests = Vec::new();
    for case in 0..=usize::from(bytes.below(5)) {
        let (sender, receiver) = async_channel::unbounded::<(usize, u32)>();
        let (called, yields, fails) = (Arc::clone(&called), bytes.below(3), bytes.one_in(4));
        rests.push(receiver.clone());
        senders.push((sender, 0));
        let priority = u32::from(bytes.below(3));
        select = select.case(receiver.prioritized(priority), move |message, step: StepContext| {
            called.lock().expect("no panic under the lock").push(message);
            step.register_compensation(|| async {});
            async move {
                assert_eq!(message.0, case, "the message of another case");
                yield_times(yields).await;
                if fails { Err(BoxError::from("failed as planned")) } else { Ok(message) }
            }
        });
    }
    let has_default = bytes.one_in(4);
    if has_default {
        select = select.default(|_| async { Ok::<_, BoxError>((usize::MAX, 0)) });
    }
    let timeout = bytes.one_in(3).then(|| bytes.wait(8));
    if let Some(timeout) = timeout {
        select = select.timeout(timeout);
    }
    select = select.grace(bytes.wait(4)).cancellation(stop.token());
    let mut cx = Context::from_waker(Waker::noop());
    let count = || called.lock().expect("no panic under the lock").len();
    let mut left = MOST;
    while left > 0 && !bytes.is_empty() {
        let started = world.clock().now();
        let before = count();
        let mut run = select.run();
        let mut polled = false;
        loop {
            left = left.saturating_sub(1);
            let index = usize::from(bytes.next()) % senders.len();
            let (sender, sent) = &mut senders[index];
            match bytes.below(10) {
                0..=3 => {
                    if sender.try_send((index, *sent)).is_ok() {
                        *sent += 1;
                    }
                }
                4 => {
                    sender.close();
                }
                5 => world.clock().advance(Duration::from_micros(250)),
                6 if bytes.one_in(8) => stop.cancel(),
                7 => break,
                _ => {
                    // What is there when it is polled wins over nothing at all.
                    let ready = rests.iter().any(|rest| !rest.is_empty());
                    let over = timeout.is_some_and(|timeout| {
                        // Counted from the first poll.
                        !polled && timeout.is_zero() || world.clock().now() >= started + timeout
                    });
                    let first = !std::mem::replace(&mut polled, true);
                    let Poll::Ready(result) = run.poll_unpin(&mut cx) else {
                        assert!(count() > before || !has_default, "a run with a default waited");
                        let cancelled = stop.token().is_cancelled();
                        assert!(!ready || count() > before || !first || cancelled || over);
                        continue;
                    };
                    match result.map_err(|error| error.code()) {
                        Ok((usize::MAX, _)) => assert!(has_default && count() == before),
                        Ok(message) => {
                            assert_eq!(called.lock().unwrap().last(), Some(&message));
                            assert_eq!(count(), before + 1);
                        }
                        Err(ErrorCode::Timeout) => assert!(timeout.is_some()),
                        Err(ErrorCode::Canceled) => assert!(stop.token().is_cancelled()),
                        Err(ErrorCode::SelectDrained) => {
                            assert!(senders.iter().all(|(sender, _)| sender.is_closed()));
                            assert!(rests.iter().all(async_channel::Receiver::is_empty));
                        }
                        Err(ErrorCode::Handler) => assert_eq!(count(), before + 1),
                        Err(code) => panic!("an error of another kind: {code}"),
                    }
                    break;
                }
            }
            if left == 0 || bytes.is_empty() {
                break;
            }
        }
        drop(run);
        assert!(count() <= before + 1, "a run took more than one message");
        let staged = context.scope().clear();
        assert_eq!(staged, count() - before, "a compensation is lost");
    }
    drop(select);
    for (index, (_, sent)) in senders.iter().enumerate() {
        let called = called.lock().expect("no panic under the lock");
        let own = called.iter().filter(|(of, _)| *of == index).map(|(_, number)| *number);
        let left = std::iter::from_fn(|| rests[index].try_recv().ok()).map(|(_, number)| number);
        let all: Vec<u32> = own.chain(left).collect();
        assert_eq!(all, (0..*sent).collect::<Vec<_>>(), "a message is lost, or came twice");
    }
}
