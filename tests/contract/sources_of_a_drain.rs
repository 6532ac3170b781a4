//! Rules 2.1, 2.7 and 2.10: windows and live sources in a drain.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::executor::block_on;
use futures::{FutureExt, StreamExt, stream};
use watershed::channels::{AnySource, SourceEnd, Window, live, mixed};
use watershed::{
    BoxError, CancellationSource, ErrorCode, ManualClock, Source, StepContext, fan_in,
};

const SECOND: Duration = Duration::from_secs(1);

type Log<T> = Arc<Mutex<Vec<T>>>;

fn manual() -> (StepContext, ManualClock) {
    let clock = ManualClock::new();
    (StepContext::new("t").with_clock(Arc::new(clock.clone())), clock)
}

fn take<T>(log: &Log<T>) -> Vec<T> {
    std::mem::take(&mut log.lock().unwrap())
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut cx) {
            return Poll::Ready(output);
        }
    }
    Poll::Pending
}

// Rules 2.1, 5.4
#[test]
fn a_drain_handles_windows_that_are_full_or_due_and_the_last_one_as_it_is() {
    let (context, clock) = manual();
    let (sender, receiver) = async_channel::unbounded();
    let windows = Window::new(&context, receiver).count(2).every(SECOND);
    let seen: Log<Vec<u32>> = Log::default();
    let mut drain = fan_in(&context, [windows], |rows: Vec<u32>, _| {
        seen.lock().unwrap().push(rows);
        async { Ok::<_, BoxError>(()) }
    })
    .into_future();
    for number in 0..5 {
        sender.try_send(number).unwrap();
    }
    assert!(poll(&mut drain).is_pending());
    assert_eq!(take(&seen), [[0, 1], [2, 3]]);
    clock.advance(SECOND);
    assert!(poll(&mut drain).is_pending());
    assert_eq!(take(&seen), [[4]]);
    sender.try_send(5).unwrap();
    drop(sender);
    let Poll::Ready(report) = poll(&mut drain) else { panic!("its source has ended") };
    assert_eq!((report.unwrap().handled(), take(&seen)), (4, vec![vec![5]]));
}

// Rules 2.1, 2.7
#[test]
fn what_an_open_window_holds_is_put_back_one_by_one_when_its_drain_fails_or_it_is_removed() {
    for removed in [false, true] {
        let (context, _clock) = manual();
        let (live, incoming) = live();
        let (sender, receiver) = async_channel::unbounded();
        let handle = live.add(Window::new(&context, receiver).count(9)).unwrap();
        let (other, bad) = async_channel::unbounded();
        live.add(Window::new(&context, bad).count(1)).unwrap();
        drop(live);
        let back: Log<(_, Vec<u32>)> = Log::default();
        let mut drain = fan_in(
            &context,
            [],
            async |rows: Vec<u32>, _| {
                if rows == [13] { Err("unlucky") } else { Ok(()) }
            },
        )
        .incoming(incoming)
        .put_back(|id, rows| back.lock().unwrap().push((id, rows)))
        .into_future();
        for number in 0..3 {
            sender.try_send(number).unwrap();
        }
        assert!(poll(&mut drain).is_pending());
        assert_eq!(take(&back), []);
        if removed {
            assert!(handle.request_removal());
            assert!(poll(&mut drain).is_pending());
        } else {
            other.try_send(13).unwrap();
            let Poll::Ready(Err(failure)) = poll(&mut drain) else { panic!("it fails") };
            assert_eq!(failure.report().put_back(), 3);
        }
        let id = handle.id();
        assert_eq!(take(&back), [(id, vec![0]), (id, vec![1]), (id, vec![2])]);
        let how = if removed { SourceEnd::Removed } else { SourceEnd::Abandoned };
        assert_eq!(handle.ended().now_or_never(), Some(how));
    }
}

// Rules 2.1, 2.10
#[test]
fn an_idle_drain_gives_an_open_window_out_and_then_succeeds() {
    let (context, _clock) = manual();
    let (sender, receiver) = async_channel::unbounded();
    for number in 0..3 {
        sender.try_send(number).unwrap();
    }
    let seen: Log<Vec<u32>> = Log::default();
    let windows = Window::new(&context, receiver).count(9).every(SECOND);
    let drain = fan_in(&context, [windows], |rows: Vec<u32>, _| {
        seen.lock().unwrap().push(rows);
        async { Ok::<_, BoxError>(()) }
    });
    assert_eq!(block_on(drain.until_idle().into_future()).unwrap().handled(), 1);
    assert_eq!(take(&seen), [[0, 1, 2]]);
}

// Rules 2.7, 2.10
#[test]
fn a_drain_is_not_idle_and_gives_nothing_out_while_a_window_is_paused() {
    for (paused_within, resumed) in [(false, false), (false, true), (true, false), (true, true)] {
        let (context, _clock) = manual();
        let (sender, receiver) = async_channel::unbounded();
        sender.try_send(1).unwrap();
        let (within, inner) = live();
        let handle = within.add(receiver).unwrap();
        let source = block_on(Box::pin(inner).next()).unwrap();
        let (live, incoming) = watershed::channels::live();
        let outer = live.add(Window::new(&context, source).count(9)).unwrap();
        drop(live);
        let (gate, opened) = async_channel::bounded::<()>(1);
        let busy = Window::new(&context, stream::iter([7])).count(1);
        let (seen, back): (Log<Vec<u32>>, Log<Vec<u32>>) = (Log::default(), Log::default());
        let stop = CancellationSource::new();
        let mut drain = fan_in(&context, mixed((busy,)), |rows: Vec<u32>, _| {
            let opened = opened.clone();
            seen.lock().unwrap().push(rows);
            async move {
                let _ = opened.recv().await;
                Ok::<_, BoxError>(())
            }
        })
        .cancellation(stop.token())
        .concurrency(2)
        .incoming(incoming.map(Source::erased))
        .put_back(|_, rows| back.lock().unwrap().push(rows))
        .until_idle()
        .into_future();
        assert!(poll(&mut drain).is_pending());
        if paused_within {
            assert!(handle.pause());
        } else {
            assert!(outer.pause());
        }
        gate.close();
        assert!(poll(&mut drain).is_pending(), "it waits for the paused one");
        assert_eq!((take(&seen), take(&back)), (vec![vec![7]], vec![]));
        if resumed {
            assert!(handle.resume() && outer.resume());
            assert!(matches!(poll(&mut drain), Poll::Ready(Ok(report)) if report.handled() == 2));
            assert_eq!((take(&seen), take(&back)), (vec![vec![1]], vec![]));
        } else {
            stop.cancel();
            let Poll::Ready(Err(failure)) = poll(&mut drain) else { panic!("it is cancelled") };
            assert_eq!((failure.report().handled(), failure.report().put_back()), (1, 1));
            assert_eq!((take(&seen), take(&back)), (vec![], vec![vec![1]]));
        }
    }
}

// Rule 2.7
#[test]
fn a_handler_may_remove_its_own_source() {
    let (context, _clock) = manual();
    let (live, incoming) = live();
    let own = Arc::new(live.add(stream::iter([1, 2, 3])).unwrap());
    drop(live);
    let drain = fan_in(&context, [], async |_: u32, step: StepContext| {
        assert_eq!(step.source_id(), Some(own.id()));
        assert!(own.remove().await.is_none(), "it cannot wait for itself");
        assert_eq!(own.ended().await, SourceEnd::NotYet);
        Ok::<_, BoxError>(())
    });
    let report = block_on(drain.incoming(incoming).into_future()).unwrap();
    assert_eq!(report.handled(), 1);
    let left = own.remove().now_or_never().unwrap().unwrap();
    let rest = fan_in(&context, [AnySource::from(left)], async |_, _| Ok::<_, BoxError>(()));
    assert_eq!(block_on(rest.into_future()).unwrap().handled(), 2);
}

// Rules 2.2, 6.2
#[test]
fn a_window_or_a_source_with_an_option_of_zero_is_refused_before_anything_is_taken() {
    let (context, _clock) = manual();
    let (sender, receiver) = async_channel::unbounded();
    sender.try_send(1).unwrap();
    let wrong: [AnySource<'_, Vec<u32>>; 4] = [
        Window::new(&context, receiver.clone()).erased(),
        Window::new(&context, receiver.clone()).count(0).erased(),
        Window::new(&context, receiver.clone().weighted(0)).count(1).erased(),
        Window::new(&context, receiver.clone()).count(1).rate(0, SECOND).erased(),
    ];
    for wrong in wrong {
        let drain = fan_in(&context, [wrong], async |_, _| Ok::<_, BoxError>(()));
        let failure = block_on(drain.into_future()).unwrap_err();
        assert_eq!(failure.error().code(), ErrorCode::Validation);
    }
    assert_eq!(receiver.len(), 1);
}
