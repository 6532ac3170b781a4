//! What a group tells about its tasks.

/// The tasks of a group, counted.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::group::WaitGroup;
/// use watershed::{BoxError, StepContext};
///
/// let group = WaitGroup::new(&StepContext::new("orders"));
/// group.go("mail", async |_| Ok::<_, BoxError>(()))?;
/// assert_eq!(group.report().outstanding(), 1);
/// let report = group.wait().await?;
/// assert_eq!((report.additions(), report.completions(), report.outstanding()), (1, 1, 0));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupReport {
    pub(super) additions: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) dropped: u64,
}

impl GroupReport {
    /// Tasks that were added.
    ///
    /// ```
    /// assert_eq!(watershed::group::GroupReport::default().additions(), 0);
    /// ```
    #[must_use]
    pub fn additions(&self) -> u64 {
        self.additions
    }

    /// Tasks that have ended, in whatever way.
    ///
    /// ```
    /// assert_eq!(watershed::group::GroupReport::default().completions(), 0);
    /// ```
    #[must_use]
    pub fn completions(&self) -> u64 {
        self.succeeded + self.failed + self.dropped
    }

    /// Tasks that have not ended.
    ///
    /// ```
    /// assert_eq!(watershed::group::GroupReport::default().outstanding(), 0);
    /// ```
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.additions.saturating_sub(self.completions())
    }

    /// Tasks that returned `Ok`.
    ///
    /// ```
    /// assert_eq!(watershed::group::GroupReport::default().succeeded(), 0);
    /// ```
    #[must_use]
    pub fn succeeded(&self) -> u64 {
        self.succeeded
    }

    /// Tasks that returned an error, panicked, or were dropped by their executor.
    ///
    /// ```
    /// assert_eq!(watershed::group::GroupReport::default().failed(), 0);
    /// ```
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Tasks that the group dropped when its grace was over or it was dropped itself, and those
    /// that never began because the group had been told to stop.
    ///
    /// ```
    /// assert_eq!(watershed::group::GroupReport::default().dropped(), 0);
    /// ```
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
