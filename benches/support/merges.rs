//! The usual ways to make one stream of many.

use std::pin::Pin;

use futures::stream::{Stream, StreamExt};
use futures_concurrency::stream::StreamGroup;

/// A way to make one stream of many.
pub(crate) trait Merge {
    /// What the tables call it.
    const NAME: &'static str;

    fn merge<S: Stream>(sources: Vec<S>) -> impl Stream<Item = S::Item>;
}

/// For the merges that ask for `Unpin`, which a receiver is not.
fn pinned<S>(sources: Vec<S>) -> impl Iterator<Item = Pin<Box<S>>> {
    sources.into_iter().map(Box::pin)
}

pub(crate) struct SelectAll;

impl Merge for SelectAll {
    const NAME: &'static str = "select_all";

    fn merge<S: Stream>(sources: Vec<S>) -> impl Stream<Item = S::Item> {
        futures::stream::select_all(pinned(sources))
    }
}

/// The merge of `futures-concurrency`.
pub(crate) struct Merged;

impl Merge for Merged {
    const NAME: &'static str = "futures_concurrency";

    fn merge<S: Stream>(sources: Vec<S>) -> impl Stream<Item = S::Item> {
        futures_concurrency::stream::Merge::merge(sources)
    }
}

/// The group of `futures-concurrency`.
pub(crate) struct Group;

impl Merge for Group {
    const NAME: &'static str = "stream_group";

    fn merge<S: Stream>(sources: Vec<S>) -> impl Stream<Item = S::Item> {
        pinned(sources).collect::<StreamGroup<_>>()
    }
}

/// Tokio's map of streams.
pub(crate) struct StreamMap;

impl Merge for StreamMap {
    const NAME: &'static str = "stream_map";

    fn merge<S: Stream>(sources: Vec<S>) -> impl Stream<Item = S::Item> {
        let streams: tokio_stream::StreamMap<_, _> = pinned(sources).enumerate().collect();
        streams.map(|(_, message)| message)
    }
}

pub(crate) struct Unicycle;

impl Merge for Unicycle {
    const NAME: &'static str = "unicycle";

    fn merge<S: Stream>(sources: Vec<S>) -> impl Stream<Item = S::Item> {
        sources.into_iter().collect::<unicycle::StreamsUnordered<_>>()
    }
}

/// The unbounded merge of `futures-buffered`.
pub(crate) struct Buffered;

impl Merge for Buffered {
    const NAME: &'static str = "futures_buffered";

    fn merge<S: Stream>(sources: Vec<S>) -> impl Stream<Item = S::Item> {
        pinned(sources).collect::<futures_buffered::MergeUnbounded<_>>()
    }
}
