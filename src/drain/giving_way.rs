//! What goes on while as many messages wait for another attempt as may: one more that fails keeps its slot,
//! and leaves it to a retry that is due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::queue::Spot;
use crate::ready::Node;

#[derive(Default)]
pub(super) struct GivingWay {
    /// Places whose failed message keeps its slot.
    kept: BTreeMap<Spot, Arc<Node>>,
    /// Tickets of lanes with a retry that is due: those that find no slot, and those to which one was left.
    due: BTreeSet<u32>,
    first: BTreeSet<u32>,
}

impl GivingWay {
    /// A failed message keeps its slot.
    #[cold]
    pub(super) fn keep(&mut self, spot: Spot, node: &Arc<Node>) {
        self.kept.insert(spot, Arc::clone(node));
    }

    /// It has left its slot.
    #[cold]
    pub(super) fn has_left(&mut self, spot: Spot) {
        self.kept.remove(&spot);
    }

    /// Nothing is tried again: whoever keeps a slot gives it back.
    pub(super) fn let_all_go(&mut self) {
        for node in std::mem::take(&mut self.kept).into_values() {
            node.notify();
        }
    }

    /// A retry is due and finds no slot: one that keeps its own hears of it.
    pub(super) fn is_due(&mut self, ticket: u32) {
        self.due.insert(ticket);
        if let Some((_, kept)) = self.kept.pop_first() {
            kept.notify();
        }
    }

    /// A retry has a slot, or waits for none any more.
    pub(super) fn is_served(&mut self, ticket: u32) {
        if !self.due.remove(&ticket) {
            self.first.remove(&ticket);
        }
    }

    /// To whom a failed message leaves its slot, if anybody is due.
    #[cold]
    pub(super) fn next(&mut self) -> Option<u32> {
        let next = self.due.pop_first();
        self.first.extend(next);
        next
    }

    /// Whether slots that become free were left to somebody: with anything else in them, one more would
    /// wait.
    #[inline]
    pub(super) fn are_left_to_others(&self) -> bool {
        !self.first.is_empty()
    }
}
