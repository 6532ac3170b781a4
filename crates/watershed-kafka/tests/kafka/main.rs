//! The adapter on a real broker: `.ci/kafka cargo test -p watershed-kafka` starts one. What that does not
//! do on demand is tried on the client's own, which is in the test's process.

mod answers;
mod conformance;
mod killing;
mod letters;
mod positions;
mod reading;
mod readme;
mod rebalancing;
mod support;
