//! Containing the panics of user code: actions, handlers, sources, wakers and destructors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::diagnostics;

/// Runs user code; a panic comes back as its message.
pub(crate) fn contain<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(message)
}

/// Goes on with a poll, and with `blame` after each panic of it, until it does not panic.
pub(crate) fn poll_blaming<T>(
    this: &mut T,
    mut poll: impl FnMut(&mut T) -> Poll<()>,
    blame: impl Fn(&mut T, &str),
) -> Poll<()> {
    loop {
        match contain(|| poll(this)) {
            Ok(poll) => return poll,
            Err(message) => blame(this, &message),
        }
    }
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

/// A value of the user's whose destructor cannot take along whoever holds it.
#[derive(Clone)]
pub(crate) struct Held<T>(Option<T>);

impl<T> Held<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// What is held; it is there until it is taken.
    pub(crate) fn take(mut self) -> Option<T> {
        self.0.take()
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        if self.0.is_some() {
            drop_each(self.0.take());
        }
    }
}

/// Many values of the user's, each as [`Held`].
pub(crate) struct HeldEach<T>(Vec<T>);

impl<T> HeldEach<T> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn take(mut self) -> Vec<T> {
        std::mem::take(&mut self.0)
    }
}

impl<T> FromIterator<T> for HeldEach<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl<T> Drop for HeldEach<T> {
    fn drop(&mut self) {
        drop_each(self.0.drain(..));
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

/// The waker of a task, as it is given to other crates' lists of wakers, which a panic would break.
#[derive(Debug)]
pub(crate) struct ContainedWaker {
    /// There until it is dropped.
    task: Option<Waker>,
}

impl ContainedWaker {
    /// Makes one of `waker`, unless `known`, which was made before, is of the same task.
    pub(crate) fn of<'a>(waker: &Waker, known: &'a mut Option<Arc<Self>>) -> &'a Arc<Self> {
        let is_same = known.as_ref().and_then(|known| known.task.as_ref());
        if is_same.is_none_or(|task| !task.will_wake(waker)) {
            *known = None;
        }
        known.get_or_insert_with(|| Arc::new(Self { task: Some(waker.clone()) }))
    }
}

impl Wake for ContainedWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(task) = &self.task {
            drop_contained(|| task.wake_by_ref());
        }
    }
}

impl Drop for ContainedWaker {
    fn drop(&mut self) {
        drop_each(self.task.take());
    }
}

/// Polls with a waker whose panics are contained.
pub(crate) fn poll_contained<T>(
    cx: &Context<'_>,
    known: &mut Option<Arc<ContainedWaker>>,
    poll: impl FnOnce(&mut Context<'_>) -> T,
) -> T {
    let waker = Waker::from(Arc::clone(ContainedWaker::of(cx.waker(), known)));
    poll(&mut Context::from_waker(&waker))
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
