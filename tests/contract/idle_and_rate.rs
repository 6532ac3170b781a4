//! Rule 2.10: a drain that ends when nothing is left to do, and attempts that are limited in time.

use std::cell::Cell;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use watershed::channels::{Window, live};
use watershed::{
    BoxError, CancellationSource, Clock, ErrorCode, ManualClock, OnFailure, RetryPolicy, Source,
    StepContext, fan_in,
};

use crate::support::ending::assert_settled;
use crate::support::fed::{Fed, Gates};
use crate::support::{Hand, Log, filled, left_in, manual, yields};

const SECOND: Duration = Duration::from_secs(1);

fn ok() -> Result<(), BoxError> {
    Ok(())
}

fn seconds(clock: &ManualClock) -> u64 {
    clock.now().as_nanos() / 1_000_000_000
}

// Rule 2.10
#[test]
fn a_queue_that_feeds_itself_is_drained_to_its_end() {
    for order in 0..3 {
        let (context, (sender, queue)) = (StepContext::new("t"), async_channel::unbounded());
        sender.try_send(0_u32).expect("it is open");
        let drain = fan_in(&context, [queue], async |message: u32, _| {
            yields((message % 3) as usize).await;
            if message < 1_000 {
                for next in [2 * message + 1, 2 * message + 2] {
                    sender.send(next).await?;
                }
            }
            ok()
        });
        let drain = drain.concurrency(8).until_idle();
        let mut drain = Hand::new(in_order!(order, drain, |message| message % 5));
        let report = drain.finish().expect("it is idle");
        assert_eq!(report.handled(), 2_001, "order {order}");
        assert_settled(&report);
    }
}

// Rule 2.10
#[test]
fn a_drain_is_not_idle_while_anything_is_under_way() {
    for what in ["handler", "retry", "undo", "letter", "rate", "rate of a source", "source"] {
        let ((context, clock), gates, fed) = (manual("t"), Gates::default(), Fed::open([1, 2]));
        let per_source = if what == "rate of a source" { SECOND } else { Duration::from_nanos(1) };
        let drain =
            fan_in(&context, [fed.source().rate(1, per_source)], async |_, step: StepContext| {
                match what {
                    "handler" => gates.wait(()).await,
                    "retry" if step.attempt() == 1 => return Err("once"),
                    "undo" => {
                        let gate = gates.of(());
                        step.register_compensation(move || {
                            let gate = gate.clone();
                            async move { gate.wait().await }
                        });
                        return Err("undone");
                    }
                    "letter" => return Err("dead"),
                    _ => {}
                }
                Ok(())
            });
        let drain = drain.until_idle().on_failure(OnFailure::Continue);
        let drain = if what == "rate" { drain.rate(1, SECOND) } else { drain };
        let mut drain = Hand::new(match what {
            "retry" => drain.retry(RetryPolicy::fixed(2, SECOND)).into_future().boxed_local(),
            "letter" => {
                drain.dead_letters(async |_| gates.wait(()).await).into_future().boxed_local()
            }
            _ => drain.into_future().boxed_local(),
        });
        if what != "source" {
            assert!(drain.run().is_pending(), "{what}");
            gates.open(());
        }
        let report = drain.finish_by(&clock).expect("it is idle");
        assert_eq!(report.taken(), 2, "{what}");
        assert_settled(&report);
    }
}

// Rule 2.10
#[test]
fn an_idle_drain_succeeds_in_the_very_poll_and_takes_what_comes_before() {
    let (context, (live, incoming)) = (StepContext::new("t"), live());
    let fed = Fed::open([1, 2, 3]);
    live.add(fed.source()).expect("it will run");
    let drain = fan_in(&context, [], async |_: u32, _| ok()).incoming(incoming).until_idle();
    let mut drain = Hand::new(drain.into_future());
    let report = drain.finish().expect("it is idle, although more sources may come");
    assert_eq!(report.handled(), 3);
    drop(drain);
    assert!(live.add(fed.source()).is_err());
}

// Rules 2.10, 2.1
#[test]
fn an_idle_drain_gives_open_windows_out_and_goes_on_with_what_comes_of_them() {
    let (context, (sender, queue)) = (StepContext::new("t"), async_channel::unbounded());
    (0..3).for_each(|message| sender.try_send(message).expect("it is open"));
    let batches = Log::default();
    let windows = Window::new(&context, queue).count(10);
    let drain = fan_in(&context, [windows], async |batch: Vec<u32>, _| {
        // The first window makes a second one.
        if batch.len() == 3 {
            sender.send(7).await?;
        }
        batches.push(batch);
        ok()
    });
    Hand::new(drain.until_idle().into_future()).finish().expect("it is idle");
    assert_eq!(batches.take(), [vec![0, 1, 2], vec![7]]);
}

// Rule 2.10
#[test]
fn an_idle_drain_keeps_its_failures() {
    let context = StepContext::new("t");
    let drain = fan_in(&context, [Fed::open([1]).source()], async |_: u32, _| Err::<(), _>("no"));
    let failure = Hand::new(drain.until_idle().into_future()).finish().expect_err("it failed");
    assert_eq!(failure.error().code(), ErrorCode::Handler);
}

/// In every span of `per` at most `most` of these times.
fn assert_within(times: &[u64], most: usize, per: u64) {
    for (first, last) in times.iter().zip(times.iter().skip(most)) {
        assert!(last - first >= per, "{} within {}: {times:?}", most + 1, last - first);
    }
}

// Rule 2.10
#[test]
fn in_no_span_do_more_attempts_begin_than_that_retries_included() {
    for order in 0..3 {
        for handlers in [1, 4] {
            let ((context, clock), times) = (manual("t"), Log::default());
            let sources = [filled(0..20), filled(20..40)];
            let drain = fan_in(&context, sources, async |message, step: StepContext| {
                times.push(clock.now().as_nanos() / 1_000_000);
                if message % 5 == 0 && step.attempt() == 1 { Err("once") } else { Ok(()) }
            });
            let drain = drain.rate(3, SECOND).concurrency(handlers);
            let drain = drain.retry(RetryPolicy::fixed(2, SECOND / 3));
            let mut drain = Hand::new(in_order!(order, drain, |message| message % 3));
            let report = drain.finish_by(&clock).expect("no failure");
            assert_eq!((report.handled(), report.attempts()), (40, 48));
            let times = times.take();
            assert_eq!(times.len(), 48);
            assert_within(&times, 3, 1_000);
            // And it is made use of: 48 attempts, three a second.
            assert!(seconds(&clock) <= 17, "{} seconds, order {order}", seconds(&clock));
        }
    }
}

// Rule 2.10
#[test]
fn room_that_is_not_used_is_not_saved() {
    for own in [true, false] {
        let ((context, clock), times, fed) = (manual("t"), Log::default(), Fed::open([]));
        let source = fed.source();
        let source = if own { source.rate(2, SECOND).erased() } else { source.erased() };
        let drain = fan_in(&context, [source], async |_: u32, _| {
            times.push(clock.now().as_nanos() / 1_000_000);
            ok()
        });
        let drain = if own { drain } else { drain.rate(2, SECOND) };
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        clock.advance(100 * SECOND);
        assert!(drain.run().is_pending());
        (0..7).for_each(|message| fed.push(message));
        fed.close();
        drain.finish_by(&clock).expect("no failure");
        assert_eq!(times.take(), [100_000, 100_000, 101_000, 101_000, 102_000, 102_000, 103_000]);
    }
}

// Rule 2.10
#[test]
fn while_one_source_waits_for_its_rate_the_others_go_on() {
    for handlers in [1, 3] {
        for unordered in [true, false] {
            let ((context, clock), slow, fast) = (manual("t"), Log::default(), Cell::new(0));
            let sources = [
                filled(0..10).rate(1, SECOND).erased(),
                stream::iter(100..1_100).erased(),
                filled(20..30).rate(2, SECOND).erased(),
            ];
            let drain = fan_in(&context, sources, async |message: u32, _| {
                yields(1).await;
                if message >= 100 {
                    fast.set(fast.get() + 1);
                } else {
                    slow.push((message / 20, clock.now().as_nanos() / 1_000_000));
                }
                ok()
            });
            let drain = drain.concurrency(handlers);
            let mut drain = Hand::new(if unordered {
                drain.unordered().into_future().boxed_local()
            } else {
                drain.into_future().boxed_local()
            });
            assert!(drain.run().is_pending());
            assert_eq!((fast.get(), clock.now().as_nanos()), (1_000, 0));
            assert_eq!(drain.finish_by(&clock).expect("no failure").handled(), 1_020);
            let slow = slow.take();
            for (source, most) in [(0, 1), (1, 2)] {
                let times: Vec<_> =
                    slow.iter().filter(|(of, _)| *of == source).map(|(_, at)| *at).collect();
                assert_within(&times, most, 1_000);
            }
            // Whether a source has ended is asked where it might begin another attempt.
            assert!((9..=10).contains(&seconds(&clock)), "{} seconds", seconds(&clock));
        }
    }
}

// Rules 2.10, 3.3, 3.5
#[test]
fn a_drain_that_waits_for_its_rate_can_be_ended() {
    for own in [true, false] {
        for what in ["cancel", "timeout", "never"] {
            let ((context, clock), stop) = (manual("t"), CancellationSource::new());
            let queue = filled(0..5);
            let per = if what == "never" { Duration::MAX } else { 1_000 * SECOND };
            let source = queue.clone();
            let source = if own { source.rate(1, per).erased() } else { source.erased() };
            let drain = fan_in(&context, [source], async |_: u32, _| ok());
            let drain = drain.cancellation(stop.token()).timeout(100 * SECOND);
            let drain = if own { drain } else { drain.rate(1, per) };
            let mut drain = Hand::new(drain.into_future());
            assert!(drain.run().is_pending());
            if what == "cancel" {
                stop.cancel();
            }
            let failure = drain.finish_by(&clock).expect_err(what);
            let code = if what == "cancel" { ErrorCode::Canceled } else { ErrorCode::Timeout };
            assert_eq!(failure.error().code(), code);
            assert_eq!((failure.report().handled(), left_in(&queue).len()), (1, 4));
            assert_settled(failure.report());
        }
    }
}

// Rules 2.10, 2.3
#[test]
fn a_crowd_that_waits_for_the_rate_goes_on_in_turn_and_in_linear_time() {
    let ((context, clock), seen) = (manual("t"), Log::default());
    let sources = (0..2_000_u32).map(|number| stream::iter([number; 2]).boxed());
    let drain = fan_in(&context, sources, async |number: u32, _| {
        seen.push(number);
        ok()
    });
    let mut drain = Hand::new(drain.rate(100, SECOND).quantum(1).into_future());
    let report = drain.finish_by(&clock).expect("no failure");
    assert_eq!(report.handled(), 4_000);
    // Whether a source has ended is asked where it might begin another attempt.
    assert!((39..=40).contains(&seconds(&clock)), "{} seconds", seconds(&clock));
    let mut first: Vec<_> = seen.take();
    first.truncate(2_000);
    first.sort_unstable();
    first.dedup();
    assert_eq!(first.len(), 2_000, "every source had its first turn before any had its second");
    assert!(drain.wakes() < 20_000, "{} wake-ups for 4,000 messages", drain.wakes());
}
