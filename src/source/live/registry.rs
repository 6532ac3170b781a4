//! The live sources that have not ended, by their ids.

use std::collections::BTreeMap;

use super::control::Control;
use crate::lock::Lock;
use crate::origin::SourceId;
use crate::sync::Arc;

/// A tree, so that its room goes with what is in it.
pub(super) struct Registry<S>(Lock<BTreeMap<SourceId, Arc<Control<S>>>>);

impl<S> Default for Registry<S> {
    fn default() -> Self {
        Self(Lock::new(BTreeMap::new()))
    }
}

impl<S> Registry<S> {
    pub(super) fn insert(&self, control: &Arc<Control<S>>) {
        self.0.lock().insert(control.id, Arc::clone(control));
    }

    pub(super) fn remove(&self, id: SourceId) {
        let removed = self.0.lock().remove(&id);
        drop(removed);
    }

    pub(super) fn get(&self, id: SourceId) -> Option<Arc<Control<S>>> {
        self.0.lock().get(&id).map(Arc::clone)
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}
