//! The worker: what is done for each message, by the five steps of the tutorial.

use std::time::Duration;

use watershed::{Answer, Error, StepContext, labelled};

use crate::effect::{Mark, Step, Taken};
use crate::message::Message;
use crate::order::Invalid;
use crate::sources::error_text;
use crate::store::{Store, StoreError};

/// What the handlers of all messages share.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) store: Store,
    /// When a message is tried again that the store could not take.
    pub(crate) store_retry: Duration,
}

/// Why an order was not handled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unhandled {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("order {order}: cannot {action}")]
    Store { order: String, action: &'static str, source: StoreError },
    #[error("order {0}: the message has no transport that would settle it")]
    NoTransport(String),
    #[error("order {0}: was told to stop")]
    Stopped(String),
}

impl Unhandled {
    /// Whether another attempt may succeed.
    pub(crate) fn may_pass(&self) -> bool {
        !matches!(self, Self::Invalid(_))
    }
}

/// Why a handler does not go on.
enum Stop {
    /// The message is accepted, or comes later: it has not failed.
    With(Answer),
    Failed(Unhandled),
}

impl Step {
    /// What it does, to follow "cannot".
    fn action(&self) -> &'static str {
        match self {
            Self::Token(_) => "persist the token",
            Self::Event(_) => "put the event into the outbox",
            Self::Done => "make the order final",
        }
    }

    /// What its compensation does.
    fn undo_action(&self) -> &'static str {
        match self {
            Self::Token(_) => "delete the token",
            Self::Event(_) => "delete the event",
            Self::Done => "nothing",
        }
    }
}

impl Worker {
    /// Handles one message. Each step's compensation is registered before the step is taken, so that
    /// whatever becomes of this function, what it did is undone.
    ///
    /// # Errors
    ///
    /// When the order is not valid, or is one that the store does not take.
    pub(crate) async fn handle(
        &self,
        message: Message,
        step: StepContext,
    ) -> Result<Answer, Unhandled> {
        // A second signal does not wait for a store that does not answer.
        let stopped = async {
            step.cancellation().cancelled().await;
            Err(Stop::Failed(Unhandled::Stopped(message.order().id.clone())))
        };
        match smol::future::or(stopped, self.steps(&message, &step)).await {
            Ok(()) => Ok(Answer::Done),
            Err(Stop::With(answer)) => Ok(answer),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    async fn steps(&self, message: &Message, step: &StepContext) -> Result<(), Stop> {
        // 1. The message is ours: its source has leased it. Its compensation, the release, is there
        //    already, below all that is registered here.
        let order = message.order();
        let id = &order.id;
        let key = step.undo_key().ok_or_else(|| Unhandled::NoTransport(id.clone()));
        let mark = Mark { message: id.clone(), undo_key: key.map_err(Stop::Failed)? };
        message.note_undo_key(&mark.undo_key);

        // 2. Validate. There is nothing to be undone.
        order.validate().map_err(|error| Stop::Failed(error.into()))?;

        // 3. Persist the idempotency token. Compensation: delete it.
        let source = step.source_name().unwrap_or_default().to_owned();
        self.take(step, &mark, Step::Token(source)).await?;

        // 4. Put the domain event into the outbox. Compensation: delete it.
        self.take(step, &mark, Step::Event(order.event())).await?;

        // 5. Settle: make both final, and return. The drain accepts the message then. There is nothing
        //    left to be undone: should the accept not be heard, the message comes again, and finds its
        //    token done.
        self.take(step, &mark, Step::Done).await
    }

    /// Takes a step, and stages its compensation.
    async fn take(&self, context: &StepContext, mark: &Mark, step: Step) -> Result<(), Stop> {
        if !matches!(step, Step::Done) {
            let undo = (self.store.clone(), mark.clone(), step.clone());
            context.register_compensation(labelled(step.undo_action(), move || {
                let (store, mark, step) = undo.clone();
                async move { mark.undo(&store, &step).await }
            }));
        }
        match mark.take(&self.store, &step).await {
            Ok(Taken::Ours) => Ok(()),
            Ok(Taken::Before) => Err(Stop::With(Answer::Done)),
            Ok(Taken::Overtaken) => Err(Stop::With(Answer::Later(self.store_retry))),
            Err(source) => {
                let (order, action) = (mark.message.clone(), step.action());
                if source.is_about_the_order() {
                    return Err(Stop::Failed(Unhandled::Store { order, action, source }));
                }
                // That the store is not there says nothing about the order: it is tried again as if it
                // had not been, as long as it takes.
                let why = error_text(&source);
                tracing::warn!(order, "cannot {action}, tried again later: {why}");
                Err(Stop::With(Answer::Later(self.store_retry)))
            }
        }
    }
}

/// Whether another attempt at a message that has failed so may succeed.
pub(crate) fn may_pass(error: &Error) -> bool {
    error.downcast_ref().is_none_or(Unhandled::may_pass)
}
