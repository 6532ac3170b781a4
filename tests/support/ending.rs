//! All the ways in which a drain can end before its sources have.

use std::future::Future;
use std::time::Duration;

use watershed::{
    BoxError, CancellationSource, ErrorCode, Failure, FanInReport, ManualClock, Source, StepContext,
};

use super::fed::Fed;
use super::{Hand, manual};

pub type Ended = Result<FanInReport, Failure<FanInReport>>;

/// A way to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Failure,
    Panic,
    Fault,
    Timeout,
    Cancelled,
    Shutdown,
    Dropped,
}

pub const ENDINGS: [Ending; 7] = [
    Ending::Failure,
    Ending::Panic,
    Ending::Fault,
    Ending::Timeout,
    Ending::Cancelled,
    Ending::Shutdown,
    Ending::Dropped,
];

impl Ending {
    /// How the drain's error says it.
    pub fn code(self) -> Option<ErrorCode> {
        match self {
            Self::Failure => Some(ErrorCode::Handler),
            Self::Panic => Some(ErrorCode::Panic),
            Self::Fault => Some(ErrorCode::Source),
            Self::Timeout => Some(ErrorCode::Timeout),
            Self::Cancelled => Some(ErrorCode::Canceled),
            Self::Shutdown | Self::Dropped => None,
        }
    }
}

/// Messages of the trigger.
pub const FAILS: u32 = 1_000_000;
pub const PANICS: u32 = 1_000_009;

/// The timeout that a drain needs so that [`Stage::end`] can make use of it.
pub const DEADLINE: Duration = Duration::from_secs(100);

/// What the endings need. The drain is to have the trigger among its sources, room for one more
/// handler, the timeout and both tokens, and a handler that begins with [`heed`].
pub struct Stage {
    pub context: StepContext,
    pub clock: ManualClock,
    pub stop: CancellationSource,
    pub shutdown: CancellationSource,
    trigger: Fed<Result<u32, &'static str>>,
}

/// What a handler does with a message of the trigger.
pub fn heed(message: u32) -> Result<(), BoxError> {
    assert!(message != PANICS, "the handler panics");
    if message == FAILS { Err("the handler fails".into()) } else { Ok(()) }
}

impl Default for Stage {
    fn default() -> Self {
        let (context, clock) = manual("stage");
        let (stop, shutdown) = (CancellationSource::new(), CancellationSource::new());
        Self { context, clock, stop, shutdown, trigger: Fed::open([]) }
    }
}

impl Stage {
    /// The source by which the endings come.
    pub fn trigger(
        &self,
    ) -> impl Source<Message = u32, Receipt = watershed::channels::Unsettled> + Send + use<> {
        self.trigger.source().faults()
    }

    /// Ends the drain in this way, and polls it to its result. `None` for one that is dropped.
    pub fn end<F>(&self, ending: Ending, mut drain: Hand<F>) -> Option<Ended>
    where
        F: Future<Output = Ended>,
    {
        match ending {
            Ending::Failure => self.trigger.push(Ok(FAILS)),
            Ending::Panic => self.trigger.push(Ok(PANICS)),
            Ending::Fault => self.trigger.push(Err("the source faults")),
            Ending::Timeout => self.clock.advance(DEADLINE),
            Ending::Cancelled => self.stop.cancel(),
            Ending::Shutdown => self.shutdown.cancel(),
            Ending::Dropped => return None,
        }
        let ended = drain.finish_by(&self.clock);
        assert_eq!(ended.as_ref().err().map(|failure| failure.error().code()), ending.code());
        Some(ended)
    }
}

/// The report, of a success or a failure.
pub fn report(ended: &Ended) -> &FanInReport {
    match ended {
        Ok(report) => report,
        Err(failure) => failure.report(),
    }
}

/// Nothing is under way any more in the report of a drain that has ended, and the rows make the
/// totals, as long as every source has one.
pub fn assert_settled(report: &FanInReport) {
    assert_eq!((report.in_flight(), report.waiting(), report.held()), (0, 0, 0), "{report:?}");
    assert_eq!(report.staged(), 0, "{report:?}");
    assert_adds_up(report);
}

/// Each message taken is in exactly one place, in all and by source.
pub fn assert_adds_up(report: &FanInReport) {
    let places = [
        report.handled(),
        report.failed(),
        report.in_flight(),
        report.waiting(),
        report.held(),
        report.put_back(),
        report.unfinished(),
    ];
    assert_eq!(report.taken(), places.iter().sum::<u64>(), "{report:?}");
    let mut rows = [0; 8];
    for row in report.sources() {
        let all = [
            row.handled(),
            row.failed(),
            row.in_flight(),
            row.waiting(),
            row.held(),
            row.put_back(),
            row.unfinished(),
        ];
        assert_eq!(row.taken(), all.iter().sum::<u64>(), "{row:?}");
        rows.iter_mut().zip(all).for_each(|(sum, count)| *sum += count);
        rows[7] += row.attempts();
    }
    if report.sources().len() < 4_096 {
        assert_eq!(&rows[..7], &places, "the rows make the totals: {report:?}");
        assert_eq!(rows[7], report.attempts(), "{report:?}");
    }
}
