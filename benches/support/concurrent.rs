//! The usual ways to handle so many messages of one stream at once.

use std::num::NonZeroUsize;

use futures::stream::{Stream, StreamExt};
use futures_buffered::BufferedStreamExt;
use futures_concurrency::concurrent_stream::ConcurrentStream;
use futures_concurrency::stream::StreamExt as _;

/// A way to handle messages of one stream concurrently.
pub(crate) trait Concurrent {
    /// What the tables call it.
    const NAME: &'static str;

    fn for_each<S, F>(
        messages: S,
        most: usize,
        handler: impl Fn(S::Item) -> F + Clone,
    ) -> impl Future<Output = ()>
    where
        S: Stream,
        F: Future<Output = ()>;
}

pub(crate) struct ForEachConcurrent;

impl Concurrent for ForEachConcurrent {
    const NAME: &'static str = "for_each_concurrent";

    fn for_each<S, F>(
        messages: S,
        most: usize,
        handler: impl Fn(S::Item) -> F + Clone,
    ) -> impl Future<Output = ()>
    where
        S: Stream,
        F: Future<Output = ()>,
    {
        StreamExt::for_each_concurrent(messages, most, handler)
    }
}

pub(crate) struct BufferUnordered;

impl Concurrent for BufferUnordered {
    const NAME: &'static str = "buffer_unordered";

    fn for_each<S, F>(
        messages: S,
        most: usize,
        handler: impl Fn(S::Item) -> F + Clone,
    ) -> impl Future<Output = ()>
    where
        S: Stream,
        F: Future<Output = ()>,
    {
        let results = messages.map(handler).buffer_unordered(most);
        results.for_each(|()| async {})
    }
}

/// The `buffered_unordered` of `futures-buffered`.
pub(crate) struct BufferedUnordered;

impl Concurrent for BufferedUnordered {
    const NAME: &'static str = "futures_buffered";

    fn for_each<S, F>(
        messages: S,
        most: usize,
        handler: impl Fn(S::Item) -> F + Clone,
    ) -> impl Future<Output = ()>
    where
        S: Stream,
        F: Future<Output = ()>,
    {
        let results = messages.map(handler).buffered_unordered(most);
        results.for_each(|()| async {})
    }
}

/// The `for_each_concurrent` of `futures-buffered`.
pub(crate) struct BufferedForEach;

impl Concurrent for BufferedForEach {
    const NAME: &'static str = "futures_buffered_for_each";

    fn for_each<S, F>(
        messages: S,
        most: usize,
        handler: impl Fn(S::Item) -> F + Clone,
    ) -> impl Future<Output = ()>
    where
        S: Stream,
        F: Future<Output = ()>,
    {
        BufferedStreamExt::for_each_concurrent(messages, most, handler)
    }
}

/// The concurrent stream of `futures-concurrency`.
pub(crate) struct Co;

impl Concurrent for Co {
    const NAME: &'static str = "futures_concurrency";

    fn for_each<S, F>(
        messages: S,
        most: usize,
        handler: impl Fn(S::Item) -> F + Clone,
    ) -> impl Future<Output = ()>
    where
        S: Stream,
        F: Future<Output = ()>,
    {
        messages.co().limit(NonZeroUsize::new(most)).for_each(handler)
    }
}
