//! Settling in prefix order, rule by rule: logs with offsets, and partitions that come and go.
//!
//! Each file is a subject, each test a sentence of the contract, with the number of its rule.

#![allow(
    clippy::pedantic,
    clippy::type_complexity,
    unreachable_pub,
    reason = "tests spell out what a user would write"
)]

mod scene;

mod answers;
mod coming_and_going;
mod commits;
mod endings;
mod found;
mod found_sixth;
mod losses;
mod moving;
mod polls;
mod programs;
mod releases;
mod revocations;
mod windows;
