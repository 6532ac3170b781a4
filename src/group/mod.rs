//! Tasks that belong together: started one by one, awaited as one.
//!
//! A [`Group`] stops at the first failure, or [waits for all](Group::on_failure) whatever they
//! return. A task is polled in place by whoever awaits the group, or runs on an executor of the
//! user's through [`futures::task::Spawn`]; either way it is a child step of the group's context, and
//! what it stages is on the context's scope when it has ended.
//!
//! The group and its tasks meet at a *board*: tasks post there how they ended, wherever they ran
//! and whoever dropped them, and the wait reads it. Nothing else is shared.
//!
//! - `handle`: the group as its users have it, its options, and adding tasks
//! - `shared`: what all handles and the wait have in common
//! - `task`: one task, which posts its end even when it is dropped
//! - `board`: who was added, who has ended how, and why the group stops; `verdict`: what the wait
//!   does with it
//! - `permits`: which tasks may run at once
//! - `wait`: the future over all tasks: limits, the grace, the rollback
//! - `report`: what comes out

mod board;
mod handle;
mod permits;
mod report;
mod shared;
mod task;
mod verdict;
mod wait;

pub use handle::Group;
pub use report::GroupReport;
