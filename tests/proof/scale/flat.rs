//! Ten million messages on each of the ways through a drain, in memory that does not grow. Bytes are
//! counted, in a process of its own.

use std::cell::Cell;
use std::future::Future;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::stream;
use watershed::channels::live;
use watershed::{BoxError, Commit, FanInReport, ManualClock, RetryPolicy, StepContext, fan_in};

use crate::bytes::held;
use crate::effort::effort;
use crate::support::alone::alone;
use crate::support::ending::assert_settled;
use crate::support::{Hand, manual, yields};

/// Bytes by which a drain may grow behind its beginning, as more or fewer messages wait: what grows by
/// a byte in ten messages is far beyond.
const LEVEL: i64 = 256 << 10;

/// Messages at the beginning: the report has a row for each of the first 4,096 sources.
const BEGINNING: u64 = 4 * 4_096;

fn messages() -> u64 {
    effort(20_000, 500_000, 10_000_000)
}

/// Bytes at each twentieth of the calls.
struct Marks {
    every: u64,
    seen: Cell<u64>,
    least: Cell<i64>,
    most: Cell<i64>,
}

impl Marks {
    fn of(calls: u64) -> Self {
        let (seen, least, most) = (Cell::new(0), Cell::new(i64::MAX), Cell::new(i64::MIN));
        Self { every: calls / 20, seen, least, most }
    }

    fn pass(&self) {
        let seen = self.seen.get() + 1;
        self.seen.set(seen);
        if seen % self.every == 0 && seen >= (2 * self.every).max(BEGINNING) {
            let bytes = held();
            self.least.set(self.least.get().min(bytes));
            self.most.set(self.most.get().max(bytes));
        }
    }
}

/// Polls a drain to its end, with a clock that jumps whenever it waits.
fn run<F: Future<Output = T>, T>(clock: &ManualClock, drain: F) -> T {
    let mut drain = Hand::new(drain);
    loop {
        if let Poll::Ready(ended) = drain.run() {
            return ended;
        }
        assert!(clock.advance_to_next(), "it waits, and not for the clock");
    }
}

/// A drain that calls its handler so often, and what it came to.
fn flat(
    name: &str,
    calls: u64,
    drain: impl FnOnce(&StepContext, &Marks, &ManualClock) -> FanInReport,
) {
    let start = Instant::now();
    let (context, clock) = manual("flat");
    let marks = Marks::of(calls);
    let report = drain(&context, &marks, &clock);
    assert_settled(&report);
    assert!(context.scope().is_empty());
    assert_eq!((report.attempts(), marks.seen.get()), (calls, calls), "{report:?}");
    let (least, grown) = (marks.least.get(), marks.most.get() - marks.least.get());
    let (time, taken) = (start.elapsed(), report.taken());
    println!(
        "{taken} messages, {name}: {calls} calls, {time:.1?}, {least} bytes, grown by {grown}"
    );
    assert!(grown < LEVEL, "{name}: grown by {grown} bytes");
}

/// Eight sources that have so many messages in all.
fn sources(messages: u64) -> impl Iterator<Item = stream::Iter<std::ops::Range<u64>>> {
    let each = messages / 8;
    (0..8).map(move |source| stream::iter(source * each..(source + 1) * each))
}

/// What every handler does: an effect, and now and then a wait.
async fn work(message: u64, step: &StepContext, marks: &Marks) {
    marks.pass();
    step.register_compensation_with(message, |_| async {});
    yields(usize::from(message % 8 == 3)).await;
}

// Rules 2.2, 2.8, 4.3
#[test]
fn ten_million_messages_in_any_order_run_in_flat_memory() {
    alone(module_path!(), "ten_million_messages_in_any_order_run_in_flat_memory", || {
        flat("in any order", messages(), |context, marks, clock| {
            let drain = fan_in(context, sources(messages()), async |message, step: StepContext| {
                work(message, &step, marks).await;
                Ok::<_, BoxError>(())
            });
            let drain = drain.unordered().commit(Commit::Message).concurrency(16);
            run(clock, drain.into_future()).expect("it succeeds")
        });
    });
}

// Rules 2.2, 2.8, 4.3
#[test]
fn ten_million_messages_by_key_run_in_flat_memory() {
    alone(module_path!(), "ten_million_messages_by_key_run_in_flat_memory", || {
        flat("by key", messages(), |context, marks, clock| {
            let drain = fan_in(context, sources(messages()), async |message, step: StepContext| {
                work(message, &step, marks).await;
                Ok::<_, BoxError>(())
            });
            let drain = drain.commit(Commit::Message).concurrency(16);
            // Most keys never come again.
            let drain = drain.ordered_by(|message| message / 4);
            run(clock, drain.into_future()).expect("it succeeds")
        });
        flat("by key over all sources", messages(), |context, marks, clock| {
            let drain = fan_in(context, sources(messages()), async |message, step: StepContext| {
                work(message, &step, marks).await;
                Ok::<_, BoxError>(())
            });
            let drain = drain.commit(Commit::Message).concurrency(16);
            let each = messages() / 8;
            let drain = drain.ordered_across_sources_by(move |message| message % each / 4);
            run(clock, drain.into_future()).expect("it succeeds")
        });
    });
}

// Rules 2.8, 3.10
#[test]
fn ten_million_messages_that_are_retried_run_in_flat_memory() {
    alone(module_path!(), "ten_million_messages_that_are_retried_run_in_flat_memory", || {
        for unordered in [false, true] {
            let name = if unordered { "retried in any order" } else { "retried in order" };
            flat(name, 2 * messages(), |context, marks, clock| {
                let drain =
                    fan_in(context, sources(messages()), async |message, step: StepContext| {
                        work(message, &step, marks).await;
                        if step.attempt() == 1 { Err("once") } else { Ok(()) }
                    });
                let drain = drain
                    .commit(Commit::Message)
                    .concurrency(16)
                    .retry(RetryPolicy::fixed(2, Duration::from_millis(1)));
                let report = if unordered {
                    run(clock, drain.unordered().into_future())
                } else {
                    run(clock, drain.into_future())
                };
                report.expect("each succeeds at its second attempt")
            });
        }
    });
}

// Rules 2.8, 3.8
#[test]
fn ten_million_dead_letters_run_in_flat_memory() {
    alone(module_path!(), "ten_million_dead_letters_run_in_flat_memory", || {
        flat("given up", messages(), |context, marks, clock| {
            let letters = Cell::new(0);
            let drain = fan_in(context, sources(messages()), async |message, step: StepContext| {
                work(message, &step, marks).await;
                Err::<(), _>("no")
            });
            let drain = drain.concurrency(16).dead_letters(async |letter| {
                letters.set(letters.get() + 1);
                yields(usize::from(letter.message_number() % 8 == 5)).await;
            });
            let report = run(clock, drain.into_future()).expect("each has its letter");
            assert_eq!((report.failed(), letters.get()), (messages(), messages()));
            report
        });
    });
}

// Rules 2.7, 2.8
#[test]
fn ten_million_messages_of_sources_that_come_run_in_flat_memory() {
    alone(module_path!(), "ten_million_messages_of_sources_that_come_run_in_flat_memory", || {
        flat("incoming", messages(), |context, marks, clock| {
            // As many as there are come at once; here at most sixteen are there.
            let mut come = 0;
            let coming = stream::poll_fn(|cx| {
                if come == messages() / 4 {
                    return Poll::Ready(None);
                }
                if 4 * come >= marks.seen.get() + 4 * 16 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                come += 1;
                Poll::Ready(Some(stream::iter(4 * (come - 1)..4 * come)))
            });
            let drain = fan_in(context, [], async |message, step: StepContext| {
                work(message, &step, marks).await;
                Ok::<_, BoxError>(())
            });
            let drain = drain.incoming(coming).commit(Commit::Message).concurrency(16);
            run(clock, drain.into_future()).expect("it succeeds")
        });
        flat("of live sources", messages(), |context, marks, clock| {
            let (live, incoming) = live();
            let drain = fan_in(context, [], async |message, step: StepContext| {
                work(message, &step, marks).await;
                Ok::<_, BoxError>(())
            });
            let drain = drain.incoming(incoming).commit(Commit::Message).concurrency(16);
            let mut drain = Hand::new(drain.into_future());
            for n in 0..messages() / 4 {
                drop(live.add(stream::iter(4 * n..4 * n + 4)));
                if n % 16 == 0 {
                    assert!(drain.run().is_pending(), "there may come more");
                }
            }
            drop(live);
            let _ = clock;
            drain.finish().expect("it succeeds")
        });
    });
}
