//! What a rollback did, action by action where one failed.

use std::fmt;
use std::panic::Location;

use crate::error::{Error, ErrorCode};

/// An action that failed for good in one rollback. It is still staged and can be run again.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::*;
///
/// let scope = CompensationScope::new();
/// scope.register_compensation(labelled("free the seat", || async { Err("no connection") }));
/// let error = scope
///     .run_compensation(&CompensationPolicy::default(), CancellationToken::never())
///     .await
///     .unwrap_err();
/// let report = error.downcast_ref::<RollbackFailed>().unwrap().report();
/// let failed = &report.failures()[0];
/// assert_eq!(failed.label(), Some("free the seat"));
/// assert_eq!(failed.attempts(), 1);
/// # scope.clear();
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct FailedAction {
    pub(super) label: Option<String>,
    pub(super) registered_at: &'static Location<'static>,
    pub(super) attempts: u32,
    pub(super) error: Error,
}

impl FailedAction {
    /// The label the action was registered with.
    ///
    /// ```
    /// fn label(action: &watershed::FailedAction) -> &str {
    ///     action.label().unwrap_or("without a label")
    /// }
    /// ```
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The place in the source code that registered the action.
    ///
    /// ```
    /// fn file(action: &watershed::FailedAction) -> &'static str {
    ///     action.registered_at().file()
    /// }
    /// ```
    #[must_use]
    pub fn registered_at(&self) -> &'static Location<'static> {
        self.registered_at
    }

    /// How many times the action was tried.
    ///
    /// ```
    /// fn was_retried(action: &watershed::FailedAction) -> bool {
    ///     action.attempts() > 1
    /// }
    /// ```
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The error of the last attempt; a panic is [`ErrorCode::Panic`].
    ///
    /// ```
    /// fn panicked(action: &watershed::FailedAction) -> bool {
    ///     action.error().code() == watershed::ErrorCode::Panic
    /// }
    /// ```
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The error of this action alone, with the rest of what is known as its metadata.
    fn to_error(&self) -> Error {
        let error = self.error.clone().with_metadata("registered_at", self.registered_at);
        let error = error.with_metadata("attempts", self.attempts);
        match &self.label {
            Some(label) => error.with_metadata("label", label),
            None => error,
        }
    }
}

impl fmt::Display for FailedAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.label {
            Some(label) => write!(f, "`{label}` registered at {}", self.registered_at)?,
            None => write!(f, "the action registered at {}", self.registered_at)?,
        }
        write!(f, " failed after {} attempt(s): {}", self.attempts, self.error)
    }
}

/// What a rollback did.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{CancellationToken, CompensationPolicy, CompensationScope};
///
/// let scope = CompensationScope::new();
/// scope.register_compensation(|| async {});
/// let report = scope
///     .run_compensation(&CompensationPolicy::default(), CancellationToken::never())
///     .await?;
/// assert_eq!(report.succeeded(), 1);
/// assert!(report.failures().is_empty());
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct RollbackReport {
    pub(super) succeeded: usize,
    pub(super) failures: Vec<FailedAction>,
}

impl RollbackReport {
    /// How many actions ran and succeeded, those that a concurrent rollback of the same scope ran
    /// meanwhile included.
    ///
    /// ```
    /// assert_eq!(watershed::RollbackReport::default().succeeded(), 0);
    /// ```
    #[must_use]
    pub fn succeeded(&self) -> usize {
        self.succeeded
    }

    /// The actions that failed, in the order in which they were given up.
    ///
    /// ```
    /// assert!(watershed::RollbackReport::default().failures().is_empty());
    /// ```
    #[must_use]
    pub fn failures(&self) -> &[FailedAction] {
        &self.failures
    }

    pub(super) fn into_result(self) -> Result<Self, Error> {
        if self.failures.is_empty() {
            return Ok(self);
        }
        let related: Vec<Error> = self.failures.iter().map(FailedAction::to_error).collect();
        let message = format!("{} compensation(s) failed and are still staged", related.len());
        let error = Error::new(ErrorCode::Compensation, message);
        Err(error.with_related(related).with_source(RollbackFailed(self)))
    }
}

/// The cause of an [`ErrorCode::Compensation`] error of a rollback: its whole report.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::*;
///
/// let scope = CompensationScope::new();
/// scope.register_compensation(|| async {});
/// scope.register_compensation(|| async { Err("no connection") });
/// let rollback = scope.run_compensation(&CompensationPolicy::default(), Default::default());
/// let error = rollback.await.unwrap_err();
/// let report = error.downcast_ref::<RollbackFailed>().unwrap().report();
/// assert_eq!((report.succeeded(), report.failures().len()), (1, 1));
/// # scope.clear();
/// # });
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} of {} compensations failed; first {}", .0.failures.len(),
    .0.failures.len() + .0.succeeded, .0.failures[0])]
pub struct RollbackFailed(RollbackReport);

impl RollbackFailed {
    /// What the rollback did, the actions that succeeded counted, those that failed listed.
    ///
    /// ```
    /// fn stuck(error: &watershed::Error) -> usize {
    ///     let failed = error.downcast_ref::<watershed::RollbackFailed>();
    ///     failed.map_or(0, |failed| failed.report().failures().len())
    /// }
    /// # assert_eq!(stuck(&watershed::Error::validation("x")), 0);
    /// ```
    #[must_use]
    pub fn report(&self) -> &RollbackReport {
        &self.0
    }
}
