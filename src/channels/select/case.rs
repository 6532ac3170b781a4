//! A source, its continuation, and the message that is being continued with.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::super::source::Source;
use crate::context::StepContext;
use crate::error::{BoxError, Error, ErrorCode};
use crate::outcome::Contained;
use crate::panics;

/// What asking a case came to.
pub(super) enum Asked {
    /// It had a message, and its continuation has been called.
    Won,
    Ended,
}

/// A [`Case`] whose types are not known.
pub(super) trait AnyCase<T> {
    /// Takes a message, if there is one, and calls the continuation with it.
    fn poll_take(
        self: Pin<&mut Self>,
        step: &StepContext,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Asked, Error>>;

    /// Polls the continuation that was called last.
    fn poll_continue(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Error>>;

    /// Drops the continuation where it is.
    fn abandon(self: Pin<&mut Self>);
}

pin_project! {
    pub(super) struct Case<S, H, F, T, E> {
        #[pin]
        source: S,
        handler: H,
        #[pin]
        running: Option<Contained<F, fn(Result<T, E>) -> Result<T, Error>>>,
    }
}

impl<S, H, F, T, E> Case<S, H, F, T, E>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
{
    pub(super) fn new(source: S, handler: H) -> Self {
        Self { source, handler, running: None }
    }
}

fn settle<T, E: Into<BoxError>>(result: Result<T, E>) -> Result<T, Error> {
    result.map_err(|error| Error::from_error(ErrorCode::Handler, error))
}

impl<S, H, F, T, E> AnyCase<T> for Case<S, H, F, T, E>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    fn poll_take(
        self: Pin<&mut Self>,
        step: &StepContext,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Asked, Error>> {
        let mut this = self.project();
        let asked = match panics::contain(|| this.source.as_mut().poll_message(cx)) {
            Ok(poll) => ready!(poll),
            Err(message) => return Poll::Ready(Err(Error::panic("the source", &message))),
        };
        let Some(message) = asked else { return Poll::Ready(Ok(Asked::Ended)) };
        let message = message?;
        let call = || (this.handler)(message, step.clone());
        let running = Contained::call("the continuation", call, settle as fn(_) -> _)?;
        this.running.set(Some(running));
        Poll::Ready(Ok(Asked::Won))
    }

    fn poll_continue(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Error>> {
        let mut this = self.project();
        let Some(running) = this.running.as_mut().as_pin_mut() else { return Poll::Pending };
        let result = ready!(running.poll(cx));
        this.running.set(None);
        Poll::Ready(result)
    }

    fn abandon(self: Pin<&mut Self>) {
        self.project().running.set(None);
    }
}
