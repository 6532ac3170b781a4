//! What goes on at a transport while its drain is polled: one look at everything that is due.

use std::cmp::Reverse;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Transport;
use super::calls::Calls;
use super::fetching::Fetches;
use super::hub::Hub;
use super::in_flight::EndedCall;
use super::leases::Renewals;
use super::state::{Due, TransportState};
use crate::clock::{Alarm, Clock, Tick};
use crate::panics;
use crate::settlement::News;

/// How often a poll looks at everything before it lets others go on.
const ROUNDS: usize = 64;

/// The futures of a transport, and the timer for what is due next.
pub(super) struct TransportDriver<T: Transport> {
    pub(super) fetches: Fetches<T>,
    pub(super) renewals: Renewals,
    pub(super) calls: Calls<T>,
    timer: Option<Alarm>,
}

impl<T: Transport> Default for TransportDriver<T> {
    fn default() -> Self {
        Self {
            fetches: Fetches::default(),
            renewals: Renewals::default(),
            calls: Calls::default(),
            timer: None,
        }
    }
}

/// Where the driver looks, and when.
pub(super) struct DriverLook<'a, T: Transport> {
    pub(super) hub: &'a Hub<T>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) now: Tick,
}

impl<T: Transport> DriverLook<'_, T> {
    /// Clones receipts for a call, which is the adapter's code. A panic of it is a fault, and there is
    /// no call.
    pub(super) fn copy<V>(&self, copy: impl FnOnce() -> V) -> Option<V> {
        panics::contain(copy).map_err(|text| self.hub.blame("a receipt", &text)).ok()
    }

    /// The answers of a call; none where there is none.
    pub(super) fn answers<R>(&self, ended: EndedCall<Vec<R>>) -> Vec<R> {
        match ended {
            EndedCall::Answered(answers) => return answers,
            EndedCall::Late => {}
            EndedCall::Panicked(text) => self.hub.blame("the transport", &text),
        }
        Vec::new()
    }
}

impl<T: Transport> TransportDriver<T> {
    pub(super) fn poll(&mut self, hub: &Hub<T>, cx: &mut Context<'_>) -> Poll<News> {
        // What is there already is told first: one commit may bring news of hundreds of messages, and
        // nothing else has to be looked at for each of them.
        if let Some(news) = hub.change_in_turn(|state| state.news.pop_front()) {
            return Poll::Ready(news);
        }
        let clock = hub.clock();
        for _ in 0..ROUNDS {
            let look = DriverLook { hub, now: clock.now(), clock: Arc::clone(&clock) };
            // What was taken away is known before anything is sent.
            let mut moved = look.events(cx);
            if let Some(news) = hub.change_in_turn(|state| state.news.pop_front()) {
                return Poll::Ready(news);
            }
            hub.change_in_turn(|state| state.ring(look.now));
            moved |= self.fetches.poll(&look, cx);
            moved |= self.renewals.poll(&look, cx);
            moved |= self.calls.poll(&look, cx);
            moved |= look.answer_revocations();
            if moved || self.poll_timer(&look, cx).is_ready() {
                continue;
            }
            let waker = cx.waker().clone();
            let has_more = hub.change_in_turn(|state| {
                state.aside.old_wakers.extend(state.driver.replace(waker));
                state.has_more()
            });
            if !has_more {
                return Poll::Pending;
            }
        }
        // Others have their turn: there is always something where each fetch brings a hint.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready: something has become due, or may have. What is due next moves with each call that ends,
    /// while nearly nothing is ever given up: a timer that is too early, or for nothing just now, is kept,
    /// and only looked at when it rings. To set one wakes the thread of the clock, which is a tenth of the
    /// time of a message that is settled by itself.
    fn poll_timer(&mut self, look: &DriverLook<'_, T>, cx: &mut Context<'_>) -> Poll<()> {
        let due = look.hub.change_in_turn(|state| state.alarms.peek().map(|Reverse((at, _))| *at));
        let deadlines =
            [due, self.fetches.deadline(), self.renewals.deadline(), self.calls.deadline()];
        let Some(next) = deadlines.into_iter().flatten().min() else {
            return Poll::Pending;
        };
        let kept = self.timer.take().filter(|timer| timer.tick() <= next);
        let timer = self.timer.insert(kept.unwrap_or_else(|| Alarm::at(&look.clock, next)));
        let polled = timer.poll(cx);
        if polled.is_ready() {
            self.timer = None;
        }
        polled
    }
}

impl<T: Transport> TransportState<T> {
    /// Does what is due.
    fn ring(&mut self, now: Tick) {
        while let Some(Reverse((at, due))) = self.alarms.peek().copied() {
            if at > now {
                return;
            }
            self.alarms.pop();
            match due {
                Due::Lease(key) => self.lease_is_due(key, at, now),
                Due::Again(key) => {
                    if self.entries.get(key).is_some() {
                        self.outbox.push_back(key);
                    }
                }
                Due::Part(id) => self.part_is_due(id, now),
            }
        }
    }

    fn part_is_due(&mut self, id: u64, now: Tick) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        if part.slow_until.is_some_and(|until| until <= now) {
            part.slow_until = None;
            self.aside.wakers.extend(part.waker.take());
        }
        let deadline = part.revoking.as_ref().and_then(|revoking| revoking.deadline);
        if deadline.is_some_and(|at| at <= now) {
            self.to_answer.insert(id);
        }
        if let Some(prefix) = &mut part.prefix {
            if prefix.wait_until.is_some_and(|until| until <= now) {
                prefix.wait_until = None;
            }
            self.commits.push_back(id);
        }
        if part.fetch.not_before.is_some_and(|at| at <= now) {
            part.fetch.not_before = None;
            self.want_again(id);
        }
    }

    /// Goes on fetching, if somebody still wants that.
    pub(super) fn want_again(&mut self, id: u64) {
        if self.parts.get(&id).is_some_and(|part| part.fetch.wanted) {
            self.want(id);
        }
    }

    /// Whether there is something to be done at once.
    fn has_more(&self) -> bool {
        !self.news.is_empty() || !self.line.is_empty()
    }
}
