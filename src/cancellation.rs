//! Cancellation: a source that cancels, tokens that are asked and awaited.
//!
//! A source is a flag and the list of those who wait for it. A token is a list of such flags, so
//! linking tokens needs no task and leaves nothing behind to release.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::lock::Lock;
use crate::panics;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::waiters::Waiters;

/// So many sources of a linked token are compared one by one; more are looked up.
const FEW_LEAVES: usize = 16;

/// Cancels the tokens it has handed out.
///
/// Clones are the same source. Dropping a source cancels nothing. A token of another library, a
/// signal, any future that tells to stop becomes a token by awaiting it and then cancelling a source:
/// see [`guide::under_tokio`](crate::guide::under_tokio).
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
    waiters: Lock<Waiters>,
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
        let waiters = {
            let mut waiters = self.leaf.waiters.lock();
            // An exchange, because those who ask may do one as well: see `is_cancelled_by_now`.
            self.leaf.cancelled.swap(true, Ordering::AcqRel);
            waiters.take()
        };
        panics::wake_each(waiters.into_values());
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
            let mut waiters = leaf.waiters.lock();
            // Asked under the lock: whoever cancels from now on finds this waiter.
            let cancelled = leaf.is_cancelled();
            let old = if cancelled { Some(waker) } else { waiters.wait(key, waker) };
            drop(waiters);
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
                let old = leaf.waiters.lock().remove(*key);
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
