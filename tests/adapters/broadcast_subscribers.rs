//! Destinations that are added to a broadcast, and taken away, while it runs.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{block_on, filled, left_in, poll_times};
use async_channel::{Receiver, bounded, unbounded};
use futures::channel::mpsc;
use futures::stream::{self, StreamExt};
use watershed::channels::{
    DestinationReport, OnClosed, Overflow, Refused, Route, SenderDestination, SinkDestination,
    broadcast, fan_out,
};
use watershed::{CancellationSource, ErrorCode, ManualClock, StepContext};

fn context() -> StepContext {
    StepContext::new("t")
}

/// No destination so far.
fn nobody() -> Option<SenderDestination<u32>> {
    None
}

#[test]
fn one_that_comes_gets_every_item_from_the_next_one_on() {
    let (feed, source) = unbounded();
    let (first, from_first) = unbounded();
    let mut news = broadcast(&context(), source, [first]);
    let subscribers = news.subscribers();
    let mut news = news.into_future();
    feed.try_send(1).expect("open");
    assert!(poll_times(&mut news, 2).is_none());
    let (second, from_second) = unbounded();
    feed.try_send(2).expect("open");
    assert_eq!(subscribers.add(second).expect("it runs"), 1);
    feed.try_send(3).expect("open");
    assert!(poll_times(&mut news, 2).is_none());
    feed.close();
    let report = poll_times(&mut news, 2).expect("it is over").expect("it succeeds");
    assert_eq!(left_in(&from_first), [1, 2, 3]);
    assert_eq!(left_in(&from_second), [2, 3], "the second item was not taken yet");
    assert!(from_second.is_closed());
    let rows: Vec<_> =
        report.destinations().iter().map(|to| (to.position(), to.delivered())).collect();
    assert_eq!((rows, report.departed()), (vec![(0, 3), (1, 2)], 0));
}

// What enters the source behind the addition is never missed, whatever the broadcast does meanwhile.
#[test]
fn one_that_came_before_an_item_entered_the_source_gets_it() {
    for _ in 0..200 {
        let (feed, source) = bounded(2);
        let (first, _from_first) = unbounded();
        let mut news = broadcast(&context(), source, [first]);
        let subscribers = news.subscribers();
        std::thread::scope(|threads| {
            let running = threads.spawn(move || block_on(news.into_future()));
            for item in 0..5_u32 {
                let (sender, receiver) = unbounded();
                let position = subscribers.add(sender).expect("it runs");
                feed.send_blocking(item).expect("open");
                let seen = receiver.recv_blocking();
                assert_eq!(seen, Ok(item));
                assert!(subscribers.remove(position));
            }
            feed.close();
            let report = running.join().expect("no panic").expect("it succeeds");
            assert_eq!(report.items(), 5);
            let there = report.destinations().len() as u64 - 1;
            assert_eq!(report.departed() + there, 5);
        });
    }
}

#[test]
fn one_that_is_removed_gets_no_further_item_and_is_closed() {
    for keep_open in [true, false] {
        let (feed, source) = unbounded();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| unbounded()).unzip();
        let mut news = broadcast(&context(), source, senders.clone());
        if keep_open {
            news = news.keep_open();
        }
        let subscribers = news.subscribers();
        let mut news = news.into_future();
        feed.try_send(1).expect("open");
        assert!(poll_times(&mut news, 2).is_none());
        assert!(subscribers.remove(1));
        assert!(!subscribers.remove(1), "it is not there any more");
        assert!(!subscribers.remove(7), "it never was");
        assert_eq!(subscribers.len(), 2);
        feed.try_send(2).expect("open");
        assert!(poll_times(&mut news, 2).is_none());
        assert_eq!(receivers[1].is_closed(), !keep_open);
        feed.close();
        let report = poll_times(&mut news, 2).expect("it is over").expect("it succeeds");
        let got: Vec<_> = receivers.iter().map(left_in).collect();
        assert_eq!(got, [vec![1, 2], vec![1], vec![1, 2]]);
        let removed: Vec<_> =
            report.destinations().iter().map(DestinationReport::is_removed).collect();
        assert_eq!(removed, [false, true, false]);
        assert_eq!(report.destinations()[1].missed(), 0);
        assert!(!subscribers.remove(0) && subscribers.is_empty(), "it is over");
    }
}

// The slow one can be taken away: it has held up everybody, and its item is told.
#[test]
fn one_that_is_removed_while_it_waits_for_room_lets_the_others_go_on() {
    let (feed, source) = unbounded();
    let (wide, from_wide) = unbounded();
    let (narrow, from_narrow) = bounded(1);
    let mut news = broadcast(&context(), source.clone(), [wide, narrow]);
    let subscribers = news.subscribers();
    let mut news = news.into_future();
    for item in 1..=4 {
        feed.try_send(item).expect("open");
    }
    assert!(poll_times(&mut news, 3).is_none());
    assert_eq!((from_wide.len(), source.len()), (2, 2), "the narrow one has no room for 2");
    assert!(subscribers.remove(1));
    feed.close();
    let report = poll_times(&mut news, 5).expect("it is over").expect("it succeeds");
    assert_eq!(left_in(&from_wide), [1, 2, 3, 4]);
    assert_eq!(left_in(&from_narrow), [1], "what was counted as missed does not come later");
    let narrow = report.destinations()[1];
    assert_eq!((narrow.delivered(), narrow.missed(), narrow.is_removed()), (1, 1, true));
    assert!(report.missed_by().is_empty(), "nothing was in between at the end");
}

// A removal that finds room delivers what waits
#[test]
fn one_that_is_removed_when_there_is_room_again_gets_the_item_that_waits() {
    let (wide, from_wide) = unbounded();
    let (narrow, from_narrow) = bounded(1);
    let mut news = broadcast(&context(), filled([1, 2, 3]), [wide, narrow]);
    let subscribers = news.subscribers();
    let mut news = news.into_future();
    assert!(poll_times(&mut news, 3).is_none());
    assert_eq!(from_narrow.try_recv(), Ok(1));
    subscribers.remove(1);
    let report = poll_times(&mut news, 5).expect("it is over").expect("it succeeds");
    assert_eq!((left_in(&from_wide), left_in(&from_narrow)), (vec![1, 2, 3], vec![2]));
    assert_eq!(report.destinations()[1].missed(), 0);
}

#[test]
fn a_broadcast_without_destinations_waits_for_one_as_long_as_one_can_come() {
    let source = filled([1, 2]);
    let mut news = broadcast(&context(), source.clone(), nobody());
    let subscribers = news.subscribers();
    let mut news = news.into_future();
    assert!(poll_times(&mut news, 5).is_none());
    assert_eq!(source.len(), 2, "nothing is taken");
    let (sender, receiver) = unbounded();
    assert_eq!(subscribers.add(sender).expect("it runs"), 0);
    let report = poll_times(&mut news, 2).expect("it is over").expect("it succeeds");
    assert_eq!((left_in(&receiver), report.destinations().len()), (vec![1, 2], 1));

    let mut alone = broadcast(&context(), source.clone(), nobody());
    drop(alone.subscribers());
    let error = block_on(alone.into_future()).expect_err("none can come").into_error();
    assert_eq!(error.code(), ErrorCode::Validation);
}

// The last handle, the last destination: in either order, from another thread.
#[test]
fn a_broadcast_that_nobody_can_join_any_more_ends() {
    for handle_first in [true, false] {
        let (feed, source) = unbounded();
        feed.try_send(1).expect("open");
        let mut news = broadcast(&context(), source.clone(), nobody());
        let subscribers = news.subscribers();
        let other = subscribers.clone();
        drop(other);
        let (sender, receiver) = unbounded();
        let error = std::thread::scope(|threads| {
            let news = news.on_closed(OnClosed::Detach);
            let running = threads.spawn(move || block_on(news.into_future()));
            let position = subscribers.add(sender).expect("it runs");
            assert_eq!(receiver.recv_blocking(), Ok(1));
            if handle_first {
                drop(subscribers);
                receiver.close();
            } else {
                subscribers.remove(position);
                drop(subscribers);
            }
            running.join().expect("no panic").expect_err("nobody is left").into_error()
        });
        assert_eq!(error.code(), ErrorCode::ChannelCompleted);
        feed.try_send(2).expect("what nobody got is still in the source");
        assert_eq!(source.len(), 1);
    }
}

// Nothing is lost in between: an item that went with the last destination goes to the next one.
#[test]
fn an_item_that_nobody_has_is_kept_for_the_next_one() {
    for removed in [true, false] {
        let (narrow, from_narrow) = bounded(1);
        let source = filled([1, 2, 3]);
        let mut missed = None;
        let mut news = broadcast(&context(), source.clone(), [narrow])
            .on_closed(OnClosed::Detach)
            .undelivered(|item| missed = item.into_message().ok());
        let subscribers = news.subscribers();
        let mut news = news.into_future();
        assert!(poll_times(&mut news, 3).is_none());
        if removed {
            assert!(subscribers.remove(0));
        } else {
            from_narrow.close();
        }
        assert!(poll_times(&mut news, 3).is_none());
        assert_eq!(source.len(), 1, "the second item is in hand");
        let (sender, receiver) = bounded(1);
        subscribers.add(sender).expect("it runs");
        assert!(poll_times(&mut news, 3).is_none());
        assert_eq!((left_in(&from_narrow), receiver.try_recv()), (vec![1], Ok(2)));
        let report = poll_times(&mut news, 3).expect("it is over").expect("it succeeds");
        assert_eq!((report.items(), report.destinations()[0].missed()), (3, 1));
        drop(news);
        assert_eq!((left_in(&receiver), missed), (vec![3], None));
    }
    let (narrow, from_narrow) = bounded(1);
    let mut missed = None;
    let mut news = broadcast(&context(), filled([1, 2]), [narrow])
        .on_closed(OnClosed::Detach)
        .undelivered(|item| missed = item.into_message().ok());
    let subscribers = news.subscribers();
    let mut news = news.into_future();
    assert!(poll_times(&mut news, 3).is_none());
    from_narrow.close();
    assert!(poll_times(&mut news, 3).is_none());
    drop(subscribers);
    let failure = poll_times(&mut news, 3).expect("none can come").expect_err("nobody is left");
    assert_eq!(
        (failure.error().code(), failure.report().items()),
        (ErrorCode::ChannelCompleted, 2)
    );
    drop(news);
    assert_eq!(missed, Some(2));
}

#[test]
fn one_that_comes_too_late_comes_back() {
    let (first, _from_first) = unbounded();
    let mut news = broadcast(&context(), filled([1]), [first]);
    let subscribers = news.subscribers();
    block_on(news.into_future()).expect("it succeeds");
    let (late, from_late) = unbounded();
    let refused = subscribers.add(late).expect_err("it is over");
    assert!(matches!(refused, Refused::Closed(_)));
    drop(refused.into_message());
    assert!(from_late.is_closed());

    // One of a broadcast that never began, too.
    let (first, _from_first) = unbounded();
    let mut never = broadcast(&context(), filled([1]), [first]);
    let subscribers = never.subscribers();
    let (early, from_early) = unbounded();
    subscribers.add(early).expect("it may begin");
    drop(never);
    assert!(from_early.is_closed());
    let (late, _from_late) = unbounded();
    subscribers.add(late).expect_err("it is over");
}

// Two ends at once: whoever was let in is closed with the others.
#[test]
fn one_that_comes_as_the_broadcast_ends_is_closed_or_comes_back() {
    for round in 0..300 {
        let stop = CancellationSource::new();
        let (first, _from_first) = unbounded();
        let (_feed, source) = unbounded::<u32>();
        let mut news = broadcast(&context(), source, [first]).cancellation(stop.token());
        let subscribers = news.subscribers();
        let (late, from_late) = unbounded();
        let added = std::thread::scope(|threads| {
            let running = threads.spawn(move || block_on(news.into_future()));
            let adding = threads.spawn(move || {
                let added = subscribers.add(late);
                let removed = round % 2 == 0 && subscribers.remove(1);
                added.is_ok() && !removed
            });
            stop.cancel();
            let failure = running.join().expect("no panic").expect_err("cancelled");
            assert_eq!(failure.error().code(), ErrorCode::Canceled);
            let added = adding.join().expect("no panic");
            if added {
                assert_eq!(failure.report().destinations().len(), 2);
            }
            added
        });
        assert!(from_late.is_closed(), "{added}");
    }
}

// Overflow::DropOldest asks for something that not every destination can do
#[test]
fn one_that_cannot_drop_its_oldest_item_is_refused_where_that_is_asked_for() {
    let (feed, source) = unbounded();
    let (first, mut from_first) = mpsc::channel::<u32>(4);
    let (second, _from_second) = mpsc::channel(4);
    let mut news =
        broadcast(&context(), source, [SinkDestination::new(first)]).overflow(Overflow::DropNewest);
    let subscribers = news.subscribers();
    let mut news = news.into_future();
    assert!(poll_times(&mut news, 1).is_none());
    subscribers.add(SinkDestination::new(second)).expect("it drops the newest");
    feed.try_send(1).expect("open");
    assert!(poll_times(&mut news, 2).is_none());
    assert_eq!(block_on(from_first.next()), Some(1));

    let (_feed, source) = unbounded();
    let (sink, _from_sink) = mpsc::channel::<u32>(4);
    let none = Some(SinkDestination::new(sink)).filter(|_| false);
    let mut news = broadcast(&context(), source, none).overflow(Overflow::DropOldest);
    let subscribers = news.subscribers();
    let mut news = news.into_future();
    assert!(poll_times(&mut news, 1).is_none());
    let (sink, _from_sink) = mpsc::channel(4);
    let refused = subscribers.add(SinkDestination::new(sink)).expect_err("it cannot");
    let Refused::Failed(error, Some(_)) = refused else { panic!("{refused:?}") };
    assert_eq!(error.code(), ErrorCode::Validation);
}

#[test]
fn branches_of_a_fan_out_and_routes_come_and_go_as_well() {
    let (feed, source) = unbounded();
    let (mut fanning, branches) = fan_out(&context(), source, 2, 8);
    let subscribers = fanning.subscribers();
    let mut fanning = fanning.into_future();
    feed.try_send(1_u32).expect("open");
    assert!(poll_times(&mut fanning, 2).is_none());
    let (third, from_third) = bounded(8);
    assert_eq!(subscribers.add(third).expect("it runs"), 2);
    subscribers.remove(0);
    feed.try_send(2).expect("open");
    feed.close();
    let report = poll_times(&mut fanning, 3).expect("it is over").expect("it succeeds");
    assert_eq!(branches.iter().map(left_in).collect::<Vec<_>>(), [vec![1], vec![1, 2]]);
    assert_eq!((left_in(&from_third), report.items()), (vec![2], 2));

    let (feed, source) = unbounded();
    let is_even = |item: &u32| item % 2 == 0;
    let pair = || (unbounded(), unbounded());
    let ((even, from_even), (odd, from_odd)) = pair();
    let mut routed = broadcast(&context(), source, [Route::new(is_even, even, odd)]);
    let subscribers = routed.subscribers();
    let mut routed = routed.into_future();
    feed.try_send(1).expect("open");
    assert!(poll_times(&mut routed, 2).is_none());
    let ((even, more_even), (odd, more_odd)) = pair();
    subscribers.add(Route::new(is_even, even, odd)).expect("it runs");
    feed.try_send(2).expect("open");
    feed.close();
    poll_times(&mut routed, 3).expect("it is over").expect("it succeeds");
    assert_eq!((left_in(&from_even), left_in(&from_odd)), (vec![2], vec![1]));
    assert_eq!((left_in(&more_even), left_in(&more_odd)), (vec![2], vec![]));
}

/// A sink that is never done with closing, and says when it is dropped.
struct Clingy(Arc<AtomicUsize>);

impl futures::Sink<u32> for Clingy {
    type Error = std::io::Error;
    fn poll_ready(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }
    fn start_send(self: std::pin::Pin<&mut Self>, _: u32) -> Result<(), Self::Error> {
        Ok(())
    }
    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }
    fn poll_close(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Pending
    }
}

impl Drop for Clingy {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

// One that is being closed keeps nobody waiting, until the end, where it has the grace.
#[test]
fn one_that_takes_long_to_close_holds_nobody_up() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let clock = ManualClock::new();
    let context = context().with_clock(Arc::new(clock.clone()));
    let (feed, source) = unbounded();
    let sinks = (0..2).map(|_| SinkDestination::new(Clingy(Arc::clone(&dropped))));
    let mut news = broadcast(&context, source, sinks)
        .timeout(Duration::from_secs(9))
        .grace(Duration::from_secs(1));
    let subscribers = news.subscribers();
    let mut news = news.into_future();
    assert!(subscribers.remove(0));
    for item in 0..10 {
        feed.try_send(item).expect("open");
    }
    assert!(poll_times(&mut news, 3).is_none());
    assert_eq!((feed.len(), dropped.load(Ordering::SeqCst)), (0, 0));
    clock.advance(Duration::from_secs(9));
    assert!(poll_times(&mut news, 3).is_none());
    clock.advance(Duration::from_secs(1));
    let failure = poll_times(&mut news, 3).expect("the grace is over").expect_err("it timed out");
    assert_eq!(failure.error().code(), ErrorCode::Timeout);
    let got: Vec<_> =
        failure.report().destinations().iter().map(DestinationReport::delivered).collect();
    assert_eq!((got, dropped.load(Ordering::SeqCst)), (vec![0, 10], 2));
}

// They come and go for ever, by removal and by closing: nothing of them stays
#[test]
fn a_hundred_thousand_that_come_and_go_leave_nothing_behind() {
    let (feed, source) = unbounded();
    let (first, from_first) = unbounded();
    let mut news = broadcast(&context(), source, [first]).on_closed(OnClosed::Detach);
    let subscribers = news.subscribers();
    let mut news = news.into_future();
    let mut there = VecDeque::<(usize, Receiver<u32>)>::new();
    let (mut got, mut missed) = (0_u64, 0_u64);
    for round in 0..100_000_usize {
        let (sender, receiver) = bounded(1);
        there.push_back((subscribers.add(sender).expect("it runs"), receiver));
        if round % 10 == 9 {
            feed.try_send(u32::try_from(round).expect("small")).expect("open");
            assert!(poll_times(&mut news, 1).is_none());
        }
        if there.len() > 20 {
            let (position, receiver) = there.pop_front().expect("there are some");
            if round % 3 == 0 {
                receiver.close();
            } else {
                assert!(subscribers.remove(position));
            }
            got += left_in(&receiver).len() as u64;
        }
        // Those that are full hold the others up until they are read.
        for (_, receiver) in &there {
            got += left_in(receiver).len() as u64;
        }
        left_in(&from_first);
        if round % 1_000 == 999 {
            assert!(poll_times(&mut news, 2).is_none());
            assert!(subscribers.len() <= 21, "{}", subscribers.len());
        }
    }
    feed.close();
    for (_, receiver) in &there {
        got += left_in(receiver).len() as u64;
    }
    let report = loop {
        if let Some(result) = poll_times(&mut news, 1) {
            break result.expect("it succeeds");
        }
        for (_, receiver) in &there {
            got += left_in(receiver).len() as u64;
        }
    };
    for (_, receiver) in &there {
        got += left_in(receiver).len() as u64;
    }
    assert_eq!(report.items(), 10_000);
    assert!(report.destinations().len() <= 22);
    let rows = report.destinations().iter().filter(|to| to.position() > 0);
    let mut delivered = report.departed_total().delivered();
    missed += report.departed_total().missed();
    for row in rows {
        delivered += row.delivered();
        missed += row.missed();
    }
    assert_eq!(delivered, got);
    assert!(missed < 100_000);
    let all = report.departed() + report.destinations().len() as u64;
    assert_eq!(all, 100_001);
}

// Rule 2.4: one that joins for ever starves nobody
#[test]
fn a_crowd_of_a_hundred_thousand_is_told_and_leaves() {
    let (feed, source) = unbounded();
    let mut news = broadcast(&context(), source, nobody());
    let subscribers = news.subscribers();
    let mut news = news.into_future();
    let receivers: Vec<_> = (0..100_000)
        .map(|_| {
            let (sender, receiver) = bounded(2);
            subscribers.add(sender).expect("it runs");
            receiver
        })
        .collect();
    feed.try_send(1).expect("open");
    assert!(poll_times(&mut news, 3).is_none());
    assert!(receivers.iter().all(|receiver| receiver.try_recv() == Ok(1)));
    for position in 0..100_000 {
        assert!(subscribers.remove(position));
    }
    assert!(poll_times(&mut news, 3).is_none());
    assert!(receivers.iter().all(Receiver::is_closed) && subscribers.is_empty());
    drop(subscribers);
    let failure = poll_times(&mut news, 3).expect("none can come").expect_err("nobody is left");
    assert_eq!(failure.report().departed(), 100_000);
    assert_eq!(failure.report().departed_total().delivered(), 100_000);
}

// Rule 2.4
#[test]
fn an_always_ready_source_does_not_keep_a_destination_from_joining() {
    let (first, from_first) = unbounded();
    let mut news = broadcast(&context(), stream::repeat(7_u32), [first]);
    let subscribers = news.subscribers();
    let mut news = news.into_future();
    assert!(poll_times(&mut news, 1).is_none());
    let (second, from_second) = unbounded();
    subscribers.add(second).expect("it runs");
    assert!(poll_times(&mut news, 1).is_none());
    assert!(!from_second.is_empty() && from_first.len() > from_second.len());
    let told = from_first.len();
    assert!(subscribers.remove(0));
    assert!(poll_times(&mut news, 1).is_none());
    assert_eq!(from_first.len(), told);
}
