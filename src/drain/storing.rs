//! A dead letter on its way.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::letters::{DeadLetters, Letter};
use super::types::{DrainTypes, Drains};
use crate::diagnostics::COUNTERS;
use crate::error::{Error, ErrorCode};
use crate::panics;
use crate::undo::ActionOutput;

pub(super) struct Storing<C: DrainTypes> {
    stored: Pin<Box<C::Stored>>,
    /// What the message has failed with.
    error: Error,
}

impl<C: Drains> Storing<C> {
    /// Begins to store a letter.
    ///
    /// # Errors
    ///
    /// What the message has failed with, and the panic of the user's function.
    pub(super) fn begin(
        letters: &mut C::Letters,
        letter: Letter<C::Message>,
    ) -> Result<Self, Error> {
        COUNTERS.dead_letters.add(1);
        let error = letter.error.clone();
        match panics::contain(|| Box::pin(letters.store(letter))) {
            Ok(stored) => Ok(Self { stored, error }),
            Err(text) => Err(error.with_related([panicked(&text)])),
        }
    }

    /// Whether the letter is stored, and if it never will be, why.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let stored = &mut self.stored;
        let polled =
            panics::contain(|| stored.as_mut().poll(cx).map(ActionOutput::into_action_result));
        match polled {
            Ok(polled) => polled.map_err(not_stored),
            Err(text) => Poll::Ready(Err(panicked(&text))),
        }
    }

    /// What the message has failed with.
    pub(super) fn error(&self) -> &Error {
        &self.error
    }

    /// What the message has failed with; nothing more is done for its letter.
    pub(super) fn into_error(self) -> Error {
        let Self { stored, error } = self;
        panics::drop_contained(|| drop(stored));
        error
    }
}

fn panicked(text: &str) -> Error {
    Error::panic("the dead letters", text)
}

fn not_stored(error: Error) -> Error {
    if error.code() != ErrorCode::Compensation {
        return error;
    }
    // The user's own error comes as that of an action does.
    error.wrapped_as(ErrorCode::Destination, "the dead letter was not stored")
}
