//! What a lane starts next that handles several messages at once: a message of its source, one that
//! is held until its key is free, or one that is due for another attempt.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::waker_ref;

use super::lane::Turn;
use super::many::{HeldMessage, Key, keys};
use super::order::{BusyKeys, Order, Waiter};
use super::serial::LaneDesk;
use super::slot::{Job, Slot, SlotEnded, Work};
use super::taking::Taken;
use super::turns::LanePlace;
use super::types::{DrainTypes, Drains};
use crate::error::Error;
use crate::panics;
use crate::source::{Raw, Receipt};

/// What came of starting the next message.
pub(super) enum StartedMessage<C: DrainTypes> {
    /// It is in the run, and so far it is there.
    Message(Poll<SlotEnded<C>>),
    /// Nothing could be started: that is how the turn ends.
    Nothing(Turn),
    /// Something that needs no handler was taken, and the turn goes on.
    Other,
}

impl<C: Drains> LanePlace<'_, C> {
    /// Starts what is next: retries that are due and new messages take turns, one and one.
    #[inline]
    pub(super) fn start(
        &mut self,
        at: u32,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> StartedMessage<C> {
        let this = self.lane.as_mut().project();
        let Some(many) = this.many.as_mut() else { return StartedMessage::Nothing(Turn::Ended) };
        let is_due = many.is_due(&mut self.now, desk.shared);
        // Where as many wait as may, new messages would make it more.
        if is_due && (many.retry_next || !desk.state.may_wait()) {
            return self.start_retry(at, desk);
        }
        let is_held = !many.held.is_empty();
        let started =
            if is_held { self.start_held(at, desk) } else { self.start_new(at, desk, cx) };
        match started {
            StartedMessage::Nothing(_) if is_due => self.start_retry(at, desk),
            started => {
                if let Some(many) = self.lane.as_mut().project().many {
                    many.retry_next = true;
                }
                started
            }
        }
    }

    #[cold]
    pub(super) fn start_retry(&mut self, at: u32, desk: &mut LaneDesk<'_, C>) -> StartedMessage<C> {
        let this = self.lane.as_mut().project();
        let Some(many) = this.many.as_mut() else { return StartedMessage::Nothing(Turn::Ended) };
        many.retry_next = false;
        let Some((_, (key, mut job))) = many.waiting.pop_first() else {
            return StartedMessage::Nothing(Turn::Pending);
        };
        desk.state.accounts.change(this.info.row, |n| {
            n.waiting -= 1;
            n.in_flight += 1;
        });
        job.booked = true;
        match (job.message.take(), key) {
            (Some(message), Some(key)) => {
                StartedMessage::Message(self.begin(at, key, job, message, desk))
            }
            (Some(message), None) => self.start_taken(at, job, message, desk),
            (None, _) => StartedMessage::Nothing(Turn::Pending),
        }
    }

    /// Starts what the source has.
    #[inline]
    fn start_new(
        &mut self,
        at: u32,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> StartedMessage<C> {
        if self.lane.as_mut().project().many.as_ref().is_none_or(|many| many.dry) {
            return StartedMessage::Nothing(Turn::Pending);
        }
        let (message, receipt, booked) = match self.lane.as_mut().take(desk.state, cx) {
            Taken::Message(message, receipt, booked) => (message, receipt, booked),
            Taken::Failed(error, raw, receipt, booked) => {
                let job = Job { booked, receipt, ..Job::new(self.lane.info.number) };
                return self.refuse(at, job, error, raw, desk);
            }
            Taken::Other => {
                self.lane.as_mut().count_turn(desk.state);
                return StartedMessage::Other;
            }
            Taken::Nothing => {
                self.lane.as_mut().begin_turn();
                if let Some(many) = self.lane.as_mut().project().many {
                    many.dry = true;
                }
                return StartedMessage::Nothing(Turn::Pending);
            }
            Taken::End => return StartedMessage::Nothing(Turn::Ended),
        };
        let job = Job { booked, receipt, ..Job::new(self.lane.info.number) };
        self.start_taken(at, job, message, desk)
    }

    /// Starts a message that is in no order so far, if its key is free.
    #[inline]
    fn start_taken(
        &mut self,
        at: u32,
        job: Job<C>,
        message: C::Message,
        desk: &mut LaneDesk<'_, C>,
    ) -> StartedMessage<C> {
        let this = self.lane.as_mut().project();
        let Some(many) = this.many.as_mut() else { return StartedMessage::Nothing(Turn::Ended) };
        let order = &mut desk.state.order;
        let keys = keys::<C>(&mut desk.state.keys, &mut many.busy);
        let mut key = None;
        let mut begin = || keys.begin(key.insert(order.key(&message)), None);
        let begun = if <C::Order as Order<C::Message>>::KEYED {
            panics::contain(begin)
        } else {
            Ok(begin())
        };
        match (begun, key) {
            (Ok(true), Some(key)) => {
                StartedMessage::Message(self.begin(at, key, job, message, desk))
            }
            (Ok(false), Some(key)) => {
                desk.state.accounts.change(this.info.row, |n| {
                    n.in_flight -= u64::from(job.booked);
                    n.held += 1;
                });
                many.held.push_back(HeldMessage { message, job, key, ticket: None });
                if many.held.len() > 1 {
                    // It was tried before, and others are held already.
                    return StartedMessage::Other;
                }
                self.start_held(at, desk)
            }
            (begun, key) => {
                panics::drop_each(key);
                let text = begun.err().unwrap_or_default();
                let job = Job { message: Some(message), ..job };
                self.refuse(at, job, Error::panic("the key", &text), None, desk)
            }
        }
    }

    /// Starts the message that is held, if its key is free.
    fn start_held(&mut self, at: u32, desk: &mut LaneDesk<'_, C>) -> StartedMessage<C> {
        let across = <C::Order as Order<C::Message>>::ACROSS;
        let this = self.lane.as_mut().project();
        let Some(many) = this.many.as_mut() else { return StartedMessage::Nothing(Turn::Ended) };
        let Some(held) = many.held.front_mut() else {
            return StartedMessage::Nothing(Turn::Pending);
        };
        let keys = keys::<C>(&mut desk.state.keys, &mut many.busy);
        // Comparing keys is the user's code, as making them is.
        let begun = panics::contain(|| {
            let begun = keys.begin(&held.key, held.ticket);
            if !begun && across && held.ticket.is_none() {
                held.ticket = Some(keys.wait(&held.key, &Waiter(Arc::clone(desk.node))));
            }
            begun
        });
        if let Ok(false) = begun {
            return StartedMessage::Nothing(Turn::Pending);
        }
        let Some(HeldMessage { message, job, key, ticket }) = many.held.pop_front() else {
            return StartedMessage::Nothing(Turn::Pending);
        };
        desk.state.accounts.change(this.info.row, |n| {
            n.held -= 1;
            n.in_flight += 1;
        });
        let job = Job { booked: true, ..job };
        match begun {
            Ok(_) => StartedMessage::Message(self.begin(at, key, job, message, desk)),
            Err(text) => {
                if let Some(ticket) = ticket {
                    panics::drop_contained(|| keys.leave(&key, ticket));
                }
                panics::drop_each([key]);
                let job = Job { message: Some(message), ..job };
                self.refuse(at, job, Error::panic("the key", &text), None, desk)
            }
        }
    }

    /// Begins a message in a run.
    #[inline]
    fn begin(
        &mut self,
        at: u32,
        key: Key<C>,
        job: Job<C>,
        message: C::Message,
        desk: &mut LaneDesk<'_, C>,
    ) -> Poll<SlotEnded<C>> {
        self.lane.as_mut().count_attempt(desk.state, desk.shared);
        if C::Receipt::SETTLES {
            desk.state.begins(self.lane.info.row, &key);
        }
        self.runs.places[at as usize].key = Some(key);
        self.put_in(at, desk, |slot, work| slot.begin(job, message, work))
    }

    /// Takes a message into a run that has failed before its handler could be called.
    #[cold]
    fn refuse(
        &mut self,
        at: u32,
        job: Job<C>,
        error: Error,
        raw: Option<Raw>,
        desk: &mut LaneDesk<'_, C>,
    ) -> StartedMessage<C> {
        self.lane.as_mut().count_turn(desk.state);
        let refused = self.put_in(at, desk, |slot, work| slot.refuse(job, error, raw, work));
        StartedMessage::Message(refused)
    }

    /// Puts a message into the slot of a run, whose turn it is from here on.
    #[inline]
    fn put_in(
        &mut self,
        at: u32,
        desk: &mut LaneDesk<'_, C>,
        put: impl FnOnce(Pin<&mut Slot<C>>, &mut Work<'_, '_, C>) -> Poll<SlotEnded<C>>,
    ) -> Poll<SlotEnded<C>> {
        *self.current = self.runs.number(at);
        let run = &mut self.runs.places[at as usize];
        let waker = waker_ref(&run.node);
        let cx = &mut Context::from_waker(&waker);
        run.lane = self.index;
        let Some(slot) = run.slot.as_mut() else { return Poll::Ready(SlotEnded::Booked) };
        let this = self.lane.as_mut().project();
        let Some(many) = this.many.as_mut() else { return Poll::Ready(SlotEnded::Booked) };
        many.in_flight += 1;
        let polled = put(slot.as_mut(), &mut desk.work(this.info, cx));
        if polled.is_pending() {
            desk.alarms.set(run.node.number, slot.alarm());
        }
        polled
    }
}
