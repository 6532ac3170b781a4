//! Which sources are to be polled: a queue that their wakers fill.
//!
//! Every source has a waker of its own, which puts its index into the queue once and then wakes
//! the task. So a wake-up costs the same beside any number of idle sources, and a source that gave
//! up its turn stands behind everything that was woken before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::lock::Lock;
use crate::panics;
use crate::sync::atomic::{AtomicBool, Ordering};

pub(in super::super) struct ReadyQueue {
    shared: Arc<ReadyShared>,
    slots: Vec<Arc<ReadySlot>>,
    wakers: Vec<Waker>,
    queue: VecDeque<usize>,
}

#[derive(Default)]
struct ReadyShared {
    /// Something is in `woken`: asked without the lock.
    any: AtomicBool,
    inner: Lock<ReadyInner>,
}

#[derive(Default)]
struct ReadyInner {
    woken: Vec<usize>,
    task: Option<Waker>,
}

struct ReadySlot {
    index: usize,
    /// The index is in `woken` or in the queue.
    queued: AtomicBool,
    shared: Arc<ReadyShared>,
}

impl Wake for ReadySlot {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let task = {
            let mut inner = self.shared.inner.lock();
            inner.woken.push(self.index);
            self.shared.any.store(true, Ordering::Release);
            inner.task.take()
        };
        panics::wake_each(task);
    }
}

impl ReadyQueue {
    /// A queue with every source in it, in their order.
    pub(in super::super) fn new(sources: usize) -> Self {
        let shared = Arc::<ReadyShared>::default();
        let slot = |index| {
            let queued = AtomicBool::new(true);
            Arc::new(ReadySlot { index, queued, shared: Arc::clone(&shared) })
        };
        let slots: Vec<_> = (0..sources).map(slot).collect();
        let wakers = slots.iter().map(|slot| Waker::from(Arc::clone(slot))).collect();
        Self { shared, slots, wakers, queue: (0..sources).collect() }
    }

    /// What wakes the source with this index.
    #[inline]
    pub(in super::super) fn waker(&self, index: usize) -> &Waker {
        &self.wakers[index]
    }

    /// The next source to be polled.
    #[inline]
    pub(in super::super) fn pop(&mut self) -> Option<usize> {
        self.collect();
        let index = self.queue.pop_front()?;
        // Before the source is polled: a wake-up from now on counts again. A swap, to see what was
        // done before a wake-up that was not counted.
        self.slots[index].queued.swap(false, Ordering::AcqRel);
        Some(index)
    }

    /// Puts a source that may still be ready behind everything that was woken so far.
    #[inline]
    pub(in super::super) fn requeue(&mut self, index: usize) {
        self.collect();
        if !self.slots[index].queued.swap(true, Ordering::AcqRel) {
            self.queue.push_back(index);
        }
    }

    /// Puts a source whose turn is not over in front.
    pub(in super::super) fn resume(&mut self, index: usize) {
        if self.slots[index].queued.swap(true, Ordering::AcqRel) {
            // It was woken meanwhile, and stands in the queue or is about to.
            self.collect();
            self.queue.retain(|queued| *queued != index);
        }
        self.queue.push_front(index);
    }

    #[inline]
    fn collect(&mut self) {
        if self.shared.any.load(Ordering::Acquire) {
            let mut inner = self.shared.inner.lock();
            self.queue.extend(inner.woken.drain(..));
            self.shared.any.store(false, Ordering::Release);
        }
    }

    /// Waits for the next wake-up; `false` if there is something to poll already.
    pub(in super::super) fn wait(&mut self, task: &Waker) -> bool {
        if !self.queue.is_empty() {
            return false;
        }
        // Cloning and dropping a waker is the executor's code: neither happens under the lock.
        let task = task.clone();
        let mut inner = self.shared.inner.lock();
        if !inner.woken.is_empty() {
            drop(inner);
            return false;
        }
        let old = inner.task.replace(task);
        drop(inner);
        drop(old);
        true
    }

    /// Waits no longer.
    pub(in super::super) fn forget(&mut self) {
        let task = self.shared.inner.lock().task.take();
        panics::drop_contained(|| drop(task));
    }
}

impl Drop for ReadyQueue {
    fn drop(&mut self) {
        self.forget();
    }
}
