//! What a rollback did, action by action where one failed.

use std::fmt;
use std::panic::Location;

use crate::error::{Error, ErrorCode, Failure};

/// An action that failed for good in one rollback. It is still staged and can be run again.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{CompensationPolicy, CompensationScope, labelled};
///
/// let scope = CompensationScope::new();
/// scope.register_compensation(labelled("free the seat", async || Err("no connection")));
/// let failure = scope.roll_back(&CompensationPolicy::default()).await.unwrap_err();
/// let failed = &failure.report().failures()[0];
/// assert_eq!(failed.label(), Some("free the seat"));
/// assert!(failed.to_string().ends_with("failed after 1 attempt(s): the compensation failed"));
/// # scope.clear();
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct FailedAction {
    pub(super) number: u64,
    pub(super) label: Option<String>,
    pub(super) registered_at: &'static Location<'static>,
    pub(super) attempts: u32,
    pub(super) error: Error,
}

impl FailedAction {
    /// The label the action was registered with.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The place in the source code that registered the action.
    #[must_use]
    pub fn registered_at(&self) -> &'static Location<'static> {
        self.registered_at
    }

    /// How many times the action was tried.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The error of the last attempt; a panic is [`ErrorCode::Panic`], an attempt that took too long
    /// [`ErrorCode::Timeout`].
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
/// use watershed::{CompensationPolicy, CompensationScope};
///
/// let scope = CompensationScope::new();
/// scope.register_compensation(async || {});
/// let report = scope.roll_back(&CompensationPolicy::default()).await?;
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
    #[must_use]
    pub fn succeeded(&self) -> usize {
        self.succeeded
    }

    /// The actions that failed, in the order in which they were given up.
    #[must_use]
    pub fn failures(&self) -> &[FailedAction] {
        &self.failures
    }

    /// The error of a rollback with failures. Its cause is the first of them.
    pub(super) fn to_error(&self) -> Option<Error> {
        let first = self.failures.first()?;
        let (failed, all) = (self.failures.len(), self.failures.len() + self.succeeded);
        let message = format!("{failed} of {all} compensation(s) failed and are still staged");
        let error = Error::new(ErrorCode::Compensation, message).with_source(first.error.clone());
        Some(error.with_related(self.failures.iter().map(FailedAction::to_error)))
    }

    pub(super) fn into_result(self) -> Result<Self, Failure<Self>> {
        match self.to_error() {
            None => Ok(self),
            Some(error) => Err(Failure::new(error, self)),
        }
    }
}
