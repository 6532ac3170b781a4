//! Rules 2.3 and 2.4: turns, and giving the thread back.

mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::stream::{self, StreamExt};
use support::{block_on, poll_times, yields};
use watershed::{BoxError, CancellationSource, ErrorCode, Source, StepContext, fan_in};

// Rule 2.3
#[test]
fn every_ready_source_has_a_turn_between_two_turns_of_another() {
    for (quantum, waits) in [(1, 0), (3, 0), (64, 0), (3, 1)] {
        let sources: Vec<_> = (0..10).map(|s| stream::repeat(s).take(300)).collect();
        let mut order = Vec::new();
        let context = StepContext::new("t");
        block_on(
            fan_in(&context, sources, |source: usize, _| {
                order.push(source);
                async move {
                    yields(waits).await;
                    Ok::<_, BoxError>(())
                }
            })
            .quantum(quantum),
        )
        .expect("the drain succeeds");
        // As long as all are ready, a source waits for at most one turn of each of the nine others.
        let bound = 9 * quantum + 1;
        let mut last = [0; 10];
        for (position, source) in order[..2_000].iter().enumerate() {
            let gap = position - last[*source];
            assert!(gap <= bound, "quantum {quantum}: source {source} waited {gap} messages");
            last[*source] = position;
        }
    }
}

// Rule 2.4
#[test]
fn one_poll_of_the_drain_starts_a_bounded_number_of_messages() {
    let started = AtomicUsize::new(0);
    let context = StepContext::new("t");
    let sources = [1, 2].map(|source| stream::repeat(source).weighted(u32::MAX));
    let drain = fan_in(&context, sources, |_, _| {
        started.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, BoxError>(()) }
    });
    let mut drain = drain.quantum(256).into_future();
    for polls in 1..20 {
        assert!(poll_times(&mut drain, 1).is_none());
        let started = started.load(Ordering::Relaxed);
        assert!((polls..=polls * 256).contains(&started), "{started} after {polls} polls");
    }
}

// Rule 2.4: what the last poll left of its share is not what this one has
#[test]
fn every_poll_of_the_drain_has_a_share_of_its_own() {
    let handled = AtomicUsize::new(0);
    let (sender, receiver) = async_channel::unbounded();
    let context = StepContext::new("t");
    let drain = fan_in(&context, [receiver], |(), _| {
        handled.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, BoxError>(()) }
    });
    let mut drain = drain.into_future();
    for polls in 1..5 {
        for () in [(); 200] {
            sender.try_send(()).expect("it is open");
        }
        assert!(poll_times(&mut drain, 1).is_none());
        assert_eq!(handled.load(Ordering::Relaxed), polls * 200, "fewer than a poll may handle");
    }
}

// Rule 2.4
#[test]
fn an_always_ready_source_does_not_starve_the_cancellation() {
    let stop = CancellationSource::new();
    let mut count = 0;
    let context = StepContext::new("t").with_cancellation(stop.token());
    let error = block_on(fan_in(&context, [stream::repeat(())], |(), _| {
        count += 1;
        if count == 1_000 {
            stop.cancel();
        }
        async { Ok::<_, BoxError>(()) }
    }))
    .expect_err("cancelled")
    .into_error();
    assert_eq!(error.code(), ErrorCode::Canceled);
    assert!(count <= 1_064, "{count}");
}

/// Counts how often its stream is polled.
struct Counted<S>(S, Arc<AtomicUsize>);

impl<S: futures::Stream + Unpin> futures::Stream for Counted<S> {
    type Item = S::Item;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.poll_next_unpin(cx)
    }
}

// Rule 2.4: a wake-up costs the same beside any number of idle sources
#[test]
fn a_message_of_one_source_polls_no_idle_one() {
    let idle_polls = Arc::new(AtomicUsize::new(0));
    let busy_polls = Arc::new(AtomicUsize::new(0));
    let (sender, busy) = async_channel::unbounded();
    let mut sources = vec![Counted(busy.boxed(), Arc::clone(&busy_polls))];
    let idle = || Counted(stream::pending().boxed(), Arc::clone(&idle_polls));
    sources.extend(std::iter::repeat_with(idle).take(1_000));
    let context = StepContext::new("t");
    let drain = fan_in(&context, sources, |_: u32, _| async { Ok::<_, BoxError>(()) });
    let mut drain = drain.into_future();
    assert!(poll_times(&mut drain, 50).is_none());
    assert_eq!(idle_polls.load(Ordering::Relaxed), 1_000);
    for message in 0..100 {
        sender.try_send(message).expect("the channel is open");
        assert!(poll_times(&mut drain, 2).is_none());
    }
    assert_eq!(idle_polls.load(Ordering::Relaxed), 1_000);
    assert_eq!(busy_polls.load(Ordering::Relaxed), 1 + 2 * 100);
}

// Rule 2.4
#[test]
fn a_hundred_thousand_sources_are_drained() {
    let sources: Vec<_> = (0..100_000_u32).map(|n| stream::iter([n])).collect();
    let context = StepContext::new("t");
    let report = block_on(fan_in(&context, sources, |_, _| async { Ok::<_, BoxError>(()) }));
    assert_eq!(report.expect("the drain succeeds").handled(), 100_000);
}

// Rules 2.2, 2.3
#[test]
fn more_waiting_sources_than_permits_pass_the_permits_on() {
    let (senders, sources): (Vec<_>, Vec<_>) = (0..50).map(|_| async_channel::unbounded()).unzip();
    let context = StepContext::new("t");
    let drain = fan_in(&context, sources, |_: u32, _| async {
        yields(2).await;
        Ok::<_, BoxError>(())
    });
    let mut drain = drain.concurrency(2).into_future();
    assert!(poll_times(&mut drain, 10).is_none());
    for round in 0..20 {
        for sender in senders.iter().skip(round % 7).step_by(3) {
            sender.try_send(1).expect("the channel is open");
        }
        assert!(poll_times(&mut drain, 200).is_none());
        assert!(senders.iter().all(async_channel::Sender::is_empty), "round {round}");
    }
    drop(senders);
    assert!(poll_times(&mut drain, 200).expect("it is over").is_ok());
}

// Rule 2.3
#[test]
fn with_handlers_that_wait_the_permits_go_round_all_ready_sources() {
    for concurrency in [1, 2, 3] {
        let sources: Vec<_> = (0..10).map(|s| stream::repeat(s).take(200)).collect();
        let mut order = Vec::new();
        let context = StepContext::new("t");
        block_on(
            fan_in(&context, sources, |source: usize, _| {
                order.push(source);
                let waits = 1 + order.len() % 3;
                async move {
                    yields(waits).await;
                    Ok::<_, BoxError>(())
                }
            })
            .concurrency(concurrency),
        )
        .expect("the drain succeeds");
        let mut last = [0; 10];
        for (position, source) in order[..1_500].iter().enumerate() {
            let gap = position - last[*source];
            assert!(gap <= 9 + concurrency, "{concurrency}: source {source} waited {gap} messages");
            last[*source] = position;
        }
    }
}

// Rule 2.4
#[test]
fn the_token_is_looked_at_once_a_turn() {
    for quantum in [1, 5, 100] {
        let stop = CancellationSource::new();
        let mut count = 0;
        let context = StepContext::new("t");
        let drain = fan_in(&context, [stream::repeat(1), stream::repeat(2)], |_, _| {
            count += 1;
            if count == 1_000 {
                stop.cancel();
            }
            async { Ok::<_, BoxError>(()) }
        });
        let drain = drain.quantum(quantum);
        let error = block_on(drain.cancellation(stop.token())).expect_err("cancelled").into_error();
        assert_eq!(error.code(), ErrorCode::Canceled);
        assert!(count <= 1_000 + quantum, "quantum {quantum}: {count}");
    }
}

/// How often each of so many sources was served, and its longest wait, in the first `most` messages.
fn shares<S: Source<Message = usize>>(sources: Vec<S>, most: usize) -> Vec<(usize, usize)> {
    let mut order = Vec::new();
    let context = StepContext::new("t");
    let count = sources.len();
    let drain = fan_in(&context, sources, |source, _| {
        order.push(source);
        async { Ok::<_, BoxError>(()) }
    });
    let mut drain = drain.quantum(4).into_future();
    // A poll has as many messages as it likes, up to 256.
    for _ in 0..most / 25 {
        assert!(poll_times(&mut drain, 1).is_none());
    }
    drop(drain);
    assert!(order.len() >= most, "{} messages in so many polls", order.len());
    let mut served = vec![(0, 0); count];
    let mut last = vec![0; count];
    for (position, source) in order[..most].iter().enumerate() {
        served[*source].0 += 1;
        served[*source].1 = served[*source].1.max(position - last[*source]);
        last[*source] = position;
    }
    served
}

// Rules 2.3, 2.7
#[test]
fn always_ready_sources_have_shares_in_proportion_to_their_weights() {
    let source = |index: usize, weight: u32| stream::repeat(index).weighted(weight);
    let served = shares(vec![source(0, 1), source(1, 3), source(2, 6)], 10_000);
    for ((served, gap), (share, others)) in served.into_iter().zip([(1, 9), (3, 7), (6, 4)]) {
        assert!(served.abs_diff(share * 1_000) <= 24, "{served} of 10,000 for weight {share}");
        assert!(gap <= others * 4 + 1, "it waits for one turn of each other source: {gap}");
    }
}

// Rules 2.3, 2.7
#[test]
fn less_urgent_sources_have_turns_of_one_message_and_never_starve() {
    let sources = [7, 3, 7].into_iter().enumerate();
    let sources = sources.map(|(index, priority)| stream::repeat(index).prioritized(priority));
    let served = shares(sources.collect(), 6_000);
    for (index, share) in [(0, 1_000), (1, 4_000), (2, 1_000)] {
        assert!(served[index].0.abs_diff(share) <= 20, "{served:?}");
        // A turn of the urgent one, one message of the other; whole turns before it is known.
        assert!(served[index].1 <= 8, "{served:?}");
    }
}

// Rules 2.3, 2.7
#[test]
fn an_urgent_source_that_is_idle_or_has_ended_slows_nobody() {
    let urgent = |source: usize, messages: usize| stream::repeat(source).take(messages);
    let sources = vec![
        urgent(0, 5).boxed().prioritized(0),
        stream::pending().boxed().prioritized(1),
        stream::repeat(2).boxed().prioritized(9),
        stream::repeat(3).boxed().prioritized(9),
    ];
    let mut order = Vec::new();
    let context = StepContext::new("t");
    let drain = fan_in(&context, sources, |source, _| {
        order.push(source);
        async { Ok::<_, BoxError>(()) }
    });
    let mut drain = drain.quantum(4).into_future();
    poll_times(&mut drain, 1);
    drop(drain);
    assert_eq!(order[..7], [0, 0, 0, 0, 2, 3, 0], "one message each while the first is ready");
    let mut turns = order[7..].chunks_exact(4);
    assert!(turns.all(|turn| turn.iter().all(|source| source == &turn[0])), "{order:?}");
}
