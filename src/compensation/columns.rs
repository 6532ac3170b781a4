//! Staged actions, kept by their type.
//!
//! A list of boxed actions costs an allocation an action. But actions come from a few places in a
//! program, and every place has a type of its own, so they are kept in one column a place and type:
//! staging appends to a column, and once it has grown nothing is allocated. Actions that belong to
//! different drains are in different columns, so that a drain commits its own by dropping them.
//!
//! Every action carries its number in the order of registration, and a column is in that order.
//! The action registered last of all is the one with the highest number at the end of a column.

use std::any::{Any, TypeId};
use std::panic::Location;

use smallvec::SmallVec;

use super::action::{Action, BoxAttempt};
use crate::panics;

/// The actions of a scope, or those that a rollback has taken out of it.
#[derive(Default)]
pub(crate) struct Columns {
    slots: Vec<Slot>,
    len: usize,
}

struct Slot {
    of: TypeId,
    /// The drain that staged them, 0 for none.
    owner: u64,
    registered_at: &'static Location<'static>,
    column: Box<dyn AnyColumn>,
}

impl Slot {
    #[inline]
    fn is_for(&self, of: TypeId, owner: u64, registered_at: &'static Location<'static>) -> bool {
        // The place first: it nearly always decides.
        std::ptr::eq(self.registered_at, registered_at) && self.of == of && self.owner == owner
    }
}

/// An action in a column.
struct Entry<A> {
    number: u64,
    action: A,
}

impl Columns {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many columns there are, empty ones included.
    pub(super) fn columns(&self) -> usize {
        self.slots.len()
    }

    /// Stages an action whose number is higher than every other here.
    #[inline]
    pub(crate) fn push<A: Action>(
        &mut self,
        owner: u64,
        number: u64,
        registered_at: &'static Location<'static>,
        action: A,
    ) {
        let of = TypeId::of::<A>();
        let found = self.slots.iter_mut().find(|slot| slot.is_for(of, owner, registered_at));
        let slot = match found {
            Some(slot) => slot,
            None => self.add_slot(of, owner, registered_at, Box::new(Column::<A>::default())),
        };
        if let Some(column) = slot.column.as_any().downcast_mut::<Column<A>>() {
            column.entries.push(Entry { number, action });
            self.len += 1;
        }
    }

    #[cold]
    fn add_slot(
        &mut self,
        of: TypeId,
        owner: u64,
        registered_at: &'static Location<'static>,
        column: Box<dyn AnyColumn>,
    ) -> &mut Slot {
        self.slots.push(Slot { of, owner, registered_at, column });
        let last = self.slots.len() - 1;
        &mut self.slots[last]
    }

    fn slot_like(&mut self, other: &Slot, owner: u64) -> &mut Slot {
        let at = other.registered_at;
        match self.slots.iter().position(|slot| slot.is_for(other.of, owner, at)) {
            Some(index) => &mut self.slots[index],
            None => self.add_slot(other.of, owner, at, other.column.empty()),
        }
    }

    /// Moves everything from `other` here, under another owner if one is given. The columns of
    /// `other` stay, empty, so that they need not grow again.
    pub(crate) fn append(&mut self, other: &mut Self, owner: Option<u64>) {
        for slot in &mut other.slots {
            if slot.column.last().is_some() {
                let target = self.slot_like(slot, owner.unwrap_or(slot.owner));
                target.column.append(&mut *slot.column);
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
            left.push(slot.column.len());
        }
        let count = most.min(self.len);
        if let [only] = &mut *left {
            *only -= count;
        } else {
            for _ in 0..count {
                let last = |index: &usize| self.slots[*index].column.number_before(left[*index]);
                if let Some(highest) = (0..left.len()).max_by_key(last) {
                    left[highest] -= 1;
                }
            }
        }
        for (index, left) in left.into_iter().enumerate() {
            if left < self.slots[index].column.len() {
                let target = taken.slot_like(&self.slots[index], self.slots[index].owner);
                self.slots[index].column.move_from(left, &mut *target.column);
            }
        }
        self.len -= count;
        taken.len += count;
    }

    /// Moves the actions with this number or a higher one to `taken`.
    pub(super) fn take_from(&mut self, number: u64, taken: &mut Self) {
        for slot in &mut self.slots {
            let position = slot.column.find(number);
            let count = slot.column.len() - position;
            if count > 0 {
                let target = taken.slot_like(slot, slot.owner);
                slot.column.move_from(position, &mut *target.column);
                self.len -= count;
                taken.len += count;
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
    pub(super) fn attempt(&mut self, index: usize) -> BoxAttempt {
        self.slots[index].column.attempt()
    }

    /// The label and the place of the last action of a column. The label is the user's code.
    pub(super) fn describe(&self, index: usize) -> (Option<String>, &'static Location<'static>) {
        let slot = &self.slots[index];
        (slot.column.label(), slot.registered_at)
    }

    /// Drops the last action of a column. This is the user's code.
    pub(super) fn drop_last(&mut self, index: usize) {
        self.len -= 1;
        self.slots[index].column.drop_last();
    }

    /// Moves the last action of a column to `target`.
    pub(super) fn move_last(&mut self, index: usize, target: &mut Self) {
        let slot = &mut self.slots[index];
        let from = slot.column.len() - 1;
        let owner = slot.owner;
        slot.column.move_from(from, &mut *target.slot_like(slot, owner).column);
        self.len -= 1;
        target.len += 1;
    }

    /// Takes out the actions of one drain.
    pub(super) fn take_owned(&mut self, owner: u64) -> Self {
        let slots = std::mem::take(&mut self.slots);
        let (taken, kept) = slots.into_iter().partition(|slot| slot.owner == owner);
        self.slots = kept;
        let mut own = Self { slots: taken, len: 0 };
        own.len = own.slots.iter().map(|slot| slot.column.len()).sum();
        self.len -= own.len;
        own
    }

    /// Takes out the action with this number.
    pub(super) fn remove(&mut self, number: u64) -> Option<Box<dyn Send>> {
        let removed = self.slots.iter_mut().find_map(|slot| slot.column.remove(number))?;
        self.len -= 1;
        Some(removed)
    }

    /// Drops every action, one by one, so that a panicking destructor leaks no neighbour. Returns
    /// how many there were, and the first panic.
    pub(crate) fn clear(&mut self) -> (usize, Option<String>) {
        let mut panicked = None;
        let slots = &mut self.slots;
        while let Err(message) =
            panics::contain(|| slots.iter_mut().for_each(|slot| slot.column.drop_all()))
        {
            panicked.get_or_insert(message);
        }
        (std::mem::take(&mut self.len), panicked)
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

/// Actions are dropped one by one wherever they are dropped.
impl Drop for Columns {
    fn drop(&mut self) {
        if self.len > 0 && self.clear().1.is_some() {
            crate::diagnostics::COUNTERS.contained_panics.add(1);
        }
    }
}

/// The actions of one type, in the order of their numbers unless they are unsorted.
struct Column<A> {
    entries: Vec<Entry<A>>,
    unsorted: bool,
}

impl<A> Default for Column<A> {
    fn default() -> Self {
        Self { entries: Vec::new(), unsorted: false }
    }
}

/// A [`Column`] whose type is not known.
trait AnyColumn: Send {
    fn as_any(&mut self) -> &mut dyn Any;
    /// A new column of the same type.
    fn empty(&self) -> Box<dyn AnyColumn>;
    fn len(&self) -> usize;
    /// The number of the last action.
    fn last(&self) -> Option<u64>;
    /// The number of the last action of the first `len`.
    fn number_before(&self, len: usize) -> Option<u64>;
    fn sort(&mut self);
    /// The position of the first action with this number or a higher one; in a sorted column.
    fn find(&self, number: u64) -> usize;
    /// Moves everything from `other`, a column of the same type.
    fn append(&mut self, other: &mut dyn AnyColumn);
    /// Moves the actions from a position on to `target`, a column of the same type.
    fn move_from(&mut self, position: usize, target: &mut dyn AnyColumn);
    fn attempt(&mut self) -> BoxAttempt;
    /// The label of the last action. This is the user's code.
    fn label(&self) -> Option<String>;
    fn drop_last(&mut self);
    /// Drops every action; after a panic it can be called again.
    fn drop_all(&mut self);
    fn remove(&mut self, number: u64) -> Option<Box<dyn Send>>;
}

impl<A: Action> AnyColumn for Column<A> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn empty(&self) -> Box<dyn AnyColumn> {
        Box::new(Self::default())
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn last(&self) -> Option<u64> {
        self.number_before(self.entries.len())
    }

    fn number_before(&self, len: usize) -> Option<u64> {
        Some(self.entries.get(len.checked_sub(1)?)?.number)
    }

    fn sort(&mut self) {
        if std::mem::take(&mut self.unsorted) {
            // The stable sort takes advantage of runs that are sorted already.
            self.entries.sort_by_key(|entry| entry.number);
        }
    }

    fn find(&self, number: u64) -> usize {
        self.entries.partition_point(|entry| entry.number < number)
    }

    fn append(&mut self, other: &mut dyn AnyColumn) {
        other.move_from(0, self);
    }

    fn move_from(&mut self, position: usize, target: &mut dyn AnyColumn) {
        let Some(target) = target.as_any().downcast_mut::<Self>() else { return };
        if position == 0 && target.entries.is_empty() {
            return std::mem::swap(self, target);
        }
        let Some(first) = self.entries.get(position).map(|entry| entry.number) else { return };
        // Actions that come back go below those that were registered meanwhile. As long as these
        // are few, they are moved: sorting each time would make a long rollback quadratic.
        let moved = self.entries.len() - position;
        let few = 2 * moved + 64;
        let later = target.entries.iter().rev().take(few);
        let later = later.take_while(|entry| entry.number > first).count();
        target.unsorted |= self.unsorted || later == few;
        if position == 0 {
            target.entries.append(&mut self.entries);
        } else {
            // Two copies of memory are faster than a loop over the actions.
            target.entries.append(&mut self.entries.split_off(position));
        }
        if later > 0 && later < few {
            let start = target.entries.len() - moved - later;
            target.entries[start..].rotate_left(later);
            let last = start + moved - 1;
            target.unsorted |= target.entries[last].number > target.entries[last + 1].number;
        }
    }

    fn attempt(&mut self) -> BoxAttempt {
        let last = self.entries.len() - 1;
        Box::pin(self.entries[last].action.attempt())
    }

    fn label(&self) -> Option<String> {
        let entry = &self.entries[self.entries.len() - 1];
        // A label that panics is none.
        panics::contain(|| entry.action.label().map(ToOwned::to_owned)).unwrap_or_default()
    }

    fn drop_last(&mut self) {
        self.entries.pop();
    }

    fn drop_all(&mut self) {
        while let Some(entry) = self.entries.pop() {
            drop(entry);
        }
        self.unsorted = false;
    }

    fn remove(&mut self, number: u64) -> Option<Box<dyn Send>> {
        let position = self.entries.iter().rposition(|entry| entry.number == number)?;
        Some(Box::new(self.entries.remove(position).action))
    }
}
