//! Two drains on one scope, which succeed, fail, are retried, cancelled, shut down or dropped, beside
//! whoever rolls it back and whoever watches them.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::{self, Stream};

use super::super::effects::Effects;
use super::super::executor::{block_on, block_on_by_changing_wakers, give_way, polls};
use super::{draw, one_in, pct_schedules, random_schedules};
use crate::sync::thread::{self, JoinHandle};
use crate::{
    BoxError, CancellationSource, CancellationToken, Commit, CompensationPolicy, Failure,
    FanInReport, ManualClock, OnFailure, Progress, RetryPolicy, StepContext, fan_in,
};

const DRAINS: usize = 2;
/// Most messages of a drain.
const MOST: usize = 4;
/// Most attempts at a message.
const ATTEMPTS: usize = 2;
/// The effect of somebody who is no drain.
const STRANGER: usize = DRAINS * MOST * ATTEMPTS;

/// How a handler stages its compensation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Step,
    Scope,
    Reservation,
    /// Not before the handler has ended, perhaps.
    AnotherThread,
}

/// What one attempt at a message does.
#[derive(Clone, Copy)]
struct Attempt {
    effect: usize,
    ways_before: usize,
    ways_after: usize,
    fails: bool,
    by: By,
}

/// A message.
#[derive(Clone, Copy)]
struct Work {
    key: usize,
    attempts: [Attempt; ATTEMPTS],
}

impl Work {
    fn draw(index: usize) -> Self {
        let attempt = |number| {
            let by = match draw(6) {
                0 => By::Scope,
                1 => By::Reservation,
                2 => By::AnotherThread,
                _ => By::Step,
            };
            Attempt {
                effect: ATTEMPTS * index + number,
                ways_before: draw(2),
                ways_after: draw(3),
                fails: one_in(5),
                by,
            }
        };
        Self { key: draw(2), attempts: std::array::from_fn(attempt) }
    }
}

/// In which order the messages of a source are handled.
#[derive(Clone, Copy)]
enum Order {
    Serial,
    ByKey,
    ByKeyAcross,
    Any,
}

/// How a drain is run.
struct Plan {
    sources: Vec<Vec<Work>>,
    order: Order,
    concurrency: usize,
    commit: Commit,
    on_failure: OnFailure,
    retried: bool,
    grace: Duration,
    /// It is dropped after so many polls.
    patience: usize,
    changes_wakers: bool,
    stop: Option<CancellationSource>,
    shutdown: Option<CancellationSource>,
}

impl Plan {
    fn draw(number: usize) -> Self {
        let first = number * MOST;
        let work =
            |source: usize| (0..1 + draw(2)).map(move |n| Work::draw(first + 2 * source + n));
        let sources = (0..1 + draw(2)).map(|source| work(source).collect()).collect();
        Self {
            sources,
            order: [Order::Serial, Order::ByKey, Order::ByKeyAcross, Order::Any][draw(4)],
            concurrency: 1 + draw(2),
            commit: [Commit::Pipeline, Commit::Message, Commit::Never][draw(3)],
            on_failure: [OnFailure::Abort, OnFailure::Continue][draw(2)],
            retried: one_in(2),
            grace: if one_in(2) { Duration::ZERO } else { Duration::MAX },
            patience: if one_in(4) { 1 + draw(4) } else { usize::MAX },
            changes_wakers: one_in(2),
            stop: one_in(5).then(CancellationSource::new),
            shutdown: one_in(5).then(CancellationSource::new),
        }
    }
}

/// What became of the messages.
struct Outcomes {
    effects: Effects,
    /// By effect: it happened.
    done: Vec<AtomicBool>,
    /// By effect: its attempt has returned `Ok`.
    succeeded: Vec<AtomicBool>,
    /// Threads to which handlers have given their context.
    keepers: Mutex<Vec<JoinHandle<()>>>,
}

async fn handle(work: Work, step: StepContext, outcomes: Arc<Outcomes>) -> Result<(), BoxError> {
    let attempt = work.attempts[step.attempt() as usize - 1];
    let Attempt { effect, ways_before, ways_after, fails, by } = attempt;
    let undo = outcomes.effects.undo(effect, draw(2));
    if by == By::Reservation {
        drop(step.reserve(undo));
        ways(ways_before).await;
        outcomes.done[effect].store(true, SeqCst);
    } else {
        ways(ways_before).await;
        outcomes.done[effect].store(true, SeqCst);
        match by {
            By::Scope => step.scope().clone().register_compensation(undo),
            By::AnotherThread => {
                let kept = step.clone();
                let keeper = thread::spawn(move || kept.register_compensation(undo));
                outcomes.keepers.lock().unwrap().push(keeper);
            }
            _ => step.register_compensation(undo),
        }
    }
    ways(ways_after).await;
    if fails {
        return Err("the handler fails".into());
    }
    outcomes.succeeded[effect].store(true, SeqCst);
    Ok(())
}

async fn ways(times: usize) {
    for _ in 0..times {
        give_way().await;
    }
}

type Left = Arc<Mutex<VecDeque<Work>>>;

/// A source whose messages that were not taken can be counted.
fn source(left: &Left) -> impl Stream<Item = Work> + Unpin + use<> {
    let left = Arc::clone(left);
    stream::poll_fn(move |_| std::task::Poll::Ready(left.lock().unwrap().pop_front()))
}

/// Runs one drain, and says which of its effects must be undone in the end, and which must not.
fn drain(
    plan: Plan,
    context: &StepContext,
    outcomes: &Arc<Outcomes>,
    progress: &Progress,
) -> Vec<(Attempt, Option<bool>)> {
    let works = plan.sources.concat();
    let commit = plan.commit;
    let handling = Arc::clone(outcomes);
    let left: Vec<Left> =
        plan.sources.into_iter().map(|works| Arc::new(Mutex::new(works.into()))).collect();
    let token = |stop: Option<CancellationSource>| {
        stop.map_or_else(CancellationToken::never, |stop| stop.token())
    };
    let returned = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&returned);
    let fan_in = fan_in(context, left.iter().map(source), move |work, step| {
        handle(work, step, Arc::clone(&handling))
    });
    let fan_in = fan_in
        .concurrency(plan.concurrency)
        .commit(commit)
        .on_failure(plan.on_failure)
        .retry(RetryPolicy::fixed(if plan.retried { 2 } else { 1 }, Duration::ZERO))
        .grace(plan.grace)
        .cancellation(token(plan.stop))
        .shutdown(token(plan.shutdown))
        .progress(progress)
        .put_back(move |_, _| _ = counted.fetch_add(1, SeqCst));
    let run = Run { patience: plan.patience, changes_wakers: plan.changes_wakers };
    let result = match plan.order {
        Order::Serial => run.block_on(fan_in.into_future()),
        Order::ByKey => run.block_on(fan_in.ordered_by(|work| work.key).into_future()),
        Order::ByKeyAcross => {
            run.block_on(fan_in.ordered_across_sources_by(|work| work.key).into_future())
        }
        Order::Any => run.block_on(fan_in.unordered().into_future()),
    };
    if let Some(result) = &result {
        let report = result.as_ref().unwrap_or_else(|failure| failure.report());
        let still: usize = left.iter().map(|left| left.lock().unwrap().len()).sum();
        check(report, works.len() - still, returned.load(SeqCst));
    }
    let drained = matches!(&result, Some(Ok(_)));
    let kept = |attempt: &Attempt| {
        let succeeded = outcomes.succeeded[attempt.effect].load(SeqCst);
        match commit {
            Commit::Message => succeeded,
            Commit::Pipeline => drained && succeeded,
            Commit::Never => false,
        }
    };
    let undone = |attempt: Attempt| {
        // What is staged late is the drain's, whose success may find it.
        let found = drained && commit == Commit::Pipeline;
        let undone = match (kept(&attempt), attempt.by == By::AnotherThread) {
            (false, false) => Some(true),
            (false, true) => (!found).then_some(true),
            (true, late) => (!late).then_some(false),
        };
        (attempt, undone)
    };
    works.into_iter().flat_map(|work| work.attempts).map(undone).collect()
}

struct Run {
    patience: usize,
    changes_wakers: bool,
}

type Finished = Result<FanInReport, Failure<FanInReport>>;

impl Run {
    fn block_on(&self, drain: impl Future<Output = Finished> + Unpin) -> Option<Finished> {
        let drain = polls(drain, self.patience);
        if self.changes_wakers { block_on_by_changing_wakers(drain) } else { block_on(drain) }
    }
}

/// Each message that was taken is in exactly one place, and what was put back came back.
fn check(report: &FanInReport, taken: usize, returned: usize) {
    let ended = report.handled() + report.failed() + report.put_back() + report.unfinished();
    assert_eq!((report.taken(), ended), (taken as u64, taken as u64), "{report:?}");
    assert_eq!(report.put_back(), returned as u64);
    let rows: u64 = report.sources().iter().map(crate::SourceReport::handled).sum();
    assert_eq!(rows, report.handled());
}

fn pipelines() -> (usize, usize) {
    let count = STRANGER + 1;
    let flags = || (0..count).map(|_| AtomicBool::new(false)).collect();
    let outcomes = Arc::new(Outcomes {
        effects: Effects::new(count),
        done: flags(),
        succeeded: flags(),
        keepers: Mutex::default(),
    });
    let context = StepContext::new("model").with_clock(Arc::new(ManualClock::new()));
    let plans = [0, 1].map(Plan::draw);
    let stops = plans.each_ref().map(|plan| [plan.stop.clone(), plan.shutdown.clone()]);
    let limits = plans.each_ref().map(|plan| plan.concurrency as u64);
    let progress = [(); DRAINS].map(|()| Progress::new());
    let mut watched = progress.clone().into_iter();
    let drains = plans.map(|plan| {
        let (context, outcomes) = (context.clone(), Arc::clone(&outcomes));
        let progress = watched.next().unwrap_or_default();
        thread::spawn(move || drain(plan, &context, &outcomes, &progress))
    });
    outcomes.effects.stage(context.scope(), STRANGER);
    let policy = CompensationPolicy::sequential_reverse();
    if one_in(3) {
        block_on(context.roll_back(&policy)).unwrap();
    }
    for (progress, limit) in progress.iter().zip(limits) {
        let now = progress.report();
        assert!(now.in_flight() <= limit, "{} in flight", now.in_flight());
    }
    for stop in stops.into_iter().flatten().flatten() {
        stop.cancel();
    }
    let ends: Vec<_> = drains.into_iter().flat_map(|drain| drain.join().unwrap()).collect();
    for keeper in std::mem::take(&mut *outcomes.keepers.lock().unwrap()) {
        keeper.join().unwrap();
    }
    block_on(context.roll_back(&policy)).unwrap();
    assert!(context.scope().is_empty());
    for (attempt, undone) in ends {
        let (index, done) = (attempt.effect, outcomes.done[attempt.effect].load(SeqCst));
        let times = outcomes.effects.undone(index);
        assert!(times <= 1, "effect {index} was undone {times} times");
        if done {
            assert_eq!(outcomes.effects.gone(index), 1, "the action of effect {index}");
            let as_it_must = undone.is_none_or(|undone| times == usize::from(undone));
            assert!(as_it_must, "effect {index} was undone {times} times");
        }
    }
    assert_eq!(outcomes.effects.undone(STRANGER), 1);
    outcomes.effects.undone_and_kept()
}

// Rules 3.9, 3.10, 4.1, 4.3, 4.4, 4.5, 4.8 and 6.3
#[test]
fn random_pipelines_keep_or_undo_every_effect_once() {
    random_schedules("two drains on one scope", "undone", 50_000, pipelines);
}

// Rules 3.9, 3.10, 4.1, 4.3, 4.4, 4.5, 4.8 and 6.3
#[test]
fn pct_pipelines_keep_or_undo_every_effect_once() {
    pct_schedules("two drains on one scope", "undone", 50_000, pipelines);
}
