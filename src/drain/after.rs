//! What becomes of a message that has failed, or is to come later: it is undone, and then has
//! another attempt, goes to the dead letters, or has only failed.

use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use super::lane::WaitingMessage;
use super::letters::{DeadLetters, Letter};
use super::settling::{Gone, is_lost, settle_failed};
use super::slot::{Job, Slot, SlotEnded, Work};
use super::state::{Info, State};
use super::storing::Storing;
use super::types::{DrainTypes, Drains};
use super::undos::{UndoWith, Undone};
use crate::clock::Tick;
use crate::error::Error;
use crate::panics;
use crate::settlement::{Delivered, Verdict};
use crate::source::Receipt;
use crate::step::Polls;
use crate::undo::RollbackReport;

/// What goes on in a slot whose handler has ended.
pub(super) enum After<C: DrainTypes> {
    Undo {
        rollback: C::Rollback,
        then: Then,
    },
    Letter {
        letter: Storing<C>,
        /// Nothing of the message is left to be undone.
        undone: bool,
    },
    /// Too many wait: the message waits for its next attempt here.
    Kept {
        until: Tick,
    },
}

/// What comes when a message has been undone.
pub(super) enum Then {
    /// Another attempt after so long; the failure of the last one, if it was one.
    Again(Duration, Option<Error>),
    /// No further attempt. One that was interrupted is no dead letter.
    GiveUp { error: Error, interrupted: bool },
    /// The message is no longer ours.
    Lost,
}

impl<C: Drains> Slot<C> {
    /// Begins to undo what the message did.
    pub(super) fn undo(
        mut self: Pin<&mut Self>,
        then: Then,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        let this = self.as_mut().project();
        *this.deadline = Tick::MAX;
        let Some(lent) = this.step.as_mut().filter(|lent| lent.is_touched()) else {
            return self.undone(Ok(RollbackReport::default()), then, work);
        };
        let clock = work.shared.context.clock();
        let rollback = work.state.undos.roll_back(lent.scope(), &work.shared.policy, clock);
        *this.after = Some(Box::new(After::Undo { rollback, then }));
        self.poll_after(work)
    }

    /// Goes on with what comes after the handler.
    pub(super) fn poll_after(
        mut self: Pin<&mut Self>,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        let this = self.as_mut().project();
        match this.after.as_deref_mut() {
            Some(After::Undo { rollback, .. }) => {
                let rollback = Pin::new(rollback);
                let polls = Polls::of(work.info.origin.id);
                let undone = ready!(this.span.in_scope(|| rollback.poll(work.cx)));
                drop(polls);
                match this.after.take().map(|after| *after) {
                    Some(After::Undo { rollback, then }) => {
                        drop(rollback);
                        self.undone(undone, then, work)
                    }
                    _ => Poll::Ready(SlotEnded::Booked),
                }
            }
            Some(After::Letter { letter, .. }) => {
                let polls = Polls::of(work.info.origin.id);
                let polled = this.span.in_scope(|| letter.poll(work.cx));
                drop(polls);
                match polled {
                    Poll::Ready(stored) => self.stored(stored, work),
                    Poll::Pending if work.shared.now() < *this.deadline => Poll::Pending,
                    Poll::Pending => self.letter_failed(work.shared.settings.late_letter(), work),
                }
            }
            Some(After::Kept { .. }) | None => Poll::Pending,
        }
    }

    /// The message has been undone, as far as that could be done.
    fn undone(
        mut self: Pin<&mut Self>,
        undone: Undone,
        then: Then,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        let this = self.as_mut().project();
        let stays = undone.is_err() || work.shared.policy.runs_nothing();
        if let Some(lent) = this.step.as_mut().filter(|_| stays) {
            // It stays staged, whatever becomes of the drain.
            lent.hand_over_to_context();
        }
        if this.step.as_mut().is_some_and(|lent| !lent.is_home()) {
            self.as_mut().let_go(false);
        }
        let this = self.as_mut().project();
        let (error, interrupted) = match (then, &undone) {
            (Then::Again(_, error), Ok(_)) if this.job.as_ref().is_some_and(Job::is_by_hand) => {
                this.span.end(error.as_ref().map_or(Ok(()), Err));
                return Poll::Ready(self.settled_meanwhile(work));
            }
            (Then::Again(wait, _), Ok(_)) => {
                // Before the message leaves: the clock may panic.
                let until = work.shared.now() + wait;
                let Some(job) = this.job.take() else { return Poll::Ready(SlotEnded::Booked) };
                *this.booked = false;
                return Poll::Ready(SlotEnded::Waits(Box::new(WaitingMessage { job, until })));
            }
            // What cannot be undone cannot be done again.
            (Then::Again(_, Some(error)), Err(_)) => (error, false),
            (Then::Again(_, None), Err(failure)) => (failure.error().clone(), false),
            (Then::GiveUp { error, interrupted }, _) => (error, interrupted),
            (Then::Lost, Ok(_)) => return self.lost_and_undone(work),
            (Then::Lost, Err(failure)) => {
                self.as_mut().forget_loss(work.state);
                (failure.error().clone(), false)
            }
        };
        self.give_up(error, interrupted, undone, work)
    }

    /// The message has no further attempt.
    fn give_up(
        mut self: Pin<&mut Self>,
        mut error: Error,
        interrupted: bool,
        undone: Undone,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        let this = self.as_mut().project();
        let Some(job) = this.job else { return Poll::Ready(SlotEnded::Booked) };
        let goes_on = work.shared.settings.goes_on() && !interrupted;
        // One of which nothing is left is not rejected: it comes again.
        let is_empty = job.message.is_none() && this.raw.is_none();
        let has_nothing = C::Letters::GIVEN && is_empty && job.receipt.delivered().is_some();
        if goes_on && C::Letters::GIVEN && undone.is_ok() && is_lost(Some(job)) {
            // It comes again, to us or to others, and is theirs to be given up.
            return self.lost_and_undone(work);
        }
        // What is neither done nor undone has a letter also where the drain ends.
        let is_stuck = undone.is_err() && job.receipt.delivered().is_some();
        if !(C::Letters::GIVEN && (goes_on || is_stuck)) || has_nothing {
            let is_undone = undone.is_ok();
            if let Err(failure) = undone {
                error = error.with_related([failure.into_error()]);
            }
            this.span.end(Err(&error));
            let is_message = this.raw.take().is_none();
            let settled =
                settle_failed(job, &error, is_undone, interrupted, is_message, work.shared);
            // What a shutdown interrupts is given back, and comes again.
            let stays = work.shared.settings.goes_on() && !work.shared.outer.is_cancelled();
            let is_settled = stays && settled != Gone::Nowhere || settled == Gone::Aside;
            if !is_settled || has_nothing {
                work.state.fail(error);
            }
            return Poll::Ready(self.failed(work));
        }
        let message = match (&job.message, work.shared.clone) {
            (Some(message), Some(clone)) => panics::contain(|| clone(message)).ok(),
            _ => None,
        };
        let (number, attempts) = (job.number, job.begun);
        let source = work.info.origin.clone();
        let (raw, is_undone) = (this.raw.take(), undone.is_ok());
        let deliveries = job.receipt.delivered().map(Delivered::facts).unwrap_or_default();
        let rollback = undone;
        let letter = Letter { message, raw, deliveries, error, source, number, attempts, rollback };
        *this.deadline = work.shared.now() + work.shared.settings.letter_timeout();
        match Storing::begin(&mut work.state.letters, letter) {
            Ok(letter) => {
                *this.after = Some(Box::new(After::Letter { letter, undone: is_undone }));
                self.poll_after(work)
            }
            Err(error) => self.hand_back(error, is_undone, work),
        }
    }

    /// A letter was stored, or the user's function says that it was not.
    fn stored(
        mut self: Pin<&mut Self>,
        result: Result<(), Error>,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        if let Err(error) = result {
            return self.letter_failed(error, work);
        }
        let this = self.as_mut().project();
        if let Some(After::Letter { letter, .. }) = this.after.take().map(|after| *after) {
            let error = letter.into_error();
            this.span.end(Err(&error));
            if !work.shared.settings.goes_on() {
                work.state.fail(error.clone());
            }
            if let Some(job) = this.job.as_mut().filter(|_| C::Receipt::SETTLES) {
                job.settle(&Verdict::Reject { error });
            }
        }
        Poll::Ready(self.failed(work))
    }

    /// A letter could not be stored: the drain ends with both errors.
    pub(super) fn letter_failed(
        mut self: Pin<&mut Self>,
        failed: Error,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        let after = self.as_mut().project().after.take().map(|after| *after);
        match after {
            Some(After::Letter { letter, undone }) => {
                self.hand_back(letter.into_error().with_related([failed]), undone, work)
            }
            Some(after) => {
                // A panic that is not the letter's: the drain's own, or that of a clock.
                if let After::Kept { .. } = after {
                    work.state.accounts.free_permit();
                }
                panics::drop_contained(|| drop(after));
                work.state.fail(failed);
                Poll::Ready(self.failed(work))
            }
            None => self.hand_back(failed, false, work),
        }
    }

    /// Ends the drain with the failure of a message that nobody has taken in.
    fn hand_back(
        mut self: Pin<&mut Self>,
        error: Error,
        undone: bool,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        let this = self.as_mut().project();
        this.span.end(Err(&error));
        *this.booked = false;
        *this.deadline = Tick::MAX;
        work.state.fail(error);
        if let Some(mut job) = this.job.take() {
            if !undone {
                // What is not undone is not released.
                panics::drop_each([std::mem::take(&mut job.receipt)]);
            }
            work.state.give_back_in_flight(work.info, job);
        }
        Poll::Ready(SlotEnded::Booked)
    }

    /// Books a message that has failed.
    pub(super) fn failed(mut self: Pin<&mut Self>, work: &mut Work<'_, '_, C>) -> SlotEnded<C> {
        let this = self.as_mut().project();
        let job = this.job.take();
        *this.booked = false;
        *this.deadline = Tick::MAX;
        work.state.accounts.change(work.info.row, |n| {
            n.in_flight -= 1;
            n.failed += 1;
        });
        panics::drop_contained(|| drop(job));
        SlotEnded::Booked
    }

    /// Lets a message wait here, because too many wait already.
    pub(super) fn keep(self: Pin<&mut Self>, job: Job<C>, until: Tick, state: &mut State<C>) {
        let this = self.project();
        state.accounts.keep_permit();
        *this.job = Some(job);
        *this.booked = true;
        *this.deadline = until;
        *this.after = Some(Box::new(After::Kept { until }));
    }

    /// When the message that waits here has its next attempt.
    pub(super) fn kept_until(&self) -> Option<Tick> {
        match self.after.as_deref() {
            Some(After::Kept { until }) => Some(*until),
            _ => None,
        }
    }

    /// Whether the transport of the message that waits here wants it back.
    pub(super) fn is_asked_back(&self) -> bool {
        self.job.as_ref().is_some_and(Job::is_asked_back)
    }

    /// Takes out the message that waits here.
    pub(super) fn take_kept(self: Pin<&mut Self>, state: &mut State<C>) -> Option<Job<C>> {
        let this = self.project();
        this.after.take_if(|after| matches!(**after, After::Kept { .. }))?;
        state.accounts.free_permit();
        *this.booked = false;
        *this.deadline = Tick::MAX;
        this.job.take()
    }
}

impl<C: Drains> After<C> {
    /// The drain ends before this has.
    pub(super) fn abandon(self, job: Job<C>, info: &Info, state: &mut State<C>) {
        match self {
            Self::Undo { rollback, then } => {
                state.accounts.dropped.rollbacks += 1;
                // It puts back what it was running.
                panics::drop_contained(|| drop(rollback));
                let failure = match then {
                    Then::Again(_, failure) => failure,
                    Then::GiveUp { error, .. } => Some(error),
                    Then::Lost => None,
                };
                let has_failed = failure.is_some();
                state.accounts.change(info.row, |n| {
                    n.in_flight -= 1;
                    *(if has_failed { &mut n.failed } else { &mut n.unfinished }) += 1;
                });
                if let Some(error) = failure {
                    state.fail(error);
                }
                panics::drop_contained(|| drop(job));
            }
            Self::Letter { letter, .. } => {
                state.accounts.dropped.letters += 1;
                state.fail(letter.into_error());
                state.give_back_in_flight(info, job);
            }
            Self::Kept { .. } => {
                state.accounts.free_permit();
                state.give_back_in_flight(info, job);
            }
        }
    }
}
