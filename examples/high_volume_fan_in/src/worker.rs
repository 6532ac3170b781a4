//! The worker: what is done for each message, and the drain that does it for all of them.

use std::future::Future;
use std::num::NonZeroU64;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use futures::stream::StreamExt;
use indicatif::ProgressBar;
use watershed::timers::Ticker;
use watershed::{
    CancellationToken, Commit, CompensationPolicy, Error, Failure, FanInReport, Letter, OnFailure,
    Progress, RetryPolicy, RollbackReport, StepContext, fan_in, labelled,
};

use crate::cli::FailureMode;
use crate::effect::{Effect, Kind};
use crate::event::{Earthquake, EventError};
use crate::input::{Delivery, Transport};
use crate::source::Reader;
use crate::store::Store;

/// What the handlers of all messages share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) store: Store,
    pub(crate) run: i64,
    pub(crate) sequence: AtomicI64,
    pub(crate) fail_at: Option<NonZeroU64>,
    pub(crate) on_failure: FailureMode,
    /// How many domain events have been emitted.
    pub(crate) emitted: AtomicU64,
}

/// Handles one message. Each effect's compensation is registered with the step before the effect
/// happens, so that whatever becomes of this function, what it did can be undone.
///
/// # Errors
///
/// When the line is no earthquake, the database fails, or `--fail-at` says so.
async fn handle(
    worker: &Arc<Worker>,
    message: Delivery,
    step: StepContext,
) -> Result<(), EventError> {
    let apply = |kind| worker.apply(&step, &message, kind);

    if message.feed.transport == Transport::LeaseQueue {
        apply(Kind::Lease).await?;
    } else if worker.on_failure == FailureMode::RollBackMessage {
        // A log and a socket have an order: to go on behind a line that failed, it is put aside.
        apply(Kind::Park).await?;
    }

    let event = Earthquake::decode(&message)?;
    let token: Arc<str> = event.token(&message.feed.origin(message.position)).into();

    let is_new = apply(Kind::Token(Arc::clone(&token))).await?;
    if is_new {
        apply(Kind::Emit { token, body: event.to_json().into() }).await?;
        worker.fail_if_planned(&message)?;
    } else {
        apply(Kind::Duplicate(token)).await?;
    }

    let transport = message.feed.transport;
    let settle = if message.parked { Kind::Unpark } else { Kind::Settle { transport } };
    apply(settle).await?;
    Ok(())
}

impl Worker {
    /// Makes an effect happen and stages its compensation. `false`: it was not to happen, because
    /// its token is another message's.
    async fn apply(
        &self,
        step: &StepContext,
        message: &Delivery,
        kind: Kind,
    ) -> Result<bool, EventError> {
        // The number and the registration are drawn together, with no `await` between them.
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let Delivery { feed, position, .. } = message;
        let effect = Effect { run: self.run, sequence, feed: feed.id, position: *position, kind };
        let undo = (self.store.clone(), effect.clone());
        let reservation = step.reserve(labelled(effect.kind.undo_action(), move || {
            let (store, effect) = undo.clone();
            async move { store.call(move |database| effect.undo(database)).await }
        }));

        let action = effect.kind.action();
        let happened = self.store.call(move |database| effect.perform(database)).await;
        let happened = happened.map_err(|source| {
            let origin = message.feed.origin(message.position);
            EventError::Store { origin, action, source }
        })?;
        if !happened {
            reservation.disarm();
        }
        Ok(happened)
    }

    /// Fails for the `--fail-at`-th event that was emitted.
    fn fail_if_planned(&self, message: &Delivery) -> Result<(), EventError> {
        let number = self.emitted.fetch_add(1, Ordering::Relaxed) + 1;
        if self.fail_at.is_some_and(|fail_at| fail_at.get() == number) {
            let origin = message.feed.origin(message.position);
            return Err(EventError::Planned { origin, number });
        }
        Ok(())
    }
}

/// How the drain goes about it.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) timeout: Duration,
    pub(crate) concurrency: usize,
    /// Nothing more is taken, and what runs is finished.
    pub(crate) finish: CancellationToken,
    /// What runs is told to stop, and everything is undone.
    pub(crate) undo: CancellationToken,
}

/// How the drain ended.
#[derive(Debug)]
pub(crate) struct Drained {
    pub(crate) outcome: Result<FanInReport, Failure<FanInReport>>,
    /// What became of the rollback, if there was one, and how long it took.
    pub(crate) rollback: Option<(Result<RollbackReport, Failure<RollbackReport>>, Duration)>,
    /// The messages that failed and were rolled back alone.
    pub(crate) failed: Vec<Error>,
}

impl Drained {
    /// What the drain did, however it ended.
    pub(crate) fn report(&self) -> &FanInReport {
        self.outcome.as_ref().unwrap_or_else(Failure::report)
    }
}

/// Drains all readers through [`handle`], and undoes everything if that fails.
///
/// # Errors
///
/// When there is no clock to draw the bar by. How the drain ended is in the result.
pub(crate) async fn drain(
    worker: Arc<Worker>,
    readers: Vec<Reader>,
    settings: Settings,
    bar: &ProgressBar,
) -> Result<Drained, Error> {
    let Settings { timeout, concurrency, finish, undo } = settings;
    // A message that is to fail alone must be safe from the failure of a later one.
    let (on_failure, commit) = match worker.on_failure {
        FailureMode::Abort => (OnFailure::Abort, Commit::Pipeline),
        FailureMode::RollBackMessage => (OnFailure::Continue, Commit::Message),
    };
    // A database that is busy for a moment leaves nothing half undone.
    let undoing = CompensationPolicy::sequential_reverse()
        .retry(RetryPolicy::exponential(4, Duration::from_millis(10)));
    let (context, progress) = (StepContext::new("earthquakes"), Progress::new());
    let failed = Mutex::new(Vec::new());

    let draining =
        fan_in(&context, readers, async |message, step| handle(&worker, message, step).await)
            .dead_letters(async |letter: Letter<Delivery>| {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.push(letter.error().clone());
                failed.extend(letter.rollback().err().map(|failure| failure.error().clone()));
            })
            .message_compensation(undoing.clone())
            .progress(&progress)
            .timeout(timeout)
            .concurrency(concurrency)
            .shutdown(finish)
            .cancellation(undo)
            .on_failure(on_failure)
            .commit(commit);
    let ended = || progress.report().handled() + progress.report().failed();
    let outcome = shown(bar, ended, draining.into_future()).await?;

    let mut rollback = None;
    if outcome.is_err() {
        let (all, started_at) = (context.scope().len() as u64, Instant::now());
        bar.reset();
        bar.set_length(all);
        bar.set_message("rolling back");
        let undone = || all.saturating_sub(context.scope().len() as u64);
        let report = shown(bar, undone, context.roll_back(&undoing)).await?;
        rollback = Some((report, started_at.elapsed()));
    }
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Drained { outcome, rollback, failed })
}

/// Awaits `work`, and moves the bar ten times a second to what is `done` by then.
async fn shown<T>(
    bar: &ProgressBar,
    done: impl Fn() -> u64,
    work: impl Future<Output = T>,
) -> Result<T, Error> {
    let mut looks = pin!(Ticker::new(&StepContext::new("bar"), Duration::from_millis(100))?);
    let mut work = pin!(work);
    loop {
        match select(work.as_mut(), looks.next()).await {
            Either::Left((value, _)) => return Ok(value),
            Either::Right(_) => bar.set_position(done()),
        }
    }
}
