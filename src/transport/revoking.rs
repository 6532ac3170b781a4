//! What happens to a transport unasked: partitions that come and go, and the end of all of it; and
//! what a drain does to its transport at its own end.

use super::Transport;
use super::driver::DriverLook;
use super::ends::End;
use super::entries::{MessagePhase, Said};
use super::events::{Event, Revocation};
use super::part::Revoking;
use super::state::{Due, TransportState};
use crate::clock::Tick;
use crate::panics;
use crate::settlement::{Assignment, Key, News, Tag};

impl<T: Transport> DriverLook<'_, T> {
    /// Hears what has happened. Returns whether anything has.
    pub(super) fn events(&self, cx: &mut std::task::Context<'_>) -> bool {
        let mut any = false;
        while let Some(event) = self.hub.notices.poll(cx) {
            panics::drop_each(self.hub.change_in_turn(|state| state.hear(event, self.now)));
            any = true;
        }
        any
    }

    /// Answers for partitions of which nothing is open, or whose time is up.
    pub(super) fn answer_revocations(&self) -> bool {
        let answered = self.hub.change_in_turn(|state| state.revocations(self.now));
        let any = !answered.is_empty();
        for (revocation, unsettled) in answered {
            revocation.answer(unsettled);
        }
        any
    }
}

impl<T: Transport> TransportState<T> {
    /// Returns a question that is answered already.
    fn hear(&mut self, event: Event, now: Tick) -> Option<Revocation> {
        match event {
            Event::Ready => self.ask_at_once(),
            Event::Trouble(error) => {
                self.counts.troubles += 1;
                self.aside.errors.push(error);
            }
            Event::Fault(error) => self.news.push_back(News::Fault(error)),
            Event::Assigned(assignment) => self.assign(assignment),
            Event::Revoked(revocation) => return self.revoke(revocation, now),
            Event::Lost(assignment, error) => {
                self.lose_assignment(assignment);
                self.aside.errors.push(error);
            }
            Event::Gone(error) => {
                let parts: Vec<_> = self.parts.keys().copied().collect();
                for part in parts {
                    self.lose_part(part);
                }
                let keys: Vec<_> = self.entries.iter().map(|(key, _)| key).collect();
                for key in keys {
                    self.lose(key);
                }
                self.news.push_back(News::Fault(error));
            }
        }
        None
    }

    /// A partition was taken away, in this generation and in all before it.
    fn lose_assignment(&mut self, gone: Assignment) {
        for assignment in self.partitions.ours_up_to(gone) {
            self.forget_assignment(assignment);
        }
        for id in self.partitions.sources_up_to(gone) {
            self.lose_part(id);
        }
    }

    /// There may be messages.
    fn ask_at_once(&mut self) {
        let ids: Vec<_> = self.parts.keys().copied().collect();
        for id in ids {
            self.ask_again(id);
        }
    }

    /// The next partition that somebody may have as a source.
    pub(super) fn next_assigned(&mut self) -> Option<u64> {
        while let Some(id) = self.assigned.pop_front() {
            if self.parts.get(&id).is_some_and(|part| !part.left) {
                return Some(id);
            }
        }
        None
    }

    fn assign(&mut self, assignment: Assignment) {
        self.partitions.assign(assignment);
        if self.partitions.source_of(assignment).is_some() {
            // Somebody has made a source of it already.
            return;
        }
        // One that comes again without having been given up was lost.
        for id in self.partitions.sources_of(assignment.partition) {
            self.lose_part(id);
        }
        if !self.stopped {
            let id = self.add_part(assignment);
            self.assigned.push_back(id);
            self.aside.wakers.extend(self.assigned_waker.take());
        }
    }

    /// A partition is to be given up; one that is not ours is given up already.
    fn revoke(&mut self, revocation: Revocation, now: Tick) -> Option<Revocation> {
        let Some(id) = self.partitions.source_of(revocation.assignment) else {
            self.forget_assignment(revocation.assignment);
            return Some(revocation);
        };
        let within = [revocation.within, self.options.revoke_within].into_iter().flatten().min();
        let deadline = within.map(|within| now + within);
        let Some(part) = self.parts.get_mut(&id) else { return Some(revocation) };
        part.end();
        part.left = true;
        part.prefix.iter_mut().for_each(super::prefix::Prefix::try_anew);
        let mut revoking = part.revoking.take().unwrap_or_default();
        revoking.questions.push(revocation);
        revoking.deadline = revoking.deadline.into_iter().chain(deadline).min();
        part.revoking = Some(revoking);
        self.recalls += 1;
        self.set_alarm(deadline.unwrap_or(Tick::MAX), Due::Part(id));
        if self.able.prefix {
            self.give_buffer_back(id);
            self.commits.push_back(id);
        } else {
            self.release_buffer(id);
        }
        let open = self.parts.get(&id).into_iter().flat_map(|part| self.entries.of(&part.open));
        let taken = open.filter(|(_, entry)| entry.phase == MessagePhase::Taken);
        let taken = taken.map(|(key, _)| key).collect();
        self.hurry(taken);
        self.wake_part(id);
        self.end_part(id);
        None
    }

    fn revocations(&mut self, now: Tick) -> Vec<(Revocation, usize)> {
        let mut answered = Vec::new();
        for id in std::mem::take(&mut self.to_answer) {
            let Some(part) = self.parts.get_mut(&id) else { continue };
            let open = part.open.len();
            // What a fetch has brought since is given back first, as long as there is time.
            let is_due = |it: &mut Revoking| open == 0 || it.deadline.is_some_and(|at| now >= at);
            let Some(Revoking { questions, .. }) = part.revoking.take_if(is_due) else { continue };
            answered.extend(questions.into_iter().map(|question| (question, open)));
            // After it was given up nothing of it is settled.
            self.lose_part(id);
        }
        answered
    }

    /// The drain ends: nothing more is fetched, and what was not taken goes back.
    pub(super) fn stop(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        let ids: Vec<_> = self.parts.keys().copied().collect();
        for id in ids {
            if let Some(part) = self.parts.get_mut(&id) {
                part.end();
                part.prefix.iter_mut().for_each(super::prefix::Prefix::try_anew);
            }
            self.release_buffer(id);
            self.commits.push_back(id);
            self.wake_part(id);
        }
        self.aside.wakers.extend(self.assigned_waker.take());
        self.wake_driver();
    }

    /// The drain is gone. Returns the accepts that were not sent, and the questions that are open.
    pub(super) fn detach(&mut self) -> (Vec<(Key, Option<Tag>)>, Vec<Revocation>) {
        self.line.clear();
        self.outbox.clear();
        self.sending = 0;
        self.commits.clear();
        self.renewals.clear();
        self.alarms.clear();
        for (key, name) in std::mem::take(&mut self.lost_in_work).names() {
            self.forget_name(key, name);
        }
        self.aside.messages.extend(self.groups.clear());
        self.to_answer.clear();
        self.note_rewinds();
        self.detached = true;
        // What the drain was to take back, and has not heard of.
        let unheard = std::mem::take(&mut self.news).into_iter().filter_map(|news| match news {
            News::Voided(key, tag) => Some((key, tag)),
            News::Refused { key, tag, .. } => Some((key, Some(tag))),
            News::Fault(error) => {
                self.aside.errors.push(error);
                None
            }
            _ => None,
        });
        let mut not_sent: Vec<_> = unheard.collect();
        let open: Vec<_> = self.entries.iter().map(|(key, entry)| (key, entry.phase)).collect();
        for (key, phase) in open {
            match phase {
                MessagePhase::Sending => self.conclude(key, End::Unknown),
                MessagePhase::Decided => {
                    let Some(entry) = self.entries.get_mut(key) else { continue };
                    if entry.maybe {
                        self.conclude(key, End::Unknown);
                    } else if matches!(entry.verdict, Said::Accept) {
                        entry.phase = MessagePhase::Taken;
                        let tag = entry.tag.take();
                        not_sent.push((key, tag));
                        self.makes_room();
                    } else {
                        self.conclude(key, End::Abandoned);
                    }
                }
                MessagePhase::Taken | MessagePhase::ByHand => {}
                MessagePhase::Buffered => self.conclude(key, End::Abandoned),
            }
        }
        self.news.clear();
        self.room.waiting = 0;
        let (mut revocations, mut given_up) = (Vec::new(), Vec::new());
        for (id, part) in &mut self.parts {
            for (message, _) in std::mem::take(&mut part.buffer) {
                self.aside.messages.push(message);
            }
            (part.held, part.waits_for_room, part.drained) = (0, None, None);
            part.stop_fetch();
            part.fetch = super::part::Fetch::default();
            if let Some(prefix) = &mut part.prefix {
                *prefix = super::prefix::Prefix::default();
            }
            if let Some(Revoking { questions, .. }) = part.revoking.take() {
                part.lost = true;
                given_up.push((part.assignment, *id));
                revocations.extend(questions);
            }
        }
        for (assignment, id) in given_up {
            self.forget_assignment(assignment);
            self.partitions.remove_source(assignment, id);
        }
        let gone: Vec<_> =
            self.parts.iter().filter(|(_, part)| part.left).map(|(id, _)| *id).collect();
        for id in gone {
            self.end_part(id);
        }
        (not_sent, revocations)
    }
}
