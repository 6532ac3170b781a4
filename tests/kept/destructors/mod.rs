//! Programs of somebody who dropped everything that can be dropped, with destructors that panic: 3.7
//! ("What the library drops it drops one by one, each contained"). Each is named after what is dropped.

mod drains_and_channels;
mod operations_and_undos;

use futures::{FutureExt, Stream, StreamExt};
use std::{
    future::IntoFuture,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use watershed::{channels::*, combinators::*, group::Group, *};
struct B(u8);
impl Drop for B {
    fn drop(&mut self) {
        panic!("destructor {}", self.0)
    }
}
struct S(#[allow(dead_code)] B, u8);
impl Stream for S {
    type Item = u8;
    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u8>> {
        if self.1 == 0 {
            Poll::Pending
        } else {
            self.1 -= 1;
            Poll::Ready(Some(self.1))
        }
    }
}
impl Unpin for S {}
struct SB(u8);
impl Stream for SB {
    type Item = B;
    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<B>> {
        if self.0 == 0 {
            Poll::Pending
        } else {
            self.0 -= 1;
            Poll::Ready(Some(B(self.0)))
        }
    }
}
struct Dst(#[allow(dead_code)] B);
impl Destination for Dst {
    type Message = u8;
    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
    fn try_send(self: Pin<&mut Self>, _: &mut Context<'_>, _: u8) -> Result<(), Refused<u8>> {
        Ok(())
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}
fn ok(f: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(f)).is_ok(), "CROSSED")
}
fn c() -> StepContext {
    StepContext::new("x")
}
async fn h(_: u8, _: StepContext) -> Result<(), BoxError> {
    std::future::pending().await
}
fn half<F: std::future::Future + Unpin>(mut f: F) {
    assert!((&mut f).now_or_never().is_none());
    ok(|| drop(f))
}
