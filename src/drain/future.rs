//! The future of a drain: not started, running, or over.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::Stream;

use super::builder::{Core, FanIn};
use super::letters::DeadLetters;
use super::order::Order;
use super::put_back::PutBack;
use super::report::FanInReport;
use super::running::{Running, state_is_gone};
use super::start::{Parts, Start};
use super::types::{DrainTypes, Drains, Types};
use super::undos::UndoWith;
use crate::error::{Error, Failure};
use crate::outcome::HandlerOutput;
use crate::panics;
use crate::source::Source;
use crate::step::StepContext;

/// The future of a drain, see [`fan_in`](crate::fan_in). It is `Send` when its sources, their
/// messages, the handler, its futures and the drain's other functions are, and `Unpin` whatever
/// they are.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::future::IntoFuture;
/// use futures::stream;
/// use watershed::{BoxError, StepContext, fan_in};
///
/// let context = StepContext::new("drain");
/// let drain = fan_in(&context, [stream::iter([1])], async |_, _| Ok::<_, BoxError>(()));
/// let mut future = drain.into_future();
/// assert_eq!((&mut future).await?.handled(), 1);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a drain does nothing unless it is awaited"]
pub struct FanInFuture<C: DrainTypes> {
    stage: Stage<C>,
}

enum Stage<C: DrainTypes> {
    Waiting(Box<Start<C>>),
    Running(Box<Running<C>>),
    Over,
}

impl<S, H, F, O, D, P, U, N> FanInFuture<Types<S, H, F, O, D, P, U, N>>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
    O: Order<S::Message>,
    D: DeadLetters<S::Message>,
    P: PutBack<S::Message>,
    U: UndoWith,
    N: Stream<Item = S>,
{
    pub(super) fn new(drain: FanIn<S, H, O, D, P, U, N>) -> Self {
        let FanIn { core, order, letters, put_back, undos, incoming } = drain;
        let Core { context, sources, handler, clone, settings, progress } = core;
        let parts = Parts { context, settings, clone, handler, letters, put_back, order, undos };
        let start = Start { sources, incoming, progress, parts };
        Self { stage: Stage::Waiting(Box::new(start)) }
    }
}

impl<C: Drains> Future for FanInFuture<C> {
    type Output = Result<FanInReport, Failure<FanInReport>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // What may panic here outside a turn is the clock, or a source that is asked for its name.
        let polled = panics::contain(|| {
            if let Stage::Waiting(_) = &this.stage {
                if let Stage::Waiting(start) = std::mem::replace(&mut this.stage, Stage::Over) {
                    this.stage = Stage::Running(Box::new(Running::start(*start)));
                }
            }
            let Stage::Running(running) = &mut this.stage else {
                return Poll::Ready(Err(state_is_gone()));
            };
            let span = running.span.clone();
            span.in_scope(|| running.poll(cx))
        });
        let result = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => result,
            Err(message) => Err(Error::panic("the clock or a source", &message)),
        };
        Poll::Ready(match std::mem::replace(&mut this.stage, Stage::Over) {
            Stage::Running(running) => running.finish(result),
            _ => match result {
                Ok(()) => Ok(FanInReport::default()),
                Err(error) => Err(Failure::new(error, FanInReport::default())),
            },
        })
    }
}

/// Dropped before its result, a drain lets go of everything as at its end.
impl<C: DrainTypes> Drop for FanInFuture<C> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Waiting(start) => start.let_go(),
            Stage::Running(running) => {
                // What drops it was noted when it began: here nothing is known of its types.
                let drop_early = running.drop_early;
                drop_early(running);
            }
            Stage::Over => {}
        }
    }
}

impl<C: DrainTypes> fmt::Debug for FanInFuture<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Waiting(_) => "not started",
            Stage::Running(_) => "running",
            Stage::Over => "over",
        };
        f.debug_struct("FanInFuture").field("stage", &stage).finish()
    }
}
