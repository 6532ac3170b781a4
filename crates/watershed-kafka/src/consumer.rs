//! A member of a consumer group, as the user says it and as the library drives it.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedMessage;
use watershed::transport::{
    Able, Assignment, Event, Fetched, Notices, Settled, Transport, Trouble, Verdict, Want,
};
use watershed::{CancellationSource, CancellationToken, Error, ErrorCode};

use crate::errors::{closed, is_gone, trouble};
use crate::member::{Command, Member};
use crate::ours::Ours;
use crate::partition::{Partition, Read};
use crate::setup::{Setup, Start};

/// A consumer group's topics as a [`Transport`]: one source for each partition that the group assigns
/// to this consumer.
///
/// It joins its group when a [`Link`](watershed::transport::Link) is made of it, and leaves it when
/// the drain has ended or the link is dropped. It does not come back: for another drain, make another
/// consumer.
///
/// In an [`Assignment`] the number of a partition is Kafka's own, for the first topic; for the second one
/// it is 65,536 more, and so on. [`Receipt`] has both, the topic and Kafka's number.
///
/// | option | default |
/// | --- | --- |
/// | [`start_at`](Consumer::start_at) | [`Start::Earliest`] |
/// | [`if_gone`](Consumer::if_gone) | the drain ends with an error |
/// | [`ahead_bytes`](Consumer::ahead_bytes) | 64 MiB |
/// | [`until_empty`](Consumer::until_empty) | it goes on for ever |
///
/// ```
/// use watershed_kafka::rdkafka::ClientConfig;
/// use watershed_kafka::{Consumer, Start};
///
/// let mut config = ClientConfig::new();
/// config.set("bootstrap.servers", "127.0.0.1:9092").set("group.id", "shop");
/// let orders = Consumer::new(config, ["orders"])?.start_at(Start::Latest).ahead_bytes(16 << 20);
/// # drop(orders);
/// # Ok::<_, watershed::Error>(())
/// ```
pub struct Consumer {
    setup: Mutex<Option<(Setup, Receiver<Command>)>>,
    until_empty: bool,
    left: AtomicBool,
    shared: Arc<Shared>,
}

/// What the drain and the member's thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) notices: Notices,
    pub(crate) commands: Sender<Command>,
    pub(crate) caught_up: CancellationSource,
    pub(crate) passed_over: AtomicU64,
    partitions: Mutex<HashMap<Assignment, Arc<Partition>>>,
    ours: Mutex<Ours>,
    /// Nothing can be reached: it is told to whoever waits for a message.
    trouble: Mutex<Option<Error>>,
}

impl Shared {
    pub(crate) fn partitions(&self) -> MutexGuard<'_, HashMap<Assignment, Arc<Partition>>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ours(&self) -> MutexGuard<'_, Ours> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn trouble(&self) -> MutexGuard<'_, Option<Error>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partition(&self, assignment: Assignment) -> Option<Arc<Partition>> {
        self.partitions().get(&assignment).cloned()
    }
}

/// By what a message of a [`Consumer`] is settled: where it is, and under which assignment it was read.
/// After the partition was given up it settles nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub(crate) assignment: Assignment,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl Receipt {
    /// The topic that the message is in.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The number that Kafka has for its partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Its offset there.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.offset
    }
}

/// The verdicts in one call: each is of another partition.
const BATCH: usize = 256;

/// The most messages of one partition that are with the drain and not handled. Their bytes are bounded
/// as well.
const PREFETCH: usize = 200;

/// A fetch that waits looks again after so long, also where the client has told it nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

impl Consumer {
    /// A member of the group that `config` names, for these topics. `config` is the client's own; what
    /// settling depends on is set here.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Validation`] where there is no `group.id`, no topic, a property that the client does
    /// not know, or one that contradicts what settling needs: `enable.auto.commit`,
    /// `enable.auto.offset.store`, `auto.offset.reset`, `enable.partition.eof`, `isolation.level`,
    /// `queued.max.messages.kbytes`, `queued.min.messages`.
    pub fn new<T: Into<String>>(
        config: ClientConfig,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Self, Error> {
        let topics = topics.into_iter().map(Into::into).collect();
        let setup = Setup::new(config, topics)?;
        let (commands, receiver) = mpsc::channel();
        let shared = Shared {
            notices: Notices::new(),
            commands,
            caught_up: CancellationSource::new(),
            passed_over: AtomicU64::new(0),
            partitions: Mutex::default(),
            ours: Mutex::default(),
            trouble: Mutex::default(),
        };
        Ok(Self {
            setup: Mutex::new(Some((setup, receiver))),
            until_empty: false,
            left: AtomicBool::new(false),
            shared: Arc::new(shared),
        })
    }

    /// Where a group starts that has no position yet. The position is committed before the first
    /// message is handed on, so that a crash before the first commit changes nothing. A partition that
    /// comes later, when the group has a position in another one of its topic, starts at its beginning
    /// whatever is said here.
    #[must_use]
    pub fn start_at(self, start: Start) -> Self {
        self.with(|setup| setup.start = start)
    }

    /// Where a partition goes on of which the log does not hold the group's position any more: it was
    /// deleted before somebody came, or the topic was made anew. Looked at when the partition is
    /// assigned, and committed then; what is deleted while it is read ends the drain all the same. What
    /// was passed over is [counted](Consumer::passed_over).
    #[must_use]
    pub fn if_gone(self, start: Start) -> Self {
        self.with(|setup| setup.if_gone = Some(start))
    }

    /// How many offsets were passed over because the log does not [hold them
    /// any more](Consumer::if_gone).
    #[must_use]
    pub fn passed_over(&self) -> u64 {
        self.shared.passed_over.load(Ordering::Relaxed)
    }

    /// How many bytes are read ahead of the handlers, over all partitions that the topics have when the
    /// consumer joins. A batch of records, as its producer has made it, is read whole whatever its size,
    /// one of each partition.
    ///
    /// 0 is [`ErrorCode::Validation`]: the drain ends with it.
    #[must_use]
    pub fn ahead_bytes(self, bytes: usize) -> Self {
        self.with(|setup| setup.ahead_bytes = bytes)
    }

    /// Each partition ends where the client says that it is at its end. When that is so of all that
    /// this consumer has, and everything is committed, [`caught_up`](Consumer::caught_up) is cancelled.
    #[must_use]
    pub fn until_empty(mut self) -> Self {
        self.until_empty = true;
        self.with(|setup| setup.until_empty = true)
    }

    /// Cancelled when this consumer has read its partitions [until they were
    /// empty](Consumer::until_empty), and all of it is committed: for
    /// [`FanIn::shutdown`](watershed::FanIn::shutdown). One that has no partition waits until the group
    /// gives it one: another member has them, and may not have read them.
    #[must_use]
    pub fn caught_up(&self) -> CancellationToken {
        self.shared.caught_up.token()
    }

    fn with(self, change: impl FnOnce(&mut Setup)) -> Self {
        if let Some((setup, _)) = &mut *self.setup.lock().unwrap_or_else(PoisonError::into_inner) {
            change(setup);
        }
        self
    }

    /// Starts the thread that is in the group.
    fn join(&self) -> Result<(), Error> {
        let setup = self.setup.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((setup, commands)) = setup else { return Ok(()) };
        if setup.ahead_bytes == 0 {
            return Err(Error::validation("`ahead_bytes` must not be 0"));
        }
        let member = Member::new(setup, Arc::clone(&self.shared), commands);
        let thread = thread::Builder::new().name("watershed-kafka".to_owned());
        let started = thread.spawn(move || member.run());
        started.map(drop).map_err(|error| Error::from_error(ErrorCode::Source, error))
    }

    async fn next(&self, partition: &Partition, want: Want) -> Read {
        let until = Instant::now() + want.wait.min(LONGEST_WAIT);
        let mut stopped = pin!(want.stop.cancelled());
        poll_fn(|cx| {
            // What is read when nobody wants it has to be sought back.
            if stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Read::Nothing);
            }
            partition.wakes(cx);
            match partition.read(want.at_most, until) {
                Read::Nothing => {
                    let is_over = Instant::now() >= until || self.shared.trouble().is_some();
                    if is_over { Poll::Ready(Read::Nothing) } else { Poll::Pending }
                }
                read => Poll::Ready(read),
            }
        })
        .await
    }

    /// What the log holds instead of what was to be read.
    async fn explain(&self, partition: &Partition, cause: KafkaError) -> Trouble {
        let (answer, explained) = oneshot::channel();
        let command = Command::Explain(partition.assignment, cause, answer);
        if self.shared.commands.send(command).is_err() {
            return Trouble::Lasts(closed());
        }
        explained.await.unwrap_or_else(|_| Trouble::Lasts(closed()))
    }
}

impl Transport for Consumer {
    type Message = OwnedMessage;
    type Receipt = Receipt;

    fn able(&self) -> Able {
        Able::prefix().assigns().batches_of(BATCH).prefetches(PREFETCH)
    }

    /// Joins the group: asked once, by the link.
    fn notices(&self) -> Notices {
        if let Err(error) = self.join() {
            self.shared.notices.tell(Event::Gone(error));
        }
        self.shared.notices.clone()
    }

    /// It has left its group for good.
    fn open(&self) -> Result<(), Error> {
        if !self.left.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::validation("this consumer has left its group: make another one"))
    }

    async fn fetch(&self, want: Want) -> Fetched<OwnedMessage, Receipt> {
        // Given up in the meantime: there will be nothing more.
        let Some(partition) = self.shared.partition(want.assignment) else {
            return Ok(Some(Vec::new()));
        };
        match self.next(&partition, want).await {
            Read::Messages(messages) => Ok(Some(messages)),
            Read::End if self.until_empty => Ok(None),
            Read::Failed(cause) if is_gone(&cause) => Err(self.explain(&partition, cause).await),
            Read::Failed(cause) => {
                let Partition { topic, number, .. } = &*partition;
                Err(trouble(format!("reading partition {number} of `{topic}`"), cause))
            }
            Read::Nothing | Read::End | Read::Closed => {
                let trouble = self.shared.trouble().clone();
                trouble.map_or(Ok(Some(Vec::new())), |error| Err(Trouble::Passes(error)))
            }
        }
    }

    /// What is to be committed is looked at here, and goes to the thread that commits. Seeks wait for the
    /// client: the member's thread does that.
    async fn settle(&self, batch: Vec<(Receipt, Verdict)>) -> Vec<Settled> {
        let count = batch.len();
        let (answer, settled) = oneshot::channel();
        let seeks = batch.iter().any(|(_, verdict)| matches!(verdict, Verdict::Release { .. }));
        if !seeks {
            let receipts = batch.into_iter().map(|(receipt, _)| receipt).enumerate().collect();
            self.shared.ours().commit(receipts, (0..count).map(|_| None).collect(), answer);
        } else if self.shared.commands.send(Command::Settle(batch, answer)).is_err() {
            // A thread that is gone has left the group: nothing is ours.
            return (0..count).map(|_| Settled::Lost(closed())).collect();
        }
        settled.await.unwrap_or_default()
    }

    async fn close(&self) -> Result<(), Error> {
        self.left.store(true, Ordering::Relaxed);
        let (answer, left) = oneshot::channel();
        if self.shared.commands.send(Command::Leave(Some(answer))).is_err() {
            return Ok(());
        }
        left.await.unwrap_or(Ok(()))
    }
}

/// The thread leaves the group by itself.
impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.shared.commands.send(Command::Leave(None));
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("until_empty", &self.until_empty).finish_non_exhaustive()
    }
}
