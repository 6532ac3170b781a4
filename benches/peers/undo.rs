//! What the contenders stage: actions that undo one message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::{BoxFuture, FutureExt};
use watershed::{BoxError, CompensationScope};

/// What a list written by hand can hold.
pub(crate) type BoxedUndo = Box<dyn FnMut() -> BoxFuture<'static, Result<(), BoxError>> + Send>;

/// A way to undo a message: the same closure for a list by hand and for a scope.
pub(crate) trait Undo {
    fn boxed(undone: &Arc<AtomicU64>, message: u64) -> BoxedUndo;
    fn stage(undone: &Arc<AtomicU64>, message: u64, scope: &CompensationScope);
}

/// Captures numbers: nothing is to be done where it is dropped.
pub(crate) struct OfNumbers;

static UNDONE: AtomicU64 = AtomicU64::new(0);

#[allow(clippy::unused_async, reason = "an undo is async")]
async fn undo_numbers(message: u64, other: u64) -> Result<(), BoxError> {
    UNDONE.fetch_add(message ^ other, Ordering::Relaxed);
    Ok(())
}

impl Undo for OfNumbers {
    fn boxed(_: &Arc<AtomicU64>, message: u64) -> BoxedUndo {
        let other = !message;
        Box::new(move || undo_numbers(message, other).boxed())
    }

    fn stage(_: &Arc<AtomicU64>, message: u64, scope: &CompensationScope) {
        let other = !message;
        scope.register_compensation(move || undo_numbers(message, other));
    }
}

/// Captures something shared as well, as most actions do.
pub(crate) struct OfShared {
    undone: Arc<AtomicU64>,
    message: u64,
}

impl OfShared {
    pub(crate) fn new(undone: &Arc<AtomicU64>, message: u64) -> Self {
        Self { undone: Arc::clone(undone), message }
    }

    pub(crate) fn attempt(&self) -> impl Future<Output = Result<(), BoxError>> + Send + use<> {
        let (undone, message) = (Arc::clone(&self.undone), self.message);
        async move {
            undone.fetch_add(message, Ordering::Relaxed);
            Ok(())
        }
    }
}

impl Undo for OfShared {
    fn boxed(undone: &Arc<AtomicU64>, message: u64) -> BoxedUndo {
        let undo = Self::new(undone, message);
        Box::new(move || undo.attempt().boxed())
    }

    fn stage(undone: &Arc<AtomicU64>, message: u64, scope: &CompensationScope) {
        let undo = Self::new(undone, message);
        scope.register_compensation(move || undo.attempt());
    }
}

/// The rollback by hand: what was staged last runs first.
pub(crate) async fn undo_by_hand(mut staged: Vec<BoxedUndo>) -> Result<(), BoxError> {
    while let Some(mut undo) = staged.pop() {
        undo().await?;
    }
    Ok(())
}
