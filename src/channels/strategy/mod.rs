//! A merge in which the user's own code says which source is next.
//!
//! Before each message the strategy is shown which sources may be ready, and picks one. A plain
//! stream cannot be asked whether it has a message without being made to give it away, so "ready"
//! means "not known to be pending": a source is found pending when it is polled, and may be ready
//! again once it was woken. It is polled only when it was picked.
//!
//! - `picks`: asking the strategy, and what becomes of an answer that leads nowhere
//! - `ready_made`: priority, round robin, weights

mod picks;
mod ready_made;

pub use picks::Picked;
pub use ready_made::{Priority, RoundRobin, Weighted, priority, round_robin, weighted};

use super::destination::{Destination, IntoDestination};
use super::merge::Merge;
use crate::error::Error;
use crate::source::{Source, Unsettled};
use crate::step::StepContext;

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

/// Says which source the next message is taken from. A closure that takes the states and returns
/// an index is one.
///
/// [`priority`], [`round_robin`] and [`weighted`] are ready made.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::{StreamExt, stream};
/// use watershed::StepContext;
/// use watershed::channels::{SourceState, merge_with_strategy};
///
/// // From the last one that may be ready.
/// let strategy = |sources: &[SourceState]| sources.iter().rposition(|state| state.is_ready());
/// let (sender, receiver) = async_channel::unbounded();
/// let sources = [stream::iter([1, 2]), stream::iter([3, 4])];
/// merge_with_strategy(&StepContext::new("merge"), sources, sender, strategy).await?;
/// assert_eq!(receiver.collect::<Vec<_>>().await, [3, 4, 1, 2]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub trait MergeStrategy {
    /// The index of the source to take the next message from. It is asked only while at least one
    /// source may be ready; see [`merge_with_strategy`] for an answer that names none of those.
    fn pick(&mut self, sources: &[SourceState]) -> Option<usize>;

    /// Whether the strategy fits so many sources, asked once before a message is taken. By
    /// default it does.
    ///
    /// # Errors
    ///
    /// When it does not: the merge fails with this error.
    fn check(&self, sources: usize) -> Result<(), Error> {
        let _ = sources;
        Ok(())
    }
}

impl<F: FnMut(&[SourceState]) -> Option<usize>> MergeStrategy for F {
    fn pick(&mut self, sources: &[SourceState]) -> Option<usize> {
        self(sources)
    }
}

/// Moves every message of every source to one destination, in the order that a strategy says, and
/// then closes it.
///
/// Before each message the strategy is asked for the index of a source, which is polled then. If
/// it has no message, it counts as pending until it is woken, and the strategy is asked again.
/// While every source is pending the merge waits for one to be woken.
///
/// An answer that names no source which may be ready (none at all, an index out of range, a source
/// that is pending or has ended) is a refusal: the thread is given back to the executor once, so
/// that the source wanted may become ready, and the strategy is asked again. After 8 refusals in a
/// row the merge takes the message from the next source in turn that may be ready. So no strategy
/// can make the merge spin or stop; one that never refuses decides alone.
///
/// In all else it is a [`merge`](crate::channels::merge), errors and options included.
///
/// # Errors
///
/// Those of [`merge`](crate::channels::merge), and:
///
/// - the error of [`MergeStrategy::check`], before a message is taken
/// - [`ErrorCode::Panic`](crate::ErrorCode::Panic) when the strategy panics
///
/// # Cancel safety
///
/// That of [`merge`](crate::channels::merge).
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::{StreamExt, stream};
/// use watershed::StepContext;
/// use watershed::channels::{merge_with_strategy, weighted};
///
/// let (sender, receiver) = async_channel::unbounded();
/// let sources = [stream::repeat("a").take(6), stream::repeat("b").take(2)];
/// let three_to_one = weighted([3, 1]);
/// merge_with_strategy(&StepContext::new("merge"), sources, sender, three_to_one).await?;
/// let merged: Vec<_> = receiver.collect().await;
/// assert_eq!(merged, ["a", "b", "a", "a", "a", "b", "a", "a"]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn merge_with_strategy<I, D, P>(
    context: &StepContext,
    sources: I,
    destination: D,
    strategy: P,
) -> Merge<I::Item, D::Destination, Picked<P>>
where
    I: IntoIterator<Item: Source<Receipt = Unsettled>>,
    D: IntoDestination<Destination: Destination<Message = <I::Item as Source>::Message>>,
    P: MergeStrategy,
{
    Merge::new(context, sources, destination, Picked(strategy))
}
