//! The cases of one priority.
//!
//! Each is asked with a waker of its own, and only when that has been woken since the case was
//! last found waiting: idle cases cost a run nothing. Those that may be ready stand in a queue;
//! one that had its turns, as many as its weight and be it with a fault, goes to the end of it.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::super::merge::ReadyQueue;
use super::case::{AnyCase, CaseAnswer};
use crate::error::Error;
use crate::origin::{Origin, SourceName};
use crate::step::StepContext;

pub(super) type BoxedCase<'a, T> = Pin<Box<dyn AnyCase<T> + Send + 'a>>;

pub(super) struct CaseTier<'a, T> {
    priority: u32,
    slots: Vec<CaseSlot<'a, T>>,
    open: usize,
    /// Made anew by the run that comes after a case was added.
    ready: Option<ReadyQueue>,
}

struct CaseSlot<'a, T> {
    name: SourceName,
    weight: u32,
    /// How many turns it has had in a row.
    in_row: u32,
    /// There until its source has ended.
    case: Option<BoxedCase<'a, T>>,
}

impl<T> CaseSlot<'_, T> {
    fn origin(&self) -> Origin {
        Origin { source: self.name.clone(), message: 0 }
    }
}

impl<'a, T> CaseTier<'a, T> {
    pub(super) fn new(priority: u32) -> Self {
        Self { priority, slots: Vec::new(), open: 0, ready: None }
    }

    pub(super) fn priority(&self) -> u32 {
        self.priority
    }

    pub(super) fn add(&mut self, name: SourceName, weight: u32, case: BoxedCase<'a, T>) {
        self.slots.push(CaseSlot { name, weight, in_row: 0, case: Some(case) });
        self.open += 1;
        self.ready = None;
    }

    /// How many cases have not ended.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().map(|slot| slot.name.as_str())
    }

    /// Asks the cases that may be ready, until one has won or failed.
    pub(super) fn ask(&mut self, step: &StepContext) -> Option<Result<usize, Error>> {
        let Self { slots, open, ready, .. } = self;
        let ready = ready.get_or_insert_with(|| ReadyQueue::new(slots.len()));
        // Each once at most: one that keeps waking itself is not ready for that.
        for _ in 0..slots.len() {
            let index = ready.pop()?;
            let slot = &mut slots[index];
            let Some(case) = &mut slot.case else { continue };
            let mut cx = Context::from_waker(ready.waker(index));
            let Poll::Ready(asked) = case.as_mut().poll_take(step, &mut cx) else {
                slot.in_row = 0;
                continue;
            };
            let result = match asked {
                CaseAnswer::Won => Ok(index),
                CaseAnswer::Failed(error) => Err(error.with_origin(slot.origin())),
                CaseAnswer::Ended(panicked) => {
                    slot.case = None;
                    *open -= 1;
                    let Some(error) = panicked else { continue };
                    return Some(Err(error.with_origin(slot.origin())));
                }
            };
            slot.in_row += 1;
            if slot.in_row < slot.weight {
                ready.resume(index);
            } else {
                slot.in_row = 0;
                ready.requeue(index);
            }
            return Some(result);
        }
        None
    }

    /// Waits for the next case that is woken; `false` if one has been already.
    pub(super) fn wait(&mut self, task: &Waker) -> bool {
        self.ready.as_mut().is_none_or(|ready| ready.wait(task))
    }

    /// Waits no longer.
    pub(super) fn forget(&mut self) {
        if let Some(ready) = &mut self.ready {
            ready.forget();
        }
    }

    /// Polls the continuation of the case that has won.
    pub(super) fn poll_continue(
        &mut self,
        index: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, Error>> {
        let slot = &mut self.slots[index];
        let Some(case) = &mut slot.case else { return Poll::Pending };
        let poll = case.as_mut().poll_continue(cx);
        poll.map(|result| result.map_err(|error| error.with_origin(slot.origin())))
    }

    /// Drops the continuation of the case that has won, and gives the panic of its destructor.
    pub(super) fn abandon(&mut self, index: usize) -> Option<Error> {
        let slot = &mut self.slots[index];
        let panicked = slot.case.as_mut()?.as_mut().abandon()?;
        Some(panicked.with_origin(slot.origin()))
    }
}
