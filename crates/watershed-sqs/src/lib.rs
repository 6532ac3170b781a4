#![doc = include_str!("../README.md")]

// - `queue`: the options of a queue, and the transport that it is
// - `calls`: the calls of the service's that are batches; `answers`: what its errors mean
// - `attempts`: receives of a FIFO queue that had no answer
// - `letters`: the dead-letter queue; `redrive`: what the queue itself puts aside

mod answers;
mod attempts;
mod calls;
mod letters;
mod queue;
mod redrive;

#[doc = include_str!("coming_from.md")]
pub mod coming_from {}

pub use aws_sdk_sqs;
pub use queue::{Queue, Receipt};
