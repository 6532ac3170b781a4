//! The turn of a lane that handles one message after another.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::waker_ref;

use super::alarms::Alarms;
use super::lane::{Lane, Turn, WaitingMessage};
use super::queue::Spot;
use super::slot::{Job, SlotEnded, Work};
use super::state::{Info, Shared, State};
use super::taking::Taken;
use super::types::{DrainTypes, Drains};
use crate::ready::Node;
use crate::source::Raw;

/// What a turn works with.
pub(super) struct LaneDesk<'a, C: DrainTypes> {
    pub(super) state: &'a mut State<C>,
    pub(super) shared: &'a Shared<C>,
    pub(super) alarms: &'a mut Alarms,
    /// The lane whose turn it is.
    pub(super) node: &'a Arc<Node>,
    pub(super) bank: u32,
}

impl<C: Drains> LaneDesk<'_, C> {
    /// Where the lane is.
    pub(super) fn spot(&self) -> Spot {
        Spot { bank: self.bank, place: self.node.number }
    }

    /// What a slot of the lane works with.
    #[inline]
    pub(super) fn work<'d, 'w>(
        &'d mut self,
        info: &'d mut Info,
        cx: &'d mut Context<'w>,
    ) -> Work<'d, 'w, C> {
        Work { info, state: self.state, shared: self.shared, cx }
    }
}

impl<C: Drains> Lane<C> {
    /// Goes on with the message in the slot, and then takes others. `panicked`: the last turn did.
    #[inline]
    pub(super) fn serial_turn(
        mut self: Pin<&mut Self>,
        desk: &mut LaneDesk<'_, C>,
        panicked: Option<&str>,
    ) -> Turn {
        let waker = waker_ref(desk.node);
        let cx = &mut Context::from_waker(&waker);
        let turn = match panicked {
            Some(message) => Some(self.as_mut().serial_blame(message, desk, cx)),
            None => self.as_mut().serial_goes_on(desk, cx),
        };
        let turn = turn.unwrap_or_else(|| self.as_mut().serial_messages(desk, cx));
        self.end_serial_turn(turn, desk, cx)
    }

    /// What is left behind when a turn ends.
    #[inline]
    fn end_serial_turn(
        mut self: Pin<&mut Self>,
        turn: Turn,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> Turn {
        let this = self.as_mut().project();
        let (spot, state) = (desk.spot(), &mut *desk.state);
        this.info.book(state);
        if let Some(slot) = this.slot.as_ref().filter(|slot| slot.is_busy()) {
            desk.alarms.set(desk.node.number, slot.alarm());
            // Its owner is heard also while a handler runs.
            self.as_mut().look_whether_leaving(state, cx);
            if self.info.leaving {
                self.give_back_held(state);
            }
            return if turn == Turn::Ended { Turn::Pending } else { turn };
        }
        if let Some(slot) = this.slot.as_mut() {
            slot.as_mut().flush();
        }
        if turn == Turn::Resume {
            // It is still its turn.
            return turn;
        }
        if let Some(slot) = this.slot.take() {
            let others_wait = !state.slots.queue.is_empty();
            state.give_slot_back(slot);
            if turn == Turn::Again && others_wait && state.is_running() {
                // A turn in which it would only say so is not needed. Its owner may have changed his
                // mind meanwhile, and is heard while it waits.
                self.as_mut().look_whether_leaving(state, cx);
                if self.info.leaving {
                    return Turn::Ended;
                }
                let until = self.retry.as_ref().map(|waiting| waiting.until);
                self.as_mut().queue_behind(spot, state);
                self.set_due(until.is_some_and(|until| until <= desk.shared.now()), state);
                return Turn::Pending;
            }
        }
        turn
    }

    /// Goes on with the message in the slot. `None`: there is room for another.
    #[inline]
    fn serial_goes_on(
        mut self: Pin<&mut Self>,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> Option<Turn> {
        let this = self.as_mut().project();
        let slot = this.slot.as_mut()?;
        if !slot.is_busy() {
            return None;
        }
        if slot.kept_until().is_some() {
            return self.serial_kept(desk, cx);
        }
        match slot.as_mut().poll(&mut desk.work(this.info, cx)) {
            Poll::Pending => Some(Turn::Pending),
            Poll::Ready(ended) => {
                self.as_mut().serial_ended(ended, desk);
                // A message that keeps its slot lets no other one in.
                self.slot.as_ref().is_some_and(|slot| slot.is_busy()).then_some(Turn::Pending)
            }
        }
    }

    /// Books a panic of the last turn on whoever caused it.
    #[cold]
    fn serial_blame(
        mut self: Pin<&mut Self>,
        message: &str,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> Turn {
        if desk.state.in_source {
            self.blame_source(message, desk.state);
            return Turn::Again;
        }
        let this = self.as_mut().project();
        if let Some(slot) = this.slot.as_mut().filter(|slot| slot.is_busy()) {
            match slot.as_mut().panicked(message, &mut desk.work(this.info, cx)) {
                Poll::Pending => return Turn::Pending,
                Poll::Ready(ended) => self.serial_ended(ended, desk),
            }
        } else {
            let error = crate::error::Error::panic("the drain", message);
            desk.state.fail(error.with_origin(this.info.message(0)));
        }
        Turn::Again
    }

    /// What becomes of the lane when a message has ended.
    #[inline]
    fn serial_ended(self: Pin<&mut Self>, ended: SlotEnded<C>, desk: &mut LaneDesk<'_, C>) {
        match ended {
            SlotEnded::Handled => self.project().info.handled += 1,
            SlotEnded::Booked => {}
            SlotEnded::Waits(waiting) => self.serial_waits(waiting, desk),
        }
    }

    /// The message has another attempt.
    #[cold]
    fn serial_waits(
        self: Pin<&mut Self>,
        waiting: Box<WaitingMessage<C>>,
        desk: &mut LaneDesk<'_, C>,
    ) {
        let (this, spot, state) = (self.project(), desk.spot(), &mut *desk.state);
        let ends = !state.is_running() || this.info.leaving;
        if ends || waiting.job.is_asked_back() {
            return state.give_back_in_flight(this.info, waiting.job);
        }
        if !state.may_wait() && !state.gives_way() {
            if let Some(slot) = this.slot {
                slot.as_mut().keep(waiting.job, waiting.until, state);
                return state.giving_way.keep(spot, desk.node);
            }
        }
        state.accounts.change(this.info.row, |n| {
            n.in_flight -= 1;
            n.waiting += 1;
        });
        *this.retry = Some(waiting);
    }

    /// The message waits in its slot, because too many wait. It changes places with one that is due.
    #[cold]
    fn serial_kept(
        mut self: Pin<&mut Self>,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> Option<Turn> {
        self.as_mut().look_whether_leaving(desk.state, cx);
        let this = self.as_mut().project();
        let slot = this.slot.as_mut()?;
        let until = slot.kept_until()?;
        let is_due = until <= desk.shared.now();
        let leaving = this.info.leaving || slot.is_asked_back();
        let goes = is_due || leaving || !desk.state.is_running() || desk.state.gives_way();
        if !goes {
            desk.state.giving_way.keep(desk.spot(), desk.node);
            return Some(Turn::Pending);
        }
        let job = slot.as_mut().take_kept(desk.state)?;
        desk.state.giving_way.has_left(desk.spot());
        if !desk.state.is_running() || leaving {
            desk.state.give_back_in_flight(this.info, job);
            return None;
        }
        desk.state.accounts.change(this.info.row, |n| {
            n.in_flight -= 1;
            n.waiting += 1;
        });
        *this.retry = Some(Box::new(WaitingMessage { job, until }));
        if !is_due {
            return Some(Turn::Again);
        }
        // It goes on in the same slot, whosever turn it is.
        self.begin_turn();
        None
    }

    /// Takes and handles messages, one after another, as long as none has to wait.
    #[inline]
    fn serial_messages(
        mut self: Pin<&mut Self>,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> Turn {
        // How many messages the turn may have, where nothing but the token and the budget can change
        // between two of them.
        let mut most = 0;
        loop {
            let goes_on =
                self.in_turn < most && desk.state.budget > 0 && !desk.shared.is_told_to_end();
            if !goes_on {
                let turn = match self.as_mut().serial_before(desk, cx) {
                    Ok(turn) => turn,
                    Err(turn) => return turn,
                };
                most = if self.is_plain(desk.state) { turn } else { 0 };
            }
            let begun = if self.retry.is_some() {
                self.as_mut().serial_retry(desk, cx)
            } else {
                match self.as_mut().take(desk.state, cx) {
                    Taken::Message(message, receipt, booked) => {
                        self.as_mut().serial_begin(message, receipt, booked, desk, cx)
                    }
                    Taken::Failed(error, raw, receipt, booked) => {
                        let job = Job { booked, receipt, ..Job::new(self.info.number) };
                        self.as_mut().serial_refuse(job, error, raw, desk, cx)
                    }
                    Taken::Other => {
                        self.as_mut().count_turn(desk.state);
                        continue;
                    }
                    Taken::Nothing => return Turn::Pending,
                    Taken::End => return Turn::Ended,
                }
            };
            match begun {
                Poll::Pending => return Turn::Pending,
                Poll::Ready(SlotEnded::Handled) => self.as_mut().project().info.handled += 1,
                Poll::Ready(ended) => {
                    self.as_mut().serial_ended(ended, desk);
                    most = 0;
                }
            }
            if desk.state.look || self.slot.as_ref().is_some_and(|slot| slot.is_busy()) {
                return Turn::Again;
            }
        }
    }

    /// Whether the next message may be started, in a slot, and how many messages the turn may have;
    /// if not, how it ends.
    #[inline]
    fn serial_before(
        mut self: Pin<&mut Self>,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> Result<u32, Turn> {
        let most = self.turn(desk.state, desk.shared);
        if self.slot.is_some() && self.in_turn >= most {
            return Err(Turn::Again);
        }
        let (spot, state, shared) = (desk.spot(), &mut *desk.state, desk.shared);
        if self.source.is_none() && self.retry.is_none() {
            return Err(Turn::Ended);
        }
        if let Err(turn) = self.as_mut().may_start(desk.node, state, shared, desk.alarms, cx) {
            // A turn that is only cut short keeps its place.
            if turn == Turn::Pending || turn == Turn::Ended {
                self.as_mut().leave_queue(state);
            }
            return Err(turn);
        }
        let until = self.retry.as_ref().map(|waiting| waiting.until);
        if until.is_some_and(|until| until > shared.now()) {
            self.as_mut().leave_queue(state);
            desk.alarms.set(desk.node.number, until.unwrap_or(crate::clock::Tick::MAX));
            return Err(Turn::Pending);
        }
        if self.slot.is_some() {
            return if state.slots.has_room(|| shared.now()) { Ok(most) } else { Err(Turn::Again) };
        }
        let Some(slot) = self.as_mut().ask_for_slot(spot, state, shared) else {
            self.as_mut().set_due(until.is_some(), state);
            return Err(Turn::Pending);
        };
        self.as_mut().leave_queue(state);
        *self.as_mut().project().slot = Some(slot);
        self.as_mut().begin_turn();
        Ok(most)
    }

    #[inline]
    fn serial_begin(
        mut self: Pin<&mut Self>,
        message: C::Message,
        receipt: C::Receipt,
        booked: bool,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> Poll<SlotEnded<C>> {
        self.as_mut().count_attempt(desk.state, desk.shared);
        let this = self.project();
        let Some(slot) = this.slot else { return Poll::Ready(SlotEnded::Booked) };
        let job = Job { booked, receipt, ..Job::new(this.info.number) };
        slot.as_mut().begin(job, message, &mut desk.work(this.info, cx))
    }

    #[cold]
    fn serial_refuse(
        mut self: Pin<&mut Self>,
        job: Job<C>,
        error: crate::error::Error,
        raw: Option<Raw>,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> Poll<SlotEnded<C>> {
        self.as_mut().count_turn(desk.state);
        let this = self.project();
        let Some(slot) = this.slot else { return Poll::Ready(SlotEnded::Booked) };
        slot.as_mut().refuse(job, error, raw, &mut desk.work(this.info, cx))
    }

    /// Begins the next attempt of the message that waited.
    #[cold]
    fn serial_retry(
        mut self: Pin<&mut Self>,
        desk: &mut LaneDesk<'_, C>,
        cx: &mut Context<'_>,
    ) -> Poll<SlotEnded<C>> {
        self.as_mut().count_attempt(desk.state, desk.shared);
        let this = self.project();
        let (Some(waiting), Some(slot)) = (this.retry.take(), this.slot) else {
            return Poll::Ready(SlotEnded::Booked);
        };
        desk.state.accounts.change(this.info.row, |n| {
            n.waiting -= 1;
            n.in_flight += 1;
        });
        let WaitingMessage { mut job, .. } = *waiting;
        job.booked = true;
        let Some(message) = job.message.take() else { return Poll::Ready(SlotEnded::Booked) };
        slot.as_mut().begin(job, message, &mut desk.work(this.info, cx))
    }
}
