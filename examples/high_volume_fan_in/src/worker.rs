//! The worker: what is done for each message, and the drain that does it for all of them.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::{Either, FutureExt, select};
use futures::stream::{Stream, StreamExt};
use indicatif::ProgressBar;
use watershed::channels::AnySource;
use watershed::timers::Ticker;
use watershed::transport::{Assignment, Facts, Link, Ticket, Transport, TransportSource};
use watershed::{
    Answer, BoxError, CancellationSource, CancellationToken, CompensationPolicy, Failure,
    FanInReport, Letter, Progress, RetryPolicy, RollbackReport, Source, StepContext, fan_in,
    labelled,
};

use crate::cli::FailureMode;
use crate::database::Database;
use crate::effect::{Delivery, Effect, Mark, Put};
use crate::event::{Earthquake, EventError};
use crate::input::{self, Input, Message};
use crate::schema;
use crate::transports::Record;
use crate::transports::lease_queue::LeaseQueue;
use crate::transports::partition_log::PartitionLog;

/// What the handlers of all messages share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) database: Database,
    pub(crate) input: Arc<Input>,
    /// Where the log's partitions are.
    pub(crate) partitions: PathBuf,
    pub(crate) run: i64,
    pub(crate) fail_at: Option<NonZeroU64>,
    pub(crate) fail_one_in: Option<NonZeroU32>,
    /// How many domain events have been emitted.
    pub(crate) emitted: AtomicU64,
    /// The message that `fail_at` has met.
    pub(crate) failing: OnceLock<(u32, u32)>,
}

/// When to look again at an event that somebody else is at.
const A_MOMENT: Duration = Duration::from_millis(50);

/// A message that was begun so often and never settled may be what kills the workers.
const MAX_DELIVERIES: u32 = 100;

impl Worker {
    /// Handles one message. Each effect's compensation is registered before the effect happens, so
    /// that whatever becomes of this function, what it did is undone.
    ///
    /// # Errors
    ///
    /// When the line is no earthquake, the database fails, or an option says so.
    async fn handle(&self, message: Message, step: StepContext) -> Result<Answer, EventError> {
        // 1. The message is ours: the transport has leased it. Its compensation, the release, is there
        //    already, below all that is registered here.

        // 2. Validate.
        let event = Earthquake::decode(&message)?;

        // 3. Persist the idempotency token. Compensation: delete it.
        let mark = self.mark(&message, &step, &event)?;
        match self.put(&step, &message, &mark, Effect::Token).await? {
            Put::Ours => {}
            Put::Done => return Ok(Answer::Done),
            Put::InWork => return Ok(Answer::Later(A_MOMENT)),
        }

        // 4. Emit the domain event. Compensation: delete it from the outbox.
        let body = event.to_json().into();
        if self.put(&step, &message, &mark, Effect::Event(body)).await? != Put::Ours {
            return Ok(Answer::Later(A_MOMENT));
        }
        self.fail_if_planned(&message)?;

        // 5. Acknowledge: the drain accepts the message, and clears both compensations when the
        //    transport has confirmed that.
        Ok(Answer::Done)
    }

    /// What marks all that this delivery of a message writes.
    fn mark(
        &self,
        message: &Message,
        step: &StepContext,
        event: &Earthquake,
    ) -> Result<Mark, EventError> {
        let delivery = self.delivery(message, &step.deliveries());
        let (Some(delivery), Some(undo)) = (delivery, step.undo_key()) else {
            return Err(EventError::NoTransport { origin: message.origin() });
        };
        Ok(Mark { delivery, undo: undo.into(), token: event.token(&message.origin()).into() })
    }

    fn delivery(&self, message: &Message, facts: &[Facts]) -> Option<Delivery> {
        let Facts { deliveries, assignment, .. } = facts.first()?;
        // A queue counts them; in a log each has a generation of its own, or follows an undone one.
        let number = deliveries.map_or(assignment.generation, u64::from);
        Some(Delivery { feed: message.feed.id, position: message.position, number, run: self.run })
    }

    /// Makes an effect happen, and stages its compensation.
    async fn put(
        &self,
        step: &StepContext,
        message: &Message,
        mark: &Mark,
        effect: Effect,
    ) -> Result<Put, EventError> {
        let undo = (self.database.clone(), effect.clone(), mark.clone());
        step.register_compensation(labelled(effect.undo_action(), move || {
            let (database, effect, mark) = undo.clone();
            async move { database.call(move |database| effect.undo(database, &mark)).await }
        }));
        let (action, mark) = (effect.action(), mark.clone());
        let put = self.database.call(move |database| effect.put(database, &mark)).await;
        let put = put.map_err(|source| {
            let origin = message.origin();
            EventError::Database { origin, action, source }
        })?;
        self.fail_by_chance(message)?;
        Ok(put)
    }

    /// Fails for the message that emitted the `--fail-at`-th event, each time that it is tried.
    fn fail_if_planned(&self, message: &Message) -> Result<(), EventError> {
        let this = (message.feed.id, message.position);
        let number = self.emitted.fetch_add(1, Ordering::Relaxed) + 1;
        if self.fail_at.is_some_and(|fail_at| fail_at.get() == number) {
            // There is one such number.
            let _ = self.failing.set(this);
        }
        match self.fail_at.filter(|_| self.failing.get() == Some(&this)) {
            Some(number) => {
                Err(EventError::Planned { origin: message.origin(), number: number.get() })
            }
            None => Ok(()),
        }
    }

    fn fail_by_chance(&self, message: &Message) -> Result<(), EventError> {
        match self.fail_one_in {
            Some(one_in) if fastrand::u32(0..one_in.get()) == 0 => {
                Err(EventError::Chance { origin: message.origin() })
            }
            _ => Ok(()),
        }
    }

    /// Puts a message that was given up among the dead letters.
    async fn bury(&self, letter: Letter<Message>) -> Result<(), BoxError> {
        let (reason, facts) = (reason(letter.error()), letter.deliveries().to_vec());
        let message = letter.into_message().ok_or("there is no message in the letter")?;
        let delivery = self.delivery(&message, &facts).ok_or("the message has no transport")?;
        let bury = move |database: &_| delivery.bury(database, &message.payload, &reason);
        Ok(self.database.call(bury).await?)
    }

    /// One source for each queue.
    fn queues(&self) -> impl Iterator<Item = Feed> {
        let link = Link::new(LeaseQueue(self.database.clone())).max_deliveries(MAX_DELIVERIES);
        self.input.feeds_of(input::Transport::LeaseQueue).map(move |feed| {
            let queue = Assignment { partition: feed.id, generation: 0 };
            self.feed(link.partition(queue), Arc::clone(&feed.name))
        })
    }

    /// One source for each partition that is ours, as they come.
    fn partitions(self: &Arc<Self>) -> Result<impl Stream<Item = Feed> + Send + use<>, BoxError> {
        let owner = format!("run {} in process {}", self.run, std::process::id());
        let log = PartitionLog::open(self.database.clone(), self.partitions.clone(), owner)?;
        let worker = Arc::clone(self);
        Ok(Link::new(log).assigned().map(move |source| worker.feed(source, "log".into())))
    }

    fn feed<T>(&self, source: TransportSource<T>, name: Arc<str>) -> Feed
    where
        T: Transport<Message = Record>,
    {
        let input = Arc::clone(&self.input);
        source.named(name).decoded(move |record| input.message(record)).erased()
    }
}

/// A source of the drain, whatever transports it.
type Feed = AnySource<'static, Message, Ticket>;

/// What the handler said, where it was the handler.
pub(crate) fn reason(error: &watershed::Error) -> String {
    match error.downcast_ref::<EventError>().map(|own| (own, std::error::Error::source(own))) {
        Some((own, Some(cause))) => format!("{own}: {cause}"),
        Some((own, None)) => own.to_string(),
        None => format!("{error:#}"),
    }
}

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
    let partitions = worker.partitions()?;

    let drain =
        fan_in(&context, worker.queues(), async |message, step| worker.handle(message, step).await)
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
    let watching = watch(&worker.database, &progress, &bar, &finish);
    let outcome = match select(draining, pin!(watching)).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right((error, _)) => return Err(error),
    };

    let mut rollback = None;
    if !context.scope().is_empty() {
        rollback = Some(context.roll_back(&undoing).await);
    }
    Ok(Drained { outcome, rollback })
}

/// Moves the bar, and ends the drain when every message is settled, by this worker or another one.
/// Returns why it cannot.
async fn watch(
    database: &Database,
    progress: &Progress,
    bar: &ProgressBar,
    finish: &CancellationSource,
) -> BoxError {
    let looks = Ticker::new(&StepContext::new("bar"), Duration::from_millis(50));
    let mut looks = match looks {
        Ok(looks) => pin!(looks),
        Err(error) => return error.into(),
    };
    loop {
        match database.call(|database| Ok(schema::is_done(database)?)).await {
            Ok(true) => finish.cancel(),
            Ok(false) => {}
            Err(error) => return error.into(),
        }
        let report = progress.report();
        bar.set_position(report.accepted() + report.rejected());
        bar.set_message(format!("{} run, {} wait", report.in_flight(), report.waiting()));
        looks.next().await;
    }
}
