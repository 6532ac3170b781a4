//! Tasks that belong together: started one by one, awaited as one.
//!
//! [`WaitGroup`] waits for all of its tasks whatever they return; [`ErrGroup`] tells the others to
//! stop at the first failure. A task is polled in place by whoever awaits the group, or runs on an
//! executor of the user's through [`futures::task::Spawn`]; either way it is a child step of the
//! group's context, and what it stages is on the context's scope when the group has ended.
//!
//! The group and its tasks meet at a *board*: tasks post there how they ended, wherever they ran
//! and whoever dropped them, and the wait reads it. Nothing else is shared.
//!
//! - `task`: one task, which posts its end even when it is dropped
//! - `board`: who was added, who has ended how, and why the group stops
//! - `members`: what both groups have in common: adding tasks
//! - `wait`: the future over all tasks: limits, the grace, the rollback
//! - `wait_group`, `err_group`: the two groups; `report`: what comes out

mod board;
mod err_group;
mod members;
mod report;
mod task;
mod wait;
mod wait_group;

pub use err_group::ErrGroup;
pub use report::GroupReport;
pub use wait::GroupWait;
pub use wait_group::WaitGroup;
