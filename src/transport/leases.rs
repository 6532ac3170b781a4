//! Leases: renewed from a third of their term on, until the verdict is with the transport.

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use futures::future::BoxFuture;

use super::Transport;
use super::driver::DriverLook;
use super::entries::MessagePhase;
use super::in_flight::InFlight;
use super::received::Renewed;
use super::state::{Due, TransportState};
use crate::clock::Tick;
use crate::error::{Error, ErrorCode};
use crate::settlement::{Key, News};

/// The renewals that are with the transport: of which receipts, and when they were requested.
#[derive(Default)]
pub(super) struct Renewals(InFlight<(Vec<Key>, Tick), BoxFuture<'static, Vec<Renewed>>>);

impl Renewals {
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.0.deadline()
    }

    pub(super) fn poll<T: Transport>(
        &mut self,
        look: &DriverLook<'_, T>,
        cx: &mut Context<'_>,
    ) -> bool {
        let mut moved = false;
        loop {
            let gathers = !self.0.is_empty();
            let batch = look.hub.change_in_turn(|state| state.next_renewals(gathers));
            let Some((keys, receipts, within)) = batch else { break };
            let transport = Arc::clone(look.hub.transport());
            let copied = look.copy(|| receipts.iter().map(|it| T::Receipt::clone(it)).collect());
            let Some(receipts) = copied else {
                look.hub
                    .change_in_turn(|state| state.renewed(keys, look.now, look.now, Vec::new()));
                continue;
            };
            let call = Box::pin(async move { transport.renew(receipts).await });
            self.0.push((keys, look.now), look.now + within, call, cx);
            moved = true;
        }
        while let Some(((keys, requested), ended)) = self.0.poll(look.now, cx) {
            moved = true;
            // What has no answer is as if it had failed.
            let answers = look.answers(ended);
            look.hub.change_in_turn(|state| state.renewed(keys, requested, look.now, answers));
        }
        moved
    }
}

/// A batch of leases to be renewed, and how long that may take.
type RenewalBatch<R> = (Vec<Key>, Vec<Arc<R>>, Duration);

impl<T: Transport> TransportState<T> {
    /// A verdict that was with somebody else is not any more: until it is again, its lease matters.
    pub(super) fn mind_lease(&mut self, key: Key) {
        if let Some(lease) = self.entries.get(key).map(|entry| entry.lease) {
            self.set_alarm(lease.next, Due::Lease(key));
        }
    }

    /// A message was given back because so much of its lease is less than a handler may take. Where no
    /// lease was ever longer, none will be handled, however often they come.
    #[cold]
    pub(super) fn has_too_little_left(&mut self, part: u64, left: Duration) {
        let (least, longest) = (self.least_lease, self.longest_lease);
        let told = format!("`message_timeout` is {least:?}, and leases cannot be renewed");
        if self.able.renews || longest > least {
            let text = format!("a message goes back with {left:?} of its lease: {told}");
            return self.is_in_trouble(Error::new(ErrorCode::Timeout, text));
        }
        if let Some(part) = self.parts.get_mut(&part) {
            part.ended = true;
        }
        let text = format!("no message can be handled: {told} and are {longest:?} long");
        self.news.push_back(News::Fault(Error::validation(text)));
    }

    /// Whether enough is left of a lease for a handler. Where it is not, that is told.
    pub(super) fn has_time(&mut self, key: Key, now: Tick) -> bool {
        let Some((part, lease)) = self.entries.get(key).map(|entry| (entry.part, entry.lease))
        else {
            return true;
        };
        let is_short = lease.has_less_than(self.least_lease, now);
        if is_short {
            self.has_too_little_left(part, lease.expires.since(now));
        }
        !is_short
    }

    /// The moment of a lease has come: it is to be renewed, or has run out.
    pub(super) fn lease_is_due(&mut self, key: Key, at: Tick, now: Tick) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.lease.next == at) else {
            return;
        };
        if now >= entry.lease.expires {
            return self.lose(key);
        }
        if entry.lease.renewing || entry.phase == MessagePhase::Sending {
            return;
        }
        // Until the renewal has its answer, its end is what matters.
        entry.lease.next = entry.lease.expires;
        entry.lease.renewing = true;
        let next = entry.lease.next;
        self.set_alarm(next, Due::Lease(key));
        self.renewals.push_back(key);
    }

    /// The next batch; where others are on their way, only a full one. Those whose verdict has been
    /// sent meanwhile are left out.
    fn next_renewals(&mut self, gathers: bool) -> Option<RenewalBatch<T::Receipt>> {
        if gathers && self.renewals.len() < self.able.batch {
            return None;
        }
        let (mut keys, mut receipts) = (Vec::new(), Vec::new());
        while keys.len() < self.able.batch {
            let Some(key) = self.renewals.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(key) else { continue };
            if entry.phase == MessagePhase::Sending {
                entry.lease = entry.lease.not_asked();
                continue;
            }
            entry.lease.calling = true;
            keys.push(key);
            receipts.extend(entry.share());
        }
        (!keys.is_empty()).then_some((keys, receipts, self.options.settle_within))
    }

    fn renewed(&mut self, keys: Vec<Key>, requested: Tick, now: Tick, answers: Vec<Renewed>) {
        self.hears(now, answers.iter().any(|answer| !matches!(answer, Renewed::Failed(_))));
        let mut answers = answers.into_iter();
        for key in keys {
            let answer = answers.next();
            let Some(entry) = self.entries.get_mut(key) else {
                self.aside.errors.extend(answer.and_then(Renewed::into_error));
                continue;
            };
            let lease = entry.lease;
            entry.lease = match &answer {
                Some(Renewed::For(term)) => lease.renewed(requested, *term),
                Some(Renewed::AtMaximum | Renewed::Lost(_)) => lease.at_maximum(),
                Some(Renewed::Failed(_)) | None => lease.not_renewed(now),
            };
            entry.lease.calling = false;
            let (next, waits) = (entry.lease.next, entry.waits_for_renewal);
            entry.waits_for_renewal = false;
            self.set_alarm(next, Due::Lease(key));
            self.counts.troubles += u64::from(matches!(answer, Some(Renewed::Failed(_)) | None));
            if matches!(answer, Some(Renewed::Lost(_))) {
                self.lose(key);
            } else if waits {
                self.outbox.push_back(key);
            }
            self.aside.errors.extend(answer.and_then(Renewed::into_error));
        }
    }
}
