//! A source, its continuation, and the message that is being continued with.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::error::Error;
use crate::outcome::{Contained, HandlerOutput, settle_for_good};
use crate::panics;
use crate::source::{PASSED_OVER_AT_ONCE, Source, Unsettled, poll_message};
use crate::step::StepContext;
use crate::undo::CompensationScope;

/// What asking a case came to.
pub(super) enum CaseAnswer {
    /// It had a message, and its continuation has been called.
    Won,
    /// It had a fault, or its continuation could not be called.
    Failed(Error),
    /// It is not to be asked again: its source has ended, or has panicked.
    Ended(Option<Error>),
}

/// A [`Case`] whose types are not known.
pub(super) trait AnyCase<T> {
    /// Takes a message, if there is one, and calls the continuation with it: a message that was
    /// taken is never anywhere in between.
    fn poll_take(
        self: Pin<&mut Self>,
        step: &StepContext,
        cx: &mut Context<'_>,
    ) -> Poll<CaseAnswer>;

    /// Polls the continuation that was called last.
    fn poll_continue(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Error>>;

    /// Drops the continuation where it is, and gives the panic of its destructor.
    fn abandon(self: Pin<&mut Self>) -> Option<Error>;
}

pin_project! {
    pub(super) struct Case<S, H, F, M, K> {
        #[pin]
        source: Option<S>,
        handler: Option<H>,
        settle: K,
        #[pin]
        running: Option<Contained<F, M>>,
    }

    impl<S, H, F, M, K> PinnedDrop for Case<S, H, F, M, K> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            this.running.set(None);
            panics::drop_contained(|| this.source.set(None));
            let handler = this.handler.take();
            panics::drop_contained(|| drop(handler));
        }
    }
}

impl<S, H, F, M, K> Case<S, H, F, M, K>
where
    S: Source<Receipt = Unsettled>,
    H: FnMut(S::Message, StepContext) -> F,
    K: Fn(&CompensationScope) -> M,
{
    /// `settle` makes what settles a result of the continuation on a scope.
    pub(super) fn new(source: S, handler: H, settle: K) -> Self {
        Self { source: Some(source), handler: Some(handler), settle, running: None }
    }
}

/// What makes a result of the output of a continuation, its compensations staged on `scope`.
pub(super) fn settling<O: HandlerOutput<T>, T>(
    scope: &CompensationScope,
) -> impl FnOnce(O) -> Result<T, Error> + use<O, T> {
    let scope = scope.clone();
    move |output| settle_for_good(output, &scope)
}

impl<T, S, H, F, M, K> AnyCase<T> for Case<S, H, F, M, K>
where
    S: Source<Receipt = Unsettled>,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future,
    M: FnOnce(F::Output) -> Result<T, Error>,
    K: Fn(&CompensationScope) -> M,
{
    fn poll_take(
        self: Pin<&mut Self>,
        step: &StepContext,
        cx: &mut Context<'_>,
    ) -> Poll<CaseAnswer> {
        let mut this = self.project();
        let (Some(source), Some(handler)) = (this.source.as_mut().as_pin_mut(), this.handler)
        else {
            return Poll::Ready(CaseAnswer::Ended(None));
        };
        let panicked = |message: String| Error::panic("the source", &message);
        let mut left = PASSED_OVER_AT_ONCE;
        let message = match panics::contain(|| poll_message(source, cx, &mut left)) {
            Ok(poll) => match ready!(poll) {
                Some(Ok(message)) => message,
                Some(Err(fault)) => return Poll::Ready(CaseAnswer::Failed(fault)),
                None => {
                    let dropped = panics::contain(|| this.source.set(None));
                    return Poll::Ready(CaseAnswer::Ended(dropped.err().map(panicked)));
                }
            },
            Err(message) => {
                panics::drop_contained(|| this.source.set(None));
                return Poll::Ready(CaseAnswer::Ended(Some(panicked(message))));
            }
        };
        let call = || handler(message, step.clone());
        Poll::Ready(match Contained::call("the continuation", call, (this.settle)(step.scope())) {
            Ok(running) => {
                this.running.set(Some(running));
                CaseAnswer::Won
            }
            Err(error) => CaseAnswer::Failed(error),
        })
    }

    fn poll_continue(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Error>> {
        let mut this = self.project();
        let Some(running) = this.running.as_mut().as_pin_mut() else { return Poll::Pending };
        let result = ready!(running.poll(cx));
        this.running.set(None);
        Poll::Ready(result)
    }

    fn abandon(self: Pin<&mut Self>) -> Option<Error> {
        let mut this = self.project();
        let panicked = this.running.as_mut().as_pin_mut().and_then(Contained::abandon);
        this.running.set(None);
        panicked
    }
}
