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
    pub(super) departed: u64,
    pub(super) departed_total: DestinationReport,
    /// Who has the item that was in between at the end, and who does not.
    pub(super) delivered_to: Vec<usize>,
    pub(super) missed_by: Vec<usize>,
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

    /// The destinations that the broadcast was given at its start, and those that came
    /// [later](crate::channels::Subscribers) and were there at its end, in the order of their
    /// positions.
    ///
    /// ```
    /// assert!(watershed::channels::BroadcastReport::default().destinations().is_empty());
    /// ```
    #[must_use]
    pub fn destinations(&self) -> &[DestinationReport] {
        &self.destinations
    }

    /// How many destinations came while the broadcast ran and went before its end: removed, or closed.
    #[must_use]
    pub fn departed(&self) -> u64 {
        self.departed
    }

    /// What became of the items of all [those](BroadcastReport::departed) together. It has no
    /// position.
    #[must_use]
    pub fn departed_total(&self) -> &DestinationReport {
        &self.departed_total
    }

    /// The positions of the destinations that have the last item, where the broadcast ended before
    /// all of them had it. Otherwise, there is none.
    #[must_use]
    pub fn delivered_to(&self) -> &[usize] {
        &self.delivered_to
    }

    /// The positions of the destinations that do not have the last item, where the broadcast ended
    /// before all of them had it. Otherwise, there is none.
    #[must_use]
    pub fn missed_by(&self) -> &[usize] {
        &self.missed_by
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
    pub(super) position: usize,
    pub(super) delivered: u64,
    pub(super) dropped: u64,
    pub(super) missed: u64,
    pub(super) detached: bool,
    pub(super) removed: bool,
    pub(super) failed: bool,
}

impl DestinationReport {
    /// Adds what another one did.
    pub(super) fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.dropped += other.dropped;
        self.missed += other.missed;
        self.detached |= other.detached;
        self.removed |= other.removed;
        self.failed |= other.failed;
    }

    /// Its number, in the order in which the broadcast was given its destinations; the first one is 0.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Items that were taken for it and did not reach it, because it was closed, failed or was
    /// removed, or the broadcast ended, with the item in hand.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Whether it was [removed](crate::channels::Subscribers::remove).
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed
    }

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

    /// Whether it failed, was closed where that is a failure, or had no room where that is one.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failed
    }
}
