//! Containing the panics of user code: actions, handlers, sources, wakers and destructors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use crate::diagnostics;

/// Runs user code; a panic comes back as its message.
pub(crate) fn contain<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(message)
}

/// Runs a destructor of the user's where nobody is left to be told: a panic is counted.
pub(crate) fn drop_contained(destroy: impl FnOnce()) {
    if contain(destroy).is_err() {
        diagnostics::COUNTERS.contained_panics.add(1);
    }
}

/// Drops values of the user's where nobody is left to be told: a panic is counted.
pub(crate) fn drop_each<T>(values: impl IntoIterator<Item = T>) {
    let mut values = values.into_iter();
    while contain(|| values.by_ref().for_each(drop)).is_err() {
        diagnostics::COUNTERS.contained_panics.add(1);
    }
}

/// Wakes every waker, also when an executor's waker panics.
pub(crate) fn wake_each(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        if contain(move || waker.wake()).is_err() {
            diagnostics::COUNTERS.contained_panics.add(1);
        }
    }
}

/// The text of a panic. The payload is the user's as well, so it is dropped with care.
fn message(payload: Box<dyn Any + Send>) -> String {
    let text = if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a payload that is not text".to_owned()
    };
    // A payload whose destructor panics as well is leaked rather than dropped a second time.
    if let Err(second) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(second);
    }
    text
}
