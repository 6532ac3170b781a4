//! The library beside its peers: `cargo bench -p benches --bench peers` (or `adapters`, or `memory`).
//!
//! Each bench prints its marks beside what it measured, and `-- --help` says what else it can do.
