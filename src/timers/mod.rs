//! Waiting, ticking and deadlines by the clock of a step.
//!
//! Nothing here reads any other time than that of [`StepContext::clock`](crate::StepContext::clock),
//! and everything ends with the token of its context. What is waited for is a moment, not a span:
//! a clock that steps back is waited for until it gets there again.
//!
//! - `delay`: [`delay`], one wait
//! - `ticker`: [`Ticker`], periodic ticks
//! - `with_timeout`: [`with_timeout`], an operation that is undone when it takes too long

mod delay;
mod ticker;
mod with_timeout;

pub use delay::{Delay, delay};
pub use ticker::{MissedTicks, Ticker};
pub use with_timeout::{WithTimeout, with_timeout};
