//! A queue: its options, and the transport that it is.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use futures::future::join3;
use watershed::Error;
use watershed::transport::{
    Able, Facts, Fetched, Received, Renewed, Settled, Transport, Trouble, Verdict, Want,
};

use crate::answers::{Refusal, Why};
use crate::attempts::{Attempt, Attempts};
use crate::calls::{self, Answer, name, once};
use crate::letters::{self, Letter, is_fifo};
use crate::redrive;

/// What the service takes and gives in one call.
const BATCH: usize = 10;

/// The longest that a message can be invisible, from its receive on.
const LONGEST_VISIBILITY: Duration = Duration::from_hours(12);

/// The longest that the service waits for a first message.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// An SQS queue, for [`Link::new`](watershed::transport::Link::new).
///
/// | option | default |
/// | --- | --- |
/// | [`visibility`](Queue::visibility) | 60 seconds |
/// | [`wait`](Queue::wait) | a sixth of the visibility, at most 20 seconds |
/// | [`letters`](Queue::letters) | none: what the drain has stored as a dead letter is deleted, and what nobody stores ends it |
/// | [`redriven`](Queue::redriven) | it is not |
///
/// The service counts in whole seconds: what is given is rounded up, `wait` is rounded down. Options
/// that do not go together are [`ErrorCode::Validation`](watershed::ErrorCode::Validation) of the drain
/// before anything is received.
///
/// A queue whose name ends in `.fifo` keeps order by message group.
///
/// ```
/// use std::time::Duration;
/// use watershed::transport::Link;
/// use watershed::{BoxError, ErrorCode, StepContext, fan_in};
/// use watershed_sqs::Queue;
/// # use watershed_sqs::aws_sdk_sqs::{Client, Config, config::BehaviorVersion};
/// # use watershed_sqs::aws_sdk_sqs::config::{AsyncSleep, Sleep};
/// # #[derive(Debug)]
/// # struct Timer;
/// # impl AsyncSleep for Timer {
/// #     fn sleep(&self, _: Duration) -> Sleep { Sleep::new(async {}) }
/// # }
/// # let config = Config::builder().behavior_version(BehaviorVersion::latest());
/// # let client = Client::from_conf(config.sleep_impl(Timer).build());
///
/// let url = "https://sqs.eu-central-1.amazonaws.com/000000000000/orders";
/// let orders = Link::new(Queue::new(client, url).visibility(Duration::from_hours(13)));
/// let context = StepContext::new("orders");
/// let drain = fan_in(&context, [orders.source()], async |_, _| Ok::<_, BoxError>(()));
/// let failure = smol::block_on(drain.into_future()).unwrap_err();
/// assert_eq!(failure.error().code(), ErrorCode::Validation); // 12 hours is the most
/// ```
#[derive(Debug)]
#[must_use]
pub struct Queue {
    client: Client,
    url: String,
    visibility: Duration,
    wait: Option<Duration>,
    letters: Option<String>,
    redriven: bool,
    /// After how many receives the queue puts a message aside. Asked once.
    max_receives: OnceLock<Option<u32>>,
    /// What a settlement has found out that lasts: the next fetch tells it to the drain.
    fault: Mutex<Option<Error>>,
    attempts: Attempts,
}

/// What a message is settled by.
#[derive(Clone, Debug)]
pub struct Receipt {
    handle: Arc<str>,
    letter: Option<Arc<Letter>>,
}

impl Receipt {
    /// The service's own receipt handle: good until the message is received again.
    #[must_use]
    pub fn handle(&self) -> &str {
        &self.handle
    }
}

impl Queue {
    /// The queue at `url`, by a client that knows its region, credentials, HTTP client and time limits.
    #[allow(clippy::needless_pass_by_value, reason = "what is handed over is used by the queue")]
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        Self {
            client: once(&client),
            url: url.into(),
            visibility: Duration::from_mins(1),
            wait: None,
            letters: None,
            redriven: false,
            max_receives: OnceLock::new(),
            fault: Mutex::new(None),
            attempts: Attempts::default(),
        }
    }

    /// How long a received message is invisible to others, 1 second to 12 hours: every receive says it,
    /// whatever the queue itself is set to. It is renewed from a third of it on, and is how long a
    /// message takes to come again when this process dies.
    pub fn visibility(mut self, visibility: Duration) -> Self {
        self.visibility = visibility;
        self
    }

    /// How long a receive waits for a first message, 1 to 20 seconds, and at most a third of the
    /// visibility. A drain that ends waits for the
    /// receive that is on its way: what it brings would be invisible to others for nothing.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// The queue that rejected messages are sent to before they are deleted, as they came; what they
    /// have failed with is added as the attribute `watershed-error`, 1 KiB at most, unless that makes
    /// the message too large or it has ten attributes already. A message may get there twice; where
    /// the drain has [dead letters](watershed::FanIn::dead_letters) as well, it is stored in both.
    pub fn letters(mut self, url: impl Into<String>) -> Self {
        self.letters = Some(url.into());
        self
    }

    /// The queue has a redrive policy, which is to put aside what cannot be handled: such a message is
    /// released until it has come too often.
    pub fn redriven(mut self) -> Self {
        self.redriven = true;
        self
    }

    /// In whole seconds.
    fn seconds(&self) -> i32 {
        whole_seconds(self.visibility)
    }

    /// What every message is ours for.
    fn term(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds().unsigned_abs()))
    }

    fn check(&self) -> Result<(), Error> {
        let text = if self.visibility.is_zero() || self.visibility > LONGEST_VISIBILITY {
            format!("the visibility of {} is not 1 s to 12 h: {:?}", self.name(), self.visibility)
        } else if self.wait.is_some_and(|wait| wait > LONGEST_WAIT || wait.as_secs() == 0) {
            format!("the wait of {} is not 1 s to 20 s: {:?}", self.name(), self.wait)
        } else if self.letters.as_ref() == Some(&self.url) {
            format!("{} is its own dead-letter queue", self.name())
        } else if self.redriven && self.letters.is_some() {
            format!("{} has both `letters` and `redriven`: one has no effect", self.name())
        } else {
            return Ok(());
        };
        Err(Error::validation(text))
    }

    fn name(&self) -> &str {
        name(&self.url)
    }

    fn set_fault(&self, error: &Error) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.get_or_insert_with(|| error.clone());
    }

    fn take_fault(&self) -> Option<Error> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What has to hold before anything is received.
    async fn is_ready(&self, want: &Want) -> Result<(), Trouble> {
        if let Some(error) = self.take_fault() {
            return Err(Trouble::Lasts(error));
        }
        self.check().map_err(Trouble::Lasts)?;
        if !self.redriven && want.max_deliveries.is_none() {
            return Ok(());
        }
        let receives = match self.max_receives.get() {
            Some(receives) => *receives,
            None => redrive::max_receives(&self.client, &self.url).await?,
        };
        let _ = self.max_receives.set(receives);
        let deliveries = want.max_deliveries;
        redrive::check(&self.url, receives, deliveries, self.redriven).map_err(Trouble::Lasts)
    }

    fn received(&self, message: Message) -> Result<Received<Message, Receipt>, Trouble> {
        let Some(handle) = message.receipt_handle() else {
            let text = format!("a message of {} came without a receipt handle", self.name());
            return Err(Refusal::new(Why::NoAnswer, text).trouble());
        };
        let letter = self.letters.as_ref().map(|_| Arc::new(Letter::of(&message)));
        let receipt = Receipt { handle: handle.into(), letter };
        let facts = facts(&message, is_fifo(&self.url));
        Ok(Received::new(message, receipt).leased_for(self.term()).with_facts(facts))
    }

    async fn accept(&self, receipts: &[Receipt]) -> Vec<Answer> {
        let handles: Vec<_> = receipts.iter().map(Receipt::handle).collect();
        calls::delete(&self.client, &self.url, &handles).await
    }

    /// A delay that the service does not grant any more is none.
    async fn release(&self, releases: &[(Receipt, i32)]) -> Vec<Answer> {
        let releases: Vec<_> = releases.iter().map(|(it, after)| (it.handle(), *after)).collect();
        let mut answers = calls::hide(&self.client, &self.url, &releases).await;
        let is_beyond = |at: &usize| matches!(&answers[*at], Err(it) if it.why == Why::Beyond);
        let beyond: Vec<_> = (0..answers.len()).filter(is_beyond).collect();
        let at_once: Vec<_> = beyond.iter().map(|at| (releases[*at].0, 0)).collect();
        for (at, answer) in beyond.iter().zip(calls::hide(&self.client, &self.url, &at_once).await)
        {
            answers[*at] = answer;
        }
        answers
    }

    /// What is to be kept is stored first; only what is stored is deleted.
    async fn reject(&self, rejects: &[(Receipt, Error)]) -> Vec<Answer> {
        let mut answers = vec![Ok(()); rejects.len()];
        if let Some(to) = &self.letters {
            let letter = |(receipt, error): &(Receipt, Error)| {
                receipt.letter.as_ref().map(|letter| (Arc::clone(letter), error.clone()))
            };
            let all: Vec<_> = rejects.iter().filter_map(letter).collect();
            answers = letters::store(&self.client, &self.url, to, &all).await;
        }
        let stored: Vec<_> = (0..rejects.len()).filter(|at| answers[*at].is_ok()).collect();
        let receipts: Vec<_> = stored.iter().map(|at| rejects[*at].0.clone()).collect();
        for (at, answer) in stored.iter().zip(self.accept(&receipts).await) {
            answers[*at] = answer;
        }
        answers
    }

    fn settled(&self, answer: Answer) -> Settled {
        let Err(Refusal { why, error }) = answer else { return Settled::Confirmed };
        match why {
            Why::Lost => Settled::Lost(error),
            Why::NoAnswer => Settled::Unknown(error),
            Why::Lasts => {
                self.set_fault(&error);
                Settled::Refused(error)
            }
            Why::Passes | Why::Invalid | Why::Beyond => Settled::Refused(error),
        }
    }
}

impl Transport for Queue {
    type Message = Message;
    type Receipt = Receipt;

    fn able(&self) -> Able {
        let able = Able::each().fences().renews().delays().counts();
        let able = if self.letters.is_some() { able.rejects() } else { able };
        let able = if self.redriven { able.redrives() } else { able };
        let able = if is_fifo(&self.url) { able.groups() } else { able };
        // More are fetched when half of them are left: so each receive, which is paid for, is for ten.
        able.batches_of(BATCH).prefetches(2 * BATCH)
    }

    async fn fetch(&self, want: Want) -> Fetched<Message, Receipt> {
        self.is_ready(&want).await?;
        if want.stop.is_cancelled() {
            return Ok(Some(Vec::new()));
        }
        // What arrives at the end of a wait has to be ours for a while.
        let longest = LONGEST_WAIT.min(self.term() / 3).min(want.wait);
        let wait = self.wait.unwrap_or(self.term() / 6).min(longest);
        let attempt = is_fifo(&self.url).then(|| self.attempts.begin());
        let answer = self
            .client
            .receive_message()
            .set_receive_request_attempt_id(attempt.as_ref().map(|it| it.id().to_owned()))
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(want.at_most.min(BATCH)).unwrap_or(1))
            .visibility_timeout(self.seconds())
            .wait_time_seconds(i32::try_from(wait.as_secs()).unwrap_or(0))
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All")
            .send()
            .await;
        // A stop in between changes nothing: the service may have leased messages by now.
        let failed = |error| Refusal::of_call("receiving from", self.name(), error);
        let answer = answer.map_err(failed);
        if !matches!(&answer, Err(refusal) if refusal.why == Why::NoAnswer) {
            attempt.into_iter().for_each(Attempt::answered);
        }
        let answer = answer.map_err(Refusal::trouble)?;
        let messages = answer.messages.unwrap_or_default().into_iter();
        messages.map(|message| self.received(message)).collect::<Result<_, _>>().map(Some)
    }

    async fn settle(&self, batch: Vec<(Receipt, Verdict)>) -> Vec<Settled> {
        let (mut accepts, mut releases, mut rejects) = (Vec::new(), Vec::new(), Vec::new());
        let mut places = (Vec::new(), Vec::new(), Vec::new());
        let count = batch.len();
        for (place, (receipt, verdict)) in batch.into_iter().enumerate() {
            match verdict {
                Verdict::Accept => {
                    places.0.push(place);
                    accepts.push(receipt);
                }
                Verdict::Reject { error } => {
                    places.2.push(place);
                    rejects.push((receipt, error));
                }
                Verdict::Release { after, .. } => {
                    places.1.push(place);
                    releases.push((receipt, whole_seconds(after.unwrap_or_default())));
                }
                // A verdict that this adapter does not know yet: the message comes again.
                _ => {
                    places.1.push(place);
                    releases.push((receipt, 0));
                }
            }
        }
        let (accepted, released, rejected) =
            join3(self.accept(&accepts), self.release(&releases), self.reject(&rejects)).await;
        let answers = places.0.into_iter().zip(accepted);
        let answers = answers.chain(places.1.into_iter().zip(released));
        let mut settled: Vec<_> = answers.chain(places.2.into_iter().zip(rejected)).collect();
        settled.sort_unstable_by_key(|(place, _)| *place);
        debug_assert_eq!(settled.len(), count);
        settled.into_iter().map(|(_, answer)| self.settled(answer)).collect()
    }

    async fn renew(&self, batch: Vec<Receipt>) -> Vec<Renewed> {
        let (seconds, term) = (self.seconds(), self.term());
        let messages: Vec<_> = batch.iter().map(|receipt| (receipt.handle(), seconds)).collect();
        let answers = calls::hide(&self.client, &self.url, &messages).await;
        let renewed = answers.into_iter().map(|answer| match answer {
            Ok(()) => Renewed::For(term),
            Err(Refusal { why: Why::Beyond, .. }) => Renewed::AtMaximum,
            Err(Refusal { why: Why::Lost, error }) => Renewed::Lost(error),
            Err(Refusal { why: Why::Lasts, error }) => {
                self.set_fault(&error);
                Renewed::Failed(error)
            }
            Err(Refusal { error, .. }) => Renewed::Failed(error),
        });
        renewed.collect()
    }

    /// There is nothing to close. What the last settlements have found out is told here: no fetch comes
    /// after them.
    async fn close(&self) -> Result<(), Error> {
        self.take_fault().map_or(Ok(()), Err)
    }
}

/// Rounded up, and no more than the service takes.
fn whole_seconds(time: Duration) -> i32 {
    let time = time.min(LONGEST_VISIBILITY);
    i32::try_from(time.as_secs()).unwrap_or(i32::MAX) + i32::from(time.subsec_nanos() > 0)
}

/// A standard queue may name groups as well (it shares its messages out fairly by them), and keeps no
/// order in them.
fn facts(message: &Message, is_fifo: bool) -> Facts {
    let system = |which| message.attributes().and_then(|attributes| attributes.get(&which));
    let headers = message.message_attributes().into_iter().flatten().filter_map(|(name, value)| {
        let text = value.string_value().map(|text| text.as_bytes().to_vec());
        let bytes = || value.binary_value().map(|bytes| bytes.as_ref().to_vec());
        Some((name.clone(), text.or_else(bytes)?))
    });
    let mut headers: Vec<_> = headers.collect();
    headers.sort_unstable();
    let count = system(MessageSystemAttributeName::ApproximateReceiveCount);
    Facts {
        id: message.message_id().map(Into::into),
        deliveries: count.and_then(|count| count.parse().ok()),
        group: system(MessageSystemAttributeName::MessageGroupId)
            .filter(|_| is_fifo)
            .map(|group| group.as_str().into()),
        headers,
        ..Facts::default()
    }
}
