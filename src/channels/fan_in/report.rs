//! What a drain did.

use std::time::Duration;

use crate::compensation::RollbackReport;
use crate::error::Error;
use crate::origin::SourceName;

/// What a drain that succeeded did, in all and by source.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::{BoxError, Source, StepContext, fan_in};
///
/// let sources = [stream::iter([1, 2]).named("a"), stream::iter([3, 4]).named("b")];
/// let context = StepContext::new("drain");
/// let report = fan_in(&context, sources, |_, _| async { Ok::<_, BoxError>(()) }).await?;
/// assert_eq!(report.handled(), 4);
/// assert_eq!((report.sources()[0].name(), report.sources()[0].handled()), ("a", 2));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct FanInReport {
    pub(super) elapsed: Duration,
    pub(super) sources: Vec<SourceReport>,
}

impl FanInReport {
    /// Messages whose handler returned `Ok`.
    ///
    /// ```
    /// assert_eq!(watershed::FanInReport::default().handled(), 0);
    /// ```
    #[must_use]
    pub fn handled(&self) -> u64 {
        self.sources.iter().map(SourceReport::handled).sum()
    }

    /// Messages that failed and were rolled back alone, see
    /// [`OnFailure::RollBackMessage`](crate::OnFailure::RollBackMessage).
    ///
    /// ```
    /// assert_eq!(watershed::FanInReport::default().rolled_back(), 0);
    /// ```
    #[must_use]
    pub fn rolled_back(&self) -> u64 {
        self.sources.iter().map(SourceReport::rolled_back).sum()
    }

    /// From the first poll to the result, by the context's clock; zero if it stepped back.
    ///
    /// ```
    /// assert!(watershed::FanInReport::default().elapsed().is_zero());
    /// ```
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The sources, in the order in which the drain was given them.
    ///
    /// ```
    /// assert!(watershed::FanInReport::default().sources().is_empty());
    /// ```
    #[must_use]
    pub fn sources(&self) -> &[SourceReport] {
        &self.sources
    }
}

/// What a drain did with one source, see [`FanInReport::sources`].
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::{BoxError, StepContext, fan_in};
///
/// let context = StepContext::new("drain");
/// let sources = [stream::iter([1, 2])];
/// let report = fan_in(&context, sources, |_, _| async { Ok::<_, BoxError>(()) }).await?;
/// assert_eq!(report.sources()[0].name(), "source 0");
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct SourceReport {
    pub(super) name: SourceName,
    pub(super) handled: u64,
    pub(super) rolled_back: u64,
}

impl SourceReport {
    /// The name of the source, or `source N` with its position, the first one being 0.
    ///
    /// ```
    /// fn busy(report: &watershed::FanInReport) -> Vec<&str> {
    ///     let busy = report.sources().iter().filter(|source| source.handled() > 100);
    ///     busy.map(|source| source.name()).collect()
    /// }
    /// # assert!(busy(&watershed::FanInReport::default()).is_empty());
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Messages whose handler returned `Ok`.
    ///
    /// ```
    /// fn idle(report: &watershed::FanInReport) -> usize {
    ///     report.sources().iter().filter(|source| source.handled() == 0).count()
    /// }
    /// # assert_eq!(idle(&watershed::FanInReport::default()), 0);
    /// ```
    #[must_use]
    pub fn handled(&self) -> u64 {
        self.handled
    }

    /// Messages that failed and were rolled back alone.
    ///
    /// ```
    /// fn is_clean(source: &watershed::SourceReport) -> bool {
    ///     source.rolled_back() == 0
    /// }
    /// ```
    #[must_use]
    pub fn rolled_back(&self) -> u64 {
        self.rolled_back
    }
}

/// A message that failed and was rolled back alone: what the dead-letter callback gets.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::{OnFailure, StepContext, fan_in};
///
/// let mut failed = Vec::new();
/// let context = StepContext::new("drain");
/// fan_in(&context, [stream::iter(["1", "x", "3"])], |text, _| async move {
///     text.parse::<u32>().map(drop)
/// })
/// .on_failure(OnFailure::RollBackMessage)
/// .dead_letter(|message| failed.push(message.error().message_number()))
/// .await?;
/// assert_eq!(failed, [Some(2)]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct FailedMessage {
    pub(super) error: Error,
    pub(super) rollback: Result<RollbackReport, Error>,
}

impl FailedMessage {
    /// Why the message failed, with the name of its source and its number there.
    ///
    /// ```
    /// fn tell(failed: &watershed::FailedMessage) {
    ///     eprintln!("{}", failed.error());
    /// }
    /// ```
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// How the rollback of the message's own compensations went. Those that failed are staged on
    /// the scope of the drain's context.
    ///
    /// # Errors
    ///
    /// The rollback's error, when compensations failed.
    ///
    /// ```
    /// fn is_undone(failed: &watershed::FailedMessage) -> bool {
    ///     failed.rollback().is_ok()
    /// }
    /// ```
    pub fn rollback(&self) -> Result<&RollbackReport, &Error> {
        self.rollback.as_ref()
    }
}
