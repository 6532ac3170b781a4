//! Structured logs: a JSON line for each event, on standard error.

use std::io;

use tracing_subscriber::EnvFilter;
use watershed::BoxError;

/// Logs from now on what `level` asks for.
///
/// # Errors
///
/// When `level` means nothing.
pub(crate) fn start(level: &str) -> Result<(), BoxError> {
    let filter = EnvFilter::try_new(level).map_err(|error| {
        format!("--log {level}: {error}: type a level, such as --log debug or info,watershed=debug")
    })?;
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_current_span(false)
        .with_span_list(false)
        .init();
    Ok(())
}
