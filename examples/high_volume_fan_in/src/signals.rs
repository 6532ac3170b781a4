//! Ctrl-C and SIGTERM. The first one lets what runs finish; the second one undoes it.

use watershed::{CancellationSource, CancellationToken};

/// What ends a run from outside.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// Nothing more is taken, and what runs is finished.
    finish: CancellationSource,
    /// What runs is told to stop, is undone and given back.
    undo: CancellationSource,
}

impl Signals {
    /// Listens to the signals of this process from now on.
    ///
    /// # Errors
    ///
    /// When the system does not let it.
    pub(crate) fn listen() -> Result<Self, ctrlc::Error> {
        let signals = Self::default();
        let (finish, undo) = (signals.finish.clone(), signals.undo.clone());
        ctrlc::set_handler(move || Self::heed(&finish, &undo))?;
        Ok(signals)
    }

    fn heed(finish: &CancellationSource, undo: &CancellationSource) {
        if finish.is_cancelled() {
            undo.cancel();
        } else {
            eprintln!("finishing what runs; once more to undo it");
            finish.cancel();
        }
    }

    /// As if a signal had come.
    #[cfg(test)]
    pub(crate) fn signal(&self) {
        Self::heed(&self.finish, &self.undo);
    }

    pub(crate) fn finish(&self) -> CancellationSource {
        self.finish.clone()
    }

    pub(crate) fn undo(&self) -> CancellationToken {
        self.undo.token()
    }

    /// Whether one has come.
    pub(crate) fn came(&self) -> bool {
        self.finish.is_cancelled()
    }
}
