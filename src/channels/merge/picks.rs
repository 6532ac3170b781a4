//! Asking the user's own code which source is next.
//!
//! Before each message the strategy is shown which sources may be ready, and picks one. A plain
//! stream cannot be asked whether it has a message without being made to give it away, so "ready"
//! means "not known to be pending": a source is found pending when it is polled, and may be ready
//! again once it was woken. It is polled only when it was picked.
//!
//! A pick that leads to no message costs something that runs out: a ready source that turns out
//! to be pending or ended is not ready any more, and a refusal gives the thread back, so many
//! times in a row at most.

use std::cell::Cell;
use std::task::{Context, Poll};

use super::ready::ReadyQueue;
use super::sources::{POLLS_AT_ONCE, Sources, Taken};
use crate::error::Error;
use crate::panics::Held;
use crate::source::{Source, Unsettled};

/// Refusals in a row before the merge decides itself.
const PATIENCE: usize = 8;

/// What a strategy knows of a source.
///
/// ```
/// use watershed::channels::SourceState;
///
/// let states = [SourceState::Pending, SourceState::Ready];
/// assert_eq!(states.iter().position(|state| state.is_ready()), Some(1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// It may have a message: it was not polled since it was last woken or gave one.
    Ready,
    /// It had no message when it was polled, and was not woken since.
    Pending,
    /// It has ended.
    Ended,
}

impl SourceState {
    /// Whether it may have a message.
    ///
    /// ```
    /// use watershed::channels::SourceState;
    /// assert!(SourceState::Ready.is_ready() && !SourceState::Ended.is_ready());
    /// ```
    #[must_use]
    pub fn is_ready(self) -> bool {
        self == Self::Ready
    }
}

/// The sources that a strategy picks from.
pub(in super::super) struct Picks<S, P> {
    pub(super) sources: Sources<S>,
    strategy: Held<P>,
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

impl<S, P> Picks<S, P>
where
    S: Source<Receipt = Unsettled>,
    P: FnMut(&[SourceState]) -> Option<usize>,
{
    pub(super) fn new(sources: Sources<S>, strategy: Held<P>) -> Self {
        Self {
            states: vec![SourceState::Ready; sources.len()],
            woken: ReadyQueue::new(sources.len()),
            ready: sources.len(),
            sources,
            strategy,
            refusals: 0,
            next: 0,
            polls: POLLS_AT_ONCE,
            asking: Cell::new(false),
        }
    }

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
        let picked = self.strategy.get_mut().and_then(|strategy| strategy(&self.states));
        self.asking.set(false);
        picked.filter(|index| self.states.get(*index).is_some_and(|state| state.is_ready()))
    }

    fn set(&mut self, index: usize, state: SourceState) {
        let old = std::mem::replace(&mut self.states[index], state);
        self.ready -= usize::from(old.is_ready());
        self.ready += usize::from(state.is_ready());
    }

    pub(super) fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Taken<S::Message>>> {
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
            match self.sources.poll(index, self.woken.waker(index), &mut self.polls) {
                Poll::Ready(Some(item)) => {
                    self.refusals = 0;
                    return Poll::Ready(Some((index, item)));
                }
                Poll::Ready(None) => self.set(index, SourceState::Ended),
                Poll::Pending => self.set(index, SourceState::Pending),
            }
        }
    }

    pub(super) fn blame(&self, message: &str) -> Error {
        if self.asking.get() {
            return Error::panic("the strategy", message);
        }
        self.sources.blame(message)
    }
}
