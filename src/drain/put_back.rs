//! Where messages go that something held when the drain ended.

use crate::origin::SourceId;

/// A place for messages that were taken and not handled, see [`FanIn::put_back`](crate::FanIn::put_back).
pub trait PutBack<M> {
    /// Whether the user gave a place.
    const GIVEN: bool;

    /// Takes a message back.
    fn take(&mut self, source: SourceId, message: M);
}

/// No place: such messages are counted, and dropped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

impl<M> PutBack<M> for Nowhere {
    const GIVEN: bool = false;

    fn take(&mut self, _: SourceId, message: M) {
        drop(message);
    }
}

/// A function of the user's.
#[derive(Clone, Copy, Debug)]
pub struct BackTo<F>(pub(super) F);

impl<M, F: FnMut(SourceId, M)> PutBack<M> for BackTo<F> {
    const GIVEN: bool = true;

    fn take(&mut self, source: SourceId, message: M) {
        (self.0)(source, message);
    }
}
