//! Cancellation: a source that cancels, tokens that are asked and awaited.
//!
//! A source is a flag and the list of those who wait for it. A token is a list of such flags, so
//! linking tokens needs no task and leaves nothing behind to release. What it was cancelled for is
//! asked of the flags when an operation ends: the one that was set first has the answer.
//!
//! - here: who cancels; `token`: who is told, and waits

mod token;

pub use token::{CancellationToken, Cancelled};

use std::fmt;
use std::sync::Arc;

use crate::error::{BoxError, Error};
use crate::lock::Lock;
use crate::panics;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::process_counter;
use crate::waiters::Waiters;

process_counter! {
    /// The number of the next cancellation: of two sources it says which one was first.
    static NEXT = 1
}

/// Cancels the tokens it has handed out.
///
/// Clones are the same source. Dropping a source cancels nothing; a
/// [guard](CancellationSource::drop_guard) does. A token of another library, a signal, any future
/// that tells to stop becomes a token by awaiting it and then cancelling a source: see
/// [`guide::under_tokio`](crate::guide::under_tokio).
///
/// ```
/// use watershed::CancellationSource;
///
/// let source = CancellationSource::new();
/// let token = source.token();
/// assert!(!token.is_cancelled());
/// source.cancel();
/// assert!(token.is_cancelled());
/// ```
pub struct CancellationSource {
    leaf: Arc<Leaf>,
}

#[derive(Default)]
struct Leaf {
    cancelled: AtomicBool,
    /// How many sources of it there are but one; [`GONE`] where there is none, and none can come.
    others: AtomicUsize,
    state: Lock<TokenState>,
}

#[derive(Default)]
struct TokenState {
    waiters: Waiters,
    /// The number of its cancellation; 0 before it.
    number: u64,
    /// The error of those that it ends, where it was cancelled for a reason.
    reason: Option<Error>,
}

/// Nobody can cancel it any more.
const GONE: usize = usize::MAX;

impl Leaf {
    /// Whether it may be cancelled, or is.
    fn matters(&self) -> bool {
        self.others.load(Ordering::Acquire) != GONE || self.is_cancelled()
    }

    #[inline]
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Reads what was written last, however late that comes to this thread: a load might give an
    /// older value.
    fn is_cancelled_by_now(&self) -> bool {
        self.cancelled.fetch_or(false, Ordering::AcqRel)
    }
}

impl CancellationSource {
    /// A source that is not cancelled.
    ///
    /// ```
    /// assert!(!watershed::CancellationSource::new().is_cancelled());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self { leaf: Arc::default() }
    }

    /// A token that this source cancels.
    ///
    /// ```
    /// let token = watershed::CancellationSource::new().token();
    /// assert!(!token.is_cancelled(), "its source went away without cancelling");
    /// ```
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        CancellationToken::of(&self.leaf)
    }

    /// Cancels every token of this source and wakes whoever waits for one. Doing it again changes
    /// nothing. A waker that panics keeps no other from being woken.
    ///
    /// ```
    /// let source = watershed::CancellationSource::new();
    /// source.cancel();
    /// source.cancel();
    /// assert!(source.is_cancelled());
    /// ```
    pub fn cancel(&self) {
        self.cancel_as(None);
    }

    /// Cancels like [`cancel`](CancellationSource::cancel), and says what for: a text, or any
    /// error. It is the cause of the [`ErrorCode::Canceled`](crate::ErrorCode::Canceled) with which
    /// the operations end that have a token of this source, or one that is linked to it. The first
    /// cancellation counts: a later one changes no reason, and one of another source of a linked
    /// token neither.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use watershed::{CancellationSource, StepContext, timers::delay};
    ///
    /// let deploy = CancellationSource::new();
    /// let context = StepContext::new("orders").with_cancellation(deploy.token());
    /// deploy.cancel_with("version 7 is being rolled out");
    ///
    /// let error = delay(&context, Duration::MAX).await.unwrap_err();
    /// let what = "the operation was cancelled: version 7 is being rolled out";
    /// assert_eq!(format!("{error:#}"), what);
    /// # });
    /// ```
    pub fn cancel_with(&self, reason: impl Into<BoxError>) {
        self.cancel_as(Some(Error::canceled().with_source(reason)));
    }

    fn cancel_as(&self, mut reason: Option<Error>) {
        let waiters = {
            let mut state = self.leaf.state.lock();
            if state.number == 0 {
                state.number = NEXT.fetch_add(1, Ordering::Relaxed);
                state.reason = reason.take();
                // An exchange, because those who ask may do one as well: see `is_cancelled_by_now`.
                self.leaf.cancelled.swap(true, Ordering::AcqRel);
            }
            state.waiters.take()
        };
        // One that came too late is dropped here, outside the lock.
        drop(reason);
        panics::wake_each(waiters.into_values());
    }

    /// A guard that cancels the source when it is dropped, unless it is
    /// [disarmed](DropGuard::disarm) before: however the work ends that holds it, by a panic, `?`,
    /// or a future that is dropped, what was started for it is told to stop.
    ///
    /// ```
    /// let source = watershed::CancellationSource::new();
    /// let token = source.token();
    /// let request = source.drop_guard();
    /// assert!(!token.is_cancelled());
    /// drop(request);
    /// assert!(token.is_cancelled());
    /// ```
    pub fn drop_guard(self) -> DropGuard {
        DropGuard { source: Some(self) }
    }

    /// Whether the source has been cancelled.
    ///
    /// ```
    /// assert!(!watershed::CancellationSource::new().is_cancelled());
    /// ```
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.leaf.is_cancelled()
    }
}

impl Clone for CancellationSource {
    /// The same source.
    fn clone(&self) -> Self {
        self.leaf.others.fetch_add(1, Ordering::Relaxed);
        Self { leaf: Arc::clone(&self.leaf) }
    }
}

impl Drop for CancellationSource {
    fn drop(&mut self) {
        // Below zero is gone: tokens that are linked from then on leave it out.
        self.leaf.others.fetch_sub(1, Ordering::Release);
    }
}

impl Default for CancellationSource {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CancellationSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancellationSource").field("cancelled", &self.is_cancelled()).finish()
    }
}

/// Cancels its source when it is dropped, made by [`CancellationSource::drop_guard`].
///
/// ```
/// use watershed::CancellationSource;
///
/// fn import(lines: &[&str], source: CancellationSource) -> Result<i64, std::num::ParseIntError> {
///     let guard = source.drop_guard();
///     let sum = lines.iter().map(|line| line.parse::<i64>()).sum::<Result<i64, _>>()?;
///     guard.disarm();
///     Ok(sum)
/// }
///
/// let (good, bad) = (CancellationSource::new(), CancellationSource::new());
/// assert!(import(&["1", "2"], good.clone()).is_ok() && !good.is_cancelled());
/// assert!(import(&["1", "two"], bad.clone()).is_err() && bad.is_cancelled());
/// ```
#[must_use = "a guard that is dropped at once cancels at once"]
pub struct DropGuard {
    /// There until it is disarmed.
    source: Option<CancellationSource>,
}

impl DropGuard {
    /// Gives the source back, which is not cancelled for the sake of this guard any more.
    ///
    /// ```
    /// let guard = watershed::CancellationSource::new().drop_guard();
    /// assert!(!guard.disarm().is_cancelled());
    /// ```
    #[allow(clippy::must_use_candidate, reason = "it is called for what it does")]
    pub fn disarm(mut self) -> CancellationSource {
        self.source.take().unwrap_or_default()
    }
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        if let Some(source) = &self.source {
            source.cancel();
        }
    }
}

impl fmt::Debug for DropGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cancelled = self.source.as_ref().is_some_and(CancellationSource::is_cancelled);
        f.debug_struct("DropGuard").field("cancelled", &cancelled).finish()
    }
}
