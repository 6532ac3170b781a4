//! Rule 2.2: the order of messages, and how many handlers run at once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use watershed::channels::{Window, live};
use watershed::{
    BoxError, CompensationPolicy, ErrorCode, OnFailure, Progress, RetryPolicy, Source, StepContext,
    fan_in,
};

use crate::support::ending::assert_settled;
use crate::support::fed::{Fed, Gates};
use crate::support::{Hand, Log, block_on, filled, manual, yields};

const SECOND: Duration = Duration::from_secs(1);

fn ok() -> Result<(), BoxError> {
    Ok(())
}

/// Waits that differ from message to message, and are the same in each run.
fn scattered(message: u32) -> usize {
    (message.wrapping_mul(2_654_435_761) >> 29) as usize
}

// Rule 2.2
#[test]
fn messages_of_one_source_are_handled_one_after_another_in_their_order() {
    let context = StepContext::new("t");
    let (log, sources) =
        (Log::default(), (0..5).map(|source| filled(source * 100..source * 100 + 30)));
    let drain = fan_in(&context, sources, async |message: u32, _| {
        log.push((message, true));
        yields(scattered(message)).await;
        log.push((message, false));
        ok()
    });
    block_on(drain.concurrency(9)).expect("no failure");
    let log = log.take();
    for source in 0..5 {
        let own: Vec<_> =
            log.iter().filter(|(message, _)| message / 100 == source).copied().collect();
        let wanted: Vec<_> = (source * 100..source * 100 + 30)
            .flat_map(|message| [(message, true), (message, false)])
            .collect();
        assert_eq!(own, wanted);
    }
}

// Rule 2.2
#[test]
fn one_handler_at_a_time_is_the_default_and_makes_a_total_order() {
    for order in 0..3 {
        let (context, running, most) = (StepContext::new("t"), Cell::new(0), Cell::new(0));
        let sources = (0..4).map(|source| filled(source * 10..source * 10 + 10));
        let drain = fan_in(&context, sources, async |message: u32, _| {
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            yields(scattered(message)).await;
            running.set(running.get() - 1);
            ok()
        });
        let report = block_on(in_order!(order, drain, |message| *message));
        assert_eq!((report.expect("no failure").handled(), most.get()), (40, 1));
    }
}

// Rule 2.2
#[test]
fn messages_with_a_key_in_common_are_in_order_and_others_run_at_once() {
    for across in [true, false] {
        let (context, log) = (StepContext::new("t"), Log::default());
        let running = RefCell::new(HashMap::new());
        let most = Cell::new(0);
        let sources = (0..3).map(|source| filled((0..60).map(move |number| (source, number))));
        let key = |(_, number): &(usize, u32)| number % 4;
        let drain = fan_in(&context, sources, async |(source, number): (usize, u32), _| {
            let place = if across { 0 } else { source };
            let busy = running.borrow_mut().insert((place, number % 4), number);
            assert_eq!(busy, None, "the key is busy");
            most.set(most.get().max(running.borrow().len()));
            log.push((source, number));
            yields(scattered(number)).await;
            running.borrow_mut().remove(&(place, number % 4));
            ok()
        });
        let drain = drain.concurrency(100);
        let report = if across {
            block_on(drain.ordered_across_sources_by(key))
        } else {
            block_on(drain.ordered_by(key))
        };
        assert_eq!(report.expect("no failure").handled(), 180);
        assert!(most.get() > if across { 2 } else { 4 }, "{} at once", most.get());
        let log = log.take();
        for source in 0..3 {
            for key in 0..4 {
                let own = log.iter().filter(|(s, n)| *s == source && n % 4 == key).map(|(_, n)| *n);
                assert!(own.is_sorted(), "source {source}, key {key}");
            }
        }
    }
}

// Rule 2.2
#[test]
fn keys_over_all_sources_go_by_the_order_in_which_messages_were_taken() {
    let (context, gates, started) = (StepContext::new("t"), Gates::default(), Log::default());
    let fed: [Fed<u32>; 3] = [Fed::closed([1]), Fed::open([]), Fed::open([])];
    let sources = fed.each_ref().map(Fed::source);
    let drain = fan_in(&context, sources, async |message, _| {
        started.push(message);
        gates.wait(message).await;
        ok()
    });
    let drain = drain.concurrency(9).ordered_across_sources_by(|_| "the only one");
    let mut drain = Hand::new(drain.into_future());
    assert!(drain.run().is_pending());
    // They are taken in this order, and held.
    fed[2].push(2);
    assert!(drain.run().is_pending());
    fed[1].push(3);
    fed[1].push(4);
    assert!(drain.run().is_pending());
    assert_eq!(started.all(), [1]);
    fed[1].close();
    fed[2].close();
    (1..=4).for_each(|message| gates.open(message));
    assert_eq!(drain.finish().expect("no failure").handled(), 4);
    assert_eq!(started.take(), [1, 2, 3, 4]);
}

// Rule 2.2
#[test]
fn the_same_key_in_two_sources_is_two_keys_unless_asked_otherwise() {
    for across in [true, false] {
        let (context, gates, started) = (StepContext::new("t"), Gates::default(), Log::default());
        let drain = fan_in(&context, [filled([1]), filled([2])], async |message: u32, _| {
            started.push(message);
            gates.wait(message).await;
            ok()
        });
        let drain = drain.concurrency(9);
        let mut drain = Hand::new(if across {
            drain.ordered_across_sources_by(|_| ()).into_future().boxed_local()
        } else {
            drain.ordered_by(|_| ()).into_future().boxed_local()
        });
        assert!(drain.run().is_pending());
        assert_eq!(started.len(), if across { 1 } else { 2 });
        gates.open(1);
        gates.open(2);
        assert_eq!(drain.finish().expect("no failure").handled(), 2);
    }
}

// Rule 2.2
#[test]
fn limits_are_kept_and_made_use_of_over_all_sources_and_of_each() {
    for (all, each) in [(1, 1), (2, 1), (3, 2), (7, 3), (50, 50), (4, 100), (1_000, 5)] {
        for keyed in [true, false] {
            let (context, running) = (StepContext::new("t"), RefCell::new([0_usize; 4]));
            let most = Cell::new((0, 0));
            let sources =
                (0..4_u32).map(|source| filled((0..100).map(move |n| source * 1_000 + n)));
            let drain = fan_in(&context, sources, async |message: u32, _| {
                let source = (message / 1_000) as usize;
                running.borrow_mut()[source] += 1;
                let now = *running.borrow();
                let total: usize = now.iter().sum();
                assert!(total <= all && now[source] <= each, "{now:?} of {all} and {each}");
                most.set((most.get().0.max(total), most.get().1.max(now[source])));
                yields(1 + scattered(message)).await;
                running.borrow_mut()[source] -= 1;
                ok()
            });
            let drain = drain.concurrency(all).per_source_concurrency(each);
            let report = if keyed {
                block_on(drain.ordered_by(|message| *message))
            } else {
                block_on(drain.unordered())
            };
            let report = report.expect("no failure");
            assert_eq!(report.handled(), 400);
            assert_settled(&report);
            let wanted = (all.min(4 * each), each.min(all).min(100));
            let least = (wanted.0.min(40), wanted.1.min(20));
            assert!(most.get().0 >= least.0 && most.get().1 >= least.1, "{most:?} of {wanted:?}");
        }
    }
}

// Rule 2.2
#[test]
fn a_crowd_of_handlers_runs_at_once_where_the_limit_allows_it() {
    let (context, gates, running) = (StepContext::new("t"), Gates::default(), Cell::new(0));
    let drain = fan_in(&context, [filled(0..100_000)], async |_: u32, _| {
        running.set(running.get() + 1);
        gates.wait(()).await;
        ok()
    });
    let mut drain = Hand::new(drain.unordered().concurrency(100_000).into_future());
    assert!(drain.run().is_pending());
    assert_eq!(running.get(), 100_000);
    gates.open(());
    assert_eq!(drain.finish().expect("no failure").handled(), 100_000);
}

// Rules 2.2, 6.2
#[test]
fn a_limit_that_cannot_be_meant_is_an_error_before_anything_is_taken() {
    let context = StepContext::new("t");
    let fed = Fed::closed([1_u32]);
    macro_rules! refused {
        ($($option:literal: |$drain:ident| $with:expr;)+) => {$({
            let $drain = fan_in(&context, [fed.source()], async |_, _| ok());
            let failure = Hand::new($with.into_future()).finish().expect_err($option);
            assert_eq!(failure.error().code(), ErrorCode::Validation, $option);
            assert!(failure.error().to_string().contains($option), "{}", failure.error());
            assert_eq!((fed.polls(), failure.report().taken()), (0, 0), $option);
        })+};
    }
    refused! {
        "concurrency": |drain| drain.concurrency(0);
        "per_source_concurrency": |drain| drain.per_source_concurrency(0).unordered();
        "quantum": |drain| drain.quantum(0);
        "quantum": |drain| drain.quantum(257);
        "quantum": |drain| drain.quantum(usize::MAX);
        "max_waiting": |drain| drain.max_waiting(0).retry(RetryPolicy::fixed(2, SECOND));
        "rate": |drain| drain.rate(0, SECOND);
        "rate": |drain| drain.rate(1, Duration::ZERO);
        "attempt": |drain| drain.retry(RetryPolicy::fixed(0, SECOND));
        "attempt": |drain| drain.retry(RetryPolicy::exponential(0, SECOND));
        "0 actions": |drain| drain
            .message_compensation(CompensationPolicy::parallel_limited(0))
            .on_failure(OnFailure::Continue);
        "attempt": |drain| drain
            .message_compensation(CompensationPolicy::parallel().retry(RetryPolicy::fixed(0, SECOND)))
            .on_failure(OnFailure::Continue);
    }
    let sources = || [fed.source().erased(), fed.source().weighted(0).erased()];
    let drain = fan_in(&context, sources(), async |_, _| ok());
    assert_eq!(block_on(drain).expect_err("a weight").error().code(), ErrorCode::Validation);
    let drain = fan_in(&context, [fed.source().rate(0, SECOND)], async |_, _| ok());
    assert_eq!(block_on(drain).expect_err("a rate").error().code(), ErrorCode::Validation);
    let drain = fan_in(&context, [Window::new(&context, fed.source()).count(0)], async |_, _| ok());
    assert_eq!(block_on(drain).expect_err("a count").error().code(), ErrorCode::Validation);
    assert_eq!(fed.polls(), 0);
}

// Rules 2.2, 2.7, 6.2
#[test]
fn a_source_that_comes_with_an_option_that_cannot_be_meant_ends_the_drain_as_a_fault() {
    let context = StepContext::new("t");
    let fed = Fed::closed([1_u32]);
    let coming = stream::iter([fed.source().weighted(0)]);
    let drain = fan_in(&context, [], async |_, _| ok()).incoming(coming);
    let failure = Hand::new(drain.into_future()).finish().expect_err("a weight of 0");
    assert_eq!((failure.error().code(), fed.polls()), (ErrorCode::Validation, 0));
}

// Rule 2.2
#[test]
fn the_greatest_limits_cost_nothing_and_work() {
    let (context, _) = manual("t");
    for order in 0..3 {
        let source =
            filled(0..100).weighted(u32::MAX).prioritized(u32::MAX).rate(usize::MAX, SECOND);
        let drain = fan_in(&context, [source], async |message, step: StepContext| {
            yields(scattered(message)).await;
            if step.attempt() == 1 && message == 7 { Err("once") } else { Ok(()) }
        });
        let drain = drain
            .concurrency(usize::MAX)
            .per_source_concurrency(usize::MAX)
            .max_waiting(usize::MAX)
            .retry(RetryPolicy::fixed(u32::MAX, Duration::ZERO))
            .rate(usize::MAX, Duration::MAX)
            .timeout(Duration::MAX)
            .message_timeout(Duration::MAX)
            .grace(Duration::MAX)
            .finish_within(Duration::MAX)
            .dead_letter_timeout(Duration::MAX)
            .quantum(256);
        let mut drain = Hand::new(in_order!(order, drain, |message| message % 7));
        assert_eq!(drain.finish().expect("no failure").handled(), 100);
    }
    let windows = Window::new(&context, filled(0..10)).count(usize::MAX).every(Duration::MAX);
    let drain = fan_in(&context, [windows], async |_, _| ok());
    assert_eq!(block_on(drain).expect("no failure").handled(), 1);
}

// Rule 2.2
#[test]
fn an_option_without_effect_is_told_in_the_report_and_the_progress() {
    let context = StepContext::new("t");
    let retry = || RetryPolicy::fixed(2, SECOND);
    macro_rules! warns {
        ($($option:literal: |$drain:ident| $with:expr;)+) => {$({
            let (progress, during) = (Progress::new(), Log::default());
            let sources = [filled([1_u32]), filled([2])];
            let $drain = fan_in(&context, sources, async |_, _| {
                during.push(progress.report().warnings().to_vec());
                ok()
            });
            let $drain = $drain.progress(&progress);
            let report = block_on($with).expect("no failure");
            let options: Vec<_> = report.warnings().iter().map(|warning| warning.option()).collect();
            let wanted: &[&str] = if $option.is_empty() { &[] } else { &[$option] };
            assert_eq!(options, wanted, "{:?}", report.warnings());
            assert_eq!(during.take(), [report.warnings(), report.warnings()]);
            assert_eq!(progress.report().warnings(), report.warnings());
            for warning in report.warnings() {
                assert!(warning.to_string().contains($option), "{warning}");
            }
        })+};
    }
    warns! {
        "": |drain| drain;
        "": |drain| drain.concurrency(2);
        "": |drain| drain.concurrency(32).unordered();
        "": |drain| drain.concurrency(32).ordered_by(|message| *message);
        "": |drain| drain.concurrency(32).incoming(stream::empty());
        "": |drain| drain.retry(retry()).max_waiting(3);
        "": |drain| drain.retry(retry()).message_compensation(CompensationPolicy::parallel());
        "": |drain| drain
            .dead_letters(async |_| ())
            .dead_letter_timeout(SECOND)
            .message_compensation(CompensationPolicy::parallel());
        "concurrency": |drain| drain.concurrency(32);
        "per_source_concurrency": |drain| drain.per_source_concurrency(2);
        "message_compensation": |drain| drain.message_compensation(CompensationPolicy::parallel());
        "max_waiting": |drain| drain.max_waiting(3);
        "dead_letter_timeout": |drain| drain.dead_letter_timeout(SECOND);
        "finish_within": |drain| drain.finish_within(SECOND);
        "dead_letters": |drain| drain.dead_letters(async |_| ()).on_failure(OnFailure::Abort);
    }
    // Weights and priorities of a source that has nobody beside it.
    for source in [filled([1]).weighted(3), filled([1]).prioritized(3)] {
        let report = block_on(fan_in(&context, [source], async |_, _| ok())).expect("no failure");
        assert_eq!(report.warnings().len(), 1, "{:?}", report.warnings());
    }
}

// Rule 2.2
#[test]
fn a_warning_is_in_the_report_of_a_failure_too_and_comes_once() {
    let context = StepContext::new("t");
    let drain = fan_in(
        &context,
        [filled(0..100)],
        async |message, _| {
            if message == 99 { Err("no") } else { Ok(()) }
        },
    );
    let failure = block_on(drain.concurrency(32)).expect_err("the last one fails");
    assert_eq!(failure.report().warnings().len(), 1);
}

// Rules 2.2, 2.7
#[test]
fn what_may_have_an_effect_on_sources_to_come_is_no_option_without_effect() {
    let (context, (live, incoming)) = (StepContext::new("t"), live());
    drop(live.add(filled([1]).weighted(2)));
    drop(live);
    let drain = fan_in(&context, [], async |_, _| ok()).incoming(incoming).concurrency(32);
    assert_eq!(block_on(drain).expect("no failure").warnings(), []);
}

// Rules 2.2, 2.1
#[test]
fn a_key_that_is_busy_for_long_stops_its_source_and_no_other() {
    let (context, gates, done) = (StepContext::new("t"), Gates::default(), Log::default());
    let sources = [filled([0, 0, 1]).boxed(), stream::iter(10..1_000).boxed()];
    let drain = fan_in(&context, sources, async |message, _| {
        if message == 0 {
            gates.wait(()).await;
        }
        done.push(message);
        ok()
    });
    let drain = drain.concurrency(3).ordered_by(|message| *message);
    let mut drain = Hand::new(drain.into_future());
    assert!(drain.run().is_pending());
    assert_eq!(done.take(), (10..1_000).collect::<Vec<u32>>());
    gates.open(());
    drain.finish().expect("no failure");
    assert_eq!(done.take(), [0, 0, 1]);
}
