//! The one error type of the crate.
//!
//! An [`Error`] is a code that programs match on, a message that people read, the cause it wraps,
//! key/value metadata, the message of a source it belongs to, and the further errors met while the
//! first one was being dealt with. It is a single pointer: cheap to move and to clone.
//!
//! - `code`: what programs match on
//! - `text`: how an error is printed
//! - `related`, `gathered`: the errors attached to one, or to be attached, both bounded
//! - `failure`: an error together with a report
//!
//! The cause is the user's own value. Its destructor is run with care, so that to drop an error, or
//! a list of them, never panics.

mod code;
mod failure;
mod gathered;
mod related;
mod text;

pub use code::ErrorCode;
pub use failure::Failure;
pub(crate) use gathered::Gathered;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::related::Related;
use crate::origin::Origin;
use crate::panics;

/// No chain of causes is followed further than this.
const MAX_CAUSES: usize = 128;

/// Any error of the user's: what a handler or an action may fail with.
///
/// Everything that implements [`std::error::Error`] converts into it with `?`, and so do `&str`,
/// `String` and the boxed errors of the usual error crates.
///
/// ```
/// use watershed::BoxError;
///
/// fn parse(text: &str) -> Result<u32, BoxError> {
///     Ok(text.parse()?)
/// }
/// assert!(parse("seven").is_err());
/// ```
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// The error of every fallible operation of this crate.
///
/// `{error}` says what failed and where; `{error:#}` goes on with the causes, down to the words of
/// the user's own error.
///
/// ```
/// use watershed::{Error, ErrorCode};
///
/// let cause = "x".parse::<u32>().unwrap_err();
/// let error = Error::validation("the magnitude is not a number")
///     .with_source(cause.clone())
///     .with_metadata("field", "mag");
///
/// assert_eq!(error.code(), ErrorCode::Validation);
/// assert_eq!(format!("{error}"), "the magnitude is not a number");
/// assert_eq!(format!("{error:#}"), "the magnitude is not a number: invalid digit found in string");
/// assert_eq!(error.metadata("field"), Some("mag"));
/// assert_eq!(error.downcast_ref::<std::num::ParseIntError>(), Some(&cause));
/// ```
#[derive(Clone)]
pub struct Error {
    inner: Arc<ErrorInner>,
}

#[derive(Clone)]
struct ErrorInner {
    code: ErrorCode,
    message: Cow<'static, str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    origin: Option<Origin>,
    metadata: Vec<(Cow<'static, str>, String)>,
    related: Related,
}

impl Drop for ErrorInner {
    fn drop(&mut self) {
        if let Some(source) = self.source.take() {
            panics::drop_contained(|| drop(source));
        }
    }
}

impl Error {
    /// An error with a code and a message, and nothing else.
    ///
    /// ```
    /// use watershed::{Error, ErrorCode};
    ///
    /// let error = Error::new(ErrorCode::Custom("billing.declined"), "the card was declined");
    /// assert_eq!(error.code().as_str(), "billing.declined");
    /// ```
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        let inner = ErrorInner {
            code,
            message: message.into(),
            source: None,
            origin: None,
            metadata: Vec::new(),
            related: Related::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// An [`ErrorCode::Validation`] error: an argument or a message is not acceptable.
    ///
    /// ```
    /// let error = watershed::Error::validation("latitude out of range");
    /// assert_eq!(error.code().as_str(), "error.validation");
    /// ```
    #[must_use]
    pub fn validation(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Validation, message)
    }

    /// Wraps a foreign error under `code`. An [`Error`] is returned as it is, code and all, and so is
    /// that of a [`Failure`].
    ///
    /// ```
    /// use watershed::{Error, ErrorCode};
    ///
    /// let error = Error::from_error(ErrorCode::Handler, "no such account");
    /// assert_eq!(error.code(), ErrorCode::Handler);
    /// let same = Error::from_error(ErrorCode::Source, error);
    /// assert_eq!(same.code(), ErrorCode::Handler);
    /// ```
    #[must_use]
    pub fn from_error(code: ErrorCode, cause: impl Into<BoxError>) -> Self {
        match failure::own_error(cause.into()) {
            Ok(error) => error,
            Err(cause) => Self::new(code, wrapping(code)).with_source(cause),
        }
    }

    /// What wraps a foreign error is worded anew; an error with words of its own is the cause.
    pub(crate) fn wrapped_as(mut self, code: ErrorCode, message: &'static str) -> Self {
        if self.inner.source.is_none() || self.inner.message != wrapping(self.code()) {
            return Self::new(code, message).with_source(self);
        }
        let inner = self.edit();
        (inner.code, inner.message) = (code, message.into());
        self
    }

    pub(crate) fn canceled() -> Self {
        Self::new(ErrorCode::Canceled, "the operation was cancelled")
    }

    /// `what`, such as "the drain", was not done within `timeout`.
    pub(crate) fn timeout(what: &str, timeout: Duration) -> Self {
        let message = format!("{what} was not done within {timeout:?}");
        Self::new(ErrorCode::Timeout, message).with_metadata("duration", format!("{timeout:?}"))
    }

    /// The clock of the operation is none that it can wait by; `missing` says why.
    pub(crate) fn clock(missing: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Clock, missing)
    }

    pub(crate) fn panic(whose: &str, message: &str) -> Self {
        Self::new(ErrorCode::Panic, format!("{whose} panicked: {message}"))
    }

    /// The same error with its cause set, replacing an earlier one.
    ///
    /// ```
    /// use std::error::Error as _;
    ///
    /// let error = watershed::Error::validation("bad line").with_source("unexpected end");
    /// assert_eq!(error.source().unwrap().to_string(), "unexpected end");
    /// ```
    #[must_use]
    pub fn with_source(mut self, cause: impl Into<BoxError>) -> Self {
        let cause = Some(Arc::from(cause.into()));
        let old = std::mem::replace(&mut self.edit().source, cause);
        panics::drop_contained(|| drop(old));
        self
    }

    /// The same error with a key and its value added; a key that is there already is replaced.
    ///
    /// ```
    /// let error = watershed::Error::validation("bad line").with_metadata("line", 17);
    /// assert_eq!(error.metadata("line"), Some("17"));
    /// ```
    #[must_use]
    pub fn with_metadata(
        mut self,
        key: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
    ) -> Self {
        let key = key.into();
        self = self.without_metadata(&key);
        self.edit().metadata.push((key, value.to_string()));
        self
    }

    pub(crate) fn without_metadata(mut self, key: &str) -> Self {
        if self.metadata(key).is_some() {
            self.edit().metadata.retain(|(existing, _)| existing != key);
        }
        self
    }

    /// The same error with further errors attached behind those it has. The first 32 are kept by
    /// value, and behind all of these together 32 of those that were attached to them; the others
    /// are counted by [`related_total`](Error::related_total).
    ///
    /// ```
    /// use watershed::Error;
    ///
    /// let late = (1..=1_000).map(|day| Error::validation(format!("day {day} is missing")));
    /// let error = Error::validation("the month is incomplete").with_related(late);
    /// assert_eq!(error.related()[1].to_string(), "day 2 is missing");
    /// assert_eq!((error.related().len(), error.related_total()), (32, 1_000));
    /// ```
    #[must_use]
    pub fn with_related(mut self, errors: impl IntoIterator<Item = Error>) -> Self {
        let mut errors = errors.into_iter().peekable();
        if errors.peek().is_some() {
            let related = &mut self.edit().related;
            errors.for_each(|error| related.attach(error));
        }
        self
    }

    /// The same error with so many related ones counted that nobody has kept.
    pub(crate) fn with_more_related(mut self, more: u64) -> Self {
        if more > 0 {
            self.edit().related.count(more);
        }
        self
    }

    pub(crate) fn with_origin(mut self, origin: Origin) -> Self {
        // A nested drain has named the innermost place already: that one helps most.
        let inner = self.edit();
        inner.origin.get_or_insert(origin);
        self
    }

    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.inner.origin.as_ref()
    }

    /// How many errors are attached, and kept, on every level.
    fn held(&self) -> usize {
        self.inner.related.held()
    }

    /// Keeps only so many of the errors that are attached.
    fn trim(&mut self, room: usize) {
        if self.held() > room {
            self.edit().related.trim(room);
        }
    }

    fn edit(&mut self) -> &mut ErrorInner {
        Arc::make_mut(&mut self.inner)
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.inner.code
    }

    /// The value of a metadata key.
    ///
    /// A drain sets `duration` (the timeout that passed), `handled` (messages done before it
    /// ended) and `dropped_handlers` (handlers still in flight when the grace ended); a rollback
    /// sets `label`, `registered_at` and `attempts` on the error of each action.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let mut entries = self.inner.metadata.iter();
        entries.find(|(existing, _)| existing == key).map(|(_, value)| value.as_str())
    }

    /// The name of the source whose message failed, where the error belongs to one.
    #[must_use]
    pub fn source_name(&self) -> Option<&str> {
        self.inner.origin.as_ref().map(|origin| origin.source.as_str())
    }

    /// The number, in its source, of the message that failed; the first one is 1.
    #[must_use]
    pub fn message_number(&self) -> Option<u64> {
        let origin = self.inner.origin.as_ref()?;
        (origin.message > 0).then_some(origin.message)
    }

    /// The further errors met while this one was dealt with, the first 32 of them, in a fixed
    /// order.
    #[must_use]
    pub fn related(&self) -> &[Error] {
        self.inner.related.kept()
    }

    /// How many further errors were met while this one was dealt with, those included that
    /// [`related`](Error::related) does not keep.
    #[must_use]
    pub fn related_total(&self) -> u64 {
        self.inner.related.total()
    }

    /// The first cause in the chain that is an `E`: the user's own error, as it was returned.
    ///
    /// ```
    /// use watershed::{Error, ErrorCode};
    ///
    /// let error = Error::from_error(ErrorCode::Handler, std::fmt::Error);
    /// assert!(error.downcast_ref::<std::fmt::Error>().is_some());
    /// assert!(error.downcast_ref::<std::io::Error>().is_none());
    /// ```
    #[must_use]
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        causes(self).find_map(|cause| cause.downcast_ref::<E>())
    }
}

/// What wraps a foreign error says.
fn wrapping(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Handler => "the handler failed",
        ErrorCode::Source => "the source failed",
        ErrorCode::Compensation => "the compensation failed",
        _ => "the operation failed",
    }
}

/// The causes of an error, one after another.
fn causes(error: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(StdError::source(error), |cause| StdError::source(*cause))
        .take(MAX_CAUSES)
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// A foreign error is [`ErrorCode::Unspecified`]; a boxed [`Error`] comes out as it went in.
impl From<BoxError> for Error {
    fn from(cause: BoxError) -> Self {
        Self::from_error(ErrorCode::Unspecified, cause)
    }
}
