//! The right to settle one message.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use smallvec::SmallVec;

use super::desk::{Desk, Given, Key};
use super::words::{Facts, Settled, Verdict};
use crate::error::Error;
use crate::lock::Lock;
use crate::undo::{self, Action, Undoing};

/// What the messages of a source are settled by that has a transport, see
/// [`Source::Receipt`](crate::Source::Receipt). Only a drain does that: dropped, it settles nothing.
///
/// One of a window stands for all its messages, and one of a source without a transport for none.
#[derive(Default)]
pub struct Ticket(Option<Arc<Delivered>>);

/// A message as its transport delivered it; a window, with all of its messages.
pub struct Delivered {
    receipts: SmallVec<[(Arc<dyn Desk>, Key); 1]>,
    /// The handler has said that it settles by itself, and how that went so far. Most never do: it is
    /// looked at without the lock first.
    by_hand: Lock<Option<Settled>>,
    has_settled: AtomicBool,
    /// See [`Delivered::order`].
    order: AtomicU64,
}

impl Ticket {
    pub(crate) fn new(desk: Arc<dyn Desk>, key: Key) -> Self {
        let mut receipts = SmallVec::new();
        receipts.push((desk, key));
        Self(Some(Arc::new(Delivered {
            receipts,
            by_hand: Lock::new(None),
            has_settled: AtomicBool::new(false),
            order: AtomicU64::new(0),
        })))
    }

    /// Whoever settles this one settles the other as well.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        let Some(own) = self.0.as_mut().and_then(Arc::get_mut) else {
            std::mem::swap(self, &mut other);
            return;
        };
        if let Some(Ok(other)) = other.0.take().map(Arc::try_unwrap) {
            own.receipts.extend(other.receipts);
        }
    }

    pub(crate) fn delivered(&self) -> Option<&Arc<Delivered>> {
        self.0.as_ref()
    }

    /// One verdict for all.
    pub(crate) fn give(mut self, verdict: &Verdict, given: Given) {
        if let Some(delivered) = self.0.take() {
            delivered.give(verdict, given);
        }
    }

    /// The handler has settled all of them.
    pub(crate) fn settled_by_hand(mut self, outcome: &Settled) {
        for (desk, key) in self.0.take().iter().flat_map(|delivered| &delivered.receipts) {
            desk.settled_by_hand(*key, outcome);
        }
    }

    /// What releases the message once all that was done for it is undone.
    pub(crate) fn into_release(mut self) -> Option<Release> {
        self.0.take().map(|delivered| Release::new(&delivered))
    }
}

impl Delivered {
    /// A handler is about to be called: what it stages comes behind this.
    pub(crate) fn begin(delivered: &Arc<Self>) -> Arc<Self> {
        delivered.order.store(undo::next_order(), Ordering::Relaxed);
        Arc::clone(delivered)
    }

    /// The number of what releases the message, below all that its handler stages.
    pub(crate) fn order(&self) -> u64 {
        match self.order.load(Ordering::Relaxed) {
            0 => undo::next_order(),
            number => number,
        }
    }

    pub(crate) fn receipts(&self) -> &[(Arc<dyn Desk>, Key)] {
        &self.receipts
    }

    /// One verdict for all of them.
    pub(crate) fn give(&self, verdict: &Verdict, given: Given) {
        for (desk, key) in &self.receipts {
            desk.give(*key, verdict.clone(), given);
        }
    }

    pub(crate) fn facts(&self) -> Vec<Facts> {
        self.receipts.iter().map(|(desk, key)| desk.facts(*key)).collect()
    }

    /// Whether any of its receipts is to be given back rather than tried again.
    pub(crate) fn is_asked_back(&self) -> bool {
        self.receipts.iter().any(|(desk, key)| desk.is_asked_back(*key))
    }

    /// Whether nothing of it is lost, asked back, or behind a message of its group that goes back.
    pub(crate) fn may_begin(&self) -> bool {
        self.receipts.iter().all(|(desk, key)| desk.may_begin(*key))
    }

    /// Whether its transport keeps order by group.
    pub(crate) fn is_grouped(&self) -> bool {
        self.receipts.iter().any(|(desk, _)| desk.able().groups)
    }

    /// Whether any of its receipts is no longer ours.
    pub(crate) fn is_lost(&self) -> bool {
        self.receipts.iter().any(|(desk, key)| !desk.is_ours(*key))
    }

    pub(super) fn set_by_hand(&self, outcome: Option<Settled>) {
        let settles = outcome.is_some();
        let old = std::mem::replace(&mut *self.by_hand.lock(), outcome);
        self.has_settled.store(true, Ordering::Release);
        drop(old);
        for (desk, key) in &self.receipts {
            desk.by_hand(*key, settles);
        }
    }

    /// Whether the handler has settled it, or is about to.
    pub(crate) fn is_by_hand(&self) -> bool {
        self.by_hand.lock().is_some()
    }

    /// How the handler's own settlement went, if it made one.
    pub(crate) fn take_by_hand(&self) -> Option<Settled> {
        self.has_settled.load(Ordering::Acquire).then(|| self.by_hand.lock().take())?
    }
}

/// A ticket that goes away settles nothing: nobody will.
impl Drop for Ticket {
    fn drop(&mut self) {
        for (desk, key) in self.0.take().iter().flat_map(|delivered| &delivered.receipts) {
            desk.abandon(*key);
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receipts = self.0.iter().flat_map(|delivered| &delivered.receipts);
        f.debug_list().entries(receipts.map(|(_, key)| key)).finish()
    }
}

impl fmt::Debug for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivered").field("receipts", &self.receipts.len()).finish_non_exhaustive()
    }
}

/// Releases a message whose drain is gone, as the last of its compensations.
#[derive(Debug)]
pub(crate) struct Release(Arc<Delivered>);

impl Release {
    pub(crate) fn new(delivered: &Arc<Delivered>) -> Self {
        for (desk, key) in &delivered.receipts {
            desk.keep(*key);
        }
        Self(Arc::clone(delivered))
    }
}

impl Action for Release {
    fn attempt(&mut self, _: &Undoing) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let delivered = Arc::clone(&self.0);
        async move {
            for (desk, key) in &delivered.receipts {
                if let Settled::Refused(error) = Arc::clone(desk).release_kept(*key).await {
                    return Err(error);
                }
            }
            Ok(())
        }
    }

    fn label(&self) -> Option<&str> {
        Some("release the message")
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        for (desk, key) in &self.0.receipts {
            desk.forget_kept(*key);
        }
    }
}
