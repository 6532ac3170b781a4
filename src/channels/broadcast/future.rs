//! The future of a broadcast.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::super::destination::{Destination, Undelivered};
use super::Broadcast;
use super::report::BroadcastReport;
use super::running::Running;
use crate::diagnostics::COUNTERS;
use crate::error::{Error, ErrorCode, Failure};
use crate::source::{Source, Unsettled};

/// The future of a broadcast, see [`broadcast`](crate::channels::broadcast). It is `Send` when its
/// source, its items, its destinations and its callback are, and `Unpin` whatever they are.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::future::IntoFuture;
/// use futures::stream;
/// use watershed::StepContext;
/// use watershed::channels::broadcast;
///
/// let (sender, _receiver) = async_channel::bounded(4);
/// let broadcast = broadcast(&StepContext::new("news"), stream::iter([1]), [sender]);
/// let mut future = broadcast.into_future();
/// assert_eq!((&mut future).await?.items(), 1);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a broadcast does nothing unless it is awaited"]
pub struct BroadcastFuture<S, D, U = fn(Undelivered<<S as Source>::Message>)>
where
    S: Source<Receipt = Unsettled, Message: Clone>,
    D: Destination<Message = S::Message>,
    U: FnMut(Undelivered<S::Message>),
{
    waiting: Option<Box<Broadcast<S, D, U>>>,
    running: Option<Box<Running<S, D, U>>>,
}

impl<S, D, U> BroadcastFuture<S, D, U>
where
    S: Source<Receipt = Unsettled, Message: Clone>,
    D: Destination<Message = S::Message>,
    U: FnMut(Undelivered<S::Message>),
{
    pub(super) fn new(broadcast: Broadcast<S, D, U>) -> Self {
        Self { waiting: Some(Box::new(broadcast)), running: None }
    }
}

impl<S, D, U> Future for BroadcastFuture<S, D, U>
where
    S: Source<Receipt = Unsettled, Message: Clone>,
    D: Destination<Message = S::Message>,
    U: FnMut(Undelivered<S::Message>),
{
    type Output = Result<BroadcastReport, Failure<BroadcastReport>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(broadcast) = this.waiting.take() {
            this.running = Some(Box::new(Running::start(*broadcast)));
        }
        let Some(running) = &mut this.running else {
            let error = Error::new(ErrorCode::Unspecified, "the broadcast had ended already");
            return Poll::Ready(Err(Failure::new(error, BroadcastReport::default())));
        };
        if running.poll(cx).is_pending() {
            return Poll::Pending;
        }
        let result = running.finish();
        COUNTERS.count_operation(&result);
        this.running = None;
        Poll::Ready(result)
    }
}

impl<S, D, U> fmt::Debug for BroadcastFuture<S, D, U>
where
    S: Source<Receipt = Unsettled, Message: Clone>,
    D: Destination<Message = S::Message>,
    U: FnMut(Undelivered<S::Message>),
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastFuture")
            .field("started", &self.waiting.is_none())
            .field("ended", &(self.waiting.is_none() && self.running.is_none()))
            .finish()
    }
}
