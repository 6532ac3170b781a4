//! The actions of one type that were registered at one place, in the order of their numbers.
//!
//! An action that was withdrawn stays as an empty entry, so that withdrawing moves no other; once
//! most entries are empty they are removed together. The last entry is never an empty one.

use std::any::Any;
use std::sync::Arc;

use super::action::BoxAttempt;
use super::undoing::Undoing;
use crate::panics;

/// What a column can hold: a plain action, or one that can be withdrawn.
pub(super) trait StoredAction: Send + 'static {
    /// Whether it runs when nothing else does, and what it comes after is gone: see `behind`.
    const LAST: bool = false;

    /// The numbers of the actions that it comes after.
    fn comes_after(&self) -> &[u64] {
        &[]
    }

    /// Starts an attempt. This is the user's code.
    fn attempt(&mut self, undoing: &Undoing) -> BoxAttempt;

    /// The label. This is the user's code.
    fn label(&self) -> Option<String>;

    /// Takes the user's action out, and leaves an empty entry.
    fn withdraw(&mut self) -> Option<Box<dyn Send>> {
        None
    }

    fn is_withdrawn(&self) -> bool {
        false
    }

    /// Whether it is to be withdrawn.
    fn is_disarmed(&self) -> bool {
        false
    }

    /// Whether it has succeeded, and whoever waited for it may have gone away.
    fn is_done(&self) -> bool {
        false
    }

    /// Whether it is not to be told to be lost: it can never be run, and that was told, or need not.
    fn is_lost(&self) -> bool {
        false
    }

    /// What a rollback has to be given to run it.
    fn lives_in(&self) -> Option<LinkId> {
        None
    }
}

/// Which [`LocalUndos`](super::LocalUndos) an action lives in, as long as there are places that lead there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkId(usize);

impl LinkId {
    pub(super) fn of<T>(link: &Arc<T>) -> Self {
        Self(Arc::as_ptr(link).addr())
    }
}

/// Actions that were taken out because there is nothing left for them to do.
#[derive(Default)]
pub(super) struct Withdrawn {
    pub(super) actions: Vec<Box<dyn Send>>,
    /// The numbers of those that have succeeded.
    pub(super) done: Vec<u64>,
}

/// An action in a column.
struct ColumnEntry<A> {
    number: u64,
    action: A,
}

/// The actions of one type, in the order of their numbers unless they are unsorted.
pub(super) struct Column<A> {
    entries: Vec<ColumnEntry<A>>,
    /// How many entries are empty.
    withdrawn: usize,
    unsorted: bool,
}

impl<A> Default for Column<A> {
    fn default() -> Self {
        Self { entries: Vec::new(), withdrawn: 0, unsorted: false }
    }
}

/// Empty entries that are few enough to stay.
const FEW_WITHDRAWN: usize = 32;

impl<A: StoredAction> Column<A> {
    /// Appends an action whose number is higher than every other here.
    #[inline]
    pub(super) fn push(&mut self, number: u64, action: A) {
        self.entries.push(ColumnEntry { number, action });
    }

    /// Removes the empty entries at the end.
    fn trim(&mut self) {
        while self.withdrawn > 0 && self.entries.last().is_some_and(|e| e.action.is_withdrawn()) {
            self.entries.pop();
            self.withdrawn -= 1;
        }
    }

    /// Moves everything from `from` here: where the numbers overlap, in their order.
    fn take_over(&mut self, from: &mut Self) {
        if self.entries.is_empty() {
            return std::mem::swap(self, from);
        }
        if from.entries.len() > self.entries.len() {
            // The few go to the many, whichever was first.
            std::mem::swap(self, from);
        }
        let Some(first) = from.entries.first().map(|entry| entry.number) else { return };
        // Actions that come late are put in their place as long as that takes no longer than to
        // move them: sorting everything each time would make a long rollback quadratic.
        let few = 2 * from.entries.len() + 64;
        let later = self.entries.iter().rev().take(few);
        let later = later.take_while(|entry| entry.number > first).count();
        let start = self.entries.len() - later;
        let unsorted = self.unsorted || from.unsorted || later == few;
        self.withdrawn += std::mem::take(&mut from.withdrawn);
        self.entries.append(&mut from.entries);
        from.unsorted = false;
        if later > 0 && !unsorted {
            self.entries[start..].sort_by_key(|entry| entry.number);
        }
        self.unsorted = unsorted;
    }

    /// Removes the empty entries once they are many, and those at the end in any case.
    fn tidy(&mut self) {
        if self.withdrawn > FEW_WITHDRAWN && 2 * self.withdrawn > self.entries.len() {
            self.entries.retain(|entry| !entry.action.is_withdrawn());
            self.withdrawn = 0;
        }
        self.trim();
    }

    fn downcast(column: &mut dyn AnyColumn) -> Option<&mut Self> {
        column.as_any().downcast_mut::<Self>()
    }
}

/// A [`Column`] whose type is not known.
pub(super) trait AnyColumn: Send {
    fn as_any(&mut self) -> &mut dyn Any;
    /// A new column of the same type.
    fn empty(&self) -> Box<dyn AnyColumn>;
    /// How many actions there are, without those that were withdrawn.
    fn len(&self) -> usize;
    /// The number of the last action.
    fn last(&self) -> Option<u64>;
    fn sort(&mut self);
    /// How many entries there are, empty ones included.
    fn entries(&self) -> usize;
    /// The number of the last of the first `len` entries.
    fn number_before(&self, len: usize) -> Option<u64>;
    /// How many of the first `len` entries are left when the empty ones at their end are not
    /// counted.
    fn skip_withdrawn(&self, len: usize) -> usize;
    /// Moves everything from `other`, a column of the same type.
    fn append(&mut self, other: &mut dyn AnyColumn);
    /// Moves the entries from a position on to `target`, a column of the same type.
    fn move_from(&mut self, position: usize, target: &mut dyn AnyColumn);
    /// Moves the entries with a lower number to `target`, a column of the same type.
    fn move_below(&mut self, number: u64, target: &mut dyn AnyColumn);
    /// Starts an attempt of the last action. This is the user's code.
    fn attempt(&mut self, undoing: &Undoing) -> BoxAttempt;
    /// The label of the last action. This is the user's code.
    fn label(&self) -> Option<String>;
    /// Whether the last action has succeeded, and whoever waited for it has gone away.
    fn is_done(&self) -> bool;
    /// What a rollback has to be given to run the last action.
    fn lives_in(&self) -> Option<LinkId>;
    /// Drops the last action. This is the user's code.
    fn drop_last(&mut self);
    /// Drops every action; after a panic it can be called again.
    fn drop_all(&mut self);
    /// Takes out the action with this number.
    fn withdraw(&mut self, number: u64) -> Option<Box<dyn Send>>;
    /// Whether the action with this number is here.
    fn has(&mut self, number: u64) -> bool;
    /// Takes out the actions that are to be withdrawn, or have succeeded.
    fn withdraw_over(&mut self, withdrawn: &mut Withdrawn);
    /// How many actions can never be run, and were told to be lost.
    fn lost(&self) -> usize;
    /// Whether its actions run when nothing else does.
    fn is_last(&self) -> bool;
    /// The numbers of the actions that the last action comes after.
    fn comes_after(&self) -> &[u64];
    /// Whether the action with this number is here.
    fn contains(&self, number: u64) -> bool;
    /// Adds the numbers that are higher than this one.
    fn numbers_above(&self, number: u64, numbers: &mut Vec<u64>);
    /// How many entries have a higher number, once it is sorted.
    fn count_above(&self, number: u64) -> usize;
}

impl<A: StoredAction> AnyColumn for Column<A> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn empty(&self) -> Box<dyn AnyColumn> {
        Box::new(Self::default())
    }

    fn len(&self) -> usize {
        self.entries.len() - self.withdrawn
    }

    fn last(&self) -> Option<u64> {
        self.entries.last().map(|entry| entry.number)
    }

    fn sort(&mut self) {
        if std::mem::take(&mut self.unsorted) {
            // The stable sort takes advantage of runs that are sorted already.
            self.entries.sort_by_key(|entry| entry.number);
            self.trim();
        }
    }

    fn entries(&self) -> usize {
        self.entries.len()
    }

    fn number_before(&self, len: usize) -> Option<u64> {
        Some(self.entries.get(len.checked_sub(1)?)?.number)
    }

    fn skip_withdrawn(&self, mut len: usize) -> usize {
        while self.withdrawn > 0 && len > 0 && self.entries[len - 1].action.is_withdrawn() {
            len -= 1;
        }
        len
    }

    fn append(&mut self, other: &mut dyn AnyColumn) {
        if let Some(other) = Self::downcast(other) {
            self.take_over(other);
            self.trim();
        }
    }

    fn move_from(&mut self, position: usize, target: &mut dyn AnyColumn) {
        let Some(target) = Self::downcast(target) else { return };
        if position == 0 {
            target.take_over(self);
            return target.trim();
        }
        let entries = self.entries.split_off(position);
        let mut withdrawn = 0;
        if self.withdrawn > 0 {
            withdrawn = entries.iter().filter(|entry| entry.action.is_withdrawn()).count();
            self.withdrawn -= withdrawn;
        }
        target.take_over(&mut Self { entries, withdrawn, unsorted: self.unsorted });
        self.trim();
        target.trim();
    }

    fn move_below(&mut self, number: u64, target: &mut dyn AnyColumn) {
        self.sort();
        let position = self.entries.partition_point(|entry| entry.number < number);
        if position == 0 {
            return;
        }
        // The upper part is moved out and becomes the column.
        let mut upper = Self::default();
        self.move_from(position, &mut upper);
        std::mem::swap(self, &mut upper);
        target.append(&mut upper);
    }

    fn attempt(&mut self, undoing: &Undoing) -> BoxAttempt {
        let last = self.entries.len() - 1;
        self.entries[last].action.attempt(undoing)
    }

    fn label(&self) -> Option<String> {
        let entry = &self.entries[self.entries.len() - 1];
        // A label that panics is none.
        panics::contain(|| entry.action.label()).unwrap_or_default()
    }

    fn is_done(&self) -> bool {
        self.entries.last().is_some_and(|entry| entry.action.is_done())
    }

    fn lives_in(&self) -> Option<LinkId> {
        self.entries.last().and_then(|entry| entry.action.lives_in())
    }

    fn drop_last(&mut self) {
        let last = self.entries.pop();
        self.trim();
        drop(last);
    }

    fn drop_all(&mut self) {
        while let Some(entry) = self.entries.pop() {
            drop(entry);
        }
        self.withdrawn = 0;
        self.unsorted = false;
    }

    fn withdraw(&mut self, number: u64) -> Option<Box<dyn Send>> {
        self.sort();
        let position = self.entries.binary_search_by_key(&number, |entry| entry.number).ok()?;
        let action = self.entries[position].action.withdraw()?;
        self.withdrawn += 1;
        self.tidy();
        Some(action)
    }

    fn has(&mut self, number: u64) -> bool {
        self.sort();
        let position = self.entries.binary_search_by_key(&number, |entry| entry.number);
        position.is_ok_and(|position| !self.entries[position].action.is_withdrawn())
    }

    fn withdraw_over(&mut self, withdrawn: &mut Withdrawn) {
        let before = withdrawn.actions.len();
        for ColumnEntry { number, action } in &mut self.entries {
            let is_done = action.is_done();
            if is_done || action.is_disarmed() {
                withdrawn.actions.extend(action.withdraw());
                withdrawn.done.extend(is_done.then_some(*number));
            }
        }
        let more = withdrawn.actions.len() - before;
        if more > 0 {
            self.withdrawn += more;
            self.sort();
            self.tidy();
        }
    }

    fn lost(&self) -> usize {
        self.entries.iter().filter(|entry| entry.action.is_lost()).count()
    }

    fn is_last(&self) -> bool {
        A::LAST
    }

    fn comes_after(&self) -> &[u64] {
        self.entries.last().map_or(&[], |entry| entry.action.comes_after())
    }

    fn contains(&self, number: u64) -> bool {
        let is_it = |entry: &ColumnEntry<A>| entry.number == number && !entry.action.is_withdrawn();
        if self.unsorted {
            return self.entries.iter().any(is_it);
        }
        let found = self.entries.binary_search_by_key(&number, |entry| entry.number);
        found.is_ok_and(|at| is_it(&self.entries[at]))
    }

    fn numbers_above(&self, number: u64, numbers: &mut Vec<u64>) {
        let above = self.entries.iter().filter(|entry| entry.number > number);
        numbers.extend(above.map(|entry| entry.number));
    }

    fn count_above(&self, number: u64) -> usize {
        self.entries.len() - self.entries.partition_point(|entry| entry.number <= number)
    }
}
