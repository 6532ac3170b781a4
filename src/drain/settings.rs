//! The options of a drain that are neither its sources nor its code.

use std::time::Duration;

use crate::cancellation::CancellationToken;
use crate::error::Error;
use crate::operation::DEFAULT_GRACE;
use crate::retry::RetryPolicy;
use crate::undo::CompensationPolicy;

/// What success does to the compensations of a drain's messages.
///
/// ```
/// assert_eq!(watershed::Commit::default(), watershed::Commit::Pipeline);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Commit {
    /// When the whole drain succeeds, the compensations that its messages staged are removed, and
    /// only those. In a drain on the step of another drain's message they go to that step instead,
    /// and are final when the outer message is.
    #[default]
    Pipeline,
    /// A message's compensations are removed when its handler returns `Ok`: an endless feed runs
    /// in constant memory.
    Message,
    /// Nothing is removed: the caller decides.
    Never,
}

/// What a message does to the drain that has failed and has no attempts left.
///
/// ```
/// assert_eq!(watershed::OnFailure::default(), watershed::OnFailure::Abort);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The drain ends with the error, and every compensation stays staged for the caller. A message
    /// that is settled with a [transport](crate::transport) is undone at once all the same, and released.
    #[default]
    Abort,
    /// The message's own compensations run at once, and the drain goes on.
    Continue,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) concurrency: usize,
    pub(super) per_source: Option<usize>,
    pub(super) quantum: usize,
    pub(super) timeout: Option<Duration>,
    pub(super) message_timeout: Option<Duration>,
    pub(super) grace: Duration,
    pub(super) cancellation: CancellationToken,
    pub(super) shutdown: Option<CancellationToken>,
    pub(super) finish_within: Option<Duration>,
    /// As it was said; else it goes by whether messages are settled.
    pub(super) commit: Option<Commit>,
    /// As it was said; else it goes by whether there are dead letters.
    pub(super) on_failure: Option<OnFailure>,
    pub(super) has_letters: bool,
    pub(super) policy: Option<CompensationPolicy>,
    pub(super) retry: Option<RetryPolicy>,
    pub(super) max_waiting: Option<usize>,
    pub(super) letter_timeout: Option<Duration>,
    pub(super) until_idle: bool,
    pub(super) rate: Option<(usize, Duration)>,
}

/// The longest turn that can be asked for.
pub(super) const LONGEST_TURN: usize = 256;

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 1,
            per_source: None,
            quantum: 64,
            timeout: None,
            message_timeout: None,
            grace: DEFAULT_GRACE,
            cancellation: CancellationToken::never(),
            shutdown: None,
            finish_within: None,
            commit: None,
            on_failure: None,
            has_letters: false,
            policy: None,
            retry: None,
            max_waiting: None,
            letter_timeout: None,
            until_idle: false,
            rate: None,
        }
    }
}

impl Settings {
    /// Refuses what cannot be meant, before anything is taken.
    pub(super) fn validate(&self) -> Result<(), Error> {
        positive("concurrency", self.concurrency)?;
        positive("per_source_concurrency", self.per_source.unwrap_or(1))?;
        positive("quantum", self.quantum)?;
        positive("max_waiting", self.max_waiting.unwrap_or(1))?;
        if self.quantum > LONGEST_TURN {
            let message = format!("`quantum` is at most {LONGEST_TURN} messages");
            return Err(Error::validation(message));
        }
        if let Some((most, per)) = self.rate {
            positive("rate", most)?;
            if per.is_zero() {
                return Err(Error::validation("the span of `rate` must not be zero"));
            }
        }
        if let Some(retry) = &self.retry {
            retry.validate()?;
        }
        if let Some(policy) = &self.policy {
            policy.check()?;
        }
        Ok(())
    }

    /// Whether a message that fails is undone alone.
    pub(super) fn undoes_messages(&self) -> bool {
        self.goes_on() || self.retry.is_some()
    }

    /// Whether the drain goes on when a message has failed.
    pub(super) fn goes_on(&self) -> bool {
        let default = if self.has_letters { OnFailure::Continue } else { OnFailure::default() };
        self.on_failure.unwrap_or(default) == OnFailure::Continue
    }

    pub(super) fn max_waiting(&self) -> usize {
        self.max_waiting.unwrap_or(1_024)
    }

    /// A letter was not stored in time.
    pub(super) fn late_letter(&self) -> Error {
        Error::timeout("the dead letters", self.letter_timeout())
    }

    pub(super) fn letter_timeout(&self) -> Duration {
        self.letter_timeout.unwrap_or(Duration::from_secs(30))
    }
}

fn positive(option: &str, value: usize) -> Result<(), Error> {
    if value > 0 {
        return Ok(());
    }
    Err(Error::validation(format!("`{option}` must not be 0")))
}
