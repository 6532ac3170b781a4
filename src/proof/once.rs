//! A cell that is set once, with the orderings of `std`: who finds it set sees what was done before.

use std::sync::OnceLock as Cell;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: Cell<T>,
    is_set: AtomicBool,
    setting: Mutex<()>,
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self { value: Cell::new(), is_set: AtomicBool::new(false), setting: Mutex::new(()) }
    }
}

impl<T> From<T> for OnceLock<T> {
    fn from(value: T) -> Self {
        Self { value: value.into(), is_set: AtomicBool::new(true), setting: Mutex::new(()) }
    }
}

impl<T> OnceLock<T> {
    pub(crate) fn get(&self) -> Option<&T> {
        self.is_set.load(Ordering::Acquire).then(|| self.value.get()).flatten()
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if !self.is_set.load(Ordering::Acquire) {
            let _setting = self.setting.lock().unwrap();
            self.value.get_or_init(make);
            self.is_set.store(true, Ordering::Release);
        }
        self.value.get().expect("it is set")
    }
}
