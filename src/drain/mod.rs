//! Many sources, one handler.
//!
//! A drain merges *banks* by `select_all`. A bank has up to 256 *lanes* with one ready queue; a
//! lane owns one source. A handler runs in a *slot*, of which there are as many as handlers may run
//! at once: whoever has a slot may ask its source for a message, so nothing is taken before its
//! handler can start, and memory for handlers goes with those that run.
//!
//! - `builder`: a drain that has not started; `options`: what can be said of it; `settings`, `order`,
//!   `hashed`, `letters`, `put_back`, `undos`: what they are
//! - `report`, `progress`, `warnings`: what comes out; `accounts`: where every message is
//! - `slots`, `queue`, `rate`: who may run a handler, and when
//! - `slot`, `failing`, `after`: the life of one message
//! - `settling`, `unsettled`, `taken_back`: messages from the end of their handler to their settlement;
//!   `upkeep`: the transports
//! - `lane`, `taking`: one source; `serial`: its messages one by one; `many`, `turns`, `starts`,
//!   `runs`: several of them at once
//! - `bank`, `leaving`, `alarms`: many lanes; `banks`, `state`: what all banks share
//! - `future`, `start`, `running`, `finish`: the drain over all banks: its first poll and its
//!   sources, deadlines and cancellation, the end

mod accounts;
mod after;
mod alarms;
mod bank;
mod banks;
mod builder;
mod failing;
mod finish;
mod future;
mod giving_way;
mod hashed;
mod lane;
mod leaving;
mod letters;
mod many;
mod options;
mod order;
mod progress;
mod put_back;
mod queue;
mod rate;
mod report;
mod running;
mod runs;
mod serial;
mod settings;
mod settling;
mod slot;
mod slots;
mod start;
mod starts;
mod state;
mod storing;
mod taken_back;
mod taking;
mod turns;
mod types;
mod undos;
mod unsettled;
mod upkeep;
mod warnings;

pub use builder::{FanIn, fan_in};
pub use letters::Letter;
pub use progress::Progress;
pub use report::{FanInReport, SourceReport, Warning};
pub use settings::{Commit, OnFailure};
