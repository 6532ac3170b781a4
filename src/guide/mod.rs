//! A guide, chapter by chapter. Every program in it is compiled and run as a test.
//!
//! - [`draining`]: one worker, many sources
//! - [`priorities`]: choosing which source goes first
//! - [`batching`]: messages in windows
//! - [`deadlines`]: a deadline for each message, and for operations inside a handler
//! - [`errors`]: going on after a failure, and collecting what went wrong
//! - [`groups`]: tasks beside streams
//! - [`testing`]: time by hand with `ManualClock`, and every schedule by seed
//! - [`modes`]: which commit mode and which failure mode
//! - [`reliability`]: what is promised, how it is tested, and what is not promised
//!
//! For those who know something else already: [`from_dotnet`], [`from_futures`], [`from_go`].

pub mod batching;
pub mod deadlines;
pub mod draining;
pub mod errors;
pub mod from_dotnet;
pub mod from_futures;
pub mod from_go;
pub mod groups;
pub mod modes;
pub mod priorities;
pub mod reliability;
pub mod testing;
