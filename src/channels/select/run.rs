//! One run of a select.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::case::Asked;
use super::{Select, Slot, Spare};
use crate::clock::{Sleep, Tick};
use crate::context::{ChildStep, StepContext};
use crate::diagnostics::COUNTERS;
use crate::error::{Error, ErrorCode};
use crate::limits::Limits;
use crate::origin::Origin;
use crate::panics;

/// The future of [`Select::run`].
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::{StepContext, channels};
///
/// let context = StepContext::new("worker");
/// let mut select = channels::select(&context).pass(stream::iter([7]));
/// assert_eq!(select.run().await?, 7);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a run does nothing unless it is awaited"]
pub struct SelectRun<'s, 'a, T> {
    select: &'s mut Select<'a, T>,
    started: Option<Started>,
}

/// A run between its first poll and its result.
struct Started {
    /// When the run had to wait for the first time.
    waits_since: Option<Tick>,
    step: ChildStep,
    limits: Limits,
    /// Whose continuation is running.
    winner: Option<Winner>,
    /// Why the run ends early, and how long it still waits for the continuation.
    ending: Option<(Error, Sleep)>,
}

#[derive(Clone, Copy, Debug)]
enum Winner {
    Case(usize),
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
            let started = started.get_or_insert_with(|| Started::new(select));
            let poll = started.poll(select, cx);
            if poll.is_pending() && started.waits_since.is_none() {
                started.waits_since = Some(select.context.clock().now());
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
        if result.is_err() {
            self.select.abandon();
        }
        if let Some(started) = self.started.take() {
            let clock = self.select.context.clock();
            let took = started.waits_since.map(|at| panics::contain(|| clock.now().since(at)));
            COUNTERS.select_time.record(took.and_then(Result::ok).unwrap_or_default());
            self.select.keep(started);
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
    /// Keeps what the next run can use as it is.
    fn keep(&mut self, started: Started) {
        let Started { step, limits, ending, .. } = started;
        if self.settings.timeout.is_none() && ending.is_none() {
            self.spare = step.reuse().map(|step| Spare { step, limits });
        }
    }

    /// Drops whatever continuation is left.
    fn abandon(&mut self) {
        for slot in &mut self.cases {
            slot.case.as_mut().abandon();
        }
        if let Some(default) = &mut self.default {
            default.as_mut().abandon();
        }
    }

    /// Asks the cases in order of priority, those of one priority in turns.
    fn ask(&mut self, step: &StepContext, cx: &mut Context<'_>) -> Result<Option<Winner>, Error> {
        let mut first = 0;
        while let Some(slot) = self.cases.get(first) {
            let priority = slot.priority;
            let count = self.cases[first..].partition_point(|slot| slot.priority == priority);
            for place in 0..count {
                let index = first + (self.turn + place) % count;
                if self.cases[index].poll_take(step, cx)? {
                    self.turn = self.turn.wrapping_add(1);
                    return Ok(Some(Winner::Case(index)));
                }
            }
            first += count;
        }
        let Some(default) = &mut self.default else { return Ok(None) };
        match default.as_mut().poll_take(step, cx) {
            Poll::Ready(Ok(Asked::Won)) => Ok(Some(Winner::Default)),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(Asked::Ended)) | Poll::Pending => Ok(None),
        }
    }
}

impl<T> Slot<'_, T> {
    /// Whether the case has won.
    fn poll_take(&mut self, step: &StepContext, cx: &mut Context<'_>) -> Result<bool, Error> {
        if self.ended {
            return Ok(false);
        }
        match self.case.as_mut().poll_take(step, cx) {
            Poll::Ready(Ok(Asked::Won)) => Ok(true),
            Poll::Ready(Ok(Asked::Ended)) => {
                self.ended = true;
                Ok(false)
            }
            Poll::Ready(Err(error)) => Err(error.with_origin(self.origin())),
            Poll::Pending => Ok(false),
        }
    }

    fn origin(&self) -> Origin {
        Origin { source: self.name.clone(), message: 0 }
    }
}

impl Started {
    fn new<T>(select: &mut Select<'_, T>) -> Self {
        if let Some(Spare { step, limits }) = select.spare.take() {
            return Self { waits_since: None, step, limits, winner: None, ending: None };
        }
        let settings = &select.settings;
        let step = ChildStep::new(&select.context, None, &settings.cancellation);
        let token = step.outer_token().clone();
        let limits = Limits::new(select.context.clock(), token, settings.timeout);
        Self { waits_since: None, step, limits, winner: None, ending: None }
    }

    fn poll<T>(
        &mut self,
        select: &mut Select<'_, T>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, Error>> {
        if self.winner.is_none() {
            if let Some(exceeded) = self.limits.exceeded() {
                return Poll::Ready(Err(exceeded.into_error("the select")));
            }
            self.winner = select.ask(self.step.context(), cx)?;
        }
        let Some(winner) = self.winner else {
            if select.cases.iter().all(|slot| slot.ended) {
                let error = Error::new(ErrorCode::SelectDrained, "every case has ended");
                return Poll::Ready(Err(error));
            }
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
            let grace = clock.sleep_until(clock.now() + select.settings.grace);
            self.ending = Some((exceeded.into_error("the select"), grace));
            // The continuation may have something to say to its cancellation at once.
            if let Poll::Ready(result) = select.poll_winner(winner, cx) {
                return Poll::Ready(self.conclude(result));
            }
        }
        let Some((error, grace)) = &mut self.ending else { return Poll::Pending };
        ready!(grace.as_mut().poll(cx));
        Poll::Ready(Err(error.clone().with_metadata("dropped_handlers", 1)))
    }

    /// The result of the run when the continuation has ended.
    fn conclude<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        match (self.ending.take(), result) {
            (None, result) => result,
            (Some((ending, _)), Ok(_)) => Err(ending),
            (Some((ending, _)), Err(error)) => Err(ending.with_related([error])),
        }
    }
}

impl<T> Select<'_, T> {
    fn poll_winner(&mut self, winner: Winner, cx: &mut Context<'_>) -> Poll<Result<T, Error>> {
        match winner {
            Winner::Case(index) => {
                let slot = &mut self.cases[index];
                let result = ready!(slot.case.as_mut().poll_continue(cx));
                Poll::Ready(result.map_err(|error| error.with_origin(slot.origin())))
            }
            Winner::Default => match &mut self.default {
                Some(default) => default.as_mut().poll_continue(cx),
                None => Poll::Pending,
            },
        }
    }
}

/// A run that is dropped takes its continuation along; what that has staged stays.
impl<T> Drop for SelectRun<'_, '_, T> {
    fn drop(&mut self) {
        if self.started.is_some() {
            self.select.abandon();
        }
    }
}

impl<T> fmt::Debug for SelectRun<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelectRun").field("select", &self.select).finish_non_exhaustive()
    }
}
