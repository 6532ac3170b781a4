//! The messages in work of lanes that handle several at once.
//!
//! A run is a slot with a place of its own among those of the bank. When its message has ended, the
//! lane takes its next one into the same room.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::waker_ref;

use super::lane::{Turn, WaitingMessage};
use super::many::{Key, free_key};
use super::queue::Spot;
use super::serial::LaneDesk;
use super::slot::{SlotBox, SlotEnded};
use super::starts::StartedMessage;
use super::turns::LanePlace;
use super::types::{DrainTypes, Drains};
use crate::error::Error;
use crate::ready::{Node, ReadyQueue};
use crate::source::Receipt;

/// The room of one message of such a lane.
pub(super) struct MessageRun<C: DrainTypes> {
    pub(super) node: Arc<Node>,
    pub(super) slot: Option<SlotBox<C>>,
    pub(super) key: Option<Key<C>>,
    pub(super) lane: u32,
}

/// The runs of one bank.
pub(super) struct Runs<C: DrainTypes> {
    pub(super) places: Vec<MessageRun<C>>,
    idle: Vec<u32>,
    /// The number of the first run among the places of the bank.
    first: u32,
}

impl<C: Drains> Runs<C> {
    pub(super) fn new(first: u32) -> Self {
        Self { places: Vec::new(), idle: Vec::new(), first }
    }

    /// The number of a run among the places of the bank.
    pub(super) fn number(&self, run: u32) -> u32 {
        self.first + run
    }

    /// The run with this number among the places of the bank.
    pub(super) fn index(&self, number: u32) -> Option<u32> {
        number.checked_sub(self.first)
    }

    /// A run that is free, with this slot.
    pub(super) fn take(&mut self, ready: &mut ReadyQueue, slot: SlotBox<C>) -> u32 {
        let run = self.idle.pop().unwrap_or_else(|| {
            let run = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
            let node = ready.node(self.first + run);
            self.places.push(MessageRun { node, slot: None, key: None, lane: 0 });
            run
        });
        self.places[run as usize].slot = Some(slot);
        run
    }

    /// The source of a lane is being taken out: those of its messages that keep a slot go back.
    #[cold]
    pub(super) fn let_kept_go(&self, lane: u32) {
        for run in self.places.iter().filter(|run| run.lane == lane) {
            if run.slot.as_ref().is_some_and(|slot| slot.kept_until().is_some()) {
                run.node.notify();
            }
        }
    }

    /// Gives a run back, and hands its slot out.
    pub(super) fn give_back(&mut self, run: u32) -> Option<SlotBox<C>> {
        self.idle.push(run);
        let slot = self.places[run as usize].slot.take();
        if self.idle.len() == self.places.len() && self.places.len() > 1_024 {
            // A crowd has gone.
            self.places = Vec::new();
            self.idle = Vec::new();
        }
        slot
    }
}

impl<C: Drains> LanePlace<'_, C> {
    /// What becomes of the lane when a message of a run has ended. Returns whether the run is free.
    #[inline]
    pub(super) fn ended(
        &mut self,
        at: u32,
        ended: SlotEnded<C>,
        desk: &mut LaneDesk<'_, C>,
    ) -> bool {
        let run = &mut self.runs.places[at as usize];
        let this = self.lane.as_mut().project();
        let Some(many) = this.many.as_mut() else { return true };
        let key = run.key.take();
        if C::Receipt::SETTLES {
            desk.state.note_key(this.info.row, key.as_ref());
        }
        match ended {
            SlotEnded::Handled => this.info.handled += 1,
            SlotEnded::Booked => {}
            SlotEnded::Waits(waiting) => return self.waits(at, *waiting, key, desk),
        }
        many.in_flight -= 1;
        if let Some(key) = key {
            free_key::<C>(desk.state, &mut many.busy, key);
        }
        true
    }

    /// Whether a run that was just begun is free again.
    #[inline]
    pub(super) fn is_free(
        &mut self,
        at: u32,
        polled: Poll<SlotEnded<C>>,
        desk: &mut LaneDesk<'_, C>,
    ) -> bool {
        match polled {
            Poll::Ready(ended) => self.ended(at, ended, desk),
            Poll::Pending => false,
        }
    }

    /// The message has another attempt. Returns whether the run is free.
    #[cold]
    fn waits(
        &mut self,
        at: u32,
        waiting: WaitingMessage<C>,
        key: Option<Key<C>>,
        desk: &mut LaneDesk<'_, C>,
    ) -> bool {
        let run = &mut self.runs.places[at as usize];
        let this = self.lane.as_mut().project();
        let Some(many) = this.many.as_mut() else { return true };
        let (state, row) = (&mut *desk.state, this.info.row);
        let WaitingMessage { job, until } = waiting;
        if !state.is_running() || this.info.leaving || job.is_asked_back() {
            state.give_back_in_flight(this.info, job);
            many.in_flight -= 1;
            if let Some(key) = key {
                free_key::<C>(state, &mut many.busy, key);
            }
            return true;
        }
        let keeps = !state.may_wait() && !state.gives_way();
        if let (true, Some(slot)) = (keeps, run.slot.as_mut()) {
            slot.as_mut().keep(job, until, state);
            run.key = key;
            desk.alarms.set(run.node.number, until);
            state.giving_way.keep(Spot { bank: desk.bank, place: run.node.number }, &run.node);
            return false;
        }
        many.in_flight -= 1;
        state.accounts.change(row, |n| {
            n.in_flight -= 1;
            n.waiting += 1;
        });
        many.waits(until, key, job);
        true
    }

    /// The turn of a run: its message is polled, and when it has ended the next one takes its room.
    #[inline]
    pub(super) fn run_turn(
        mut self,
        at: u32,
        desk: &mut LaneDesk<'_, C>,
        panicked: Option<&str>,
    ) -> Turn {
        let MessageRun { node, slot, .. } = &mut self.runs.places[at as usize];
        let waker = waker_ref(node);
        let cx = &mut Context::from_waker(&waker);
        let Some(slot) = slot.as_mut().filter(|slot| slot.is_busy()) else {
            // Nothing of a message's: a panic that is nobody's ends the drain.
            if let Some(message) = panicked {
                desk.state.fail(Error::panic("the drain", message));
            }
            return Turn::Pending;
        };
        let info = self.lane.as_mut().project().info;
        let polled = match panicked {
            Some(message) => slot.as_mut().panicked(message, &mut desk.work(info, cx)),
            None if slot.kept_until().is_some() => return self.kept_turn(at, desk),
            None => slot.as_mut().poll(&mut desk.work(info, cx)),
        };
        match polled {
            Poll::Pending => {
                desk.alarms.set(node.number, slot.alarm());
                Turn::Pending
            }
            Poll::Ready(ended) => {
                if !self.ended(at, ended, desk) {
                    return Turn::Pending;
                }
                self.lane_goes_on(at, desk)
            }
        }
    }

    /// The lane takes its next message into the room of one that has ended.
    #[inline]
    fn lane_goes_on(self, at: u32, desk: &mut LaneDesk<'_, C>) -> Turn {
        if let Some(slot) = self.runs.places[at as usize].slot.as_mut() {
            slot.as_mut().flush();
        }
        *self.current = self.index;
        self.turn(Some(at), desk)
    }

    /// Begins the retry that is due first in the room of one that has become due as well, whosever turn
    /// it is.
    #[cold]
    fn retry_in_place(mut self, at: u32, desk: &mut LaneDesk<'_, C>) -> Turn {
        let waker = waker_ref(desk.node);
        let cx = &mut Context::from_waker(&waker);
        *self.current = self.index;
        let (state, shared) = (&mut *desk.state, desk.shared);
        let started = self.lane.as_mut().may_start(desk.node, state, shared, desk.alarms, cx);
        if started.is_ok() && state.slots.has_room(|| shared.now()) {
            if let StartedMessage::Message(polled) = self.start_retry(at, desk) {
                if !self.is_free(at, polled, desk) {
                    return Turn::Pending;
                }
            }
        }
        self.lane_goes_on(at, desk)
    }

    /// The message waits in its slot, because too many wait. It changes places with one that is due.
    #[cold]
    fn kept_turn(mut self, at: u32, desk: &mut LaneDesk<'_, C>) -> Turn {
        let run = &mut self.runs.places[at as usize];
        let Some(slot) = run.slot.as_mut() else { return Turn::Pending };
        let Some(until) = slot.kept_until() else { return Turn::Pending };
        let spot = Spot { bank: desk.bank, place: run.node.number };
        let leaving = self.lane.info.leaving || slot.is_asked_back();
        let is_due = until <= desk.shared.now();
        let goes = is_due || leaving || !desk.state.is_running() || desk.state.gives_way();
        if !goes {
            desk.state.giving_way.keep(spot, &run.node);
            desk.alarms.set(run.node.number, until);
            return Turn::Pending;
        }
        let Some(job) = slot.as_mut().take_kept(desk.state) else { return Turn::Pending };
        desk.state.giving_way.has_left(spot);
        let this = self.lane.as_mut().project();
        let Some(many) = this.many.as_mut() else { return Turn::Pending };
        many.in_flight -= 1;
        match run.key.take() {
            key if desk.state.is_running() && !leaving => {
                desk.state.accounts.change(this.info.row, |n| {
                    n.in_flight -= 1;
                    n.waiting += 1;
                });
                many.waits(until, key, job);
                many.retry_next |= is_due;
            }
            key => {
                if let Some(key) = key {
                    free_key::<C>(desk.state, &mut many.busy, key);
                }
                desk.state.give_back_in_flight(this.info, job);
            }
        }
        if is_due {
            return self.retry_in_place(at, desk);
        }
        if let Some(slot) = self.runs.give_back(at) {
            Self::free(slot, desk);
        }
        Turn::Again
    }
}
