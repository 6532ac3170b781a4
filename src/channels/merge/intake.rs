//! Which source the next message is taken from.
//!
//! By default the ready sources have their turns one after another, a turn being at most a quantum
//! of messages. A merge with a strategy asks that instead, see
//! [`strategy`](super::super::strategy).

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::ready::ReadyQueue;
use super::sources::Sources;
use crate::error::Error;
use crate::source::{Source, Unsettled};

/// Polls of sources between two moments at which the executor has its thread back.
pub(in super::super) const POLLS_AT_ONCE: usize = 256;

/// How sources are chosen, before the merge starts.
pub trait Order<S: Source<Receipt = Unsettled>> {
    /// What chooses while it runs.
    type Intake: Intake<Message = S::Message>;

    /// Starts over these sources.
    ///
    /// # Errors
    ///
    /// When the order does not fit the sources.
    fn start(self, sources: Vec<S>) -> Result<Self::Intake, Error>;
}

/// Takes messages out of many sources, one at a time and none ahead.
pub trait Intake {
    /// What the sources yield.
    type Message;

    /// The next message or fault with the index of its source, `None` when all have ended.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Taken<Self::Message>>>;

    /// Whether the next message begins a turn: the moment to look for a reason to end.
    fn begins_turn(&self) -> bool;

    /// The names of the sources.
    fn names(&self) -> Vec<Arc<str>>;

    /// The error of a panic in the last poll.
    fn blame(&self, message: &str) -> Error;
}

/// The index of a source, and what it yielded.
pub(in super::super) type Taken<M> = (usize, Result<M, Error>);

/// One turn after another, in the order in which the sources became ready.
#[derive(Clone, Copy, Debug)]
pub struct FairTurns {
    pub(super) quantum: usize,
}

impl Default for FairTurns {
    fn default() -> Self {
        Self { quantum: 64 }
    }
}

impl<S: Source<Receipt = Unsettled>> Order<S> for FairTurns {
    type Intake = Turns<S>;

    fn start(self, sources: Vec<S>) -> Result<Turns<S>, Error> {
        let Self { quantum } = self;
        if quantum == 0 {
            return Err(Error::validation("the quantum of a merge must not be zero"));
        }
        let sources = Sources::new(sources)?;
        let ready = ReadyQueue::new(sources.len());
        Ok(Turns { sources, ready, quantum, turn: None, left: 0, polls: POLLS_AT_ONCE })
    }
}

/// The sources whose turns go round.
pub struct Turns<S> {
    sources: Sources<S>,
    ready: ReadyQueue,
    quantum: usize,
    /// Whose turn it is, and how many messages are left of it.
    turn: Option<usize>,
    left: usize,
    /// Polls before the executor has its thread back.
    polls: usize,
}

impl<S: Source<Receipt = Unsettled>> Intake for Turns<S> {
    type Message = S::Message;

    #[inline]
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Taken<S::Message>>> {
        loop {
            if self.polls == 0 {
                self.polls = POLLS_AT_ONCE;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let index = match self.turn.or_else(|| self.ready.pop()) {
                Some(index) => index,
                None if self.sources.open() == 0 => return Poll::Ready(None),
                None if self.ready.wait(cx.waker()) => {
                    self.polls = POLLS_AT_ONCE;
                    return Poll::Pending;
                }
                None => continue,
            };
            if self.turn.is_none() {
                self.turn = Some(index);
                self.left = self.quantum;
            }
            self.polls -= 1;
            match self.sources.poll(index, self.ready.waker(index)) {
                Poll::Ready(Some(item)) => {
                    self.left -= 1;
                    if self.left == 0 {
                        self.turn = None;
                        self.ready.requeue(index);
                    }
                    return Poll::Ready(Some((index, item)));
                }
                Poll::Ready(None) | Poll::Pending => self.turn = None,
            }
        }
    }

    #[inline]
    fn begins_turn(&self) -> bool {
        self.turn.is_none()
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.sources.names().collect()
    }

    fn blame(&self, message: &str) -> Error {
        self.sources.blame(message)
    }
}

impl<S> fmt::Debug for Turns<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("quantum", &self.quantum).finish_non_exhaustive()
    }
}
