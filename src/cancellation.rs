//! Cancellation: a source that cancels, tokens that are asked and awaited.
//!
//! A source is an `async_channel` that carries nothing: closing it wakes every waiter. A token is
//! a list of such channels, so linking tokens needs no task and leaves nothing behind to release.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_channel::{Receiver, Sender};
use futures::Stream;

use crate::panics;

/// Cancels the tokens it has handed out.
///
/// Clones are the same source. Dropping a source cancels nothing.
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

/// The sender is kept so that the channel closes by `cancel` alone.
struct Leaf {
    _sender: Sender<Infallible>,
    receiver: Receiver<Infallible>,
}

impl CancellationSource {
    /// A source that is not cancelled.
    ///
    /// ```
    /// assert!(!watershed::CancellationSource::new().is_cancelled());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        let (sender, receiver) = async_channel::bounded(1);
        Self { leaf: Arc::new(Leaf { _sender: sender, receiver }) }
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
    /// nothing.
    ///
    /// ```
    /// let source = watershed::CancellationSource::new();
    /// source.cancel();
    /// source.cancel();
    /// assert!(source.is_cancelled());
    /// ```
    pub fn cancel(&self) {
        if panics::contain(|| self.leaf.receiver.close()).is_err() {
            crate::diagnostics::COUNTERS.contained_panics.add(1);
        }
    }

    /// Whether the source has been cancelled.
    ///
    /// ```
    /// assert!(!watershed::CancellationSource::new().is_cancelled());
    /// ```
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.leaf.receiver.is_closed()
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
        for token in tokens {
            for leaf in token.leaves.iter() {
                if !leaves.iter().any(|known| Arc::ptr_eq(known, leaf)) {
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
        self.leaves.iter().any(|leaf| leaf.receiver.is_closed())
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
        let leaves = self.leaves.iter();
        Cancelled { leaves: leaves.map(|leaf| Box::pin(leaf.receiver.clone())).collect() }
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
    leaves: Vec<Pin<Box<Receiver<Infallible>>>>,
}

impl Future for Cancelled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The only thing that a channel of nothing can yield is its end.
        if self.leaves.iter_mut().any(|leaf| leaf.as_mut().poll_next(cx).is_ready()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancelled").finish_non_exhaustive()
    }
}
