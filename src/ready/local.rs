//! Wake-ups on the thread of the bank, in its turn, without an atomic operation.
//!
//! Most wake-ups come from the very code that a bank is polling: a handler that yields, a channel
//! that is filled by another handler. These go to a list of the thread instead of the inbox, which
//! is 1.3 to 1.6 times faster for handlers that yield (`cargo bench -p benches --bench peers`, "handlers that
//! yield"). The list is empty between turns, and a thread that is ending goes without one.

use std::cell::{Cell, RefCell};

use crate::sync::thread_local;

thread_local! {
    /// The inbox whose bank has its turn on this thread, by address; 0 for none.
    static TURN_OF: Cell<usize> = const { Cell::new(0) };
    static WOKEN: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// What this thread was at when a turn began: a handler may poll another drain.
pub(super) struct Before {
    turn_of: usize,
    woken: Vec<u32>,
}

/// Begins a turn.
#[inline]
pub(super) fn enter(inbox: usize) -> Before {
    let turn_of = TURN_OF.try_with(|turn_of| turn_of.replace(inbox)).unwrap_or(0);
    Before { turn_of, woken: if turn_of == 0 { Vec::new() } else { take() } }
}

/// Ends a turn. What was woken since the last look is handed out.
#[inline]
pub(super) fn leave(before: Before, woken: impl FnMut(u32)) {
    drain(woken);
    let _ = TURN_OF.try_with(|turn_of| turn_of.set(before.turn_of));
    if !before.woken.is_empty() {
        let _ = WOKEN.try_with(|list| {
            if let Ok(mut list) = list.try_borrow_mut() {
                *list = before.woken;
            }
        });
    }
}

/// Notes a wake-up, if it is the turn of this inbox on this thread.
#[inline]
pub(super) fn note(inbox: usize, number: u32) -> bool {
    let here = TURN_OF.try_with(|turn_of| turn_of.get() == inbox).unwrap_or(false);
    let list =
        |list: &RefCell<Vec<u32>>| list.try_borrow_mut().map(|mut list| list.push(number)).is_ok();
    here && WOKEN.try_with(list).unwrap_or(false)
}

/// Hands out what was woken.
#[inline]
pub(super) fn drain(mut woken: impl FnMut(u32)) {
    let _ = WOKEN.try_with(|list| {
        if let Ok(mut list) = list.try_borrow_mut() {
            if !list.is_empty() {
                for &number in list.iter() {
                    woken(number);
                }
                list.clear();
            }
        }
    });
}

fn take() -> Vec<u32> {
    let taken =
        WOKEN.try_with(|list| list.try_borrow_mut().map(|mut list| std::mem::take(&mut *list)));
    taken.ok().and_then(Result::ok).unwrap_or_default()
}
