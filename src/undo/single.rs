//! One action on its way, over all its attempts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::CompensationPolicy;
use super::action::BoxAttempt;
use super::column::LinkId;
use super::columns::Columns;
use super::given_up::{Asker, Elsewhere, Since};
use super::report::FailedAction;
use super::undoing::Undoing;
use crate::cancellation::Cancelled;
use crate::clock::Alarm;
use crate::diagnostics::{COUNTERS, trace};
use crate::error::Error;
use crate::panics;

/// What the attempts of a rollback go by.
pub(super) struct Terms {
    pub(super) policy: CompensationPolicy,
    pub(super) undoing: Undoing,
}

impl Terms {
    /// Which actions that are not `Send` the rollback was given.
    fn link(&self) -> Option<LinkId> {
        self.undoing.desk.as_ref().map(|desk| desk.link_id())
    }

    /// The rollback as one that asks what it is to run.
    pub(super) fn asker(&self, id: u64) -> Asker {
        Asker { id, link: self.link() }
    }
}

/// Runs actions that were taken out of a scope, the last one first. An action stays among those
/// taken while it runs, so that it can go back.
pub(super) struct Single {
    terms: Arc<Terms>,
    /// The rollback whose terms these are.
    pub(super) owner: u64,
    /// The wait for its token: another rollback may be the one that is polled.
    cancelled: Option<Cancelled>,
    pub(super) taken: Columns,
    /// Since which rollback it is to be run again, and its number, where others have given it up.
    again: Option<(Since, u64)>,
    /// The column whose last action is running.
    current: Option<usize>,
    attempt: Option<BoxAttempt>,
    /// When the attempt has taken too long.
    deadline: Option<Alarm>,
    /// When the next attempt begins.
    pause: Option<Alarm>,
    attempts: u32,
}

impl Single {
    pub(super) fn new(terms: &Arc<Terms>, owner: u64) -> Self {
        Self {
            terms: Arc::clone(terms),
            owner,
            cancelled: None,
            taken: Columns::default(),
            again: None,
            current: None,
            attempt: None,
            deadline: None,
            pause: None,
            attempts: 0,
        }
    }

    #[inline]
    pub(super) fn is_busy(&self) -> bool {
        self.current.is_some()
    }

    /// Turns to the last action of those taken.
    #[inline]
    pub(super) fn start(&mut self) {
        self.current = self.taken.find_last();
        self.attempts = 0;
    }

    /// Turns to the last action of those taken. `again`: since which rollback it is to be run again.
    pub(super) fn start_with(&mut self, taken: Columns, again: Option<Since>) {
        self.taken = taken;
        self.start();
        self.again = again.zip(self.current.map(|column| self.taken.number(column)));
    }

    /// Takes out what was taken and not started.
    pub(super) fn take_rest(&mut self) -> Columns {
        if self.taken.len() == usize::from(self.is_busy()) {
            return Columns::default();
        }
        let Some(column) = self.current else { return std::mem::take(&mut self.taken) };
        let mut running = Columns::default();
        self.taken.move_last(column, &mut running);
        self.current = running.find_last();
        std::mem::replace(&mut self.taken, running)
    }

    /// Stops in the middle.
    pub(super) fn abandon(&mut self) -> ActionEnd {
        panics::drop_each(self.attempt.take());
        panics::drop_each(self.deadline.take());
        panics::drop_each(self.pause.take());
        let (again, current) = (self.again.take(), self.current.take());
        let mut action = std::mem::take(&mut self.taken);
        match current {
            Some(column) if action.is_done(column) => {
                let number = action.number(column);
                panics::drop_contained(|| action.drop_last(column));
                ActionEnd::Undone(number)
            }
            _ => ActionEnd::Stopped { action, again: again.map(|(since, _)| since) },
        }
    }

    /// Polls the action that runs, and those after it as long as they are ready at once and
    /// `go_on`, which is asked whenever one has succeeded, says so. Returns what the last one that
    /// was polled came to.
    ///
    /// All of the user's code is contained, once for all actions that are ready.
    pub(super) fn poll_actions(
        &mut self,
        cx: &mut Context<'_>,
        mut go_on: impl FnMut(&Columns) -> bool,
    ) -> Poll<Result<(), Box<ActionEnd>>> {
        loop {
            if self.pause.is_some() {
                match self.poll_pause(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(self.give_up(error)),
                    Poll::Pending => return self.poll_cancelled(cx),
                }
            }
            let mut result = Poll::Pending;
            let contained = panics::contain(|| {
                loop {
                    self.poll_attempt(cx, &mut result);
                    let ended = matches!(result, Poll::Ready(Ok(()))) && self.again.is_none();
                    if !ended || !go_on(&self.taken) {
                        break;
                    }
                    result = Poll::Pending;
                    self.start();
                }
            });
            if let Err(message) = contained {
                self.after_panic(&mut result, &message);
                if matches!(result, Poll::Ready(Ok(()))) && self.again.is_none() {
                    go_on(&self.taken);
                }
            }
            let error = match result {
                Poll::Ready(Ok(())) => {
                    let again = self.again.take();
                    return Poll::Ready(
                        again.map_or(Ok(()), |(_, n)| Err(ActionEnd::Undone(n).into())),
                    );
                }
                Poll::Ready(Err(error)) => error,
                Poll::Pending => return self.poll_cancelled(cx),
            };
            if let Some(failed) = self.pause_or_give_up(error) {
                return Poll::Ready(Err(failed));
            }
            if self.pause.is_none() {
                // Between attempts that do not wait, others get their turn.
                panics::drop_contained(|| cx.waker().wake_by_ref());
                return Poll::Pending;
            }
        }
    }

    /// An attempt that waits is stopped by the token of its rollback, whichever one is polled.
    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<ActionEnd>>> {
        let token = &self.terms.undoing.token;
        if !token.is_linked() {
            return Poll::Pending;
        }
        let cancelled = self.cancelled.get_or_insert_with(|| token.cancelled());
        ready!(Pin::new(cancelled).poll(cx));
        // What was not started is not stopped.
        let mut rest = self.take_rest();
        let stopped = self.abandon();
        self.taken.append(&mut rest);
        Poll::Ready(Err(stopped.into()))
    }

    /// What becomes of an attempt that failed: a pause, another attempt at once, or the end.
    #[cold]
    fn pause_or_give_up(&mut self, error: Error) -> Option<Box<ActionEnd>> {
        let wait = self.terms.policy.retry.wait_after_error(self.attempts, &error);
        // What it was not given, it cannot run the next time either.
        let Some(wait) = wait.filter(|_| self.elsewhere().is_none()) else {
            return self.give_up(error).err();
        };
        if wait.is_zero() {
            return None;
        }
        let clock = &self.terms.undoing.clock;
        let pause = panics::contain(|| Alarm::after(clock, wait));
        match pause.unwrap_or_else(|message| Err(Error::panic("the clock", &message))) {
            Ok(pause) => {
                self.pause = Some(pause);
                None
            }
            // A clock that cannot wait: there is no further attempt.
            Err(missing) => self.give_up(error.with_related([missing])).err(),
        }
    }

    /// Waits until the next attempt is due.
    #[cold]
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let pause = &mut self.pause;
        let polled =
            panics::contain(|| pause.as_mut().map_or(Poll::Ready(()), |pause| pause.poll(cx)));
        if let Ok(Poll::Pending) = polled {
            return Poll::Pending;
        }
        panics::drop_each(self.pause.take());
        Poll::Ready(polled.map(drop).map_err(|message| Error::panic("the clock", &message)))
    }

    /// Where the action that runs lives, if its rollback was not given that.
    fn elsewhere(&self) -> Option<LinkId> {
        let link = self.taken.lives_in(self.current?)?;
        (self.terms.link() != Some(link)).then_some(link)
    }

    #[cold]
    fn give_up(&mut self, error: Error) -> Result<(), Box<ActionEnd>> {
        let home = self.elsewhere();
        let Some(column) = self.current.take() else { return Ok(()) };
        let number = self.taken.number(column);
        let (label, registered_at) = self.taken.describe(column);
        panics::drop_contained(|| {
            trace::compensated(|| (label.clone(), registered_at), self.attempts, Some(&error));
        });
        let mut action = Columns::default();
        self.taken.move_last(column, &mut action);
        let (again, attempts) = (self.again.take(), self.attempts);
        let elsewhere = home.map(|link| Elsewhere::new(link, again.map(|(since, _)| since)));
        let failure = FailedAction { number, label, registered_at, attempts, error };
        Err(ActionEnd::Failed { action, failure, elsewhere }.into())
    }

    /// Polls the attempt that runs, or the next one. The action is gone when it has succeeded. If
    /// the user's code panics, `result` is how far it had come.
    #[inline]
    fn poll_attempt(&mut self, cx: &mut Context<'_>, result: &mut Poll<Result<(), Error>>) {
        let Self { taken, current, attempt, attempts, terms, deadline, .. } = self;
        let Some(column) = *current else { return };
        if attempt.is_none() {
            *attempts += 1;
            if let Some(timeout) = terms.policy.attempt_timeout {
                match Alarm::after(&terms.undoing.clock, timeout) {
                    Ok(alarm) => *deadline = Some(alarm),
                    Err(missing) => return *result = Poll::Ready(Err(missing)),
                }
            }
        }
        let running = attempt.get_or_insert_with(|| taken.attempt(column, &terms.undoing));
        *result = running.as_mut().poll(cx);
        if result.is_pending() {
            let Some(alarm) = deadline else { return };
            if alarm.poll(cx).is_pending() {
                return;
            }
            let timeout = terms.policy.attempt_timeout.unwrap_or_default();
            *result = Poll::Ready(Err(Error::timeout("the compensation", timeout)));
        }
        *deadline = None;
        *attempt = None;
        if let Poll::Ready(Ok(())) = result {
            trace::compensated(|| taken.describe(column), *attempts, None);
            *current = None;
            taken.drop_last(column);
        }
    }

    #[cold]
    fn after_panic(&mut self, result: &mut Poll<Result<(), Error>>, message: &str) {
        panics::drop_each(self.attempt.take());
        panics::drop_each(self.deadline.take());
        if result.is_pending() {
            *result = Poll::Ready(Err(Error::panic("the compensation", message)));
            return;
        }
        // It had done its work: a destructor that panics afterwards does not undo that.
        COUNTERS.contained_panics.add(1);
        if !matches!(result, Poll::Ready(Ok(()))) {
            return;
        }
        if let Some(column) = self.current.take() {
            panics::drop_contained(|| {
                trace::compensated(|| self.taken.describe(column), self.attempts, None);
            });
            panics::drop_contained(|| self.taken.drop_last(column));
        }
    }
}

/// How an action has ended, unless it has just succeeded.
pub(super) enum ActionEnd {
    /// It failed for good. `elsewhere`: because its rollback was not given
    /// the value it lives in.
    Failed { action: Columns, failure: FailedAction, elsewhere: Option<Elsewhere> },
    /// It is to be staged again, for rollbacks since one of them where the others have given it up.
    Stopped { action: Columns, again: Option<Since> },
    /// It succeeded, with its number, after others had given it up, or just before it was stopped.
    Undone(u64),
}

/// One action, until it has succeeded, and is gone, or failed for good.
impl Future for Single {
    type Output = Result<(), Box<ActionEnd>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_actions(cx, |_| false)
    }
}
