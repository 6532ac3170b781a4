//! All rules at once: drains whose options are chosen and crossed at will, steered from inside and
//! from outside, and held against what must be so for every one of them.
//!
//! - `case`: what is varied; `world`: what the handlers do, and what happened
//! - `drain`: a case as a drain, and the executor that steers it; `account`: what must be so

mod account;
mod case;
mod drain;
mod world;

pub(crate) use case::{Case, Shape};
#[allow(unused_imports, reason = "each test file uses a part of it")]
pub(crate) use drain::{broken_by, run};
