//! A count of references with the orderings of `std`, over the atomics of the model checker.
//!
//! The library asks how many handles there are, and takes 1 for "nobody else, and I see all that
//! they did". `loom` has a count of its own, but it synchronizes whoever asks, which `std` does
//! not: a missing fence would go unnoticed.

use std::ops::Deref;

use crate::sync::atomic::{AtomicUsize, Ordering, fence};

#[derive(Debug)]
pub(crate) struct Arc<T> {
    shared: std::sync::Arc<Counted<T>>,
}

#[derive(Debug)]
struct Counted<T> {
    count: AtomicUsize,
    value: T,
}

impl<T> Arc<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { shared: std::sync::Arc::new(Counted { count: AtomicUsize::new(1), value }) }
    }

    pub(crate) fn strong_count(this: &Self) -> usize {
        this.shared.count.load(Ordering::Relaxed)
    }

    pub(crate) fn ptr_eq(this: &Self, other: &Self) -> bool {
        std::sync::Arc::ptr_eq(&this.shared, &other.shared)
    }

    pub(crate) fn as_ptr(this: &Self) -> *const T {
        &raw const this.shared.value
    }

    pub(crate) fn downgrade(this: &Self) -> Weak<T> {
        Weak(std::sync::Arc::downgrade(&this.shared))
    }

    pub(crate) fn get_mut(this: &mut Self) -> Option<&mut T> {
        if this.shared.count.load(Ordering::Acquire) != 1 {
            return None;
        }
        std::sync::Arc::get_mut(&mut this.shared).map(|counted| &mut counted.value)
    }

    pub(crate) fn make_mut(this: &mut Self) -> &mut T
    where
        T: Clone,
    {
        if Self::get_mut(this).is_none() {
            *this = Self::new(T::clone(this));
        }
        Self::get_mut(this).expect("it is new, or was the only one")
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        self.shared.count.fetch_add(1, Ordering::Relaxed);
        Self { shared: std::sync::Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        if self.shared.count.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
        }
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.shared.value
    }
}

impl<T: Default> Default for Arc<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// A reference that keeps nothing alive.
#[derive(Debug)]
pub(crate) struct Weak<T>(std::sync::Weak<Counted<T>>);

impl<T> Clone for Weak<T> {
    fn clone(&self) -> Self {
        Self(std::sync::Weak::clone(&self.0))
    }
}

impl<T> Weak<T> {
    pub(crate) fn upgrade(&self) -> Option<Arc<T>> {
        let shared = self.0.upgrade()?;
        // As in `std`: whoever sees a handle may have another one.
        let more = |count| (count > 0).then_some(count + 1);
        shared.count.fetch_update(Ordering::Acquire, Ordering::Relaxed, more).ok()?;
        Some(Arc { shared })
    }
}
