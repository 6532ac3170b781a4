//! An attempt at an action that is not `Send`, between the run of its scope, which may be polled on
//! any thread, and the value that the action lives in.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use futures::future::LocalBoxFuture;

use super::action::BoxAttempt;
use super::column;
use super::undoing::Undoing;
use crate::error::{Error, ErrorCode};
use crate::lock::Lock;
use crate::panics;

/// How places reach the value that their actions live in, from any thread.
#[derive(Default)]
pub(super) struct Link {
    pub(super) asked: Lock<Asked>,
}

#[derive(Default)]
pub(super) struct Asked {
    /// Attempts that are to be started.
    pub(super) starts: Vec<(u64, Arc<Ticket>)>,
    /// Actions whose places have gone away.
    pub(super) gone: Vec<u64>,
    /// The rollback that runs the actions, while it waits.
    pub(super) waker: Option<Waker>,
    /// The value has gone away, and its actions were told to be lost.
    pub(super) is_lost: bool,
}

/// One attempt, between the run of the scope, which waits for it, and the rollback that runs it.
pub(super) struct Ticket {
    state: Lock<TicketState>,
    /// Set with success, which may come when nobody waits for it any more.
    pub(super) done: Arc<AtomicBool>,
}

#[derive(Default)]
pub(super) struct TicketState {
    result: Option<Result<(), Error>>,
    /// Nobody waits for the result any more.
    dropped: bool,
    waiting: Option<Waker>,
    running: Option<Waker>,
}

/// What a scope holds of an action that lives in a [`LocalUndos`].
pub(super) struct Place {
    pub(super) link: Arc<Link>,
    pub(super) key: u64,
    pub(super) label: Option<String>,
    /// It has succeeded, whoever was told.
    pub(super) done: Arc<AtomicBool>,
}

impl column::Stored for Place {
    fn attempt(&mut self, undoing: &Undoing) -> BoxAttempt {
        if self.done.load(Ordering::Acquire) {
            return Box::pin(std::future::ready(Ok(())));
        }
        let given = undoing.local.as_ref().is_some_and(|link| Arc::ptr_eq(link, &self.link));
        let done = Arc::clone(&self.done);
        let ticket = given.then(|| Arc::new(Ticket { state: Lock::default(), done }));
        Box::pin(PlaceAttempt { link: Arc::clone(&self.link), key: self.key, ticket, asked: false })
    }

    fn label(&self) -> Option<String> {
        self.label.clone()
    }

    fn is_lost(&self) -> bool {
        self.link.asked.lock().is_lost
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.link.asked.lock().gone.push(self.key);
    }
}

/// Waits for the rollback that was given the action.
pub(super) struct PlaceAttempt {
    pub(super) link: Arc<Link>,
    pub(super) key: u64,
    /// None where the rollback was not.
    pub(super) ticket: Option<Arc<Ticket>>,
    pub(super) asked: bool,
}

impl Future for PlaceAttempt {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticket) = self.ticket.clone() else {
            let message = "the rollback was not given the LocalUndos that this action lives in";
            return Poll::Ready(Err(Error::new(ErrorCode::Compensation, message)));
        };
        let waker = cx.waker().clone();
        let (result, old) = {
            let mut state = ticket.state.lock();
            match state.result.take() {
                Some(result) => (Some(result), state.waiting.take()),
                None => (None, state.waiting.replace(waker)),
            }
        };
        drop(old);
        if let Some(result) = result {
            self.ticket = None;
            return Poll::Ready(result);
        }
        if !std::mem::replace(&mut self.asked, true) {
            let woken = {
                let mut asked = self.link.asked.lock();
                asked.starts.push((self.key, ticket));
                asked.waker.take()
            };
            panics::wake_each(woken);
        }
        Poll::Pending
    }
}

/// Whoever runs the attempt is to drop it.
impl Drop for PlaceAttempt {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let (old, running) = {
            let mut state = ticket.state.lock();
            state.dropped = true;
            (state.waiting.take(), state.running.take())
        };
        panics::drop_each(old);
        panics::wake_each(running);
    }
}

/// An attempt at an action where it lives.
pub(super) struct LocalAttempt {
    pub(super) ticket: Arc<Ticket>,
    pub(super) attempt: Option<LocalBoxFuture<'static, Result<(), Error>>>,
}

impl Future for LocalAttempt {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let (dropped, old) = {
            let mut state = self.ticket.state.lock();
            (state.dropped, state.running.replace(waker))
        };
        panics::drop_each(old);
        let Some(attempt) = &mut self.attempt else { return Poll::Ready(()) };
        let result = if dropped {
            None
        } else {
            match panics::contain(|| attempt.as_mut().poll(cx)) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(result)) => Some(result),
                Err(message) => Some(Err(Error::panic("the compensation", &message))),
            }
        };
        panics::drop_each(self.attempt.take());
        let (waiting, running) = {
            let mut state = self.ticket.state.lock();
            self.ticket.done.fetch_or(matches!(result, Some(Ok(()))), Ordering::AcqRel);
            state.result = result;
            (state.waiting.take(), state.running.take())
        };
        panics::drop_each(running);
        panics::wake_each(waiting);
        Poll::Ready(())
    }
}

impl Drop for LocalAttempt {
    fn drop(&mut self) {
        panics::drop_each(self.attempt.take());
    }
}
