//! Sources that leave their bank: at their end, and at that of the drain. And what a drain that is
//! idle has them give out.

use std::collections::BTreeSet;

use super::bank::{Bank, BankSeat};
use super::state::State;
use super::types::Drains;
use crate::panics;
use crate::settlement::Key;
use crate::source::{Hold, Receipt, Source};

impl<C: Drains> Bank<C> {
    /// A source has ended, or was taken out.
    pub(super) fn end(&mut self, place: u32, state: &mut State<C>) {
        let Some(mut seat) = self.lanes[place as usize].take() else { return };
        seat.lane.as_mut().let_go(state);
        drop(seat);
        self.vacant.push(place);
        state.banks.end(self.number);
        if self.vacant.len() == self.lanes.len() {
            // Whatever was here, nothing is.
            self.lanes = Vec::new();
            self.vacant = Vec::new();
        }
    }

    /// Has every open window given out, because the drain is idle. Returns whether there was one.
    pub(super) fn give_out(&mut self) -> bool {
        use crate::source::Source;
        let mut any = false;
        for (place, seat) in self.lanes.iter_mut().enumerate() {
            let Some(BankSeat { node, lane }) = seat else { continue };
            let source = lane.as_mut().project().source.as_pin_mut();
            if source.is_some_and(Source::give_out) {
                debug_assert_eq!(node.number as usize, place);
                node.notify();
                any = true;
            }
        }
        any
    }

    /// Has everything polled that is here.
    #[cold]
    pub(super) fn notify_all(&mut self) {
        self.lanes.iter().flatten().for_each(|seat| seat.node.notify());
        self.runs.places.iter().for_each(|run| run.node.notify());
    }

    /// Those of the receipts on whose messages a handler works.
    #[cold]
    pub(super) fn in_work(&self, keys: &BTreeSet<Key>) -> Vec<Key> {
        let lanes = self.lanes.iter().flatten().filter_map(|seat| seat.lane.slot.as_ref());
        let runs = self.runs.places.iter().filter_map(|run| run.slot.as_ref());
        let slots = lanes.chain(runs).filter(|slot| slot.after.is_none());
        let delivered = slots.filter_map(|slot| slot.job.as_ref()?.receipt.delivered());
        let receipts = delivered.flat_map(|it| it.receipts().iter().map(|(_, key)| *key));
        receipts.filter(|key| keys.contains(key)).collect()
    }

    /// Puts back what waits for another attempt or for its key and is settled by one of these.
    #[cold]
    pub(super) fn give_back_waiting(&mut self, keys: &BTreeSet<Key>, state: &mut State<C>) {
        for BankSeat { node, lane } in self.lanes.iter_mut().flatten() {
            lane.as_mut().give_back_those(|job| job.is_settled_by(keys), state);
            node.notify();
        }
        // What waits in a slot looks by itself.
        self.runs.places.iter().for_each(|run| run.node.notify());
    }

    /// Puts back what is held or waits for another attempt. Nothing is begun any more.
    pub(super) fn give_back_held(&mut self, state: &mut State<C>) {
        for seat in self.lanes.iter_mut().flatten() {
            seat.lane.as_mut().give_back_held(state);
            if let Some(source) = seat.lane.as_mut().project().source.as_pin_mut() {
                source.hold(Hold::End);
            }
        }
    }

    /// Drops what is in flight, and puts back what is held.
    pub(super) fn abandon(&mut self, state: &mut State<C>) {
        for run in 0..self.runs.places.len() {
            let lane = self.runs.places[run].lane;
            panics::drop_each(self.runs.places[run].key.take());
            let Some(mut slot) = self.runs.places[run].slot.take() else { continue };
            if let Some(Some(seat)) = self.lanes.get_mut(lane as usize) {
                let info = seat.lane.as_mut().project().info;
                slot.as_mut().abandon(info, state);
            }
            panics::drop_each([slot]);
        }
        for place in 0..self.lanes.len() {
            let Some(mut seat) = self.lanes[place].take() else { continue };
            let this = seat.lane.as_mut().project();
            if let Some(mut slot) = this.slot.take() {
                slot.as_mut().abandon(this.info, state);
                slot.as_mut().flush();
                panics::drop_each([slot]);
            }
            seat.lane.as_mut().let_go(state);
            panics::drop_each([seat]);
        }
    }
}
