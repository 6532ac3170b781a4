//! Operations put together: all of them, any of them, one again, one tier after another.
//!
//! An operation is a closure that takes a [`StepContext`](crate::StepContext) and returns a future
//! of a `Result<T, E>`. It runs as a child step: what it stages ends on the scope of the context,
//! or is undone by the combinator where the combinator says so. Nothing is spawned: operations run
//! side by side within the future of the combinator. One that has not begun when the outcome is
//! decided is not called. An operation that gets a [`Compensated`](crate::Compensated) value stages
//! its compensations with `value.absorb_into(step.scope())`.
//!
//! | | succeeds | undone |
//! | --- | --- | --- |
//! | [`when_all`](when_all()) | when all have | every operation, if one fails |
//! | [`when_any`](when_any()) | with the first that does | every operation but the winner |
//! | [`retry`](retry()) | with the first attempt that does | every failed attempt |
//! | [`Fallback`] | with the first strategy of the first tier that does | every one but the winner |
//!
//! - `race`: operations side by side, their limits and their grace

mod fallback;
mod race;
mod retry;
mod when_all;
mod when_any;
mod winner;

pub use fallback::Fallback;
pub use retry::{Retry, retry};
pub use when_all::{WhenAll, when_all};
pub use when_any::{WhenAny, when_any};
pub use winner::Winner;
