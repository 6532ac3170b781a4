//! Actions kept on the thread that registers them.
//!
//! As long as nobody but its handler can see the scope of a message, what the handler registers is
//! kept on this thread and needs no lock: from the call of the handler until its first poll ends,
//! or until it clones its context or asks for the scope. What is kept then moves into the scope of
//! the message. When the message has succeeded instead, it stays until the end of its lane's turn,
//! and moves to the scope of the drain once for all messages of the turn.
//!
//! Nobody on this thread can tell the difference: every look at a scope moves first what is kept of
//! messages that have ended. A handler that polls another drain has what it kept set aside.

use std::cell::{Cell, RefCell};
use std::panic::Location;

use super::action::Action;
use super::columns::Columns;
use super::order::Order;
use super::scope::CompensationScope;
use crate::sync::thread_local;

thread_local! {
    /// The message whose actions are kept on this thread, by the number of its context; 0 for none.
    static MESSAGE: Cell<u64> = const { Cell::new(0) };
    /// Whether any of its actions are.
    static ANY: Cell<bool> = const { Cell::new(false) };
    /// Whether there are actions of messages that have ended.
    static ENDED: Cell<bool> = const { Cell::new(false) };
    /// Out of its slot while anything but this module's own code may run.
    static KEPT: RefCell<Option<Box<Kept>>> = const { RefCell::new(None) };
    /// What was kept by handlers which are polling another drain just now, by message.
    static SET_ASIDE: RefCell<Vec<(u64, Box<Kept>)>> = const { RefCell::new(Vec::new()) };
}

#[derive(Default)]
struct Kept {
    order: Order,
    actions: Columns,
    /// The number of the first action of the message that has not ended.
    first: u64,
    /// The scope of the drain and the owner for what is left of messages that have ended.
    home: Option<(CompensationScope, u64)>,
}

/// Actions of one turn that are usual: more are not worth their memory afterwards.
const USUAL: usize = 1 << 12;

/// Places that register actions on one thread which are usual: more take too long to look through.
const USUAL_PLACES: usize = 16;

/// The message that was worked at on this thread when a lane's turn began.
pub(crate) struct Outer {
    message: u64,
}

/// Begins a turn of a lane.
#[inline]
pub(crate) fn enter() -> Outer {
    let message = MESSAGE.replace(0);
    if message != 0 || ENDED.get() {
        set_aside(message);
    }
    Outer { message }
}

/// Ends a turn: what is left of the messages that have ended moves to the scope of their drain.
#[inline]
pub(crate) fn leave(outer: &Outer) {
    settle();
    begin(0);
    if outer.message != 0 {
        go_on(outer.message);
    }
}

#[cold]
fn set_aside(message: u64) {
    settle();
    ANY.set(false);
    if message != 0 {
        let kept = KEPT.take().unwrap_or_default();
        SET_ASIDE.with_borrow_mut(|aside| aside.push((message, kept)));
    }
}

/// Goes on keeping actions, unless somebody has looked at the scope meanwhile.
#[cold]
fn go_on(message: u64) {
    if let Some(kept) = take_aside(message) {
        ANY.set(!kept.actions.is_empty());
        put(kept);
        MESSAGE.set(message);
    }
}

fn take_aside(message: u64) -> Option<Box<Kept>> {
    SET_ASIDE.with_borrow_mut(|aside| {
        let index = aside.iter().rposition(|(known, _)| *known == message)?;
        Some(aside.remove(index).1)
    })
}

/// Keeps the actions of this message from now on: its handler is about to be called. 0 for none.
#[inline]
pub(crate) fn begin(message: u64) {
    // `LocalKey::set` is a call; this is one instruction.
    MESSAGE.with(|current| current.set(message));
}

/// Keeps an action here if it is one of the message that is worked at, or hands it out again.
#[inline]
pub(crate) fn keep<A: Action>(
    message: u64,
    action: A,
    registered_at: &'static Location<'static>,
) -> Option<A> {
    if message == 0 || message != MESSAGE.get() {
        return Some(action);
    }
    let mut action = Some(action);
    // A thread that is ending has no place to keep anything: then the action stays here.
    let _ = KEPT.try_with(|slot| {
        let Ok(mut slot) = slot.try_borrow_mut() else { return };
        let kept = slot.get_or_insert_default();
        let number = kept.order.draw();
        if !ANY.replace(true) {
            kept.first = number;
        }
        if let Some(action) = action.take() {
            kept.actions.push(0, number, registered_at, action);
        }
    });
    action
}

/// Moves what is kept of a message into its scope, because somebody may look at it from now on.
#[inline]
pub(crate) fn expose(message: u64, scope: &CompensationScope) {
    if message != 0 {
        if message == MESSAGE.get() {
            take(|actions| scope.receive(actions, None));
        } else if let Some(mut kept) = take_aside(message) {
            scope.receive(&mut kept.actions, None);
        }
    }
}

/// Whether the message that is worked at has actions here.
#[inline]
pub(crate) fn has_any() -> bool {
    ANY.get()
}

/// Stops keeping actions of the message, and hands out those that were kept, if any: `into` must
/// empty them.
#[inline]
pub(crate) fn take(into: impl FnOnce(&mut Columns)) {
    if MESSAGE.get() == 0 {
        return;
    }
    settle();
    begin(0);
    if ANY.replace(false) {
        // User code in `into` finds the slot empty.
        if let Some(mut kept) = KEPT.take() {
            let count = kept.actions.len();
            into(&mut kept.actions);
            keep_columns(kept, count);
        }
    }
}

/// Keeps what is left, and empty columns for the next messages unless they are beyond what is usual.
fn keep_columns(kept: Box<Kept>, count: usize) {
    let usual = count <= USUAL && kept.actions.columns() <= USUAL_PLACES;
    if usual || !kept.actions.is_empty() {
        put(kept);
    }
}

/// Puts what is kept into its slot, which is empty.
#[inline]
fn put(kept: Box<Kept>) {
    // `LocalKey::set` would look for a first value.
    KEPT.with(|slot| slot.replace(Some(kept)));
}

/// The message has succeeded: what is kept of it goes with the turn to the scope of its drain, under
/// this owner.
#[inline]
pub(crate) fn end(home: impl FnOnce() -> (CompensationScope, u64)) {
    begin(0);
    ANY.with(|any| any.set(false));
    if !ENDED.replace(true) {
        set_home(home());
    }
}

#[cold]
fn set_home(home: (CompensationScope, u64)) {
    if let Some(mut kept) = KEPT.take() {
        kept.home = Some(home);
        put(kept);
    }
}

/// Moves what is kept of messages that have ended to the scope of their drain.
#[inline]
pub(super) fn settle() {
    if ENDED.get() {
        move_home();
    }
}

#[cold]
fn move_home() {
    ENDED.set(false);
    let Some(mut kept) = KEPT.take() else { return };
    let mut message = Columns::default();
    if has_any() {
        kept.actions.take_from(kept.first, &mut message);
    }
    let count = kept.actions.len();
    if let Some((scope, owner)) = kept.home.take() {
        scope.receive(&mut kept.actions, Some(owner));
    }
    kept.actions.append(&mut message, None);
    keep_columns(kept, count);
}
