//! Programs of those who tried to break the library with nothing but the contract and the docs, and
//! the smallest program of each defect that was found otherwise. Each is named after what was seen.

#![allow(dead_code, unused_imports, clippy::all, clippy::pedantic, reason = "kept as they came")]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod destructors;
mod drains;
mod drains_more;
mod drains_third;
mod found;
mod groups;
mod undos;
mod undos_more;
