//! What a drain did, or has done so far.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::clock::Tick;
use crate::origin::{SourceId, SourceRef};
use crate::settlement::Settlements;

/// Where the messages are that a drain has taken: each is counted in exactly one of these. Attempts
/// are counted apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) handled: u64,
    pub(super) failed: u64,
    pub(super) in_flight: u64,
    pub(super) waiting: u64,
    pub(super) held: u64,
    pub(super) put_back: u64,
    pub(super) unfinished: u64,
    pub(super) attempts: u64,
}

impl Counts {
    fn taken(&self) -> u64 {
        self.handled
            + self.failed
            + self.in_flight
            + self.waiting
            + self.held
            + self.put_back
            + self.unfinished
    }
}

/// What was still running when the grace ended, and was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) handlers: u64,
    pub(super) rollbacks: u64,
    pub(super) letters: u64,
}

/// What a drain did, in all and by source; or, from [`Progress::report`](crate::Progress::report),
/// what it has done so far.
///
/// Each message taken is in exactly one of [`handled`](FanInReport::handled),
/// [`failed`](FanInReport::failed), [`in_flight`](FanInReport::in_flight),
/// [`waiting`](FanInReport::waiting), [`held`](FanInReport::held),
/// [`put_back`](FanInReport::put_back) and [`unfinished`](FanInReport::unfinished).
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::{BoxError, Source, StepContext, fan_in};
///
/// let sources = [stream::iter([1, 2]).named("a"), stream::iter([3, 4]).named("b")];
/// let context = StepContext::new("drain");
/// let report = fan_in(&context, sources, async |_, _| Ok::<_, BoxError>(())).await?;
/// assert_eq!(report.handled(), 4);
/// assert_eq!((report.sources()[0].name(), report.sources()[0].handled()), ("a", 2));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct FanInReport {
    pub(super) elapsed: Duration,
    pub(super) total: Counts,
    pub(super) sources: Vec<SourceReport>,
    pub(super) warnings: Vec<Warning>,
    pub(super) staged: u64,
    pub(super) late: u64,
    pub(super) dropped: Dropped,
    pub(super) settlements: Settlements,
}

/// The counts that a report and its rows have in common.
macro_rules! counts {
    ($at:ident) => {
        /// Messages taken.
        #[must_use]
        pub fn taken(&self) -> u64 {
            self.$at.taken()
        }

        /// Messages whose handler returned `Ok`.
        #[must_use]
        pub fn handled(&self) -> u64 {
            self.$at.handled
        }

        /// Messages that failed and have no attempts left.
        #[must_use]
        pub fn failed(&self) -> u64 {
            self.$at.failed
        }

        /// Messages that are with a handler, being undone, or with the dead letters. None in the
        /// report of a drain that has ended.
        #[must_use]
        pub fn in_flight(&self) -> u64 {
            self.$at.in_flight
        }

        /// Messages that wait for their next attempt, or for a permit for it; not those that keep their
        /// permit meanwhile, which are in flight. None in the report of a drain that has ended.
        #[must_use]
        pub fn waiting(&self) -> u64 {
            self.$at.waiting
        }

        /// Messages that were taken and whose handler was not called: with a key that is busy, or
        /// as a window that is open, which is one message as it is once it is closed. None in the
        /// report of a drain that has ended.
        #[must_use]
        pub fn held(&self) -> u64 {
            self.$at.held
        }

        /// Messages that were held when the drain ended, and went to
        /// [`put_back`](crate::FanIn::put_back), or back to their transport. An open window goes back one
        /// by one, as so many messages.
        #[must_use]
        pub fn put_back(&self) -> u64 {
            self.$at.put_back
        }

        /// Messages that the end of the drain found without a result: their handler was dropped, or
        /// they were held or waited and nobody gave a place to put them.
        #[must_use]
        pub fn unfinished(&self) -> u64 {
            self.$at.unfinished
        }

        /// Calls of the handler, those of retries included.
        #[must_use]
        pub fn attempts(&self) -> u64 {
            self.$at.attempts
        }
    };
}

impl FanInReport {
    counts!(total);

    /// Receipts that were fetched from [transports](crate::transport): each of them is in exactly one of
    /// [`accepted`](FanInReport::accepted), [`released`](FanInReport::released),
    /// [`rejected`](FanInReport::rejected), [`lost`](FanInReport::lost),
    /// [`unknown`](FanInReport::unknown) and [`abandoned`](FanInReport::abandoned).
    ///
    /// A window of ten messages has ten of them. What a log brings when the drain ends already is read
    /// again by the next one, and not counted.
    #[must_use]
    pub fn fetched(&self) -> u64 {
        self.settlements.fetched
    }

    /// Receipts that were accepted: handled or left out, and their transport was told.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.settlements.accepted
    }

    /// Receipts that were given back to their transport.
    #[must_use]
    pub fn released(&self) -> u64 {
        self.settlements.released
    }

    /// Receipts that were rejected: they do not come again.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.settlements.rejected
    }

    /// Receipts that were no longer ours: a lease that ran out, a partition that was taken away.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.settlements.lost
    }

    /// Receipts whose settlement was sent and has no answer.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.settlements.unknown
    }

    /// Receipts that nobody has settled, because the time or the tries were used up, or the drain was
    /// dropped. They come again when their transport says so.
    #[must_use]
    pub fn abandoned(&self) -> u64 {
        self.settlements.abandoned
    }

    /// Calls of transports that have failed for a reason that passes, and were tried again: fetches,
    /// settlements that were refused or had no answer, renewals; and messages that went back because
    /// less of a lease that cannot be renewed was left than `message_timeout`.
    #[must_use]
    pub fn troubles(&self) -> u64 {
        self.settlements.troubles
    }

    /// When the transport answered last, by the context's clock: brought something or nothing,
    /// settled or renewed. Of several transports, the one that is silent for longest; `None` where one
    /// has not answered yet, or there is none.
    #[must_use]
    pub fn last_answer(&self) -> Option<Tick> {
        self.settlements.answered
    }

    /// Compensations that are staged in the drain, those of messages in flight included. None in
    /// the report of a drain that has ended: they are cleared, or on the scope of its context.
    #[must_use]
    pub fn staged(&self) -> u64 {
        self.staged
    }

    /// Compensations that came from a step somebody kept, after its message had ended.
    #[must_use]
    pub fn late_registrations(&self) -> u64 {
        self.late
    }

    /// Handlers that were still running when the [grace](crate::FanIn::grace) ended.
    #[must_use]
    pub fn dropped_handlers(&self) -> u64 {
        self.dropped.handlers
    }

    /// Rollbacks of single messages that were still running when the grace ended: what they had not
    /// undone is on the scope of the context.
    #[must_use]
    pub fn dropped_rollbacks(&self) -> u64 {
        self.dropped.rollbacks
    }

    /// Dead letters that were still on their way when the grace ended.
    #[must_use]
    pub fn dropped_letters(&self) -> u64 {
        self.dropped.letters
    }

    /// From the first poll to the result, or until now, by the context's clock; zero if it stepped
    /// back.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The sources, in the order in which the drain was given them: the first 4,096. Further ones
    /// count in the totals.
    #[must_use]
    pub fn sources(&self) -> &[SourceReport] {
        &self.sources
    }

    /// Options that can have no effect on this drain. In [`Progress`](crate::Progress) also
    /// `max_waiting`, while failed messages keep every permit because so many wait.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

/// What a drain did with one source, see [`FanInReport::sources`].
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::{BoxError, StepContext, fan_in};
///
/// let context = StepContext::new("drain");
/// let sources = [stream::iter([1, 2])];
/// let report = fan_in(&context, sources, async |_, _| Ok::<_, BoxError>(())).await?;
/// assert_eq!(report.sources()[0].name(), "source 0");
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct SourceReport {
    pub(super) source: SourceRef,
    pub(super) counts: Counts,
}

impl SourceReport {
    counts!(counts);

    /// The number of the source, which no other has.
    #[must_use]
    pub fn id(&self) -> SourceId {
        self.source.id
    }

    /// The name of the source, or `source N` with its position, the first one being 0.
    #[must_use]
    pub fn name(&self) -> &str {
        self.source.name.as_str()
    }
}

/// An option that can have no effect on a drain, or holds it up: see [`FanInReport::warnings`].
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::{BoxError, StepContext, fan_in};
///
/// let context = StepContext::new("drain");
/// let report = fan_in(&context, [stream::iter([1, 2])], async |_, _| Ok::<_, BoxError>(()))
///     .concurrency(32)
///     .await?;
/// assert_eq!(report.warnings()[0].option(), "concurrency");
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub(super) option: &'static str,
    /// What is to be said of it, and why.
    pub(super) what: &'static str,
    pub(super) reason: Cow<'static, str>,
}

impl Warning {
    /// The method of the option.
    #[must_use]
    pub fn option(&self) -> &'static str {
        self.option
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}: {}", self.option, self.what, self.reason)
    }
}
