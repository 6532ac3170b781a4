//! What the library did in this process, as plain counters.
//!
//! Each result is counted once, when it is final. The counters are global, monotonic and relaxed:
//! read them with [`Snapshot::now`], and subtract two snapshots with [`Snapshot::since`] to see an
//! interval.
//!
//! # What is leaked
//!
//! A drain that is leaked ([`std::mem::forget`]) holds its scopes and that of its context for ever,
//! and nothing tells it from one that is only not polled just now: no destructor runs that could
//! count its compensations as lost. It shows as a drain that was started and never ends, which is
//! what `drains_started` has more than the other five counts of drains together, and a
//! [`Progress`](crate::Progress) of it goes on telling what it has staged.
//!
//! # The facades
//!
//! Both are features that are off by default, and cost nothing then.
//!
//! With the feature `metrics`, every counter goes to the [`metrics`](https://docs.rs/metrics) facade
//! as well, under the name of its field with `watershed_` in front and `_total` behind, and two
//! histograms with it: `watershed_drain_seconds` and `watershed_select_seconds`, by the clock of the
//! context.
//!
//! With the feature `tracing`, a drain is a span `drain` (field `step`, and `outcome` at its end)
//! at level `INFO`, a message a span `message` (`source`, `number`, `outcome`) at level `DEBUG`
//! below it, entered whenever its handler runs, and each compensation that ends an event at level
//! `DEBUG`, or `WARN` when it failed for good (`label`, `registered_at`, `attempts`, `error`). At
//! `WARN` are also an option that can have no effect (`option`, `why`), and compensations that were
//! lost with the last handle of their scope (`count`, `places`).
//!
//! A recorder or subscriber that panics disturbs nothing: that is contained, and counted.

pub(crate) mod trace;

#[cfg(any(feature = "metrics", feature = "tracing"))]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Calls a facade, behind which is code of the user's: where that panics, nothing else is disturbed.
#[cfg(any(feature = "metrics", feature = "tracing"))]
fn facade(call: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
        // Not by `add`, which would call the facade again.
        COUNTERS.contained_panics.value.fetch_add(1, Ordering::Relaxed);
        // A payload may panic when it is dropped.
        std::mem::forget(payload);
    }
}

/// A counter that only grows.
#[derive(Debug)]
pub(crate) struct Counter {
    value: AtomicU64,
    #[cfg(feature = "metrics")]
    name: &'static str,
}

impl Counter {
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "a name for metrics"))]
    const fn new(name: &'static str) -> Self {
        Self {
            value: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            name,
        }
    }

    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        if amount > 0 {
            self.value.fetch_add(amount, Ordering::Relaxed);
            #[cfg(feature = "metrics")]
            facade(|| metrics::counter!(self.name).increment(amount));
        }
    }

    fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Counts the result of an operation that has no counters of its own.
    pub(crate) fn count_operation<T, E>(&self, result: &Result<T, E>) {
        match result {
            Ok(_) => self.operations_succeeded.add(1),
            Err(_) => self.operations_failed.add(1),
        }
    }
}

/// The time that operations of one kind took.
#[derive(Debug)]
pub(crate) struct OperationTimer {
    nanos: AtomicU64,
    #[cfg(feature = "metrics")]
    name: &'static str,
}

impl OperationTimer {
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "a name for metrics"))]
    const fn new(name: &'static str) -> Self {
        Self {
            nanos: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            name,
        }
    }

    pub(crate) fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if nanos > 0 {
            self.nanos.fetch_add(nanos, Ordering::Relaxed);
        }
        #[cfg(feature = "metrics")]
        facade(|| metrics::histogram!(self.name).record(took.as_secs_f64()));
    }

    fn total(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        #[derive(Debug)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
            pub(crate) drain_time: OperationTimer,
            pub(crate) select_time: OperationTimer,
        }

        pub(crate) static COUNTERS: Counters = Counters {
            $($name: Counter::new(concat!("watershed_", stringify!($name), "_total")),)+
            drain_time: OperationTimer::new("watershed_drain_seconds"),
            select_time: OperationTimer::new("watershed_select_seconds"),
        };

        /// The counters at one moment.
        ///
        /// ```
        /// let before = watershed::diagnostics::Snapshot::now();
        /// let scope = watershed::CompensationScope::new();
        /// scope.register_compensation(async || {});
        /// scope.clear();
        /// let now = watershed::diagnostics::Snapshot::now().since(&before);
        /// assert!(now.compensations_cleared >= 1);
        /// ```
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Snapshot {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Time that drains took in all, by their clocks, from first poll to result.
            pub drain_time: Duration,
            /// Time that runs of a select waited in all, by their clocks, until they had a result.
            pub select_time: Duration,
        }

        impl Snapshot {
            /// Reads every counter.
            #[must_use]
            pub fn now() -> Self {
                Self {
                    $($name: COUNTERS.$name.get(),)+
                    drain_time: COUNTERS.drain_time.total(),
                    select_time: COUNTERS.select_time.total(),
                }
            }

            /// What was counted between `earlier` and this snapshot.
            ///
            /// ```
            /// use watershed::diagnostics::Snapshot;
            /// let now = Snapshot::now();
            /// assert_eq!(now.since(&now), Snapshot::default());
            /// ```
            #[must_use]
            pub fn since(&self, earlier: &Snapshot) -> Snapshot {
                Snapshot {
                    $($name: self.$name.saturating_sub(earlier.$name),)+
                    drain_time: self.drain_time.saturating_sub(earlier.drain_time),
                    select_time: self.select_time.saturating_sub(earlier.select_time),
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
    /// Runs of a select whose continuation returned `Ok`.
    selects_succeeded,
    /// Runs of a select that failed, those whose cases had all ended included.
    selects_failed,
    /// Runs of a select that ended by their timeout.
    selects_timed_out,
    /// Runs of a select that ended by cancellation.
    selects_cancelled,
    /// Merges, broadcasts, combinators and operations with a timeout that succeeded.
    operations_succeeded,
    /// Merges, broadcasts, combinators and operations with a timeout that failed.
    operations_failed,
    /// Tasks that were added to a group. Those that have not ended are the difference to the sum of
    /// the next three.
    tasks_added,
    /// Tasks of a group that returned `Ok`.
    tasks_succeeded,
    /// Tasks of a group that failed or panicked.
    tasks_failed,
    /// Tasks of a group that were dropped, or that an executor refused.
    tasks_dropped,
    /// Messages whose handler returned `Ok`.
    messages_succeeded,
    /// Messages whose handler failed, panicked or timed out, and that had no attempts left.
    messages_failed,
    /// Attempts at a message that was tried before and had failed.
    messages_retried,
    /// Answers of handlers that a message is to be handled later.
    messages_later,
    /// Messages that were given to a dead-letter function.
    dead_letters,
    /// Messages that the end of their drain found without a result: their handler was dropped, or
    /// they were held or waited and nobody took them back.
    messages_unfinished,
    /// Compensations that ran and succeeded.
    compensations_run,
    /// Compensations that failed for good in one rollback, and stayed staged.
    compensations_failed,
    /// Compensations that were cleared, withdrawn or committed without being run.
    compensations_cleared,
    /// Compensations that were lost because the last handle of their scope went away.
    compensations_lost,
    /// Compensations that were registered by a step whose message had ended.
    compensations_late,
    /// Panics of destructors, wakers, recorders and subscribers that were contained.
    contained_panics,
}
