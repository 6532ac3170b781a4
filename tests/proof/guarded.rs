//! A future that something goes with which is dropped after it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;

pub(crate) struct Guarded<F, G>(pub(crate) F, pub(crate) G);

impl<F: Future + Unpin, G: Unpin> Future for Guarded<F, G> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.0.poll_unpin(cx)
    }
}
