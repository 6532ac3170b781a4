//! A broadcast into channels of its own.

use async_channel::Receiver;

use super::super::destination::SenderDestination;
use super::{Broadcast, broadcast};
use crate::error::Error;
use crate::source::{Source, Unsettled};
use crate::step::StepContext;

/// Makes so many channels of that capacity, and a [`broadcast`] of the source into them. Nothing
/// moves until the broadcast is awaited, or spawned as a task of the user's own: it is what keeps
/// the branches going, and their cancellation and timeout are its.
///
/// The branches end when the broadcast does, however it ends.
///
/// # Errors
///
/// Those of [`broadcast`], from awaiting it; no branches and no capacity are
/// [`ErrorCode::Validation`](crate::ErrorCode::Validation) as well. A branch that is dropped is a closed destination:
/// with [`OnClosed::Detach`](crate::channels::OnClosed::Detach) the others go on.
///
/// # Cancel safety
///
/// That of [`broadcast`].
///
/// ```
/// # futures::executor::block_on(async {
/// use std::future::IntoFuture;
/// use futures::{StreamExt, stream};
/// use watershed::StepContext;
/// use watershed::channels::fan_out;
///
/// let (broadcast, branches) = fan_out(&StepContext::new("fan-out"), stream::iter(0..9), 2, 16);
/// let sums = branches.into_iter().map(|branch| branch.fold(0, async |sum, item| sum + item));
/// let (report, sums) = futures::join!(broadcast.into_future(), futures::future::join_all(sums));
/// assert_eq!((report?.items(), sums), (9, vec![36, 36]));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[allow(clippy::type_complexity, reason = "a pair of what to drive and what to read")]
pub fn fan_out<S>(
    context: &StepContext,
    source: S,
    branches: usize,
    capacity: usize,
) -> (Broadcast<S, SenderDestination<S::Message>>, Vec<Receiver<S::Message>>)
where
    S: Source<Receipt = Unsettled, Message: Clone + Send + 'static>,
{
    let invalid = if capacity == 0 {
        Some("the branches of a fan-out need a capacity")
    } else if capacity > largest_capacity::<S::Message>() {
        Some("the capacity of a fan-out is larger than any memory")
    } else {
        None
    };
    let capacity = if invalid.is_some() { 1 } else { capacity };
    let channels = (0..branches).map(|_| async_channel::bounded(capacity));
    let (senders, receivers): (Vec<_>, Vec<_>) = channels.unzip();
    let mut broadcast = broadcast(context, source, senders);
    broadcast.options.invalid = invalid.map(Error::validation);
    (broadcast, receivers)
}

/// How many messages a channel can have room for, at the most.
fn largest_capacity<M>() -> usize {
    const ROOM_BESIDE_A_MESSAGE: usize = 64;
    isize::MAX.unsigned_abs() / (size_of::<M>() + ROOM_BESIDE_A_MESSAGE)
}
