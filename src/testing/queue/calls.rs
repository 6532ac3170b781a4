//! A scripted queue as a transport.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::answers::{FetchAnswer, RenewalAnswer, SettleAnswer};
use super::rows::{Out, QueueReceipt};
use super::{QueueState, ScriptedQueue};
use crate::clock::Tick;
use crate::error::{Error, ErrorCode};
use crate::settlement::{Able, Facts, Settled, Verdict};
use crate::transport::{Fetched, Received, Renewed, Transport, Trouble, Want};

/// One call of a [`ScriptedQueue`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum QueueCall {
    /// A fetch, and what it brought.
    Fetch {
        /// When it arrived.
        at: Tick,
        /// The messages.
        brought: Vec<u64>,
    },
    /// Verdicts.
    Settle {
        /// When they arrived.
        at: Tick,
        /// What each was about.
        batch: Vec<(QueueReceipt, Verdict)>,
    },
    /// Renewals.
    Renew {
        /// When they arrived.
        at: Tick,
        /// What each was about.
        batch: Vec<QueueReceipt>,
    },
    /// The queue was closed.
    Close {
        /// When.
        at: Tick,
    },
}

fn trouble(text: &'static str) -> Error {
    Error::new(ErrorCode::Source, text)
}

/// How the rest of a call goes on.
enum CallRest {
    Answered,
    Late(Duration),
    Never,
}

/// Counts the verdicts of a call while it is with the queue.
struct Counted<'a, M>(&'a ScriptedQueue<M>, usize);

impl<M> Drop for Counted<'_, M> {
    fn drop(&mut self) {
        self.0.shared.state.lock().settling -= self.1;
    }
}

impl<M> ScriptedQueue<M> {
    /// What the time is for it.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.shared.clock.now()
    }

    async fn wait(&self, time: Duration) {
        if !time.is_zero() {
            self.shared.clock.sleep_until(self.now() + time).await;
        }
    }

    fn note(&self, call: QueueCall) -> Duration {
        let mut state = self.shared.state.lock();
        state.calls.push(call);
        state.latency
    }

    /// Waits until there may be something to fetch, at most until then. `pushed`: how often messages
    /// have come so far.
    async fn wait_for_messages(&self, pushed: u64, until: Tick, want: &Want) {
        let mut sleep = pin!(self.shared.clock.sleep_until(until));
        let mut stopped = pin!(want.stop.cancelled());
        poll_fn(|cx| {
            let waker = cx.waker().clone();
            {
                let mut state = self.shared.state.lock();
                if state.pushed != pushed {
                    return Poll::Ready(());
                }
                state.waiting.push(waker);
            }
            if sleep.as_mut().poll(cx).is_ready() || stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }
}

impl<M> QueueState<M> {
    fn settle_one(
        &mut self,
        (receipt, verdict): &(QueueReceipt, Verdict),
        now: Tick,
    ) -> (Option<Settled>, CallRest) {
        let answer = self.answers.settle();
        let fences = self.able.fences;
        let mut apply = || {
            if self.rows.settle(*receipt, verdict, fences, now) {
                Settled::Confirmed
            } else {
                Settled::Lost(trouble("the receipt is an old one"))
            }
        };
        let unknown = || Settled::Unknown(trouble("the connection broke"));
        let settled = match answer {
            SettleAnswer::Usual => apply(),
            SettleAnswer::Late(late) => return (Some(apply()), CallRest::Late(late)),
            SettleAnswer::Sent => match apply() {
                Settled::Confirmed => Settled::Sent,
                other => other,
            },
            SettleAnswer::Refused => Settled::Refused(trouble("too many requests")),
            SettleAnswer::Lost => {
                self.rows.expire(receipt.number);
                Settled::Lost(trouble("the lease is over"))
            }
            SettleAnswer::UnknownApplied => {
                apply();
                unknown()
            }
            SettleAnswer::Unknown => unknown(),
            SettleAnswer::Missing => {
                apply();
                return (None, CallRest::Answered);
            }
            SettleAnswer::Never => return (None, CallRest::Never),
        };
        (Some(settled), CallRest::Answered)
    }

    fn renew_one(&mut self, receipt: QueueReceipt, now: Tick) -> (Option<Renewed>, CallRest) {
        let answer = self.answers.renew();
        let term = self.rows.term;
        let mut usual = || {
            if self.rows.renew(receipt, now) {
                Renewed::For(term)
            } else {
                Renewed::Lost(trouble("the receipt is an old one"))
            }
        };
        let renewed = match answer {
            RenewalAnswer::Usual => usual(),
            RenewalAnswer::Late(late) => return (Some(usual()), CallRest::Late(late)),
            RenewalAnswer::Failed => Renewed::Failed(trouble("too many requests")),
            RenewalAnswer::Lost => {
                self.rows.expire(receipt.number);
                Renewed::Lost(trouble("the lease is over"))
            }
            RenewalAnswer::AtMaximum => Renewed::AtMaximum,
            RenewalAnswer::Missing => {
                usual();
                return (None, CallRest::Answered);
            }
            RenewalAnswer::Never => return (None, CallRest::Never),
        };
        (Some(renewed), CallRest::Answered)
    }
}

impl<M: Clone + Send + Sync + 'static> Transport for ScriptedQueue<M> {
    type Message = M;
    type Receipt = QueueReceipt;

    fn able(&self) -> Able {
        self.shared.state.lock().able
    }

    async fn fetch(&self, want: Want) -> Fetched<M, QueueReceipt> {
        let requested = self.now();
        let (answer, latency, end) = {
            let mut state = self.shared.state.lock();
            (state.answers.fetch(), state.latency, requested + want.wait)
        };
        let late = match answer {
            FetchAnswer::Usual => Duration::ZERO,
            FetchAnswer::Late(late) => late,
            FetchAnswer::Passes => {
                self.note(QueueCall::Fetch { at: requested, brought: Vec::new() });
                self.wait(latency).await;
                return Err(Trouble::Passes(trouble("the connection broke")));
            }
            FetchAnswer::Lasts => return Err(Trouble::Lasts(trouble("there is no such queue"))),
            FetchAnswer::Nothing => {
                self.note(QueueCall::Fetch { at: requested, brought: Vec::new() });
                self.wait(latency).await;
                return Ok(Some(Vec::new()));
            }
            FetchAnswer::Never => return std::future::pending().await,
        };
        loop {
            let now = self.now();
            let (taken, next, term, pushed) = {
                let mut state = self.shared.state.lock();
                if state.rows.is_empty() && !state.endless {
                    return Ok(None);
                }
                let taken = state.rows.take(want.at_most, now);
                (taken, state.rows.next_visible(now), state.rows.term, state.pushed)
            };
            if taken.is_empty() && now < end && !want.stop.is_cancelled() {
                let until = next.map_or(end, |next| next.min(end));
                self.wait_for_messages(pushed, until, &want).await;
                continue;
            }
            let brought = taken.iter().map(|out| out.receipt.number).collect();
            self.note(QueueCall::Fetch { at: requested, brought });
            self.wait(latency + late).await;
            let receive = |Out { message, receipt, deliveries, group }: Out<M>| {
                let (id, deliveries) = (Some(receipt.number.to_string().into()), Some(deliveries));
                let facts = Facts { id, deliveries, group, ..Facts::default() };
                Received::new(message, receipt).leased_for(term).with_facts(facts)
            };
            return Ok(Some(taken.into_iter().map(receive).collect()));
        }
    }

    async fn settle(&self, batch: Vec<(QueueReceipt, Verdict)>) -> Vec<Settled> {
        let _counted = {
            let mut state = self.shared.state.lock();
            state.settling += batch.len();
            state.most_settling = state.most_settling.max(state.settling);
            Counted(self, batch.len())
        };
        let latency = self.note(QueueCall::Settle { at: self.now(), batch: batch.clone() });
        self.wait(latency).await;
        let mut settled = Vec::new();
        for one in &batch {
            let now = self.now();
            let (answer, rest) = self.shared.state.lock().settle_one(one, now);
            if let Verdict::Release { .. } = one.1 {
                // Whoever waits for a message looks when it comes again.
                self.come(|_| ());
            }
            let is_last = answer.is_none();
            settled.extend(answer);
            match rest {
                CallRest::Answered if is_last => break,
                CallRest::Answered => {}
                CallRest::Late(late) => self.wait(late).await,
                CallRest::Never => return std::future::pending().await,
            }
        }
        if self.shared.state.lock().rows.is_grouped() {
            // What is behind them in their groups may be fetched.
            self.come(|_| ());
        }
        settled
    }

    async fn renew(&self, batch: Vec<QueueReceipt>) -> Vec<Renewed> {
        let latency = self.note(QueueCall::Renew { at: self.now(), batch: batch.clone() });
        self.wait(latency).await;
        let mut renewed = Vec::new();
        for receipt in batch {
            let now = self.now();
            let (answer, rest) = self.shared.state.lock().renew_one(receipt, now);
            let is_last = answer.is_none();
            renewed.extend(answer);
            match rest {
                CallRest::Answered if is_last => break,
                CallRest::Answered => {}
                CallRest::Late(late) => self.wait(late).await,
                CallRest::Never => return std::future::pending().await,
            }
        }
        renewed
    }

    async fn close(&self) -> Result<(), Error> {
        let latency = self.note(QueueCall::Close { at: self.now() });
        self.shared.state.lock().closed += 1;
        self.wait(latency).await;
        Ok(())
    }
}
