//! Waiting for somebody to enqueue something: a hint, which may be lost at any time.

use std::pin::Pin;

use futures::FutureExt;
use futures::future::{Either, select};
use futures::lock::Mutex;
use futures_timer::Delay;
use sqlx::postgres::{PgListener, PgPool};
use watershed::CancellationToken;

/// A connection that listens; none before it is asked for, or after it was lost.
#[derive(Debug, Default)]
pub(crate) struct Hints(Mutex<Option<PgListener>>);

impl Hints {
    /// Waits for a hint until it is over, and says whether it is worth asking again. Where two wait, the
    /// second one gets none, and asks in its own time.
    pub(crate) async fn wait(
        &self,
        pool: &PgPool,
        channel: &str,
        over: Pin<&mut Delay>,
        stop: &CancellationToken,
    ) -> bool {
        let Some(mut listener) = self.0.try_lock() else { return false };
        let listened = listener.is_some();
        let result = {
            let hinted = Box::pin(Self::hinted(&mut listener, pool, channel));
            let over = select(over, Box::pin(stop.cancelled()));
            match select(hinted, over).await {
                Either::Left((result, _)) => result,
                Either::Right(_) => return false,
            }
        };
        if result.is_ok() {
            return true;
        }
        // Without it the queue is asked at its interval all the same; the next wait tries anew.
        *listener = None;
        // Hints were lost with it.
        listened
    }

    async fn hinted(
        listener: &mut Option<PgListener>,
        pool: &PgPool,
        channel: &str,
    ) -> Result<(), sqlx::Error> {
        let Some(listener) = listener else {
            let mut new = PgListener::connect_with(pool).await?;
            new.listen(channel).await?;
            *listener = Some(new);
            // Whatever was enqueued before was told to nobody.
            return Ok(());
        };
        // `None`: its connection was lost, and hints with it.
        listener.try_recv().await?;
        // Those that are there already say the same.
        while let Some(Ok(Some(_))) = listener.try_recv().now_or_never() {}
        Ok(())
    }

    pub(crate) async fn close(&self) {
        drop(self.0.lock().await.take());
    }
}
