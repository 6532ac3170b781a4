//! The two transports, as an adapter for a broker of your own would be written.
//!
//! Both keep what they must know in the tables `queue`, `partitions` and `members` of `schema.sql`. Any
//! number of processes can use them at once.

pub(crate) mod lease_queue;
pub(crate) mod partition_log;
#[cfg(test)]
mod tests;

use std::time::Duration;

/// A message of either transport.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// The number of its queue, or of its partition.
    pub(crate) place: u32,
    /// Its number there; 0 is the first.
    pub(crate) number: u32,
    pub(crate) body: Vec<u8>,
}

/// How long a row or a partition is a worker's, if it does not renew that: so long the others wait for
/// what one has that was killed.
const LEASE: Duration = Duration::from_secs(1);

/// Milliseconds by the database's own clock.
const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// A span as the database counts it.
fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
