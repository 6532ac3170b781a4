//! The drain: where the messages come from, what becomes of those that fail, and when it ends.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, FutureExt, select};
use futures::stream::StreamExt;
use indicatif::ProgressBar;
use watershed::timers::Ticker;
use watershed::{
    BoxError, CancellationSource, CancellationToken, CompensationPolicy, Failure, FanInReport,
    Progress, RetryPolicy, RollbackReport, StepContext, fan_in,
};

use crate::cli::FailureMode;
use crate::database::Database;
use crate::event::EventError;
use crate::schema;
use crate::sources::Sources;
use crate::worker::Worker;

/// How the drain goes about it.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) timeout: Duration,
    pub(crate) concurrency: usize,
    pub(crate) on_failure: FailureMode,
    /// Nothing more is taken, and what runs is finished.
    pub(crate) finish: CancellationSource,
    /// What runs is told to stop, is undone and given back.
    pub(crate) undo: CancellationToken,
}

/// How the drain ended.
#[derive(Debug)]
pub(crate) struct Drained {
    pub(crate) outcome: Result<FanInReport, Failure<FanInReport>>,
    /// What became of undoing what the drain had no time to undo by itself.
    pub(crate) rollback: Option<Result<RollbackReport, Failure<RollbackReport>>>,
}

impl Drained {
    /// What the drain did, however it ended.
    pub(crate) fn report(&self) -> &FanInReport {
        self.outcome.as_ref().unwrap_or_else(Failure::report)
    }
}

/// Drains both transports through the handler, until every message is settled.
///
/// # Errors
///
/// When the drain cannot start. How it ended is in the result.
pub(crate) async fn drain(
    worker: Arc<Worker>,
    sources: Sources,
    settings: Settings,
    bar: ProgressBar,
) -> Result<Drained, BoxError> {
    let Settings { timeout, concurrency, on_failure, finish, undo } = settings;
    // A database that is busy for a moment leaves nothing half undone.
    let undoing = CompensationPolicy::sequential_reverse()
        .retry(RetryPolicy::exponential(4, Duration::from_millis(10)));
    // A line that is no earthquake does not become one.
    let retrying = RetryPolicy::exponential(3, Duration::from_millis(10))
        .only_if(|error| error.downcast_ref().is_none_or(EventError::may_pass));
    let (context, progress) = (StepContext::new("earthquakes"), Progress::new());
    let partitions = sources.partitions(worker.run)?;

    let drain = fan_in(&context, sources.queues(), async |message, step| {
        worker.handle(message, step).await
    })
    .incoming(partitions)
    .retry(retrying)
    .message_compensation(undoing.clone())
    .progress(&progress)
    .timeout(timeout)
    .concurrency(concurrency)
    .shutdown(finish.token())
    .finish_within(Duration::from_secs(20))
    .cancellation(undo);
    let draining = match on_failure {
        FailureMode::Stop => drain.into_future().boxed(),
        FailureMode::DeadLetter => {
            drain.dead_letters(async |letter| worker.bury(letter).await).into_future().boxed()
        }
    };
    let looks = Ticker::new(&context, Duration::from_millis(50))?;
    let watching = pin!(watch(looks, &worker.database, &progress, &bar, &finish));
    let outcome = match select(draining, watching).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right((never, _)) => match never {},
    };

    let mut rollback = None;
    if !context.scope().is_empty() {
        rollback = Some(context.roll_back(&undoing).await);
    }
    Ok(Drained { outcome, rollback })
}

/// Moves the bar, and shuts the drain down when every message is settled, by this worker or another one.
async fn watch(
    looks: Ticker,
    database: &Database,
    progress: &Progress,
    bar: &ProgressBar,
    finish: &CancellationSource,
) -> Infallible {
    let mut looks = pin!(looks);
    loop {
        // A database that fails is asked again; whoever needs it more says so.
        if let Ok(true) = database.call(|database| Ok(schema::is_done(database)?)).await {
            finish.cancel();
        }
        let report = progress.report();
        bar.set_position(report.accepted() + report.rejected());
        bar.set_message(format!("{} in flight, {} wait", report.in_flight(), report.waiting()));
        looks.next().await;
    }
}
