//! All values, or all errors.

use std::pin::pin;

use futures::{StreamExt, TryStream};

use super::lifted::Lifted;
use crate::context::StepContext;
use crate::error::{BoxError, Error, ErrorCode};

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
