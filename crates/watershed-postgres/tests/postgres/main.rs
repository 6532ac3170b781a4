//! What the page promises, line by line, on a real server.
//!
//! ```text
//! .ci/postgres cargo test -p watershed-postgres
//! ```

mod by_hand;
mod claiming;
mod connections;
mod proxy;
mod readme;
mod server;
mod settling;
mod suite;
mod waking;
