//! What is told to stop: it asks, or waits.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::{CancellationSource, Leaf};
use crate::error::Error;
use crate::panics;

/// So many sources of a linked token are compared one by one; more are looked up.
const FEW_LEAVES: usize = 16;

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
    pub(super) fn of(leaf: &Arc<Leaf>) -> Self {
        Self { leaves: Arc::new([Arc::clone(leaf)]) }
    }

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
            // One whose sources are gone is never cancelled: a chain of links does not keep it.
            for leaf in token.leaves.iter().filter(|leaf| leaf.matters()) {
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

    /// The same as linked to a token of a new source, in one allocation: each message that may be told to
    /// stop has one.
    pub(crate) fn and(&self, new: &CancellationSource) -> Self {
        let leaves = self.leaves.iter().chain(std::iter::once(&new.leaf));
        Self { leaves: leaves.cloned().collect() }
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
    /// [`cancel_with`](crate::CancellationSource::cancel_with) was given by the source that was cancelled
    /// first. It has no cause after a plain [`cancel`](crate::CancellationSource::cancel), and there is no
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
