//! The contract, rule by rule: what a user may rely on.
//!
//! Each file is a subject, each test a sentence of it, with the number of its rule.

#![allow(
    clippy::pedantic,
    clippy::enum_variant_names,
    clippy::manual_async_fn,
    clippy::single_range_in_vec_init,
    clippy::type_complexity,
    clippy::unit_arg,
    clippy::zero_repeat_side_effects,
    dropping_copy_types,
    reason = "tests spell out what a user would write"
)]

#[path = "../support/mod.rs"]
#[macro_use]
mod support;
#[path = "../support/crossing/mod.rs"]
mod crossing;

mod accounts;
mod bounds;
mod circles;
mod coming_and_going;
mod deadlines;
mod driving;
mod endings;
mod endless;
mod errors;
mod failures;
mod fairness;
mod found;
mod idle_and_rate;
mod keys;
mod live;
mod no_threads;
mod order_and_limits;
mod pairs;
mod panics;
mod removals;
mod retries;
mod sources;
mod sources_of_a_drain;
mod taking;
mod time;
mod time_goes_on;
mod tokens;
mod undo_cleaning_up;
mod undo_drains;
mod undo_given_up;
mod undo_interrupted;
mod undo_local;
mod undo_local_attempts;
mod undo_local_beside;
mod undo_reserved;
mod undo_rollback;
mod undo_scope;
mod undo_together;
mod wakers;
mod windows;
