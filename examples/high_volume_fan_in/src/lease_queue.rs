//! The first transport: a queue in a table. Whoever takes a message has it for the time of a
//! lease, in which nobody else is handed it; when the lease expires it is available again.
//!
//! The stream takes a lease when it is polled, and the drain polls it when it can start a handler:
//! there is never more than one lease a feed without a handler.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use rusqlite::{OptionalExtension, params};

use crate::effect;
use crate::input::{Delivery, Feed};
use crate::schema::WORKER;
use crate::source::SourceError;
use crate::store::{Store, StoreError};

/// The messages of `feed` that are not completed, each with a lease of this worker.
///
/// A message that was handed out is not handed out again by the same stream: what is released
/// while the drain runs is left for the next one.
pub(crate) fn messages(
    store: Store,
    feed: Arc<Feed>,
) -> BoxStream<'static, Result<Delivery, SourceError>> {
    stream::try_unfold(0, move |next| {
        let (store, feed) = (store.clone(), Arc::clone(&feed));
        async move {
            let leased = lease(&store, feed.id, next).await?;
            Ok(leased.map(|(position, payload)| {
                let payload = payload.into();
                (Delivery { feed, position, parked: false, payload }, position.saturating_add(1))
            }))
        }
    })
    .boxed()
}

/// Leases the first available message from `next` on.
async fn lease(store: &Store, feed: u32, next: u32) -> Result<Option<(u32, Vec<u8>)>, StoreError> {
    store
        .call(move |connection| {
            let mut lease = connection.prepare_cached(
                "UPDATE leases SET state = 'leased', owner = ?3, expires_at = ?4
                    WHERE feed = ?1 AND position = (
                        SELECT min(position) FROM leases
                        WHERE feed = ?1 AND position >= ?2 AND (state = 'available'
                            OR state = 'leased' AND expires_at <= ?5))
                    RETURNING position, payload",
            )?;
            let values = params![feed, next, WORKER, effect::lease_expiry(), effect::now()];
            let leased =
                lease.query_row(values, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            Ok(leased)
        })
        .await
}
