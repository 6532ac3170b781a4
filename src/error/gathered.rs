//! Errors that are met one after another, for as long as an operation lives.

use super::Error;
use super::related::MAX_RELATED;

/// The first errors of any number, by value, and how many there were.
///
/// Each has a place, such as the number of its task; those with the lowest places are kept, and of
/// one place those that came first. It keeps as many as an [`Error`] does, and attaches one less to
/// one, so that what is attached behind them, such as the error of the rollback that follows, is kept
/// as well: an operation whose own error is the first of them tells of as many others.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// In the order of their places.
    kept: Vec<(u64, Error)>,
    total: u64,
}

impl Gathered {
    const MOST: usize = MAX_RELATED;

    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Counts an error and keeps it if it is one of the first. Hands out what is not kept, to be
    /// dropped where no lock is held.
    pub(crate) fn add(&mut self, place: u64, error: Error) -> Option<Error> {
        self.total = self.total.saturating_add(1);
        let at = self.kept.partition_point(|(known, _)| *known <= place);
        if at == Self::MOST {
            return Some(error);
        }
        let pushed_out = (self.kept.len() == Self::MOST).then(|| self.kept.pop()).flatten();
        self.kept.insert(at, (place, error));
        pushed_out.map(|(_, error)| error)
    }

    /// The first of them, which is counted no more.
    pub(crate) fn take_first(&mut self) -> Option<Error> {
        if self.kept.is_empty() {
            return None;
        }
        self.total -= 1;
        Some(self.kept.remove(0).1)
    }

    /// Adds those of another one behind these, each changed by `change`.
    pub(crate) fn append(&mut self, other: Self, change: impl Fn(u64, Error) -> Error) {
        let total = self.total.saturating_add(other.total);
        let behind = self.kept.last().map_or(0, |(place, _)| *place);
        for (place, error) in other.kept {
            if self.kept.len() < Self::MOST {
                self.kept.push((behind, change(place, error)));
            }
        }
        self.total = total;
    }
}

impl Error {
    /// The same error with what was gathered attached, in the order of the places.
    pub(crate) fn with_gathered(self, gathered: Gathered) -> Self {
        let attached = gathered.kept.len().min(MAX_RELATED - 1);
        let unkept = gathered.total - attached as u64;
        let kept = gathered.kept.into_iter().take(attached).map(|(_, error)| error);
        self.with_related(kept).with_more_related(unkept)
    }
}
