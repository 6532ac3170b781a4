//! What the contenders stage: an action that undoes one message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::{BoxFuture, FutureExt};
use watershed::BoxError;

/// What an action captures: something shared, and something of the message.
pub(crate) struct Undo {
    undone: Arc<AtomicU64>,
    message: u64,
}

impl Undo {
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

    /// What a list written by hand can hold.
    pub(crate) fn boxed(self) -> BoxedUndo {
        Box::new(move || self.attempt().boxed())
    }
}

pub(crate) type BoxedUndo = Box<dyn FnMut() -> BoxFuture<'static, Result<(), BoxError>> + Send>;

/// The rollback by hand: what was staged last runs first.
pub(crate) async fn undo_by_hand(mut staged: Vec<BoxedUndo>) -> Result<(), BoxError> {
    while let Some(mut undo) = staged.pop() {
        undo().await?;
    }
    Ok(())
}
