//! Undoing: actions, the scope that collects them, and the rollback that runs them.
//!
//! A [`CompensationScope`] holds actions in the order of their registration. Every action carries
//! a number that only grows in this process, so that the order holds over any nesting of scopes
//! and over handlers that ran concurrently: actions that move to another scope keep their number,
//! and the rollback always takes the highest.
//!
//! - `action`: what can be staged; `order`: the numbers; `columns`: the actions of a scope by type
//! - `scope`: the collection; `kept`: actions that a thread has not moved into their scope yet;
//!   `reservation`: an action staged before its effect
//! - `policy`: how a rollback works; `run`: one action on its way; `session`: what concurrent
//!   rollbacks share; `rollback`: running them all; `report`: what came of it

mod action;
mod columns;
pub(crate) mod kept;
mod order;
mod policy;
mod report;
mod reservation;
mod rollback;
mod run;
mod scope;
mod session;

pub(crate) use action::WithState;
pub use action::{Action, ActionOutput, Labelled, labelled};
pub use policy::CompensationPolicy;
pub use report::{FailedAction, RollbackFailed, RollbackReport};
pub use reservation::Reservation;
pub use rollback::{Rollback, run_compensation};
pub use scope::CompensationScope;
