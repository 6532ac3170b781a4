//! The allocator counts what is asked of it; a future is polled as far as it goes by itself.

use std::alloc::System;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::task::{ArcWake, waker_ref};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The bytes that are allocated now.
#[allow(clippy::cast_precision_loss, reason = "nobody has so many bytes")]
pub(crate) fn live() -> f64 {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
}

/// The bytes by which a future grows until it waits, the future itself included.
///
/// # Panics
///
/// When the future ends.
pub(crate) fn of_waiting<F: Future>(make: impl FnOnce() -> F) -> f64 {
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = waker_ref(&woken);
    let before = live();
    let mut future = pin!(make());
    while woken.0.swap(false, Ordering::Relaxed) {
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(matches!(polled, Poll::Pending), "it was to wait");
    }
    live() - before
}

struct Woken(AtomicBool);

impl ArcWake for Woken {
    fn wake_by_ref(woken: &Arc<Self>) {
        woken.0.store(true, Ordering::Relaxed);
    }
}
