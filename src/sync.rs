//! Where the primitives come from that threads share: `std`, or a model checker.
//!
//! A build for users takes all of them from `std`. The crate's own unit tests take them from `loom`
//! with `--cfg watershed_loom` and from `shuttle` with `--cfg watershed_shuttle`, so that the models
//! in `proof` run the very code of the library under every schedule, or very many.
//!
//! Modelled are the locks and the atomics by which threads decide anything, fences, what a thread
//! keeps for itself, and the counts of the references that the library reads. Not modelled are
//! numbers that only have to differ, the counters of `diagnostics`, counts that nobody reads, names
//! that are made once, and the queues of `futures` and `async-channel`.

#[cfg(not(all(test, any(watershed_loom, watershed_shuttle))))]
mod chosen {
    pub(crate) use futures::task::AtomicWaker;
    pub(crate) use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak, atomic};
    pub(crate) use std::thread::{self, ThreadId};
    pub(crate) use std::thread_local;

    /// A counter on a cache line of its own, so that nobody waits for it who uses its neighbour.
    #[repr(align(128))]
    pub(crate) struct Apart(pub(crate) atomic::AtomicU64);

    impl std::ops::Deref for Apart {
        type Target = atomic::AtomicU64;

        #[inline]
        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }

    /// A counter that all threads of the process share.
    macro_rules! process_counter {
        ($(#[$doc:meta])* static $name:ident = $start:expr) => {
            $(#[$doc])* static $name: $crate::sync::Apart =
                $crate::sync::Apart(std::sync::atomic::AtomicU64::new($start));
        };
    }
    pub(crate) use process_counter;
}

#[cfg(all(test, any(watershed_loom, watershed_shuttle)))]
mod chosen {
    #[cfg(watershed_loom)]
    pub(crate) use loom as checker;
    #[cfg(watershed_shuttle)]
    pub(crate) use shuttle as checker;

    pub(crate) use crate::proof::counted::{Arc, Weak};
    pub(crate) use crate::proof::once::OnceLock;
    pub(crate) use crate::proof::waker::AtomicWaker;
    pub(crate) use checker::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub(crate) use checker::thread::{self, ThreadId};

    /// As in `std`, but for the methods that `crate::proof::local` adds.
    macro_rules! per_thread {
        ($($(#[$doc:meta])* static $name:ident: $kind:ty = const { $start:expr };)+) => {
            $($(#[$doc])* static $name: $crate::proof::local::Local<$kind> = {
                $crate::sync::checker::thread_local! { static KEY: $kind = $start }
                $crate::proof::local::Local(&KEY)
            };)+
        };
    }
    pub(crate) use per_thread as thread_local;

    /// Every run of a model begins with a new one.
    macro_rules! process_counter {
        ($(#[$doc:meta])* static $name:ident = $start:expr) => {
            $crate::sync::checker::lazy_static! {
                $(#[$doc])* static ref $name: $crate::sync::atomic::AtomicU64 =
                    $crate::sync::atomic::AtomicU64::new($start);
            }
        };
    }
    pub(crate) use process_counter;
}

pub(crate) use chosen::*;

/// The thread that this is called on.
pub(crate) fn this_thread() -> ThreadId {
    thread::current().id()
}
