//! Asking the strategy.
//!
//! A pick that leads to no message costs something that runs out: a ready source that turns out
//! to be pending or ended is not ready any more, and a refusal gives the thread back, so many
//! times in a row at most.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::super::merge::{Intake, Order, POLLS_AT_ONCE, ReadyQueue, Sources, Taken};
use super::{MergeStrategy, SourceState};
use crate::error::Error;
use crate::source::{Source, Unsettled};

/// Refusals in a row before the merge decides itself.
const PATIENCE: usize = 8;

/// The order of a merge that asks a strategy, see
/// [`merge_with_strategy`](crate::channels::merge_with_strategy).
///
/// ```
/// use watershed::channels::{FairTurns, Merge, Picked, Priority, merge, merge_with_strategy, priority};
/// use watershed::StepContext;
///
/// let (sender, source) = async_channel::bounded::<u32>(4);
/// let merge = merge_with_strategy(&StepContext::new("merge"), [source], sender, priority());
/// let merge: Merge<_, _, Picked<Priority>> = merge;
/// # let _ = merge;
/// ```
#[derive(Clone, Copy)]
pub struct Picked<P>(pub(super) P);

impl<P> fmt::Debug for Picked<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picked").finish_non_exhaustive()
    }
}

impl<S: Source<Receipt = Unsettled>, P: MergeStrategy> Order<S> for Picked<P> {
    type Intake = Picks<S, P>;

    fn start(self, sources: Vec<S>) -> Result<Picks<S, P>, Error> {
        let Self(strategy) = self;
        strategy.check(sources.len())?;
        let sources = Sources::new(sources)?;
        Ok(Picks {
            states: vec![SourceState::Ready; sources.len()],
            woken: ReadyQueue::new(sources.len()),
            ready: sources.len(),
            sources,
            strategy,
            refusals: 0,
            next: 0,
            polls: POLLS_AT_ONCE,
            asking: Cell::new(false),
        })
    }
}

/// The sources that a strategy picks from.
pub struct Picks<S, P> {
    sources: Sources<S>,
    strategy: P,
    states: Vec<SourceState>,
    /// How many of the states are ready.
    ready: usize,
    woken: ReadyQueue,
    /// Refusals since the last message.
    refusals: usize,
    /// Where the merge looks first when it decides itself.
    next: usize,
    /// Polls and questions before the executor has its thread back.
    polls: usize,
    /// The strategy's code is running.
    asking: Cell<bool>,
}

impl<S: Source<Receipt = Unsettled>, P: MergeStrategy> Picks<S, P> {
    /// Which source to poll; `None` for a refusal.
    fn pick(&mut self) -> Option<usize> {
        if self.refusals == PATIENCE {
            let sources = self.states.len();
            let mut turn = (self.next..sources).chain(0..self.next);
            let index = turn.find(|index| self.states[*index].is_ready())?;
            self.next = (index + 1) % sources;
            return Some(index);
        }
        self.asking.set(true);
        let picked = self.strategy.pick(&self.states);
        self.asking.set(false);
        picked.filter(|index| self.states.get(*index).is_some_and(|state| state.is_ready()))
    }

    fn set(&mut self, index: usize, state: SourceState) {
        let old = std::mem::replace(&mut self.states[index], state);
        self.ready -= usize::from(old.is_ready());
        self.ready += usize::from(state.is_ready());
    }
}

impl<S: Source<Receipt = Unsettled>, P: MergeStrategy> Intake for Picks<S, P> {
    type Message = S::Message;

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Taken<S::Message>>> {
        loop {
            while let Some(index) = self.woken.pop() {
                if self.states[index] == SourceState::Pending {
                    self.set(index, SourceState::Ready);
                }
            }
            if self.sources.open() == 0 {
                return Poll::Ready(None);
            }
            if self.ready == 0 {
                if self.woken.wait(cx.waker()) {
                    self.polls = POLLS_AT_ONCE;
                    return Poll::Pending;
                }
                continue;
            }
            if self.polls == 0 {
                self.polls = POLLS_AT_ONCE;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.polls -= 1;
            let Some(index) = self.pick() else {
                self.refusals += 1;
                self.polls = POLLS_AT_ONCE;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            };
            match self.sources.poll(index, self.woken.waker(index)) {
                Poll::Ready(Some(item)) => {
                    self.refusals = 0;
                    return Poll::Ready(Some((index, item)));
                }
                Poll::Ready(None) => self.set(index, SourceState::Ended),
                Poll::Pending => self.set(index, SourceState::Pending),
            }
        }
    }

    /// After each message the strategy is asked again.
    fn begins_turn(&self) -> bool {
        true
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.sources.names().collect()
    }

    fn blame(&self, message: &str) -> Error {
        if self.asking.get() {
            return Error::panic("the strategy", message);
        }
        self.sources.blame(message)
    }
}

impl<S, P> fmt::Debug for Picks<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picks").field("states", &self.states).finish_non_exhaustive()
    }
}
