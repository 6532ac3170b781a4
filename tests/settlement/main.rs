//! Settling with transports, rule by rule (7.1 to 7.13 and 7.19 to 7.24), for transports that settle
//! each message by itself.

#![allow(
    clippy::pedantic,
    clippy::type_complexity,
    clippy::unit_arg,
    unreachable_pub,
    unused,
    reason = "tests spell out what a user would write"
)]

#[path = "../support/mod.rs"]
#[macro_use]
mod support;

mod by_hand_lost;
mod endings;
mod failing;
mod fixed_leases;
mod found;
mod found_fifth;
mod found_fourth;
mod found_more;
mod found_sixth;
mod found_third;
mod groups;
mod idle;
mod leases;
mod outcomes;
mod program;
mod sending;
mod shop;
mod waking;
mod windows;
