//! One source of a transport.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::Transport;
use super::ends::End;
use super::entries::MessagePhase;
use super::hub::Hub;
use super::state::TransportState;
use crate::clock::Tick;
use crate::error::{Error, ErrorCode};
use crate::settlement::{Assignment, Desk, Given, Key, Ticket, Verdict};
use crate::source::{Body, Delivery, Hold, Polled, Profile, Source};

/// A source of a [`Transport`]: made by [`Link::source`](super::Link::source). Dropped while its drain
/// runs, it gives back what it has fetched.
#[must_use = "a source does nothing unless it is drained"]
pub struct TransportSource<T: Transport> {
    hub: Arc<Hub<T>>,
    part: u64,
    /// Among all sources of the transport.
    number: u64,
}

/// What a source has just now.
enum NextMessage<M> {
    Message(M, Key),
    /// It was delivered too often.
    TooOften(M, Key, u32),
    Pending,
    End,
}

impl<T: Transport> TransportSource<T> {
    pub(super) fn open(hub: &Arc<Hub<T>>, assignment: Assignment) -> Self {
        let (part, number) = hub.change(|state| {
            let part = state.open(assignment);
            (part, state.add_source(part))
        });
        Self::new(hub, part, number)
    }

    pub(super) fn new(hub: &Arc<Hub<T>>, part: u64, number: u64) -> Self {
        Self { hub: Arc::clone(hub), part, number }
    }

    /// Which partition it brings, in which generation: to name it by, say.
    #[must_use]
    pub fn assignment(&self) -> Assignment {
        let of =
            |state: &TransportState<T>| state.parts.get(&self.part).map(|part| part.assignment);
        self.hub.look(of).unwrap_or_default()
    }
}

impl<T: Transport> TransportState<T> {
    /// The source of a partition. In prefix order there is one of each assignment, which goes on where
    /// an earlier one has left it.
    fn open(&mut self, assignment: Assignment) -> u64 {
        let earlier = if self.able.prefix { self.partitions.source_of(assignment) } else { None };
        let Some(id) = earlier else { return self.add_part(assignment) };
        self.assigned.retain(|other| *other != id);
        if let Some(part) = self.parts.get_mut(&id).filter(|part| part.revoking.is_none()) {
            (part.left, part.ended) = (false, self.stopped);
        }
        id
    }

    /// One more source of a part. Returns its number.
    pub(super) fn add_source(&mut self, id: u64) -> u64 {
        self.sources += 1;
        self.last_source += 1;
        if let Some(part) = self.parts.get_mut(&id) {
            part.sources += 1;
        }
        self.last_source
    }

    /// Partitions that an earlier drain has left are there for the next one.
    pub(super) fn assign_again(&mut self) {
        for assignment in self.partitions.ours() {
            let part = self.partitions.source_of(assignment);
            let is_used = part.and_then(|id| self.parts.get(&id)).is_some_and(|part| !part.left);
            if !is_used {
                let id = self.open(assignment);
                self.assigned.push_back(id);
            }
        }
    }

    /// What a source has. `waker`: whom to wake when it has more.
    fn next(&mut self, id: u64, now: Tick, waker: &mut Option<Waker>) -> NextMessage<T::Message> {
        loop {
            let Some(mut part) = self.parts.get_mut(&id) else { return NextMessage::End };
            if part.left || part.revoking.is_some() || part.keeper && self.stopped {
                return NextMessage::End;
            }
            let has_one = !part.buffer.is_empty() && part.may_take(self.options.max_ahead);
            // Nobody waits for room, and no message is tried alone: that is all there is to be asked.
            let is_usual = self.room.waiting == 0
                && self.unsettled < self.options.max_unsettled
                && self.options.max_deliveries.is_none()
                && self.lost_in_work.is_empty();
            let taken = if has_one && is_usual {
                part.buffer.pop_front()
            } else {
                let taken = match self.next_in_turn(id, has_one, waker) {
                    Ok(taken) => taken,
                    Err(next) => return next,
                };
                let Some(again) = self.parts.get_mut(&id) else { return NextMessage::End };
                part = again;
                Some(taken)
            };
            let Some((message, key)) = taken else { continue };
            part.taken += 1;
            let place = match &mut part.prefix {
                Some(prefix) => prefix.take(key),
                None => part.taken - 1,
            };
            let is_low = part.buffer.len() <= self.able.prefetch / 2;
            let (least, most) = (self.least_lease, self.options.max_deliveries);
            let Some(entry) = self.entries.get_mut(key) else { continue };
            let place = self.groups.taken(entry.facts()).unwrap_or(place);
            (entry.phase, entry.place) = (MessagePhase::Taken, place);
            let lease = entry.lease;
            let deliveries = entry.facts().deliveries.unwrap_or(0);
            if is_low {
                self.want(id);
            }
            if now >= lease.expires {
                self.aside.messages.push(message);
                self.lose_taken(key);
            } else if lease.has_less_than(least, now) {
                self.aside.messages.push(message);
                self.give(key, Verdict::UNTOUCHED, Given::default());
                self.rest(id, now);
                self.has_too_little_left(id, lease.expires.since(now));
            } else if most.is_some_and(|most| deliveries > most) {
                return NextMessage::TooOften(message, key, deliveries);
            } else {
                return NextMessage::Message(message, key);
            }
        }
    }

    /// Takes the next one, if there is one, it may be next, and there is room for it.
    ///
    /// # Errors
    ///
    /// What the source has instead.
    #[inline(never)]
    fn next_in_turn(
        &mut self,
        id: u64,
        has_one: bool,
        waker: &mut Option<Waker>,
    ) -> Result<(T::Message, Key), NextMessage<T::Message>> {
        let is_undone = !self.able.prefix || !self.lost_in_work.any(self.where_undone(id));
        let may_take = has_one && is_undone && self.may_be_next(id);
        // Whoever waits for room has everything else.
        let has_room = may_take && self.has_room_for(id, waker.is_some());
        if !may_take {
            self.leave_room_line(id);
        }
        let Some(part) = self.parts.get_mut(&id) else { return Err(NextMessage::End) };
        let taken = if has_room { part.buffer.pop_front() } else { None };
        taken.ok_or_else(|| self.has_none(id, may_take, waker))
    }

    /// Nothing can be taken.
    fn has_none(
        &mut self,
        id: u64,
        may_take: bool,
        waker: &mut Option<Waker>,
    ) -> NextMessage<T::Message> {
        let Some(part) = self.parts.get_mut(&id) else { return NextMessage::End };
        let is_over = match &part.prefix {
            // What is not done may be given back, and comes again.
            Some(prefix) => prefix.is_over(part.ended),
            None => part.ended,
        };
        if is_over && part.buffer.is_empty() && part.held == 0 {
            return NextMessage::End;
        }
        if waker.is_some() {
            self.aside.old_wakers.extend(std::mem::replace(&mut part.waker, waker.take()));
            if may_take {
                self.lets_others_go();
            }
        }
        self.want(id);
        NextMessage::Pending
    }

    /// Whether the next one may be taken, as to what else of its source is in work. One at the limit of
    /// deliveries, which others in work may have brought there, is tried alone.
    fn may_be_next(&mut self, id: u64) -> bool {
        let Some(most) = self.options.max_deliveries.filter(|_| !self.gathers) else { return true };
        let Some(part) = self.parts.get(&id) else { return true };
        let next = part.buffer.front().and_then(|(_, key)| self.entries.get(*key));
        let is_last = next.is_some_and(|it| most > 1 && it.facts().deliveries == Some(most));
        if !part.alone && !is_last {
            return true;
        }
        let in_work = |phase| matches!(phase, MessagePhase::Taken | MessagePhase::ByHand);
        let is_idle = self.entries.of(&part.open).all(|(_, entry)| !in_work(entry.phase))
            && !self.lost_in_work.any(self.where_undone(id));
        if let Some(part) = self.parts.get_mut(&id) {
            part.alone = is_last || !is_idle;
        }
        is_idle
    }

    /// It was taken, and nobody has it.
    fn lose_taken(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.phase = MessagePhase::Decided;
            self.unsettled += 1;
            self.lose(key);
        }
    }

    /// Has more fetched, where there is room for it.
    pub(super) fn want(&mut self, id: u64) {
        let prefetch = self.able.prefetch;
        let Some(part) = self.parts.get_mut(&id) else { return };
        let is_full = part.buffer.len() > prefetch / 2 || part.held >= self.options.max_ahead;
        if is_full || part.fetch.in_line || self.stopped {
            return;
        }
        part.fetch.wanted = true;
        if part.may_fetch() && part.fetch.not_before.is_none() {
            part.fetch.in_line = true;
            self.line.push_back(id);
            self.wake_driver();
        }
    }

    /// A source was dropped: the last one of its part, the one that its drain has, or one that somebody has
    /// kept.
    fn leave(&mut self, id: u64, number: u64, attached: bool) {
        self.sources -= 1;
        let Some(part) = self.parts.get_mut(&id) else { return };
        part.sources -= 1;
        let (is_last, is_drained) = (part.sources == 0, part.drained == Some(number));
        if is_drained {
            part.drained = None;
        }
        if is_last {
            part.left = true;
            part.end();
        } else if is_drained {
            part.fetch.wanted = false;
            part.stop_fetch();
        } else {
            return;
        }
        if attached {
            self.release_buffer(id);
        } else if is_last {
            let buffer = std::mem::take(&mut part.buffer);
            for (message, key) in buffer {
                self.aside.messages.push(message);
                self.conclude(key, End::Abandoned);
            }
        }
        self.end_part(id);
        self.wake_driver();
    }
}

impl<T: Transport> Source for TransportSource<T> {
    type Message = T::Message;
    type Receipt = Ticket;

    fn poll_delivery(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<Self> {
        let (hub, part) = (&self.hub, self.part);
        // It is looked at where messages have leases.
        let now = if hub.able().leases { hub.clock().now() } else { Tick::ZERO };
        let mut next = hub.change(|state| state.next(part, now, &mut None));
        if let NextMessage::Pending = next {
            // The waker is somebody else's code: it is cloned outside the lock.
            let mut waker = Some(cx.waker().clone());
            next = hub.change(|state| state.next(part, now, &mut waker));
        }
        let (body, key) = match next {
            NextMessage::Message(message, key) => (Body::Message(message), key),
            NextMessage::TooOften(message, key, deliveries) => {
                let text = format!("the message was delivered {deliveries} times");
                let error = Error::new(ErrorCode::Source, text);
                (Body::Failed(error, Some(Box::new(message))), key)
            }
            NextMessage::Pending => return Poll::Pending,
            NextMessage::End => return Poll::Ready(None),
        };
        let desk = Arc::clone(hub) as Arc<dyn Desk>;
        Poll::Ready(Some(Ok(Delivery { body, receipt: Ticket::new(desk, key) })))
    }

    /// What is on its way is given back. What was fetched stays, and is renewed, or goes back with
    /// its source.
    fn hold(self: Pin<&mut Self>, hold: Hold) {
        if hold == Hold::End {
            // The transport is told by itself.
            return;
        }
        let (id, number, attached) = (self.part, self.number, self.hub.notices.is_attached());
        self.hub.change(|state| {
            let Some(part) = state.parts.get_mut(&id) else { return };
            if hold == Hold::No {
                part.drained = Some(number);
            } else if part.drained != Some(number) {
                return;
            }
            if hold == Hold::Leave {
                part.drained = None;
            }
            part.paused = hold != Hold::No;
            if part.paused {
                part.fetch.wanted = false;
                part.stop_fetch();
            }
            if hold != Hold::No {
                state.leave_room_line(id);
            }
            if hold == Hold::Leave && attached {
                state.release_buffer(id);
            }
        });
    }

    fn is_exhausted(&self) -> bool {
        self.hub.look(|state| {
            let part = state.parts.get(&self.part);
            part.is_none_or(|part| part.ended && part.buffer.is_empty() && part.held == 0)
        })
    }

    fn profile(&self) -> Profile {
        let desks = vec![Arc::clone(&self.hub) as Arc<dyn Desk>];
        Profile { desks, groups: self.hub.able().groups, ..Profile::default() }
    }
}

impl<T: Transport> Drop for TransportSource<T> {
    fn drop(&mut self) {
        let attached = self.hub.notices.is_attached();
        let (part, number) = (self.part, self.number);
        self.hub.change(|state| state.leave(part, number, attached));
    }
}

impl<T: Transport> Unpin for TransportSource<T> {}

impl<T: Transport> fmt::Debug for TransportSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportSource").field("part", &self.part).finish_non_exhaustive()
    }
}
