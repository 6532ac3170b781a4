//! All values, or all errors.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use futures::{StreamExt, TryStream};

use super::lifted::Lifted;
use crate::context::StepContext;
use crate::error::{BoxError, Error, ErrorCode};

/// Items that one poll takes before the executor has its thread back.
const ITEMS_PER_POLL: usize = 256;

/// Pending once, and woken already.
async fn give_back() {
    let mut given = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

pub(super) async fn collect_all<S>(stream: S, context: StepContext) -> Result<Vec<S::Ok>, Error>
where
    S: TryStream<Error: Into<BoxError>>,
{
    let mut stream = pin!(Lifted::new(stream, &context));
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    while let Some(item) = stream.next().await {
        match item {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
        if (values.len() + errors.len()) % ITEMS_PER_POLL == 0 {
            give_back().await;
        }
    }
    if errors.is_empty() {
        return Ok(values);
    }
    let cancelled = context.cancellation().is_cancelled();
    let last_is_its_end = errors.last().is_some_and(|last| last.code() == ErrorCode::Canceled);
    let ended = if cancelled && last_is_its_end { errors.pop() } else { None };
    let error = ended.unwrap_or_else(|| {
        Error::new(ErrorCode::Aggregate, format!("{} items failed", errors.len()))
    });
    Err(error.with_related(errors).with_metadata("succeeded", values.len()))
}
