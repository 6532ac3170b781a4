//! Fetching: one call of a source at a time, as long as somebody wants its messages.

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use futures::future::BoxFuture;

use super::Transport;
use super::driver::DriverLook;
use super::ends::End;
use super::entries::{Lease, MessagePhase, OpenReceipt};
use super::in_flight::{EndedCall, InFlight};
use super::options::{LinkOptions, back_off};
use super::received::{Fetched, Received, Trouble, Want};
use super::state::{Due, TransportState, no_answer};
use crate::cancellation::CancellationSource;
use crate::clock::Tick;
use crate::error::Error;
use crate::settlement::{Facts, Given, Key, News, Verdict};

/// How long a transport may wait for a first message. A drain that ends tells it to return.
const LONGEST_FETCH: Duration = Duration::from_secs(20);

type FetchedBy<T> = Fetched<<T as Transport>::Message, <T as Transport>::Receipt>;

/// The fetches that are with the transport: for which source, and when they were requested.
pub(super) struct Fetches<T: Transport>(InFlight<(u64, Tick), BoxFuture<'static, FetchedBy<T>>>);

impl<T: Transport> Default for Fetches<T> {
    fn default() -> Self {
        Self(InFlight::default())
    }
}

impl<T: Transport> Fetches<T> {
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.0.deadline()
    }

    pub(super) fn poll(&mut self, look: &DriverLook<'_, T>, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some((part, want, within)) = look.hub.change_in_turn(TransportState::next_fetch) {
            let deadline = look.now + want.wait + within;
            let transport = Arc::clone(look.hub.transport());
            let call = Box::pin(async move { transport.fetch(want).await });
            self.0.push((part, look.now), deadline, call, cx);
            moved = true;
        }
        while let Some(((part, requested), ended)) = self.0.poll(look.now, cx) {
            moved = true;
            let fetched = match ended {
                EndedCall::Answered(fetched) => fetched,
                EndedCall::Late => Err(Trouble::Passes(no_answer())),
                EndedCall::Panicked(text) => {
                    Err(Trouble::Lasts(Error::panic("the transport", &text)))
                }
            };
            look.hub.change_in_turn(|state| state.fetched(part, requested, look.now, fetched));
        }
        moved
    }
}

impl<T: Transport> TransportState<T> {
    /// What is to be fetched next.
    fn next_fetch(&mut self) -> Option<(u64, Want, Duration)> {
        while let Some(id) = self.line.pop_front() {
            let (prefetch, within) = (self.able.prefetch, self.options.settle_within);
            let max_deliveries = self.options.max_deliveries;
            let rewinds = self.parts.get(&id).map(|part| part.assignment);
            if rewinds.is_some_and(|assignment| self.rewinds.contains_key(&assignment)) {
                // It goes back first, and is asked for then.
                if let Some(part) = self.parts.get_mut(&id) {
                    part.fetch.in_line = false;
                }
                self.commits.push_back(id);
                continue;
            }
            let wait = self.longest_wait();
            let stopped = self.stopped;
            let hides = self.able.groups && self.entries.len() > 0;
            let Some(part) = self.parts.get_mut(&id) else { continue };
            part.fetch.in_line = false;
            if stopped || !part.may_fetch() || part.fetch.not_before.is_some() {
                continue;
            }
            let stop = CancellationSource::new();
            let want = Want {
                assignment: part.assignment,
                at_most: (prefetch - part.buffer.len().min(prefetch)).max(1),
                wait,
                max_deliveries,
                stop: stop.token(),
            };
            part.fetch.wanted = false;
            part.fetch.hidden = hides;
            part.fetch.sent_behind = self.given_back;
            part.fetch.stale = false;
            part.fetch.stop = Some(stop);
            return Some((id, want, within));
        }
        None
    }

    /// A fetch waits for a third of the shortest lease that was seen, no longer than it is waited for
    /// at the end, and not for ever.
    fn longest_wait(&self) -> Duration {
        let LinkOptions { settle_within, revoke_within, .. } = &self.options;
        let budgets = [self.budget, *settle_within, revoke_within.unwrap_or(Duration::MAX)];
        let longest = budgets.into_iter().fold(LONGEST_FETCH, Duration::min);
        match self.shortest_lease {
            Some(term) => longest.min(term / 3),
            None => longest,
        }
    }

    /// A fetch has come back.
    fn fetched(&mut self, id: u64, requested: Tick, now: Tick, fetched: FetchedBy<T>) {
        let every = self.able.asks_every;
        let (mut again, mut fault) = (None, None);
        self.hears(now, fetched.is_ok());
        let Some(part) = self.parts.get_mut(&id) else { return };
        part.fetch.stop = None;
        let stale = std::mem::take(&mut part.fetch.stale) || self.stopped || part.left;
        let hinted = std::mem::take(&mut part.fetch.hinted);
        match fetched {
            Ok(Some(messages)) => {
                (part.fetch.failed, part.fetch.failing_since) = (0, None);
                let is_empty = messages.is_empty() && !hinted;
                let is_dry = is_empty && !part.fetch.hidden;
                part.fetch.dry = is_dry.then_some(part.fetch.sent_behind);
                if is_empty && !stale {
                    again = Some(requested + every);
                }
                self.take_in(id, requested, now, messages, stale);
            }
            // The position goes back, and there is more.
            Ok(None) if stale && part.prefix.is_some() => {}
            Ok(None) => part.ended = true,
            Err(Trouble::Passes(error)) => {
                part.fetch.failed += 1;
                let since = *part.fetch.failing_since.get_or_insert(now);
                let limit = self.options.unreachable_for;
                if limit.is_some_and(|limit| now.since(since) >= limit) {
                    fault = Some(error);
                } else {
                    let next = now + back_off(part.fetch.failed);
                    again = Some(limit.map_or(next, |limit| next.min(since + limit)));
                    self.is_in_trouble(error);
                }
            }
            Err(Trouble::Lasts(error)) => fault = Some(error),
        }
        let Some(part) = self.parts.get_mut(&id) else { return };
        if let Some(error) = fault {
            part.ended = true;
            self.news.push_back(News::Fault(error));
        }
        if let Some(again) = again {
            // Whoever waits has asked for it.
            part.fetch.wanted = true;
            part.fetch.not_before = Some(again);
            self.set_alarm(again, Due::Part(id));
        } else if hinted && !stale {
            self.want(id);
        }
        if self.parts.get(&id).is_some_and(|part| part.prefix.is_some()) {
            self.commits.push_back(id);
        }
        self.wake_part(id);
        self.end_part(id);
    }

    /// What a fetch brought. `stale`: nobody wants it any more.
    fn take_in(
        &mut self,
        id: u64,
        requested: Tick,
        now: Tick,
        messages: Vec<Received<T::Message, T::Receipt>>,
        stale: bool,
    ) {
        // Of a group, the last one first: when all are known.
        let mut back = Vec::new();
        for Received { message, receipt, lease, facts } in messages {
            if stale && self.able.prefix {
                // It was not taken, and comes again.
                self.aside.messages.push(message);
                self.rewind(id, Arc::new(receipt));
                continue;
            }
            if !self.able.prefix && self.is_outdated(&facts) {
                self.aside.messages.push(message);
                let facts = Facts { id: None, group: None, ..facts };
                if let Some((key, _)) = self.add_entry(id, requested, receipt, lease, facts) {
                    self.conclude(key, End::Lost);
                }
                continue;
            }
            let is_here =
                !self.able.prefix && facts.id.as_ref().is_some_and(|id| self.comes_again(id));
            let added = self.add_entry(id, requested, receipt, lease, facts);
            let Some((key, expires)) = added else {
                self.aside.messages.push(message);
                continue;
            };
            if is_here {
                self.aside.messages.push(message);
                let after = Some(self.able.asks_every);
                back.push((key, Verdict::Release { after, begun: false }));
            } else if stale || now >= expires || self.group_goes_back(key) {
                self.aside.messages.push(message);
                back.push((key, Verdict::UNTOUCHED));
            } else {
                self.queue_up(id, message, key);
            }
        }
        if !back.is_empty() {
            self.rest(id, now);
        }
        for (key, verdict) in back.into_iter().rev() {
            // Some have gone back with an earlier one of their group.
            if self.entries.get(key).is_some_and(|entry| entry.phase == MessagePhase::Buffered) {
                self.give_back(key, verdict);
            }
        }
    }

    /// Whether a later delivery of it is here already: the answer that has brought this one came late.
    fn is_outdated(&self, facts: &Facts) -> bool {
        let here = facts.id.as_ref().and_then(|id| self.entries.get(*self.ids.get(id)?));
        let later = here.and_then(|entry| entry.facts().deliveries);
        facts.deliveries.zip(later).is_some_and(|(this, later)| this < later)
    }

    /// That it comes again proves that an earlier delivery of it is lost. Returns whether that is here
    /// all the same: this one is not begun before that one is undone, or settled.
    fn comes_again(&mut self, id: &Arc<str>) -> bool {
        if let Some(earlier) = self.ids.get(id).copied() {
            self.lose(earlier);
        }
        self.ids.contains_key(id)
    }

    /// There may be messages: it does not wait for its time, unless that is because it has failed.
    pub(super) fn ask_again(&mut self, id: u64) {
        if let Some(part) = self.parts.get_mut(&id) {
            part.fetch.dry = None;
            part.fetch.hinted = part.fetch.stop.is_some();
            if part.fetch.failed == 0 {
                part.fetch.not_before = None;
            }
        }
        self.want_again(id);
    }

    /// What goes back at once would be fetched again at once: the next fetch waits a little.
    pub(super) fn rest(&mut self, id: u64, now: Tick) {
        let until = now + self.able.asks_every;
        if let Some(part) = self.parts.get_mut(&id) {
            part.fetch.not_before = Some(until);
            self.set_alarm(until, Due::Part(id));
        }
    }

    fn add_entry(
        &mut self,
        id: u64,
        requested: Tick,
        receipt: T::Receipt,
        lease: Option<Duration>,
        facts: Facts,
    ) -> Option<(Key, Tick)> {
        let part = self.parts.get_mut(&id)?;
        let renews = self.able.renews;
        let is_known = facts.is_known();
        let lease = lease.map_or(Lease::NONE, |term| {
            self.shortest_lease = Some(self.shortest_lease.map_or(term, |least| least.min(term)));
            self.longest_lease = self.longest_lease.max(term);
            Lease::new(requested, term, renews)
        });
        let members = &mut part.open;
        let key = self.entries.insert(OpenReceipt::new(id, receipt, facts, lease), members);
        self.counts.fetched += 1;
        if is_known {
            self.joins_group(key);
            let id = self.entries.get(key).and_then(|entry| entry.facts().id.clone());
            id.map(|id| self.ids.entry(id).or_insert(key));
        }
        self.set_alarm(lease.next, Due::Lease(key));
        Some((key, lease.expires))
    }

    /// Gives back what nobody has taken, behind what came after it in its group.
    pub(super) fn give_back(&mut self, key: Key, verdict: Verdict) {
        self.goes_back(key);
        self.sends_back(key, verdict);
    }

    pub(super) fn sends_back(&mut self, key: Key, verdict: Verdict) {
        let waits = self.waits_for_group(key);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.phase = MessagePhase::Decided;
            entry.verdict = verdict.fit(&self.able).into();
            self.unsettled += 1;
            if !waits {
                self.outbox.push_back(key);
            }
            self.wake_driver();
        }
    }

    /// What is buffered goes back. In prefix order the position moves back to the first of it.
    pub(super) fn release_buffer(&mut self, id: u64) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        let mut buffer = std::mem::take(&mut part.buffer).into_iter();
        if let Some(prefix) = &mut part.prefix {
            // Where a position moves back anyway, that one is before it.
            let goes_on = prefix.may_go_on() && part.revoking.is_none() && !part.lost;
            let first = if goes_on { buffer.next() } else { None };
            if let Some((message, key)) = first {
                let place = prefix.take(key);
                self.aside.messages.push(message);
                if let Some(entry) = self.entries.get_mut(key) {
                    (entry.phase, entry.place) = (MessagePhase::Taken, place);
                }
                for (message, key) in buffer.by_ref() {
                    self.aside.messages.push(message);
                    self.conclude(key, End::Settled);
                }
                self.give(key, Verdict::UNTOUCHED, Given::default());
                return;
            }
            for (message, key) in buffer {
                self.aside.messages.push(message);
                self.conclude(key, End::Settled);
            }
            return;
        }
        self.release_held(id);
        for (message, key) in buffer.rev() {
            self.aside.messages.push(message);
            self.give_back(key, Verdict::UNTOUCHED);
        }
    }
}
