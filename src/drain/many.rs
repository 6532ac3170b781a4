//! What a lane has that handles several messages at once, by key or in any order: the keys that are
//! busy, messages that are held or wait, and what is in flight.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;

use super::lane::Lane;
use super::order::{BusyKeys, Order};
use super::slot::Job;
use super::state::{Shared, State};
use super::types::{DrainTypes, Drains};
use crate::clock::Tick;
use crate::error::Error;
use crate::panics;

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
    pub(super) held: VecDeque<HeldMessage<C>>,
    /// Messages that wait for their next attempt, the one that is due first in front. One whose key
    /// could not be made has none.
    pub(super) waiting: BTreeMap<(Tick, u64), RetryLine<C>>,
    waited: u64,
    pub(super) in_flight: usize,
    /// It is the turn of a retry that is due, not of a new message.
    pub(super) retry_next: bool,
    /// The source said that it has nothing, and has not woken the lane since.
    pub(super) dry: bool,
    /// The round in which the lane had its last turn.
    pub(super) round: u32,
}

pub(super) type RetryLine<C> = (Option<Key<C>>, Job<C>);

pub(super) struct HeldMessage<C: DrainTypes> {
    pub(super) message: C::Message,
    pub(super) job: Job<C>,
    pub(super) key: Key<C>,
    /// Its place among those who wait for the key, where keys count over all sources.
    pub(super) ticket: Option<u64>,
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
    pub(super) fn is_due(&self, now: &mut Option<Tick>, shared: &Shared<C>) -> bool {
        !self.waiting.is_empty() && {
            let now = *now.get_or_insert_with(|| shared.now());
            self.waiting.first_key_value().is_some_and(|((until, _), _)| *until <= now)
        }
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

    /// Puts back those of the messages that the lane itself holds: what waits for its next attempt, or
    /// for its key.
    pub(super) fn give_back_those(
        self: Pin<&mut Self>,
        is_one: impl Fn(&Job<C>) -> bool,
        state: &mut State<C>,
    ) {
        let this = self.project();
        if let Some(waiting) = this.retry.take_if(|waiting| is_one(&waiting.job)) {
            state.give_back(this.info, waiting.job, |n| n.waiting -= 1);
        }
        let Some(many) = this.many else { return };
        for (at, (key, job)) in std::mem::take(&mut many.waiting) {
            if !is_one(&job) {
                many.waiting.insert(at, (key, job));
                continue;
            }
            if let Some(key) = key {
                free_key::<C>(state, &mut many.busy, key);
            }
            state.give_back(this.info, job, |n| n.waiting -= 1);
        }
        let across = <C::Order as Order<C::Message>>::ACROSS;
        for HeldMessage { message, job, key, ticket } in std::mem::take(&mut many.held) {
            if !is_one(&job) {
                many.held.push_back(HeldMessage { message, job, key, ticket });
                continue;
            }
            if let (true, Some(ticket)) = (across, ticket) {
                let keys = &mut state.keys;
                panics::drop_contained(|| keys.leave(&key, ticket));
            }
            panics::drop_each([key]);
            let job = Job { message: Some(message), ..job };
            state.give_back(this.info, job, |n| n.held -= 1);
        }
    }
}
