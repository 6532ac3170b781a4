//! An attempt at an action that is not `Send`, between the run of its scope, which may be polled on
//! any thread, and the rollback that was given the value it lives in.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use futures::channel::oneshot;
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
    /// Actions whose places have gone away.
    pub(super) gone: Lock<Vec<u64>>,
    /// The value has gone away, and its actions were told to be lost.
    pub(super) is_lost: AtomicBool,
}

/// Where a rollback that was given the value is asked for attempts.
pub(super) struct Desk {
    link: Arc<Link>,
    asked: Lock<Asked>,
}

#[derive(Default)]
struct Asked {
    asks: Vec<Ask>,
    /// The rollback, while it waits.
    waker: Option<Waker>,
}

/// An attempt that is to be started.
pub(super) struct Ask {
    pub(super) key: u64,
    /// Set with success, which may come when nobody waits for the answer any more.
    done: Arc<AtomicBool>,
    answer: oneshot::Sender<Result<(), Error>>,
}

impl Desk {
    pub(super) fn new(link: &Arc<Link>) -> Self {
        Self { link: Arc::clone(link), asked: Lock::default() }
    }

    fn ask(&self, ask: Ask) {
        let woken = {
            let mut asked = self.asked.lock();
            asked.asks.push(ask);
            asked.waker.take()
        };
        panics::wake_each(woken);
    }

    pub(super) fn take(&self) -> Vec<Ask> {
        std::mem::take(&mut self.asked.lock().asks)
    }

    /// Says whom to wake when something is asked for. Returns whether something is already.
    pub(super) fn wait(&self, waker: Option<Waker>) -> bool {
        let (old, asked) = {
            let mut asked = self.asked.lock();
            (std::mem::replace(&mut asked.waker, waker), !asked.asks.is_empty())
        };
        drop(old);
        asked
    }
}

/// What a scope holds of an action that lives in a [`LocalUndos`](super::LocalUndos).
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
        let desk = undoing.desk.as_ref().filter(|desk| Arc::ptr_eq(&desk.link, &self.link));
        let Some(desk) = desk else {
            let message = "the rollback was not given the LocalUndos that this action lives in";
            return Box::pin(std::future::ready(Err(Error::new(ErrorCode::Compensation, message))));
        };
        let (answer, answered) = oneshot::channel();
        desk.ask(Ask { key: self.key, done: Arc::clone(&self.done), answer });
        Box::pin(async { answered.await.unwrap_or_else(|_| Err(gone())) })
    }

    fn label(&self) -> Option<String> {
        self.label.clone()
    }

    fn is_lost(&self) -> bool {
        self.link.is_lost.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.link.gone.lock().push(self.key);
    }
}

pub(super) fn gone() -> Error {
    Error::new(ErrorCode::Compensation, "the LocalUndos that this action lives in is gone")
}

/// An attempt at an action where it lives.
pub(super) struct LocalAttempt {
    ask: Option<Ask>,
    attempt: Option<LocalBoxFuture<'static, Result<(), Error>>>,
}

impl LocalAttempt {
    pub(super) fn new(ask: Ask, attempt: LocalBoxFuture<'static, Result<(), Error>>) -> Self {
        Self { ask: Some(ask), attempt: Some(attempt) }
    }
}

impl Future for LocalAttempt {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { ask, attempt } = &mut *self;
        let (Some(asked), Some(running)) = (&mut *ask, &mut *attempt) else {
            return Poll::Ready(());
        };
        // Where nobody waits for the answer any more, the attempt is dropped.
        let result = if asked.answer.poll_canceled(cx).is_ready() {
            None
        } else {
            match panics::contain(|| running.as_mut().poll(cx)) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(result)) => Some(result),
                Err(message) => Some(Err(Error::panic("the compensation", &message))),
            }
        };
        panics::drop_each(attempt.take());
        if let (Some(result), Some(Ask { done, answer, .. })) = (result, ask.take()) {
            done.fetch_or(result.is_ok(), Ordering::AcqRel);
            panics::drop_contained(|| drop(answer.send(result)));
        }
        Poll::Ready(())
    }
}

impl Drop for LocalAttempt {
    fn drop(&mut self) {
        panics::drop_each(self.attempt.take());
        panics::drop_each(self.ask.take());
    }
}
