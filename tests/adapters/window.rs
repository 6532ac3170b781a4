//! `channels::window`: batches by count, by time, or both.

use crate::support::neighbours::Wakes;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::support::{block_on, filled, left_in};
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use watershed::channels::{Unsettled, Window, Windows};
use watershed::{
    CancellationSource, Clock, Error, ErrorCode, ManualClock, Sleep, Source, StepContext, Tick,
};

const SECOND: Duration = Duration::from_secs(1);

fn context(clock: &ManualClock) -> StepContext {
    StepContext::new("t").with_clock(Arc::new(clock.clone()))
}

fn poll<S: Source<Receipt = Unsettled>>(
    windows: &mut Pin<Box<Windows<S>>>,
) -> Poll<Option<Result<Vec<S::Message>, ErrorCode>>> {
    let poll = windows.as_mut().poll_next(&mut Context::from_waker(Waker::noop()));
    poll.map(|item| item.map(|item| item.map_err(|error| error.code())))
}

fn ready<T>(window: T) -> Poll<Option<Result<T, ErrorCode>>> {
    Poll::Ready(Some(Ok(window)))
}

// P10
#[test]
fn a_window_closes_when_it_is_full_or_old_enough_whichever_comes_first() {
    let clock = ManualClock::new();
    let (sender, receiver) = async_channel::unbounded();
    let windows = Window::new(&context(&clock), receiver).count(3).every(SECOND).stream();
    let mut windows = Box::pin(windows.expect("valid"));
    for message in 1..=4 {
        sender.try_send(message).expect("the channel is open");
    }
    assert_eq!(poll(&mut windows), ready(vec![1, 2, 3]));
    assert!(poll(&mut windows).is_pending());
    clock.advance(SECOND / 2);
    sender.try_send(5).expect("the channel is open");
    assert!(poll(&mut windows).is_pending());
    clock.advance(SECOND / 2);
    assert_eq!(poll(&mut windows), ready(vec![4, 5]), "a second after its first message");
    sender.close();
    assert_eq!(poll(&mut windows), Poll::Ready(None), "an empty window is not handed out");
}

// P11
#[test]
fn without_an_end_of_the_interval_windows_are_full_but_for_the_last() {
    let clock = ManualClock::new();
    for every in [None, Some(Duration::MAX)] {
        let window = Window::new(&context(&clock), stream::iter(0..7)).count(3);
        let window = if let Some(every) = every { window.every(every) } else { window };
        let windows = window.stream().expect("valid");
        let windows: Vec<_> = block_on(windows.try_collect()).expect("no failure");
        assert_eq!(windows, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
        assert_eq!(clock.sleepers(), 0);
    }
}

// P12
#[test]
fn cancellation_hands_out_what_is_open_and_ends_the_stream() {
    for by_context in [true, false] {
        let (of_context, of_call) = (CancellationSource::new(), CancellationSource::new());
        let context = StepContext::new("t").with_cancellation(of_context.token());
        let (sender, receiver) = async_channel::unbounded();
        let window = Window::new(&context, receiver.clone()).count(9);
        let windows = window.stream().expect("valid").cancellation(of_call.token());
        let mut windows = Box::pin(windows);
        sender.try_send(1).expect("the channel is open");
        sender.try_send(2).expect("the channel is open");
        assert!(poll(&mut windows).is_pending());
        if by_context {
            of_context.cancel();
        } else {
            of_call.cancel();
        }
        sender.try_send(3).expect("the channel is open");
        assert_eq!(poll(&mut windows), ready(vec![1, 2]));
        assert_eq!(poll(&mut windows), Poll::Ready(Some(Err(ErrorCode::Canceled))));
        assert_eq!(poll(&mut windows), Poll::Ready(None));
        assert_eq!(left_in(&receiver), [3], "nothing was taken afterwards");
    }
}

// P13
#[test]
fn time_that_passes_before_any_message_closes_nothing() {
    let clock = ManualClock::new();
    let (sender, receiver) = async_channel::unbounded();
    let windows = Window::new(&context(&clock), receiver).every(SECOND).stream().expect("valid");
    let mut windows = Box::pin(windows);
    for _ in 0..3 {
        assert!(poll(&mut windows).is_pending());
        clock.advance(10 * SECOND);
    }
    sender.try_send(1).expect("the channel is open");
    assert!(poll(&mut windows).is_pending(), "its second begins now");
    clock.advance(SECOND);
    assert_eq!(poll(&mut windows), ready(vec![1]));
}

// P16, rule 6.2
#[test]
fn an_interval_of_zero_and_a_window_without_bounds_are_refused_before_anything_is_taken() {
    let (context, source) = (StepContext::new("t"), filled([1]));
    let zero = Window::new(&context, source.clone()).every(Duration::ZERO).stream();
    let none = Window::new(&context, source.clone()).count(0).stream();
    let unbounded = Window::new(&context, source.clone()).stream();
    for refused in [zero, none, unbounded] {
        assert_eq!(refused.expect_err("not valid").code(), ErrorCode::Validation);
    }
    assert_eq!(source.len(), 1);
}

// Rule 3.3
#[test]
fn a_timeout_hands_out_what_is_open_and_zero_takes_nothing() {
    let clock = ManualClock::new();
    let source = filled([1, 2]);
    let window_of = |timeout| {
        let window = Window::new(&context(&clock), source.clone().chain(stream::pending()));
        let windows = window.count(9).stream().expect("valid");
        Box::pin(windows.timeout(timeout))
    };
    let mut zero = window_of(Duration::ZERO);
    assert_eq!(poll(&mut zero), Poll::Ready(Some(Err(ErrorCode::Timeout))));
    assert_eq!(source.len(), 2);
    let mut windows = window_of(SECOND);
    assert!(poll(&mut windows).is_pending());
    clock.advance(SECOND);
    assert_eq!(poll(&mut windows), ready(vec![1, 2]));
    assert_eq!(poll(&mut windows), Poll::Ready(Some(Err(ErrorCode::Timeout))));
    assert_eq!(poll(&mut windows), Poll::Ready(None));
}

// Rules 3.2, 3.7
#[test]
fn a_fault_and_a_panic_come_after_what_was_open() {
    let context = StepContext::new("t");
    let faulty = stream::iter([Ok(1), Ok(2), Err("connection lost"), Ok(3)]).faults().named("f");
    let windows = Window::new(&context, faulty).count(9).stream().expect("valid");
    let items: Vec<Result<Vec<u32>, Error>> = block_on(windows.collect());
    assert_eq!(items[0].as_ref().expect("a window"), &[1, 2]);
    let error = items[1].as_ref().expect_err("the fault");
    assert_eq!((error.code(), error.source_name()), (ErrorCode::Source, Some("f")));
    assert_eq!(items.len(), 2);

    let panicking = stream::iter([1, 2]).inspect(|number| assert!(*number < 2, "no more"));
    let windows = Window::new(&context, panicking).count(9).stream().expect("valid");
    let items: Vec<Result<Vec<u32>, Error>> = block_on(windows.collect());
    assert_eq!(items[0].as_ref().expect("a window"), &[1]);
    assert_eq!(items[1].as_ref().expect_err("the panic").code(), ErrorCode::Panic);
}

// Rule 3.1
#[test]
fn an_empty_source_has_no_windows() {
    let windows = Window::new(&StepContext::new("t"), filled::<u32>([])).count(3).stream();
    let windows: Vec<_> = block_on(windows.expect("valid").try_collect()).expect("no failure");
    assert_eq!(windows, Vec::<Vec<u32>>::new());
}

// Rule 2.4
#[test]
fn an_always_ready_source_starves_neither_the_interval_nor_the_cancellation_nor_the_executor() {
    let (clock, stop) = (ManualClock::new(), CancellationSource::new());
    let context = context(&clock).with_cancellation(stop.token());
    let mut windows =
        Box::pin(Window::new(&context, stream::repeat(7)).every(SECOND).stream().expect("valid"));
    for _ in 0..10 {
        assert!(poll(&mut windows).is_pending(), "it gives the thread back");
    }
    clock.advance(SECOND);
    let Poll::Ready(Some(Ok(first))) = poll(&mut windows) else { panic!("the interval is over") };
    assert!(!first.is_empty());
    assert!(poll(&mut windows).is_pending());
    stop.cancel();
    assert!(matches!(poll(&mut windows), Poll::Ready(Some(Ok(rest))) if !rest.is_empty()));
    assert_eq!(poll(&mut windows), Poll::Ready(Some(Err(ErrorCode::Canceled))));
}

// PARITY 3.12, rule 2.1
#[test]
fn nothing_is_taken_ahead_of_a_window_that_nobody_has_taken() {
    let source = filled(0..10);
    let windows = Window::new(&StepContext::new("t"), source.clone()).count(3).stream();
    let mut windows = Box::pin(windows.expect("valid"));
    assert_eq!(source.len(), 10);
    assert_eq!(poll(&mut windows), ready(vec![0, 1, 2]));
    assert_eq!(source.len(), 7);
}

// Rule 5.4
#[test]
fn a_clock_that_steps_back_closes_no_window_early_and_none_is_held_back() {
    let clock = ManualClock::new();
    clock.advance(100 * SECOND);
    let (sender, receiver) = async_channel::unbounded();
    let windows = Window::new(&context(&clock), receiver).every(SECOND).stream().expect("valid");
    let mut windows = Box::pin(windows);
    sender.try_send(1).expect("the channel is open");
    assert!(poll(&mut windows).is_pending());
    clock.set(Tick::ZERO);
    assert!(poll(&mut windows).is_pending());
    clock.advance(101 * SECOND);
    assert_eq!(poll(&mut windows), ready(vec![1]));
}

// Rule 2.1
#[test]
fn stopping_after_any_poll_accounts_for_every_message() {
    for k in 0..12 {
        let source = filled(0..10_u32);
        // Every second poll is pending.
        let mut turn = 0;
        let channel = source.clone();
        let slow = stream::poll_fn(move |cx| {
            turn += 1;
            if turn % 2 == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            channel.try_recv().map_or(Poll::Ready(None), |message| Poll::Ready(Some(message)))
        });
        let windows = Window::new(&StepContext::new("t"), slow).count(3).stream();
        let mut windows = Box::pin(windows.expect("valid"));
        let mut all = Vec::new();
        for _ in 0..k {
            if let Poll::Ready(Some(Ok(window))) = poll(&mut windows) {
                all.extend(window);
            }
        }
        all.extend(windows.as_mut().take_open());
        drop(windows);
        all.extend(left_in(&source));
        assert!(all.into_iter().eq(0..10), "after {k} polls");
    }
}

/// A clock of the user's that breaks when a sleep is asked for.
#[derive(Debug)]
struct BrokenClock;

impl Clock for BrokenClock {
    fn now(&self) -> Tick {
        Tick::ZERO
    }

    fn sleep_until(&self, _: Tick) -> Sleep {
        panic!("the clock broke")
    }
}

// Rules 2.1, 3.7
#[test]
fn a_clock_that_panics_loses_no_message_that_was_taken() {
    let context = StepContext::new("t").with_clock(Arc::new(BrokenClock));
    let source = filled([1, 2, 3]);
    let waiting = source.clone().chain(stream::pending());
    let windows = Window::new(&context, waiting).count(2).every(SECOND).stream();
    let mut windows = Box::pin(windows.expect("valid"));
    assert_eq!(poll(&mut windows), ready(vec![1, 2]), "nobody had to wait");
    assert_eq!(poll(&mut windows), ready(vec![3]));
    assert_eq!(poll(&mut windows), Poll::Ready(Some(Err(ErrorCode::Panic))));
    assert_eq!(poll(&mut windows), Poll::Ready(None));
    assert!(source.is_empty());

    // An interval without end needs no timer.
    let windows = Window::new(&context, filled([1])).every(Duration::MAX).stream().expect("valid");
    let windows: Vec<Vec<u32>> = block_on(windows.try_collect()).expect("no failure");
    assert_eq!(windows, [[1]]);
}

/// A clock that stands still while its timers ring.
#[derive(Debug)]
struct HastyClock;

impl Clock for HastyClock {
    fn now(&self) -> Tick {
        Tick::ZERO
    }

    fn sleep_until(&self, _: Tick) -> Sleep {
        Box::pin(std::future::ready(()))
    }
}

// Rule 5.4
#[test]
fn a_timer_that_rings_too_early_closes_no_window_and_keeps_the_thread_from_nobody() {
    let context = StepContext::new("t").with_clock(Arc::new(HastyClock));
    let (sender, receiver) = async_channel::unbounded();
    let windows = Window::new(&context, receiver).every(SECOND).stream().expect("valid");
    let mut windows = Box::pin(windows);
    for message in [1, 2] {
        sender.try_send(message).expect("the channel is open");
        assert!(poll(&mut windows).is_pending(), "its second is not over");
    }
    drop(sender);
    assert_eq!(poll(&mut windows), ready(vec![1, 2]));
}

// Rules 2.6, 3.1, 3.2, 3.5
#[test]
fn a_source_is_dropped_when_the_windows_end_and_not_polled_after_it() {
    enum How {
        End,
        Fault,
        Panic,
        Cancel,
    }
    for (how, last) in [
        (How::End, None),
        (How::Fault, Some(ErrorCode::Source)),
        (How::Panic, Some(ErrorCode::Panic)),
        (How::Cancel, Some(ErrorCode::Canceled)),
    ] {
        let (stop, alive) = (CancellationSource::new(), Arc::new(AtomicUsize::new(0)));
        let context = StepContext::new("t").with_cancellation(stop.token());
        let polls = Arc::clone(&alive);
        let source =
            stream::poll_fn(move |_| match (polls.fetch_add(1, Ordering::Relaxed), &how) {
                (0, _) => Poll::Ready(Some(Ok(1))),
                (1, How::End) => Poll::Ready(None),
                (1, How::Fault) => Poll::Ready(Some(Err("connection lost"))),
                (1, How::Panic) => panic!("the source broke"),
                (1, How::Cancel) => {
                    stop.cancel();
                    Poll::Pending
                }
                _ => panic!("it has ended"),
            });
        let windows = Window::new(&context, source.faults()).count(2).stream();
        let mut windows = Box::pin(windows.expect("valid"));
        assert_eq!(poll(&mut windows), ready(vec![1]));
        assert_eq!(Arc::strong_count(&alive), 1, "{last:?}: the source is gone");
        assert_eq!(poll(&mut windows), Poll::Ready(last.map(Err)));
        assert_eq!(poll(&mut windows), Poll::Ready(None));
        assert_eq!(alive.load(Ordering::Relaxed), 2, "{last:?}");
    }
}

// Rules 3.3, 3.5
#[test]
fn cancelled_or_late_before_the_first_poll_takes_nothing() {
    let (clock, stop) = (ManualClock::new(), CancellationSource::new());
    let source = filled([1, 2]);
    let windows_of = |context: &StepContext| {
        let windows = Window::new(context, source.clone()).count(1).stream().expect("valid");
        Box::pin(windows.timeout(SECOND))
    };
    let mut cancelled = windows_of(&context(&clock).with_cancellation(stop.token()));
    stop.cancel();
    assert_eq!(poll(&mut cancelled), Poll::Ready(Some(Err(ErrorCode::Canceled))));
    assert_eq!(source.len(), 2);
    let mut late = windows_of(&context(&clock));
    clock.advance(SECOND);
    assert_eq!(poll(&mut late), ready(vec![1]), "its time begins with the first poll");
    clock.advance(SECOND);
    assert_eq!(poll(&mut late), Poll::Ready(Some(Err(ErrorCode::Timeout))));
    assert_eq!(left_in(&source), [2]);
}

// Rules 3.3, 3.5, P13
#[test]
fn the_interval_the_timeout_the_cancellation_and_a_message_each_wake_who_waits() {
    for (open, cause) in [(true, 0), (true, 1), (false, 1), (true, 2), (false, 2), (false, 3)] {
        let (clock, stop) = (ManualClock::new(), CancellationSource::new());
        let context = context(&clock).with_cancellation(stop.token());
        let (sender, receiver) = async_channel::unbounded();
        let every = if cause == 0 { SECOND } else { 9 * SECOND };
        let windows = Window::new(&context, receiver).every(every).count(2).stream();
        let mut windows = Box::pin(windows.expect("valid").timeout(5 * SECOND));
        if open {
            sender.try_send(1).expect("the channel is open");
        }
        let wakes = Arc::new(Wakes::default());
        let wake = Waker::from(Arc::clone(&wakes));
        assert!(windows.as_mut().poll_next(&mut Context::from_waker(&wake)).is_pending());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        match cause {
            0 => clock.advance(SECOND),
            1 => clock.advance(5 * SECOND),
            2 => stop.cancel(),
            _ => sender.try_send(1).expect("the channel is open"),
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "open {open}, cause {cause}");
        let last = [None, Some(ErrorCode::Timeout), Some(ErrorCode::Canceled), None][cause];
        if open {
            assert_eq!(poll(&mut windows), ready(vec![1]));
        }
        match last {
            Some(last) => assert_eq!(poll(&mut windows), Poll::Ready(Some(Err(last)))),
            None => assert!(poll(&mut windows).is_pending()),
        }
    }
}

// P10, rule 2.4
#[test]
fn windows_of_any_size_are_full_to_the_message() {
    for size in [1, 2, 255, 256, 257, 1024, 1025, 3000] {
        let total = 2 * size + 1;
        let windows = Window::new(&StepContext::new("t"), stream::iter(0..total)).count(size);
        let windows = windows.stream().expect("valid");
        let windows: Vec<Vec<usize>> = block_on(windows.try_collect()).expect("no failure");
        let sizes: Vec<_> = windows.iter().map(Vec::len).collect();
        assert_eq!(sizes, [size, size, 1]);
        assert!(windows.into_iter().flatten().eq(0..total));
    }
}

// P10
#[test]
fn the_window_after_one_that_was_full_or_taken_has_a_whole_interval() {
    let clock = ManualClock::new();
    for taken in [false, true] {
        let (sender, receiver) = async_channel::unbounded();
        let windows = Window::new(&context(&clock), receiver).count(2).every(SECOND).stream();
        let mut windows = Box::pin(windows.expect("valid"));
        let send = |message: u32| sender.try_send(message).expect("the channel is open");
        send(1);
        assert!(poll(&mut windows).is_pending());
        clock.advance(SECOND / 2);
        if taken {
            assert_eq!(windows.as_mut().take_open(), [1]);
        } else {
            send(2);
            assert_eq!(poll(&mut windows), ready(vec![1, 2]));
        }
        send(3);
        assert!(poll(&mut windows).is_pending());
        clock.advance(Duration::from_nanos(999_999_999));
        assert!(poll(&mut windows).is_pending(), "taken: {taken}");
        clock.advance(Duration::from_nanos(1));
        assert_eq!(poll(&mut windows), ready(vec![3]));
        assert_eq!(clock.sleepers(), 0, "no timer is left behind");
    }
}

// P10, rule 5.2
async fn windows_follow_live_producers() {
    let (sender, receiver) = async_channel::bounded(4);
    let producer =
        std::thread::spawn(move || (0..500_u32).all(|number| sender.send_blocking(number).is_ok()));
    let context = StepContext::new("suite");
    let windows = Window::new(&context, receiver).count(7).every(SECOND / 500).stream();
    let windows: Vec<Vec<u32>> = windows.expect("valid").try_collect().await.expect("no failure");
    assert!(windows.iter().all(|window| !window.is_empty() && window.len() <= 7));
    assert!(windows.into_iter().flatten().eq(0..500));
    assert!(producer.join().expect("the thread ends"));
}

on_every_executor! { windows_follow_live_producers }
