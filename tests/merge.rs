//! Many sources into one destination, and into one stream.

#[macro_use]
mod support;

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::stream::{self, FusedStream, Stream, StreamExt, TryStreamExt};
use support::{block_on, filled, left_in, poll_times};
use watershed::channels::{Destination, Refused, merge, merge_into};
use watershed::{CancellationSource, Error, ErrorCode, ManualClock, Source, StepContext};

const SECOND: Duration = Duration::from_secs(1);

fn context() -> StepContext {
    StepContext::new("t")
}

fn on(clock: &ManualClock) -> StepContext {
    context().with_clock(Arc::new(clock.clone()))
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("bomb");
    }
}

/// Counts how often its stream is polled.
struct Counted<S>(S, Arc<AtomicUsize>);

impl<S: Stream + Unpin> Stream for Counted<S> {
    type Item = S::Item;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.poll_next_unpin(cx)
    }
}

// Rules 2.2, 3.1; P34
#[test]
fn a_merge_delivers_every_message_in_the_order_of_its_source_and_closes() {
    let sources: Vec<_> = (0..5).map(|s| filled((0..100).map(move |m| (s, m)))).collect();
    let (sender, receiver) = async_channel::unbounded();
    let report = block_on(merge_into(&context(), sources, sender.clone())).expect("it succeeds");
    assert!(sender.is_closed());
    let mut seen = vec![Vec::new(); 5];
    for (source, message) in left_in(&receiver) {
        seen[source].push(message);
    }
    assert!(seen.iter().all(|seen| *seen == (0..100).collect::<Vec<_>>()));
    assert_eq!(report.delivered(), 500);
    assert!(report.sources().iter().all(|source| source.delivered() == 100));
}

// Rule 2.3
#[test]
fn every_ready_source_has_a_turn_between_two_turns_of_another() {
    for quantum in [1, 3, 64] {
        let sources: Vec<_> = (0..10).map(|s| stream::repeat(s).take(300)).collect();
        let (sender, receiver) = async_channel::unbounded();
        block_on(merge_into(&context(), sources, sender).quantum(quantum)).expect("it succeeds");
        let order = left_in(&receiver);
        let bound = 9 * quantum + 1;
        let mut last = [0; 10];
        for (position, source) in order[..2_000].iter().enumerate() {
            let gap = position - last[*source];
            assert!(gap <= bound, "quantum {quantum}: source {source} waited {gap} messages");
            last[*source] = position;
        }
    }
}

/// Ready at every poll, and wakes its task each time as well.
struct Eager(u32, u32);

impl Stream for Eager {
    type Item = u32;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u32>> {
        cx.waker().wake_by_ref();
        self.1 -= 1;
        Poll::Ready((self.1 > 0).then_some(self.0))
    }
}

// Rule 2.3: to be woken while it is ready gains a source nothing
#[test]
fn a_source_that_wakes_itself_has_no_more_turns_than_others() {
    let sources = [Eager(0, 100).boxed(), stream::repeat(1).take(99).boxed()];
    let merged = merge(&context(), sources).quantum(1);
    let order: Vec<_> = block_on(merged.try_collect()).expect("it succeeds");
    assert_eq!(order, [0, 1].repeat(99));
}

// Rule 2.3: what is woken during a turn comes before that source's next turn
#[test]
fn a_source_woken_during_a_turn_comes_before_the_next_turn_of_the_same_source() {
    let (sender, late) = async_channel::unbounded();
    let mut count = 0;
    let busy = stream::repeat_with(move || {
        count += 1;
        if count == 10 {
            sender.try_send(2).expect("open");
        }
        1
    });
    let merged = merge(&context(), [late.boxed(), busy.boxed()]).quantum(4);
    let order: Vec<_> = block_on(merged.take(14).try_collect()).expect("it succeeds");
    assert_eq!(order, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1]);
}

// Rule 2.4
#[test]
fn one_poll_moves_a_bounded_number_of_messages() {
    let (sender, receiver) = async_channel::unbounded();
    let sources = [stream::repeat(1), stream::repeat(2)];
    let mut merge = merge_into(&context(), sources, sender).quantum(usize::MAX).into_future();
    for polls in 1..20 {
        assert!(poll_times(&mut merge, 1).is_none());
        assert!((polls..=polls * 256).contains(&receiver.len()), "after {polls} polls");
    }
}

// Rule 2.4: the same for sources that are woken and have nothing
#[test]
fn a_source_that_only_wakes_itself_does_not_hold_the_thread() {
    let polls = Arc::new(AtomicUsize::new(0));
    let restless = stream::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::<Option<u32>>::Pending
    });
    let mut merged = merge(&context(), [Counted(restless, Arc::clone(&polls))]);
    assert!(poll_times(&mut merged.next(), 1).is_none());
    assert!(polls.load(Ordering::Relaxed) <= 256);
}

// Rule 2.4
#[test]
fn a_message_of_one_source_polls_no_idle_one() {
    let idle_polls = Arc::new(AtomicUsize::new(0));
    let busy_polls = Arc::new(AtomicUsize::new(0));
    let (sender, busy) = async_channel::unbounded();
    let mut sources = vec![Counted(busy.boxed(), Arc::clone(&busy_polls))];
    let idle = || Counted(stream::pending().boxed(), Arc::clone(&idle_polls));
    sources.extend(std::iter::repeat_with(idle).take(1_000));
    let (destination, receiver) = async_channel::unbounded();
    let mut merge = merge_into(&context(), sources, destination).into_future();
    assert!(poll_times(&mut merge, 50).is_none());
    for message in 0..100 {
        sender.try_send(message).expect("open");
        assert!(poll_times(&mut merge, 2).is_none());
    }
    assert_eq!(receiver.len(), 100);
    assert_eq!(idle_polls.load(Ordering::Relaxed), 1_000);
    assert_eq!(busy_polls.load(Ordering::Relaxed), 1 + 2 * 100);
}

// Rule 2.4
#[test]
fn a_hundred_thousand_sources_are_merged() {
    let sources: Vec<_> = (0..100_000_u32).map(|n| stream::iter([n])).collect();
    let (sender, receiver) = async_channel::unbounded();
    let report = block_on(merge_into(&context(), sources, sender)).expect("it succeeds");
    assert_eq!((report.delivered(), receiver.len()), (100_000, 100_000));
}

// Rule 2.6
#[test]
fn zero_sources_succeed_at_once_and_close_the_destination() {
    let none: [async_channel::Receiver<u32>; 0] = [];
    let (sender, receiver) = async_channel::bounded(1);
    let report = block_on(merge_into(&context(), none.clone(), sender)).expect("it succeeds");
    assert_eq!((report.delivered(), receiver.is_closed()), (0, true));
    let (sender, _) = async_channel::bounded(1);
    assert!(
        block_on(merge_into(&context(), none.clone(), sender)).is_ok(),
        "closed for nobody's loss"
    );
    assert!(block_on(merge(&context(), none).next()).is_none());
}

// Rule 2.6
#[test]
fn a_source_that_ends_is_dropped_at_once() {
    let held = Arc::new(());
    let with_held = {
        let held = Arc::clone(&held);
        stream::iter([1]).map(move |message| (message, Arc::strong_count(&held)).0)
    };
    let (sender, receiver) = async_channel::bounded(9);
    let sources = [with_held.boxed(), stream::pending().boxed()];
    let mut merge = merge_into(&context(), sources, sender).into_future();
    assert!(poll_times(&mut merge, 1).is_none());
    assert_eq!((Arc::strong_count(&held), left_in(&receiver)), (1, vec![1]));
}

// Rule 3.2; P35
#[test]
fn a_fault_ends_the_merge_and_closes_the_destination() {
    let good = filled([1, 2]);
    let sources = [
        good.clone().map(Ok).boxed().faults().named("good"),
        stream::iter([Ok(7), Err("connection lost"), Ok(8)]).boxed().faults().named("bad"),
    ];
    let (sender, receiver) = async_channel::unbounded();
    let error = block_on(merge_into(&context(), sources, sender.clone()).quantum(1));
    let error = error.expect_err("a fault");
    assert_eq!((error.code(), error.source_name()), (ErrorCode::Source, Some("bad")));
    assert_eq!((error.metadata("delivered"), error.metadata("undelivered")), (Some("3"), None));
    assert!(sender.is_closed());
    assert_eq!((left_in(&receiver), left_in(&good)), (vec![1, 7, 2], vec![]));
}

// Rule 3.2: noticed beside an always-ready source, within one turn
#[test]
fn a_fault_is_noticed_beside_a_source_that_is_always_ready() {
    let sources = [
        stream::repeat(Ok(1)).boxed().faults(),
        stream::iter([Err("connection lost")]).boxed().faults(),
    ];
    let (sender, receiver) = async_channel::unbounded();
    let error = block_on(merge_into(&context(), sources, sender).quantum(5));
    assert_eq!(error.expect_err("a fault").code(), ErrorCode::Source);
    assert_eq!(receiver.len(), 5);
}

// Rule 3.5
#[test]
fn a_merge_cancelled_before_its_first_poll_takes_nothing() {
    for by_context in [true, false] {
        let stop = CancellationSource::new();
        let mut context = context();
        if by_context {
            context = context.with_cancellation(stop.token());
        }
        let source = filled([1]);
        let (sender, receiver) = async_channel::bounded(1);
        let mut merge = merge_into(&context, [source.clone()], sender);
        if !by_context {
            merge = merge.cancellation(stop.token());
        }
        stop.cancel();
        assert_eq!(block_on(merge).expect_err("cancelled").code(), ErrorCode::Canceled);
        assert_eq!((left_in(&source), receiver.is_closed()), (vec![1], true));
    }
}

// Rule 3.5
#[test]
fn a_merge_is_cancelled_while_it_waits_for_room_and_while_it_waits_for_messages() {
    for full in [true, false] {
        let stop = CancellationSource::new();
        let (sender, receiver) = async_channel::bounded(if full { 1 } else { 9 });
        let (_open, source) = {
            let (feed, source) = async_channel::unbounded();
            for message in [1, 2, 3] {
                feed.try_send(message).expect("open");
            }
            (feed, source)
        };
        let mut left = Vec::new();
        let mut merge = merge_into(&context(), [source.clone()], sender)
            .cancellation(stop.token())
            .undelivered(|message| left.extend(message.into_message().ok()))
            .into_future();
        assert!(poll_times(&mut merge, 3).is_none());
        stop.cancel();
        let error = poll_times(&mut merge, 1).expect("it is over").expect_err("cancelled");
        assert_eq!(error.code(), ErrorCode::Canceled);
        assert_eq!(error.metadata("delivered"), Some(if full { "1" } else { "3" }));
        drop(merge);
        assert_eq!(left, if full { vec![2] } else { vec![] });
        assert_eq!(left_in(&receiver), if full { vec![1] } else { vec![1, 2, 3] });
        assert_eq!(left_in(&source), if full { vec![3] } else { vec![] });
    }
}

// Rules 2.4, 3.5
#[test]
fn an_always_ready_source_does_not_starve_the_cancellation() {
    let stop = CancellationSource::new();
    let token = stop.token();
    let mut count = 0;
    let source = stream::repeat_with(|| {
        count += 1;
        if count == 1_000 {
            stop.cancel();
        }
        count
    });
    let (sender, receiver) = async_channel::unbounded();
    let error = block_on(merge_into(&context(), [source], sender).cancellation(token));
    assert_eq!(error.expect_err("cancelled").code(), ErrorCode::Canceled);
    assert!(receiver.len() <= 1_064, "{}", receiver.len());
}

// Rule 3.3
#[test]
fn a_timeout_of_zero_takes_nothing_and_one_without_end_never_fires() {
    let source = filled([1, 2]);
    let (sender, _receiver) = async_channel::bounded(9);
    let timed =
        merge_into(&on(&ManualClock::new()), [source.clone()], sender).timeout(Duration::ZERO);
    let error = block_on(timed).expect_err("it times out");
    assert_eq!((error.code(), error.metadata("duration")), (ErrorCode::Timeout, Some("0ns")));
    assert_eq!(source.len(), 2);
    let (sender, receiver) = async_channel::bounded(9);
    let untimed = merge_into(&on(&ManualClock::new()), [source], sender).timeout(Duration::MAX);
    assert!(block_on(untimed).is_ok());
    assert_eq!(left_in(&receiver), [1, 2]);
}

// Rule 3.3
#[test]
fn the_timeout_counts_from_the_first_poll_and_fires_while_the_merge_waits() {
    for full in [true, false] {
        let clock = ManualClock::new();
        let (_feed, idle) = async_channel::unbounded();
        let (sender, receiver) = async_channel::bounded(1);
        let sources = if full { vec![filled([1, 2]), idle] } else { vec![idle] };
        let mut left = None;
        let mut merge = merge_into(&on(&clock), sources, sender)
            .timeout(10 * SECOND)
            .undelivered(|message| left = message.into_message().ok())
            .into_future();
        clock.advance(100 * SECOND);
        assert!(poll_times(&mut merge, 3).is_none());
        clock.advance(Duration::from_nanos(9_999_999_999));
        assert!(poll_times(&mut merge, 3).is_none(), "a nanosecond is left");
        clock.advance(Duration::from_nanos(1));
        let error = poll_times(&mut merge, 1).expect("it is over").expect_err("it timed out");
        assert_eq!((error.code(), error.metadata("duration")), (ErrorCode::Timeout, Some("10s")));
        drop(merge);
        assert_eq!((left, receiver.len()), if full { (Some(2), 1) } else { (None, 0) });
    }
}

// Rules 2.4, 3.3
#[test]
fn an_always_ready_source_does_not_starve_the_timeout() {
    let clock = ManualClock::new();
    let ticking = {
        let clock = clock.clone();
        stream::repeat_with(move || clock.advance(Duration::from_millis(1)))
    };
    let (sender, receiver) = async_channel::unbounded();
    let error = block_on(merge_into(&on(&clock), [ticking], sender).timeout(SECOND));
    assert_eq!(error.expect_err("it times out").code(), ErrorCode::Timeout);
    assert!((1_000..=1_064).contains(&receiver.len()), "{}", receiver.len());
}

// Rule 2.1
#[test]
fn a_closed_destination_ends_the_merge_before_the_next_message_is_taken() {
    let source = filled([1, 2, 3]);
    let (feed, idle) = async_channel::unbounded();
    let (sender, receiver) = async_channel::bounded(9);
    let sources = [source.clone(), idle.clone()];
    let mut merge = merge_into(&context(), sources, sender).into_future();
    assert!(poll_times(&mut merge, 1).is_none());
    drop(receiver);
    feed.try_send(4).expect("open");
    let error = poll_times(&mut merge, 1).expect("it is over").expect_err("closed");
    assert_eq!(error.code(), ErrorCode::ChannelCompleted);
    assert_eq!((left_in(&idle), error.metadata("delivered")), (vec![4], Some("3")));
}

#[test]
fn a_message_that_waits_when_its_destination_is_closed_goes_to_the_callback() {
    for keep_open in [true, false] {
        let (sender, receiver) = async_channel::bounded(1);
        let source = filled([1, 2, 3]);
        let mut left = None;
        let mut merge = merge_into(&context(), [source.clone()], sender);
        if keep_open {
            merge = merge.keep_open();
        }
        let merge = merge.undelivered(|message| left = message.into_message().ok());
        let mut merge = merge.into_future();
        assert!(poll_times(&mut merge, 2).is_none());
        receiver.close();
        let error = poll_times(&mut merge, 1).expect("it is over").expect_err("closed");
        assert_eq!(error.code(), ErrorCode::ChannelCompleted);
        assert_eq!(error.metadata("undelivered"), Some("1"));
        drop(merge);
        assert_eq!((left, left_in(&receiver), left_in(&source)), (Some(2), vec![1], vec![3]));
    }
}

#[test]
fn keep_open_leaves_the_destination_open_on_success_failure_and_drop() {
    let (sender, receiver) = async_channel::bounded(1);
    block_on(merge_into(&context(), [filled([1])], sender.clone()).keep_open())
        .expect("it succeeds");
    let cancelled = CancellationSource::new();
    cancelled.cancel();
    let failing = merge_into(&context(), [filled([2])], sender.clone()).keep_open();
    assert!(block_on(failing.cancellation(cancelled.token())).is_err());
    let dropped = merge_into(&context(), [filled([3])], sender.clone()).keep_open();
    assert!(poll_times(&mut dropped.into_future(), 2).is_none());
    assert!(!sender.is_closed());
    let never_polled = merge_into(&context(), [filled([4])], sender.clone());
    drop(never_polled.into_future());
    assert!(!sender.is_closed(), "what never started ends nothing");
    let dropped = merge_into(&context(), [filled([5])], sender.clone());
    assert!(poll_times(&mut dropped.into_future(), 2).is_none());
    assert!(sender.is_closed());
    assert_eq!(left_in(&receiver), [1]);
}

// Rules 2.1, 4.1 in spirit: no message is lost
#[test]
fn a_merge_dropped_after_any_poll_loses_no_message() {
    for capacity in [1, 2, 100] {
        for k in 0.. {
            let sources = [filled([1, 2, 3]), filled([4, 5]), filled([6, 7, 8])];
            let (sender, receiver) = async_channel::bounded(capacity);
            let mut all = Vec::new();
            let merge = merge_into(&context(), sources.clone(), sender.clone()).quantum(2);
            let mut merge = merge
                .undelivered(|message| all.push(message.into_message().expect("it is closed")))
                .into_future();
            let mut arrived = Vec::new();
            let mut ended = false;
            for _ in 0..k {
                ended = poll_times(&mut merge, 1).is_some();
                arrived.extend(receiver.try_recv().ok());
                if ended {
                    break;
                }
            }
            drop(merge);
            assert!(all.len() <= 1);
            all.extend(arrived);
            all.extend(left_in(&receiver));
            all.extend(sources.iter().flat_map(left_in));
            all.sort_unstable();
            assert_eq!(all, [1, 2, 3, 4, 5, 6, 7, 8], "capacity {capacity}, poll {k}");
            assert_eq!(sender.is_closed(), k > 0);
            if ended {
                assert!(k > 6 || capacity > 2);
                break;
            }
        }
    }
}

// The same for a destination that stays open: what waits is delivered late
#[test]
fn a_merge_that_keeps_its_destination_open_loses_no_message_when_it_is_dropped() {
    for k in 0..12 {
        let source = filled([1, 2, 3, 4]);
        let (sender, receiver) = async_channel::bounded(1);
        let mut waiting = None;
        let mut all = Vec::new();
        let merge = merge_into(&context(), [source.clone()], sender).keep_open();
        let merge = merge.undelivered(|message| waiting = Some(message));
        let mut merge = merge.into_future();
        for poll in 0..k {
            if poll_times(&mut merge, 1).map(|result| result.expect("it succeeds")).is_some() {
                break;
            }
            if poll % 2 == 1 {
                all.extend(receiver.try_recv().ok());
            }
        }
        drop(merge);
        if let Some(waiting) = waiting {
            all.extend(receiver.try_recv().ok());
            assert_eq!(block_on(waiting), Ok(()));
        }
        all.extend(left_in(&receiver));
        all.extend(left_in(&source));
        assert_eq!(all, [1, 2, 3, 4], "poll {k}");
    }
}

// What waits is tried once more before it is given up
#[test]
fn a_message_that_has_room_when_the_merge_ends_is_delivered() {
    for (by_drop, keep_open) in [(true, true), (true, false), (false, true), (false, false)] {
        let stop = CancellationSource::new();
        let (sender, receiver) = async_channel::bounded(1);
        let mut merge = merge_into(&context(), [filled([1, 2])], sender).cancellation(stop.token());
        if keep_open {
            merge = merge.keep_open();
        }
        let mut merge = merge.undelivered(|_| panic!("there is room")).into_future();
        assert!(poll_times(&mut merge, 1).is_none());
        stop.cancel();
        assert_eq!(receiver.try_recv(), Ok(1));
        if !by_drop {
            let error = poll_times(&mut merge, 1).expect("it is over").expect_err("cancelled");
            assert_eq!(error.metadata("delivered"), Some("2"));
            assert_eq!((error.metadata("undelivered"), error.related().len()), (None, 0));
        }
        drop(merge);
        assert_eq!(left_in(&receiver), [2]);
    }
}

// Another producer takes the room between the look and the send
#[test]
fn two_merges_into_one_channel_lose_nothing_to_each_other() {
    let (sender, receiver) = async_channel::bounded(1);
    let both = [filled(0..50), filled(50..100)].map(|source| {
        let merge = merge_into(&context(), [source], sender.clone());
        Some(merge.keep_open().into_future())
    });
    let mut both = both.map(|merge| merge.expect("there"));
    let (mut all, mut done) = (Vec::new(), [false; 2]);
    while !done.iter().all(|done| *done) {
        for (merge, done) in both.iter_mut().zip(&mut done) {
            if !*done {
                *done = poll_times(merge, 1).map(|result| result.expect("it succeeds")).is_some();
            }
        }
        all.extend(receiver.try_recv().ok());
    }
    all.extend(left_in(&receiver));
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}

// Rule 3.7
#[test]
fn a_panic_in_a_source_is_an_error_with_its_name() {
    let sources = [
        filled([1]).boxed().named("good"),
        stream::iter([2, 3])
            .map(|m| if m == 3 { panic!("bad cable") } else { m })
            .boxed()
            .named("bad"),
    ];
    let (sender, receiver) = async_channel::bounded(9);
    let error = block_on(merge_into(&context(), sources, sender)).expect_err("a panic");
    assert_eq!((error.code(), error.source_name()), (ErrorCode::Panic, Some("bad")));
    assert!(error.to_string().contains("bad cable"), "{error}");
    assert_eq!((left_in(&receiver), receiver.is_closed()), (vec![1, 2], true));
}

/// Panics in one of its methods.
struct Touchy(&'static str, Vec<u32>);

impl Destination for Touchy {
    type Message = u32;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        assert!(self.0 != "ready", "touchy");
        Poll::Ready(Ok(()))
    }

    fn try_send(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        message: u32,
    ) -> Result<(), Refused<u32>> {
        assert!(self.0 != "send", "touchy");
        self.1.push(message);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        assert!(self.0 != "close", "touchy");
        Poll::Ready(Ok(()))
    }
}

// Rule 3.7
#[test]
fn a_panic_in_the_destination_is_an_error() {
    for method in ["ready", "send", "close"] {
        let source = filled([1, 2]);
        let mut touchy = Touchy(method, Vec::new());
        let error = block_on(merge_into(&context(), [source.clone()], &mut touchy));
        let error = error.expect_err("a panic");
        assert_eq!(error.code(), ErrorCode::Panic, "{method}");
        assert!(error.to_string().contains("the destination panicked"), "{error}");
        assert_eq!(touchy.1.len(), if method == "close" { 2 } else { 0 });
        assert_eq!(
            source.len(),
            match method {
                "ready" => 2,
                "send" => 1,
                _ => 0,
            }
        );
    }
}

// Rules 3.7, 4.12
#[test]
fn a_panic_in_the_callback_and_in_destructors_is_contained() {
    let stop = CancellationSource::new();
    for by_drop in [true, false] {
        let (sender, receiver) = async_channel::bounded(1);
        let source = {
            let bomb = Bomb;
            stream::iter([1, 2, 3]).map(move |message| (message, &bomb).0)
        };
        let merge = merge_into(&context(), [source], sender).cancellation(stop.token());
        let merge = merge.undelivered(|message| panic!("{:?}", message.into_message().ok()));
        let mut merge = merge.into_future();
        if by_drop {
            assert!(poll_times(&mut merge, 2).is_none());
            drop(merge);
        } else {
            assert!(poll_times(&mut merge, 2).is_none());
            stop.cancel();
            let error = poll_times(&mut merge, 1).expect("it is over").expect_err("cancelled");
            assert_eq!(error.code(), ErrorCode::Canceled);
            assert_eq!(error.related()[0].code(), ErrorCode::Panic);
        }
        assert!(receiver.is_closed());
    }
}

// Rule 3.7
#[test]
fn the_destructor_of_a_source_that_ended_fails_the_merge() {
    let bomb = Bomb;
    let source = stream::iter([1]).map(move |message| (message, &bomb).0);
    let (sender, receiver) = async_channel::bounded(9);
    let error = block_on(merge_into(&context(), [source], sender)).expect_err("a panic");
    assert_eq!((error.code(), left_in(&receiver)), (ErrorCode::Panic, vec![1]));
}

#[test]
fn a_merge_that_has_ended_says_so_when_it_is_polled_again() {
    let (sender, _receiver) = async_channel::bounded(9);
    let mut merge = merge_into(&context(), [filled([1])], sender).into_future();
    assert!(poll_times(&mut merge, 1).expect("it is over").is_ok());
    let error = poll_times(&mut merge, 1).expect("it is over").expect_err("no more");
    assert_eq!(error.code(), ErrorCode::Unspecified);
}

// Rule 5.4
#[test]
fn the_same_input_gives_the_same_order() {
    let run = || {
        let sources: Vec<_> = (0..7).map(|s| filled((0..s * 3).map(move |m| (s, m)))).collect();
        let merged = merge(&on(&ManualClock::new()), sources).quantum(2);
        block_on(merged.try_collect::<Vec<_>>()).expect("it succeeds")
    };
    assert_eq!(run(), run());
}

// Rule 2.1
#[test]
fn a_merged_stream_dropped_after_any_item_leaves_the_rest_in_the_sources() {
    for k in 0..=8 {
        let sources = [filled([1, 2, 3]), filled([4, 5]), filled([6, 7, 8])];
        let mut merged = merge(&context(), sources.clone()).quantum(2);
        let mut all = Vec::new();
        for _ in 0..k {
            all.push(block_on(merged.next()).expect("there is one").expect("no error"));
        }
        drop(merged);
        all.extend(sources.iter().flat_map(left_in));
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4, 5, 6, 7, 8], "after {k}");
    }
}

// Rules 3.2, 3.3, 3.5
#[test]
fn a_merged_stream_ends_with_its_error_as_the_last_item() {
    let clock = ManualClock::new();
    let stop = CancellationSource::new();
    let ends: [(ErrorCode, &dyn Fn()); 2] =
        [(ErrorCode::Timeout, &|| clock.advance(SECOND)), (ErrorCode::Canceled, &|| stop.cancel())];
    for (code, end) in ends {
        let (feed, source) = async_channel::unbounded();
        feed.try_send(1).expect("open");
        let mut merged =
            merge(&on(&clock), [source.clone()]).timeout(SECOND).cancellation(stop.token());
        assert_eq!(poll_times(&mut merged.next(), 1).expect("ready").expect("one").ok(), Some(1));
        assert!(poll_times(&mut merged.next(), 3).is_none());
        end();
        feed.try_send(2).expect("open");
        let error = poll_times(&mut merged.next(), 1).expect("ready").expect("an item");
        assert_eq!(error.expect_err("the end").code(), code);
        assert!(merged.is_terminated());
        assert!(poll_times(&mut merged.next(), 1).expect("ready").is_none());
        assert_eq!(left_in(&source), [2]);
    }
    let sources = [stream::iter([Ok(1), Err("lost"), Ok(2)]).faults().named("feed")];
    let items: Vec<_> = block_on(merge(&context(), sources).collect());
    assert_eq!((items.len(), items[0].as_ref().ok()), (2, Some(&1)));
    assert_eq!(items[1].as_ref().expect_err("a fault").source_name(), Some("feed"));
}

// Rule 3.7
#[test]
fn a_merged_stream_contains_the_panic_of_a_source() {
    let source = stream::iter([1]).map(|message: u32| if message == 1 { panic!("no") } else { 2 });
    let items: Vec<_> = block_on(merge(&context(), [source]).collect());
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].as_ref().expect_err("a panic").code(), ErrorCode::Panic);
}

// Rule 2.4
#[test]
fn a_merged_stream_gives_the_thread_back_regularly() {
    let merged = merge(&context(), [stream::repeat(1)]).quantum(usize::MAX);
    let sum = merged.fold(0, |sum, item| async move { sum + item.expect("no error") });
    assert!(poll_times(&mut Box::pin(sum), 100).is_none());
}

// Rule 4.12: a task's waker that panics is contained where a source wakes it
#[test]
fn a_panicking_waker_does_not_reach_the_producer() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("waker");
        }
    }
    let waker = Waker::from(Arc::new(Panics));
    let (feed, source) = async_channel::unbounded();
    let mut merged = merge(&context(), [source]);
    assert!(Pin::new(&mut merged).poll_next(&mut Context::from_waker(&waker)).is_pending());
    feed.try_send(1).expect("open");
    assert_eq!(poll_times(&mut merged.next(), 1).expect("ready").expect("one").ok(), Some(1));
}

// Rule 5.3
#[test]
fn merges_are_send_when_their_parts_are() {
    fn send<T: Send>(_: &T) {}
    let (sender, _receiver) = async_channel::bounded(9);
    let merging = merge_into(&context(), [filled([1])], sender).undelivered(|_| {});
    send(&merging);
    send(&merging.into_future());
    send(&merge(&context(), [filled([1])]));
}

// Rules 3.1, 5.2
async fn all_messages_arrive() {
    let (sender, receiver) = async_channel::bounded(2);
    let sources = [filled(0..50), filled(50..100)];
    let merge = merge_into(&context(), sources, sender).into_future();
    let (report, mut all) = futures::join!(merge, receiver.collect::<Vec<_>>());
    all.sort_unstable();
    assert_eq!(report.expect("it succeeds").delivered(), 100);
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}

// Rules 2.2, 5.2
async fn live_producers_and_a_consumer_on_other_threads() {
    let (left, from_left) = async_channel::bounded(2);
    let (right, from_right) = async_channel::bounded(2);
    let producers = [left, right].map(|sender| {
        std::thread::spawn(move || (0..500_u32).all(|n| sender.send_blocking(n).is_ok()))
    });
    let (sender, receiver) = async_channel::bounded(2);
    let consumer = std::thread::spawn(move || {
        std::iter::from_fn(|| receiver.recv_blocking().ok()).sum::<u32>()
    });
    let report =
        merge_into(&context(), [from_left, from_right], sender).await.expect("it succeeds");
    assert_eq!(report.delivered(), 1000);
    assert_eq!(consumer.join().expect("the thread ends"), 2 * (0..500).sum::<u32>());
    assert!(producers.map(|producer| producer.join().expect("the thread ends")) == [true; 2]);
}

// Rules 3.5, 5.2
async fn cancellation_from_another_thread_ends_a_merge_in_front_of_a_full_channel() {
    let stop = CancellationSource::new();
    let (sender, _receiver) = async_channel::bounded(1);
    let left = Arc::new(Mutex::new(Vec::new()));
    let got = Arc::clone(&left);
    let merge = merge_into(&context(), [filled([1, 2, 3])], sender).cancellation(stop.token());
    let merge = merge.undelivered(move |message| {
        got.lock().expect("no panic").extend(message.into_message().ok());
    });
    let canceller = std::thread::spawn(move || stop.cancel());
    let error = merge.await.expect_err("cancelled");
    assert_eq!(error.code(), ErrorCode::Canceled);
    assert!(left.lock().expect("no panic").len() <= 1);
    canceller.join().expect("the thread ends");
}

// Rules 3.3, 5.2
async fn a_timeout_ends_an_idle_stream() {
    let (_feed, source) = async_channel::unbounded::<u32>();
    let mut merged = merge(&context(), [source]).timeout(Duration::from_millis(5));
    let error = merged.next().await.expect("an item").expect_err("the end");
    assert_eq!(error.code(), ErrorCode::Timeout);
}

on_every_executor! {
    all_messages_arrive,
    live_producers_and_a_consumer_on_other_threads,
    cancellation_from_another_thread_ends_a_merge_in_front_of_a_full_channel,
    a_timeout_ends_an_idle_stream,
}
