//! The worker: what is done for each message.

use std::time::Duration;

use watershed::transport::Facts;
use watershed::{Answer, BoxError, Letter, StepContext, labelled};

use crate::database::Database;
use crate::effect::{Delivery, Effect, Mark, Put};
use crate::event::{Earthquake, EventError};
use crate::faults::Faults;
use crate::input::Message;

/// What the handlers of all messages share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) database: Database,
    pub(crate) run: i64,
    pub(crate) faults: Faults,
}

/// When to look again at an event that somebody else is at.
const A_MOMENT: Duration = Duration::from_millis(50);

impl Worker {
    /// Handles one message. Each effect's compensation is registered before the effect happens, so
    /// that whatever becomes of this function, what it did is undone.
    ///
    /// # Errors
    ///
    /// When the line is no earthquake, the database fails, or an option says so.
    pub(crate) async fn handle(
        &self,
        message: Message,
        step: StepContext,
    ) -> Result<Answer, EventError> {
        // 1. The message is ours: the transport has leased it. Its compensation, the release, is there
        //    already, below all that is registered here.

        // 2. Validate.
        let event = Earthquake::decode(&message)?;

        // 3. Persist the idempotency token. Compensation: delete it.
        let mark = self.mark(&message, &step, &event)?;
        match self.put(&step, &message, &mark, Effect::Token).await? {
            Put::Ours => {}
            Put::Done => return Ok(Answer::Done),
            Put::InWork => return Ok(Answer::Later(A_MOMENT)),
        }

        // 4. Emit the domain event. Compensation: delete it from the outbox.
        let body = event.to_json().into();
        if self.put(&step, &message, &mark, Effect::Event(body)).await? != Put::Ours {
            // Our lease ran out, and a later delivery has begun.
            return Ok(Answer::Later(A_MOMENT));
        }
        self.faults.behind_the_event(&message)?;

        // 5. Acknowledge: the drain accepts the message, and clears both compensations when the
        //    transport has confirmed that.
        Ok(Answer::Done)
    }

    /// What marks all that this delivery of a message writes.
    fn mark(
        &self,
        message: &Message,
        step: &StepContext,
        event: &Earthquake,
    ) -> Result<Mark, EventError> {
        let delivery = self.delivery(message, &step.deliveries());
        let (Some(delivery), Some(undo)) = (delivery, step.undo_key()) else {
            return Err(EventError::NoTransport { origin: message.origin() });
        };
        Ok(Mark { delivery, undo: undo.into(), token: event.token(&message.origin()).into() })
    }

    fn delivery(&self, message: &Message, facts: &[Facts]) -> Option<Delivery> {
        let Facts { deliveries, assignment, .. } = facts.first()?;
        // A queue counts them. A log has a generation for each assignment; within one, a message comes
        // again only when it was undone.
        let number = deliveries.map_or(assignment.generation, u64::from);
        Some(Delivery { feed: message.feed.id, position: message.position, number, run: self.run })
    }

    /// Makes an effect happen, and stages its compensation.
    async fn put(
        &self,
        step: &StepContext,
        message: &Message,
        mark: &Mark,
        effect: Effect,
    ) -> Result<Put, EventError> {
        let undo = (self.database.clone(), effect.clone(), mark.clone());
        step.register_compensation(labelled(effect.undo_action(), move || {
            let (database, effect, mark) = undo.clone();
            async move { database.call(move |database| effect.undo(database, &mark)).await }
        }));
        let (action, mark) = (effect.action(), mark.clone());
        let put = self.database.call(move |database| effect.put(database, &mark)).await;
        let put = put.map_err(|source| {
            let origin = message.origin();
            EventError::Database { origin, action, source }
        })?;
        self.faults.by_chance(message)?;
        Ok(put)
    }

    /// Puts a message that was given up among the dead letters.
    pub(crate) async fn bury(&self, letter: Letter<Message>) -> Result<(), BoxError> {
        let (reason, facts) = (reason(letter.error()), letter.deliveries().to_vec());
        let message = letter.into_message().ok_or("there is no message in the letter")?;
        let delivery = self.delivery(&message, &facts).ok_or("the message has no transport")?;
        let bury = move |database: &_| delivery.bury(database, &message.payload, &reason);
        Ok(self.database.call(bury).await?)
    }
}

/// What the handler said, where it was the handler.
pub(crate) fn reason(error: &watershed::Error) -> String {
    match error.downcast_ref::<EventError>().map(|own| (own, std::error::Error::source(own))) {
        Some((own, Some(cause))) => format!("{own}: {cause}"),
        Some((own, None)) => own.to_string(),
        None => format!("{error:#}"),
    }
}
