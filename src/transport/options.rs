//! What can be said of a link.

use std::time::Duration;

use crate::error::Error;
use crate::retry::RetryPolicy;

#[derive(Clone, Debug)]
pub(super) struct LinkOptions {
    pub(super) settle_within: Duration,
    pub(super) max_unsettled: usize,
    pub(super) max_ahead: usize,
    pub(super) max_deliveries: Option<u32>,
    pub(super) revoke_within: Option<Duration>,
    pub(super) unreachable_for: Option<Duration>,
    /// After how many failures in a row taking slows down, and how.
    pub(super) slow_down: (u32, RetryPolicy),
}

/// The longest wait between two tries at what passes, and between two messages of a source whose
/// handlers fail.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Default for LinkOptions {
    fn default() -> Self {
        let slowly = RetryPolicy::exponential(u32::MAX, Duration::from_millis(100));
        Self {
            settle_within: Duration::from_secs(30),
            max_unsettled: 1_024,
            max_ahead: 1_024,
            max_deliveries: None,
            revoke_within: None,
            unreachable_for: None,
            slow_down: (10, slowly.cap(LONGEST_WAIT)),
        }
    }
}

impl LinkOptions {
    pub(super) fn check(&self) -> Result<(), Error> {
        let positive = [
            ("settle_within", self.settle_within > Duration::ZERO),
            ("max_unsettled", self.max_unsettled > 0),
            ("max_ahead", self.max_ahead > 0),
            ("max_deliveries", self.max_deliveries != Some(0)),
            ("slow_down_after", self.slow_down.0 > 0),
            ("unreachable_for", self.unreachable_for != Some(Duration::ZERO)),
        ];
        self.slow_down.1.validate()?;
        match positive.iter().find(|(_, holds)| !holds) {
            Some((option, _)) => Err(Error::validation(format!("`{option}` must not be 0"))),
            None => Ok(()),
        }
    }
}

/// How long to wait after so many failures in a row, of what is tried again for ever.
pub(super) fn back_off(failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    Duration::from_millis(100).saturating_mul(doubled).min(LONGEST_WAIT)
}
