//! What user code returns: plain results, and results that bring compensations with them.

use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::error::{BoxError, Error, ErrorCode};
use crate::panics;
use crate::undo::{Action, CompensationScope};

/// A value and the compensations of the effects that made it.
///
/// A handler may return one in place of `()`: the drain stages its compensations behind those the
/// handler registered itself. A `Compensated` that is dropped instead of being absorbed loses
/// them, which is counted and reported as for any [`CompensationScope`].
///
/// ```
/// use watershed::{Compensated, CompensationScope};
///
/// fn reserve_seat() -> Compensated<u32> {
///     Compensated::new(17).with_compensation(async || { /* free seat 17 */ })
/// }
///
/// let scope = CompensationScope::new();
/// let seat = reserve_seat().absorb_into(&scope);
/// assert_eq!((seat, scope.len()), (17, 1));
/// # scope.clear();
/// ```
#[must_use = "a value that is dropped here loses its compensations"]
pub struct Compensated<T> {
    value: T,
    scope: Option<CompensationScope>,
}

impl<T> Compensated<T> {
    /// A value without compensations so far.
    ///
    /// ```
    /// let scope = watershed::CompensationScope::new();
    /// assert_eq!(watershed::Compensated::new(17).absorb_into(&scope), 17);
    /// ```
    pub const fn new(value: T) -> Self {
        Self { value, scope: None }
    }

    /// The same value with one more compensation; the one added last runs first.
    ///
    /// ```
    /// use watershed::{Compensated, CompensationScope};
    ///
    /// let both = Compensated::new(()).with_compensation(async || {}).with_compensation(async || {});
    /// let scope = CompensationScope::new();
    /// both.absorb_into(&scope);
    /// assert_eq!(scope.clear(), 2);
    /// ```
    #[track_caller]
    pub fn with_compensation(mut self, action: impl Action) -> Self {
        self.scope.get_or_insert_default().register_compensation(action);
        self
    }

    /// Moves the compensations into `scope` and gives the value.
    ///
    /// ```
    /// let scope = watershed::CompensationScope::new();
    /// assert_eq!(watershed::Compensated::new("done").absorb_into(&scope), "done");
    /// ```
    pub fn absorb_into(self, scope: &CompensationScope) -> T {
        if let Some(own) = &self.scope {
            scope.absorb(own);
        }
        self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Compensated<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compensated")
            .field("value", &self.value)
            .field("compensations", &self.scope.as_ref().map_or(0, CompensationScope::len))
            .finish()
    }
}

/// What a handler that did not fail says of its message.
///
/// ```
/// use std::time::Duration;
/// use watershed::{Answer, BoxError};
///
/// async fn store(row: u32, locked: bool) -> Result<Answer, BoxError> {
///     if locked {
///         return Ok(Answer::Later(Duration::from_secs(2)));
///     }
///     println!("{row} is stored");
///     Ok(Answer::Done)
/// }
/// # futures::executor::block_on(async {
/// assert_eq!(store(17, true).await?, Answer::Later(Duration::from_secs(2)));
/// # Ok::<_, BoxError>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// The message was handled.
    #[default]
    Done,
    /// The message is to be handled again after this time. What the handler did for it is undone
    /// first; that is no failure, and counts as no attempt.
    Later(Duration),
}

/// What a handler, a task or a continuation may return where a `T` is asked for: `Result<T, E>` or
/// `Result<Compensated<T>, E>`, with any error `E` that converts into a [`BoxError`]. A handler,
/// which is asked for `()`, may return `Result<Answer, E>` as well.
///
/// ```
/// use watershed::{Answer, BoxError, Compensated, HandlerOutput};
///
/// fn is_handler_output<T: HandlerOutput>() {}
/// is_handler_output::<Result<(), std::io::Error>>();
/// is_handler_output::<Result<Compensated<()>, BoxError>>();
/// is_handler_output::<Result<Answer, BoxError>>();
///
/// fn gives_a_seat<T: HandlerOutput<u32>>() {}
/// gives_a_seat::<Result<Compensated<u32>, BoxError>>();
/// ```
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "its handler returns `{Self}`",
    note = "a handler returns `Result<(), E>`, `Result<Answer, E>` or `Result<Compensated<()>, E>`",
    note = "leave a value out by `.map(drop)`; where nothing can fail, end with \
            `Ok::<_, BoxError>(())`",
    note = "see `watershed::guide::compile_errors`"
)]
pub trait HandlerOutput<T = ()> {
    /// The value, or the time after which the message is to come again. Its compensations are
    /// staged on the scope, and its error is wrapped.
    ///
    /// # Errors
    ///
    /// When the handler failed.
    #[doc(hidden)]
    fn settle<'a>(
        self,
        scope: impl FnOnce() -> &'a CompensationScope,
    ) -> Result<ControlFlow<Duration, T>, Error>;
}

impl<T, E: Into<BoxError>> HandlerOutput<T> for Result<T, E> {
    #[inline]
    fn settle<'a>(
        self,
        _: impl FnOnce() -> &'a CompensationScope,
    ) -> Result<ControlFlow<Duration, T>, Error> {
        match self {
            Ok(value) => Ok(ControlFlow::Continue(value)),
            Err(error) => Err(Error::from_error(ErrorCode::Handler, error)),
        }
    }
}

impl<T, E: Into<BoxError>> HandlerOutput<T> for Result<Compensated<T>, E> {
    fn settle<'a>(
        self,
        scope: impl FnOnce() -> &'a CompensationScope,
    ) -> Result<ControlFlow<Duration, T>, Error> {
        match self {
            Ok(compensated) => Ok(ControlFlow::Continue(compensated.absorb_into(scope()))),
            Err(error) => Err(Error::from_error(ErrorCode::Handler, error)),
        }
    }
}

impl<E: Into<BoxError>> HandlerOutput for Result<Answer, E> {
    #[inline]
    fn settle<'a>(
        self,
        _: impl FnOnce() -> &'a CompensationScope,
    ) -> Result<ControlFlow<Duration, ()>, Error> {
        match self {
            Ok(Answer::Done) => Ok(ControlFlow::Continue(())),
            Ok(Answer::Later(wait)) => Ok(ControlFlow::Break(wait)),
            Err(error) => Err(Error::from_error(ErrorCode::Handler, error)),
        }
    }
}

/// The value of an output where nothing takes a message up again.
pub(crate) fn settle_for_good<T>(
    output: impl HandlerOutput<T>,
    scope: &CompensationScope,
) -> Result<T, Error> {
    match output.settle(|| scope)? {
        ControlFlow::Continue(value) => Ok(value),
        ControlFlow::Break(_) => {
            Err(Error::validation("only a message of a drain that retries can come later"))
        }
    }
}

/// Runs an operation and turns whatever goes wrong into an [`Error`]: its own error, and a panic.
///
/// # Errors
///
/// - The operation's error; one that is not an [`Error`] yet becomes
///   [`ErrorCode::Unspecified`] with the error as its cause.
/// - [`ErrorCode::Panic`] when the operation panicked.
///
/// # Cancel safety
///
/// Dropping the future drops the operation where it is.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{ErrorCode, try_async};
///
/// let number = try_async(async || "17".parse::<u32>()).await?;
/// assert_eq!(number, 17);
///
/// let error = try_async(async || "x".parse::<u32>()).await.unwrap_err();
/// assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
///
/// let error = try_async(async || Err::<(), _>(["no", "yes"][2])).await.unwrap_err();
/// assert_eq!(error.code(), ErrorCode::Panic);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub async fn try_async<T, E, F>(operation: impl FnOnce() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    let settle = |result: Result<T, E>| result.map_err(|error| Error::from(error.into()));
    Contained::call("the operation", operation, settle)?.await
}

pin_project! {
    /// A future of the user's that cannot panic: whatever it does comes back as a result.
    ///
    /// It is dropped before its output is settled, so that a panicking destructor fails it too.
    pub(crate) struct Contained<F, M> {
        whose: &'static str,
        #[pin]
        future: Option<F>,
        settle: Option<M>,
    }

    impl<F, M> PinnedDrop for Contained<F, M> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            panics::drop_contained(|| this.future.set(None));
        }
    }
}

impl<F, M, T> Contained<F, M>
where
    F: Future,
    M: FnOnce(F::Output) -> Result<T, Error>,
{
    /// Calls what makes the future. `whose` code it is, such as "the operation", goes into the
    /// errors of panics; `settle` makes a result of the output.
    pub(crate) fn call(
        whose: &'static str,
        make: impl FnOnce() -> F,
        settle: M,
    ) -> Result<Self, Error> {
        let future = panics::contain(make).map_err(|message| Error::panic(whose, &message))?;
        Ok(Self { whose, future: Some(future), settle: Some(settle) })
    }
}

impl<F, M> Contained<F, M> {
    /// Drops the future where it is, and says whether its destructor panicked.
    pub(crate) fn abandon(self: Pin<&mut Self>) -> Option<Error> {
        let mut this = self.project();
        let dropped = panics::contain(|| this.future.set(None));
        dropped.err().map(|message| Error::panic(this.whose, &message))
    }
}

impl<F, M, T> Future for Contained<F, M>
where
    F: Future,
    M: FnOnce(F::Output) -> Result<T, Error>,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Pending };
        let panicked = |message: String| Error::panic(this.whose, &message);
        let polled = match panics::contain(|| future.poll(cx)) {
            Ok(poll) => Ok(ready!(poll)),
            Err(message) => Err(panicked(message)),
        };
        let dropped = panics::contain(|| this.future.set(None));
        let Some(settle) = this.settle.take() else { return Poll::Pending };
        let output = polled?;
        // Settling converts the user's error, which is the user's code once more.
        let value = panics::contain(|| settle(output)).map_err(panicked)??;
        Poll::Ready(dropped.map(|()| value).map_err(panicked))
    }
}
