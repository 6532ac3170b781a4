//! Leases: renewed from a third of their term on, until the verdict is with the transport.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;

use super::Transport;
use super::driver::Look;
use super::entries::Phase;
use super::received::Renewed;
use super::state::{Due, State};
use crate::clock::Tick;
use crate::panics;
use crate::settlement::Key;

/// The renewals that are with the transport.
#[derive(Default)]
pub(super) struct Renewals(Vec<Renewal>);

/// Calls at once, where batches are full.
const MOST_CALLS: usize = 4;

struct Renewal {
    keys: Vec<Key>,
    requested: Tick,
    deadline: Tick,
    future: BoxFuture<'static, Vec<Renewed>>,
}

impl Renewals {
    /// When the first of them is given up.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.0.iter().map(|call| call.deadline).min()
    }

    pub(super) fn poll<T: Transport>(&mut self, look: &Look<'_, T>, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        let batch = look.hub.able().batch;
        while self.0.len() < MOST_CALLS {
            let fills = !self.0.is_empty();
            let due = look.hub.change(|state| {
                let enough =
                    !state.renewals.is_empty() && (!fills || state.renewals.len() >= batch);
                enough.then(|| (state.next_renewals(), state.options.settle_within))
            });
            let Some(((keys, receipts), within)) = due else { break };
            moved = true;
            if keys.is_empty() {
                continue;
            }
            let transport = Arc::clone(look.hub.transport());
            let future = Box::pin(async move { transport.renew(receipts).await });
            let (requested, deadline) = (look.now, look.now + within);
            self.0.push(Renewal { keys, requested, deadline, future });
        }
        let mut at = 0;
        while at < self.0.len() {
            let call = &mut self.0[at];
            let answers = match panics::contain(|| call.future.as_mut().poll(cx)) {
                Ok(Poll::Ready(answers)) => answers,
                Ok(Poll::Pending) if look.now < call.deadline => {
                    at += 1;
                    continue;
                }
                // No answer: as if it had failed.
                Ok(Poll::Pending) | Err(_) => Vec::new(),
            };
            moved = true;
            let Renewal { keys, requested, future, .. } = self.0.swap_remove(at);
            panics::drop_each([future]);
            look.hub.change(|state| state.renewed(keys, requested, look.now, answers));
        }
        moved
    }
}

impl<T: Transport> State<T> {
    /// The moment of a lease has come: it is to be renewed, or has run out.
    pub(super) fn lease_is_due(&mut self, key: Key, at: Tick, now: Tick) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.lease.next == at) else {
            return;
        };
        if now >= entry.lease.expires {
            return self.lose(key);
        }
        if entry.lease.renewing || entry.phase == Phase::Sending {
            return;
        }
        // Until the renewal has its answer, its end is what matters.
        entry.lease.next = entry.lease.expires;
        entry.lease.renewing = true;
        let next = entry.lease.next;
        self.set_alarm(next, Due::Lease(key));
        self.renewals.push_back(key);
    }

    /// The next batch. Those whose verdict has been sent meanwhile are left out.
    fn next_renewals(&mut self) -> (Vec<Key>, Vec<T::Receipt>) {
        let (mut keys, mut receipts) = (Vec::new(), Vec::new());
        while keys.len() < self.able.batch {
            let Some(key) = self.renewals.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(key) else { continue };
            if entry.phase == Phase::Sending {
                entry.lease.renewing = false;
                continue;
            }
            entry.lease.calling = true;
            keys.push(key);
            receipts.push(entry.receipt.clone());
        }
        (keys, receipts)
    }

    fn renewed(&mut self, keys: Vec<Key>, requested: Tick, now: Tick, answers: Vec<Renewed>) {
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
                Some(Renewed::AtMaximum) => lease.at_maximum(),
                Some(Renewed::Failed(_) | Renewed::Lost(_)) | None => lease.not_renewed(now),
            };
            entry.lease.calling = false;
            let (next, waits) = (entry.lease.next, entry.waits_for_renewal);
            entry.waits_for_renewal = false;
            self.set_alarm(next, Due::Lease(key));
            if matches!(answer, Some(Renewed::Lost(_))) {
                self.lose(key);
            } else if waits {
                self.outbox.push_back(key);
            }
            self.aside.errors.extend(answer.and_then(Renewed::into_error));
        }
    }
}
