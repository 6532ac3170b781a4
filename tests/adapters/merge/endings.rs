//! How it ends.

use super::*;

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
