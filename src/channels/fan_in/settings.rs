//! The options of a drain that are neither its sources nor its code.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::cancellation::CancellationToken;
use crate::compensation::CompensationPolicy;

/// What success does to the compensations of a drain's messages.
///
/// ```
/// assert_eq!(watershed::Commit::default(), watershed::Commit::Pipeline);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Commit {
    /// When the whole drain succeeds, the compensations that its messages staged are removed, and
    /// only those.
    #[default]
    Pipeline,
    /// A message's compensations are removed when its handler returns `Ok`: an endless feed runs
    /// in constant memory.
    Message,
    /// Nothing is removed: the caller decides.
    Never,
}

/// What the failure of one message does to the drain.
///
/// ```
/// assert_eq!(watershed::OnFailure::default(), watershed::OnFailure::Abort);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The drain ends with the error, and every compensation stays staged for the caller.
    #[default]
    Abort,
    /// The message's own compensations run at once, the dead-letter callback is told, and the
    /// drain goes on.
    RollBackMessage,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) concurrency: NonZeroUsize,
    pub(super) per_source: Option<NonZeroUsize>,
    pub(super) quantum: NonZeroUsize,
    pub(super) timeout: Option<Duration>,
    pub(super) message_timeout: Option<Duration>,
    pub(super) grace: Duration,
    pub(super) cancellation: CancellationToken,
    pub(super) commit: Commit,
    pub(super) on_failure: OnFailure,
    pub(super) policy: CompensationPolicy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: NonZeroUsize::MIN,
            per_source: None,
            quantum: NonZeroUsize::MIN.saturating_add(63),
            timeout: None,
            message_timeout: None,
            grace: Duration::from_secs(5),
            cancellation: CancellationToken::never(),
            commit: Commit::default(),
            on_failure: OnFailure::default(),
            policy: CompensationPolicy::default(),
        }
    }
}
