//! What this process has allocated: only a test that is alone in its process can tell anything by it.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that are allocated just now.
pub(crate) fn held() -> i64 {
    let stats = COUNTED.stats();
    // What grew in place counts on its own.
    stats.bytes_allocated as i64 - stats.bytes_deallocated as i64
}

/// How often anything was allocated, or made larger.
pub(crate) fn allocations() -> u64 {
    let stats = COUNTED.stats();
    (stats.allocations + stats.reallocations) as u64
}
