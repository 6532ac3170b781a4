//! `work`: from the configuration to the last line of the log.

use std::time::Duration;

use watershed::{BoxError, Error, ErrorCode, Progress};

use crate::config::Config;
use crate::drain::{self, Drained};
use crate::letters::Letters;
use crate::metrics::Metrics;
use crate::signals::Stop;
use crate::sources::{Sources, error_text};
use crate::store::Store;
use crate::worker::Worker;

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By a signal, with everything done or given back.
    AsAsked,
    /// By a second signal, or because the time for finishing was over: what ran was undone.
    Undone,
    /// The drain failed, or not all could be undone.
    Failed,
}

/// How soon a server is tried again that the worker needs to begin.
const AGAIN: Duration = Duration::from_secs(1);

/// Drains all sources until a signal comes.
///
/// # Errors
///
/// When it cannot begin: an option that a client does not take, a database or a topic that is not there.
pub(crate) async fn work(config: &Config, stop: &Stop) -> Result<Ended, BoxError> {
    let settings = &config.worker;
    let progress = Progress::new();
    let _serving = match &settings.metrics {
        Some(address) => Some(Metrics::serve(address, &progress).await?),
        None => None,
    };
    let store = Store::open(&config.store.url, settings.concurrency, settings.message_timeout)?;
    let tables = async || match store.create_tables().await {
        Err(error) if error.lasts() => Err(Begin::Never(error.into())),
        created => created.map_err(|error| Begin::NotYet(error.into())),
    };
    let Some(()) = patiently(stop, tables).await? else { return Ok(Ended::AsAsked) };
    let open = async || {
        Sources::open(&config.sources, settings).await.map_err(|error| {
            let of_transport = error.downcast_ref::<watershed::Error>();
            if of_transport.is_some_and(|error| error.code() == ErrorCode::Source) {
                Begin::NotYet(error)
            } else {
                Begin::Never(error)
            }
        })
    };
    let Some(mut sources) = patiently(stop, open).await? else { return Ok(Ended::AsAsked) };

    let letters = Letters {
        store: store.clone(),
        again_after: AGAIN,
        topics: std::mem::take(&mut sources.topics),
        files: std::mem::take(&mut sources.files),
    };
    let worker = Worker { store: store.clone(), store_retry: settings.store_retry };
    tracing::info!(sources = config.sources.len(), "working");
    let drained = drain::drain(worker, sources, letters, settings, stop, &progress).await;
    store.close().await;
    Ok(tell(&drained, stop))
}

/// Why a worker has not begun.
enum Begin {
    /// A server is away.
    NotYet(BoxError),
    Never(BoxError),
}

/// Tries until it works; nothing where a signal came before.
async fn patiently<T>(
    stop: &Stop,
    mut begin: impl AsyncFnMut() -> Result<T, Begin>,
) -> Result<Option<T>, BoxError> {
    let stopped = async {
        stop.finish().cancelled().await;
        Ok(None)
    };
    let begun = async {
        loop {
            match begin().await {
                Ok(begun) => return Ok(Some(begun)),
                Err(Begin::Never(error)) => return Err(error),
                Err(Begin::NotYet(error)) => {
                    tracing::warn!("cannot begin yet: {}", error_text(&*error));
                    smol::Timer::after(AGAIN).await;
                }
            }
        }
    };
    smol::future::or(stopped, begun).await
}

/// Writes the last line of the log, which has the whole report.
fn tell(drained: &Drained, stop: &Stop) -> Ended {
    let report = drained.report();
    let was_cut_short = |error: &Error| match error.code() {
        ErrorCode::Canceled => stop.undo().is_cancelled(),
        // Of finishing: there is no other time limit.
        ErrorCode::Timeout => stop.finish().is_cancelled(),
        _ => false,
    };
    let ended = match drained.error() {
        _ if drained.left > 0 => Ended::Failed,
        None => Ended::AsAsked,
        Some(error) if was_cut_short(error) => Ended::Undone,
        Some(_) => Ended::Failed,
    };
    let error = drained.error().map(|error| format!("{error:#}"));
    tracing::info!(
        event = "report",
        ended = ?ended,
        error,
        fetched = report.fetched(),
        accepted = report.accepted(),
        released = report.released(),
        rejected = report.rejected(),
        lost = report.lost(),
        unknown = report.unknown(),
        abandoned = report.abandoned(),
        troubles = report.troubles(),
        attempts = report.attempts(),
        not_undone = drained.left,
        seconds = report.elapsed().as_secs_f64(),
        "ended"
    );
    ended
}
