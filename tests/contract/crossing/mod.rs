//! All rules at once: drains whose options are crossed with each other, and drains that are steered
//! at random, held against what must be so for every one of them.
//!
//! - `case`: what is varied; `world`: what the handlers do, and what happened
//! - `drain`: a case as a drain, and the executor that steers it; `account`: what must be so
//! - `pairs`: every option with every other; `random`: a few thousand drains by their seeds

mod account;
mod case;
mod drain;
mod pairs;
mod random;
mod world;
