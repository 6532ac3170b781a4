//! A broadcast into channels of its own.

use std::num::NonZeroUsize;

use async_channel::Receiver;

use super::super::destination::SenderDestination;
use super::super::source::Source;
use super::{Broadcast, broadcast};
use crate::context::StepContext;

/// Makes so many channels of that capacity, and a [`broadcast`] of the source into them. Nothing
/// moves until the broadcast is awaited, or spawned as a task of the user's own: it is what keeps
/// the branches going, and their cancellation and timeout are its.
///
/// The branches end when the broadcast does, however it ends.
///
/// # Errors
///
/// Those of [`broadcast`], from awaiting it. A branch that is dropped is a closed destination:
/// with [`OnClosed::Detach`](crate::channels::OnClosed::Detach) the others go on.
///
/// # Cancel safety
///
/// That of [`broadcast`].
///
/// ```
/// # futures::executor::block_on(async {
/// use std::future::IntoFuture;
/// use std::num::NonZeroUsize;
/// use futures::{StreamExt, stream};
/// use watershed::StepContext;
/// use watershed::channels::fan_out;
///
/// let two = NonZeroUsize::new(2).unwrap();
/// let (broadcast, branches) = fan_out(&StepContext::new("fan-out"), stream::iter(0..9), two, two);
/// let sums = branches.into_iter().map(|branch| branch.fold(0, async |sum, item| sum + item));
/// let (report, sums) = futures::join!(broadcast.into_future(), futures::future::join_all(sums));
/// assert_eq!((report?.items(), sums), (9, vec![36, 36]));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[allow(clippy::type_complexity, reason = "a pair of what to drive and what to read")]
pub fn fan_out<S>(
    context: &StepContext,
    source: S,
    branches: NonZeroUsize,
    capacity: NonZeroUsize,
) -> (Broadcast<S, SenderDestination<S::Message>>, Vec<Receiver<S::Message>>)
where
    S: Source<Message: Clone + Send + 'static>,
{
    let channels = (0..branches.get()).map(|_| async_channel::bounded(capacity.get()));
    let (senders, receivers): (Vec<_>, Vec<_>) = channels.unzip();
    (broadcast(context, source, senders), receivers)
}
