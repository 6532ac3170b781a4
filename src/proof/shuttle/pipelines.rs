//! Two drains on one scope, which succeed, fail, are cancelled or dropped, beside whoever rolls it
//! back.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream;

use super::super::effects::Effects;
use super::super::executor::{block_on, give_way, polls};
use super::{draw, one_in, pct_schedules, random_schedules};
use crate::sync::thread::{self, JoinHandle};
use crate::{
    BoxError, CancellationSource, CancellationToken, Commit, CompensationPolicy, ManualClock,
    OnFailure, StepContext, fan_in,
};

const DRAINS: usize = 2;
/// Most messages of a drain.
const MOST: usize = 4;
/// The effect of somebody who is no drain.
const STRANGER: usize = DRAINS * MOST;

/// How a handler stages its compensation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Step,
    Scope,
    Reservation,
    /// Not before the handler has ended, perhaps.
    AnotherThread,
}

/// What the handler of a message does.
#[derive(Clone, Copy)]
struct Work {
    index: usize,
    ways_before: usize,
    ways_after: usize,
    fails: bool,
    by: By,
}

impl Work {
    fn draw(index: usize) -> Self {
        let by = match draw(6) {
            0 => By::Scope,
            1 => By::Reservation,
            2 => By::AnotherThread,
            _ => By::Step,
        };
        Self { index, ways_before: draw(2), ways_after: draw(3), fails: one_in(6), by }
    }
}

/// How a drain is run.
struct Plan {
    sources: Vec<Vec<Work>>,
    concurrency: NonZeroUsize,
    commit: Commit,
    on_failure: OnFailure,
    grace: Duration,
    /// It is dropped after so many polls.
    patience: usize,
    stop: Option<CancellationSource>,
}

impl Plan {
    fn draw(number: usize) -> Self {
        let first = number * MOST;
        let work =
            |source: usize| (0..1 + draw(2)).map(move |n| Work::draw(first + 2 * source + n));
        let sources = (0..1 + draw(2)).map(|source| work(source).collect()).collect();
        let commit = [Commit::Pipeline, Commit::Message, Commit::Never][draw(3)];
        let on_failure = [OnFailure::Abort, OnFailure::RollBackMessage][draw(2)];
        Self {
            sources,
            concurrency: NonZeroUsize::MIN.saturating_add(draw(2)),
            commit,
            on_failure,
            grace: if one_in(2) { Duration::ZERO } else { Duration::MAX },
            patience: if one_in(4) { 1 + draw(4) } else { usize::MAX },
            stop: one_in(4).then(CancellationSource::new),
        }
    }
}

/// What became of the messages.
struct Outcomes {
    effects: Effects,
    /// By effect: it happened.
    done: Vec<AtomicBool>,
    /// By effect: its handler has returned `Ok`.
    succeeded: Vec<AtomicBool>,
    /// Somebody rolls the scope back while the drains run.
    rolled_back: bool,
    /// Threads to which handlers have given their context.
    keepers: Mutex<Vec<JoinHandle<()>>>,
}

async fn handle(work: Work, step: StepContext, outcomes: Arc<Outcomes>) -> Result<(), BoxError> {
    let Work { index, ways_before, ways_after, fails, by } = work;
    let undo = outcomes.effects.undo(index, draw(2));
    if by == By::Reservation {
        drop(step.reserve(undo));
        ways(ways_before).await;
        outcomes.done[index].store(true, SeqCst);
    } else {
        ways(ways_before).await;
        outcomes.done[index].store(true, SeqCst);
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
    outcomes.succeeded[index].store(true, SeqCst);
    Ok(())
}

async fn ways(times: usize) {
    for _ in 0..times {
        give_way().await;
    }
}

/// Runs one drain, and says which of its effects must be undone in the end, and which must not.
fn drain(plan: Plan, context: &StepContext, outcomes: &Arc<Outcomes>) -> Vec<(Work, Option<bool>)> {
    let works = plan.sources.concat();
    let (commit, on_failure) = (plan.commit, plan.on_failure);
    let handling = Arc::clone(outcomes);
    let sources = plan.sources.into_iter().map(stream::iter);
    let fan_in =
        fan_in(context, sources, move |work, step| handle(work, step, Arc::clone(&handling)));
    let fan_in = fan_in
        .concurrency(plan.concurrency)
        .commit(commit)
        .on_failure(on_failure)
        .grace(plan.grace)
        .cancellation(plan.stop.map_or_else(CancellationToken::never, |stop| stop.token()));
    let result = block_on(polls(fan_in.into_future(), plan.patience));
    let drained = matches!(&result, Some(Ok(_)));
    let kept = |work: &Work| {
        let succeeded = outcomes.succeeded[work.index].load(SeqCst);
        match commit {
            Commit::Message => succeeded,
            Commit::Pipeline => drained && succeeded,
            _ => false,
        }
    };
    let undone = |work: Work| {
        // Whatever is staged late, or run by another rollback meanwhile, goes either way.
        let late = work.by == By::AnotherThread;
        let either = late || commit == Commit::Pipeline && outcomes.rolled_back;
        let undone = if kept(&work) { (!either).then_some(false) } else { Some(true) };
        (work, undone)
    };
    works.into_iter().map(undone).collect()
}

fn pipelines() -> (usize, usize) {
    let count = STRANGER + 1;
    let flags = || (0..count).map(|_| AtomicBool::new(false)).collect();
    let outcomes = Arc::new(Outcomes {
        effects: Effects::new(count),
        done: flags(),
        succeeded: flags(),
        rolled_back: one_in(3),
        keepers: Mutex::default(),
    });
    let context = StepContext::new("model").with_clock(Arc::new(ManualClock::new()));
    let plans = [0, 1].map(Plan::draw);
    let stops = plans.each_ref().map(|plan| plan.stop.clone());
    let drains = plans.map(|plan| {
        let (context, outcomes) = (context.clone(), Arc::clone(&outcomes));
        thread::spawn(move || drain(plan, &context, &outcomes))
    });
    outcomes.effects.stage(context.scope(), STRANGER);
    let policy = CompensationPolicy::sequential_reverse();
    if outcomes.rolled_back {
        let rollback = context.scope().run_compensation(&policy, CancellationToken::never());
        block_on(rollback).unwrap();
    }
    for stop in stops.into_iter().flatten() {
        stop.cancel();
    }
    let ends: Vec<_> = drains.into_iter().flat_map(|drain| drain.join().unwrap()).collect();
    for keeper in std::mem::take(&mut *outcomes.keepers.lock().unwrap()) {
        keeper.join().unwrap();
    }
    block_on(context.scope().run_compensation(&policy, CancellationToken::never())).unwrap();
    assert!(context.scope().is_empty());
    for (work, undone) in ends {
        let (index, done) = (work.index, outcomes.done[work.index].load(SeqCst));
        let times = outcomes.effects.undone(index);
        assert!(times <= 1, "effect {index} was undone {times} times");
        if done {
            assert_eq!(outcomes.effects.gone(index), 1, "the action of effect {index}");
            assert!(undone.is_none_or(|undone| times == usize::from(undone)), "effect {index}");
        }
    }
    assert_eq!(outcomes.effects.undone(STRANGER), 1);
    outcomes.effects.undone_and_kept()
}

// Rules 4.1, 4.3, 4.4, 4.5 and 4.8
#[test]
fn random_pipelines_keep_or_undo_every_effect_once() {
    random_schedules("two drains on one scope", pipelines);
}

// Rules 4.1, 4.3, 4.4, 4.5 and 4.8
#[test]
fn pct_pipelines_keep_or_undo_every_effect_once() {
    pct_schedules("two drains on one scope", pipelines);
}
