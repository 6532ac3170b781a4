//! The future of a merge.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::super::destination::{Destination, Undelivered};
use super::Merge;
use super::intake::{FairTurns, Order};
use super::report::MergeReport;
use super::running::Running;
use crate::diagnostics::COUNTERS;
use crate::error::{Error, ErrorCode};
use crate::panics;
use crate::source::{Source, Unsettled};

/// The future of a merge, see [`merge`](crate::channels::merge). It is `Send` when its sources,
/// its destination and its callback are, and `Unpin` whatever they are.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::future::IntoFuture;
/// use futures::stream;
/// use watershed::StepContext;
/// use watershed::channels::merge;
///
/// let (sender, _receiver) = async_channel::bounded(4);
/// let merge = merge(&StepContext::new("merge"), [stream::iter([1])], sender);
/// let mut future = merge.into_future();
/// assert_eq!((&mut future).await?.delivered(), 1);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a merge does nothing unless it is awaited"]
pub struct MergeFuture<S, D, P = FairTurns, U = fn(Undelivered<<S as Source>::Message>)>
where
    S: Source<Receipt = Unsettled>,
    D: Destination<Message = S::Message>,
    P: Order<S>,
    U: FnMut(Undelivered<S::Message>),
{
    waiting: Option<Box<Merge<S, D, P, U>>>,
    running: Option<Box<Running<P::Intake, D, U>>>,
}

impl<S, D, P, U> MergeFuture<S, D, P, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination<Message = S::Message>,
    P: Order<S>,
    U: FnMut(Undelivered<S::Message>),
{
    pub(super) fn new(merge: Merge<S, D, P, U>) -> Self {
        Self { waiting: Some(Box::new(merge)), running: None }
    }
}

impl<S, D, P, U> Future for MergeFuture<S, D, P, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination<Message = S::Message>,
    P: Order<S>,
    U: FnMut(Undelivered<S::Message>),
{
    type Output = Result<MergeReport, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(merge) = this.waiting.take() {
            this.running = Some(Box::new(Running::start(*merge)));
        }
        let Some(running) = &mut this.running else {
            let error = Error::new(ErrorCode::Unspecified, "the merge had ended already");
            return Poll::Ready(Err(error));
        };
        if running.poll(cx).is_pending() {
            return Poll::Pending;
        }
        let result = running.finish();
        COUNTERS.count_operation(&result);
        let running = this.running.take();
        panics::drop_contained(|| drop(running));
        Poll::Ready(result)
    }
}

impl<S, D, P, U> Drop for MergeFuture<S, D, P, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination<Message = S::Message>,
    P: Order<S>,
    U: FnMut(Undelivered<S::Message>),
{
    fn drop(&mut self) {
        // What is left to be dropped then is the destination.
        let running = self.running.take();
        panics::drop_contained(|| drop(running));
    }
}

impl<S, D, P, U> fmt::Debug for MergeFuture<S, D, P, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination<Message = S::Message>,
    P: Order<S>,
    U: FnMut(Undelivered<S::Message>),
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeFuture")
            .field("started", &self.waiting.is_none())
            .field("ended", &(self.waiting.is_none() && self.running.is_none()))
            .finish()
    }
}
