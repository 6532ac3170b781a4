//! Sources that come and go while a drain runs: added, fed, closed, paused, resumed, removed, with
//! the drain polled, cancelled and dropped at any time. Every message is handled once, in its
//! order, or is still in its source.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use async_channel::{Receiver, Sender};
use futures::FutureExt;
use watershed::channels::{SourceEnd, SourceHandle, live};
use watershed::testing::Simulation;
use watershed::{BoxError, CancellationSource, Commit, ErrorCode, StepContext, fan_in};

use super::program::Bytes;

/// Operations in one run; a longer one shows nothing new.
const MOST: usize = 200;

struct Fed {
    sender: Sender<(usize, u32)>,
    /// A second handle on what is left.
    rest: Receiver<(usize, u32)>,
    handle: SourceHandle<Receiver<(usize, u32)>>,
    sent: u32,
    removed: bool,
}

pub fn live_sources(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let simulation = Simulation::new(0);
    let context = simulation.world().context("live");
    let handled = Arc::new(Mutex::new(Vec::new()));
    let called = Arc::clone(&handled);
    let yields = bytes.below(3);
    let (adder, incoming) = live::<Receiver<(usize, u32)>>();
    let stop = CancellationSource::new();
    let handlers = 1 + usize::from(bytes.below(3));
    let commit = if bytes.one_in(2) { Commit::Never } else { Commit::Message };
    let drain = fan_in(&context, [], move |message, step: StepContext| {
        called.lock().expect("no panic under the lock").push(message);
        step.register_compensation(|| async {});
        async move {
            yield_times(yields).await;
            Ok::<_, BoxError>(())
        }
    });
    let drain = drain.incoming(incoming).cancellation(stop.token()).concurrency(handlers);
    let mut drain = Some(drain.commit(commit).into_future());
    let mut adder = Some(adder);
    let mut sources: Vec<Fed> = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    let count = |index: usize| {
        let handled = handled.lock().expect("no panic under the lock");
        handled.iter().filter(|(source, _)| *source == index).count()
    };
    for _ in 0..MOST {
        if bytes.is_empty() {
            break;
        }
        let index = usize::from(bytes.next()) % sources.len().max(1);
        let many = sources.len() >= 16;
        match (bytes.below(12), sources.get_mut(index)) {
            (0 | 1, _) if !many => {
                let Some(adder) = &adder else { continue };
                let (sender, rest) = async_channel::unbounded();
                if let Ok(handle) = adder.add(rest.clone()) {
                    assert!(drain.is_some(), "a drain that is gone took a source");
                    sources.push(Fed { sender, rest, handle, sent: 0, removed: false });
                } else {
                    let ended = drain.is_none() || stop.token().is_cancelled();
                    assert!(ended, "a drain refused a source");
                }
            }
            (2..=4, Some(fed)) => {
                if fed.sender.try_send((index, fed.sent)).is_ok() {
                    fed.sent += 1;
                }
            }
            (5, Some(fed)) => {
                fed.sender.close();
            }
            (6, Some(fed)) => {
                let before = count(index);
                let there = fed.handle.pause();
                assert_eq!(fed.handle.is_paused(), there);
                assert!(!there || !fed.removed, "paused what was removed");
                if let Some(drain) = &mut drain {
                    if Pin::new(drain).poll(&mut cx).is_pending() {
                        assert_eq!(count(index), before, "taken from a paused source");
                        continue;
                    }
                }
                drain = None;
            }
            (7, Some(fed)) => {
                fed.handle.resume();
                assert!(!fed.handle.is_paused());
            }
            (8, Some(fed)) => {
                fed.removed = true;
                if let Some(Some(source)) = fed.handle.remove().now_or_never() {
                    assert_eq!(source.len(), fed.rest.len(), "it is the source");
                }
            }
            (9, _) => match bytes.below(16) {
                0 => stop.cancel(),
                1 => drain = None,
                2 => adder = None,
                _ => {}
            },
            _ => {
                let Some(running) = &mut drain else { continue };
                let Poll::Ready(result) = Pin::new(running).poll(&mut cx) else { continue };
                drain = None;
                match result {
                    Ok(report) => {
                        assert!(adder.is_none(), "it ended, but more sources may come");
                        let called = handled.lock().expect("no panic under the lock").len();
                        assert_eq!(report.handled(), u64::try_from(called).expect("a few"));
                    }
                    Err(failure) => {
                        assert_eq!(failure.error().code(), ErrorCode::Canceled);
                        assert!(stop.token().is_cancelled());
                    }
                }
            }
        }
    }
    drop(drain);
    for (index, fed) in sources.iter().enumerate() {
        let handled = handled.lock().expect("no panic under the lock");
        let own: Vec<u32> =
            handled.iter().filter(|(of, _)| *of == index).map(|(_, n)| *n).collect();
        let left: Vec<u32> =
            std::iter::from_fn(|| fed.rest.try_recv().ok()).map(|(_, n)| n).collect();
        let all: Vec<u32> = own.into_iter().chain(left).collect();
        assert_eq!(all, (0..fed.sent).collect::<Vec<_>>(), "a message is lost, or came twice");
        let end = fed.handle.ended().now_or_never();
        let end = end.expect("the drain is gone");
        assert!(end != SourceEnd::Removed || fed.removed, "removed by nobody");
        assert!(end != SourceEnd::Drained || fed.sender.is_closed(), "it had not ended");
    }
    if commit == Commit::Never {
        assert_eq!(context.scope().clear(), handled.lock().unwrap().len());
    }
    context.scope().clear();
}

/// Pending so many times; whoever polls does so unasked.
pub async fn yield_times(times: u8) {
    let mut left = times;
    let polls = std::future::poll_fn(|_| match left.checked_sub(1) {
        None => Poll::Ready(()),
        Some(fewer) => {
            left = fewer;
            Poll::Pending
        }
    });
    polls.await;
}
