//! A drain between its first poll and its result.
//!
//! At the start of each poll, and whenever a bank says that there is something to see, it looks for
//! a reason to end: a failure, its token, its deadline. Once there is one, no further message is
//! taken, the handlers' token is cancelled, and what is in flight is polled on until it is done or
//! the grace has passed. A shutdown takes no further message either, and lets what runs finish.
//!
//! A bank leaves what the drain has to know in one word (`news`), so that a poll in which nothing
//! of that happens does not touch the state.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures::stream::{SelectAll, Stream};

use super::bank::Bank;
use super::progress::Progress;
use super::report::Warning;
use super::slots::Paced;
use super::state::{DrainPhase, EMPTY, GO_ON, LOOK, QUIET, SPENT, Shared, State};
use super::types::{DrainTypes, Drains};
use super::upkeep::Desks;
use crate::cancellation::{CancellationSource, CancellationToken, Cancelled};
use crate::clock::{Alarm, Tick};
use crate::diagnostics::trace::DrainSpan;
use crate::error::{Error, ErrorCode};
use crate::operation::{Exceeded, Limits};
use crate::panics;
use crate::source::Receipt;

/// A drain between its first poll and its result.
pub(super) struct RunningDrain<C: DrainTypes> {
    pub(super) banks: SelectAll<Box<Bank<C>>>,
    /// Where further sources come from, until it has ended.
    pub(super) incoming: Option<Pin<Box<C::Incoming>>>,
    pub(super) shared: Arc<Shared<C>>,
    /// What ends the drain from outside.
    pub(super) limits: Limits,
    pub(super) shutdown: Option<Cancelled>,
    pub(super) handlers: CancellationSource,
    pub(super) started: Tick,
    pub(super) span: DrainSpan,
    /// Why the drain ends early, and how long it still waits.
    pub(super) cause: Option<Error>,
    pub(super) grace: Option<Alarm>,
    /// How long a shutdown may take.
    pub(super) finish: Option<Alarm>,
    /// Where attempts are limited: when there is room for those who wait.
    pub(super) pace: Option<Alarm>,
    /// Further sources wait outside, because too many wait for their first turn.
    pub(super) crowded: bool,
    /// Sources that came, for their names.
    pub(super) sources: usize,
    pub(super) warnings: Vec<Warning>,
    pub(super) progress: Option<Progress>,
    /// Something is wrong with what the drain was given: nothing is taken.
    pub(super) invalid: Option<Error>,
    pub(super) first: bool,
    /// How it ends when its future is dropped.
    pub(super) drop_early: fn(Box<Self>),
    /// A shutdown has begun.
    pub(super) finishing: bool,
    pub(super) transports: Desks,
}

impl<C: Drains> RunningDrain<C> {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if C::Receipt::SETTLES { self.poll_settling(cx) } else { self.poll_messages(cx) }
    }

    /// Until nothing is taken any more, and nothing is in flight.
    pub(super) fn poll_messages(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // Asked at the start, for messages; decided when handlers have had their chance to end.
        let mut exceeded = self.limits.exceeded();
        if self.first {
            if let Some(Exceeded::Cancelled(error)) = &exceeded {
                self.stop(error.clone())?;
            } else if let Some(error) = self.invalid.take() {
                self.stop(error)?;
            }
        }
        if self.incoming.is_some() {
            self.accept(cx)?;
            if let Some(error) = self.invalid.take() {
                self.stop(error)?;
            }
        }
        // What comes with the first poll is there from the start.
        self.first = false;
        self.shared.hold.store(exceeded.is_some(), Ordering::Relaxed);
        self.shared.fresh.store(true, Ordering::Relaxed);
        loop {
            let mut news = self.poll_banks(cx);
            if let Poll::Ready(result) = self.has_ended(news) {
                return Poll::Ready(result);
            }
            if self.cause.is_none() {
                if let Some(error) = self.find_cause(news, exceeded.take())? {
                    self.stop(error)?;
                    // Whoever was told so meanwhile is polled before anything is waited for.
                    news = self.shared.news() | GO_ON;
                } else if self.is_told_to_finish() {
                    self.begin_to_finish()?;
                    news = self.shared.news() | GO_ON;
                }
                if let Poll::Ready(result) = self.has_ended(news) {
                    return Poll::Ready(result);
                }
            }
            if news & SPENT != 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if news & (LOOK | GO_ON) != 0 {
                continue;
            }
            if self.has_room_again()? {
                self.accept(cx)?;
                if let Some(error) = self.invalid.take() {
                    self.stop(error)?;
                }
                continue;
            }
            if self.cause.is_none() && self.is_idle(news)? {
                if !self.give_out() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if self.poll_waits(cx)?.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Drives the banks until one has something to tell, or none has anything to do.
    #[inline]
    fn poll_banks(&mut self, cx: &mut Context<'_>) -> u8 {
        let shared = &self.shared;
        shared.set_news(shared.news() & !(SPENT | GO_ON | LOOK));
        let polled = Pin::new(&mut self.banks).poll_next(cx);
        let news = self.shared.news();
        // A bank that gives its turn up with nothing to tell lets the next one go on.
        if polled == Poll::Ready(Some(())) && news & SPENT == 0 { news | LOOK } else { news }
    }

    /// Whether there is nothing left to wait for.
    #[inline]
    fn has_ended(&self, news: u8) -> Poll<Result<(), Error>> {
        if news & QUIET == 0 {
            return Poll::Pending;
        }
        if let Some(cause) = &self.cause {
            return Poll::Ready(Err(cause.clone()));
        }
        let drained = news & EMPTY != 0 && self.incoming.is_none();
        if news & LOOK == 0 && (drained || self.finishing) {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// For the drain, between two turns.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut State<C>) -> T) -> Result<T, Error> {
        let mut state = self.shared.take().ok_or_else(state_is_gone)?;
        let seen = look(&mut state);
        self.shared.tell(&state);
        self.shared.put(state);
        Ok(seen)
    }

    /// A reason to end: cancellation goes before a failure, and that before the deadline.
    fn find_cause(&self, news: u8, exceeded: Option<Exceeded>) -> Result<Option<Error>, Error> {
        // Asked again: a handler may have cancelled the drain in the poll in which its time was over.
        let exceeded = self.limits.exceeded().or(exceeded);
        if let Some(Exceeded::Cancelled(error)) = exceeded {
            return Ok(Some(error));
        }
        if news & LOOK != 0 {
            let failure = self.look(|state| {
                state.look = false;
                let failures = &mut state.failures.first;
                (!failures.is_empty()).then(|| failures.remove(0))
            })?;
            if failure.is_some() {
                return Ok(failure);
            }
        }
        Ok(exceeded.map(|exceeded| exceeded.into_error("the drain")))
    }

    fn is_told_to_finish(&self) -> bool {
        let shutdown = self.shared.settings.shutdown.as_ref();
        !self.finishing && shutdown.is_some_and(CancellationToken::is_cancelled)
    }

    /// Waits for what ends the drain from outside, and for its timers. Ready: there is something to
    /// do.
    fn poll_waits(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Error> {
        if self.cause.is_some() {
            let Some(grace) = &mut self.grace else { return Ok(Poll::Ready(())) };
            if grace.poll(cx).is_ready() {
                return self.give_up_waiting();
            }
            return Ok(Poll::Pending);
        }
        if self.limits.poll_exceeded(cx).is_ready() {
            return Ok(Poll::Ready(()));
        }
        if let Some(shutdown) = &mut self.shutdown {
            if Pin::new(shutdown).poll(cx).is_ready() {
                self.shutdown = None;
                return Ok(Poll::Ready(()));
            }
        }
        if let Some(finish) = &mut self.finish {
            if finish.poll(cx).is_ready() {
                self.finish = None;
                let within = self.shared.settings.finish_within.unwrap_or_default();
                self.stop(Error::timeout("the shutdown of the drain", within))?;
                return Ok(Poll::Ready(()));
            }
        }
        self.poll_pace(cx)
    }

    /// Where attempts are limited: lets those go on for whom there is room.
    fn poll_pace(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Error> {
        if self.shared.settings.rate.is_none() {
            return Ok(Poll::Pending);
        }
        let now = self.shared.now();
        let next = match self.look(|state| state.slots.pace(now))? {
            Paced::Now(first) => {
                self.look(|state| state.banks.notify(first))?;
                return Ok(Poll::Ready(()));
            }
            Paced::Until(next) => next,
            Paced::Nothing => return Ok(Poll::Pending),
        };
        if self.pace.as_ref().is_none_or(|pace| pace.tick() != next) {
            self.pace = Some(Alarm::at(self.shared.context.clock(), next));
        }
        let Some(pace) = &mut self.pace else { return Ok(Poll::Pending) };
        Ok(pace.poll(cx))
    }

    /// The grace is over.
    fn give_up_waiting(&mut self) -> Result<Poll<()>, Error> {
        let banks = self.banks.iter_mut();
        let mut state = self.shared.take().ok_or_else(state_is_gone)?;
        for bank in banks {
            bank.abandon(&mut state);
        }
        self.shared.tell(&state);
        self.shared.put(state);
        Ok(Poll::Ready(()))
    }

    /// No further message is taken, and what is in flight is told to stop.
    fn stop(&mut self, cause: Error) -> Result<(), Error> {
        self.cause = Some(cause);
        let in_flight = self.look(|state| {
            state.phase = DrainPhase::Stopping;
            state.let_kept_go();
            state.accounts.total.in_flight
        })?;
        self.handlers.cancel();
        self.refuse_sources();
        self.stop_fetching();
        self.give_back_held()?;
        if in_flight > 0 {
            let shared = &self.shared;
            self.grace = Some(Alarm::grace(shared.context.clock(), shared.settings.grace));
        }
        Ok(())
    }

    /// No further message is taken; what is in flight is finished.
    fn begin_to_finish(&mut self) -> Result<(), Error> {
        self.finishing = true;
        self.look(|state| {
            state.phase = DrainPhase::Finishing;
            state.let_kept_go();
        })?;
        self.refuse_sources();
        self.stop_fetching();
        self.give_back_held()?;
        if let Some(within) = self.shared.settings.finish_within {
            self.finish = Some(Alarm::grace(self.shared.context.clock(), within));
        }
        Ok(())
    }

    /// What is held or waits goes back at once, however long the handlers take that run.
    fn give_back_held(&mut self) -> Result<(), Error> {
        let mut state = self.shared.take().ok_or_else(state_is_gone)?;
        self.banks.iter_mut().for_each(|bank| bank.give_back_held(&mut state));
        self.shared.tell(&state);
        self.shared.put(state);
        Ok(())
    }

    /// Whoever adds a source from now on has it back at once.
    pub(super) fn refuse_sources(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            if let Err(message) = panics::contain(|| drop(incoming)) {
                let error = Error::panic("a destructor", &message);
                let _ = self.look(|state| state.fail(error));
            }
        }
        let arrivals = self.look(|state| state.banks.take_arrivals());
        panics::drop_each(arrivals.into_iter().flatten());
    }

    /// Whether the drain is to end because nothing is going on.
    fn is_idle(&self, news: u8) -> Result<bool, Error> {
        if !self.shared.settings.until_idle || news & QUIET == 0 {
            return Ok(false);
        }
        if !self.transports_are_idle() {
            return Ok(false);
        }
        let roused = self.shared.roused.load(Ordering::Acquire);
        self.look(|state| {
            roused == 0
                && state.accounts.total.waiting == 0
                && state.paced == 0
                && state.paused == 0
                && state.slots.queue.is_empty()
                && state.banks.are_idle()
        })
    }

    /// Has every open window given out. Returns whether there was one.
    fn give_out(&mut self) -> bool {
        let mut any = false;
        for bank in &mut self.banks {
            any |= bank.give_out();
        }
        any
    }
}

/// What is said of a drain that is polled after its result.
pub(super) fn state_is_gone() -> Error {
    Error::new(ErrorCode::Unspecified, "the drain had ended already")
}
