//! `cargo bench -p benches --bench peers`: the library beside its peers, in one run and on the same work.
//!
//! - `ready`: messages in 1 to 16,384 channels, nothing in the handler
//! - `yielding`: handlers that yield once, so many at once, each on a source of its own; `permits`:
//!   on many sources that wait for few permits; `one_source`: all on one source
//! - `timers`, `timers_of_one`: handlers that wait 1 ms
//! - `undos`, `undos_arc`: two undos a message, with a commit each and one at the end; `rollback`
//! - `live`: another thread fills the sources
//! - `rare`, `first_poll`, `setup`: how long messages wait, and sources at the start
//!
//! What is timed goes from a list of filled channels to everything taken and dropped: the merging
//! stream is made, and taken down, inside. The contenders take turns within a round, so that a
//! machine which slows down slows all of them; a ratio is that of the medians over all rounds. At
//! the end each figure is held against its mark.
//!
//! Arguments, after a `--`:
//!
//! - `ready rollback`: only these workloads
//! - `--quick`: few messages, one round, no verdict. So it is too when cargo runs this as a test.
//! - `--only fan_in --size 64`: one contender, one size; each may be given more than once.
//! - `--channels unbounded`, `--messages 200000`, `--rounds 3`.
//! - `--cpu`: on a machine that does other work as well, counts only the time of the draining thread.
//! - `--chart FILE`: writes a picture of what was measured.
//! - `--instructions`: counts instructions as well, if valgrind is installed. It takes a while.
//!
//! To see where the instructions of one contender go, without filling the channels:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='*measure::timed' \
//!     target/release/deps/peers-… ready --only fan_in --size 64 --messages 100000
//! ```

mod draining;
mod latency;
mod live;
mod ready;
mod rollback;
#[path = "../support/mod.rs"]
mod support;
mod undo;
mod undos;
mod waiting;

use std::process::ExitCode;

use support::section::Section;

static SECTIONS: [Section; 13] = [
    ready::SECTION,
    waiting::YIELDING,
    waiting::PERMITS,
    waiting::ONE_SOURCE,
    waiting::TIMERS,
    waiting::TIMERS_OF_ONE,
    undos::OF_NUMBERS,
    undos::OF_SHARED,
    rollback::SECTION,
    live::SECTION,
    latency::RARE,
    latency::FIRST_POLL,
    latency::SETUP,
];

fn main() -> ExitCode {
    support::run(&SECTIONS)
}
