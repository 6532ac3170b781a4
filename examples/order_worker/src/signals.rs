//! SIGTERM and Ctrl-C. The first one lets what runs finish; the second one undoes it.

use std::io;
use std::thread;

use async_signal::{Signal, Signals};
use futures::StreamExt;
use watershed::{CancellationSource, CancellationToken};

/// What ends a worker from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    /// Nothing more is taken, and what runs is finished.
    finish: CancellationSource,
    /// What runs is told to stop, is undone and given back.
    undo: CancellationSource,
}

impl Stop {
    /// Listens to the signals of this process from now on.
    ///
    /// # Errors
    ///
    /// When the system does not let it.
    pub(crate) fn by_signals() -> io::Result<Self> {
        let stop = Self::default();
        let heard = stop.clone();
        let mut signals = Signals::new([Signal::Term, Signal::Int])?;
        // A thread of its own: it is heard whatever the executor does.
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            smol::block_on(async {
                while let Some(Ok(signal)) = signals.next().await {
                    heard.heed(signal);
                }
            });
        })?;
        Ok(stop)
    }

    fn heed(&self, signal: Signal) {
        if self.finish.is_cancelled() {
            tracing::warn!(?signal, "undoing what runs");
            self.undo.cancel();
        } else {
            tracing::info!(?signal, "finishing what runs; once more to undo it");
            self.finish.cancel();
        }
    }

    /// Cancelled by the first signal.
    pub(crate) fn finish(&self) -> CancellationToken {
        self.finish.token()
    }

    /// Cancelled by the second one.
    pub(crate) fn undo(&self) -> CancellationToken {
        self.undo.token()
    }
}
