//! Who gets what.

use super::*;

// Rule 3.1; P45
#[test]
fn every_destination_gets_every_item_in_order_and_is_closed() {
    let (senders, receivers) = channels([9, 9, 9]);
    let report = block_on(broadcast(&context(), filled([1, 2, 3]), senders)).expect("it succeeds");
    assert_eq!(report.items(), 3);
    assert!(report.destinations().iter().all(|to| (to.delivered(), to.dropped()) == (3, 0)));
    for receiver in receivers {
        assert_eq!((left_in(&receiver), receiver.is_closed()), (vec![1, 2, 3], true));
    }
}

// P8
#[test]
fn fan_out_gives_every_branch_every_item() {
    let (broadcast, branches) = fan_out(&context(), filled(0..50), 3, 2);
    let readers = future::join_all(branches.into_iter().map(StreamExt::collect::<Vec<u32>>));
    let (report, read) = block_on(future::join(broadcast.into_future(), readers));
    assert_eq!(report.expect("it succeeds").items(), 50);
    assert_eq!(read, vec![(0..50).collect::<Vec<_>>(); 3]);
}

// PARITY 3.14: the token counts as long as the broadcast runs
#[test]
fn fan_out_is_cancelled_after_it_has_returned_and_ends_its_branches() {
    let stop = CancellationSource::new();
    let context = context().with_cancellation(stop.token());
    let (broadcast, branches) = fan_out(&context, stream::repeat(7), 2, 4);
    let mut broadcast = broadcast.into_future();
    assert!(poll_times(&mut broadcast, 2).is_none());
    stop.cancel();
    let error =
        poll_times(&mut broadcast, 1).expect("it is over").expect_err("cancelled").into_error();
    assert_eq!(error.code(), ErrorCode::Canceled);
    assert!(branches.iter().all(|branch| branch.is_closed() && branch.len() == 4));
}

// P8, P45
#[test]
fn fan_out_goes_on_without_a_branch_that_was_dropped_if_told_so() {
    for (on_closed, delivered) in [(OnClosed::Fail, 0), (OnClosed::Detach, 3)] {
        let (broadcast, mut branches) = fan_out(&context(), filled([1, 2, 3]), 2, 9);
        drop(branches.remove(0));
        let result = block_on(broadcast.on_closed(on_closed));
        assert_eq!(result.is_ok(), delivered > 0);
        assert_eq!(left_in(&branches[0]).len(), delivered);
    }
}

// Rule 2.1: the slowest destination sets the pace
#[test]
fn a_full_destination_holds_the_next_item_back() {
    let source = filled([1, 2, 3, 4]);
    let (senders, receivers) = channels([1, 9]);
    let mut broadcast = broadcast(&context(), source.clone(), senders).into_future();
    for taken in 2..=4 {
        assert!(poll_times(&mut broadcast, 3).is_none());
        assert_eq!((receivers[1].len(), source.len()), (taken, 4 - taken));
        assert_eq!(receivers[0].try_recv(), Ok(u32::try_from(taken).expect("small") - 1));
    }
    assert!(poll_times(&mut broadcast, 3).expect("it is over").is_ok());
    assert_eq!(left_in(&receivers[0]), [4]);
}

// Rule 2.1: an item is taken when all sinks are ready, and not before
#[test]
fn an_item_stays_in_its_source_until_every_sink_is_ready() {
    let source = filled([1, 2, 3]);
    let (narrow, mut from_narrow) = mpsc::channel(0);
    let (wide, mut from_wide) = mpsc::channel(9);
    let mut broadcast =
        broadcast(&context(), source.clone(), [narrow, wide].map(SinkDestination::new))
            .into_future();
    for taken in 1..=3 {
        assert!(poll_times(&mut broadcast, 3).is_none());
        assert_eq!(source.len(), 3 - taken);
        assert!(from_narrow.try_recv().is_ok() && from_wide.try_recv().is_ok());
    }
    assert!(poll_times(&mut broadcast, 3).expect("it is over").is_ok());
}

#[test]
fn drop_newest_leaves_what_a_full_destination_has() {
    let (senders, receivers) = channels([2, 9]);
    let broadcast = broadcast(&context(), filled([1, 2, 3, 4]), senders);
    let report = block_on(broadcast.overflow(Overflow::DropNewest)).expect("it succeeds");
    assert_eq!(receivers.map(|receiver| left_in(&receiver)), [vec![1, 2], vec![1, 2, 3, 4]]);
    let counts =
        [0, 1].map(|to| report.destinations()[to]).map(|to| (to.delivered(), to.dropped()));
    assert_eq!(counts, [(2, 2), (4, 0)]);
}

#[test]
fn drop_newest_works_for_sinks_too() {
    let (sender, receiver) = mpsc::channel(1);
    let broadcast = broadcast(&context(), filled([1, 2, 3, 4]), [SinkDestination::new(sender)]);
    let report = block_on(broadcast.overflow(Overflow::DropNewest)).expect("it succeeds");
    assert_eq!(
        block_on(receiver.collect::<Vec<_>>()),
        [1, 2],
        "a channel of 1 has room for one more a sender"
    );
    assert_eq!((report.destinations()[0].delivered(), report.destinations()[0].dropped()), (2, 2));
}

#[test]
fn drop_oldest_keeps_the_latest_items() {
    let (senders, receivers) = channels([2, 9]);
    let broadcast = broadcast(&context(), filled([1, 2, 3, 4]), senders);
    let report = block_on(broadcast.overflow(Overflow::DropOldest)).expect("it succeeds");
    assert_eq!(receivers.map(|receiver| left_in(&receiver)), [vec![3, 4], vec![1, 2, 3, 4]]);
    let counts =
        [0, 1].map(|to| report.destinations()[to]).map(|to| (to.delivered(), to.dropped()));
    assert_eq!(counts, [(4, 2), (4, 0)]);
}

// PARITY 3.13
#[test]
fn fail_reports_who_has_the_item_and_who_does_not() {
    let (senders, receivers) = channels([9, 1, 9]);
    let source = filled([1, 2, 3]);
    let mut missed = None;
    let (error, report) = block_on(
        broadcast(&context(), source.clone(), senders)
            .overflow(Overflow::Fail)
            .undelivered(|item| missed = Some(parts(item))),
    )
    .expect_err("no room")
    .into_parts();
    assert_eq!(error.code().as_str(), "error.channel.full");
    assert_eq!(missed, Some((2, vec![0], vec![1, 2])));
    assert_eq!(
        (report.items(), report.delivered_to(), report.missed_by()),
        (2, &[0][..], &[1, 2][..])
    );
    assert_eq!((delivered(&report), error.metadata("destination")), (vec![2, 1, 1], Some("1")));
    let failed: Vec<_> = report.destinations().iter().map(DestinationReport::is_failed).collect();
    assert_eq!(failed, [false, true, false]);
    assert!(report.destinations().iter().all(|to| to.dropped() == 0));
    assert_eq!(receivers.map(|receiver| left_in(&receiver)), [vec![1, 2], vec![1], vec![1]]);
    assert_eq!(left_in(&source), [3]);
}

// Rule 6.2
#[test]
fn what_cannot_be_done_is_an_error_before_anything_is_taken() {
    let source = filled([1]);
    let none: [Sender<u32>; 0] = [];
    let error = block_on(broadcast(&context(), source.clone(), none))
        .expect_err("nowhere to go")
        .into_error();
    assert_eq!((error.code(), source.len()), (ErrorCode::Validation, 1));
    let (sender, receiver) = mpsc::channel(1);
    let broadcast = broadcast(&context(), source.clone(), [SinkDestination::new(sender)]);
    let error =
        block_on(broadcast.overflow(Overflow::DropOldest)).expect_err("a sink cannot").into_error();
    assert_eq!((error.code(), source.len()), (ErrorCode::Validation, 1));
    assert!(block_on(receiver.collect::<Vec<_>>()).is_empty());
}

// P45: a destination that is closed before an item is taken costs no item
#[test]
fn a_closed_destination_ends_the_broadcast_before_the_next_item_is_taken() {
    let (feed, source) = async_channel::unbounded();
    let (senders, receivers) = channels([9, 9]);
    let mut broadcast = broadcast(&context(), source.clone(), senders).into_future();
    feed.try_send(1).expect("open");
    assert!(poll_times(&mut broadcast, 2).is_none());
    receivers[1].close();
    feed.try_send(2).expect("open");
    let (error, report) =
        poll_times(&mut broadcast, 2).expect("it is over").expect_err("closed").into_parts();
    assert_eq!(error.code(), ErrorCode::ChannelCompleted);
    assert_eq!((error.metadata("destination"), report.missed_by()), (Some("1"), &[][..]));
    assert_eq!(left_in(&source), [2]);
    assert_eq!((left_in(&receivers[0]), receivers[0].is_closed()), (vec![1], true));
}

// PARITY 3.13: closed while it waits with an item that others have
#[test]
fn a_destination_closed_while_it_waits_for_room_is_reported_with_its_item() {
    for on_closed in [OnClosed::Fail, OnClosed::Detach] {
        let (senders, receivers) = channels([9, 1, 9]);
        let mut missed = None;
        let mut broadcast = broadcast(&context(), filled([1, 2, 3]), senders)
            .on_closed(on_closed)
            .undelivered(|item| missed = Some(parts(item)))
            .into_future();
        assert!(poll_times(&mut broadcast, 2).is_none());
        receivers[1].close();
        let result = poll_times(&mut broadcast, 2).expect("it is over");
        drop(broadcast);
        if on_closed == OnClosed::Detach {
            let report = result.expect("it goes on");
            assert_eq!(missed, None);
            let detached: Vec<_> =
                report.destinations().iter().map(DestinationReport::is_detached).collect();
            assert_eq!(detached, [false, true, false]);
            assert_eq!(report.destinations()[1].delivered(), 1);
            assert_eq!(left_in(&receivers[2]), [1, 2, 3]);
        } else {
            let (error, report) = result.expect_err("closed").into_parts();
            assert_eq!(error.code(), ErrorCode::ChannelCompleted);
            assert_eq!(missed, Some((2, vec![0, 2], vec![1])));
            assert_eq!((report.delivered_to(), report.missed_by()), (&[0, 2][..], &[1][..]));
            assert_eq!(left_in(&receivers[2]), [1, 2]);
        }
    }
}

#[test]
fn a_broadcast_that_lost_its_last_destination_ends() {
    let source = filled([1, 2]);
    let (senders, receivers) = channels([9, 9]);
    drop(receivers);
    let broadcast = broadcast(&context(), source.clone(), senders).on_closed(OnClosed::Detach);
    let error = block_on(broadcast).expect_err("nobody is left").into_error();
    assert_eq!((error.code(), source.len()), (ErrorCode::ChannelCompleted, 2));
}

// P36
#[test]
fn a_fault_of_the_source_is_the_error_and_closes_all() {
    let (senders, receivers) = channels([9, 9]);
    let source = stream::iter([Ok(1), Err("lost"), Ok(2)]).faults().named("feed");
    let (error, report) =
        block_on(broadcast(&context(), source, senders)).expect_err("a fault").into_parts();
    assert_eq!((error.code(), error.source_name()), (ErrorCode::Source, Some("feed")));
    assert_eq!((report.items(), delivered(&report), report.missed_by()), (1, vec![1, 1], &[][..]));
    for receiver in receivers {
        assert_eq!((left_in(&receiver), receiver.is_closed()), (vec![1], true));
    }
}
