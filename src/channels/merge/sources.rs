//! The sources of a merge: each pinned, named, counted, and dropped when it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::error::Error;
use crate::origin::{Origin, SourceName};
use crate::panics;
use crate::source::{Profile, Source, Unsettled, poll_message};

/// Polls of sources between two moments at which the executor has its thread back.
pub(in super::super) const POLLS_AT_ONCE: usize = 256;

/// The index of a source, and what it yielded.
pub(in super::super) type Taken<M> = (usize, Result<M, Error>);

pub(super) struct Sources<S> {
    entries: Vec<SourceEntry<S>>,
    open: usize,
    /// The source that was polled last.
    polled: usize,
}

struct SourceEntry<S> {
    source: Option<Pin<Box<S>>>,
    name: SourceName,
    taken: u64,
    share: Share,
}

/// What a source has of the turns.
pub(super) struct Share {
    pub(super) weight: usize,
    pub(super) priority: u32,
    /// It is known to be ready.
    pub(super) ready: bool,
}

impl<S: Source<Receipt = Unsettled>> Sources<S> {
    /// # Errors
    ///
    /// When a source has an option that is wrong, or that a merge does not heed.
    pub(super) fn new(sources: Vec<S>, turns: bool) -> Result<Self, Error> {
        let operation = if turns { "a merge" } else { "a merge with a strategy" };
        // All of them are held before the first error is told: they are dropped one by one.
        let mut wrong = None;
        let mut entry = |(index, source): (usize, S)| {
            let profile = source.profile().heeded_by(operation, turns).unwrap_or_else(|error| {
                wrong.get_or_insert(error);
                Profile::default()
            });
            let weight = usize::try_from(profile.weight).unwrap_or(usize::MAX);
            SourceEntry {
                name: SourceName::new(profile.name, index),
                source: Some(Box::pin(source)),
                taken: 0,
                share: Share { weight, priority: profile.priority, ready: false },
            }
        };
        let entries: Vec<_> = sources.into_iter().enumerate().map(&mut entry).collect();
        let sources = Self { open: entries.len(), entries, polled: 0 };
        wrong.map_or(Ok(sources), Err)
    }

    /// How many have not ended.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = Arc<str>> {
        self.entries.iter().map(|entry| entry.name.as_str().into())
    }

    #[inline]
    pub(super) fn share(&mut self, index: usize) -> &mut Share {
        &mut self.entries[index].share
    }

    /// The next message of one source. A fault comes with the name of its source. `left`: what is left of
    /// the polls before the executor has its thread back.
    #[inline]
    pub(super) fn poll(
        &mut self,
        index: usize,
        waker: &Waker,
        left: &mut usize,
    ) -> Poll<Option<Result<S::Message, Error>>> {
        self.polled = index;
        let entry = &mut self.entries[index];
        let Some(source) = &mut entry.source else { return Poll::Ready(None) };
        match poll_message(source.as_mut(), &mut Context::from_waker(waker), left) {
            Poll::Ready(Some(Ok(message))) => {
                entry.taken += 1;
                Poll::Ready(Some(Ok(message)))
            }
            Poll::Ready(Some(Err(fault))) => {
                let origin = Origin { source: entry.name.clone(), message: 0 };
                Poll::Ready(Some(Err(fault.with_origin(origin))))
            }
            Poll::Ready(None) => {
                self.open -= 1;
                entry.source = None;
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The error of a panic in the source that was polled last.
    pub(super) fn blame(&self, message: &str) -> Error {
        let error = Error::panic("the source", message);
        let Some(entry) = self.entries.get(self.polled) else { return error };
        error.with_origin(Origin { source: entry.name.clone(), message: entry.taken })
    }
}

impl<S> Drop for Sources<S> {
    fn drop(&mut self) {
        panics::drop_each(self.entries.drain(..).map(|entry| entry.source));
    }
}
