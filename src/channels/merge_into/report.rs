//! What a merge did.

use std::sync::Arc;
use std::time::Duration;

/// What a merge that succeeded did, in all and by source.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::channels::merge_into;
/// use watershed::{Source, StepContext};
///
/// let (sender, _receiver) = async_channel::unbounded();
/// let sources = [stream::iter([1, 2]).named("a"), stream::iter([3, 4]).named("b")];
/// let report = merge_into(&StepContext::new("merge"), sources, sender).await?;
/// assert_eq!(report.delivered(), 4);
/// assert_eq!((report.sources()[0].name(), report.sources()[0].delivered()), ("a", 2));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct MergeReport {
    pub(super) elapsed: Duration,
    pub(super) sources: Vec<MergedSource>,
}

impl MergeReport {
    /// Messages that the destination took.
    ///
    /// ```
    /// assert_eq!(watershed::channels::MergeReport::default().delivered(), 0);
    /// ```
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.sources.iter().map(MergedSource::delivered).sum()
    }

    /// From the first poll to the result, by the context's clock; zero if it stepped back.
    ///
    /// ```
    /// assert!(watershed::channels::MergeReport::default().elapsed().is_zero());
    /// ```
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The sources, in the order in which the merge was given them.
    ///
    /// ```
    /// assert!(watershed::channels::MergeReport::default().sources().is_empty());
    /// ```
    #[must_use]
    pub fn sources(&self) -> &[MergedSource] {
        &self.sources
    }
}

/// What a merge did with one source, see [`MergeReport::sources`].
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::StepContext;
/// use watershed::channels::merge_into;
///
/// let (sender, _receiver) = async_channel::unbounded();
/// let report = merge_into(&StepContext::new("merge"), [stream::iter([1])], sender).await?;
/// assert_eq!(report.sources()[0].name(), "source 0");
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct MergedSource {
    pub(super) name: Arc<str>,
    pub(super) delivered: u64,
}

impl MergedSource {
    /// The name of the source, or `source N` with its position, the first one being 0.
    ///
    /// ```
    /// fn busy(report: &watershed::channels::MergeReport) -> Vec<&str> {
    ///     let busy = report.sources().iter().filter(|source| source.delivered() > 100);
    ///     busy.map(|source| source.name()).collect()
    /// }
    /// # assert!(busy(&watershed::channels::MergeReport::default()).is_empty());
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Messages of the source that the destination took.
    ///
    /// ```
    /// fn idle(report: &watershed::channels::MergeReport) -> usize {
    ///     report.sources().iter().filter(|source| source.delivered() == 0).count()
    /// }
    /// # assert_eq!(idle(&watershed::channels::MergeReport::default()), 0);
    /// ```
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered
    }
}
