//! Staged actions, kept by their type.
//!
//! A list of boxed actions costs an allocation an action. But actions come from a few places in a
//! program, and every place has a type of its own, so they are kept in one column a place and type:
//! staging appends to a column, and once it has grown nothing is allocated.
//!
//! Every action carries its number in the order of registration, and a column is in that order.
//! The action registered last of all is the one with the highest number at the end of a column.

use std::any::TypeId;
use std::panic::Location;

use smallvec::SmallVec;

use super::action::BoxAttempt;
use super::column::{AnyColumn, Column, LinkId, StoredAction, Withdrawn};
use super::undoing::Undoing;
use crate::diagnostics::COUNTERS;
use crate::panics;

/// The actions of a scope, or those that a rollback has taken out of it.
#[derive(Default)]
pub(crate) struct Columns {
    slots: Vec<ColumnSlot>,
    len: usize,
}

struct ColumnSlot {
    of: TypeId,
    registered_at: &'static Location<'static>,
    column: Box<dyn AnyColumn>,
}

impl ColumnSlot {
    #[inline]
    fn is_for(&self, of: TypeId, registered_at: &'static Location<'static>) -> bool {
        // The place first: it nearly always decides.
        std::ptr::eq(self.registered_at, registered_at) && self.of == of
    }
}

/// Actions that empty columns keep room for: more are not worth their memory.
const USUAL: usize = 1 << 12;

/// Columns that are kept empty: more take too long to look through.
const USUAL_PLACES: usize = 16;

impl Columns {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Stages an action whose number is higher than every other here.
    #[inline]
    pub(super) fn push<A: StoredAction>(
        &mut self,
        number: u64,
        registered_at: &'static Location<'static>,
        action: A,
    ) {
        let of = TypeId::of::<A>();
        let found = self.slots.iter_mut().find(|slot| slot.is_for(of, registered_at));
        let slot = match found {
            Some(slot) => slot,
            None => self.add_slot(of, registered_at, Box::new(Column::<A>::default())),
        };
        if let Some(column) = slot.column.as_any().downcast_mut::<Column<A>>() {
            column.push(number, action);
            self.len += 1;
        }
    }

    #[cold]
    fn add_slot(
        &mut self,
        of: TypeId,
        registered_at: &'static Location<'static>,
        column: Box<dyn AnyColumn>,
    ) -> &mut ColumnSlot {
        self.slots.push(ColumnSlot { of, registered_at, column });
        let last = self.slots.len() - 1;
        &mut self.slots[last]
    }

    fn slot_like(&mut self, other: &ColumnSlot) -> &mut ColumnSlot {
        let at = other.registered_at;
        match self.slots.iter().position(|slot| slot.is_for(other.of, at)) {
            Some(index) => &mut self.slots[index],
            None => self.add_slot(other.of, at, other.column.empty()),
        }
    }

    /// Moves everything from `other` here. The columns of `other` stay, empty, so that they need
    /// not grow again.
    pub(super) fn append(&mut self, other: &mut Self) {
        for slot in &mut other.slots {
            if slot.column.last().is_some() {
                self.slot_like(slot).column.append(&mut *slot.column);
            }
        }
        self.len += std::mem::take(&mut other.len);
    }

    /// Moves the actions with the highest numbers to `taken`, at most so many.
    pub(super) fn take_last(&mut self, most: usize, taken: &mut Self) {
        self.slots.retain(|slot| slot.column.last().is_some());
        let mut left: SmallVec<[usize; 2]> = SmallVec::new();
        for slot in &mut self.slots {
            slot.column.sort();
            left.push(slot.column.entries());
        }
        let count = most.min(self.len);
        match (&mut *left, &*self.slots) {
            ([left], [only]) if only.column.len() == *left => *left -= count,
            (left, slots) => step_back(left, slots, count),
        }
        for (index, left) in left.into_iter().enumerate() {
            if left < self.slots[index].column.entries() {
                let target = taken.slot_like(&self.slots[index]);
                self.slots[index].column.move_from(left, &mut *target.column);
            }
        }
        self.len -= count;
        taken.len += count;
    }

    /// The column of the action to be run next, if it is one that runs when nothing else does.
    /// `others_first`: all that do not have their turn before.
    pub(super) fn last_of_all(&mut self, others_first: bool) -> Option<usize> {
        self.slots.iter_mut().for_each(|slot| slot.column.sort());
        let lasts = self.slots.iter().enumerate().filter(|(_, slot)| slot.column.len() > 0);
        if others_first && lasts.clone().any(|(_, slot)| !slot.column.is_last()) {
            return None;
        }
        let (index, slot) = lasts.max_by_key(|(_, slot)| slot.column.last())?;
        slot.column.is_last().then_some(index)
    }

    /// The highest number that is here.
    pub(super) fn highest(&mut self) -> Option<u64> {
        self.slots.iter_mut().for_each(|slot| slot.column.sort());
        self.slots.iter().filter_map(|slot| slot.column.last()).max()
    }

    /// How many actions may be taken before one that runs when nothing else does.
    pub(super) fn before_last(&self, most: usize) -> usize {
        let highest = self.slots.iter().filter(|slot| slot.column.is_last());
        let Some(highest) = highest.filter_map(|slot| slot.column.last()).max() else {
            return most;
        };
        let others = self.slots.iter().filter(|slot| !slot.column.is_last());
        most.min(others.map(|slot| slot.column.count_above(highest)).sum())
    }

    /// Moves the last of the actions that do not run last of all to `taken`.
    pub(super) fn take_not_last(&mut self, taken: &mut Self) {
        let lasts = self.slots.iter().enumerate().filter(|(_, slot)| !slot.column.is_last());
        let last = lasts.max_by_key(|(_, slot)| slot.column.last());
        if let Some((index, _)) = last.filter(|(_, slot)| slot.column.len() > 0) {
            self.move_last(index, taken);
        }
    }

    pub(super) fn has_last_of_all(&self) -> bool {
        self.slots.iter().any(|slot| slot.column.is_last() && slot.column.len() > 0)
    }

    /// Whether any of what an action comes after is here.
    pub(super) fn contains_any(&self, numbers: &[u64]) -> bool {
        let has = |number: &u64| self.slots.iter().any(|slot| slot.column.contains(*number));
        numbers.iter().any(has)
    }

    /// The numbers of what the last action of a column comes after.
    pub(super) fn comes_after(&self, index: usize) -> &[u64] {
        self.slots[index].column.comes_after()
    }

    /// The numbers that are higher than this one.
    pub(super) fn numbers_above(&self, number: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        self.slots.iter().for_each(|slot| slot.column.numbers_above(number, &mut numbers));
        numbers
    }

    /// Moves the actions with lower numbers to `target`.
    pub(super) fn move_below(&mut self, number: u64, target: &mut Self) {
        for slot in &mut self.slots {
            let before = slot.column.len();
            if before > 0 {
                let into = target.slot_like(slot);
                slot.column.move_below(number, &mut *into.column);
                let moved = before - slot.column.len();
                self.len -= moved;
                target.len += moved;
            }
        }
    }

    /// The column that ends with the highest number.
    #[inline]
    pub(super) fn find_last(&self) -> Option<usize> {
        if self.slots.len() == 1 { (self.len > 0).then_some(0) } else { self.find_last_of_many() }
    }

    fn find_last_of_many(&self) -> Option<usize> {
        let lasts = self.slots.iter().map(|slot| slot.column.last());
        let (index, last) = lasts.enumerate().max_by_key(|(_, last)| *last)?;
        last.map(|_| index)
    }

    /// Starts the last action of a column. This is the user's code.
    pub(super) fn attempt(&mut self, index: usize, undoing: &Undoing) -> BoxAttempt {
        self.slots[index].column.attempt(undoing)
    }

    /// The number of the last action of a column.
    pub(super) fn number(&self, index: usize) -> u64 {
        self.slots[index].column.last().unwrap_or_default()
    }

    /// The label and the place of the last action of a column. The label is the user's code.
    pub(super) fn describe(&self, index: usize) -> (Option<String>, &'static Location<'static>) {
        let slot = &self.slots[index];
        (slot.column.label(), slot.registered_at)
    }

    /// Whether the last action of a column has succeeded, and whoever waited for it has gone away.
    pub(super) fn is_done(&self, index: usize) -> bool {
        self.slots[index].column.is_done()
    }

    /// What a rollback has to be given to run the last action of a column.
    pub(super) fn lives_in(&self, index: usize) -> Option<LinkId> {
        self.slots[index].column.lives_in()
    }

    /// Drops the last action of a column. This is the user's code.
    pub(super) fn drop_last(&mut self, index: usize) {
        self.len -= 1;
        self.slots[index].column.drop_last();
    }

    /// Moves the last action of a column to `target`.
    pub(super) fn move_last(&mut self, index: usize, target: &mut Self) {
        let slot = &mut self.slots[index];
        let from = slot.column.entries() - 1;
        slot.column.move_from(from, &mut *target.slot_like(slot).column);
        self.len -= 1;
        target.len += 1;
    }

    /// Takes out the action with this number.
    pub(super) fn withdraw(&mut self, number: u64) -> Option<Box<dyn Send>> {
        let found = self.slots.iter_mut().find_map(|slot| slot.column.withdraw(number))?;
        self.len -= 1;
        Some(found)
    }

    /// Whether the action with this number is here.
    pub(super) fn has(&mut self, number: u64) -> bool {
        self.slots.iter_mut().any(|slot| slot.column.has(number))
    }

    /// Takes out the actions that were disarmed, or have succeeded, while they were out of reach.
    pub(super) fn withdraw_over(&mut self, withdrawn: &mut Withdrawn) {
        for slot in &mut self.slots {
            let before = withdrawn.actions.len();
            slot.column.withdraw_over(withdrawn);
            self.len -= withdrawn.actions.len() - before;
        }
    }

    /// How many of the actions can never be run, and were told to be lost.
    pub(super) fn lost(&self) -> usize {
        self.slots.iter().map(|slot| slot.column.lost()).sum()
    }

    /// Drops every action, one by one, so that a panicking destructor leaks no neighbour.
    fn drop_all(&mut self) {
        let slots = &mut self.slots;
        while panics::contain(|| slots.iter_mut().for_each(|slot| slot.column.drop_all())).is_err()
        {
            COUNTERS.contained_panics.add(1);
        }
        self.len = 0;
    }

    /// Drops every action because it is not needed any more. Returns how many there were. What is
    /// to be filled again keeps its usual room.
    pub(super) fn clear(&mut self) -> usize {
        let count = self.len;
        self.drop_all();
        if count > USUAL || self.slots.len() > USUAL_PLACES {
            self.slots = Vec::new();
        }
        COUNTERS.compensations_cleared.add(count as u64);
        count
    }

    /// The places that registered the actions, without repetitions.
    pub(super) fn places(&self) -> Vec<&'static Location<'static>> {
        let mut places: Vec<&'static Location<'static>> = Vec::new();
        for slot in self.slots.iter().filter(|slot| slot.column.len() > 0) {
            if !places.contains(&slot.registered_at) {
                places.push(slot.registered_at);
            }
        }
        places
    }
}

/// Steps back over the last so many actions of all columns; `left` has what is left of each.
fn step_back(left: &mut [usize], slots: &[ColumnSlot], count: usize) {
    for _ in 0..count {
        let last = |index: &usize| slots[*index].column.number_before(left[*index]);
        if let Some(highest) = (0..left.len()).max_by_key(last) {
            left[highest] = slots[highest].column.skip_withdrawn(left[highest] - 1);
        }
    }
}

/// Actions are dropped one by one wherever they are dropped.
impl Drop for Columns {
    fn drop(&mut self) {
        if self.len > 0 {
            self.drop_all();
        }
    }
}
