//! Merges in which a strategy says which source is next.

use crate::support::neighbours::Wakes;
use std::future::IntoFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::support::{block_on, filled, left_in, poll_times};
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use watershed::channels::{SourceState, Unsettled, merge_into};
use watershed::{CancellationSource, ErrorCode, ManualClock, Source, StepContext};

fn context() -> StepContext {
    StepContext::new("t")
}

/// Always the first that may be ready.
fn first(sources: &[SourceState]) -> Option<usize> {
    sources.iter().position(|state| state.is_ready())
}

/// One message of each that may be ready, in turn.
fn round_robin() -> impl FnMut(&[SourceState]) -> Option<usize> {
    let mut next = 0;
    move |sources| {
        let turn = (next..sources.len()).chain(0..next);
        let index = turn.into_iter().find(|index| sources[*index].is_ready())?;
        next = index + 1;
        Some(index)
    }
}

/// Merges what the sources hold.
fn merge_all<T: Send + 'static>(
    sources: impl IntoIterator<Item: Source<Message = T, Receipt = Unsettled>>,
    strategy: impl FnMut(&[SourceState]) -> Option<usize>,
) -> Vec<T> {
    let (sender, receiver) = async_channel::unbounded();
    block_on(merge_into(&context(), sources, sender).strategy(strategy)).expect("it succeeds");
    left_in(&receiver)
}

// P9
#[test]
fn the_order_is_that_of_the_strategy() {
    let mut order = [1, 0, 0, 2, 1, 2].into_iter();
    let strategy = |_: &[SourceState]| order.next();
    let sources = [filled([10, 11]), filled([20, 21]), filled([30, 31])];
    let merged = merge_all(sources.map(|source| source.take(2)), strategy);
    assert_eq!(merged, [20, 10, 11, 30, 21, 31]);
}

// P9
#[test]
fn the_strategy_sees_what_is_known_of_each_source() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let strategy = move |sources: &[SourceState]| {
        log.lock().expect("no panic").push(sources.to_vec());
        sources.iter().position(|state| state.is_ready())
    };
    let (feed, slow) = async_channel::unbounded();
    let (sender, receiver) = async_channel::unbounded();
    let sources = [slow, filled([1, 2])];
    let mut merge = merge_into(&context(), sources, sender).strategy(strategy).into_future();
    assert!(poll_times(&mut merge, 1).is_none());
    feed.try_send(3).expect("open");
    drop(feed);
    assert!(poll_times(&mut merge, 1).expect("it is over").is_ok());
    assert_eq!(left_in(&receiver), [1, 2, 3]);
    let (r, p, e) = (SourceState::Ready, SourceState::Pending, SourceState::Ended);
    let expected = [[r, r], [p, r], [p, r], [p, r], [r, e], [r, e]];
    assert_eq!(*seen.lock().expect("no panic"), expected);
}

// PARITY 3.11: whatever a strategy answers, messages are delivered, within 9 polls each, and each
// poll asks a bounded number of times
#[test]
fn a_strategy_that_picks_nothing_useful_holds_a_message_for_eight_polls_at_most() {
    let silent = || stream::pending().boxed();
    for useless in [None, Some(0), Some(2), Some(usize::MAX)] {
        let asked = AtomicUsize::new(0);
        let strategy = |_: &[SourceState]| {
            asked.fetch_add(1, Ordering::Relaxed);
            useless
        };
        let (sender, receiver) = async_channel::unbounded();
        let sources = [silent(), filled(0..10).chain(stream::pending()).boxed()];
        let mut merge = merge_into(&context(), sources, sender).strategy(strategy).into_future();
        let count = Arc::new(Wakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = std::task::Context::from_waker(&waker);
        let mut polls = 0;
        while receiver.len() < 10 {
            polls += 1;
            assert!(merge.poll_unpin(&mut cx).is_pending());
            assert_eq!(count.0.swap(0, Ordering::Relaxed), 1, "woken to ask again");
            assert!(polls <= 8 * 10 + 1, "{useless:?}: {} after {polls} polls", receiver.len());
            assert!(asked.swap(0, Ordering::Relaxed) <= 2);
        }
        for _ in 0..20 {
            assert!(merge.poll_unpin(&mut cx).is_pending());
        }
        count.0.store(0, Ordering::Relaxed);
        asked.store(0, Ordering::Relaxed);
        assert!(merge.poll_unpin(&mut cx).is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), 0, "nothing is ready: it sleeps");
        assert_eq!(asked.load(Ordering::Relaxed), 0, "and does not ask");
    }
}

// PARITY 3.11: what is wanted and comes in time is taken first
#[test]
fn a_refusal_gives_the_source_wanted_time_to_become_ready() {
    let (feed, wanted) = async_channel::unbounded();
    let (sender, receiver) = async_channel::unbounded();
    let sources = [wanted, filled([7, 8, 9])];
    let first = |_: &[SourceState]| Some(0);
    let mut merge = merge_into(&context(), sources, sender).strategy(first).into_future();
    for message in 1..=3 {
        assert!(poll_times(&mut merge, 5).is_none());
        feed.try_send(message).expect("open");
    }
    drop(feed);
    assert!(poll_times(&mut merge, 99).expect("it is over").is_ok());
    assert_eq!(left_in(&receiver), [1, 2, 3, 7, 8, 9]);
}

// PARITY 3.11: left to itself, the merge takes the ready sources in turn
#[test]
fn without_a_useful_answer_the_ready_sources_have_their_turns() {
    let sources = [filled([1, 2]), filled([3, 4]), filled([5, 6])];
    assert_eq!(merge_all(sources, |_: &[SourceState]| None), [1, 3, 5, 2, 4, 6]);
}

#[test]
fn a_strategy_may_starve_whom_it_wants() {
    let (feed, urgent) = async_channel::unbounded();
    let (sender, receiver) = async_channel::bounded(1);
    let sources = [urgent, filled([7, 8, 9])];
    let mut merge = merge_into(&context(), sources, sender).strategy(first).into_future();
    assert!(poll_times(&mut merge, 1).is_none());
    feed.try_send(1).expect("open");
    let mut seen = Vec::new();
    drop(feed);
    let report = loop {
        seen.extend(receiver.try_recv().ok());
        if let Some(result) = poll_times(&mut merge, 1) {
            break result.expect("it succeeds");
        }
    };
    seen.extend(left_in(&receiver));
    assert_eq!(seen, [7, 8, 1, 9], "8 was in front of the channel already");
    assert_eq!(report.sources()[0].delivered(), 1);
}

// Rule 2.3: what a strategy promises holds with sources that come and go
#[test]
fn no_source_waits_longer_than_a_round_robin_says() {
    for watched in 0..4 {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let sources: Vec<_> = (0..4)
                .map(|source| {
                    let mut random = random.fork();
                    let mut left = 400;
                    stream::poll_fn(move |cx| {
                        if source != watched && random.u8(..4) == 0 {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        left -= 1;
                        Poll::Ready((left > 0).then_some(source))
                    })
                })
                .collect();
            let order = merge_all(sources, round_robin());
            let last = order.iter().rposition(|source| *source == watched).expect("there");
            let mut waited = 0;
            for source in &order[..last] {
                waited = if *source == watched { 0 } else { waited + 1 };
                assert!(waited <= 3, "source {watched} waited for {waited}");
            }
        }
    }
}

// Rule 6.2: an option that can have no effect beside a strategy
#[test]
fn a_quantum_a_weight_and_a_priority_are_refused_beside_a_strategy() {
    let source = filled([1]);
    let (sender, _receiver) = async_channel::bounded(9);
    let merge = |source| merge_into(&context(), [source], sender.clone()).strategy(first);
    let errors = [
        block_on(merge(source.clone().weighted(2)).into_future()),
        block_on(merge(source.clone().prioritized(2)).into_future()),
        block_on(merge(source.clone().weighted(1)).quantum(2).into_future()),
    ];
    for error in errors {
        assert_eq!(error.expect_err("refused").code(), ErrorCode::Validation);
    }
    assert_eq!(source.len(), 1, "nothing was taken");
}

// Rules 3.2, 3.3, 3.5: ends, before and during
#[test]
fn a_strategy_does_not_change_how_a_merge_ends() {
    let clock = ManualClock::new();
    let stop = CancellationSource::new();
    let context = context().with_clock(Arc::new(clock.clone()));
    let ends: [(ErrorCode, &dyn Fn()); 2] = [
        (ErrorCode::Timeout, &|| clock.advance(Duration::from_secs(1))),
        (ErrorCode::Canceled, &|| stop.cancel()),
    ];
    for (code, end) in ends {
        let source = filled([1, 2, 3]);
        let (sender, receiver) = async_channel::bounded(1);
        let mut left = None;
        let mut merge = merge_into(&context, [source.clone()], sender)
            .strategy(first)
            .timeout(Duration::from_secs(1))
            .cancellation(stop.token())
            .undelivered(|message| left = message.into_message().ok())
            .into_future();
        assert!(poll_times(&mut merge, 2).is_none());
        end();
        let error = poll_times(&mut merge, 1).expect("it is over").expect_err("the end");
        assert_eq!(error.code(), code);
        drop(merge);
        assert_eq!((left_in(&receiver), left, left_in(&source)), (vec![1], Some(2), vec![3]));
    }
    let source = filled([1]);
    let (sender, _receiver) = async_channel::bounded(1);
    let merge = merge_into(&context, [source.clone()], sender).strategy(first);
    let error = block_on(merge.cancellation(stop.token())).expect_err("cancelled already");
    assert_eq!((error.code(), source.len()), (ErrorCode::Canceled, 1));
    let (sender, receiver) = async_channel::bounded(1);
    drop(receiver);
    let merge = merge_into(&context, [source.clone()], sender).strategy(first);
    let error = block_on(merge).expect_err("closed");
    assert_eq!((error.code(), source.len()), (ErrorCode::ChannelCompleted, 1));
    let (sender, receiver) = async_channel::bounded(9);
    let sources = [stream::iter([Ok(1), Err("lost")]).faults().named("feed")];
    let error = block_on(merge_into(&context, sources, sender).strategy(round_robin()));
    let error = error.expect_err("a fault");
    assert_eq!((error.source_name(), left_in(&receiver)), (Some("feed"), vec![1]));
}

// Rule 2.6
#[test]
fn without_sources_the_strategy_is_not_asked() {
    let none: [async_channel::Receiver<u32>; 0] = [];
    let strategy = |_: &[SourceState]| -> Option<usize> { panic!("asked") };
    assert_eq!(merge_all(none, strategy), []);
    assert_eq!(merge_all([filled::<u32>([])], first), []);
}

// Rule 3.7
#[test]
fn a_panic_of_the_strategy_is_an_error() {
    let source = filled([1]);
    let (sender, receiver) = async_channel::bounded(1);
    let fails = |_: &[SourceState]| -> Option<usize> { panic!("undecided") };
    let merge = merge_into(&context(), [source.clone()], sender).strategy(fails);
    let error = block_on(merge).expect_err("a panic");
    assert_eq!(error.code(), ErrorCode::Panic);
    assert!(error.to_string().contains("the strategy panicked"), "{error}");
    assert_eq!((source.len(), receiver.is_closed()), (1, true));
}

// Rule 2.4
#[test]
fn one_poll_moves_a_bounded_number_of_messages_and_looks_at_the_token_for_each() {
    let stop = CancellationSource::new();
    let token = stop.token();
    let (sender, receiver) = async_channel::unbounded();
    let mut count = 0;
    let source = stream::repeat_with(|| {
        count += 1;
        if count == 1_000 {
            stop.cancel();
        }
    });
    let merge = merge_into(&context(), [source], sender).strategy(round_robin());
    let mut merge = merge.cancellation(token).into_future();
    assert!(poll_times(&mut merge, 2).is_none());
    assert!(receiver.len() <= 512);
    let error = poll_times(&mut merge, 99).expect("it is over").expect_err("cancelled");
    assert_eq!((error.code(), receiver.len()), (ErrorCode::Canceled, 1_000));
}

#[test]
fn a_merge_with_a_strategy_dropped_after_any_poll_loses_no_message() {
    for refuses in [true, false] {
        for k in 0.. {
            let sources = [filled([1, 2, 3]), filled([4, 5]), filled([6, 7, 8])];
            let (sender, receiver) = async_channel::bounded(1);
            let mut asked = 0;
            let strategy = |sources: &[SourceState]| {
                asked += 1;
                let ready = sources.iter().rposition(|state| state.is_ready());
                if refuses && asked % 3 == 0 { Some(99) } else { ready }
            };
            let mut all = Vec::new();
            let merge = merge_into(&context(), sources.clone(), sender).strategy(strategy);
            let mut merge = merge
                .undelivered(|message| all.push(message.into_message().expect("it is closed")))
                .into_future();
            let (mut arrived, mut ended) = (Vec::new(), false);
            for _ in 0..k {
                ended = poll_times(&mut merge, 1).is_some();
                arrived.extend(receiver.try_recv().ok());
                if ended {
                    break;
                }
            }
            drop(merge);
            all.extend(arrived);
            all.extend(left_in(&receiver));
            all.extend(sources.iter().flat_map(left_in));
            all.sort_unstable();
            assert_eq!(all, [1, 2, 3, 4, 5, 6, 7, 8], "poll {k}");
            if ended {
                assert!(k > 6);
                break;
            }
        }
    }
}

// Rule 5.2
async fn live_producers_are_merged_in_turn() {
    let (left, from_left) = async_channel::bounded(2);
    let (right, from_right) = async_channel::bounded(2);
    let producers = [left, right].map(|sender| {
        std::thread::spawn(move || (0..300_u32).all(|n| sender.send_blocking(n).is_ok()))
    });
    let (sender, receiver) = async_channel::bounded(2);
    let sources = [from_left, from_right];
    let merge = merge_into(&context(), sources, sender).strategy(round_robin());
    let sum = receiver.fold(0, |sum, message| async move { sum + message });
    let (report, sum) = futures::join!(merge.into_future(), sum);
    assert_eq!(report.expect("it succeeds").delivered(), 600);
    assert_eq!(sum, 2 * (0..300).sum::<u32>());
    assert!(producers.map(|producer| producer.join().expect("the thread ends")) == [true; 2]);
}

// Rule 5.2
async fn a_strategy_that_refuses_is_overruled() {
    let (sender, receiver) = async_channel::unbounded();
    let never = |_: &[SourceState]| None;
    let report = merge_into(&context(), [filled(0..20)], sender).strategy(never).await;
    assert_eq!(report.expect("it succeeds").delivered(), 20);
    assert_eq!(receiver.len(), 20);
}

on_every_executor! { live_producers_are_merged_in_turn, a_strategy_that_refuses_is_overruled }
