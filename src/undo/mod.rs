//! Undoing: actions, the scope that collects them, and the rollback that runs them.
//!
//! A [`CompensationScope`] holds actions in the order of their registration. Every action carries
//! a number that only grows in this process, so that the order holds over any nesting of scopes
//! and over handlers that ran concurrently: actions that move to another scope keep their number,
//! and the rollback always takes the highest.
//!
//! - `action`: what can be staged; `undoing`: what it may know of the rollback that runs it; `order`:
//!   the numbers; `column`, `columns`: the actions of a scope by type
//! - `scope`: the collection, `staging`: what it does with an action, and `state` behind it;
//!   `drain_scope`, `message_scope`: what a drain does with scopes; `moves`: from one scope to another;
//!   `reservation`: an action staged before its effect, and `place`, where it is
//! - `policy`: how a rollback works; `single`: one action on its way; `run`: the actions that are
//!   being run, and what of them has `ended`; `session`: what the rollbacks of one scope share; `membership`: a rollback among
//!   them; `rollback`: the future that drives the run, which it has in its `hand`; `report`: what came
//!   of it
//! - `local`: actions that are not `Send`; `local_attempt`: one on its way

mod action;
mod behind;
mod column;
mod columns;
mod drain_scope;
mod ended;
mod given_up;
mod hand;
mod local;
mod local_attempt;
mod membership;
mod message_scope;
mod moves;
mod order;
mod place;
mod policy;
mod report;
mod reservation;
mod rollback;
mod run;
mod scope;
mod session;
mod single;
mod staging;
mod state;
mod undoing;

pub use action::{Action, ActionOutput, labelled};
pub(crate) use action::{Attempt, WithState};
pub(crate) use behind::next_order;
pub(crate) use drain_scope::DrainScope;
pub(crate) use local::LocalRollback;
pub use local::{LocalAction, LocalUndos};
pub(crate) use message_scope::MessageScope;
pub use policy::CompensationPolicy;
pub use report::{FailedAction, RollbackReport};
pub use reservation::Reservation;
pub use rollback::Rollback;
pub use scope::CompensationScope;
pub(crate) use scope::WeakScope;
pub use undoing::Undoing;
