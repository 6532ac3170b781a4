//! Which operation has won, and with what.

use std::borrow::Cow;

use crate::error::Error;
use crate::undo::RollbackReport;

pub(super) type Name = Cow<'static, str>;

/// The operation of a [`when_any`](super::when_any()), or the strategy of a
/// [`Fallback`](super::Fallback), that succeeded first.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{BoxError, StepContext, combinators::when_any};
///
/// let context = StepContext::new("lookup");
/// let winner = when_any(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]).await?;
/// assert_eq!((winner.value(), winner.index(), winner.dropped()), (&7, 0, 0));
/// assert_eq!(winner.rollback().unwrap().succeeded(), 0);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Winner<T> {
    value: T,
    index: usize,
    dropped: usize,
    rollback: Result<RollbackReport, Error>,
    names: Option<Box<(Name, Name)>>,
}

impl<T> Winner<T> {
    pub(super) fn new(
        value: T,
        index: usize,
        dropped: usize,
        rollback: Result<RollbackReport, Error>,
    ) -> Self {
        Self { value, index, dropped, rollback, names: None }
    }

    pub(super) fn named(mut self, tier: Name, strategy: Name) -> Self {
        self.names = Some(Box::new((tier, strategy)));
        self
    }

    /// What it returned.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }

    /// What it returned, by value.
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }

    /// Its position among the operations; that of a strategy among those of its tier.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The tier of a strategy; empty for a tier without a name, and for an operation of a
    /// `when_any`.
    #[must_use]
    pub fn tier(&self) -> &str {
        self.names.as_ref().map_or("", |names| &names.0)
    }

    /// The name of a strategy; empty for an operation of a `when_any`.
    #[must_use]
    pub fn strategy(&self) -> &str {
        self.names.as_ref().map_or("", |names| &names.1)
    }

    /// How many of those that ran beside it were dropped when the grace was over.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// How undoing those that ran beside it went. What failed is staged on the context's scope.
    ///
    /// # Errors
    ///
    /// The rollback's error, when compensations failed.
    pub fn rollback(&self) -> Result<&RollbackReport, &Error> {
        self.rollback.as_ref()
    }
}
