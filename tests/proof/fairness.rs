//! No ready source waits longer than the bound, and no executor.

use std::cell::Cell;
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::stream;
use watershed::testing::Simulation;
use watershed::{
    BoxError, CancellationSource, ErrorCode, ManualClock, Source, StepContext, fan_in,
};

use crate::effort::effort;

/// Messages after which a poll of a drain begins no further turn.
const MESSAGES_PER_POLL: usize = 256;

/// The sources of so many messages, in the order of their turns. All are ready all the time, and
/// handlers wait as often as they are told.
fn serve<S>(sources: Vec<S>, unit: usize, concurrency: usize, most: usize, waits: u64) -> Vec<usize>
where
    S: Source<Message = usize>,
{
    let simulation = Simulation::new(7).with_most_polls(u64::MAX);
    let (world, stop) = (simulation.world(), CancellationSource::new());
    let context = world.context("turns").with_cancellation(stop.token());
    let mut order = Vec::with_capacity(most);
    let drain = fan_in(&context, sources, |source, _| {
        order.push(source);
        if order.len() == most {
            stop.cancel();
        }
        let mut left = waits;
        std::future::poll_fn(move |cx| {
            if left == 0 {
                return Poll::Ready(Ok::<_, BoxError>(()));
            }
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    });
    let drain = drain.quantum(unit).concurrency(concurrency);
    let error = simulation.run(drain).expect("it ends").expect_err("it was cancelled").into_error();
    assert_eq!(error.code(), ErrorCode::Canceled);
    order.truncate(most);
    order
}

/// By source: the most messages of others between two of its own, or before its first.
fn largest_gaps(order: &[usize], sources: usize) -> Vec<usize> {
    let mut last = vec![None; sources];
    let mut gaps = vec![0; sources];
    for (position, source) in order.iter().enumerate() {
        let gap = last[*source].map_or(position, |last| position - last - 1);
        gaps[*source] = gaps[*source].max(gap);
        last[*source] = Some(position);
    }
    // One that is never served again waits until the end.
    for (gap, last) in gaps.iter_mut().zip(last) {
        *gap = (*gap).max(last.map_or(order.len(), |last| order.len() - last - 1));
    }
    gaps
}

// Rule 2.3
#[test]
fn the_largest_gap_of_a_ready_source_is_one_turn_of_every_other() {
    for sources in [2, 10, 100, 1_000] {
        for unit in [1, 7, 64, 256] {
            let turn = unit.min(MESSAGES_PER_POLL);
            let rounds = effort(3, 10, 100);
            let most = sources * turn * rounds;
            let ready = (0..sources).map(stream::repeat).collect();
            let gaps = largest_gaps(&serve(ready, unit, 1, most, 0), sources);
            let largest = gaps.into_iter().max().unwrap_or_default();
            let bound = turn * (sources - 1);
            println!(
                "{sources} sources, quantum {unit}: gap {largest}, bound {bound}, {most} messages"
            );
            assert!(largest <= bound, "{sources} sources, quantum {unit}: {largest}");
            assert!(largest == bound, "the bound is what happens: {largest} of {bound}");
        }
    }
}

// Rule 2.3
#[test]
fn permits_go_round_all_ready_sources_whose_handlers_wait() {
    for sources in [2, 10, 100, 1_000] {
        for concurrency in [1, 2, 16] {
            for waits in [1, 3] {
                let most = sources * effort(10, 100, 1_000);
                let ready = (0..sources).map(stream::repeat).collect();
                let order = serve(ready, 64, concurrency, most, waits);
                let gaps = largest_gaps(&order, sources);
                let largest = gaps.into_iter().max().unwrap_or_default();
                let bound = sources - 1;
                println!(
                    "{sources} sources, {concurrency} handlers that wait: gap {largest}, bound {bound}"
                );
                assert!(largest <= bound, "{sources} sources, {concurrency} handlers: {largest}");
            }
        }
    }
}

// Rules 2.3, 2.7
#[test]
fn weights_give_shares_and_the_gap_is_one_turn_of_every_other() {
    for sources in [2, 10, 100, 1_000] {
        let weight = |source: usize| u32::try_from(source % 5 + 1).expect("a small weight");
        let weighted = |source| stream::repeat(source).weighted(weight(source));
        let (unit, rounds) = (4, effort(5, 50, 500));
        let turn = |source: usize| unit * weight(source) as usize;
        let all: usize = (0..sources).map(turn).sum();
        let order = serve((0..sources).map(weighted).collect(), unit, 1, all * rounds, 0);
        let gaps = largest_gaps(&order, sources);
        let mut served = vec![0_usize; sources];
        for source in &order {
            served[*source] += 1;
        }
        let worst = (0..sources).map(|source| served[source].abs_diff(turn(source) * rounds)).max();
        println!("{sources} weighted sources: {} messages, off by {worst:?}", order.len());
        for source in 0..sources {
            assert!(gaps[source] <= all - turn(source), "{source}: {}", gaps[source]);
            assert!(served[source].abs_diff(turn(source) * rounds) <= turn(source), "{source}");
        }
    }
}

// Rules 2.3, 2.7
#[test]
fn less_urgent_sources_are_slow_and_their_gap_is_bounded() {
    for sources in [2, 10, 100, 1_000] {
        // Every tenth is urgent.
        let urgent = |source: usize| source % 10 == 0;
        let prioritized =
            |source| stream::repeat(source).prioritized(if urgent(source) { 1 } else { 2 });
        let unit = 8;
        let count = (0..sources).filter(|source| urgent(*source)).count();
        let round = count * unit + sources - count;
        let order = serve(
            (0..sources).map(prioritized).collect(),
            unit,
            1,
            round * effort(10, 100, 500),
            0,
        );
        // Until an urgent one is known to be ready, the others have whole turns.
        let settled = &order[sources * unit..];
        let gaps = largest_gaps(settled, sources);
        let of = |wanted: bool| {
            let some = (0..sources).filter(|source| urgent(*source) == wanted);
            some.map(|source| gaps[source]).max().unwrap_or_default()
        };
        let (urgent_gap, slow_gap) = (of(true), of(false));
        println!(
            "{sources} sources, {count} urgent: gap {urgent_gap} urgent, {slow_gap} slow, round {round}"
        );
        assert!(urgent_gap <= round - unit, "{urgent_gap} of {}", round - unit);
        assert!(slow_gap < round, "{slow_gap} of {round}");
    }
}

// Rule 2.4
#[test]
fn a_poll_of_the_drain_handles_a_bounded_number_of_messages() {
    let mut most = 0;
    for sources in [1, 2, 10, 100, 1_000] {
        for unit in [1, 7, 64, 255, 256] {
            let handled = Cell::new(0);
            let context = StepContext::new("polls");
            let ready = (0..sources).map(stream::repeat);
            let drain = fan_in(&context, ready, |_, _| {
                handled.set(handled.get() + 1);
                async { Ok::<_, BoxError>(()) }
            });
            let mut drain = drain.quantum(unit).into_future();
            let mut largest = 0;
            for _ in 0..effort(20, 200, 2_000) {
                let before = handled.get();
                let poll = Pin::new(&mut drain).poll(&mut Context::from_waker(Waker::noop()));
                assert!(poll.is_pending(), "the thread goes back to the executor");
                assert!(handled.get() > before, "a poll gets on");
                largest = largest.max(handled.get() - before);
            }
            assert!(largest <= MESSAGES_PER_POLL, "{sources} sources, quantum {unit}: {largest}");
            most = most.max(largest);
        }
    }
    println!("at most {most} messages in one poll of a drain");
}

// Rules 2.4, 3.3, 3.5
#[test]
fn a_cancellation_is_noticed_before_the_next_message_and_a_timeout_within_a_poll() {
    let (mut late_stop, mut late_timeout) = (0, 0);
    for sources in [1, 2, 10, 100, 1_000] {
        for unit in [1, 7, 64, 256] {
            for at in [1, 100, 1_000] {
                for cancels in [true, false] {
                    let (clock, stop) = (ManualClock::new(), CancellationSource::new());
                    let context =
                        StepContext::new("limits").with_clock(std::sync::Arc::new(clock.clone()));
                    let handled = Cell::new(0);
                    let ready = (0..sources).map(stream::repeat);
                    let drain = fan_in(&context, ready, |_, _| {
                        handled.set(handled.get() + 1);
                        if handled.get() == at {
                            if cancels {
                                stop.cancel();
                            } else {
                                clock.advance(Duration::from_secs(9));
                            }
                        }
                        async { Ok::<_, BoxError>(()) }
                    });
                    let drain = drain.quantum(unit).cancellation(stop.token());
                    let drain = drain.timeout(Duration::from_secs(9)).into_future();
                    let error =
                        futures::executor::block_on(drain).expect_err("it has to end").into_error();
                    let code = if cancels { ErrorCode::Canceled } else { ErrorCode::Timeout };
                    assert_eq!(error.code(), code);
                    let late = handled.get() - at;
                    let bound = if cancels { 1 } else { MESSAGES_PER_POLL };
                    assert!(late < bound, "{late} after it, quantum {unit}");
                    let worst = if cancels { &mut late_stop } else { &mut late_timeout };
                    *worst = late.max(*worst);
                }
            }
        }
    }
    println!("at most {late_stop} messages after a cancellation, {late_timeout} after a timeout");
}
