//! What takes messages out of many sources, one at a time and none ahead: their turns, or what a
//! strategy picks.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::picks::{Picks, SourceState};
use super::sources::{Sources, Taken};

use super::turns::Turns;
use crate::error::Error;
use crate::panics::Held;
use crate::source::{Source, Unsettled};

/// How sources are chosen, before the merge starts.
pub(in super::super) struct Choice<P> {
    pub(in super::super) quantum: Option<usize>,
    pub(in super::super) strategy: Option<Held<P>>,
}

pub(in super::super) enum Intake<S, P> {
    Turns(Turns<S>),
    Picks(Picks<S, P>),
}

impl<P> Choice<P> {
    /// # Errors
    ///
    /// When an option is wrong, or has no effect beside the others.
    pub(in super::super) fn start<S>(self, sources: Vec<S>) -> Result<Intake<S, P>, Error>
    where
        S: Source<Receipt = Unsettled>,
        P: FnMut(&[SourceState]) -> Option<usize>,
    {
        let sources = Sources::new(sources, self.strategy.is_none())?;
        match (self.quantum, self.strategy) {
            (Some(0), _) => Err(Error::validation("the quantum of a merge must not be zero")),
            (Some(_), Some(_)) => {
                Err(Error::validation("a quantum has no effect beside a strategy"))
            }
            (None, Some(strategy)) => Ok(Intake::Picks(Picks::new(sources, strategy))),
            (quantum, None) => Ok(Intake::Turns(Turns::new(sources, quantum))),
        }
    }
}

impl<S, P> Intake<S, P>
where
    S: Source<Receipt = Unsettled>,
    P: FnMut(&[SourceState]) -> Option<usize>,
{
    /// The next message or fault with the index of its source, `None` when all have ended.
    #[inline]
    pub(in super::super) fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Taken<S::Message>>> {
        match self {
            Self::Turns(turns) => turns.poll_take(cx),
            Self::Picks(picks) => picks.poll_take(cx),
        }
    }

    /// Whether the next message begins a turn: the moment to look for a reason to end.
    #[inline]
    pub(in super::super) fn begins_turn(&self) -> bool {
        match self {
            Self::Turns(turns) => turns.begins_turn(),
            // After each message the strategy is asked again.
            Self::Picks(_) => true,
        }
    }

    pub(in super::super) fn names(&self) -> impl Iterator<Item = Arc<str>> {
        let sources = match self {
            Self::Turns(turns) => &turns.sources,
            Self::Picks(picks) => &picks.sources,
        };
        sources.names()
    }

    /// The error of a panic in the last poll.
    pub(in super::super) fn blame(&self, message: &str) -> Error {
        match self {
            Self::Turns(turns) => turns.sources.blame(message),
            Self::Picks(picks) => picks.blame(message),
        }
    }
}

impl<P> Default for Choice<P> {
    fn default() -> Self {
        Self { quantum: None, strategy: None }
    }
}

impl<P> fmt::Debug for Choice<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice")
            .field("quantum", &self.quantum)
            .field("strategy", &self.strategy.is_some())
            .finish()
    }
}
