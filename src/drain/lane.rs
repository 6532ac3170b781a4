//! One source of a drain, and what every lane does before it starts anything.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::alarms::Alarms;
use super::banks::Arrival;
use super::many::Many;
use super::queue::{NONE, Spot};
use super::rate::Rate;
use super::slot::{Job, Slot, SlotBox};
use super::slots::SlotAnswer;
use super::state::{Info, Shared, State};
use super::types::{DrainTypes, Drains};
use crate::clock::Tick;
use crate::error::Error;
use crate::panics;
use crate::ready::Node;
use crate::source::{Gate, Hold, Source};

pin_project! {
    pub(super) struct Lane<C: DrainTypes> {
        // Gone as soon as it has ended.
        #[pin]
        pub(super) source: Option<C::Source>,
        pub(super) info: Info,
        weight: u32,
        pub(super) priority: u32,
        pub(super) ticket: u32,
        // The number of its last turn, and the messages begun in it.
        turn: u64,
        pub(super) in_turn: u32,
        // The source has taken something and not yielded it, which is booked as held.
        pub(super) held: bool,
        // Neither asked for a message yet nor told to wait.
        pub(super) new: bool,
        // The source can be paused or taken out.
        pub(super) gated: bool,
        // The source is known to be ready.
        pub(super) ready: bool,
        // The source waits for its own rate.
        paced: bool,
        // It is paused.
        paused: bool,
        // A retry is due and waits for a slot.
        pub(super) due: bool,
        // The source has nothing any more. It is there as long as messages of it are, where its owner
        // can still pause it or take it out.
        pub(super) ended: bool,
        rate: Option<Box<Rate>>,
        // Of a lane that handles one message at a time: what it is handled in.
        pub(super) slot: Option<SlotBox<C>>,
        // Of such a lane: its message, while that waits for its next attempt.
        pub(super) retry: Option<Box<WaitingMessage<C>>>,
        // Of all other lanes.
        pub(super) many: Option<Box<Many<C>>>,
    }
}

/// A message that waits for its next attempt.
pub(super) struct WaitingMessage<C: DrainTypes> {
    pub(super) job: Job<C>,
    pub(super) until: Tick,
}

/// How a turn has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing is to be done before the place is woken.
    Pending,
    /// There is more to do when all others have had their turn.
    Again,
    /// The budget of this poll is used up: the turn goes on in the next one.
    Resume,
    /// The source has ended, and nothing of it is left.
    Ended,
}

impl<C: Drains> Lane<C> {
    pub(super) fn new(arrival: Arrival<C::Source>, many: Option<Box<Many<C>>>) -> Pin<Box<Self>> {
        let Arrival { source, profile, origin, row } = arrival;
        let mut lane = Box::pin(Self {
            source: Some(source),
            info: Info::new(origin, row),
            weight: profile.weight,
            priority: profile.priority,
            ticket: NONE,
            turn: 0,
            in_turn: 0,
            held: false,
            new: true,
            gated: profile.live,
            ready: false,
            paced: false,
            paused: false,
            due: false,
            ended: false,
            rate: profile.rate.map(|(most, per)| Box::new(Rate::new(most, per))),
            slot: None,
            retry: None,
            many,
        });
        // It may have been on hold in another drain.
        if let Some(source) = lane.as_mut().project().source.as_pin_mut() {
            source.hold(Hold::No);
        }
        lane
    }

    /// How many messages the lane may begin before others have their turn.
    #[inline]
    pub(super) fn turn(&self, state: &State<C>, shared: &Shared<C>) -> u32 {
        if state.urgency.is_mixed() && state.urgency.is_outranked(self.priority) {
            return 1;
        }
        if self.others_wait(state) && !state.urgency.is_first(self.priority) {
            return self.weight;
        }
        u32::try_from(shared.settings.quantum).unwrap_or(u32::MAX).saturating_mul(self.weight)
    }

    /// Whether nothing has to be looked at before each message but what ends every turn.
    #[inline]
    pub(super) fn is_plain(&self, state: &State<C>) -> bool {
        !self.gated && self.rate.is_none() && state.slots.rate.is_none()
    }

    /// Whether any lane but this one waits for a slot.
    #[inline]
    pub(super) fn others_wait(&self, state: &State<C>) -> bool {
        state.slots.queue.waiting() > usize::from(self.ticket != NONE)
    }

    /// Whether the source has nothing any more.
    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        self.ended || self.source.is_none()
    }

    /// Whatever is begun next is in a new turn.
    #[inline]
    pub(super) fn begin_turn(self: Pin<&mut Self>) {
        *self.project().in_turn = 0;
    }

    /// Whether something of this lane may be started now, and if not, how its turn ends.
    #[inline]
    pub(super) fn may_start(
        self: Pin<&mut Self>,
        node: &Arc<Node>,
        state: &mut State<C>,
        shared: &Shared<C>,
        alarms: &mut Alarms,
        cx: &mut Context<'_>,
    ) -> Result<(), Turn> {
        if !state.is_running() || state.hold {
            return Err(self.may_leave(state, cx));
        }
        if shared.is_told_to_end() {
            state.ask_to_look();
        }
        if state.look {
            return Err(Turn::Again);
        }
        let this = self.project();
        if state.budget == 0 {
            return Err(Turn::Resume);
        }
        if *this.gated {
            if let Some(source) = this.source.as_pin_mut() {
                state.in_source = true;
                let gate = source.poll_gate(cx);
                state.in_source = false;
                match gate {
                    Poll::Ready(Gate::Open) => {}
                    Poll::Ready(Gate::Removed) => {
                        this.info.leaving = true;
                        return Err(Turn::Ended);
                    }
                    Poll::Pending => {
                        state.banks.new -= usize::from(std::mem::take(this.new));
                        state.urgency.set_ready(*this.priority, this.ready, false);
                        state.paused += usize::from(!std::mem::replace(this.paused, true));
                        return Err(Turn::Pending);
                    }
                }
                state.paused -= usize::from(std::mem::take(this.paused));
            }
        }
        if let Some(rate) = this.rate {
            let has_room = rate.room(shared.now()) > 0;
            if has_room == *this.paced {
                *this.paced = !has_room;
                state.paced = if has_room { state.paced - 1 } else { state.paced + 1 };
            }
            if !has_room {
                state.banks.new -= usize::from(std::mem::take(this.new));
                alarms.set(node.number, rate.next());
                return Err(Turn::Pending);
            }
        }
        Ok(())
    }

    /// Nothing is started any more: whether the source is being taken out all the same.
    #[cold]
    fn may_leave(mut self: Pin<&mut Self>, state: &mut State<C>, cx: &mut Context<'_>) -> Turn {
        self.as_mut().look_whether_leaving(state, cx);
        if self.info.leaving { Turn::Ended } else { Turn::Pending }
    }

    /// Whether the source is being taken out, asked where nothing is started.
    #[inline]
    pub(super) fn look_whether_leaving(
        self: Pin<&mut Self>,
        state: &mut State<C>,
        cx: &mut Context<'_>,
    ) {
        if self.gated {
            self.ask_gate(state, cx);
        }
    }

    #[cold]
    fn ask_gate(self: Pin<&mut Self>, state: &mut State<C>, cx: &mut Context<'_>) {
        let this = self.project();
        if let Some(source) = this.source.as_pin_mut() {
            state.in_source = true;
            this.info.leaving |= source.poll_gate(cx) == Poll::Ready(Gate::Removed);
            state.in_source = false;
        }
    }

    /// Something was taken.
    #[inline]
    pub(super) fn count_turn(self: Pin<&mut Self>, state: &mut State<C>) {
        let this = self.project();
        // A turn in pieces, with other turns between them, began with its last piece: what is next is
        // behind those others.
        let others_began = this.many.is_some() && *this.turn != state.slots.queue.last_turn();
        if *this.in_turn == 0 || others_began {
            *this.turn = state.slots.queue.begin_turn();
        }
        *this.in_turn += 1;
        state.budget = state.budget.saturating_sub(1);
    }

    /// An attempt begins.
    #[inline]
    pub(super) fn count_attempt(
        mut self: Pin<&mut Self>,
        state: &mut State<C>,
        shared: &Shared<C>,
    ) {
        self.as_mut().count_turn(state);
        if self.rate.is_none() && state.slots.rate.is_none() {
            return;
        }
        // The message is in hand: a clock that panics here ends the drain, and loses nothing.
        let now = panics::contain(|| shared.now()).unwrap_or_else(|message| {
            state.fail(Error::panic("the clock", &message));
            Tick::ZERO
        });
        let this = self.project();
        let rates = this.rate.as_deref_mut().into_iter().chain(&mut state.slots.rate);
        rates.for_each(|rate| rate.begin(now));
    }

    /// Asks for a slot, or queues for one.
    #[inline]
    pub(super) fn ask_for_slot(
        self: Pin<&mut Self>,
        spot: Spot,
        state: &mut State<C>,
        shared: &Shared<C>,
    ) -> Option<SlotBox<C>> {
        let this = self.project();
        match state.slots.ask(this.ticket, spot, *this.turn, || shared.now()) {
            SlotAnswer::Slot(slot) => Some(slot),
            SlotAnswer::Make => Some(Slot::new()),
            SlotAnswer::Wait => None,
        }
    }

    /// A retry has become due and finds no slot, or has found one.
    #[inline]
    pub(super) fn set_due(self: Pin<&mut Self>, due: bool, state: &mut State<C>) {
        if self.due != due {
            self.change_due(due, state);
        }
    }

    #[cold]
    fn change_due(self: Pin<&mut Self>, due: bool, state: &mut State<C>) {
        let this = self.project();
        *this.due = due;
        if due {
            state.is_due(*this.ticket);
        } else {
            state.giving_way.is_served(*this.ticket);
        }
    }

    /// Gives up its place in the queue for slots. A retry that is due waits for none any more.
    #[inline]
    pub(super) fn leave_queue(mut self: Pin<&mut Self>, state: &mut State<C>) {
        self.as_mut().set_due(false, state);
        let this = self.project();
        if *this.ticket != NONE {
            state.leave_queue(this.ticket);
        }
    }

    /// The turn is over, and others wait: waits for a slot, and a new turn, behind them.
    #[inline]
    pub(super) fn queue_behind(mut self: Pin<&mut Self>, spot: Spot, state: &mut State<C>) {
        let due = self.due;
        if state.slots.queue.is_first(self.ticket) {
            self.as_mut().leave_queue(state);
        }
        let this = self.as_mut().project();
        if *this.ticket == NONE {
            *this.ticket = state.slots.queue.push_again(spot, *this.turn);
            state.serve_first();
        }
        *this.in_turn = 0;
        self.set_due(due, state);
    }

    /// Puts back what waits and what is held: by the lane, and by its source.
    pub(super) fn give_back_held(mut self: Pin<&mut Self>, state: &mut State<C>) {
        self.as_mut().leave_queue(state);
        self.as_mut().give_back_those(|_| true, state);
        self.give_back_of_source(state);
    }

    /// Puts back what is held, and lets go of the source. Nothing of the lane is running.
    pub(super) fn let_go(mut self: Pin<&mut Self>, state: &mut State<C>) {
        self.as_mut().give_back_held(state);
        self.as_mut().drop_keys();
        let mut this = self.project();
        state.banks.new -= usize::from(std::mem::take(this.new));
        state.paced -= usize::from(std::mem::take(this.paced));
        state.paused -= usize::from(std::mem::take(this.paused));
        if let Err(message) = panics::contain(|| this.source.set(None)) {
            let error = Error::panic("a destructor", &message);
            state.fail(error.with_origin(this.info.message(0)));
        }
        state.urgency.leave(*this.priority, this.ready);
        this.info.book(state);
    }

    pub(super) fn enter(&self, state: &mut State<C>) {
        state.urgency.enter(self.priority);
    }
}
