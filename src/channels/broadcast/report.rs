//! What a broadcast did, and the item that it could not deliver everywhere.

use std::time::Duration;

/// What a broadcast that succeeded did, in all and by destination.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::StepContext;
/// use watershed::channels::{Overflow, broadcast};
///
/// let (wide, _wide) = async_channel::bounded(8);
/// let (narrow, _narrow) = async_channel::bounded(1);
/// let report = broadcast(&StepContext::new("news"), stream::iter([1, 2, 3]), [wide, narrow])
///     .overflow(Overflow::DropNewest)
///     .await?;
/// assert_eq!(report.items(), 3);
/// assert_eq!(report.destinations()[0].delivered(), 3);
/// assert_eq!((report.destinations()[1].delivered(), report.destinations()[1].dropped()), (1, 2));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct BroadcastReport {
    pub(super) elapsed: Duration,
    pub(super) items: u64,
    pub(super) destinations: Vec<DestinationReport>,
}

impl BroadcastReport {
    /// Items that were taken from the source.
    ///
    /// ```
    /// assert_eq!(watershed::channels::BroadcastReport::default().items(), 0);
    /// ```
    #[must_use]
    pub fn items(&self) -> u64 {
        self.items
    }

    /// From the first poll to the result, by the context's clock; zero if it stepped back.
    ///
    /// ```
    /// assert!(watershed::channels::BroadcastReport::default().elapsed().is_zero());
    /// ```
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The destinations, in the order in which the broadcast was given them.
    ///
    /// ```
    /// assert!(watershed::channels::BroadcastReport::default().destinations().is_empty());
    /// ```
    #[must_use]
    pub fn destinations(&self) -> &[DestinationReport] {
        &self.destinations
    }
}

/// What a broadcast did with one destination, see [`BroadcastReport::destinations`].
///
/// ```
/// let report = watershed::channels::DestinationReport::default();
/// assert_eq!((report.delivered(), report.dropped(), report.is_detached()), (0, 0, false));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct DestinationReport {
    pub(super) delivered: u64,
    pub(super) dropped: u64,
    pub(super) detached: bool,
}

impl DestinationReport {
    /// Items that the destination took.
    ///
    /// ```
    /// assert_eq!(watershed::channels::DestinationReport::default().delivered(), 0);
    /// ```
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Items that it lost for want of room: those it did not get, or those that made room, see
    /// [`Overflow`](crate::channels::Overflow).
    ///
    /// ```
    /// assert_eq!(watershed::channels::DestinationReport::default().dropped(), 0);
    /// ```
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether it was closed midway and the broadcast went on without it, see
    /// [`OnClosed::Detach`](crate::channels::OnClosed::Detach).
    ///
    /// ```
    /// assert!(!watershed::channels::DestinationReport::default().is_detached());
    /// ```
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.detached
    }
}

/// An item that was taken from the source and had not reached every destination when the broadcast
/// ended: what the callback of [`Broadcast::undelivered`](crate::channels::Broadcast::undelivered)
/// gets.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::future::IntoFuture;
/// use futures::{FutureExt, stream};
/// use watershed::StepContext;
/// use watershed::channels::broadcast;
///
/// let (wide, _wide) = async_channel::bounded(8);
/// let (narrow, _narrow) = async_channel::bounded(1);
/// let mut missed = None;
/// let broadcast = broadcast(&StepContext::new("news"), stream::iter([1, 2]), [wide, narrow])
///     .undelivered(|item| missed = Some(item));
/// // Dropped while the second item waits in front of the narrow channel.
/// assert!(broadcast.into_future().now_or_never().is_none());
/// let missed = missed.unwrap();
/// assert_eq!((missed.delivered_to(), missed.missed_by()), (&[0][..], &[1][..]));
/// assert_eq!(missed.into_item(), 2);
/// # });
/// ```
#[derive(Clone, Debug)]
#[must_use = "an item that is dropped here is lost for the destinations that missed it"]
pub struct Missed<M> {
    pub(super) item: M,
    pub(super) delivered_to: Vec<usize>,
    pub(super) others: Vec<usize>,
}

impl<M> Missed<M> {
    /// The item.
    ///
    /// ```
    /// fn keep(missed: watershed::channels::Missed<String>) -> String {
    ///     missed.into_item()
    /// }
    /// ```
    pub fn into_item(self) -> M {
        self.item
    }

    /// The positions of the destinations that have it, in order.
    ///
    /// ```
    /// fn nobody_has_it(missed: &watershed::channels::Missed<u32>) -> bool {
    ///     missed.delivered_to().is_empty()
    /// }
    /// ```
    #[must_use]
    pub fn delivered_to(&self) -> &[usize] {
        &self.delivered_to
    }

    /// The positions of the destinations that do not, in order.
    ///
    /// ```
    /// fn first_to_ask(missed: &watershed::channels::Missed<u32>) -> Option<usize> {
    ///     missed.missed_by().first().copied()
    /// }
    /// ```
    #[must_use]
    pub fn missed_by(&self) -> &[usize] {
        &self.others
    }
}
