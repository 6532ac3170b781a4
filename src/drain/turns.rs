//! The turn of a lane that handles several messages at once.
//!
//! Each of them has a *run*, a place with a waker of its own, so that a handler that is woken is
//! polled alone. The lane itself is polled when its source has something, when a retry is due, and
//! when one of its messages has ended.

use std::pin::Pin;
use std::task::Context;

use futures::task::waker_ref;

use super::lane::{Lane, Turn};
use super::queue::NONE;
use super::runs::Runs;
use super::serial::LaneDesk;
use super::slot::SlotBox;
use super::starts::StartedMessage;
use super::types::{DrainTypes, Drains};
use crate::clock::Tick;
use crate::ready::ReadyQueue;

/// Where a lane with several messages has its turn.
pub(super) struct LanePlace<'a, C: DrainTypes> {
    pub(super) lane: Pin<&'a mut Lane<C>>,
    pub(super) index: u32,
    pub(super) runs: &'a mut Runs<C>,
    pub(super) ready: &'a mut ReadyQueue,
    /// Whose turn it is, for blaming a panic.
    pub(super) current: &'a mut u32,
    /// When it was at the last look: what is decided and what is told to the alarms go by one look, or
    /// a retry that becomes due in between would be missed.
    pub(super) now: Option<Tick>,
}

impl<C: Drains> LanePlace<'_, C> {
    /// Takes messages as long as there are slots. Where a message has just ended, one goes into its
    /// room, `run`.
    pub(super) fn turn(mut self, mut run: Option<u32>, desk: &mut LaneDesk<'_, C>) -> Turn {
        let node = desk.node;
        let waker = waker_ref(node);
        let cx = &mut Context::from_waker(&waker);
        let turn = if run.is_some() {
            self.one_message(&mut run, desk, cx)
        } else {
            self.messages(&mut run, desk, cx)
        };
        if let Some(slot) = run.and_then(|run| self.runs.give_back(run)) {
            Self::free(slot, desk);
        }
        let this = self.lane.as_mut().project();
        this.info.book(desk.state);
        if let Some(many) = this.many {
            // One that is due and may not begin hears of what it waits for.
            if let Some(((until, _), _)) = many.waiting.first_key_value() {
                if *until > *self.now.get_or_insert_with(|| desk.shared.now()) {
                    desk.alarms.set(node.number, *until);
                }
            }
            if turn == Turn::Ended && (many.in_flight > 0 || !many.waiting.is_empty()) {
                // A source that is taken out waits for what runs; so does one that has ended.
                if this.info.leaving {
                    self.lane.as_mut().give_back_held(desk.state);
                    self.runs.let_kept_go(self.index);
                }
                let many = self.lane.as_mut().project().many.as_mut();
                if many.is_some_and(|many| many.in_flight > 0 || !many.waiting.is_empty()) {
                    return Turn::Pending;
                }
            }
        }
        turn
    }

    pub(super) fn free(mut slot: SlotBox<C>, desk: &mut LaneDesk<'_, C>) {
        slot.as_mut().flush();
        desk.state.give_slot_back(slot);
    }

    /// Takes as many messages as there are slots and the turn may have.
    #[inline]
    fn messages(
        &mut self,
        run: &mut Option<u32>,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> Turn {
        loop {
            if let Some(turn) = self.message(run, desk, cx) {
                return turn;
            }
        }
    }

    /// Takes one message into the room of another. The lane has its turn behind the other runs, which
    /// will have ended by then and go on in the same way.
    #[inline]
    fn one_message(
        &mut self,
        run: &mut Option<u32>,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> Turn {
        if desk.state.banks.fresh > 0 && self.lane.ticket == NONE {
            // Others have had no turn so far, and nobody knows yet whether they are ready.
            return Turn::Again;
        }
        while run.is_some() {
            if let Some(turn) = self.message(run, desk, cx) {
                return turn;
            }
        }
        if self.lane.ticket == NONE {
            return Turn::Again;
        }
        let (spot, state) = (desk.spot(), &mut *desk.state);
        if self.lane.others_wait(state) && self.lane.in_turn >= self.lane.turn(state, desk.shared) {
            self.lane.as_mut().queue_behind(spot, state);
        }
        Turn::Pending
    }

    /// Takes a message and begins it. Returns how the turn ends, if it does.
    #[inline]
    fn message(
        &mut self,
        run: &mut Option<u32>,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> Option<Turn> {
        if let Some(turn) = self.before(run, desk, cx) {
            return Some(turn);
        }
        let Some(at) = *run else { return Some(Turn::Again) };
        let started = self.start(at, desk, cx);
        *self.current = self.index;
        match started {
            StartedMessage::Message(polled) => {
                if !self.is_free(at, polled, desk) {
                    *run = None;
                }
                desk.state.look.then_some(Turn::Again)
            }
            StartedMessage::Nothing(turn) => {
                self.lane.as_mut().leave_queue(desk.state);
                Some(turn)
            }
            StartedMessage::Other => None,
        }
    }

    /// Whether the next message may be started, in a run that has a slot; if not, how the turn ends.
    #[inline]
    fn before(
        &mut self,
        run: &mut Option<u32>,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> Option<Turn> {
        self.now = None;
        let (spot, state, shared) = (desk.spot(), &mut *desk.state, desk.shared);
        let round = self.ready.round();
        let others_wait = self.lane.others_wait(state);
        let this = self.lane.as_mut().project();
        let many = this.many.as_mut()?;
        if std::mem::replace(&mut many.round, round) != round && !others_wait {
            self.lane.as_mut().begin_turn();
        }
        let is_over = self.lane.in_turn >= self.lane.turn(state, shared);
        if is_over && !others_wait {
            return Some(Turn::Again);
        }
        let has_ended = self.lane.has_ended();
        let this = self.lane.as_mut().project();
        let many = this.many.as_mut()?;
        if has_ended && many.held.is_empty() && many.waiting.is_empty() {
            self.lane.as_mut().leave_queue(state);
            return Some(Turn::Ended);
        }
        if let Err(turn) = self.lane.as_mut().may_start(desk.node, state, shared, desk.alarms, cx) {
            // A turn that is only cut short keeps its place.
            if turn == Turn::Pending || turn == Turn::Ended {
                self.lane.as_mut().leave_queue(state);
            }
            return Some(turn);
        }
        let this = self.lane.as_mut().project();
        let many = this.many.as_mut()?;
        let limit = shared.settings.per_source.unwrap_or(usize::MAX);
        let due = many.is_due(&mut self.now, shared);
        let is_dry = !due && (many.dry || has_ended) && many.held.is_empty();
        if is_dry || many.in_flight >= limit {
            // Nothing can be started, so no slot is needed.
            self.lane.as_mut().leave_queue(state);
            return Some(Turn::Pending);
        }
        if is_over {
            self.lane.as_mut().queue_behind(spot, state);
        } else if run.is_some() {
            // Who waits behind others leaves the room to them, also in its turn. A turn that stopped
            // because its source or a key had to wait for a message goes on where that has ended.
            let ticket = self.lane.ticket;
            let is_first = state.slots.queue.is_first(ticket);
            let may_go_on = ticket == NONE && !state.giving_way.are_left_to_others();
            let is_in_turn = is_first || (may_go_on && self.lane.in_turn > 0);
            if (!others_wait || is_in_turn) && state.slots.has_room(|| shared.now()) {
                self.lane.as_mut().set_due(false, state);
                return None;
            }
            if ticket == NONE {
                self.lane.as_mut().queue_behind(spot, state);
            }
        } else if state.banks.fresh > 0 && self.lane.in_turn > 0 && !state.slots.is_free() {
            // It waits behind those who have had no turn so far.
            return Some(Turn::Again);
        } else if let Some(slot) = self.lane.as_mut().ask_for_slot(spot, state, shared) {
            *run = Some(self.runs.take(self.ready, slot));
            self.lane.as_mut().set_due(false, state);
            return None;
        }
        self.lane.as_mut().set_due(due, state);
        Some(Turn::Pending)
    }
}
