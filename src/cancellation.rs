//! Cancellation: a source that cancels, tokens that are asked and awaited.
//!
//! A source is a flag and the list of those who wait for it. A token is a list of such flags, so
//! linking tokens needs no task and leaves nothing behind to release. What it was cancelled for is
//! asked of the flags when an operation ends: the one that was set first has the answer.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::error::{BoxError, Error};
use crate::lock::Lock;
use crate::panics;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::process_counter;
use crate::waiters::Waiters;

/// So many sources of a linked token are compared one by one; more are looked up.
const FEW_LEAVES: usize = 16;

process_counter! {
    /// The number of the next cancellation: of two sources it says which one was first.
    static NEXT = 1
}

/// Cancels the tokens it has handed out.
///
/// Clones are the same source. Dropping a source cancels nothing; a
/// [guard](CancellationSource::drop_guard) does.
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
#[derive(Clone)]
pub struct CancellationSource {
    leaf: Arc<Leaf>,
}

#[derive(Default)]
struct Leaf {
    cancelled: AtomicBool,
    state: Lock<State>,
}

#[derive(Default)]
struct State {
    waiters: Waiters,
    /// The number of its cancellation; 0 before it.
    number: u64,
    /// The error of those that it ends, where it was cancelled for a reason.
    reason: Option<Error>,
}

impl Leaf {
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
        CancellationToken { leaves: Arc::new([Arc::clone(&self.leaf)]) }
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

/// Tells whether work should stop: it can be asked and awaited, and cloned for free.
///
/// ```
/// use watershed::{CancellationSource, CancellationToken};
///
/// let (process, request) = (CancellationSource::new(), CancellationSource::new());
/// let both = CancellationToken::linked([process.token(), request.token()]);
/// request.cancel();
/// assert!(both.is_cancelled());
/// assert!(!process.token().is_cancelled());
/// ```
#[derive(Clone)]
pub struct CancellationToken {
    leaves: Arc<[Arc<Leaf>]>,
}

impl CancellationToken {
    /// A token that is never cancelled.
    ///
    /// ```
    /// assert!(!watershed::CancellationToken::never().is_cancelled());
    /// ```
    #[must_use]
    pub fn never() -> Self {
        Self { leaves: Arc::new([]) }
    }

    /// A token that is cancelled as soon as one of `tokens` is.
    ///
    /// ```
    /// use watershed::CancellationToken;
    /// let token = CancellationToken::linked([CancellationToken::never()]);
    /// assert!(!token.is_cancelled());
    /// ```
    #[must_use]
    pub fn linked(tokens: impl IntoIterator<Item = CancellationToken>) -> Self {
        let mut leaves: Vec<Arc<Leaf>> = Vec::new();
        // The addresses of all of them, once they are many.
        let mut known = BTreeSet::new();
        for token in tokens {
            for leaf in token.leaves.iter() {
                if leaves.len() == FEW_LEAVES {
                    known.extend(leaves.iter().map(Arc::as_ptr));
                }
                let is_new = if leaves.len() < FEW_LEAVES {
                    !leaves.iter().any(|known| Arc::ptr_eq(known, leaf))
                } else {
                    known.insert(Arc::as_ptr(leaf))
                };
                if is_new {
                    leaves.push(Arc::clone(leaf));
                }
            }
        }
        Self { leaves: leaves.into() }
    }

    /// Whether the token has been cancelled.
    ///
    /// ```
    /// assert!(!watershed::CancellationToken::never().is_cancelled());
    /// ```
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.leaves.iter().any(|leaf| leaf.is_cancelled())
    }

    /// Why the token was cancelled, as the error of what it ends: an
    /// [`ErrorCode::Canceled`](crate::ErrorCode::Canceled) whose cause is what
    /// [`cancel_with`](CancellationSource::cancel_with) was given by the source that was cancelled
    /// first. It has no cause after a plain [`cancel`](CancellationSource::cancel), and there is no
    /// error while the token is not cancelled.
    ///
    /// ```
    /// use watershed::CancellationSource;
    ///
    /// let source = CancellationSource::new();
    /// let token = source.token();
    /// assert!(token.reason().is_none());
    ///
    /// source.cancel_with(std::io::Error::other("the disk is full"));
    /// let error = token.reason().unwrap();
    /// assert!(error.downcast_ref::<std::io::Error>().is_some());
    /// assert!(format!("{error:#}").ends_with("the disk is full"));
    /// ```
    #[must_use]
    pub fn reason(&self) -> Option<Error> {
        let mut first: Option<(u64, Option<Error>)> = None;
        for leaf in self.leaves.iter().filter(|leaf| leaf.is_cancelled()) {
            let state = leaf.state.lock();
            if first.as_ref().is_none_or(|(number, _)| state.number < *number) {
                first = Some((state.number, state.reason.clone()));
            }
        }
        first.map(|(_, reason)| reason.unwrap_or_else(Error::canceled))
    }

    /// The error of what ends because of this token.
    pub(crate) fn error(&self) -> Error {
        self.reason().unwrap_or_else(Error::canceled)
    }

    /// Whether there is anybody who could cancel it.
    pub(crate) fn is_linked(&self) -> bool {
        !self.leaves.is_empty()
    }

    /// Waits until the token is cancelled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the wait and nothing else.
    ///
    /// ```
    /// let source = watershed::CancellationSource::new();
    /// let waiting = source.token().cancelled();
    /// source.cancel();
    /// futures::executor::block_on(waiting);
    /// ```
    pub fn cancelled(&self) -> Cancelled {
        let keys = vec![None; self.leaves.len()];
        Cancelled { leaves: Arc::clone(&self.leaves), keys, waker: None }
    }
}

/// A token that is never cancelled.
impl Default for CancellationToken {
    fn default() -> Self {
        Self::never()
    }
}

impl fmt::Debug for CancellationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancellationToken").field("cancelled", &self.is_cancelled()).finish()
    }
}

/// The wait of [`CancellationToken::cancelled`].
///
/// ```
/// use futures::FutureExt;
/// let waiting = watershed::CancellationToken::never().cancelled();
/// assert!(waiting.now_or_never().is_none());
/// ```
#[must_use = "a future does nothing unless it is polled"]
pub struct Cancelled {
    leaves: Arc<[Arc<Leaf>]>,
    /// By leaf: what this wait is known by there.
    keys: Vec<Option<u64>>,
    /// The waker that waits at every leaf.
    waker: Option<Waker>,
}

impl Future for Cancelled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { leaves, keys, waker: known } = &mut *self;
        // It waits until its leaf is cancelled: either that is seen here, or it is woken later.
        if known.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            let cancelled = leaves.iter().any(|leaf| leaf.is_cancelled_by_now());
            return if cancelled { Poll::Ready(()) } else { Poll::Pending };
        }
        // It counts once more when every leaf has it.
        panics::drop_each(known.take());
        for (leaf, key) in leaves.iter().zip(keys) {
            let waker = cx.waker().clone();
            let mut state = leaf.state.lock();
            // Asked under the lock: whoever cancels from now on finds this waiter.
            let cancelled = leaf.is_cancelled();
            let old = if cancelled { Some(waker) } else { state.waiters.wait(key, waker) };
            drop(state);
            panics::drop_each(old);
            if cancelled {
                return Poll::Ready(());
            }
        }
        *known = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        for (leaf, key) in self.leaves.iter().zip(&self.keys) {
            if let Some(key) = key {
                let old = leaf.state.lock().waiters.remove(*key);
                panics::drop_each(old);
            }
        }
        panics::drop_each(self.waker.take());
    }
}

impl fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancelled").finish_non_exhaustive()
    }
}
