//! Up to 256 sources that are driven by one entry of `select_all`.
//!
//! Merging sources one by one costs a wake-up through the merge's own queue for each of them; a
//! bank costs that once a turn, and has a queue of its own that knows rounds. It is a stream
//! without news: it yields `()` when the drain has to look at its state, or when the budget of the
//! poll is used up, and ends when its sources have. The whole turn runs inside one `catch_unwind`;
//! `current` and the state's `in_source` tell whose code was running when it panicked.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures::Stream;

use super::alarms::Alarms;
use super::banks::{Arrival, InTurn, SOURCES_PER_BANK};
use super::lane::{Lane, Turn};
use super::many::Many;
use super::order::Order;
use super::runs::Runs;
use super::serial::LaneDesk;
use super::state::{Shared, State};
use super::turns::LanePlace;
use super::types::{DrainTypes, Drains};
use crate::error::Error;
use crate::panics;
use crate::ready::{Node, ReadyQueue};
use crate::source::Receipt;

/// The number of nobody.
const NOBODY: u32 = u32::MAX;

/// Panics of one place in one turn: one of a handler, and those of what comes after it.
const MOST_BLAMED: usize = 8;

/// The number of the first run.
const FIRST_RUN: u32 = 256;
const _: () = assert!(SOURCES_PER_BANK <= FIRST_RUN as usize);

pub(super) struct Bank<C: DrainTypes> {
    shared: Arc<Shared<C>>,
    pub(super) number: u32,
    ready: ReadyQueue,
    pub(super) lanes: Vec<Option<BankSeat<C>>>,
    pub(super) vacant: Vec<u32>,
    pub(super) runs: Runs<C>,
    alarms: Alarms,
    /// Lanes that have not been polled yet, in the order in which they came, from this one on.
    fresh: Vec<u32>,
    next_fresh: usize,
    /// It is the turn of one of those, not of one that was woken.
    fresh_next: bool,
    /// A turn that was cut short goes on first.
    resume: u32,
    /// The bank is through with its round, and lets others be polled who were woken.
    is_through: bool,
    /// It is the turn of this bank.
    in_turn: bool,
    /// Whose turn it is here.
    current: u32,
}

/// What comes when a bank is through with its round.
enum NextInRound {
    /// Another round at once: nobody else wants one.
    Round,
    /// Others are polled before it.
    Wait,
    /// It has no turn any more.
    Sleep,
}

pub(super) struct BankSeat<C: DrainTypes> {
    pub(super) node: Arc<Node>,
    pub(super) lane: Pin<Box<Lane<C>>>,
}

impl<C: Drains> Bank<C> {
    /// A bank without sources.
    pub(super) fn new(shared: &Arc<Shared<C>>, state: &mut State<C>) -> Self {
        let ready = ReadyQueue::new(&shared.roused);
        let number = state.banks.add(ready.inbox());
        Self {
            shared: Arc::clone(shared),
            number,
            ready,
            lanes: Vec::new(),
            vacant: Vec::new(),
            runs: Runs::new(FIRST_RUN),
            alarms: Alarms::default(),
            fresh: Vec::new(),
            next_fresh: 0,
            fresh_next: false,
            resume: NOBODY,
            is_through: false,
            in_turn: false,
            current: NOBODY,
        }
    }

    /// Takes in the sources that were sent here.
    fn receive(&mut self, state: &mut State<C>) {
        while let Some(arrival) = state.banks.receive(self.number) {
            self.seat(arrival, state);
        }
    }

    /// Takes in a source that is there from the start.
    pub(super) fn admit(&mut self, arrival: Arrival<C::Source>, state: &mut State<C>) {
        state.banks.count_in(self.number);
        self.seat(arrival, state);
    }

    /// Gives a source its lane.
    fn seat(&mut self, arrival: Arrival<C::Source>, state: &mut State<C>) {
        let by_group = arrival.profile.groups && !arrival.profile.gathers;
        let serial = <C::Order as Order<C::Message>>::SERIAL && !by_group;
        let many = (!serial).then(|| Box::new(Many::default()));
        let lane = Lane::new(arrival, many);
        lane.enter(state);
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.lanes.push(None);
            u32::try_from(self.lanes.len() - 1).unwrap_or(NOBODY)
        });
        let node = self.ready.node(place);
        self.lanes[place as usize] = Some(BankSeat { node, lane });
        self.fresh.push(place);
        state.banks.fresh += 1;
    }

    /// Makes room for sources that are about to come.
    pub(super) fn reserve(&mut self, sources: usize) {
        self.lanes.reserve_exact(sources);
        self.ready.reserve(sources);
        self.fresh.reserve_exact(sources);
    }

    /// Whose turn is next. At the start, one that was woken and one that was never polled in turn:
    /// a source that is ready from the first poll on is not behind all that are not.
    #[inline]
    fn next(&mut self, in_turn: bool, state: &mut State<C>) -> Option<u32> {
        if in_turn && self.next_fresh < self.fresh.len() {
            return Some(self.next_at_start(state));
        }
        self.ready.pop(!in_turn)
    }

    #[cold]
    fn next_at_start(&mut self, state: &mut State<C>) -> u32 {
        self.fresh_next = !self.fresh_next;
        if !self.fresh_next {
            if let Some(place) = self.ready.pop(true) {
                return place;
            }
        }
        let place = self.fresh[self.next_fresh];
        self.next_fresh += 1;
        state.banks.fresh -= 1;
        if self.next_fresh == self.fresh.len() {
            self.fresh = Vec::new();
            self.next_fresh = 0;
        }
        self.ready.serve(place);
        place
    }

    fn turn(&mut self, state: &mut State<C>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        self.receive(state);
        self.ring_alarms(cx);
        let mut in_turn = self.begin_round(state);
        if std::mem::take(&mut self.is_through) && in_turn && state.banks.others_wait() {
            state.banks.wait_for_turn(self.number);
            state.banks.pass_on();
            self.in_turn = false;
            in_turn = false;
        }
        loop {
            if state.look || state.budget == 0 {
                return Poll::Ready(Some(()));
            }
            let next = if in_turn && self.resume != NOBODY {
                Some(std::mem::replace(&mut self.resume, NOBODY))
            } else {
                self.next(in_turn, state)
            };
            if let Some(place) = next {
                // A place that only wakes itself uses the budget up as well.
                state.budget -= 1;
                self.current = place;
                self.place_turn(place, None, state);
                self.current = NOBODY;
            } else {
                if in_turn {
                    match self.end_round(state, cx) {
                        NextInRound::Round => {
                            self.ready.advance();
                            continue;
                        }
                        NextInRound::Wait => return Poll::Pending,
                        NextInRound::Sleep => {}
                    }
                } else if self.has_more() {
                    state.banks.wait_for_turn(self.number);
                }
                if !self.ring_alarms(cx) && self.ready.sleep(cx.waker()) {
                    return Poll::Pending;
                }
                in_turn = self.begin_round(state);
            }
            if state.banks.is_idle(self.number) {
                return Poll::Ready(None);
            }
        }
    }

    /// Whether it is the turn of this bank. One that begins has a new round.
    fn begin_round(&mut self, state: &mut State<C>) -> bool {
        match state.banks.is_in_turn(self.number) {
            InTurn::Begins => {
                self.ready.advance();
                self.in_turn = true;
                true
            }
            InTurn::GoesOn => {
                // It was given the turn while it slept.
                if !std::mem::replace(&mut self.in_turn, true) {
                    self.ready.advance();
                }
                true
            }
            InTurn::No => {
                self.in_turn = false;
                false
            }
        }
    }

    /// The bank is through with its round.
    fn end_round(&mut self, state: &mut State<C>, cx: &mut Context<'_>) -> NextInRound {
        let has_more = self.has_more();
        if has_more && !state.banks.others_wait() {
            if self.shared.roused.load(Ordering::Acquire) == 0 {
                return NextInRound::Round;
            }
            // Those first who were woken: they may want a turn.
            self.is_through = true;
            state.go_on = true;
            cx.waker().wake_by_ref();
            return NextInRound::Wait;
        }
        if has_more {
            state.banks.wait_for_turn(self.number);
        }
        self.in_turn = false;
        state.banks.pass_on();
        NextInRound::Sleep
    }

    /// Whether places are left for another round.
    fn has_more(&self) -> bool {
        self.resume != NOBODY || self.next_fresh < self.fresh.len() || self.ready.has_more()
    }

    /// Has those polled whose alarm rings, and the bank for the next one.
    fn ring_alarms(&mut self, cx: &mut Context<'_>) -> bool {
        if self.alarms.is_empty() {
            return false;
        }
        let (alarms, ready, mut rang) = (&mut self.alarms, &mut self.ready, false);
        alarms.poll(self.shared.context.clock(), cx, |place| {
            ready.push(place);
            rang = true;
        });
        rang
    }

    /// The turn of one place. `panicked`: its last one did.
    #[inline]
    fn place_turn(&mut self, place: u32, panicked: Option<&str>, state: &mut State<C>) {
        if <C::Order as Order<C::Message>>::SERIAL {
            // Runs are of lanes that handle several messages at once, by group.
            let seat = self.lanes.get_mut(place as usize).and_then(Option::as_mut);
            let is_many = || seat.as_ref().is_none_or(|seat| seat.lane.many.is_some());
            if C::Receipt::SETTLES && is_many() {
                return self.many_turn(place, panicked, state);
            }
            let Some(BankSeat { node, lane }) = seat else { return };
            let (shared, alarms, bank) = (&*self.shared, &mut self.alarms, self.number);
            let turn = lane
                .as_mut()
                .serial_turn(&mut LaneDesk { state, shared, alarms, node, bank }, panicked);
            self.end_turn(place, turn, state);
        } else {
            self.many_turn(place, panicked, state);
        }
    }

    /// The turn of a lane with several messages, or of one of them.
    #[inline]
    fn many_turn(&mut self, place: u32, panicked: Option<&str>, state: &mut State<C>) {
        let run = self.runs.index(place);
        let index = match run {
            None => place,
            Some(run) => match self.runs.places.get(run as usize) {
                Some(run) => run.lane,
                None => return,
            },
        };
        let Some(Some(BankSeat { node, lane })) = self.lanes.get_mut(index as usize) else {
            return;
        };
        let (shared, alarms, bank) = (&*self.shared, &mut self.alarms, self.number);
        let mut desk = LaneDesk { state, shared, alarms, node, bank };
        let mut lane = lane.as_mut();
        if run.is_none() {
            if let Some(message) = panicked {
                if desk.state.in_source {
                    lane.blame_source(message, desk.state);
                } else {
                    desk.state.fail(Error::panic("the drain", message));
                }
                return self.end_turn(index, Turn::Again, state);
            }
            lane.as_mut().is_woken();
        }
        let spot = LanePlace {
            lane,
            index,
            runs: &mut self.runs,
            ready: &mut self.ready,
            current: &mut self.current,
            now: None,
        };
        let turn = match run {
            None => spot.turn(None, &mut desk),
            Some(run) => spot.run_turn(run, &mut desk, panicked),
        };
        self.end_turn(index, turn, state);
    }

    #[inline]
    fn end_turn(&mut self, lane: u32, turn: Turn, state: &mut State<C>) {
        match turn {
            Turn::Pending => {}
            Turn::Again => self.ready.push_behind(lane),
            // Where another one goes on first already, this one does so in the next round.
            Turn::Resume if self.resume != NOBODY => self.ready.push_behind(lane),
            Turn::Resume => self.resume = lane,
            Turn::Ended => self.end(lane, state),
        }
    }
}

impl<C: Drains> Unpin for Bank<C> {}

impl<C: Drains> Stream for Bank<C> {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        let this = &mut *self;
        let Some(mut state) = this.shared.take_for_turn() else { return Poll::Ready(None) };
        let outer = this.ready.enter();
        let polled_before = crate::step::enter();
        let mut polled = panics::contain(|| this.turn(&mut state, cx));
        // Blaming runs the user's code as well: what comes after a handler may panic in its turn.
        let mut blamed = 0..MOST_BLAMED;
        while let Err(message) = polled {
            let place = this.current;
            if place == NOBODY || blamed.next().is_none() {
                let what = if place == NOBODY { "the clock" } else { "the drain" };
                state.fail(Error::panic(what, &message));
                polled = Ok(Poll::Ready(Some(())));
            } else {
                let blamed = panics::contain(|| this.place_turn(place, Some(&message), &mut state));
                polled = blamed.map(|()| Poll::Ready(Some(())));
                state.ask_to_look();
            }
        }
        this.current = NOBODY;
        drop(polled_before);
        this.ready.leave(outer);
        let polled = polled.unwrap_or(Poll::Ready(Some(())));
        if polled == Poll::Ready(None) {
            state.banks.remove(this.number);
            // A late waker of a source before it may have served one that came to its place.
            state.banks.fresh -= this.fresh.len() - this.next_fresh;
        }
        state.slots.trim();
        this.shared.tell(&state);
        state.go_on = false;
        this.shared.put(state);
        polled
    }
}
