//! How it ends.

use super::*;

// Rule 3.5; P46
#[test]
fn a_broadcast_cancelled_before_its_first_poll_takes_nothing() {
    for by_context in [true, false] {
        let stop = CancellationSource::new();
        let mut context = context();
        if by_context {
            context = context.with_cancellation(stop.token());
        }
        let source = filled([1]);
        let (senders, receivers) = channels([9, 9]);
        let mut broadcast = broadcast(&context, source.clone(), senders);
        if !by_context {
            broadcast = broadcast.cancellation(stop.token());
        }
        stop.cancel();
        assert_eq!(block_on(broadcast).expect_err("cancelled").error().code(), ErrorCode::Canceled);
        assert_eq!(source.len(), 1);
        assert!(receivers.iter().all(Receiver::is_closed));
    }
}

// Rules 3.3, 3.5; P46
#[test]
fn a_broadcast_that_waits_ends_by_token_timeout_and_item_timeout() {
    for (end, full) in [0, 1, 2].into_iter().flat_map(|end| [(end, true), (end, false)]) {
        let clock = ManualClock::new();
        let stop = CancellationSource::new();
        let (feed, source) = async_channel::unbounded();
        feed.try_send(1).expect("open");
        feed.try_send(2).expect("open");
        let (senders, receivers) = channels([9, if full { 1 } else { 9 }]);
        let mut missed = None;
        let mut broadcast = broadcast(&on(&clock), source, senders).cancellation(stop.token());
        broadcast = match end {
            0 => broadcast,
            1 => broadcast.timeout(3 * SECOND),
            _ => broadcast.item_timeout(3 * SECOND),
        };
        let broadcast = broadcast.undelivered(|item| missed = Some(parts(item)));
        let mut broadcast = broadcast.into_future();
        assert!(poll_times(&mut broadcast, 3).is_none());
        clock.advance(Duration::from_nanos(2_999_999_999));
        assert!(poll_times(&mut broadcast, 3).is_none());
        if end == 0 {
            stop.cancel();
        } else {
            clock.advance(Duration::from_nanos(1));
        }
        let result = poll_times(&mut broadcast, 1);
        drop(broadcast);
        if end == 2 && !full {
            assert!(result.is_none(), "the time of an item does not run between two items");
            continue;
        }
        let (error, report) = result.expect("it is over").expect_err("the end").into_parts();
        let code = if end == 0 { ErrorCode::Canceled } else { ErrorCode::Timeout };
        assert_eq!(error.code(), code);
        assert_eq!(missed, full.then(|| (2, vec![0], vec![1])));
        let (has, lacks) = if full { (&[0][..], &[1][..]) } else { (&[][..], &[][..]) };
        assert_eq!((report.delivered_to(), report.missed_by()), (has, lacks));
        assert_eq!(delivered(&report), [2, if full { 1 } else { 2 }]);
        assert!(receivers.iter().all(Receiver::is_closed));
    }
}

// Rule 3.3
#[test]
fn a_timeout_of_zero_takes_nothing_and_one_without_end_never_fires() {
    let source = filled([1, 2]);
    let (senders, _receivers) = channels([9]);
    let timed = broadcast(&on(&ManualClock::new()), source.clone(), senders);
    let error = block_on(timed.timeout(Duration::ZERO)).expect_err("it times out").into_error();
    assert_eq!((error.code(), source.len()), (ErrorCode::Timeout, 2));
    let (senders, receivers) = channels([9]);
    let untimed = broadcast(&on(&ManualClock::new()), source, senders);
    assert!(block_on(untimed.timeout(Duration::MAX).item_timeout(Duration::MAX)).is_ok());
    assert_eq!(left_in(&receivers[0]), [1, 2]);
}

// Rule 3.4 in kind: an item is offered once, whatever its time
#[test]
fn an_item_timeout_of_zero_delivers_where_there_is_room() {
    let (senders, receivers) = channels([2]);
    let broadcast = broadcast(&on(&ManualClock::new()), filled([1, 2, 3]), senders);
    let failure = block_on(broadcast.item_timeout(Duration::ZERO)).expect_err("no room for 3");
    assert_eq!((failure.report().items(), failure.report().missed_by()), (3, &[0][..]));
    assert_eq!(failure.error().metadata("duration"), Some("0ns"));
    assert_eq!(left_in(&receivers[0]), [1, 2]);
}

// The deadline of an item holds for sinks as well
#[test]
fn an_item_timeout_ends_a_broadcast_in_front_of_a_sink_without_room() {
    let clock = ManualClock::new();
    let (sender, _receiver) = mpsc::channel(0);
    let mut missed = None;
    let mut broadcast = broadcast(&on(&clock), filled([1, 2]), [SinkDestination::new(sender)])
        .item_timeout(SECOND)
        .undelivered(|item| missed = Some(parts(item)))
        .into_future();
    assert!(poll_times(&mut broadcast, 3).is_none());
    clock.advance(SECOND);
    let error =
        poll_times(&mut broadcast, 1).expect("it is over").expect_err("it timed out").into_error();
    assert_eq!(error.code(), ErrorCode::Timeout);
    drop(broadcast);
    assert_eq!(missed, Some((2, vec![], vec![0])));
}

// Rule 2.6
#[test]
fn an_empty_source_succeeds_at_once_and_closes_all() {
    let (senders, receivers) = channels([1, 1]);
    let report = block_on(broadcast(&context(), filled([]), senders)).expect("it succeeds");
    assert_eq!(report.items(), 0);
    assert!(receivers.iter().all(Receiver::is_closed));
}

#[test]
fn keep_open_leaves_the_destinations_open_however_it_ends() {
    let (senders, receivers) = channels([1, 9]);
    block_on(broadcast(&context(), filled([1]), senders.clone()).keep_open()).expect("it succeeds");
    let dropped = broadcast(&context(), filled([2, 3]), senders.clone()).keep_open();
    assert!(poll_times(&mut dropped.into_future(), 2).is_none());
    drop(broadcast(&context(), filled([4]), senders.clone()).into_future());
    assert!(!senders.iter().any(Sender::is_closed));
    let dropped = broadcast(&context(), filled([5]), senders.clone());
    assert!(poll_times(&mut dropped.into_future(), 2).is_none());
    assert!(senders.iter().all(Sender::is_closed));
    assert_eq!(receivers.map(|receiver| left_in(&receiver)), [vec![1], vec![1, 2, 5]]);
}

// No item is lost, and who has it is known
#[test]
fn a_broadcast_dropped_after_any_poll_loses_no_item() {
    for keep_open in [true, false] {
        for k in 0.. {
            let source = filled([1, 2, 3, 4]);
            let (senders, receivers) = channels([1, 2, 1]);
            let mut missed = None;
            let mut broadcast = broadcast(&context(), source.clone(), senders.clone());
            if keep_open {
                broadcast = broadcast.keep_open();
            }
            let broadcast = broadcast.undelivered(|item| missed = Some(parts(item)));
            let mut broadcast = broadcast.into_future();
            let mut received = vec![Vec::new(); 3];
            let mut ended = false;
            for poll in 0..k {
                ended = poll_times(&mut broadcast, 1).is_some();
                if ended {
                    break;
                }
                received[poll % 3].extend(receivers[poll % 3].try_recv().ok());
            }
            drop(broadcast);
            let left = left_in(&source);
            if let Some((item, has, lacks)) = missed {
                assert!(!lacks.is_empty());
                for to in &lacks {
                    received[*to].push(100 + item);
                }
                assert_eq!(has.len() + lacks.len(), 3);
            }
            for (to, receiver) in receivers.iter().enumerate() {
                let seen = &mut received[to];
                seen.extend(left_in(receiver));
                seen.extend(&left);
                seen.sort_unstable_by_key(|item| item % 100);
                let items: Vec<_> = seen.iter().map(|item| item % 100).collect();
                assert_eq!(items, [1, 2, 3, 4], "poll {k}, destination {to}: {seen:?}");
                assert_eq!(receiver.is_closed(), k > 0 && !keep_open);
            }
            if ended {
                assert!(k > 6);
                break;
            }
        }
    }
}

// What is reported as missed is not delivered behind the back of the report
#[test]
fn a_copy_that_waited_in_a_lent_destination_is_taken_back() {
    let (sender, receiver) = bounded(1);
    let mut lent = SenderDestination::new(sender);
    let mut missed = None;
    let dropped = broadcast(&context(), filled([1, 2]), [&mut lent]).keep_open();
    let mut dropped = dropped.undelivered(|item| missed = Some(parts(item))).into_future();
    assert!(poll_times(&mut dropped, 2).is_none());
    drop(dropped);
    assert_eq!(missed, Some((2, vec![], vec![0])));
    assert_eq!(receiver.try_recv(), Ok(1));
    block_on(broadcast(&context(), filled([3]), [&mut lent])).expect("there is room");
    assert_eq!(left_in(&receiver), [3]);
}

// What waits is tried once more before it is given up
#[test]
fn an_item_that_has_room_when_the_broadcast_ends_is_delivered() {
    let (senders, receivers) = channels([1, 9]);
    let broadcast = broadcast(&context(), filled([1, 2]), senders);
    let broadcast = broadcast.undelivered(|_| panic!("there is room"));
    let mut broadcast = broadcast.into_future();
    assert!(poll_times(&mut broadcast, 1).is_none());
    assert_eq!(receivers[0].try_recv(), Ok(1));
    drop(broadcast);
    assert_eq!(receivers.map(|receiver| left_in(&receiver)), [vec![2], vec![1, 2]]);
}

/// Panics when it is copied so many times, or dropped where it is told.
struct Fragile(u32, Arc<AtomicUsize>);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(self.1.fetch_sub(1, Ordering::Relaxed) > 1, "no more copies");
        Self(self.0, Arc::clone(&self.1))
    }
}

// Rule 3.7
#[test]
fn a_panic_of_clone_is_an_error_and_the_item_is_given_back() {
    for copies in 1..6 {
        let left = Arc::new(AtomicUsize::new(copies));
        let source = [1, 2].map(|item| Fragile(item, Arc::clone(&left)));
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| bounded(9)).unzip();
        let mut missed = None;
        let broadcast = broadcast(&context(), stream::iter(source), senders);
        let broadcast = broadcast.undelivered(|item| {
            let lacks = item.missed_by().to_vec();
            missed = Some((item.into_message().expect("it is at hand").0, lacks));
        });
        let result = block_on(broadcast);
        if copies == 5 {
            assert!(result.is_ok(), "the last destination is given the item itself");
            break;
        }
        assert_eq!(result.expect_err("a panic").error().code(), ErrorCode::Panic);
        let (item, lacks) = missed.expect("an item was left");
        let counts: Vec<_> = receivers.iter().map(Receiver::len).collect();
        for (to, count) in counts.iter().enumerate() {
            assert_eq!(*count, item as usize - usize::from(lacks.contains(&to)), "{copies}, {to}");
        }
    }
}

// Rule 3.7
#[test]
fn panics_of_the_source_and_of_the_callback_are_errors() {
    let (senders, receivers) = channels([9]);
    let source = stream::iter([1, 2]).map(|item| if item == 2 { panic!("torn") } else { item });
    let error = block_on(broadcast(&context(), source.named("feed"), senders))
        .expect_err("a panic")
        .into_error();
    assert_eq!((error.code(), error.source_name()), (ErrorCode::Panic, Some("feed")));
    assert_eq!((left_in(&receivers[0]), receivers[0].is_closed()), (vec![1], true));

    let (senders, receivers) = channels([1]);
    let broadcast = broadcast(&context(), filled([1, 2]), senders).overflow(Overflow::Fail);
    let error =
        block_on(broadcast.undelivered(|_| panic!("no thanks"))).expect_err("no room").into_error();
    assert_eq!(error.code().as_str(), "error.channel.full");
    assert_eq!(error.related()[0].code(), ErrorCode::Panic);
    assert!(receivers[0].is_closed());
}

// Rules 2.4, 3.3
#[test]
fn an_always_ready_source_starves_neither_the_executor_nor_the_timeout() {
    let clock = ManualClock::new();
    let ticking = {
        let clock = clock.clone();
        stream::repeat_with(move || clock.advance(Duration::from_millis(1)))
    };
    let (sender, receiver) = async_channel::unbounded();
    let broadcast = broadcast(&on(&clock), ticking, [sender]).timeout(SECOND);
    let mut broadcast = broadcast.into_future();
    assert!(poll_times(&mut broadcast, 1).is_none());
    assert!(receiver.len() <= 256);
    let error =
        poll_times(&mut broadcast, 9).expect("it is over").expect_err("it timed out").into_error();
    assert_eq!((error.code(), receiver.len()), (ErrorCode::Timeout, 1_000));
}

// Rule 2.4
#[test]
fn a_broadcast_that_waits_does_not_wake_itself() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let woken = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let (senders, receivers) = channels([1, 1]);
    let mut broadcast = broadcast(&context(), filled([1, 2]), senders).into_future();
    assert!(broadcast.poll_unpin(&mut cx).is_pending());
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    for receiver in &receivers {
        assert_eq!(receiver.try_recv(), Ok(1));
    }
    // Both have room, and it is told once.
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert!(matches!(broadcast.poll_unpin(&mut cx), Poll::Ready(Ok(_))));
    assert_eq!(receivers.map(|receiver| left_in(&receiver)), [vec![2], vec![2]]);
}

#[test]
fn a_broadcast_that_has_ended_says_so_when_it_is_polled_again() {
    let (senders, _receivers) = channels([9]);
    let mut broadcast = broadcast(&context(), filled([1]), senders).into_future();
    assert!(poll_times(&mut broadcast, 1).expect("it is over").is_ok());
    let error =
        poll_times(&mut broadcast, 1).expect("it is over").expect_err("no more").into_error();
    assert_eq!(error.code(), ErrorCode::Unspecified);
}

// Rule 5.3
#[test]
fn broadcasts_are_send_when_their_parts_are() {
    fn send<T: Send>(_: &T) {}
    let (senders, _receivers) = channels([9]);
    let broadcast = broadcast(&context(), filled([1]), senders).undelivered(|_| {});
    send(&broadcast);
    send(&broadcast.into_future());
}

// Rules 3.1, 5.2; P45
async fn consumers_on_other_threads_get_everything() {
    let (senders, receivers) = channels([1, 2, 3]);
    let consumers = receivers.map(|receiver| {
        std::thread::spawn(move || {
            std::iter::from_fn(|| receiver.recv_blocking().ok()).collect::<Vec<_>>()
        })
    });
    let report = broadcast(&context(), stream::iter(0..500), senders).await.expect("it succeeds");
    assert_eq!(report.items(), 500);
    for consumer in consumers {
        assert_eq!(consumer.join().expect("the thread ends"), (0..500).collect::<Vec<_>>());
    }
}

// Rules 3.3, 5.2
async fn an_item_timeout_fires_in_front_of_a_full_channel() {
    let (senders, _receivers) = channels([1]);
    let broadcast = broadcast(&context(), filled([1, 2]), senders);
    let error = broadcast
        .item_timeout(Duration::from_millis(5))
        .await
        .expect_err("it times out")
        .into_error();
    assert_eq!(error.code(), ErrorCode::Timeout);
}

// Rules 5.1, 5.2; P8
async fn a_fan_out_is_driven_by_whoever_awaits_it() {
    let (broadcast, branches) = fan_out(&context(), stream::iter(0..100), 3, 2);
    let sums = branches.into_iter().map(|branch| branch.fold(0, |sum, n| async move { sum + n }));
    let (report, sums) = futures::join!(broadcast.into_future(), future::join_all(sums));
    assert_eq!((report.expect("it succeeds").items(), sums), (100, vec![4950; 3]));
}

// Rules 3.5, 5.2; P46
async fn cancellation_from_another_thread_ends_a_broadcast() {
    let stop = CancellationSource::new();
    let (senders, receivers) = channels([1]);
    let broadcast = broadcast(&context(), stream::repeat(7), senders).cancellation(stop.token());
    let canceller = std::thread::spawn(move || stop.cancel());
    assert_eq!(broadcast.await.expect_err("cancelled").error().code(), ErrorCode::Canceled);
    assert!(receivers[0].is_closed());
    canceller.join().expect("the thread ends");
}

on_every_executor! {
    consumers_on_other_threads_get_everything,
    an_item_timeout_fires_in_front_of_a_full_channel,
    a_fan_out_is_driven_by_whoever_awaits_it,
    cancellation_from_another_thread_ends_a_broadcast,
}
