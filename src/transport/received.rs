//! What a transport is asked for, and what it brings.

use std::fmt;
use std::time::Duration;

use crate::cancellation::CancellationToken;
use crate::error::Error;
use crate::settlement::{Assignment, Facts};

/// What a transport is asked to fetch: see [`Transport::fetch`](super::Transport::fetch).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Want {
    /// Of which partition, and in which generation: nothing of another one.
    pub assignment: Assignment,
    /// At least 1.
    pub at_most: usize,
    /// How long to wait for a first message. Whoever waits longer than its lease brings nothing that
    /// can be handled.
    pub wait: Duration,
    /// The [limit](super::Link::max_deliveries) above which a message goes to the dead letters: a
    /// transport that puts aside by itself what comes too often has to have a higher one.
    pub max_deliveries: Option<u32>,
    /// Cancelled when nothing is wanted any more; what has arrived is to be returned all the same.
    pub stop: CancellationToken,
}

impl Want {
    /// So many messages of no partition, without waiting for a first one: what the tests of an adapter
    /// ask it for. What else is wanted can be set.
    ///
    /// ```
    /// use std::time::Duration;
    /// use watershed::transport::Want;
    ///
    /// let mut want = Want::new(10);
    /// want.wait = Duration::from_secs(1);
    /// assert!(!want.stop.is_cancelled());
    /// ```
    #[must_use]
    pub fn new(at_most: usize) -> Self {
        let stop = CancellationToken::never();
        let (assignment, wait) = (Assignment::default(), Duration::ZERO);
        Self { assignment, at_most, wait, max_deliveries: None, stop }
    }
}

/// A message as an adapter fetched it.
///
/// ```
/// use std::time::Duration;
/// use watershed::transport::{Facts, Received};
///
/// let received = Received::new("{}", 17_u64)
///     .leased_for(Duration::from_secs(30))
///     .with_facts(Facts { deliveries: Some(1), ..Facts::default() });
/// # drop(received);
/// ```
#[must_use]
pub struct Received<M, R> {
    pub(super) message: M,
    pub(super) receipt: R,
    pub(super) lease: Option<Duration>,
    pub(super) facts: Facts,
}

impl<M, R> Received<M, R> {
    /// A message, and what it is settled by.
    pub fn new(message: M, receipt: R) -> Self {
        Self { message, receipt, lease: None, facts: Facts::default() }
    }

    /// It is ours for so long, counted from when the fetch was called. Default: for ever.
    pub fn leased_for(mut self, term: Duration) -> Self {
        self.lease = Some(term);
        self
    }

    /// What else is known of it.
    pub fn with_facts(mut self, facts: Facts) -> Self {
        self.facts = facts;
        self
    }

    /// The message, its receipt, how long it is ours, and what is known of it: for the tests of an
    /// adapter.
    pub fn into_parts(self) -> (M, R, Option<Duration>, Facts) {
        (self.message, self.receipt, self.lease, self.facts)
    }
}

impl<M, R> fmt::Debug for Received<M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("lease", &self.lease)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// What a fetch brings: messages, or `None` where the source has ended and that was asked for.
pub type Fetched<M, R> = Result<Option<Vec<Received<M, R>>>, Trouble>;

/// What became of a renewal.
#[derive(Clone, Debug)]
pub enum Renewed {
    /// The lease runs for so long, counted from when the renewal was called.
    For(Duration),
    /// Not now: it is tried again until the lease runs out.
    Failed(Error),
    /// The lease is no longer ours.
    Lost(Error),
    /// It cannot be renewed further, and runs out when it does.
    AtMaximum,
}

impl Renewed {
    pub(super) fn into_error(self) -> Option<Error> {
        match self {
            Self::Failed(error) | Self::Lost(error) => Some(error),
            Self::For(_) | Self::AtMaximum => None,
        }
    }
}

/// Why a transport could not do what it was asked for.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// It passes: a connection, too many requests, no leader. It is tried again, with a back-off.
    Passes(Error),
    /// It does not: no such queue, not allowed, put out by another client. The drain ends with it.
    Lasts(Error),
}
