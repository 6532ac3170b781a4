//! A topic for what was given up.
