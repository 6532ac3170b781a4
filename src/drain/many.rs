//! The turn of a lane that handles several messages at once, by key or in any order.
//!
//! Each of them has a *run*, a place with a waker of its own, so that a handler that is woken is
//! polled alone. The lane itself is polled when its source has something, when a retry is due, and
//! when one of its messages has ended.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::waker_ref;

use super::lane::{Lane, Taken, Turn};
use super::order::{BusyKeys, Order, Waiter};
use super::queue::NONE;
use super::runs::Runs;
use super::serial::Desk;
use super::slot::{Ended, Job, SlotBox};
use super::state::{Shared, State};
use super::types::{DrainTypes, Drains};
use crate::clock::Tick;
use crate::error::Error;
use crate::panics;
use crate::ready::ReadyQueue;

pub(super) type Key<C> = <C as DrainTypes>::Key;
type Busy<C> = <C as DrainTypes>::Busy;

/// Where the key of a message is noted as busy: over all sources, or within its own.
#[inline]
pub(super) fn keys<'a, C: Drains>(
    across: &'a mut Busy<C>,
    within: &'a mut Busy<C>,
) -> &'a mut Busy<C> {
    if <C::Order as Order<C::Message>>::ACROSS { across } else { within }
}

/// Frees the key of a message that is not in work any more. Comparing and dropping keys is the user's
/// code: one that cannot be freed would hold up all that have it.
#[inline]
pub(super) fn free_key<C: Drains>(state: &mut State<C>, within: &mut Busy<C>, key: Key<C>) {
    if !<C::Order as Order<C::Message>>::KEYED {
        return;
    }
    let keys = keys::<C>(&mut state.keys, within);
    let freed = panics::contain(|| keys.end(&key));
    panics::drop_each([key]);
    match freed {
        Ok(kept) => panics::drop_each(kept),
        Err(text) => state.fail(Error::panic("the key", &text)),
    }
}

/// What a lane has beside one that handles a message at a time.
pub(super) struct Many<C: DrainTypes> {
    pub(super) busy: Busy<C>,
    /// Messages whose keys are busy, the first in front: nothing more is taken before them.
    held: VecDeque<Held<C>>,
    /// Messages that wait for their next attempt, the one that is due first in front. One whose key
    /// could not be made has none.
    waiting: BTreeMap<(Tick, u64), Waits<C>>,
    waited: u64,
    pub(super) in_flight: usize,
    /// It is the turn of a retry that is due, not of a new message.
    pub(super) retry_next: bool,
    /// The source said that it has nothing, and has not woken the lane since.
    pub(super) dry: bool,
    /// The round in which the lane had its last turn.
    round: u32,
}

type Waits<C> = (Option<Key<C>>, Job<C>);

struct Held<C: DrainTypes> {
    message: C::Message,
    job: Job<C>,
    key: Key<C>,
    /// Its place among those who wait for the key, where keys count over all sources.
    ticket: Option<u64>,
}

/// What came of starting the next message.
enum Started<C: DrainTypes> {
    /// It is in the run, and so far it is there.
    Message(Poll<Ended<C>>),
    /// Nothing could be started: that is how the turn ends.
    Nothing(Turn),
    /// Something that needs no handler was taken, and the turn goes on.
    Other,
}

impl<C: Drains> Default for Many<C> {
    fn default() -> Self {
        Self {
            busy: Busy::<C>::default(),
            held: VecDeque::new(),
            waiting: BTreeMap::new(),
            waited: 0,
            in_flight: 0,
            retry_next: false,
            dry: false,
            round: 0,
        }
    }
}

impl<C: Drains> Many<C> {
    /// Whether no message of the source is here.
    pub(super) fn is_empty(&self) -> bool {
        self.in_flight == 0 && self.waiting.is_empty() && self.held.is_empty()
    }

    /// A message waits for its next attempt.
    pub(super) fn waits(&mut self, until: Tick, key: Option<Key<C>>, job: Job<C>) {
        self.waited += 1;
        self.waiting.insert((until, self.waited), (key, job));
    }

    /// Whether the first of those that wait for their next attempt may have it.
    #[inline]
    fn is_due(&self, now: &mut Option<Tick>, shared: &Shared<C>) -> bool {
        !self.waiting.is_empty() && {
            let now = *now.get_or_insert_with(|| shared.now());
            self.waiting.first_key_value().is_some_and(|((until, _), _)| *until <= now)
        }
    }
}

/// Where a lane with several messages has its turn.
pub(super) struct Place<'a, C: DrainTypes> {
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

impl<C: Drains> Place<'_, C> {
    /// Takes messages as long as there are slots. Where a message has just ended, one goes into its
    /// room, `run`.
    pub(super) fn turn(mut self, mut run: Option<u32>, desk: &mut Desk<'_, C>) -> Turn {
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

    pub(super) fn free(mut slot: SlotBox<C>, desk: &mut Desk<'_, C>) {
        slot.as_mut().flush();
        desk.state.give_slot_back(slot);
    }

    /// Takes as many messages as there are slots and the turn may have.
    #[inline]
    fn messages(
        &mut self,
        run: &mut Option<u32>,
        desk: &mut Desk<'_, C>,
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
        desk: &mut Desk<'_, C>,
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
        desk: &mut Desk<'_, C>,
        cx: &mut Context<'_>,
    ) -> Option<Turn> {
        if let Some(turn) = self.before(run, desk, cx) {
            return Some(turn);
        }
        let Some(at) = *run else { return Some(Turn::Again) };
        let started = self.start(at, desk, cx);
        *self.current = self.index;
        match started {
            Started::Message(polled) => {
                let is_free = match polled {
                    Poll::Ready(ended) => self.ended(at, ended, desk),
                    Poll::Pending => false,
                };
                if !is_free {
                    *run = None;
                }
                desk.state.look.then_some(Turn::Again)
            }
            Started::Nothing(turn) => {
                self.lane.as_mut().leave_queue(desk.state);
                Some(turn)
            }
            Started::Other => None,
        }
    }

    /// Whether the next message may be started, in a run that has a slot; if not, how the turn ends.
    #[inline]
    fn before(
        &mut self,
        run: &mut Option<u32>,
        desk: &mut Desk<'_, C>,
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
            // A turn that is only cut short keeps its places.
            if turn == Turn::Pending || turn == Turn::Ended {
                self.stop_waiting(desk);
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
            // Who waits behind others leaves the room to them. A turn that stopped because its source
            // or a key had to wait for a message goes on where that has ended.
            let ticket = self.lane.ticket;
            let is_in_turn = self.lane.in_turn > 0 || state.slots.queue.is_first(ticket);
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

    /// Gives up its places in the queues for slots and for a key.
    fn stop_waiting(&mut self, desk: &mut Desk<'_, C>) {
        self.lane.as_mut().leave_queue(desk.state);
        self.lane.as_mut().set_due(false, desk.state);
        if let Some(held) =
            self.lane.as_mut().project().many.as_mut().and_then(|m| m.held.front_mut())
        {
            if let Some(ticket) = held.ticket.take() {
                let keys = &mut desk.state.keys;
                if let Err(text) = panics::contain(|| keys.leave(&held.key, ticket)) {
                    desk.state.fail(Error::panic("the key", &text));
                }
            }
        }
    }

    /// Starts what is next: retries that are due and new messages take turns, one and one.
    #[inline]
    fn start(&mut self, at: u32, desk: &mut Desk<'_, C>, cx: &mut Context<'_>) -> Started<C> {
        let this = self.lane.as_mut().project();
        let Some(many) = this.many.as_mut() else { return Started::Nothing(Turn::Ended) };
        let is_due = many.is_due(&mut self.now, desk.shared);
        // Where as many wait as may, new messages would make it more.
        if is_due && (many.retry_next || !desk.state.may_wait(desk.shared)) {
            return self.start_retry(at, desk);
        }
        let is_held = !many.held.is_empty();
        let started =
            if is_held { self.start_held(at, desk) } else { self.start_new(at, desk, cx) };
        match started {
            Started::Nothing(_) if is_due => self.start_retry(at, desk),
            started => {
                if let Some(many) = self.lane.as_mut().project().many {
                    many.retry_next = true;
                }
                started
            }
        }
    }

    #[cold]
    fn start_retry(&mut self, at: u32, desk: &mut Desk<'_, C>) -> Started<C> {
        let this = self.lane.as_mut().project();
        let Some(many) = this.many.as_mut() else { return Started::Nothing(Turn::Ended) };
        many.retry_next = false;
        let Some((_, (key, mut job))) = many.waiting.pop_first() else {
            return Started::Nothing(Turn::Pending);
        };
        desk.state.accounts.change(this.info.row, |n| {
            n.waiting -= 1;
            n.in_flight += 1;
        });
        job.booked = true;
        match (job.message.take(), key) {
            (Some(message), Some(key)) => Started::Message(self.begin(at, key, job, message, desk)),
            (Some(message), None) => self.start_taken(at, job, message, desk),
            (None, _) => Started::Nothing(Turn::Pending),
        }
    }

    /// Starts what the source has.
    #[inline]
    fn start_new(&mut self, at: u32, desk: &mut Desk<'_, C>, cx: &mut Context<'_>) -> Started<C> {
        if self.lane.as_mut().project().many.as_ref().is_none_or(|many| many.dry) {
            return Started::Nothing(Turn::Pending);
        }
        let (message, booked) = match self.lane.as_mut().take(desk.state, cx) {
            Taken::Message(message, booked) => (message, booked),
            Taken::Failed(error) => {
                let job = Job::new(self.lane.info.number);
                return self.refuse(at, job, error, desk);
            }
            Taken::Other => {
                self.lane.as_mut().count_turn(desk.state);
                return Started::Other;
            }
            Taken::Nothing => {
                self.lane.as_mut().begin_turn();
                if let Some(many) = self.lane.as_mut().project().many {
                    many.dry = true;
                }
                return Started::Nothing(Turn::Pending);
            }
            Taken::End => return Started::Nothing(Turn::Ended),
        };
        let job = Job { booked, ..Job::new(self.lane.info.number) };
        self.start_taken(at, job, message, desk)
    }

    /// Starts a message that is in no order so far, if its key is free.
    #[inline]
    fn start_taken(
        &mut self,
        at: u32,
        job: Job<C>,
        message: C::Message,
        desk: &mut Desk<'_, C>,
    ) -> Started<C> {
        let this = self.lane.as_mut().project();
        let Some(many) = this.many.as_mut() else { return Started::Nothing(Turn::Ended) };
        let order = &mut desk.state.order;
        let keys = keys::<C>(&mut desk.state.keys, &mut many.busy);
        let begun = if <C::Order as Order<C::Message>>::KEYED {
            panics::contain(|| order.key(&message)).and_then(|key| {
                match panics::contain(|| keys.begin(&key, None)) {
                    Ok(is_free) => Ok((key, is_free)),
                    Err(text) => {
                        panics::drop_each([key]);
                        Err(text)
                    }
                }
            })
        } else {
            Ok((order.key(&message), true))
        };
        match begun {
            Ok((key, true)) => Started::Message(self.begin(at, key, job, message, desk)),
            Ok((key, false)) => {
                desk.state.accounts.change(this.info.row, |n| {
                    n.in_flight -= u64::from(job.booked);
                    n.held += 1;
                });
                many.held.push_back(Held { message, job, key, ticket: None });
                if many.held.len() > 1 {
                    // It was tried before, and others are held already.
                    return Started::Other;
                }
                self.start_held(at, desk)
            }
            Err(text) => {
                let job = Job { message: Some(message), ..job };
                self.refuse(at, job, Error::panic("the key", &text), desk)
            }
        }
    }

    /// Starts the message that is held, if its key is free.
    fn start_held(&mut self, at: u32, desk: &mut Desk<'_, C>) -> Started<C> {
        let across = <C::Order as Order<C::Message>>::ACROSS;
        let this = self.lane.as_mut().project();
        let Some(many) = this.many.as_mut() else { return Started::Nothing(Turn::Ended) };
        let Some(held) = many.held.front_mut() else { return Started::Nothing(Turn::Pending) };
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
            return Started::Nothing(Turn::Pending);
        }
        let Some(Held { message, job, key, ticket }) = many.held.pop_front() else {
            return Started::Nothing(Turn::Pending);
        };
        desk.state.accounts.change(this.info.row, |n| {
            n.held -= 1;
            n.in_flight += 1;
        });
        let job = Job { booked: true, ..job };
        match begun {
            Ok(_) => Started::Message(self.begin(at, key, job, message, desk)),
            Err(text) => {
                if let Some(ticket) = ticket {
                    panics::drop_contained(|| keys.leave(&key, ticket));
                }
                panics::drop_each([key]);
                let job = Job { message: Some(message), ..job };
                self.refuse(at, job, Error::panic("the key", &text), desk)
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
        desk: &mut Desk<'_, C>,
    ) -> Poll<Ended<C>> {
        *self.current = self.runs.number(at);
        let run = &mut self.runs.places[at as usize];
        let waker = waker_ref(&run.node);
        let cx = &mut Context::from_waker(&waker);
        run.lane = self.index;
        let (state, shared) = (&mut *desk.state, desk.shared);
        let Some(slot) = run.slot.as_mut() else { return Poll::Ready(Ended::Booked) };
        self.lane.as_mut().count_attempt(state, shared);
        let this = self.lane.as_mut().project();
        let Some(many) = this.many.as_mut() else { return Poll::Ready(Ended::Booked) };
        many.in_flight += 1;
        run.key = Some(key);
        let begun = slot.as_mut().begin(job, message, this.info, state, shared, cx);
        if begun.is_pending() {
            desk.alarms.set(run.node.number, slot.alarm());
        }
        begun
    }

    /// Takes a message into a run that has failed before its handler could be called.
    #[cold]
    fn refuse(&mut self, at: u32, job: Job<C>, error: Error, desk: &mut Desk<'_, C>) -> Started<C> {
        self.lane.as_mut().count_turn(desk.state);
        *self.current = self.runs.number(at);
        let run = &mut self.runs.places[at as usize];
        let waker = waker_ref(&run.node);
        let cx = &mut Context::from_waker(&waker);
        run.lane = self.index;
        let Some(slot) = run.slot.as_mut() else { return Started::Nothing(Turn::Pending) };
        let this = self.lane.as_mut().project();
        let Some(many) = this.many.as_mut() else { return Started::Nothing(Turn::Ended) };
        many.in_flight += 1;
        let begun = slot.as_mut().refuse(job, error, this.info, desk.state, desk.shared, cx);
        if begun.is_pending() {
            desk.alarms.set(run.node.number, slot.alarm());
        }
        Started::Message(begun)
    }
}

impl<C: Drains> Lane<C> {
    /// The source may have something again.
    pub(super) fn is_woken(self: Pin<&mut Self>) {
        if let Some(many) = self.project().many {
            many.dry = false;
        }
    }

    /// Drops the keys of what was in flight.
    pub(super) fn drop_keys(self: Pin<&mut Self>) {
        if let Some(many) = self.project().many {
            panics::drop_each(many.busy.take_all());
        }
    }

    /// Puts back what the lane itself holds: what waits for its next attempt, or for its key.
    pub(super) fn give_back_many(self: Pin<&mut Self>, state: &mut State<C>) {
        let this = self.project();
        let Some(many) = this.many else { return };
        let across = <C::Order as Order<C::Message>>::ACROSS;
        for (_, (key, job)) in std::mem::take(&mut many.waiting) {
            if let Some(key) = key {
                free_key::<C>(state, &mut many.busy, key);
            }
            state.give_back(this.info, job.message, |n| n.waiting -= 1);
        }
        for Held { message, key, ticket, .. } in std::mem::take(&mut many.held) {
            if let (true, Some(ticket)) = (across, ticket) {
                let keys = &mut state.keys;
                panics::drop_contained(|| keys.leave(&key, ticket));
            }
            panics::drop_each([key]);
            state.give_back(this.info, Some(message), |n| n.held -= 1);
        }
    }
}
