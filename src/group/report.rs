//! What a group tells about its tasks.

use crate::panics;

/// The tasks of a group, counted, and what they returned.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::group::Group;
/// use watershed::{BoxError, StepContext};
///
/// let group = Group::collecting(&StepContext::new("prices"));
/// for shop in ["near", "far"] {
///     group.go(shop, move |_| async move { Ok::<_, BoxError>(shop.len()) })?;
/// }
/// assert_eq!(group.report().outstanding(), 2);
/// let report = group.wait().await?;
/// assert_eq!((report.additions(), report.succeeded(), report.outstanding()), (2, 2, 0));
/// assert_eq!(report.into_values(), [4, 3]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport<T = ()> {
    pub(super) additions: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) dropped: u64,
    pub(super) values: Vec<T>,
}

impl<T> GroupReport<T> {
    /// The same counts with these values.
    pub(super) fn with_values<U>(&self, values: Vec<U>) -> GroupReport<U> {
        let Self { additions, succeeded, failed, dropped, values: _ } = *self;
        GroupReport { additions, succeeded, failed, dropped, values }
    }

    /// Tasks that were added.
    #[must_use]
    pub fn additions(&self) -> u64 {
        self.additions
    }

    /// Tasks that have ended, in whatever way.
    #[must_use]
    pub fn completions(&self) -> u64 {
        self.succeeded + self.failed + self.dropped
    }

    /// Tasks that have not ended: after the wait, those left on their executor when the grace was
    /// over.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.additions.saturating_sub(self.completions())
    }

    /// Tasks that returned `Ok`.
    #[must_use]
    pub fn succeeded(&self) -> u64 {
        self.succeeded
    }

    /// Tasks that returned an error, panicked, or were dropped by their executor.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Tasks that the group dropped when its grace was over or it was dropped itself, and those
    /// that never began because the group had been told to stop.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What the tasks returned that succeeded, in the order in which they were added. The report of
    /// a group that still [runs](super::Group::report) has none.
    #[must_use]
    pub fn into_values(mut self) -> Vec<T> {
        std::mem::take(&mut self.values)
    }
}

/// What nobody takes is dropped one by one.
impl<T> Drop for GroupReport<T> {
    fn drop(&mut self) {
        panics::drop_each(self.values.drain(..));
    }
}

impl<T> Default for GroupReport<T> {
    fn default() -> Self {
        Self { additions: 0, succeeded: 0, failed: 0, dropped: 0, values: Vec::new() }
    }
}

/// What tasks returned, by their numbers. Values without a size take no memory, and have no order.
#[derive(Debug)]
pub(super) struct Values<T> {
    numbers: Vec<u64>,
    values: Vec<T>,
}

impl<T> Values<T> {
    pub(super) fn keep(&mut self, number: u64, value: T) {
        if size_of::<T>() > 0 {
            self.numbers.push(number);
        }
        self.values.push(value);
    }

    /// All of them, in the order of their tasks.
    pub(super) fn in_order(mut self) -> Vec<T> {
        let (numbers, values) =
            (std::mem::take(&mut self.numbers), std::mem::take(&mut self.values));
        if numbers.is_sorted() {
            return values;
        }
        let mut values: Vec<_> = numbers.into_iter().zip(values).collect();
        values.sort_unstable_by_key(|(number, _)| *number);
        values.into_iter().map(|(_, value)| value).collect()
    }
}

/// Values that nobody takes are the user's, and each of them may panic.
impl<T> Drop for Values<T> {
    fn drop(&mut self) {
        panics::drop_each(std::mem::take(&mut self.values));
    }
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { numbers: Vec::new(), values: Vec::new() }
    }
}
