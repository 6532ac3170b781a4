//! `cargo bench --bench peers`: the library beside its peers, in one run and on the same work.
//!
//! - `ready`: one million messages in 1 to 16,384 channels
//! - `idle`: one ready source among 1 to 100,000 idle ones
//! - `live`, `latency`: other threads fill the sources, as fast as they can and at a steady pace
//! - `yielding`, `timers`: handlers that wait, so many at once, each on a source of its own;
//!   `yielding_of_one`, `timers_of_one`: all on one source
//! - `two_compensations`, `compensations`: so many compensations a message, in each commit mode
//! - `rollback`, `abort`: so many actions, staged before and staged by a drain that fails
//! - `payloads`: messages of several sizes
//! - `executors`: several executors
//!
//! What is timed goes from a list of filled channels to everything taken and dropped: the merging
//! stream is made, and taken down, inside. The contenders take turns within a round, so that a
//! machine which slows down slows all of them; a ratio is taken within its round, and the table
//! shows the median over the rounds.
//!
//! Arguments, after a `--`:
//!
//! - `ready rollback`: only these workloads
//! - `--quick`: few messages, one round, no verdict. So it is too when cargo runs this as a test.
//! - `--only fan_in --size 64`: one contender, one size; each may be given more than once.
//! - `--channels unbounded`, `--messages 200000`, `--rounds 3`.
//!
//! - `--chart FILE`: writes a picture of what was measured.
//! - `--instructions`: counts instructions as well, if valgrind is installed. It takes a while.
//!
//! To see where the instructions of one contender go, without filling the channels:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='*measure::timed' \
//!     target/release/deps/peers-… ready --only fan_in --size 64 --messages 100000
//! ```

mod compensations;
mod draining;
mod executors;
mod idle;
mod live;
mod payloads;
mod ready;
mod rollback;
#[path = "../support/mod.rs"]
mod support;
mod undo;
mod waiting;

use std::process::ExitCode;

use support::section::Section;

static SECTIONS: [Section; 14] = [
    ready::SECTION,
    idle::SECTION,
    live::FLOODED,
    live::PACED,
    waiting::YIELDING,
    waiting::YIELDING_OF_ONE,
    waiting::TIMED,
    waiting::TIMED_OF_ONE,
    compensations::OF_TWO,
    compensations::BY_NUMBER,
    rollback::ALONE,
    rollback::ABORTED,
    payloads::SECTION,
    executors::SECTION,
];

fn main() -> ExitCode {
    support::run(&SECTIONS)
}
