//! The drain's sources: one named stream a feed, whatever transports it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::stream::BoxStream;
use watershed::{Configured, Faults, Source};

use crate::input::{Delivery, Feed, Transport};
use crate::store::{Store, StoreError};
use crate::{lease_queue, partition_log, schema, tcp};

/// A source of the drain. Its errors are faults, which end the drain at once.
pub(crate) type Reader = Configured<Faults<BoxStream<'static, Result<Delivery, SourceError>>>>;

/// Why a transport could not hand over the next message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The three transports, ready to be read from.
#[derive(Debug)]
pub(crate) struct Transports {
    pub(crate) store: Store,
    pub(crate) partitions: PathBuf,
    pub(crate) sender: tcp::Sender,
}

impl Transports {
    /// Makes a source of each feed, of what is not done of it.
    ///
    /// # Errors
    ///
    /// When a partition cannot be opened or the sender not be reached.
    pub(crate) async fn readers(&self, feeds: Vec<Arc<Feed>>) -> Result<Vec<Reader>, SourceError> {
        let mut readers = Vec::with_capacity(feeds.len());
        for feed in feeds {
            let name = Arc::clone(&feed.name);
            readers.push(self.messages(feed).await?.faults().named(name));
        }
        Ok(readers)
    }

    async fn messages(
        &self,
        feed: Arc<Feed>,
    ) -> Result<BoxStream<'static, Result<Delivery, SourceError>>, SourceError> {
        if feed.transport == Transport::LeaseQueue {
            return Ok(lease_queue::messages(self.store.clone(), feed));
        }
        let id = feed.id;
        let bookmark = move |connection: &_| Ok(schema::bookmark(connection, id)?);
        let bookmark = self.store.call(bookmark).await?;
        Ok(match feed.transport {
            Transport::Log => partition_log::messages(&self.partitions, feed, bookmark).await?,
            _ => tcp::messages(self.sender.address(), feed, bookmark).await?,
        })
    }
}
