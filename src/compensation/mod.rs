//! Undoing: actions, the scope that collects them, and the rollback that runs them.
//!
//! A [`CompensationScope`] holds actions in the order of their registration. Every action carries
//! a number that only grows in this process, so that the order holds over any nesting of scopes
//! and over handlers that ran concurrently: actions that move to another scope keep their number,
//! and the rollback always takes the highest.

mod action;
mod order;
mod policy;
mod report;
mod reservation;
mod rollback;
mod scope;

pub use action::{Action, ActionOutput, Labelled, labelled};
pub use policy::CompensationPolicy;
pub use report::{FailedAction, RollbackFailed, RollbackReport};
pub use reservation::Reservation;
pub use rollback::{Rollback, run_compensation};
pub use scope::CompensationScope;
