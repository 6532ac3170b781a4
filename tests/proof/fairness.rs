//! No ready source waits longer than the bound, and no executor.
