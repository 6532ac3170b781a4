//! Rules 2.8, 2.9 and 2.2: memory and time that do not grow, and limits that are no sizes. Bytes
//! are those of the whole process, so each of these runs in one of its own.

use std::alloc::System;
use std::cell::Cell;
use std::future::pending;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use watershed::channels::live;
use watershed::{
    Answer, BoxError, Commit, OnFailure, Progress, RetryPolicy, Source, StepContext, fan_in,
};

use crate::support::alone::alone;
use crate::support::{Hand, manual, timed, yields};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that are allocated just now.
fn held() -> i64 {
    let stats = COUNTED.stats();
    // What grew in place counts on its own.
    stats.bytes_allocated as i64 - stats.bytes_deallocated as i64
}

fn ok() -> Result<(), BoxError> {
    Ok(())
}

/// Bytes at each so many messages.
#[derive(Default)]
struct Marks {
    seen: Cell<u32>,
    at: Cell<[i64; 4]>,
}

impl Marks {
    /// Counts one more of 200,000.
    fn pass(&self) {
        self.seen.set(self.seen.get() + 1);
        if self.seen.get() % 50_000 == 0 {
            let mut at = self.at.get();
            at[self.seen.get() as usize / 50_000 - 1] = held();
            self.at.set(at);
        }
    }

    fn assert_level(&self, what: &str) {
        let at = self.at.get();
        assert_eq!(self.seen.get(), 200_000, "{what}");
        assert!((at[3] - at[0]).abs() < 100_000, "{what}: {at:?} bytes");
    }
}

// Rule 2.8; fault d13
#[test]
fn sources_that_came_and_went_leave_nothing_behind() {
    alone(module_path!(), "sources_that_came_and_went_leave_nothing_behind", || {
        for waits in [0, 1] {
            for what in ["plain", "priorities", "rates", "names"] {
                let (context, marks) = (manual("t").0, Marks::default());
                let coming = stream::iter(0..200_000_u32).map(|number| {
                    let source = stream::iter([number]);
                    match what {
                        "priorities" => source.prioritized(number).weighted(1 + number).erased(),
                        "rates" => source.rate(9, Duration::from_secs(1)).erased(),
                        "names" => source.named(format!("source {number}")).erased(),
                        _ => source.erased(),
                    }
                });
                let drain = fan_in(&context, [], async |_: u32, _| {
                    marks.pass();
                    yields(waits).await;
                    ok()
                });
                let drain = drain.incoming(coming).commit(Commit::Message).concurrency(4);
                let report = Hand::new(drain.into_future()).finish().expect("no failure");
                assert_eq!(report.handled(), 200_000);
                marks.assert_level(what);
            }
        }
    });
}

// Rules 2.8, 2.7: further sources wait while many have had no turn, and then come in
#[test]
fn a_crowd_of_sources_that_comes_at_once_is_taken_in_to_the_last() {
    let (context, handled) = (StepContext::new("t"), Cell::new(0));
    let (sender, coming) = async_channel::unbounded();
    let drain = fan_in(&context, [], async |_: u32, _| {
        handled.set(handled.get() + 1);
        ok()
    });
    let mut drain = Hand::new(drain.incoming(coming).into_future());
    for number in 0..10_000_u32 {
        let source = stream::iter([number]).chain(stream::pending());
        sender.try_send(source.boxed_local()).unwrap_or_else(|_| panic!("it runs"));
        if number % 3_000 == 0 {
            assert!(drain.run().is_pending());
        }
    }
    assert!(drain.run().is_pending());
    assert_eq!(handled.get(), 10_000);
}

// Rules 2.8, 2.7
#[test]
fn live_sources_that_were_paused_and_removed_leave_nothing_behind() {
    alone(module_path!(), "live_sources_that_were_paused_and_removed_leave_nothing_behind", || {
        let (context, (live, incoming)) = (StepContext::new("t"), live());
        let (marks, progress) = (Marks::default(), Progress::new());
        let drain = fan_in(&context, [], async |_: u32, _| ok());
        let drain = drain.incoming(incoming).commit(Commit::Message).progress(&progress);
        let mut drain = Hand::new(drain.into_future());
        for number in 0..200_000 {
            let source = stream::iter([number]).chain(stream::pending());
            let handle = live.add(source.boxed()).unwrap_or_else(|_| panic!("it runs"));
            handle.pause();
            assert!(drain.run().is_pending());
            handle.resume();
            assert!(drain.run().is_pending());
            handle.request_removal();
            assert!(drain.run().is_pending());
            assert!(handle.remove().now_or_never().is_some_and(|source| source.is_some()));
            marks.pass();
        }
        assert_eq!(progress.report().handled(), 200_000);
        marks.assert_level("live sources");
    });
}

// Rule 2.8
#[test]
fn messages_retries_failures_and_letters_leave_nothing_behind() {
    alone(module_path!(), "messages_retries_failures_and_letters_leave_nothing_behind", || {
        for unordered in [true, false] {
            for what in ["ok", "retry", "failure", "letter", "later", "panic", "timeout"] {
                let ((context, clock), marks) = (manual("t"), Marks::default());
                let source = stream::iter(0..200_000_u32);
                let runs = Cell::new(0_u32);
                let hook = std::panic::take_hook();
                std::panic::set_hook(Box::new(|_| ()));
                let drain = fan_in(&context, [source], async |_: u32, step: StepContext| {
                    step.register_compensation(async || {});
                    let first = step.attempt() == 1;
                    runs.set(runs.get() + 1);
                    let later = what == "later" && runs.get() % 2 == 0;
                    if first && !later {
                        marks.pass();
                    }
                    yields(1).await;
                    match what {
                        "retry" if first => Err("once"),
                        "failure" | "letter" => Err("fails"),
                        _ if later => Ok(Answer::Later(Duration::ZERO)),
                        "panic" => panic!("thrown"),
                        "timeout" => pending().await,
                        _ => Ok(Answer::Done),
                    }
                });
                let drain = drain.commit(Commit::Message).concurrency(4);
                let drain = drain.on_failure(OnFailure::Continue);
                let drain = match what {
                    "retry" => drain.retry(RetryPolicy::fixed(2, Duration::ZERO)),
                    "later" => drain.retry(RetryPolicy::none()),
                    "timeout" => drain.message_timeout(Duration::from_millis(1)),
                    _ => drain,
                };
                let drain = drain.dead_letters(async |_| yields(1).await);
                let mut drain = Hand::new(if unordered {
                    drain.unordered().into_future().boxed_local()
                } else {
                    drain.into_future().boxed_local()
                });
                let ended = drain.finish_by(&clock);
                std::panic::set_hook(hook);
                ended.expect("it goes on");
                marks.assert_level(what);
                assert!(!context.scope().has_actions());
            }
        }
    });
}

// Rule 2.8
#[test]
fn the_report_has_a_row_for_the_first_sources_and_the_totals_always() {
    let (context, progress) = (StepContext::new("t"), Progress::new());
    let coming = stream::iter(0..10_000_u32).map(|number| stream::iter(0..1 + number % 2));
    let drain = fan_in(&context, [], async |_: u32, _| ok()).incoming(coming).progress(&progress);
    let report = Hand::new(drain.into_future()).finish().expect("no failure");
    for report in [&report, &progress.report()] {
        assert_eq!(report.sources().len(), 4_096, "the documented number");
        assert_eq!((report.taken(), report.attempts()), (15_000, 15_000));
        let rows: u64 = report.sources().iter().map(|row| row.handled()).sum();
        assert_eq!(rows, 4_096 * 3 / 2);
        assert_eq!(report.sources()[4_095].name(), "source 4095");
    }
}

// Rules 2.2, 2.9; fault d15
#[test]
fn a_limit_costs_what_is_used_of_it() {
    alone(module_path!(), "a_limit_costs_what_is_used_of_it", || {
        for order in 0..4 {
            let (context, before) = (StepContext::new("t"), held());
            let sources = (0..100).map(|_| stream::pending::<u32>().weighted(u32::MAX));
            let drain = fan_in(&context, sources, async |_: u32, _| {
                yields(1).await;
                ok()
            });
            let drain = drain.concurrency(1 << 40).per_source_concurrency(1 << 40).quantum(256);
            let drain = drain.retry(RetryPolicy::fixed(2, Duration::ZERO)).max_waiting(1 << 40);
            let drain = drain.rate(1 << 40, Duration::from_secs(1));
            let mut drain = Hand::new(in_order!(order, drain, |key| *key));
            assert!(drain.run().is_pending());
            let bytes = held() - before;
            assert!(bytes < 200_000, "{bytes} bytes for 100 idle sources, order {order}");
        }
    });
}

// Rule 2.9; fault d16
#[test]
fn an_idle_source_holds_no_room_for_a_handler_whether_it_has_had_one_or_not() {
    let name = "an_idle_source_holds_no_room_for_a_handler_whether_it_has_had_one_or_not";
    alone(module_path!(), name, || {
        for (messages, order) in [(0, 0), (0, 1), (3, 0), (3, 1), (3, 2)] {
            let (context, before) = (StepContext::new("t"), held());
            let idle = (0..1_000)
                .map(|number| stream::iter(number..number + messages).chain(stream::pending()));
            let drain = fan_in(&context, idle, async |_: u32, _| {
                let big = [0_u8; 16_384];
                yields(1).await;
                std::hint::black_box(&big);
                ok()
            });
            let drain = drain.concurrency(4);
            let mut drain = Hand::new(in_order!(order, drain, |key| *key));
            assert!(drain.run().is_pending());
            let bytes = held() - before;
            assert!(bytes < 1_000_000, "{bytes} bytes for 1,000 idle sources, order {order}");
        }
    });
}

// Rule 2.9
#[test]
fn room_for_handlers_goes_with_those_that_run() {
    alone(module_path!(), "room_for_handlers_goes_with_those_that_run", || {
        let (context, gate) = (StepContext::new("t"), crate::support::Gate::default());
        let before = held();
        let messages = stream::iter(0..1_000).chain(stream::pending());
        let drain = fan_in(&context, [messages], async |_: u32, _| {
            let big = [0_u8; 16_384];
            gate.wait().await;
            std::hint::black_box(&big);
            ok()
        });
        let mut drain = Hand::new(drain.unordered().concurrency(10_000).into_future());
        assert!(drain.run().is_pending());
        let running = held() - before;
        assert!(running > 16_000_000, "{running} bytes while a thousand run");
        gate.open();
        assert!(drain.run().is_pending());
        let idle = held() - before;
        assert!(idle < 1_000_000, "{idle} bytes when they are done");
    });
}

/// How much longer ten times as much of it takes: the least of a few tries.
fn tenfold(mut work: impl FnMut(usize)) -> f64 {
    let mut time = |size| timed(|| work(size)).1.max(Duration::from_micros(50)).as_secs_f64();
    (0..3).map(|_| time(100_000) / time(10_000)).fold(f64::INFINITY, f64::min)
}

// Rules 2.8, 4.13
#[test]
fn the_time_of_a_message_does_not_grow_with_how_many_there_are_of_anything() {
    for what in ["sources", "messages", "coming", "running", "waiting", "priorities", "keys"] {
        let ratio = tenfold(|size| {
            let ((context, clock), size) = (manual("t"), size as u32);
            let sources: Vec<_> = match what {
                "sources" | "priorities" => (0..size).map(|number| number..number + 1).collect(),
                "coming" => vec![],
                _ => vec![0..size],
            };
            let sources = sources.into_iter().enumerate().map(|(number, messages)| {
                let urgent = if what == "priorities" { number as u32 } else { 100 };
                stream::iter(messages).prioritized(urgent)
            });
            let coming = if what == "coming" { size } else { 0 };
            let coming = stream::iter(0..coming)
                .map(|number| stream::iter(number..number + 1).prioritized(100));
            let drain = fan_in(&context, sources, async |_: u32, step: StepContext| {
                if what == "running" {
                    yields(2).await;
                }
                if what == "waiting" && step.attempt() == 1 { Err("once") } else { Ok(()) }
            });
            let drain = drain.commit(Commit::Message).incoming(coming).max_waiting(1_000_000);
            let drain = drain.retry(RetryPolicy::fixed(2, Duration::from_secs(1)));
            let mut drain = Hand::new(match what {
                "running" => drain.unordered().concurrency(1_000_000).into_future().boxed_local(),
                "waiting" => drain.unordered().concurrency(10).into_future().boxed_local(),
                "keys" => {
                    let drain = drain.concurrency(10).ordered_by(|key| *key);
                    drain.into_future().boxed_local()
                }
                _ => drain.into_future().boxed_local(),
            });
            assert_eq!(drain.finish_by(&clock).expect("no failure").handled(), u64::from(size));
        });
        assert!(ratio < 40.0, "{what}: ten times as many take {ratio} times as long");
    }
}
