//! One run of a select.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use super::Select;
use super::case::CaseAnswer;
use super::tier::CaseTier;
use crate::clock::{Alarm, Tick};
use crate::diagnostics::COUNTERS;
use crate::error::{Error, ErrorCode};
use crate::operation::Limits;
use crate::panics;
use crate::step::{ChildStep, StepContext};

/// Runs that end in their first poll, one after another, before the executor has its thread back.
const RUNS_AT_ONCE: usize = 256;

/// The future of [`Select::run`].
#[must_use = "a run does nothing unless it is awaited"]
pub(super) struct SelectRun<'s, 'a, T> {
    select: &'s mut Select<'a, T>,
    /// There from the first poll to the result.
    started: Option<Box<StartedSelect>>,
}

/// A run between its first poll and its result. What it leaves in order, the next one uses.
pub(super) struct StartedSelect {
    /// When the run had to wait for the first time.
    waits_since: Option<Tick>,
    step: ChildStep,
    limits: Limits,
    /// Whose continuation is running, until that has ended.
    winner: Option<SelectWinner>,
    /// Why the run ends early, and how long it still waits for the continuation.
    ending: Option<(Error, Alarm)>,
}

#[derive(Clone, Copy, Debug)]
enum SelectWinner {
    Case { tier: usize, index: usize },
    Default,
}

impl<'s, 'a, T> SelectRun<'s, 'a, T> {
    pub(super) fn new(select: &'s mut Select<'a, T>) -> Self {
        Self { select, started: None }
    }
}

impl<T> Future for SelectRun<'_, '_, T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { select, started } = &mut *self;
        // What may panic here outside a case is the clock.
        let polled = panics::contain(|| {
            let started = match started {
                Some(started) => started,
                None => started.insert(StartedSelect::new(select)?),
            };
            let poll = started.poll(select, cx);
            if poll.is_pending() {
                select.at_once = 0;
                if started.waits_since.is_none() {
                    started.waits_since = Some(select.context.clock().now());
                }
            }
            poll
        });
        let result = match polled {
            Ok(poll) => ready!(poll),
            Err(message) => Err(Error::panic("the clock", &message)),
        };
        self.finish(&result);
        Poll::Ready(result)
    }
}

impl<T> SelectRun<'_, '_, T> {
    /// Counts the result, and hands what was staged to the context's scope.
    fn finish(&mut self, result: &Result<T, Error>) {
        if let Some(started) = self.started.take() {
            if started.waits_since.is_none() {
                self.select.at_once += 1;
            }
            let clock = self.select.context.clock();
            let took = started.waits_since.map(|at| panics::contain(|| clock.now().since(at)));
            COUNTERS.select_time.record(took.and_then(Result::ok).unwrap_or_default());
            self.select.release(started);
        }
        match result.as_ref().map_err(Error::code) {
            Ok(_) => COUNTERS.selects_succeeded.add(1),
            Err(ErrorCode::Timeout) => COUNTERS.selects_timed_out.add(1),
            Err(ErrorCode::Canceled) => COUNTERS.selects_cancelled.add(1),
            Err(_) => COUNTERS.selects_failed.add(1),
        }
    }
}

impl<T> Select<'_, T> {
    /// Drops what is left of a run, and keeps what the next one can use as it is.
    fn release(&mut self, mut started: Box<StartedSelect>) {
        let waited = started.waits_since.take().is_some();
        if waited {
            // Nobody is to wake a task that does not wait any more.
            self.tiers.iter_mut().for_each(CaseTier::forget);
            started.limits = Limits::by_token(started.step.outer_token().clone());
        }
        if let Some(winner) = started.winner.take() {
            // Whoever still works for the continuation hears that it is gone.
            started.step.cancel();
            self.abandon(winner);
        }
        let ended_early = started.ending.is_some();
        if self.settings.timeout.is_none() && !ended_early && started.step.reopen() {
            self.spare = Some(started);
        }
    }

    /// Asks the cases in order of priority, and then the default.
    fn ask(
        &mut self,
        step: &StepContext,
        cx: &mut Context<'_>,
    ) -> Result<Option<SelectWinner>, Error> {
        for (tier, cases) in self.tiers.iter_mut().enumerate() {
            if let Some(result) = cases.ask(step) {
                return result.map(|index| Some(SelectWinner::Case { tier, index }));
            }
        }
        let Some(default) = &mut self.default else { return Ok(None) };
        match default.as_mut().poll_take(step, cx) {
            Poll::Ready(CaseAnswer::Won) => Ok(Some(SelectWinner::Default)),
            Poll::Ready(CaseAnswer::Failed(error) | CaseAnswer::Ended(Some(error))) => Err(error),
            Poll::Ready(CaseAnswer::Ended(None)) | Poll::Pending => Ok(None),
        }
    }

    fn is_drained(&self) -> bool {
        self.tiers.iter().all(|tier| tier.open() == 0)
    }

    /// Waits for the next case that is woken.
    fn wait(&mut self, task: &Waker) {
        let mut woken = false;
        for tier in &mut self.tiers {
            woken |= !tier.wait(task);
        }
        if woken {
            task.wake_by_ref();
        }
    }

    fn poll_winner(
        &mut self,
        winner: SelectWinner,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, Error>> {
        match winner {
            SelectWinner::Case { tier, index } => self.tiers[tier].poll_continue(index, cx),
            SelectWinner::Default => match &mut self.default {
                Some(default) => default.as_mut().poll_continue(cx),
                None => Poll::Pending,
            },
        }
    }

    /// Drops the continuation of the winner, and gives the panic of its destructor.
    fn abandon(&mut self, winner: SelectWinner) -> Option<Error> {
        match winner {
            SelectWinner::Case { tier, index } => self.tiers[tier].abandon(index),
            SelectWinner::Default => self.default.as_mut()?.as_mut().abandon(),
        }
    }
}

impl StartedSelect {
    fn new<T>(select: &mut Select<'_, T>) -> Result<Box<Self>, Error> {
        if let Some(spare) = select.spare.take() {
            return Ok(spare);
        }
        let settings = &select.settings;
        let step = ChildStep::new(&select.context, None, &settings.cancellation);
        let token = step.outer_token().clone();
        let limits = Limits::new(select.context.clock(), token, settings.timeout)?;
        Ok(Box::new(Self { waits_since: None, step, limits, winner: None, ending: None }))
    }

    fn poll<T>(
        &mut self,
        select: &mut Select<'_, T>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, Error>> {
        if self.winner.is_none() {
            if let Some(error) = &select.invalid {
                return Poll::Ready(Err(error.clone()));
            }
            if let Some(exceeded) = self.limits.exceeded() {
                return Poll::Ready(Err(exceeded.into_error("the select")));
            }
            if select.at_once >= RUNS_AT_ONCE {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.winner = select.ask(self.step.context(), cx)?;
        }
        let Some(winner) = self.winner else {
            if select.is_drained() {
                let error = Error::new(ErrorCode::SelectDrained, "every case has ended");
                return Poll::Ready(Err(error));
            }
            select.wait(cx.waker());
            let exceeded = ready!(self.limits.poll_exceeded(cx));
            return Poll::Ready(Err(exceeded.into_error("the select")));
        };
        if let Poll::Ready(result) = select.poll_winner(winner, cx) {
            return Poll::Ready(self.conclude(result));
        }
        if self.ending.is_none() {
            let exceeded = ready!(self.limits.poll_exceeded(cx));
            self.step.cancel();
            let clock = select.context.clock();
            let grace = Alarm::grace(clock, select.settings.grace);
            self.ending = Some((exceeded.into_error("the select"), grace));
            // The continuation may have something to say to its cancellation at once.
            if let Poll::Ready(result) = select.poll_winner(winner, cx) {
                return Poll::Ready(self.conclude(result));
            }
        }
        let Some((error, grace)) = &mut self.ending else { return Poll::Pending };
        ready!(grace.poll(cx));
        self.winner = None;
        let error = error.clone().with_metadata("dropped_handlers", 1);
        Poll::Ready(Err(error.with_related(select.abandon(winner))))
    }

    /// The result of the run when the continuation has ended.
    fn conclude<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.winner = None;
        let Some((ending, _)) = &self.ending else { return result };
        match result {
            Ok(late) => {
                panics::drop_contained(|| drop(late));
                Err(ending.clone())
            }
            Err(error) => Err(ending.clone().with_related([error])),
        }
    }
}

/// A run that is dropped takes its continuation along; what that has staged stays.
impl<T> Drop for SelectRun<'_, '_, T> {
    fn drop(&mut self) {
        if let Some(started) = self.started.take() {
            self.select.release(started);
        }
    }
}
