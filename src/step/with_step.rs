//! An action that is given a step.

use std::future::Future;

use super::StepContext;
use crate::error::Error;
use crate::undo::{Action, ActionOutput, Attempt, LocalAction, Undoing};

/// What [`with_step`] makes.
#[derive(Debug)]
pub struct WithStep<A> {
    action: A,
}

/// Makes an action of an async function that is given a step, for undoing that waits, retries or
/// uses time.
///
/// The step's token and clock are the rollback's and its scope is the one that is rolled back. (The
/// step that registered the action is of no use here: by the time its work is undone, its token has
/// usually been cancelled.)
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use watershed::{CompensationPolicy, StepContext, timers::delay, with_step};
///
/// let context = StepContext::new("booking");
/// context.register_compensation(with_step(async |step: StepContext| {
///     delay(&step, Duration::from_millis(1)).await // the hotel is slow to hear of it
/// }));
/// let report = context.roll_back(&CompensationPolicy::default()).await?;
/// assert_eq!(report.succeeded(), 1);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn with_step<A, F>(action: A) -> WithStep<A>
where
    A: FnMut(StepContext) -> F + 'static,
    F: Future<Output: ActionOutput> + 'static,
{
    WithStep { action }
}

impl<A, F> Action for WithStep<A>
where
    A: FnMut(StepContext) -> F + Send + 'static,
    F: Future<Output: ActionOutput> + Send + 'static,
{
    fn attempt(
        &mut self,
        undoing: &Undoing,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        Attempt::new((self.action)(StepContext::of(undoing)))
    }
}

impl<A, F> LocalAction for WithStep<A>
where
    A: FnMut(StepContext) -> F + 'static,
    F: Future<Output: ActionOutput> + 'static,
{
    fn attempt(&mut self, undoing: &Undoing) -> impl Future<Output = Result<(), Error>> + 'static {
        Attempt::new((self.action)(StepContext::of(undoing)))
    }
}

impl StepContext {
    /// The step of an attempt at an action.
    fn of(undoing: &Undoing) -> Self {
        Self::new(std::sync::Arc::clone(undoing.shared_name()))
            .with_clock(std::sync::Arc::clone(undoing.clock()))
            .with_cancellation(undoing.token().clone())
            .with_scope(undoing.scope().clone())
    }
}
