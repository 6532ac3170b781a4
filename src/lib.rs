//! placeholder
mod cancellation;
mod channels;
mod clock;
mod compensation;
mod context;
pub mod diagnostics;
mod error;
mod lock;
mod outcome;
mod panics;
mod retry;

pub use cancellation::{CancellationSource, CancellationToken, Cancelled};
pub use channels::*;
pub use clock::{Clock, ManualClock, Sleep, SystemClock, Tick};
pub use compensation::*;
pub use context::StepContext;
pub use error::{BoxError, Error, ErrorCode};
pub use outcome::{Compensated, HandlerOutput, try_async};
pub use retry::RetryPolicy;
