//! A drain and a rollback, dropped after each of their polls, and cancelled after each.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::{Future, IntoFuture};
use std::pin::pin;

use watershed::testing::{DropPoint, for_every_poll};
use watershed::{CancellationSource, CompensationPolicy, ErrorCode, OnFailure, Rollback};

use crate::effort::effort;
use crate::mixture::{self, Faults, Mixture, Run};
use crate::scenario::{Case, Scenario};

/// What is done to a future in one run: nothing, or what a point says. Counts its polls.
struct Probe<'a> {
    point: Option<&'a DropPoint>,
    polls: Cell<u64>,
    drops: Cell<bool>,
}

impl<'a> Probe<'a> {
    fn new(point: Option<&'a DropPoint>) -> Self {
        Self { point, polls: Cell::new(0), drops: Cell::new(false) }
    }

    async fn cut<F: IntoFuture>(&self, future: F) -> Option<F::Output> {
        self.drops.set(true);
        match self.point {
            None => Some(self.count(future).await),
            Some(point) => point.cut(self.count(future)).await,
        }
    }

    async fn cancel<F: IntoFuture>(&self, source: &CancellationSource, future: F) -> F::Output {
        match self.point {
            None => self.count(future).await,
            Some(point) => point.cancel(source, self.count(future)).await,
        }
    }

    async fn count<F: IntoFuture>(&self, future: F) -> F::Output {
        self.polls.set(0);
        let mut future = pin!(future.into_future());
        std::future::poll_fn(|cx| {
            self.polls.set(self.polls.get() + 1);
            future.as_mut().poll(cx)
        })
        .await
    }
}

/// Goes through all polls of a scenario in every case, and prints how many runs that were. How many
/// there have to be is what a run tells that nothing is done to.
fn in_every_case<C: Copy + Debug>(
    what: &str,
    cases: impl Iterator<Item = C>,
    mut scenario: impl FnMut(C, &Probe<'_>),
) {
    let (mut count, mut runs, mut longest) = (0, 0, 0);
    for case in cases {
        let clean = Probe::new(None);
        scenario(case, &clean);
        let polls = clean.polls.get();
        let tried = for_every_poll(|point| {
            let probe = Probe::new(Some(point));
            scenario(case, &probe);
            if probe.drops.get() {
                let most = point.polls().min(polls);
                assert_eq!(probe.polls.get(), most, "dropped after another poll: {case:?}");
            }
        });
        assert_eq!(tried, polls + 1, "before the first poll and after each: {case:?}");
        count += 1;
        runs += tried;
        longest = longest.max(polls);
    }
    println!("{what} after each poll: {count} cases, {runs} runs, the longest of {longest} polls");
    assert!(runs > 5 * count && longest > 10, "too few polls prove nothing");
}

/// By number of handlers: the most of them that ran at once, which has to be all.
fn assert_all_at_once(what: &str, most: &BTreeMap<usize, usize>) {
    println!("{what}: handlers at once {:?}", most.values().collect::<Vec<_>>());
    assert!(most.iter().all(|(handlers, most)| handlers == most), "{most:?}");
    assert_eq!(most.len(), 3, "1, 2 and many");
}

/// How a rollback may go about its work, and whether that keeps an order.
fn policies() -> [(&'static str, CompensationPolicy, bool); 3] {
    let limited = CompensationPolicy::parallel_limited(3);
    let sequential = CompensationPolicy::sequential_reverse();
    let parallel = CompensationPolicy::parallel();
    [("sequential", sequential, true), ("parallel", parallel, false), ("limited", limited, false)]
}

/// A rollback of everything that a drain has left, its stop being that of the scenario.
fn rollback(scenario: &Scenario, policy: &CompensationPolicy) -> Rollback {
    scenario.context.scope().roll_back(policy).cancellation(scenario.stop.token())
}

// Rules 2.1, 3.8, 4.1, 4.2, 4.3, 4.9
#[test]
fn a_drain_is_dropped_after_every_poll() {
    let mut at_once = BTreeMap::new();
    in_every_case("drain dropped", Case::all(effort(4, 40, 400)), |case, point| {
        let scenario = Scenario::new(case, None);
        let ended = scenario.simulation.run(point.cut(scenario.drain())).expect("it ends");
        scenario.settle(ended.as_ref());
        let most = at_once.entry(case.handlers).or_default();
        *most = scenario.shop.book().most_in_flight.max(*most);
    });
    assert_all_at_once("drain dropped", &at_once);
}

// Rules 2.1, 3.2, 3.5, 3.6, 4.1
#[test]
fn a_drain_is_cancelled_after_every_poll() {
    let mut at_once = BTreeMap::new();
    in_every_case("drain cancelled", Case::all(effort(4, 40, 400)), |case, point| {
        let scenario = Scenario::new(case, None);
        let drain = point.cancel(&scenario.stop, scenario.drain());
        let ended = scenario.simulation.run(drain).expect("it ends");
        if scenario.stop.is_cancelled() {
            let code = ended.as_ref().expect_err("it was cancelled").code();
            let declined = case.declines && case.on_failure == OnFailure::Abort;
            assert!(code == ErrorCode::Canceled || code == ErrorCode::Handler && declined);
        }
        scenario.settle(Some(&ended));
        let most = at_once.entry(case.handlers).or_default();
        *most = scenario.shop.book().most_in_flight.max(*most);
    });
    assert_all_at_once("drain cancelled", &at_once);
}

// Rules 4.2, 4.5, 4.6
#[test]
fn a_rollback_is_dropped_after_every_poll() {
    for (name, policy, in_order) in policies() {
        let what = format!("{name} rollback dropped");
        in_every_case(&what, Case::all(effort(2, 16, 160)), |case, point| {
            let scenario = Scenario::new(case, None);
            let ended = scenario.simulation.run(scenario.drain()).expect("it ends");
            let before = scenario.shop.book().undone.len();
            let rollback = point.cut(rollback(&scenario, &policy));
            if let Some(ended) = scenario.simulation.run(rollback).expect("it ends") {
                let undone = ended.expect("every action succeeds").succeeded();
                // A reservation that was withdrawn is no longer staged.
                assert_eq!(undone, scenario.shop.book().undone.len() - before);
                assert!(scenario.context.scope().is_empty());
            }
            scenario.settle_after(Some(&ended), before, in_order);
        });
    }
}

// Rules 4.2, 4.5, 4.6
#[test]
fn a_rollback_is_cancelled_after_every_poll() {
    for (name, policy, in_order) in policies() {
        let what = format!("{name} rollback cancelled");
        in_every_case(&what, Case::all(effort(2, 16, 160)), |case, point| {
            let scenario = Scenario::new(case, None);
            let ended = scenario.simulation.run(scenario.drain()).expect("it ends");
            let before = scenario.shop.book().undone.len();
            let rollback = point.cancel(&scenario.stop, rollback(&scenario, &policy));
            let outcome = scenario.simulation.run(rollback).expect("it ends");
            let undone = scenario.shop.book().undone.len() - before;
            match outcome {
                Ok(report) => {
                    assert_eq!(report.succeeded(), undone);
                    assert!(scenario.context.scope().is_empty());
                }
                Err(failure) => {
                    assert_eq!(failure.error().code(), ErrorCode::Canceled);
                    assert_eq!(failure.report().succeeded(), undone);
                    assert!(scenario.context.scope().has_actions());
                }
            }
            scenario.settle_after(Some(&ended), before, in_order);
        });
    }
}

// Rules 4.5, 4.10
#[test]
fn one_of_two_rollbacks_is_dropped_after_every_poll() {
    for (name, policy, in_order) in policies() {
        let what = format!("one of two {name} rollbacks dropped");
        in_every_case(&what, Case::all(effort(2, 16, 160)), |case, point| {
            let scenario = Scenario::new(case, None);
            let ended = scenario.simulation.run(scenario.drain()).expect("it ends");
            let before = scenario.shop.book().undone.len();
            let staged = scenario.context.scope().len();
            let other = scenario.context.scope().roll_back(&policy);
            let other = scenario.simulation.spawn("other", other);
            let cut = point.cut(rollback(&scenario, &policy));
            let dropped = scenario.simulation.run(cut).expect("it ends").is_none();
            let report = scenario.simulation.run(other).expect("it ends").expect("all succeed");
            assert!(scenario.context.scope().is_empty());
            assert!(report.succeeded() <= staged);
            assert_eq!(scenario.shop.book().undone.len() - before, staged, "all was done once");
            // An action that was dropped while it ran is run again, out of the order.
            scenario.settle_after(Some(&ended), before, in_order && !dropped);
        });
    }
}

// Rules 2.1, 4.1, 4.5
#[test]
fn a_drain_and_then_its_rollback_are_dropped_after_every_poll() {
    let cases = Case::all(effort(1, 4, 40)).filter(|case| case.handlers == 2);
    let mut pairs = 0;
    in_every_case("drain and rollback dropped", cases, |case, first| {
        let tried = for_every_poll(|second| {
            let scenario = Scenario::new(case, None);
            let ended = scenario.simulation.run(first.cut(scenario.drain())).expect("it ends");
            let before = scenario.shop.book().undone.len();
            let policy = CompensationPolicy::sequential_reverse();
            let rollback = second.cut(rollback(&scenario, &policy));
            scenario.simulation.run(rollback).expect("it ends");
            scenario.settle_after(ended.as_ref(), before, true);
        });
        pairs += if first.point.is_some() { tried } else { 0 };
    });
    println!("drain and rollback dropped: {pairs} pairs of polls");
}

/// What is counted over all runs of a mixture.
#[derive(Debug, Default)]
struct Seen {
    drained: u64,
    dropped: u64,
    ends: BTreeMap<String, u64>,
    most_in_flight: usize,
    retries: u64,
}

impl Seen {
    fn add(&mut self, run: &Run, ended: Option<&mixture::Ended>) {
        match ended {
            None => self.dropped += 1,
            Some(Ok(_)) => self.drained += 1,
            Some(Err(error)) => *self.ends.entry(error.code().to_string()).or_default() += 1,
        }
        self.most_in_flight = self.most_in_flight.max(run.most_in_flight());
        self.retries += run.retries();
    }
}

// Rules 2.1, 2.2, 2.7, 3.2, 3.3, 3.4, 3.6, 3.8, 4.1
#[test]
fn a_drain_of_every_kind_of_source_is_dropped_after_every_poll() {
    let mut seen = Seen::default();
    in_every_case("mixture dropped", Mixture::all(effort(2, 30, 300)), |case, point| {
        let run = Run::new(case, &Faults::default());
        let is_gone = run.canaries();
        let ended = run.simulation.run(point.cut(run.drain())).expect("it ends");
        seen.add(&run, ended.as_ref());
        run.settle(ended.as_ref(), run.undone(), true);
        drop((ended, run));
        assert!(is_gone(), "something is leaked: {case:?}");
    });
    println!("mixture dropped: {seen:?}");
    assert!(seen.drained > 0 && seen.most_in_flight == 4 && seen.retries > 0);
    assert!(seen.ends.contains_key("error.timeout") && seen.ends.contains_key("error.handler"));
}

// Rules 2.1, 2.2, 2.7, 3.2, 3.3, 3.4, 3.5, 3.6, 3.8, 4.1
#[test]
fn a_drain_of_every_kind_of_source_is_cancelled_after_every_poll() {
    let mut seen = Seen::default();
    in_every_case("mixture cancelled", Mixture::all(effort(2, 30, 300)), |case, point| {
        let run = Run::new(case, &Faults::default());
        let is_gone = run.canaries();
        let ended = run.simulation.run(point.cancel(&run.stop, run.drain())).expect("it ends");
        seen.add(&run, Some(&ended));
        run.settle(Some(&ended), run.undone(), true);
        drop((ended, run));
        assert!(is_gone(), "something is leaked: {case:?}");
    });
    println!("mixture cancelled: {seen:?}");
    assert!(seen.drained > 0 && seen.most_in_flight == 4 && seen.retries > 0);
    assert!(seen.ends.contains_key("error.canceled"));
}

// Rules 4.2, 4.4, 4.5, 4.6
#[test]
fn a_rollback_that_tries_again_after_pauses_is_dropped_and_cancelled_after_every_poll() {
    let (mut retries, mut failed) = (0, 0);
    for (name, policy, in_order) in mixture::policies() {
        for drops in [true, false] {
            let verb = if drops { "dropped" } else { "cancelled" };
            let what = format!("{name} rollback with retries {verb}");
            in_every_case(&what, Mixture::all(effort(1, 10, 100)), |case, point| {
                let run = Run::new(case, &Faults::default());
                let is_gone = run.canaries();
                let ended = run.simulation.run(run.drain()).expect("it ends");
                let before = run.undone();
                let stop = CancellationSource::new();
                let rollback = run.rollback(&policy.clone().retry(case.retry()), stop.token());
                let result = if drops {
                    run.simulation.run(point.cut(rollback)).expect("it ends")
                } else {
                    Some(run.simulation.run(point.cancel(&stop, rollback)).expect("it ends"))
                };
                // What fails for good, or was interrupted, is undone in another rollback.
                let whole = matches!(result, Some(Ok(_)));
                failed += match &result {
                    Some(Err(failure)) => failure.error().related_total(),
                    _ => 0,
                };
                retries += run.retries();
                run.settle(Some(&ended), before, in_order && whole);
                drop((ended, result, run));
                assert!(is_gone(), "something is leaked: {case:?}");
            });
        }
    }
    println!("rollbacks with retries: {retries} further attempts, {failed} failures told");
    assert!(retries > 0 && failed > 0);
}
