//! A guide, chapter by chapter. Every program in it is compiled and run as a test.
//!
//! Taking messages:
//!
//! - [`draining`]: one worker, many sources
//! - [`ordering`]: many messages of one source at once, and in which order
//! - [`priorities`]: choosing which source goes first
//! - [`batching`]: messages in windows
//! - [`live_sources`]: sources that come and go
//! - [`rates`]: no more than so many in a second
//! - [`until_idle`]: a queue that feeds itself
//!
//! What may go wrong, and undoing it:
//!
//! - [`errors`]: what went wrong, in your own words
//! - [`retries`]: trying a message again, after a failure or because it asks to
//! - [`dead_letters`]: a place for messages that are given up
//! - [`deadlines`]: a deadline for each message, and for operations inside a handler
//! - [`modes`]: which commit mode and which failure mode
//! - [`undoing`]: undoing that waits, fails and is tried again
//! - [`local_undos`]: undoing what cannot leave its thread
//! - [`groups`]: tasks beside streams
//!
//! In production:
//!
//! - [`acknowledging`]: messages of a broker, a queue or a log, and what becomes of them
//! - [`writing_an_adapter`]: a transport of your own
//! - [`scaling`]: more than one process, what to set for a thousand, and what settling costs
//! - [`shutdown`]: stopping in good order
//! - [`progress`]: watching a drain while it runs
//! - [`testing`]: time by hand with `ManualClock`, and every schedule by seed
//! - [`contract`]: what you may rely on, rule by rule
//! - [`reliability`]: what is promised, how it is tested, and what is not promised
//!
//! For you, if
//!
//! - your program runs on tokio: [`under_tokio`]
//! - it has a loop of its own, state in an `Rc`, or no threads: [`embedded`]
//! - your messages come from sources of different kinds: [`mixing`]
//! - you build a library of your own on this one: [`embedding`]
//! - you want to see a worker's whole life in one program: [`life`]
//! - the compiler refuses what you wrote: [`compile_errors`]
//!
//! For those who know something else already: [`from_dotnet`] (and [`parity`] with it, test by test),
//! [`from_futures`], [`from_go`]; from rust-rdkafka, `aws-sdk-sqs` or a `skip locked` queue: the pages
//! `coming_from` of [`watershed-kafka`](https://docs.rs/watershed-kafka),
//! [`watershed-sqs`](https://docs.rs/watershed-sqs) and
//! [`watershed-postgres`](https://docs.rs/watershed-postgres).

pub mod acknowledging;
pub mod batching;
pub mod compile_errors;
#[doc = include_str!("settling.md")]
pub mod contract;
pub mod dead_letters;
pub mod deadlines;
pub mod draining;
pub mod embedded;
pub mod embedding;
pub mod errors;
pub mod from_dotnet;
pub mod from_futures;
pub mod from_go;
pub mod groups;
pub mod life;
pub mod live_sources;
pub mod local_undos;
pub mod mixing;
pub mod modes;
pub mod ordering;
pub mod parity;
pub mod priorities;
pub mod progress;
pub mod rates;
pub mod reliability;
pub mod retries;
pub mod scaling;
pub mod shutdown;
pub mod testing;
pub mod under_tokio;
pub mod undoing;
pub mod until_idle;
pub mod writing_an_adapter;
