//! What tells the model that something has ended, was dropped before, or was polled late.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use watershed::testing::{Script, World};
use watershed::{
    CancellationToken, Clock, CompensationScope, Error, FanInReport, Sleep, StepContext,
};

use super::super::program::Cut;
use super::super::reference::{Book, EffectId, Ended, FrameId};
use super::Item;

pub(super) struct Attempt {
    pub(super) book: Book,
    pub(super) effect: EffectId,
    pub(super) ended: bool,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.ended {
            self.book.lock().drop_attempt(self.effect);
        }
    }
}

pub(super) struct Handling {
    pub(super) book: Book,
    pub(super) message: FrameId,
    pub(super) ended: bool,
}

impl Handling {
    pub(super) fn end(&mut self, end: Ended) {
        self.ended = true;
        self.book.lock().handler_ended(self.message, end);
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        if !self.ended {
            self.book.lock().handler_ended(self.message, Ended::Dropped);
        }
    }
}

pub(super) struct Operating {
    pub(super) book: Book,
    pub(super) frame: FrameId,
    pub(super) ended: Rc<Cell<Option<bool>>>,
}

impl Drop for Operating {
    fn drop(&mut self) {
        if self.ended.get().is_none() {
            self.book.lock().operation_dropped(self.frame);
        }
    }
}

pub(super) struct Closing {
    pub(super) book: Book,
    pub(super) frame: FrameId,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.book.lock().close(self.frame);
    }
}

/// A scope that is absorbed wherever its owner stops.
pub(super) struct Child {
    pub(super) scope: CompensationScope,
    pub(super) step: StepContext,
}

impl Drop for Child {
    fn drop(&mut self) {
        self.step.scope().absorb(&self.scope);
    }
}

/// A drain that tells how it ended.
pub(super) struct DrainTold {
    pub(super) book: Book,
    pub(super) drain: FrameId,
    pub(super) scripts: Vec<Script<Item>>,
    pub(super) ended: Option<LocalBoxFuture<'static, Result<FanInReport, Error>>>,
    pub(super) begun: bool,
}

impl Future for DrainTold {
    type Output = Result<FanInReport, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !std::mem::replace(&mut this.begun, true) {
            this.book.lock().drain_began(this.drain);
        }
        let Some(drain) = &mut this.ended else { return Poll::Pending };
        let result = std::task::ready!(drain.as_mut().poll(cx));
        this.ended = None;
        let rest: Vec<_> = this.scripts.iter().map(|script| script.rest().len()).collect();
        this.book.lock().drain_ended(this.drain, &result, &rest);
        Poll::Ready(result)
    }
}

impl Drop for DrainTold {
    fn drop(&mut self) {
        if let Some(drain) = self.ended.take() {
            drop(drain);
            self.book.lock().drain_dropped(self.drain);
        }
    }
}

/// A rollback that tells when it is polled and how it ended.
pub struct Told {
    pub(super) book: Book,
    pub(super) number: usize,
    pub(super) token: CancellationToken,
    pub(super) rollback: Option<watershed::Rollback>,
}

impl Future for Told {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(rollback) = &mut this.rollback else { return Poll::Pending };
        this.book.lock().join(this.number);
        let poll = Pin::new(rollback).poll(cx);
        let result = std::task::ready!(poll);
        this.rollback = None;
        let cancelled = this.token.is_cancelled();
        this.book.lock().rollback_ended(this.number, &result, cancelled);
        Poll::Ready(())
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(rollback) = self.rollback.take() {
            drop(rollback);
            self.book.lock().rollback_dropped(self.number);
        }
    }
}

/// Drops a future after some polls, or when its time has come.
pub(super) struct Cutter<T> {
    pub(super) future: Option<LocalBoxFuture<'static, T>>,
    pub(super) polls: Option<u64>,
    pub(super) after: Option<Sleep>,
}

impl<T> Cutter<T> {
    pub(super) fn new(world: &World, future: LocalBoxFuture<'static, T>, cut: Option<Cut>) -> Self {
        let (polls, after) = match cut {
            None => (None, None),
            Some(Cut::Polls(polls)) => (Some(polls), None),
            Some(Cut::After(wait)) => {
                (None, Some(world.clock().sleep_until(world.clock().now() + wait)))
            }
        };
        Self { future: Some(future), polls, after }
    }
}

impl<T> Future for Cutter<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let this = &mut *self;
        let over = this.after.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
        let Some(future) = &mut this.future else { return Poll::Pending };
        if !over && this.polls != Some(0) {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                this.future = None;
                return Poll::Ready(Some(output));
            }
            this.polls = this.polls.map(|polls| polls - 1);
        }
        if over || this.polls == Some(0) {
            this.future = None;
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

/// Pending so many times, and then for so long. Whoever is polled as soon as it can go on is never
/// late: the clock of a simulation stands still until nobody can.
pub(super) async fn punctual(world: &World, book: &Book, yields: u64, wait: Option<Duration>) {
    let due = world.clock().now() + wait.unwrap_or_default();
    let mut left = yields;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    if wait.is_some() {
        world.clock().sleep_until(due).await;
    }
    let now = world.clock().now();
    // Rules 2.5 and 4.5.
    let mut model = book.lock();
    let in_time = now == due || model.lenient && now > due;
    model.must(in_time, || format!("polled late: it was due at {due:?}"));
}
