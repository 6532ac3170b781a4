//! An error and a panic at every point that can fail.
