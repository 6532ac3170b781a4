//! Many sources, many actions, many messages: linear time, flat memory, no deep stack.

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "small numbers"
)]
#[macro_use]
mod scales;

mod comings;
#[allow(
    clippy::cast_possible_truncation,
    clippy::redundant_closure_for_method_calls,
    clippy::unnecessary_wraps,
    reason = "small numbers, and what a user would write"
)]
mod crowd;
mod flat;
mod links;
mod settling;

use std::cell::Cell;
use std::future::IntoFuture;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use watershed::testing::{for_every_fault, for_every_poll};
use watershed::{
    BoxError, CancellationSource, Clock, Commit, CompensationPolicy, CompensationScope, ErrorCode,
    ManualClock, OnFailure, Source, StepContext, fan_in,
};

use crate::effort::effort;
use crate::scenario::{Case, Scenario, quiet};

/// Runs a test on a thread with a stack so small that nothing can be recursive.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(128 << 10).spawn(test);
    thread.expect("the thread starts").join().expect("no panic");
}

/// Counts the polls of a future until it is ready.
fn count_polls<F: IntoFuture<IntoFuture: Unpin>>(future: F) -> (u64, F::Output) {
    let polls = Cell::new(0);
    let mut future = future.into_future();
    let output = futures::executor::block_on(std::future::poll_fn(|cx| {
        polls.set(polls.get() + 1);
        Pin::new(&mut future).poll(cx)
    }));
    (polls.get(), output)
}

/// Where linear work ends: sixteen times as much takes 16 times as long if it is linear, and 256
/// times if it is quadratic.
const LINEAR: f64 = 80.0;

/// How much longer sixteen times the work takes. What else runs on the machine makes a run slower,
/// never faster: the fastest runs count, of as many as it takes to see that the work is linear.
fn ratio(size: u64, work: impl Fn(u64)) -> f64 {
    let time = |size| {
        let start = Instant::now();
        work(size);
        start.elapsed().max(Duration::from_micros(1))
    };
    let (mut once, mut sixteen) = (Duration::MAX, Duration::MAX);
    let mut runs = 0;
    loop {
        (once, sixteen) = (once.min(time(size)), sixteen.min(time(16 * size)));
        runs += 1;
        let ratio = sixteen.as_secs_f64() / once.as_secs_f64();
        if runs == 50 || (ratio < LINEAR && runs >= effort(2, 3, 5)) {
            return ratio;
        }
    }
}

/// A drain of so many sources with two messages each, the second of which comes after a wait.
/// Returns the polls of the drain, of the sources and of the handlers.
fn drain_sources(count: u64) -> (u64, u64, u64) {
    let (source_polls, handler_polls) = (AtomicU64::new(0), AtomicU64::new(0));
    let source = |_| {
        let (polls, mut left) = (&source_polls, 4_u32);
        stream::poll_fn(move |cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            left = left.saturating_sub(1);
            match left {
                3 | 1 => Poll::Ready(Some(left)),
                2 => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                _ => Poll::Ready(None),
            }
        })
    };
    let context = StepContext::new("many");
    let drain = fan_in(&context, (0..count).map(source), |message, step: StepContext| {
        handler_polls.fetch_add(1, Ordering::Relaxed);
        step.register_compensation_with(message, |_| async {});
        async { Ok::<_, BoxError>(()) }
    });
    let (polls, report) = count_polls(drain.concurrency(16));
    let report = report.expect("it succeeds");
    let rows = u64::try_from(report.sources().len()).expect("few");
    assert_eq!((report.handled(), rows), (2 * count, count.min(4_096)), "rule 2.8: bounded rows");
    assert!(context.scope().is_empty());
    let load = |counter: AtomicU64| counter.into_inner();
    (polls, load(source_polls), load(handler_polls))
}

// Rules 2.3, 2.4, 2.6
#[test]
fn a_hundred_thousand_sources_are_drained_in_linear_time() {
    on_a_small_stack(|| {
        let count = effort(5_000, 25_000, 250_000);
        for count in [count, 4 * count] {
            let (polls, of_sources, handled) = drain_sources(count);
            println!(
                "{count} sources: {polls} polls of the drain, {of_sources} of sources, {handled} messages"
            );
            assert_eq!((of_sources, handled), (4 * count, 2 * count), "no poll too many");
            // `select_all` gives its thread back when two sources have woken themselves.
            assert!(polls <= count / 2 + count / 32, "{polls}");
        }
        let ratio = ratio(count / 4, |count| _ = drain_sources(count));
        println!("sixteen times the sources take {ratio:.1} times as long");
        assert!(ratio < LINEAR, "quadratic work would take 256 times as long: {ratio:.1}");
    });
}

/// Stages so many actions, from two places.
fn stage(count: u64, undone: &Arc<AtomicU64>) -> CompensationScope {
    let scope = CompensationScope::new();
    for number in 0..count {
        if number % 3 == 0 {
            let undone = Arc::clone(undone);
            scope.register_compensation(move || {
                undone.fetch_add(1, Ordering::Relaxed);
                async {}
            });
        } else {
            scope.register_compensation_with(Arc::clone(undone), |undone| async move {
                undone.fetch_add(1, Ordering::Relaxed);
            });
        }
    }
    scope
}

// Rules 4.12, 4.13
#[test]
fn a_million_compensations_are_run_cleared_and_lost_in_linear_time() {
    on_a_small_stack(|| {
        let count = effort(25_000, 250_000, 2_500_000);
        let undone = Arc::new(AtomicU64::new(0));
        let limited = CompensationPolicy::parallel_limited(16);
        let policies = [
            ("sequential", CompensationPolicy::sequential_reverse()),
            ("parallel", CompensationPolicy::parallel()),
            ("limited", limited),
        ];
        for (name, policy) in &policies {
            for count in [count, 4 * count] {
                let scope = stage(count, &undone);
                let before = undone.load(Ordering::Relaxed);
                let rollback = scope.roll_back(policy);
                let (polls, report) = count_polls(rollback);
                assert_eq!(report.expect("all succeed").succeeded() as u64, count);
                assert_eq!(undone.load(Ordering::Relaxed) - before, count);
                println!("{count} compensations, {name}: {polls} polls of the rollback");
                assert!(polls <= count / 64 + 2, "{polls}");
            }
            let ratio = ratio(count / 4, |count| {
                let scope = stage(count, &undone);
                let rollback = scope.roll_back(policy);
                futures::executor::block_on(rollback).expect("all succeed");
            });
            println!("sixteen times the compensations, {name}, take {ratio:.1} times as long");
            assert!(ratio < LINEAR, "quadratic work would take 256 times as long: {ratio:.1}");
        }
        assert_eq!(stage(4 * count, &undone).clear() as u64, 4 * count);
        let (parent, child) = (stage(count, &undone), stage(count, &undone));
        parent.absorb(&child);
        assert_eq!((parent.len() as u64, child.len()), (2 * count, 0));
        drop((parent, child));
        let scope = stage(count, &undone);
        let policy = CompensationPolicy::sequential_reverse();
        let mut rollback = scope.roll_back(&policy);
        let poll = Pin::new(&mut rollback).poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll.is_pending());
        drop((rollback, scope));
        assert_eq!(Arc::strong_count(&undone), 1, "every action is gone");
    });
}

// Rules 3.2, 4.1, 4.13
#[test]
fn a_hundred_thousand_handlers_in_flight_fail_and_are_dropped() {
    on_a_small_stack(|| {
        let count = effort(2_000, 100_000, 400_000);
        for fails in [true, false] {
            let (context, stop) = (StepContext::new("in flight"), CancellationSource::new());
            let started = Cell::new(0);
            let drain = fan_in(
                &context,
                (0..count).map(|number| stream::iter([number])),
                |_, step: StepContext| {
                    started.set(started.get() + 1);
                    async move {
                        step.register_compensation(|| async {});
                        step.cancellation().cancelled().await;
                        Err::<(), _>("told to stop")
                    }
                },
            );
            let mut drain = drain.concurrency(count).cancellation(stop.token()).into_future();
            let mut polls = 0;
            while started.get() < count {
                polls += 1;
                assert!(polls <= 2 + count / 100, "{} handlers in {polls} polls", started.get());
                let mut cx = Context::from_waker(Waker::noop());
                assert!(Pin::new(&mut drain).poll(&mut cx).is_pending());
                assert!(context.scope().is_empty(), "what runs has its own scope");
            }
            if fails {
                stop.cancel();
                let error = futures::executor::block_on(&mut drain)
                    .expect_err("it was cancelled")
                    .into_error();
                // Rule 6.4: the first by value, every one counted.
                assert_eq!((error.code(), error.related().len()), (ErrorCode::Canceled, 32));
                assert_eq!(error.related_total(), count as u64);
            }
            drop(drain);
            assert_eq!(context.scope().len(), count);
            println!("{count} handlers in flight, told to stop: {fails}; all staged");
            assert_eq!(context.scope().clear(), count);
        }
    });
}

/// The resident memory of this process in KiB, where the system tells.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4)
}

/// An endless feed: one effect and its compensation a message.
fn drain_messages(messages: u64, waits: bool) -> Vec<u64> {
    let context = StepContext::new("feed");
    let (handled, samples) = (Cell::new(0_u64), Cell::new(Vec::with_capacity(128)));
    let each = messages / 8;
    let sources = (0..8).map(|_| stream::iter(0..each));
    let drain = fan_in(&context, sources, |message, step: StepContext| {
        step.register_compensation_with(message, |_| async {});
        handled.set(handled.get() + 1);
        if handled.get() % (messages / 100) == 0 {
            assert!(context.scope().is_empty(), "a message commits its own");
            let mut taken = samples.take();
            taken.extend(resident());
            samples.set(taken);
        }
        let mut left = u32::from(waits);
        std::future::poll_fn(move |cx| {
            if left == 0 {
                return Poll::Ready(Ok::<_, BoxError>(()));
            }
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    });
    let drain = drain.commit(Commit::Message).concurrency(4);
    let report = futures::executor::block_on(drain.into_future()).expect("it succeeds");
    assert_eq!(report.handled(), 8 * each);
    samples.into_inner()
}

// Rule 4.3: in a process of its own, so that no other test changes what is measured
#[test]
fn a_hundred_million_messages_run_in_flat_memory() {
    const CHILD: &str = "WATERSHED_PROOF_MEMORY";
    const NAME: &str = "scale::a_hundred_million_messages_run_in_flat_memory";
    if std::env::var_os(CHILD).is_none() {
        let program = std::env::current_exe().expect("the name of this program");
        let args = ["--exact", NAME, "--nocapture", "--test-threads=1"];
        let output = Command::new(program).args(args).env(CHILD, "1").output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout);
        for line in text.lines().filter(|line| line.contains("messages")) {
            println!("{line}");
        }
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("1 passed"), "{text}");
        return;
    }
    let plain = effort(200_000, 100_000_000, 1_000_000_000);
    for (messages, waits) in [(plain, false), (plain / 10, true)] {
        let start = Instant::now();
        let samples = drain_messages(messages, waits);
        let time = start.elapsed();
        // The first tenth may grow to what is needed.
        let settled = samples.get(10..).unwrap_or_default();
        let (least, most) = (settled.iter().min(), settled.iter().max());
        println!(
            "{messages} messages, waiting {waits}: {time:.1?}, {least:?} to {most:?} KiB resident"
        );
        let grown = most.unwrap_or(&0) - least.unwrap_or(&0);
        assert!(grown <= 512, "grown by {grown} KiB");
    }
}

/// Counts the handles on it: wakers that are kept somewhere.
struct Quiet;

impl Wake for Quiet {
    fn wake(self: Arc<Self>) {}
}

// Rules 2.6, 3.2, 4.1, 4.12
#[test]
fn a_drain_that_has_ended_holds_nothing() {
    quiet();
    let mut ends = 0;
    for end in ["succeeds", "fails", "panics", "is cancelled", "times out", "is dropped"] {
        for commit in [Commit::Pipeline, Commit::Message, Commit::Never] {
            for on_failure in [OnFailure::Abort, OnFailure::Continue] {
                let canary = Arc::new(());
                let (clock, stop) = (ManualClock::new(), CancellationSource::new());
                let waker = Arc::new(Quiet);
                let shared_clock: Arc<dyn Clock> = Arc::new(clock.clone());
                let context = StepContext::new("held").with_clock(Arc::clone(&shared_clock));
                let message = |number: u32| (number, Arc::clone(&canary));
                let sources = (0..5).map(|source| {
                    let held = Arc::clone(&canary);
                    let messages = (0..3).map(move |turn| source * 3 + turn).map(message);
                    let last = if end == "succeeds" { None } else { Some(()) };
                    let rest = stream::iter(last).then(|()| std::future::pending());
                    stream::iter(messages).chain(rest).inspect(move |_| drop(Arc::clone(&held)))
                });
                let sources = sources.map(|source| source.boxed_local().named("held"));
                let in_handler = Arc::clone(&canary);
                let drain =
                    fan_in(&context, sources, move |(number, message), step: StepContext| {
                        let held = (message, Arc::clone(&in_handler));
                        async move {
                            step.register_compensation_with(held.0.clone(), |_| async {});
                            let clock = step.clock();
                            clock.sleep_until(clock.now() + Duration::from_secs(1)).await;
                            if end == "panics" && number == 7 {
                                std::panic::panic_any("injected at: seven".to_owned());
                            }
                            if end == "fails" && number == 7 {
                                Err(BoxError::from("no"))
                            } else {
                                Ok(())
                            }
                        }
                    });
                let drain = drain
                    .commit(commit)
                    .on_failure(on_failure)
                    .concurrency(3)
                    .cancellation(stop.token())
                    .timeout(Duration::from_secs(if end == "times out" { 3 } else { 3_600 }));
                let mut drain = Some(drain.into_future());
                let task = Waker::from(Arc::clone(&waker));
                let mut ended = None;
                for turn in 0..200 {
                    let Some(running) = &mut drain else { break };
                    if let Poll::Ready(result) =
                        Pin::new(running).poll(&mut Context::from_waker(&task))
                    {
                        ended = Some(result);
                        break;
                    }
                    match (turn, end) {
                        (3, "is cancelled") => stop.cancel(),
                        (3, "is dropped") => drain = None,
                        _ => drop(clock.advance_to_next()),
                    }
                }
                drop(task);
                // A failure that is rolled back alone does not end the drain: its timeout does.
                assert_eq!(ended.is_none(), end == "is dropped", "{end}, {commit:?}");
                let succeeded = ended.as_ref().is_some_and(Result::is_ok);
                assert_eq!(succeeded, end == "succeeds");
                assert_eq!(Arc::strong_count(&waker), 1, "a waker is kept: {end}");
                assert_eq!(clock.sleepers(), 0, "a wait is kept: {end}");
                let staged = context.scope().len();
                let held = Arc::strong_count(&canary) - 1;
                assert!(held >= staged, "each action holds its state");
                context.scope().clear();
                assert_eq!(Arc::strong_count(&canary), 1, "{end}, {commit:?}: something is held");
                // The future that has ended, if it is still there, and the context hold the clock.
                drop((drain, ended, context));
                assert_eq!(Arc::strong_count(&shared_clock), 1, "the clock is held: {end}");
                ends += 1;
            }
        }
    }
    println!("{ends} ends of drains, after each of which nothing was held");
}

// Rules 4.1, 4.5, 4.12
#[test]
fn nothing_is_leaked_by_drops_and_faults() {
    quiet();
    let (mut drops, mut faults) = (0, 0);
    for case in Case::all(effort(1, 8, 64)).filter(|case| case.handlers < 16) {
        drops += for_every_poll(|point| {
            let scenario = Scenario::new(case, None);
            let canaries = scenario.canaries();
            let ended = scenario.simulation.run(point.cut(scenario.drain())).expect("it ends");
            scenario.settle(ended.as_ref());
            drop(scenario);
            assert!(canaries.is_gone(), "something is leaked: {case:?}");
        });
        for_every_fault(|point| {
            let scenario = Scenario::new(case, Some(point));
            let canaries = scenario.canaries();
            let ended = scenario.simulation.run(scenario.drain()).expect("it ends");
            scenario.settle(Some(&ended));
            drop(scenario);
            assert!(canaries.is_gone(), "something is leaked at {:?}: {case:?}", point.fired());
            faults += 1;
        });
    }
    println!("{drops} drops and {faults} faults, nothing was leaked");
}
