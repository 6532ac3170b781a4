//! Receives of a FIFO queue that had no answer: asked again under the same id, the service gives the same
//! messages again. Otherwise they would hold up their groups until their visibility is over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The ids of receives without an answer.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<Vec<String>>);

/// A receive that is on its way. Dropped before it is answered, its id is used once more.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    of: &'a Attempts,
    id: String,
}

impl Attempts {
    pub(crate) fn begin(&self) -> Attempt<'_> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Attempt { of: self, id: open.unwrap_or_else(new_id) }
    }
}

impl Attempt<'_> {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn answered(mut self) {
        self.id.clear();
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.id.is_empty() {
            let id = std::mem::take(&mut self.id);
            self.of.0.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        }
    }
}

/// One that no other process uses: the service remembers an id for five minutes.
fn new_id() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{}-{now}-{number}", std::process::id())
}
