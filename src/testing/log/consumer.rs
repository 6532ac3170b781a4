//! Who reads a log, as the transport of a drain.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::parts::Holder;
use super::{LogAnswer, LogBook, LogRecord, ScriptedLog};
use crate::clock::{Clock, Sleep};
use crate::error::{Error, ErrorCode};
use crate::transport::{
    Able, Assignment, Event, Facts, Fetched, Notices, Received, Revocation, Settled, Transport,
    Trouble, Verdict, Want,
};

/// What a record of a [`ScriptedLog`] is settled by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOffset {
    /// As whose it was fetched.
    pub assignment: Assignment,
    /// Its place in the partition.
    pub offset: u64,
}

/// A consumer of a [`ScriptedLog`]: the transport that a [`Link`](crate::transport::Link) is made
/// of. Clones are the same consumer.
///
/// It takes part in whatever the test wants: partitions are given to it, asked back from it, and
/// taken from it.
#[derive(Clone)]
pub struct LogConsumer {
    log: ScriptedLog,
    number: usize,
    notices: Notices,
    able: Able,
}

/// A call that is on its way. Dropped, it is over.
struct OnItsWay {
    consumer: LogConsumer,
    assignments: Vec<Assignment>,
    is_fetch: bool,
    /// Where the position was before a fetch that has not returned.
    read_from: Cell<Option<u64>>,
}

impl LogConsumer {
    pub(super) fn new(log: ScriptedLog, number: usize) -> Self {
        let prefetch = log.look(|book| book.prefetch);
        let able = Able::prefix().assigns().batches_of(16).prefetches(prefetch);
        let able = able.asks_every(Duration::from_millis(10));
        Self { log, number, notices: Notices::new(), able }
    }

    fn holder(&self, generation: u64) -> Holder {
        Holder { consumer: self.number, generation }
    }

    /// Gives this consumer a partition, in a new generation and from the committed offset on. Whoever
    /// held it is not told.
    #[allow(clippy::must_use_candidate, reason = "the consumer is told as well")]
    pub fn assign(&self, partition: u32) -> Assignment {
        let number = self.number;
        let generation = self.log.look(|book| book.parts.assign(partition, number));
        let assignment = Assignment { partition, generation };
        self.notices.tell(Event::Assigned(assignment));
        assignment
    }

    /// The generation in which it has a partition.
    #[must_use]
    pub fn has(&self, partition: u32) -> Option<Assignment> {
        let holder = self.log.look(|book| book.parts.get(partition)?.holder);
        let generation = holder.filter(|holder| holder.consumer == self.number)?.generation;
        Some(Assignment { partition, generation })
    }

    /// Asks for a partition. It is given up when the answer is there: the number of its records that
    /// were not settled.
    pub fn revoke(
        &self,
        partition: u32,
        within: Option<Duration>,
    ) -> impl Future<Output = usize> + Send + Unpin + use<> {
        let (sender, receiver) = async_channel::bounded(1);
        let assignment = self.has(partition).unwrap_or_default();
        let consumer = self.clone();
        let revocation = Revocation::new(assignment, move |unsettled| {
            consumer.give_up(assignment);
            let _ = sender.try_send(unsettled);
        });
        let revocation = match within {
            Some(within) => revocation.within(within),
            None => revocation,
        };
        self.notices.tell(Event::Revoked(revocation));
        Box::pin(async move { receiver.recv().await.unwrap_or(0) })
    }

    /// Takes a partition from it.
    pub fn lose(&self, partition: u32) {
        if let Some(assignment) = self.has(partition) {
            self.give_up(assignment);
            let error = Error::new(ErrorCode::Source, "put out of the group");
            self.notices.tell(Event::Lost(assignment, error));
        }
    }

    fn give_up(&self, assignment: Assignment) {
        let holder = self.holder(assignment.generation);
        self.log.look(|book| book.parts.take(assignment.partition, holder));
    }

    /// What it tells its drain by.
    #[must_use]
    pub fn told(&self) -> &Notices {
        &self.notices
    }

    fn after(&self, latency: Duration) -> Sleep {
        let clock: &Arc<dyn Clock> = &self.log.shared.clock;
        clock.sleep_until(clock.now() + latency)
    }

    /// What a fetch brings that is sent now.
    fn read(&self, want: &Want, cx: Option<&Context<'_>>) -> Poll<Option<Vec<LogRecord>>> {
        let Assignment { partition, generation } = want.assignment;
        let holder = self.holder(generation);
        self.log.look(|book| {
            let endless = book.endless;
            let Some(part) = book.parts.held(partition, holder) else {
                // There will be nothing, and an answer at once would be asked for again.
                return Poll::Pending;
            };
            if part.seeking {
                let text = "a fetch, and the seek is not confirmed".to_owned();
                book.parts.note(partition, Some(text));
                return Poll::Ready(Some(Vec::new()));
            }
            let most = u64::try_from(want.at_most).unwrap_or(u64::MAX);
            let end = part.length.min(part.position.saturating_add(most));
            let offsets = part.position..end;
            if offsets.is_empty() {
                if !endless {
                    return Poll::Ready(None);
                }
                if let Some(cx) = cx {
                    book.parts.wait(partition, cx.waker().clone());
                }
                return Poll::Pending;
            }
            part.position = end;
            Poll::Ready(Some(offsets.map(|offset| LogRecord { partition, offset }).collect()))
        })
    }

    /// Sees a batch off. Each has the answer that is decided for it.
    fn send(&self, batch: &[(LogOffset, Verdict)]) -> Vec<LogAnswer> {
        self.log.look(|book| {
            let mut answers = Vec::new();
            for (LogOffset { assignment, offset }, verdict) in batch {
                let Assignment { partition, generation } = *assignment;
                let is_seek = matches!(verdict, Verdict::Release { .. });
                answers.push(book.answer(is_seek));
                let Some(part) = book.parts.held(partition, self.holder(generation)) else {
                    let what = if is_seek { "a seek" } else { "a commit" };
                    book.parts.note_stale(partition, what, generation);
                    continue;
                };
                part.settling += 1;
                let mut mistakes = Vec::new();
                if part.settling > 1 {
                    mistakes.push("two calls at once".to_owned());
                }
                if is_seek {
                    if part.fetching > 0 {
                        mistakes.push(format!("a seek to {offset} while a fetch is on its way"));
                    }
                    mistakes.extend(part.account.seek(*offset, generation));
                    part.seeking = true;
                }
                if matches!(verdict, Verdict::Reject { .. }) {
                    mistakes.push(format!("{offset} cannot be rejected by itself"));
                }
                for mistake in mistakes {
                    book.parts.note(partition, Some(mistake));
                }
            }
            answers
        })
    }

    /// What becomes of one of a batch that has arrived.
    fn arrive(&self, receipt: LogOffset, verdict: &Verdict, answer: LogAnswer) -> Settled {
        let Assignment { partition, generation } = receipt.assignment;
        let holder = self.holder(generation);
        let error = |text| Error::new(ErrorCode::Source, text);
        if answer == LogAnswer::Lost {
            self.lose(partition);
        }
        self.log.look(|book| {
            let Some(part) = book.parts.held(partition, holder) else {
                return Settled::Lost(error("another generation"));
            };
            if matches!(answer, LogAnswer::Confirmed | LogAnswer::Sent | LogAnswer::Swallowed) {
                let mistake = if let Verdict::Release { .. } = verdict {
                    part.position = receipt.offset;
                    part.seeking = answer == LogAnswer::Swallowed;
                    None
                } else {
                    part.account.commit(receipt.offset + 1, generation)
                };
                book.parts.note(partition, mistake);
            }
            match answer {
                LogAnswer::Confirmed => Settled::Confirmed,
                LogAnswer::Sent => Settled::Sent,
                LogAnswer::Refused => Settled::Refused(error("a rebalance is in progress")),
                _ => Settled::Unknown(error("no answer")),
            }
        })
    }
}

impl LogBook {
    fn chance(&self) -> bool {
        self.mishaps.as_ref().is_some_and(|(chance, percent)| chance.below(100) < *percent)
    }

    fn answer(&mut self, is_seek: bool) -> LogAnswer {
        let script = if is_seek { &mut self.seeks } else { &mut self.commits };
        if let Some(answer) = script.pop_front() {
            return answer;
        }
        let mishap = self.chance();
        let Some((chance, _)) = self.mishaps.as_ref().filter(|_| mishap) else {
            return LogAnswer::Confirmed;
        };
        match chance.below(12) {
            0..4 => LogAnswer::Refused,
            4..6 => LogAnswer::Unknown,
            6..8 => LogAnswer::Swallowed,
            8 => LogAnswer::Missing,
            9 => LogAnswer::Silent,
            _ => LogAnswer::Sent,
        }
    }

    fn takes(&self, latency: Duration) -> Duration {
        match &self.mishaps {
            Some((chance, _)) if self.chance() => {
                latency * u32::try_from(chance.below(10)).unwrap_or(0)
            }
            _ => latency,
        }
    }
}

impl OnItsWay {
    fn begin(consumer: &LogConsumer, assignments: Vec<Assignment>, is_fetch: bool) -> Self {
        if is_fetch {
            consumer.log.look(|book| {
                for of in &assignments {
                    let held = book.parts.held(of.partition, consumer.holder(of.generation));
                    if let Some(part) = held {
                        part.fetching += 1;
                    }
                }
            });
        }
        let read_from = Cell::new(None);
        Self { consumer: consumer.clone(), assignments, is_fetch, read_from }
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        let consumer = &self.consumer;
        consumer.log.look(|book| {
            for of in &self.assignments {
                let held = book.parts.held(of.partition, consumer.holder(of.generation));
                let Some(part) = held else { continue };
                let calls = if self.is_fetch { &mut part.fetching } else { &mut part.settling };
                *calls = calls.saturating_sub(1);
                part.position = self.read_from.get().unwrap_or(part.position);
            }
        });
    }
}

impl Transport for LogConsumer {
    type Message = LogRecord;
    type Receipt = LogOffset;

    fn able(&self) -> Able {
        self.able
    }

    fn notices(&self) -> Notices {
        self.notices.clone()
    }

    async fn fetch(&self, want: Want) -> Fetched<LogRecord, LogOffset> {
        let call = OnItsWay::begin(self, vec![want.assignment], true);
        let (latency, fails) = self.log.look(|book| {
            let fails = book.failing_fetches > 0 || book.chance() && book.chance();
            book.failing_fetches = book.failing_fetches.saturating_sub(1);
            (book.takes(book.fetch_latency), fails)
        });
        if fails {
            self.after(latency).await;
            return Err(Trouble::Passes(Error::new(ErrorCode::Source, "no leader")));
        }
        // Whatever is there now is on its way, whoever does not want it any more.
        let mut over = self.after(want.wait);
        let mut stopped = std::pin::pin!(want.stop.cancelled());
        let read = std::future::poll_fn(|cx| {
            let read = self.read(&want, Some(cx));
            let is_over = read.is_pending()
                && (over.as_mut().poll(cx).is_ready() || stopped.as_mut().poll(cx).is_ready());
            if is_over { Poll::Ready(Some(Vec::new())) } else { read }
        });
        let read = read.await;
        if read.as_ref().is_none_or(|records| !records.is_empty()) {
            call.read_from.set(read.iter().flatten().map(|record| record.offset).next());
            self.after(latency).await;
            call.read_from.set(None);
        }
        let Some(records) = read else { return Ok(None) };
        let received = |record: LogRecord| {
            let LogRecord { partition, offset } = record;
            let receipt = LogOffset { assignment: want.assignment, offset };
            let id = format!("{partition}/{offset}");
            let facts =
                Facts { id: Some(id.into()), assignment: want.assignment, ..Facts::default() };
            Received::new(record, receipt).with_facts(facts)
        };
        Ok(Some(records.into_iter().map(received).collect()))
    }

    async fn settle(&self, batch: Vec<(LogOffset, Verdict)>) -> Vec<Settled> {
        let answers = self.send(&batch);
        let assignments = batch.iter().map(|(receipt, _)| receipt.assignment).collect();
        let _call = OnItsWay::begin(self, assignments, false);
        let latency = self.log.look(|book| book.takes(book.settle_latency));
        self.after(latency).await;
        if answers.contains(&LogAnswer::Silent) {
            std::future::pending::<()>().await;
        }
        let mut settled = Vec::new();
        for ((receipt, verdict), answer) in batch.into_iter().zip(answers) {
            if answer == LogAnswer::Missing {
                break;
            }
            settled.push(self.arrive(receipt, &verdict, answer));
        }
        settled
    }

    async fn close(&self) -> Result<(), Error> {
        self.log.look(|book| book.parts.closed += 1);
        Ok(())
    }
}

impl fmt::Debug for LogConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogConsumer").field("number", &self.number).finish_non_exhaustive()
    }
}
