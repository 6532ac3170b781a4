//! What the library did in this process, as plain counters.
//!
//! Each result is counted once, when it is final. The counters are global, monotonic and relaxed:
//! read them with [`snapshot`], and subtract two snapshots with [`Snapshot::since`] to see an
//! interval.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A counter that only grows.
#[derive(Debug)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        if amount > 0 {
            self.0.fetch_add(amount, Ordering::Relaxed);
        }
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        #[derive(Debug)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
            pub(crate) drain_nanos: Counter,
        }

        pub(crate) static COUNTERS: Counters = Counters {
            $($name: Counter::new(),)+
            drain_nanos: Counter::new(),
        };

        /// The counters at one moment.
        ///
        /// ```
        /// let before = watershed::diagnostics::snapshot();
        /// let scope = watershed::CompensationScope::new();
        /// scope.register_compensation(|| async {});
        /// scope.clear();
        /// let now = watershed::diagnostics::snapshot().since(&before);
        /// assert!(now.compensations_cleared >= 1);
        /// ```
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Snapshot {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Time that drains took in all, by their clocks, from first poll to result.
            pub drain_time: Duration,
        }

        /// Reads every counter.
        ///
        /// ```
        /// let now = watershed::diagnostics::snapshot();
        /// assert!(now.drains_started >= now.drains_succeeded);
        /// ```
        #[must_use]
        pub fn snapshot() -> Snapshot {
            Snapshot {
                $($name: COUNTERS.$name.get(),)+
                drain_time: Duration::from_nanos(COUNTERS.drain_nanos.get()),
            }
        }

        impl Snapshot {
            /// What was counted between `earlier` and this snapshot.
            ///
            /// ```
            /// use watershed::diagnostics::{snapshot, Snapshot};
            /// let now = snapshot();
            /// assert_eq!(now.since(&now), Snapshot::default());
            /// ```
            #[must_use]
            pub fn since(&self, earlier: &Snapshot) -> Snapshot {
                Snapshot {
                    $($name: self.$name.saturating_sub(earlier.$name),)+
                    drain_time: self.drain_time.saturating_sub(earlier.drain_time),
                }
            }
        }
    };
}

counters! {
    /// Drains that were polled for the first time.
    drains_started,
    /// Drains that ended with a report.
    drains_succeeded,
    /// Drains that ended with a failure of a handler or a source.
    drains_failed,
    /// Drains that ended by their timeout.
    drains_timed_out,
    /// Drains that ended by cancellation.
    drains_cancelled,
    /// Drains whose future was dropped before it had a result.
    drains_dropped,
    /// Runs of a select that had a result.
    selects_run,
    /// Runs of a select whose continuation returned `Ok`.
    selects_succeeded,
    /// Runs of a select that failed, those whose cases had all ended included.
    selects_failed,
    /// Runs of a select that ended by their timeout.
    selects_timed_out,
    /// Runs of a select that ended by cancellation.
    selects_cancelled,
    /// Messages whose handler returned `Ok`.
    messages_succeeded,
    /// Messages whose handler failed, panicked, timed out or was dropped.
    messages_failed,
    /// Compensations that ran and succeeded.
    compensations_run,
    /// Compensations that failed for good in one rollback, and stayed staged.
    compensations_failed,
    /// Compensations that were cleared, withdrawn or committed without being run.
    compensations_cleared,
    /// Compensations that were lost because the last handle of their scope went away.
    compensations_lost,
    /// Panics of destructors and wakers that were contained.
    contained_panics,
}
