//! Rules 2.3 and 2.4: nobody starves, neither a source nor what may end the drain.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use futures::{FutureExt, stream};
use watershed::channels::Window;
use watershed::{
    Answer, BoxError, CancellationSource, ErrorCode, RetryPolicy, Source, StepContext, fan_in,
};

use crate::support::{Gate, Hand, Log, block_on, filled, manual, yields};

fn ok() -> Result<(), BoxError> {
    Ok(())
}

/// The turns in a list of sources: which source, and how many messages.
fn turns(order: &[usize]) -> Vec<(usize, usize)> {
    let mut turns: Vec<(usize, usize)> = Vec::new();
    for source in order {
        match turns.last_mut() {
            Some((last, messages)) if last == source => *messages += 1,
            _ => turns.push((*source, 1)),
        }
    }
    turns
}

/// The first messages of sources that are always ready, as the numbers of their sources.
fn first_of(
    messages: usize,
    weights: &[u32],
    quantum: usize,
    waits: usize,
    unordered: bool,
) -> Vec<usize> {
    let (context, stop) = (StepContext::new("t"), CancellationSource::new());
    let order = RefCell::new(Vec::new());
    let sources = weights.iter().enumerate();
    let sources = sources.map(|(number, weight)| stream::repeat(number).weighted(*weight));
    let drain = fan_in(&context, sources, async |source, _| {
        order.borrow_mut().push(source);
        if order.borrow().len() == messages {
            stop.cancel();
        }
        yields(waits).await;
        ok()
    });
    let drain = drain.quantum(quantum).cancellation(stop.token());
    let failure = if unordered { block_on(drain.unordered()) } else { block_on(drain) };
    assert_eq!(failure.expect_err("cancelled").error().code(), ErrorCode::Canceled);
    order.into_inner()
}

/// Between two turns of a source every other one has its turn, and no turn is longer than that.
fn assert_fair(order: &[usize], weights: &[u32], turn: impl Fn(u32) -> usize) {
    let turns = turns(order);
    let mut last = vec![None; weights.len()];
    for (at, (source, messages)) in turns.iter().enumerate() {
        let most = turn(weights[*source]);
        let near = &turns[at.saturating_sub(3)..(at + 3).min(turns.len())];
        let of = weights.len();
        assert!(*messages <= most, "turn {at} of {of} sources has {messages} of {most}: {near:?}");
        if let Some(before) = last[*source].replace(at) {
            let mut between: Vec<_> =
                turns[before + 1..at].iter().map(|(other, _)| *other).collect();
            between.sort_unstable();
            between.dedup();
            assert_eq!(between.len(), weights.len() - 1, "{source} has two turns: {between:?}");
        }
    }
    assert!(last.iter().all(Option::is_some), "some source has no turn at all");
}

// Rule 2.3
#[test]
fn between_two_turns_of_a_ready_source_every_other_has_one_and_a_turn_is_a_quantum() {
    for quantum in [1, 7, 64, 256] {
        for sources in [2, 3, 10, 255, 256, 257, 600] {
            for unordered in [false, true] {
                let weights = vec![1; sources];
                let order = first_of(sources * quantum * 3, &weights, quantum, 0, unordered);
                assert_fair(&order, &weights, |_| quantum);
            }
        }
    }
}

// Rule 2.3
#[test]
fn a_turn_of_a_weighted_source_is_as_many_times_as_long() {
    for weights in [vec![1, 2, 3], vec![10, 1], vec![1, 1, 1, 1_000]] {
        let order = first_of(100_000, &weights, 16, 0, false);
        assert_fair(&order, &weights, |weight| 16 * weight as usize);
        let shares: u32 = weights.iter().sum();
        for (source, weight) in weights.iter().enumerate() {
            let messages = order.iter().filter(|other| **other == source).count();
            let share = 100_000 * *weight as usize / shares as usize;
            assert!(messages.abs_diff(share) <= 16_000 + share / 10, "{messages} of {share}");
        }
    }
}

// Rule 2.3
#[test]
fn where_handlers_wait_for_permits_a_turn_is_as_many_messages_as_the_weight() {
    for weights in [vec![1; 10], vec![1, 2, 3], vec![5, 1, 1], vec![1; 300]] {
        for unordered in [false, true] {
            let order = first_of(6_000, &weights, 64, 2, unordered);
            // Before they wait for the first time nobody knows that they do.
            let settled = &order[1_000..];
            assert_fair(settled, &weights, |weight| weight as usize);
        }
    }
}

/// The first messages of sources that are always ready and whose handlers wait, in an order of four.
fn first_with_permits(
    messages: usize,
    weights: &[u32],
    (order, concurrency, waits): (usize, usize, usize),
) -> Vec<usize> {
    let (context, stop) = (StepContext::new("t"), CancellationSource::new());
    let (seen, keys) = (RefCell::new(Vec::new()), Cell::new(0_u64));
    let sources = weights.iter().enumerate();
    let sources = sources.map(|(number, weight)| stream::repeat(number).weighted(*weight));
    let drain = fan_in(&context, sources, async |source, _| {
        seen.borrow_mut().push(source);
        if seen.borrow().len() == messages {
            stop.cancel();
        }
        yields(waits).await;
        ok()
    });
    let drain = drain.concurrency(concurrency).cancellation(stop.token());
    let key = |_: &usize| keys.replace(keys.get() + 1);
    let failure = block_on(in_order!(order, drain, key));
    assert_eq!(failure.expect_err("cancelled").error().code(), ErrorCode::Canceled);
    seen.into_inner()
}

// Rule 2.3
#[test]
fn permits_go_round_the_sources_of_several_banks_one_message_each() {
    for sources in [2, 17, 255, 257, 300, 513, 600] {
        for how in [(0, 3, 1), (0, 16, 2), (0, 64, 4), (1, 2, 1), (1, 16, 3), (2, 7, 1), (3, 16, 2)]
        {
            let weights = vec![1; sources];
            // By then it is known that handlers wait, and everybody has been polled.
            let (first, most) = (sources + 3 * how.1, 5 * sources + 3 * how.1);
            let order = first_with_permits(most, &weights, how);
            let mut last = vec![first; sources];
            for (at, source) in order.iter().enumerate().skip(first) {
                let between = at - last[*source];
                assert!(between <= sources, "{sources} sources, {how:?}: {between}, at {at}");
                last[*source] = at;
            }
            assert!(last.iter().all(|last| most - last <= sources), "{sources} sources, {how:?}");
        }
    }
}

// Rule 2.3
#[test]
fn from_the_start_every_other_source_has_a_turn_between_two_of_one() {
    for sources in [2, 5, 17, 300] {
        for concurrency in [1, 2, 5, 16] {
            for (order, waits) in [1, 2, 3].into_iter().flat_map(|order| [(order, 1), (order, 3)]) {
                let how = (order, concurrency, waits);
                let seen = first_with_permits(6 * sources + concurrency, &vec![1; sources], how);
                let turns = turns(&seen);
                let mut last = vec![None; sources];
                for (at, (source, _)) in turns.iter().enumerate() {
                    if let Some(before) = last[*source].replace(at) {
                        let between: std::collections::BTreeSet<_> =
                            turns[before + 1..at].iter().map(|(other, _)| other).collect();
                        let missing = sources - 1 - between.len();
                        assert_eq!(missing, 0, "{sources} sources, {how:?}, turn {at} of {source}");
                    }
                }
            }
        }
    }
}

/// The first messages of sources that are always ready, in an order of four. One of the handlers
/// ends whenever the drain waits: the one that has run longest, or with a `seed` any.
fn first_by_hand(
    messages: usize,
    weights: &[u32],
    (order, concurrency, limit): (usize, usize, usize),
    seed: usize,
) -> Vec<usize> {
    let context = StepContext::new("t");
    let (seen, keys) = (RefCell::new(Vec::new()), Cell::new(0_u64));
    let running = RefCell::new(Vec::new());
    let sources = weights.iter().enumerate();
    let sources = sources.map(|(number, weight)| stream::repeat(number).weighted(*weight));
    let drain = fan_in(&context, sources, async |source, _| {
        seen.borrow_mut().push(source);
        let gate = Gate::default();
        running.borrow_mut().push(gate.clone());
        gate.wait().await;
        ok()
    });
    let drain = drain.concurrency(concurrency).quantum(1).per_source_concurrency(limit);
    let key = |_: &usize| keys.replace(keys.get() + 1);
    let drain = in_order!(order, drain, key);
    let (mut drain, mut random) = (Hand::new(drain), seed);
    while seen.borrow().len() < messages {
        assert!(drain.run().is_pending());
        random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(seed);
        let ending = (random >> 33) % running.borrow().len();
        let gate = running.borrow_mut().remove(ending);
        gate.open();
    }
    drop(drain);
    seen.into_inner()
}

// Rule 2.3
#[test]
fn from_the_first_poll_on_a_source_has_no_more_than_its_turn_before_every_other_has_one() {
    let crowds = [&[1, 2][..], &[2, 1], &[1, 3], &[2, 1, 3], &[1, 4, 1, 2], &[3, 3, 3], &[1; 4]];
    for (weights, concurrency) in crowds.iter().flat_map(|crowd| (1..=9).map(move |c| (crowd, c))) {
        for (order, seed) in (1..4).flat_map(|order| (0..6).map(move |seed| (order, seed))) {
            let how = (order, concurrency, usize::MAX);
            let seen = first_by_hand(60, weights, how, seed);
            for (source, weight) in weights.iter().enumerate() {
                let own: Vec<_> = (0..seen.len()).filter(|at| seen[*at] == source).collect();
                // One message more than a turn has is of two of them, and the others are between.
                for messages in own.windows(*weight as usize + 1) {
                    let between = &seen[messages[0]..messages[messages.len() - 1]];
                    let missing = (0..weights.len()).find(|other| !between.contains(other));
                    let at = messages[0];
                    assert_eq!(missing, None, "{source} at {at}, {weights:?}, {how:?}: {seen:?}");
                }
            }
        }
    }
}

// Rule 2.3
#[test]
fn a_turn_that_was_in_pieces_is_not_added_to_the_next_one() {
    for weights in [&[2, 1, 3][..], &[1, 4, 1, 2], &[3, 3, 3]] {
        for (concurrency, limit) in (1..=9).flat_map(|c| [(c, 1), (c, 2), (c, 3)]) {
            if limit * (weights.len() - 1) < concurrency {
                // All others may have as many in flight as they may, and are not ready.
                continue;
            }
            for (order, seed) in (1..4).flat_map(|order| (0..12).map(move |seed| (order, seed))) {
                let how = (order, concurrency, limit);
                let turns = turns(&first_by_hand(60, weights, how, seed));
                for (at, (source, messages)) in turns.iter().enumerate() {
                    let most = weights[*source] as usize;
                    assert!(*messages <= most, "{weights:?}, {how:?}, {seed}: {at} of {turns:?}");
                }
            }
        }
    }
}

// Rule 2.3
#[test]
fn where_several_permits_are_waited_for_a_turn_is_as_many_messages_as_the_weight() {
    for concurrency in 1..=8 {
        for waits in 1..=3 {
            for order in 1..4 {
                let how = (order, concurrency, waits);
                let settled = &first_with_permits(2_000, &[3, 1], how)[400..];
                assert_fair(settled, &[3, 1], |weight| weight as usize);
                let heavy = settled.iter().filter(|source| **source == 0).count();
                assert!(heavy.abs_diff(1_200) <= 3, "{heavy} of 1600 messages, {how:?}");
            }
            // One that handles a message at a time needs others to have something to wait for.
            let weights = [vec![3], vec![1; 26]].concat();
            let order = first_with_permits(5_000, &weights, (0, concurrency, waits));
            let count = |wanted| order.iter().filter(|source| **source == wanted).count();
            let (heavy, light) = (count(0), count(26));
            assert!(heavy.abs_diff(3 * light) <= 30, "{heavy} to {light}, {concurrency}, {waits}");
        }
    }
}

// Rule 2.3
#[test]
fn no_source_of_a_crowd_starves() {
    const SOURCES: usize = 100_000;
    let (context, seen) = (StepContext::new("t"), RefCell::new(vec![0_u8; SOURCES]));
    let rounds = Cell::new(0);
    let sources = (0..SOURCES).map(|number| stream::iter([number; 3]));
    let drain = fan_in(&context, sources, async |number: usize, _| {
        let mut seen = seen.borrow_mut();
        seen[number] += 1;
        // The sources that are a round ahead of the others are at most those of one round.
        if number == 0 {
            rounds.set(rounds.get() + 1);
            let behind = seen.iter().filter(|count| **count + 1 < rounds.get()).count();
            assert_eq!(behind, 0, "in round {}", rounds.get());
        }
        ok()
    });
    let report = block_on(drain.quantum(1)).expect("no failure");
    assert_eq!(report.handled(), 3 * SOURCES as u64);
}

// Rule 2.3; fault d12
#[test]
fn a_priority_counts_where_handlers_wait_and_nobody_starves_by_it() {
    for waits in [0, 1] {
        let (context, stop) = (StepContext::new("t"), CancellationSource::new());
        let counts = RefCell::new([0; 21]);
        let sources = (0..=20).map(|number: usize| {
            stream::repeat(number).prioritized(if number == 0 { 0 } else { 100 })
        });
        let drain = fan_in(&context, sources, async |number: usize, _| {
            counts.borrow_mut()[number] += 1;
            if counts.borrow().iter().sum::<i32>() == 10_000 {
                stop.cancel();
            }
            yields(waits).await;
            ok()
        });
        block_on(drain.cancellation(stop.token())).expect_err("cancelled");
        let counts = counts.into_inner();
        assert!(counts[0] > 5_000, "waits {waits}: {counts:?} of 10,000, the first one urgent");
        assert!(counts.iter().all(|count| *count > 20), "waits {waits}: {counts:?}");
    }
}

// Rule 2.3
#[test]
fn while_a_more_urgent_source_is_ready_the_turns_of_others_are_one_message() {
    let (context, stop) = (StepContext::new("t"), CancellationSource::new());
    let order = RefCell::new(Vec::new());
    let sources = [5, 5, 7, 9].into_iter().enumerate();
    let sources =
        sources.map(|(number, priority)| stream::repeat(number).weighted(3).prioritized(priority));
    let drain = fan_in(&context, sources, async |number, _| {
        order.borrow_mut().push(number);
        if order.borrow().len() == 10_000 {
            stop.cancel();
        }
        ok()
    });
    block_on(drain.cancellation(stop.token()).quantum(32)).expect_err("cancelled");
    let turns = turns(&order.borrow());
    // Once every source is known to be ready.
    for (number, messages) in &turns[4..turns.len() - 1] {
        let most = if *number < 2 { 96 } else { 1 };
        assert!(*messages <= most, "source {number} had {messages} messages: {turns:?}");
    }
    assert!(turns.iter().filter(|(number, _)| *number == 3).count() > 10);
}

// Rule 2.3
#[test]
fn a_priority_counts_only_while_a_more_urgent_source_is_ready() {
    let (context, order) = (StepContext::new("t"), RefCell::new(Vec::new()));
    let queues = [(0, 3, 0), (1, 300, 100), (2, 300, 100)];
    let sources = queues.map(|(number, most, how)| filled(vec![number; most]).prioritized(how));
    let drain = fan_in(&context, sources, async |number, _| {
        order.borrow_mut().push(number);
        ok()
    });
    block_on(drain.quantum(50)).expect("no failure");
    let turns = turns(&order.borrow());
    let longest = turns.iter().map(|(_, messages)| *messages).max();
    assert_eq!(longest, Some(50), "the urgent one has ended: {turns:?}");
}

/// How many messages are taken between two looks, and in one poll.
fn most_in_one_poll<F: Future>(drain: F, calls: &Cell<usize>, polls: usize) -> usize {
    let mut drain = Hand::new(drain);
    let mut most = 0;
    for _ in 0..polls {
        let (before, woken) = (calls.get(), drain.wakes());
        let ended = drain.poll().is_ready();
        most = most.max(calls.get() - before);
        if ended {
            break;
        }
        assert!(drain.wakes() > woken, "it is ready, and must not wait");
    }
    most
}

// Rule 2.4
#[test]
fn whatever_the_weight_one_poll_takes_256_messages_at_most() {
    let (context, _clock) = manual("t");
    let calls = Cell::new(0);
    for weight in [1, 10_000, u32::MAX] {
        for sources in [1, 2, 300, 1_000] {
            let drain = || {
                let sources =
                    (0..sources).map(|number: u32| stream::repeat(number).weighted(weight));
                fan_in(&context, sources, async |_, _| {
                    calls.set(calls.get() + 1);
                    ok()
                })
                .quantum(256)
            };
            let most = [
                most_in_one_poll(drain().into_future(), &calls, 200),
                most_in_one_poll(drain().unordered().into_future(), &calls, 200),
                most_in_one_poll(drain().unordered().concurrency(50).into_future(), &calls, 200),
                most_in_one_poll(drain().ordered_by(|key| *key).into_future(), &calls, 200),
                most_in_one_poll(
                    drain().ordered_across_sources_by(|key| *key).concurrency(50).into_future(),
                    &calls,
                    200,
                ),
            ];
            assert!(
                most.iter().all(|most| (1..=256).contains(most)),
                "{most:?}, {sources} sources"
            );
        }
    }
}

// Rules 2.4, 3.10, 3.11
#[test]
fn a_message_that_is_tried_again_at_once_for_ever_gives_the_thread_back() {
    let (context, _clock) = manual("t");
    let calls = Cell::new(0);
    for later in [true, false] {
        for order in 0..3 {
            let drain = fan_in(&context, [filled([1]), filled([2])], async |_, _| {
                calls.set(calls.get() + 1);
                assert!(calls.get() < 10_000_000, "the thread is never given back");
                if later { Ok(Answer::Later(Duration::ZERO)) } else { Err("again") }
            });
            let drain = drain.retry(RetryPolicy::fixed(u32::MAX, Duration::ZERO)).concurrency(2);
            let most = match order {
                0 => most_in_one_poll(drain.into_future(), &calls, 200),
                1 => most_in_one_poll(drain.unordered().into_future(), &calls, 200),
                _ => most_in_one_poll(drain.ordered_by(|key| *key).into_future(), &calls, 200),
            };
            assert!((1..=256).contains(&most), "{most} attempts in one poll, {later} {order}");
        }
    }
}

// Rule 2.4
#[test]
fn a_window_that_fills_for_ever_and_sources_that_come_for_ever_give_the_thread_back() {
    let (context, _clock) = manual("t");
    let taken = Cell::new(0);
    let endless = || {
        stream::repeat_with(|| {
            taken.set(taken.get() + 1);
            assert!(taken.get() < 10_000_000, "the thread is never given back");
        })
    };
    let windows = [Window::new(&context, endless()).count(usize::MAX)];
    let drain = fan_in(&context, windows, async |_, _| ok());
    let most = most_in_one_poll(drain.into_future(), &taken, 200);
    assert!((1..=257).contains(&most), "{most} messages of a window in one poll");

    let coming = stream::repeat_with(|| {
        taken.set(taken.get() + 1);
        assert!(taken.get() < 10_000_000, "the thread is never given back");
        stream::empty::<u32>()
    });
    let drain = fan_in(&context, [], async |_, _| ok()).incoming(coming);
    let most = most_in_one_poll(drain.into_future(), &taken, 200);
    assert!((1..=1_024).contains(&most), "{most} sources in one poll");
}

// Rule 2.4; fault d2
#[test]
fn both_tokens_and_the_shutdown_are_looked_at_before_every_message() {
    for which in 0..3 {
        for order in 0..3 {
            for (weight, sources, at) in [(1, 1, 5), (10_000, 1, 300), (10_000, 3, 7), (1, 600, 50)]
            {
                let (own, call) = (CancellationSource::new(), CancellationSource::new());
                let shutdown = CancellationSource::new();
                let context = StepContext::new("t").with_cancellation(own.token());
                let calls = Cell::new(0);
                let sources =
                    (0..sources).map(|number: u32| stream::repeat(number).weighted(weight));
                let drain = fan_in(&context, sources, async |_, _| {
                    calls.set(calls.get() + 1);
                    if calls.get() == at {
                        [&own, &call, &shutdown][which].cancel();
                    }
                    ok()
                });
                let drain =
                    drain.quantum(256).cancellation(call.token()).shutdown(shutdown.token());
                let drain = drain.concurrency(3);
                let ended = block_on(in_order!(order, drain, |key| *key));
                assert_eq!(ended.is_ok(), which == 2);
                assert_eq!(calls.get(), at, "token {which}, order {order}: messages after it");
            }
        }
    }
}

// Rule 2.4
#[test]
fn the_deadline_is_looked_at_at_least_every_256_messages() {
    for (weight, sources) in [(1, 1), (u32::MAX, 1), (u32::MAX, 3), (1, 600)] {
        for unordered in [true, false] {
            let (context, clock) = manual("t");
            let calls = Cell::new(0);
            let sources = (0..sources).map(|number: u32| stream::repeat(number).weighted(weight));
            let drain = fan_in(&context, sources, async |_, _| {
                calls.set(calls.get() + 1);
                if calls.get() == 100 {
                    clock.advance(Duration::from_secs(10));
                }
                ok()
            });
            let drain = drain.quantum(256).timeout(Duration::from_secs(10)).concurrency(3);
            let ended = if unordered { block_on(drain.unordered()) } else { block_on(drain) };
            assert_eq!(ended.expect_err("late").error().code(), ErrorCode::Timeout);
            assert!(calls.get() <= 100 + 256, "{} messages", calls.get());
        }
    }
}

// Rules 2.4, 2.6
#[test]
fn a_cancellation_is_seen_among_sources_that_come_and_end_for_ever() {
    let (context, stop, come) = (StepContext::new("t"), CancellationSource::new(), Cell::new(0));
    let coming = stream::repeat_with(|| {
        come.set(come.get() + 1);
        if come.get() == 5_000 {
            stop.cancel();
        }
        assert!(come.get() < 100_000, "nobody looks at the token");
        stream::iter([1])
    });
    let drain = fan_in(&context, [], async |_, _| ok()).incoming(coming);
    let ended = block_on(drain.cancellation(stop.token()));
    assert_eq!(ended.expect_err("cancelled").error().code(), ErrorCode::Canceled);
}

// Rules 2.3, 3.10
#[test]
fn due_retries_and_new_messages_of_an_unordered_source_take_turns() {
    let (context, clock) = manual("t");
    let attempts = Log::default();
    let drain =
        fan_in(&context, [stream::iter(0..1_000_u32)], async |message, step: StepContext| {
            let again = step.attempt() > 1;
            attempts.push(again);
            // The first hundred fail once; they are all due from then on.
            if message == 100 && !again {
                clock.advance(Duration::from_secs(1));
            }
            if message < 100 && !again { Err("once") } else { Ok(()) }
        });
    let drain = drain.unordered().retry(RetryPolicy::fixed(2, Duration::from_secs(1)));
    let mut drain = Hand::new(drain.into_future().boxed_local());
    assert_eq!(drain.finish().expect("no failure").handled(), 1_000);
    let attempts = attempts.take();
    let first = attempts.iter().position(|again| *again).expect("they are tried again");
    // One and one from the moment they are noticed, and at the next look at the latest.
    assert!((101..=101 + 256).contains(&first), "at {first}");
    let mixed = &attempts[first..first + 199];
    let runs = mixed.chunk_by(|one, other| one == other).map(<[bool]>::len).max();
    assert_eq!(runs, Some(1), "{mixed:?}");
}
