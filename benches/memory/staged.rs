//! Bytes a staged action.

use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use watershed::CompensationScope;

use crate::counting::live;
use crate::support::channels::Load;
use crate::support::marks::{Bound, Mark};
use crate::support::section::{Column, Contender, Role, Section};
use crate::undo::{BoxedUndo, OfShared, Undo};

const OURS: &str = "scope";
const FIGURE: &str = "bytes an action";

pub(crate) const SECTION: Section = Section {
    name: "staged_actions",
    title: "a staged action, beyond its closure",
    figures: &[FIGURE],
    columns: &[
        Column::new("1,000 actions", 1_000, 1),
        Column::new("1,000,000 actions", 1_000_000, 1),
    ],
    contenders: &[
        Contender { name: "by_hand", role: Role::PeerOf(OURS), once: by_hand },
        Contender { name: OURS, role: Role::Ours, once: by_scope },
    ],
    marks: &[Mark {
        what: "a scope",
        figure: FIGURE,
        of: &[OURS],
        to: None,
        bound: Bound::Most(&[(1_000, 64.0), (1_000_000, 64.0)]),
    }],
    countable: false,
    note: "by_hand is a list of boxed closures. What a list has in reserve is counted; what an \
           allocator adds to each block is not.",
};

fn by_hand(load: Load) -> Vec<f64> {
    let undone = Arc::new(AtomicU64::new(0));
    let before = live();
    let mut staged: Vec<BoxedUndo> = Vec::new();
    for message in 0..load.size {
        staged.push(OfShared::boxed(&undone, message.into()));
    }
    beyond_closure(load, before)
}

fn by_scope(load: Load) -> Vec<f64> {
    let undone = Arc::new(AtomicU64::new(0));
    let before = live();
    let scope = CompensationScope::new();
    for message in 0..load.size {
        OfShared::stage(&undone, message.into(), &scope);
    }
    let bytes = beyond_closure(load, before);
    scope.clear();
    bytes
}

#[allow(clippy::cast_precision_loss, reason = "a closure is small")]
fn beyond_closure(load: Load, before: f64) -> Vec<f64> {
    vec![(live() - before) / f64::from(load.size) - size_of::<OfShared>() as f64]
}
