//! The thread that is in the group: it alone polls the client, seeks, decides what may be committed and
//! gives partitions up, so none of these happens in the middle of another.
//!
//! It waits for commands and for the client's events, which send one; the interval is for what has
//! sent none, and keeps the consumer in its group whatever the drain does. Commits do not pass through it:
//! what is ours is behind a lock, which it holds where it gives something up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use watershed::transport::{Assignment, Event, Settled, Trouble, Verdict};
use watershed::{Error, ErrorCode};

use crate::committing;
use crate::consumer::{Receipt, Shared};
use crate::errors::{error, lasts};
use crate::group::{Client, Group};
use crate::positions::partitions_of;
use crate::rebalance::{Owed, Pending};
use crate::setup::Setup;

const TICK: Duration = Duration::from_millis(20);
/// How long the broker may take to answer a question that is asked again.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// With none the client would be heard of one event at a time, and its logs are events, too.
const HEAR_FOR: Duration = Duration::from_millis(1);
const AGAIN: Duration = Duration::from_millis(500);
const MOST_AT_ONCE: usize = 256;
/// How long leaving the group may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(20);

pub(crate) enum Command {
    Settle(Vec<(Receipt, Verdict)>, oneshot::Sender<Vec<Settled>>),
    /// Nothing of the partition is open any more.
    GivenUp(Assignment),
    /// The log does not hold what was to be read.
    Explain(Assignment, KafkaError, oneshot::Sender<Trouble>),
    Leave(Option<oneshot::Sender<Result<(), Error>>>),
    /// The client has something to say.
    Look,
}

pub(crate) struct Member {
    pub(crate) setup: Setup,
    pub(crate) shared: Arc<Shared>,
    commands: Receiver<Command>,
    pub(crate) client: Option<Arc<Client>>,
    /// How many partitions the topics had when it joined.
    pub(crate) partitions: usize,
    /// Never comes again.
    pub(crate) generation: u64,
    pub(crate) pending: Option<Pending>,
    pub(crate) owed: Owed,
    /// Nothing could be reached; asked again then.
    look_again: Option<Instant>,
    leaves: bool,
    left: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Member {
    pub(crate) fn new(setup: Setup, shared: Arc<Shared>, commands: Receiver<Command>) -> Self {
        Self {
            setup,
            shared,
            commands,
            client: None,
            partitions: 0,
            generation: 0,
            pending: None,
            owed: Owed::default(),
            look_again: None,
            leaves: false,
            left: None,
        }
    }

    /// In the group until it is told to leave. It leaves also after a panic: a client that is dropped
    /// with a question open waits for ever.
    pub(crate) fn run(mut self) {
        let lived = catch_unwind(AssertUnwindSafe(|| self.live()));
        let failed = match lived {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(Error::new(ErrorCode::Panic, "the consumer's thread panicked")),
        };
        if let Some(error) = failed {
            self.shared.notices.tell(Event::Gone(error));
        }
        let left = self.leave();
        // Before whoever waits goes on: it may look at the group.
        if let Some(answer) = self.left.take() {
            let _ = answer.send(left);
        }
    }

    fn live(&mut self) -> Result<(), Error> {
        let Some(partitions) = self.count_partitions()? else { return Ok(()) };
        self.partitions = partitions;
        let client = self.connect()?;
        self.client = Some(Arc::clone(&client));
        let commits = committing::start(Arc::clone(&client), Arc::clone(&self.shared));
        let commits = commits.map_err(|cause| Error::from_error(ErrorCode::Source, cause))?;
        self.shared.ours().open = Some((Arc::clone(&client), commits));
        while !self.leaves {
            self.obey(TICK);
            self.hear(&client)?;
            self.rebalance(&client)?;
            self.look(&client);
            let now = Instant::now();
            let ours = self.shared.ours().partitions();
            for partition in &ours {
                partition.tick(now);
            }
            self.note_the_end();
        }
        Ok(())
    }

    /// How many partitions the topics have: asked until somebody answers. `None` if it is to leave.
    fn count_partitions(&mut self) -> Result<Option<usize>, Error> {
        let outsider: BaseConsumer = self
            .setup
            .of_outsider()
            .create()
            .map_err(|cause| Error::validation("the configuration").with_source(cause))?;
        while !self.leaves {
            match partitions_of(&outsider, &self.setup.topics) {
                Ok(partitions) => return Ok(Some(partitions)),
                Err(Trouble::Lasts(error)) => return Err(error),
                Err(Trouble::Passes(error)) => {
                    self.shared.notices.tell(Event::Trouble(error));
                    self.obey(AGAIN);
                }
            }
        }
        Ok(None)
    }

    fn connect(&self) -> Result<Arc<Client>, Error> {
        let config = self.setup.of_member(self.partitions);
        let client = config.create_with_context(Group::default());
        let mut client: Client =
            client.map_err(|cause| Error::validation("the configuration").with_source(cause))?;
        let commands = self.shared.commands.clone();
        client.set_nonempty_callback(move || {
            let _ = commands.send(Command::Look);
        });
        let topics: Vec<_> = self.setup.topics.iter().map(String::as_str).collect();
        client.subscribe(&topics).map_err(|cause| error("subscribing to the topics", cause))?;
        Ok(Arc::new(client))
    }

    /// Does what there is to do, and waits for so long where there is nothing.
    fn obey(&mut self, within: Duration) {
        let first = match self.commands.recv_timeout(within) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.leaves = true;
                None
            }
        };
        // The client is heard in between, however busy the drain is.
        let commands: Vec<_> =
            first.into_iter().chain(self.commands.try_iter().take(MOST_AT_ONCE)).collect();
        for command in commands {
            match command {
                Command::Settle(batch, answer) => self.settle(batch, answer),
                Command::GivenUp(assignment) => self.given_up(assignment),
                Command::Explain(assignment, cause, answer) => {
                    let _ = answer.send(self.explain(assignment, cause));
                }
                Command::Leave(answer) => {
                    self.leaves = true;
                    self.left = answer;
                }
                Command::Look => {}
            }
        }
    }

    /// What the client has to say: its own errors; what the group asks is noted on the way.
    fn hear(&mut self, client: &Client) -> Result<(), Error> {
        while let Some(said) = client.poll(HEAR_FOR) {
            let cause = match said {
                Err(cause) => cause,
                // Passing it over would lose it.
                Ok(message) => {
                    let text = format!(
                        "a message of partition {} of `{}` came another way",
                        message.partition(),
                        message.topic()
                    );
                    return Err(Error::new(ErrorCode::Source, text));
                }
            };
            let text = "the consumer's connection";
            if lasts(&cause) {
                return Err(error(text, cause));
            }
            let code = cause.rdkafka_error_code();
            if matches!(code, Some(Code::AllBrokersDown | Code::BrokerTransportFailure)) {
                self.in_trouble(error(text, cause));
            }
        }
        Ok(())
    }

    /// Nothing can be reached: whoever waits for a message is told.
    fn in_trouble(&mut self, error: Error) {
        *self.shared.trouble() = Some(error);
        self.look_again.get_or_insert_with(|| Instant::now() + AGAIN);
        let ours = self.shared.ours().partitions();
        for partition in &ours {
            partition.wake();
        }
    }

    /// Whether the brokers are there again.
    fn look(&mut self, client: &Client) {
        let now = Instant::now();
        if self.look_again.is_none_or(|at| now < at) {
            return;
        }
        let topic = self.setup.topics.first().map(String::as_str);
        match client.fetch_metadata(topic, AGAIN) {
            Ok(_) => {
                *self.shared.trouble() = None;
                self.look_again = None;
            }
            Err(_) => self.look_again = Some(now + AGAIN),
        }
    }

    /// Says so when all that is ours was read to its end and is committed.
    fn note_the_end(&self) {
        let is_settled = self.setup.until_empty && self.pending.is_none() && self.owed.is_empty();
        if is_settled && self.shared.ours().is_read_and_committed() {
            self.shared.caught_up.cancel();
        }
    }

    /// Leaves the group. From here on the client's questions are answered as they come, so that it may be
    /// dropped on whichever thread has it last: this one, or one that waits for a commit. Where it takes
    /// too long the client is kept until that is said: dropping it would wait.
    fn leave(&mut self) -> Result<(), Error> {
        for partition in std::mem::take(&mut *self.shared.partitions()).into_values() {
            partition.close();
        }
        self.shared.ours().close();
        let Some(client) = self.client.take() else { return Ok(()) };
        client.context().leave();
        self.answer_for_good(&client);
        client.close_queue().map_err(|cause| error("leaving the group", cause))?;
        let since = Instant::now();
        while !client.closed() {
            if since.elapsed() > LEAVE_WITHIN {
                let text = "the consumer could not leave its group in time";
                self.client = Some(client);
                return Err(Error::new(ErrorCode::Timeout, text));
            }
            drop(client.poll(TICK));
        }
        Ok(())
    }
}
