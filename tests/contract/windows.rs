//! Rules 2.1, 2.2, 2.4, 2.7 and 5.4, of windows without a drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::executor::block_on;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use watershed::channels::{AnySource, SourceEnd, Window, live, merge, merge_into};
use watershed::{
    CancellationSource, Clock, Error, ErrorCode, ManualClock, Sleep, Source, StepContext, Tick,
};

use crate::support::cannot_wait::CannotWait;

const SECOND: Duration = Duration::from_secs(1);

fn manual() -> (StepContext, ManualClock) {
    let clock = ManualClock::new();
    (StepContext::new("t").with_clock(Arc::new(clock.clone())), clock)
}

/// The next item, if there is one now.
fn poll<T>(
    stream: &mut (impl Stream<Item = Result<T, Error>> + Unpin),
) -> Option<Result<T, ErrorCode>> {
    match stream.poll_next_unpin(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(item)) => Some(item.map_err(|error| error.code())),
        Poll::Ready(None) => panic!("it has ended"),
        Poll::Pending => None,
    }
}

// Rule 2.2
#[test]
fn a_window_takes_the_room_of_what_is_in_it() {
    let (context, clock) = manual();
    let (sender, reader) = async_channel::unbounded::<[u8; 16_384]>();
    let windows = Window::new(&context, reader).count(1_000).every(SECOND).stream();
    let mut windows = Box::pin(windows.expect("valid"));
    for messages in [1, 3, 100, 1_000] {
        for _ in 0..messages {
            sender.try_send([0; 16_384]).expect("it is open");
        }
        let mut next = poll(&mut windows);
        while next.is_none() {
            if sender.is_empty() {
                clock.advance(SECOND);
            }
            next = poll(&mut windows);
        }
        let window = next.expect("it is due").expect("no failure");
        assert_eq!(window.len(), messages);
        assert!(window.capacity() <= messages + messages / 4, "room for {}", window.capacity());
    }
}

// Rules 2.1, 2.2
#[test]
fn a_window_is_a_source_and_the_end_of_its_source_gives_it_out_as_it_is() {
    let (context, _clock) = manual();
    let (sender, receiver) = async_channel::unbounded();
    let numbers = Window::new(&context, stream::iter(0..5).named("numbers")).count(2).every(SECOND);
    let none = Window::new(&context, stream::iter(0..0).named("none")).count(2);
    let report = block_on(merge_into(&context, [numbers, none], sender).into_future());
    let report = report.expect("no failure");
    assert_eq!(report.sources()[0].name(), "numbers");
    assert_eq!(report.sources()[1].delivered(), 0, "a window is never empty");
    let windows: Vec<_> = block_on(receiver.collect());
    assert_eq!(windows, [vec![0, 1], vec![2, 3], vec![4]]);
}

// Rules 2.2, 6.2
#[test]
fn a_window_without_a_valid_option_is_refused_before_anything_is_taken() {
    let (context, _clock) = manual();
    let (sender, receiver) = async_channel::unbounded();
    sender.try_send(1).expect("it is open");
    let of = || Window::new(&context, receiver.clone());
    for wrong in
        [of(), of().count(0), of().every(Duration::ZERO), of().count(1).every(Duration::ZERO)]
    {
        let mut merged = merge(&context, [wrong]);
        assert_eq!(poll(&mut merged), Some(Err(ErrorCode::Validation)));
    }
    let source = receiver.clone().weighted(0);
    assert_eq!(
        Window::new(&context, source).count(1).stream().unwrap_err().code(),
        ErrorCode::Validation
    );
    assert_eq!(receiver.len(), 1);
}

// Rule 5.6
#[test]
fn a_window_that_closes_by_time_asks_the_clock_first_and_no_other_does() {
    let context = StepContext::new("t").with_clock(Arc::new(CannotWait::default()));
    let of = || Window::new(&context, stream::iter(0..3)).count(2);
    let error = of().every(SECOND).stream().expect_err("it cannot wait");
    assert_eq!(error.code(), ErrorCode::Clock);
    let mut refused = merge(&context, [of().every(SECOND)]);
    assert_eq!(poll(&mut refused), Some(Err(ErrorCode::Clock)));
    let mut windows = Box::pin(of().stream().expect("valid").timeout(SECOND));
    assert_eq!(poll(&mut windows), Some(Err(ErrorCode::Clock)));
    for windows in [of().stream(), of().every(Duration::MAX).stream()] {
        let windows: Vec<_> = block_on(windows.expect("valid").try_collect()).expect("no failure");
        assert_eq!(windows, [vec![0, 1], vec![2]]);
    }
}

// Rules 2.1, 5.4
#[test]
fn windows_of_windows_lose_nothing() {
    let (context, clock) = manual();
    let (sender, receiver) = async_channel::unbounded();
    let inner = Window::new(&context, receiver).count(2).every(2 * SECOND);
    let mut windows =
        Box::pin(Window::new(&context, inner).count(2).every(SECOND).stream().expect("valid"));
    for message in 0..5 {
        sender.try_send(message).expect("it is open");
    }
    assert_eq!(poll(&mut windows), Some(Ok(vec![vec![0, 1], vec![2, 3]])));
    assert_eq!(poll(&mut windows), None);
    clock.advance(2 * SECOND);
    assert_eq!(poll(&mut windows), None, "the second of the outer window begins with [4]");
    sender.try_send(5).expect("it is open");
    drop(sender);
    assert_eq!(poll(&mut windows), Some(Ok(vec![vec![4], vec![5]])));
}

// Rules 2.7, 5.4
#[test]
fn the_time_of_a_window_goes_on_while_its_source_is_paused() {
    let (context, clock) = manual();
    // The source in the window is paused.
    let (within, incoming) = live();
    let (sender, receiver) = async_channel::unbounded();
    let handle = within.add(receiver).expect("a drain may come");
    let source = block_on(Box::pin(incoming).next()).expect("it was added");
    let mut windows =
        Box::pin(Window::new(&context, source).every(SECOND).stream().expect("valid"));
    sender.try_send(1).expect("it is open");
    assert_eq!(poll(&mut windows), None);
    assert!(handle.pause());
    sender.try_send(2).expect("it is open");
    clock.advance(SECOND);
    assert_eq!(poll(&mut windows), None, "it waits for `resume`");
    assert!(handle.resume());
    assert_eq!(poll(&mut windows), Some(Ok(vec![1])), "its second is over");

    // The window itself is paused.
    let (without, incoming) = live();
    let (sender, receiver) = async_channel::unbounded();
    let handle =
        without.add(Window::new(&context, receiver).every(SECOND)).expect("a drain may come");
    let source = block_on(Box::pin(incoming).next()).expect("it was added");
    let mut windows = merge(&context, [source]);
    sender.try_send(1).expect("it is open");
    assert_eq!(poll(&mut windows), None);
    assert!(handle.pause());
    clock.advance(SECOND);
    assert_eq!(poll(&mut windows), None, "it waits for `resume`");
    assert!(handle.resume());
    assert_eq!(poll(&mut windows), Some(Ok(vec![1])), "its second is over");
}

// Rules 2.1, 2.7
#[test]
fn a_window_that_is_removed_gives_out_its_messages_one_by_one_and_goes_back() {
    let (context, _clock) = manual();
    let (live, incoming) = live();
    let (sender, receiver) = async_channel::unbounded();
    let handle = live.add(Window::new(&context, receiver).count(9)).expect("a drain may come");
    let source = block_on(Box::pin(incoming).next()).expect("it was added");
    let mut windows = merge(&context, [source]);
    for message in [1, 2] {
        sender.try_send(message).expect("it is open");
    }
    assert_eq!(poll(&mut windows), None);
    assert!(handle.request_removal());
    sender.try_send(3).expect("it is open");
    let left: Vec<_> = block_on(windows.try_collect()).expect("no failure");
    assert_eq!(left, [vec![1], vec![2]]);
    let window = handle.remove().now_or_never().expect("it is out").expect("it was not drained");
    drop(sender);
    let again = merge(&context, [AnySource::from(window)]);
    assert_eq!(block_on(again.try_collect::<Vec<_>>()).expect("no failure"), [[3]]);
}

// Rules 2.1, 2.7
#[test]
fn a_source_that_is_removed_from_its_window_goes_back_and_the_window_is_given_out() {
    let (context, _clock) = manual();
    let (live, incoming) = live();
    let (sender, receiver) = async_channel::unbounded();
    let handle = live.add(receiver).expect("a drain may come");
    let source = block_on(Box::pin(incoming).next()).expect("it was added");
    let mut windows = Box::pin(Window::new(&context, source).count(9).stream().expect("valid"));
    sender.try_send(1).expect("it is open");
    assert_eq!(poll(&mut windows), None);
    assert!(handle.request_removal());
    sender.try_send(2).expect("it is open");
    assert_eq!(poll(&mut windows), Some(Ok(vec![1])));
    assert_eq!(handle.ended().now_or_never(), Some(SourceEnd::Removed));
    let source = handle.remove().now_or_never().expect("it is out").expect("it was not drained");
    assert_eq!(source.len(), 1);
}

/// A clock that is read and whose timers never ring.
#[derive(Debug, Default)]
struct Deaf(ManualClock);

impl Clock for Deaf {
    fn now(&self) -> Tick {
        self.0.now()
    }

    fn sleep_until(&self, _: Tick) -> Sleep {
        Box::pin(std::future::pending())
    }
}

// Rule 5.4
#[test]
fn what_is_due_is_judged_by_the_clock_and_not_by_a_timer() {
    let clock = Arc::new(Deaf::default());
    let context = StepContext::new("t").with_clock(clock.clone());
    let (sender, receiver) = async_channel::unbounded();
    let mut windows =
        Box::pin(Window::new(&context, receiver).every(SECOND).stream().expect("valid"));
    sender.try_send(1).expect("it is open");
    assert_eq!(poll(&mut windows), None);
    clock.0.advance(SECOND);
    sender.try_send(2).expect("it is open");
    assert_eq!(poll(&mut windows), Some(Ok(vec![1])), "the second message is in the next window");
}

/// A clock that breaks when it is read for the time with this number.
#[derive(Debug)]
struct Breaks(AtomicUsize, usize);

impl Clock for Breaks {
    fn now(&self) -> Tick {
        assert_ne!(self.0.fetch_add(1, Ordering::Relaxed), self.1, "the clock broke");
        Tick::ZERO
    }

    fn sleep_until(&self, _: Tick) -> Sleep {
        Box::pin(std::future::pending())
    }
}

// Rules 2.1, 3.7
#[test]
fn a_clock_that_panics_at_any_look_loses_no_message() {
    for look in 0..12 {
        let clock = Arc::new(Breaks(AtomicUsize::new(0), look));
        let context = StepContext::new("t").with_clock(clock);
        let (sender, receiver) = async_channel::unbounded();
        for message in 0..4 {
            sender.try_send(message).expect("it is open");
        }
        drop(sender);
        let windows = Window::new(&context, receiver.clone()).count(3).every(SECOND).stream();
        let windows = windows.expect("valid");
        let mut all = Vec::new();
        let items: Vec<Result<Vec<u32>, Error>> = block_on(windows.collect());
        for item in items {
            match item {
                Ok(window) => all.extend(window),
                Err(error) => assert_eq!(error.code(), ErrorCode::Panic),
            }
        }
        all.extend(std::iter::from_fn(|| receiver.try_recv().ok()));
        assert_eq!(all, [0, 1, 2, 3], "look {look}");
    }
}

// Rule 2.4
#[test]
fn the_token_is_looked_at_before_every_message_of_a_window() {
    let stop = CancellationSource::new();
    let context = StepContext::new("t").with_cancellation(stop.token());
    let mut taken = 0;
    let source = stream::repeat_with(|| {
        taken += 1;
        if taken == 10 {
            stop.cancel();
        }
        taken
    });
    let windows = Window::new(&context, source).count(1_000).stream().expect("valid");
    let items: Vec<_> = block_on(windows.collect());
    assert_eq!(items[0].as_ref().expect("what was open").len(), 10);
    assert_eq!(items[1].as_ref().expect_err("the end").code(), ErrorCode::Canceled);
    assert_eq!(items.len(), 2);
}
