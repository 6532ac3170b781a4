//! What the log and the socket have in common: messages are lines in a fixed order, and what has
//! been done of them is a position, plus the lines before it that failed and were parked.

use std::collections::BTreeSet;
use std::future::ready;
use std::io;
use std::sync::Arc;

use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use smol::io::{AsyncBufRead, AsyncBufReadExt};

use crate::input::{Delivery, Feed};
use crate::source::SourceError;

/// Which lines of a feed are not done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bookmark {
    /// Lines before `next` that an earlier run passed because they failed.
    pub(crate) parked: BTreeSet<u32>,
    /// The first line that has not been passed.
    pub(crate) next: u32,
}

impl Bookmark {
    /// The lines that are not done, of `messages` in all, in their order.
    pub(crate) fn positions(&self, messages: u32) -> impl Iterator<Item = u32> {
        self.parked.iter().copied().chain(self.next..messages)
    }
}

/// Reads one line for each of `positions`; fewer is a fault of the source.
pub(crate) fn read(
    reader: impl AsyncBufRead + Send + Unpin + 'static,
    positions: impl IntoIterator<Item = u32, IntoIter: Send + 'static>,
) -> impl Stream<Item = io::Result<(u32, Vec<u8>)>> + Send + 'static {
    let state = (reader, positions.into_iter());
    stream::try_unfold(state, |(mut reader, mut positions)| async move {
        let Some(position) = positions.next() else { return Ok(None) };
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).await?;
        if line.pop() != Some(b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(((position, line), (reader, positions))))
    })
}

/// Makes messages of the lines that are not done.
pub(crate) fn deliver(
    lines: impl Stream<Item = io::Result<(u32, Vec<u8>)>> + Send + 'static,
    feed: Arc<Feed>,
    bookmark: Bookmark,
) -> BoxStream<'static, Result<Delivery, SourceError>> {
    lines
        .try_filter_map(move |(position, payload)| {
            let parked = bookmark.parked.contains(&position);
            let not_done = parked || position >= bookmark.next;
            let feed = Arc::clone(&feed);
            ready(Ok(not_done.then_some(Delivery {
                feed,
                position,
                parked,
                payload: payload.into(),
            })))
        })
        .map_err(SourceError::Io)
        .boxed()
}
