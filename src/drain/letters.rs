//! Where messages go that were given up.

use std::fmt;
use std::future::{Future, Ready};
use std::marker::PhantomData;

use crate::error::{Error, Failure};
use crate::origin::{Origin, SourceId, SourceRef};
use crate::settlement::Facts;
use crate::source::Raw;
use crate::undo::{ActionOutput, RollbackReport};

/// A message that was given up: it failed, has no attempts left, and was undone.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::{Letter, StepContext, fan_in};
///
/// let failed = std::sync::Mutex::new(Vec::new());
/// let context = StepContext::new("drain");
/// fan_in(&context, [stream::iter(["1", "x", "3"])], async |text, _| text.parse::<u32>().map(drop))
///     .dead_letters(async |letter: Letter<&str>| {
///         failed.lock().unwrap().push((letter.message_number(), letter.into_message()));
///     })
///     .await?;
/// assert_eq!(failed.into_inner().unwrap(), [(2, Some("x"))]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub struct Letter<M> {
    pub(super) message: Option<M>,
    pub(super) raw: Option<Raw>,
    pub(super) deliveries: Vec<Facts>,
    pub(super) error: Error,
    pub(super) source: SourceRef,
    pub(super) number: u64,
    pub(super) attempts: u32,
    pub(super) rollback: Result<RollbackReport, Failure<RollbackReport>>,
}

impl<M> Letter<M> {
    /// The message; `None` where no handler was to get it: it could not be decoded, or was delivered too
    /// often. Then it is [`raw`](Self::raw).
    #[must_use]
    pub fn message(&self) -> Option<&M> {
        self.message.as_ref()
    }

    /// The message, as [`message`](Self::message) has it.
    #[must_use]
    pub fn into_message(self) -> Option<M> {
        self.message
    }

    /// What the message was before it [could not be decoded](crate::Source::decoded), or as it came too
    /// often, if it was of this type.
    #[must_use]
    pub fn raw<T: 'static>(&self) -> Option<&T> {
        self.raw.as_ref()?.downcast_ref()
    }

    /// What its transport knows of the message; of a window, of each of its messages. Empty where there
    /// is no transport.
    #[must_use]
    pub fn deliveries(&self) -> &[Facts] {
        &self.deliveries
    }

    /// Why the message failed, with the name of its source and its number there.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The name of the message's source.
    #[must_use]
    pub fn source_name(&self) -> &str {
        self.source.name.as_str()
    }

    /// The number of the message's source.
    #[must_use]
    pub fn source_id(&self) -> SourceId {
        self.source.id
    }

    /// The number of the message in its source, the first one being 1.
    #[must_use]
    pub fn message_number(&self) -> u64 {
        self.number
    }

    /// How often its handler was called.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How the rollback of the message's last attempt went. What could not be undone is staged on
    /// the scope of the drain's context.
    ///
    /// # Errors
    ///
    /// The rollback's error, when compensations failed.
    pub fn rollback(&self) -> Result<&RollbackReport, &Failure<RollbackReport>> {
        self.rollback.as_ref()
    }

    pub(super) fn origin(&self) -> Origin {
        Origin { source: self.source.name.clone(), message: self.number }
    }
}

impl<M> fmt::Debug for Letter<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letter")
            .field("origin", &self.origin())
            .field("attempts", &self.attempts)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// The type that goes with [`DeadLetters`].
pub trait LetterTypes {
    /// A letter on its way.
    type Stored;
}

/// A place for messages that were given up, see [`FanIn::dead_letters`](crate::FanIn::dead_letters).
pub trait DeadLetters<M>: LetterTypes<Stored: Future<Output: ActionOutput>> {
    /// Whether the user gave a place.
    const GIVEN: bool;

    /// Begins to store a letter. This is the user's code.
    fn store(&mut self, letter: Letter<M>) -> Self::Stored;
}

/// No place for dead letters.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLetters;

impl LetterTypes for NoLetters {
    type Stored = Ready<()>;
}

impl<M> DeadLetters<M> for NoLetters {
    const GIVEN: bool = false;

    fn store(&mut self, _: Letter<M>) -> Ready<()> {
        std::future::ready(())
    }
}

/// A function of the user's.
#[derive(Clone, Copy, Debug)]
pub struct StoredBy<F, L>(pub(super) F, pub(super) PhantomData<fn() -> L>);

impl<F, L> LetterTypes for StoredBy<F, L> {
    type Stored = L;
}

impl<M, F, L> DeadLetters<M> for StoredBy<F, L>
where
    F: FnMut(Letter<M>) -> L,
    L: Future<Output: ActionOutput>,
{
    const GIVEN: bool = true;

    fn store(&mut self, letter: Letter<M>) -> L {
        (self.0)(letter)
    }
}
