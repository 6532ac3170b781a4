//! What undoes an effect: an async closure, perhaps with a label.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::column::StoredAction;
use super::undoing::Undoing;
use crate::error::{BoxError, Error, ErrorCode};

/// What an action's future may return: `()`, or a `Result` whose error is the user's own.
///
/// ```
/// use watershed::CompensationScope;
///
/// let scope = CompensationScope::new();
/// scope.register_compensation(async || {});
/// scope.register_compensation(async || "17".parse::<u32>().map(drop));
/// # scope.clear();
/// ```
#[diagnostic::on_unimplemented(
    message = "an action, or a function that stores letters, cannot return `{Self}`",
    label = "it returns `{Self}`",
    note = "it returns `()` or `Result<(), E>`; leave a value out by `.map(drop)`"
)]
pub trait ActionOutput {
    /// The result, with the user's error wrapped.
    ///
    /// # Errors
    ///
    /// When the action failed.
    fn into_action_result(self) -> Result<(), Error>;
}

impl ActionOutput for () {
    fn into_action_result(self) -> Result<(), Error> {
        Ok(())
    }
}

impl<E: Into<BoxError>> ActionOutput for Result<(), E> {
    fn into_action_result(self) -> Result<(), Error> {
        self.map_err(|error| Error::from_error(ErrorCode::Compensation, error))
    }
}

/// A compensation: something that can be run again and again until it succeeds.
///
/// Every `FnMut() -> impl Future` whose future returns an [`ActionOutput`] is one; [`labelled`]
/// makes one with a label, and [`with_step`](crate::with_step) one that is given a step. An action
/// may run more than once, because a rollback can be interrupted or retried: it should be
/// idempotent.
///
/// ```
/// use watershed::{CompensationScope, labelled};
///
/// let scope = CompensationScope::new();
/// scope.register_compensation(labelled("delete the token", async || {}));
/// # scope.clear();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no action",
    label = "this is no action",
    note = "an action is an async closure without arguments, such as `async || …` or \
            `move || async move {{ … }}`, that is `Send` and borrows nothing",
    note = "see `watershed::guide::compile_errors`"
)]
pub trait Action: Send + 'static {
    /// One attempt at running the action, in the rollback that `undoing` tells of.
    fn attempt(
        &mut self,
        undoing: &Undoing,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static;

    /// The label that reports show.
    fn label(&self) -> Option<&str> {
        None
    }
}

impl<A, F> Action for A
where
    A: FnMut() -> F + Send + 'static,
    F: Future<Output: ActionOutput> + Send + 'static,
{
    fn attempt(&mut self, _: &Undoing) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        Attempt::new(self())
    }
}

pin_project_lite::pin_project! {
    /// The future of a closure, its output turned into a result.
    pub(crate) struct Attempt<F> {
        #[pin]
        future: F,
    }
}

impl<F> Attempt<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future }
    }
}

impl<F: Future<Output: ActionOutput>> Future for Attempt<F> {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll(cx).map(ActionOutput::into_action_result)
    }
}

/// What [`labelled`] makes.
#[derive(Debug)]
pub struct Labelled<A> {
    pub(super) label: Cow<'static, str>,
    pub(super) action: A,
}

/// Gives an action a label, which the report of a rollback shows when it fails.
///
/// ```
/// use watershed::{CompensationScope, labelled};
///
/// let scope = CompensationScope::new();
/// scope.register_compensation(labelled("release the lease", async || {}));
/// # scope.clear();
/// ```
pub fn labelled<A>(label: impl Into<Cow<'static, str>>, action: A) -> Labelled<A> {
    Labelled { label: label.into(), action }
}

impl<A: Action> Action for Labelled<A> {
    fn attempt(
        &mut self,
        undoing: &Undoing,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        self.action.attempt(undoing)
    }

    fn label(&self) -> Option<&str> {
        Some(&self.label)
    }
}

/// An action whose every attempt is handed a clone of one state.
pub(crate) struct WithState<S, A> {
    pub(crate) state: S,
    pub(crate) action: A,
}

impl<S, A, F> Action for WithState<S, A>
where
    S: Clone + Send + 'static,
    A: FnMut(S) -> F + Send + 'static,
    F: Future<Output: ActionOutput> + Send + 'static,
{
    fn attempt(&mut self, _: &Undoing) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        Attempt::new((self.action)(self.state.clone()))
    }
}

/// A running attempt.
pub(crate) type BoxAttempt = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// An action in a column.
pub(super) struct Plain<A>(pub(super) A);

impl<A: Action> StoredAction for Plain<A> {
    fn attempt(&mut self, undoing: &Undoing) -> BoxAttempt {
        Box::pin(self.0.attempt(undoing))
    }

    fn label(&self) -> Option<String> {
        self.0.label().map(ToOwned::to_owned)
    }
}
