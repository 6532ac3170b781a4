//! An attempt at an action that is not `Send`, between the run of its scope, which may be polled on
//! any thread, and the rollback that was given the value it lives in.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};

use futures::channel::oneshot;
use futures::future::LocalBoxFuture;

use super::action::BoxAttempt;
use super::column::{self, LinkId};
use super::reservation::{Armed, Reservation};
use super::undoing::Undoing;
use crate::error::{Error, ErrorCode};
use crate::lock::Lock;
use crate::panics;

/// How places reach the value that their actions live in, from any thread.
#[derive(Default)]
pub(super) struct LocalLink {
    /// Actions whose places have gone away.
    pub(super) gone: Lock<Vec<u64>>,
    /// The value has gone away, and its actions were told to be lost.
    pub(super) is_lost: AtomicBool,
}

/// Where a rollback that was given the value is asked for attempts.
pub(super) struct LocalDesk {
    link: Arc<LocalLink>,
    asked: Lock<OpenAsks>,
}

#[derive(Default)]
struct OpenAsks {
    asks: Vec<Ask>,
    /// The rollback, while it waits.
    waker: Option<Waker>,
}

/// An attempt that is to be started.
pub(super) struct Ask {
    pub(super) action: Arc<Known>,
    answer: oneshot::Sender<LocalAnswer>,
}

impl Ask {
    /// Whether somebody waits for the answer.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.answer.is_canceled()
    }
}

/// What an attempt came to.
struct LocalAnswer {
    result: Result<(), Error>,
    _owed: Owed,
}

/// Counts an answer until the run has taken it, or nobody will.
struct Owed(Arc<AtomicUsize>);

impl Owed {
    fn new(owed: &Arc<AtomicUsize>) -> Self {
        owed.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(owed))
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl LocalDesk {
    pub(super) fn new(link: &Arc<LocalLink>) -> Self {
        Self { link: Arc::clone(link), asked: Lock::default() }
    }

    pub(super) fn link_id(&self) -> LinkId {
        LinkId::of(&self.link)
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

/// What is known of an action from any thread.
pub(super) struct Known {
    link: Arc<LocalLink>,
    pub(super) key: u64,
    /// What its reservation has to say.
    armed: Armed,
    /// Where it is staged. Its attempts begin on the thread that has staged it, and only then.
    place: OnceLock<Reservation>,
    /// It has succeeded, whoever was told.
    done: AtomicBool,
}

impl Known {
    pub(super) fn is_disarmed(&self) -> bool {
        !self.armed.is_armed()
    }

    pub(super) fn is_at(&self, place: &Reservation) {
        let _ = self.place.set(place.copy());
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// It is not needed any more where it lives.
    fn is_gone(&self) {
        self.link.gone.lock().push(self.key);
    }
}

/// What a scope holds of an action that lives in a [`LocalUndos`](super::LocalUndos).
pub(super) struct LocalPlace {
    action: Arc<Known>,
    label: Option<String>,
}

impl LocalPlace {
    pub(super) fn new(
        link: &Arc<LocalLink>,
        key: u64,
        label: Option<String>,
        armed: Armed,
    ) -> Self {
        let (link, place, done) = (Arc::clone(link), OnceLock::new(), AtomicBool::default());
        Self { action: Arc::new(Known { link, key, armed, place, done }), label }
    }

    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.action)
    }
}

impl column::StoredAction for LocalPlace {
    fn attempt(&mut self, undoing: &Undoing) -> BoxAttempt {
        if self.is_done() {
            return Box::pin(std::future::ready(Ok(())));
        }
        let own = |desk: &&Arc<LocalDesk>| Some(desk.link_id()) == self.lives_in();
        let Some(desk) = undoing.desk.as_ref().filter(own) else {
            let message = "the rollback was not given the LocalUndos that this action lives in";
            return Box::pin(std::future::ready(Err(Error::new(ErrorCode::Compensation, message))));
        };
        let (answer, answered) = oneshot::channel();
        desk.ask(Ask { action: Arc::clone(&self.action), answer });
        Box::pin(async { answered.await.map_or_else(|_| Err(gone()), |answer| answer.result) })
    }

    fn label(&self) -> Option<String> {
        self.label.clone()
    }

    fn is_done(&self) -> bool {
        self.action.is_done()
    }

    fn is_lost(&self) -> bool {
        self.is_done() || self.action.link.is_lost.load(Ordering::Acquire)
    }

    fn lives_in(&self) -> Option<LinkId> {
        Some(LinkId::of(&self.action.link))
    }
}

impl Drop for LocalPlace {
    fn drop(&mut self) {
        self.action.is_gone();
    }
}

pub(super) fn gone() -> Error {
    Error::new(ErrorCode::Compensation, "the LocalUndos that this action lives in is gone")
}

/// An attempt at an action where it lives. Its action has it as well, and drops it before another
/// attempt begins.
pub(super) type RunningAttempt = RefCell<Option<LocalBoxFuture<'static, Result<(), Error>>>>;

/// Drops an attempt, unless it is being polled just now.
pub(super) fn stop(running: &RunningAttempt) {
    let stopped = running.try_borrow_mut().ok().and_then(|mut running| running.take());
    panics::drop_each(stopped);
}

/// An attempt that a rollback was asked for.
pub(super) struct LocalAttempt {
    ask: Option<Ask>,
    running: Rc<RunningAttempt>,
    /// How many answers of the rollback the run has not taken.
    owed: Arc<AtomicUsize>,
}

impl LocalAttempt {
    pub(super) fn new(ask: Ask, running: Rc<RunningAttempt>, owed: &Arc<AtomicUsize>) -> Self {
        Self { ask: Some(ask), running, owed: Arc::clone(owed) }
    }

    /// Polls the attempt. Ready with nothing where nobody waits for the answer any more.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), Error>>> {
        if self.ask.as_mut().is_none_or(|ask| ask.answer.poll_canceled(cx).is_ready()) {
            return Poll::Ready(None);
        }
        let Ok(mut running) = self.running.try_borrow_mut() else { return Poll::Pending };
        let Some(attempt) = &mut *running else { return Poll::Ready(None) };
        let polled = panics::contain(|| attempt.as_mut().poll(cx));
        polled
            .unwrap_or_else(|message| Poll::Ready(Err(Error::panic("the compensation", &message))))
            .map(Some)
    }
}

impl Future for LocalAttempt {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let result = ready!(self.poll_running(cx));
        let succeeded = matches!(result, Some(Ok(())));
        if let (true, Some(ask)) = (succeeded, &self.ask) {
            ask.action.done.store(true, Ordering::Release);
            ask.action.is_gone();
        }
        stop(&self.running);
        if let (Some(result), Some(Ask { action, answer })) = (result, self.ask.take()) {
            let told = LocalAnswer { result, _owed: Owed::new(&self.owed) };
            let told = panics::contain(|| answer.send(told).is_ok()).unwrap_or_default();
            if let (true, false, Some(place)) = (succeeded, told, action.place.get()) {
                place.has_succeeded();
            }
        }
        Poll::Ready(())
    }
}

impl Drop for LocalAttempt {
    fn drop(&mut self) {
        stop(&self.running);
        panics::drop_each(self.ask.take());
    }
}
