//! Verdicts on their way: in batches, and in prefix order one call of a partition at a time.

use super::Transport;
use super::calls::{About, Batches, Called};
use super::ends::End;
use super::entries::{KeptReceipt, MessagePhase, OpenReceipt, Said};
use super::options::back_off;
use super::prefix::{PrefixDue, Sent};
use super::state::{Due, TransportState};
use crate::clock::Tick;
use crate::error::Error;
use crate::settlement::{Key, News, Settled, Verdict};

/// How many calls are gathered under one lock: few enough for what they say to stay in the cache.
const AT_ONCE: usize = 32;

impl<T: Transport> TransportState<T> {
    /// The next batches. Where others are on their way, only full ones: one call gathers while another
    /// is on its way.
    pub(super) fn next_batches(&mut self, gathers: bool, batches: &mut Batches<T::Receipt>) {
        while batches.len() < AT_ONCE {
            let is_full = gathers || !batches.is_empty();
            let any = if self.able.prefix {
                self.next_commits(batches)
            } else {
                self.next_batch(is_full, batches)
            };
            if !any {
                return;
            }
        }
    }

    /// Gathers a batch, if there is one; with `is_full` only of as many verdicts as may be in it.
    fn next_batch(&mut self, is_full: bool, batches: &mut Batches<T::Receipt>) -> bool {
        let most = self.able.batch.min(self.options.max_unsettled);
        let room = most.min(self.options.max_unsettled.saturating_sub(self.sending));
        let least = if is_full { most } else { 1 };
        if self.outbox.len() < least || room < least {
            return false;
        }
        while batches.open() < room {
            let Some(key) = self.outbox.pop_front() else { break };
            if self.waits_for_group(key) {
                // Others of its group have come since: it goes behind them.
                continue;
            }
            let Some(entry) = self.entries.get_mut(key) else { continue };
            if entry.phase != MessagePhase::Decided {
                continue;
            }
            if entry.lease.calling {
                // One call about a receipt at a time.
                entry.waits_for_renewal = true;
                continue;
            }
            entry.phase = MessagePhase::Sending;
            batches.push(About::Message(key), entry.receipt.take(), entry.verdict.verdict());
        }
        if batches.open() < least {
            for (about, receipt) in batches.take_open() {
                let About::Message(key) = about else { continue };
                if let Some(entry) = self.entries.get_mut(key) {
                    (entry.phase, entry.receipt) = (MessagePhase::Decided, receipt);
                }
                self.outbox.push_front(key);
            }
            return false;
        }
        self.sending += batches.open();
        batches.close()
    }

    /// In prefix order: what is to be sent for the partitions that have something.
    fn next_commits(&mut self, batches: &mut Batches<T::Receipt>) -> bool {
        while batches.open() < self.able.batch {
            let Some(id) = self.commits.pop_front() else { break };
            let stopped = self.stopped;
            let Some(part) = self.parts.get_mut(&id).filter(|part| !part.lost) else { continue };
            let (fetching, revoking) = (part.fetch.stop.is_some(), part.revoking.is_some());
            let ends = stopped || revoking || part.left || part.ended;
            let Some(prefix) = &mut part.prefix else { continue };
            if prefix.wait_until.is_some() {
                continue;
            }
            let (sent, receipt, verdict) = match prefix.due() {
                PrefixDue::Nothing => {
                    let goes_on = !ends && !fetching && prefix.may_go_on() && prefix.is_idle();
                    let rewind = self.rewinds.get(&part.assignment).filter(|_| goes_on);
                    let Some(receipt) = rewind.cloned() else { continue };
                    (Sent::Rewind, receipt, Verdict::UNTOUCHED)
                }
                PrefixDue::Commit => {
                    let keys = std::mem::take(&mut prefix.ready);
                    let last = keys.last().and_then(|key| self.entries.get_mut(*key));
                    let Some(receipt) = last.and_then(OpenReceipt::share) else { continue };
                    for key in &keys {
                        if let Some(entry) = self.entries.get_mut(*key) {
                            entry.phase = MessagePhase::Sending;
                        }
                    }
                    (Sent::Commit(keys), receipt, Verdict::Accept)
                }
                PrefixDue::Seek(key) if revoking => {
                    // It goes to somebody else, from where it is committed.
                    prefix.sought();
                    self.conclude(key, End::Settled);
                    continue;
                }
                // A fetch that returned behind it would have moved the position again.
                PrefixDue::Seek(_) if fetching => continue,
                PrefixDue::Seek(key) => {
                    let Some(entry) = self.entries.get_mut(key) else { continue };
                    entry.phase = MessagePhase::Sending;
                    let Some(receipt) = entry.share() else { continue };
                    (Sent::Seek(key), receipt, entry.verdict.verdict())
                }
            };
            prefix.sent = Some(sent);
            batches.push(About::Partition(id), Some(KeptReceipt::Shared(receipt)), verdict);
        }
        batches.close()
    }

    /// The outcomes of batches.
    pub(super) fn answered(
        &mut self,
        called: impl Iterator<Item = Called<T::Receipt>>,
        answers: impl Iterator<Item = Settled>,
        now: Tick,
    ) {
        let mut is_heard = false;
        for ((about, receipt), answer) in called.zip(answers) {
            is_heard |= !matches!(answer, Settled::Unknown(_));
            match about {
                About::Message(key) => {
                    match self.entries.get_mut(key) {
                        Some(entry) => entry.receipt = receipt,
                        None => self.aside.receipts.extend(receipt),
                    }
                    self.message_answered(key, answer, now);
                }
                About::Partition(id) => {
                    self.aside.receipts.extend(receipt);
                    self.partition_answered(id, answer, now);
                }
            }
        }
        self.hears(now, is_heard);
    }

    fn message_answered(&mut self, key: Key, answer: Settled, now: Tick) {
        self.sending -= 1;
        if let Settled::Refused(error) = answer {
            return self.refuse(key, now, error);
        }
        let end = End::of(&answer);
        self.aside.errors.extend(answer.into_error());
        self.conclude(key, end);
    }

    fn partition_answered(&mut self, id: u64, answer: Settled, now: Tick) {
        let (end, maybe) = (End::of(&answer), matches!(answer, Settled::Unknown(_)));
        let again = end == End::Unknown;
        if let Some(error) = answer.into_error() {
            self.counts.troubles += u64::from(again);
            self.aside.errors.push(error);
        }
        let (stopped, within) = (self.stopped, self.options.settle_within);
        let Some(part) = self.parts.get_mut(&id) else { return };
        let (lost, ends) = (part.lost, stopped || part.revoking.is_some());
        let Some(prefix) = &mut part.prefix else { return };
        let Some(sent) = prefix.sent.take() else { return };
        let since = *prefix.refused_since.get_or_insert(now);
        // Given up at the end only: until then it rides with the next one.
        if again && !lost && !(ends && now.since(since) >= within) {
            prefix.refused += 1;
            let at = now + back_off(prefix.refused);
            prefix.wait_until = Some(at);
            for key in sent.keys() {
                if let Some(entry) = self.entries.get_mut(*key) {
                    entry.maybe |= maybe && matches!(sent, Sent::Commit(_));
                    entry.phase = MessagePhase::Decided;
                }
            }
            if let Sent::Commit(keys) = sent {
                prefix.ready.splice(0..0, keys);
            }
            return self.set_alarm(at, Due::Part(id));
        }
        prefix.try_anew();
        let moved = !matches!(sent, Sent::Commit(_));
        if let (Sent::Seek(_), false) = (&sent, lost) {
            prefix.sought();
        }
        if end == End::Lost {
            // Whatever was settled there: it is not ours any more.
            sent.keys().iter().for_each(|key| self.conclude(*key, end));
            return self.lose_part(id);
        }
        if moved && end == End::Settled {
            // What was fetched before is gone, and an end that was seen was another one.
            part.ended = ends || part.left;
            self.given_back += 1;
            let rewind = self.rewinds.remove(&part.assignment);
            self.aside.receipts.extend(rewind.map(KeptReceipt::Shared));
        }
        let mut end = end;
        if let (Sent::Seek(key), End::Unknown) = (&sent, end) {
            // A release that was refused to the end is nobody's.
            end = End::Abandoned;
            if let Some(receipt) = self.entries.get_mut(*key).and_then(OpenReceipt::share) {
                // In front of whatever a fetch has brought meanwhile.
                self.rewind_to(id, receipt);
            }
        }
        sent.keys().iter().for_each(|key| self.conclude(*key, end));
        self.go_on_in_order(id);
        self.want_again(id);
        self.wake_part(id);
        self.end_part(id);
    }

    /// A settlement was certainly not applied. One of a drain that is over soon is not tried for ever.
    pub(super) fn refuse(&mut self, key: Key, now: Tick, error: Error) {
        self.is_in_trouble(error);
        let within = self.options.settle_within;
        let Some(entry) = self.entries.get_mut(key) else { return };
        let (since, times) = &mut **entry.refused.get_or_insert_with(|| Box::new((now, 0)));
        *times += 1;
        let again = now + back_off(*times);
        if again <= *since + within {
            entry.phase = MessagePhase::Decided;
            self.mind_lease(key);
            return self.set_alarm(again, Due::Again(key));
        }
        let (part, place, tag) = (entry.part, entry.place, entry.tag);
        let group = entry.facts().group.clone();
        if !matches!(entry.verdict, Said::Accept) {
            return self.conclude(key, End::Abandoned);
        }
        let taken = self.parts.get(&part).map_or(u64::MAX, |part| part.taken);
        let behind = match &group {
            Some(name) => self.behind_in_group(name, place),
            None => taken.saturating_sub(place + 1),
        };
        let Some(entry) = self.entries.get_mut(key).filter(|_| behind == 0 || tag.is_some()) else {
            return self.conclude(key, End::Unknown);
        };
        entry.refused = None;
        if let Some(tag) = tag {
            self.take_back(key);
            if behind == 0 || self.gathers {
                self.comes_back(key);
            }
            return self.news.push_back(News::Refused { key, tag, behind, group });
        }
        entry.phase = MessagePhase::Decided;
        self.comes_back(key);
        self.decide(key, Verdict::UNDONE);
    }
}
