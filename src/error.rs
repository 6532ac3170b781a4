//! The one error type of the crate.
//!
//! An [`Error`] is a code that programs match on, a message that people read, the cause it wraps,
//! key/value metadata, the message of a source it belongs to, and the further errors met while the
//! first one was being dealt with. It is a single pointer: cheap to move and to clone.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::origin::Origin;

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

/// What kind of failure an [`Error`] reports.
///
/// ```
/// use watershed::ErrorCode;
///
/// assert_eq!(ErrorCode::Timeout.as_str(), "error.timeout");
/// assert_eq!(ErrorCode::Custom("billing.declined").to_string(), "billing.declined");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// A deadline passed.
    Timeout,
    /// A cancellation token was cancelled.
    Canceled,
    /// User code panicked.
    Panic,
    /// A source yielded a fault.
    Source,
    /// A handler returned an error of the user's own type.
    Handler,
    /// An argument or a message is not acceptable.
    Validation,
    /// Several errors, found in [`Error::related`].
    Aggregate,
    /// One or more compensations failed and are still staged.
    Compensation,
    /// A channel was closed before the operation was done.
    ChannelCompleted,
    /// Every case of a select had ended.
    SelectDrained,
    /// A foreign error that nobody has classified.
    Unspecified,
    /// A code of the user's own.
    Custom(&'static str),
}

impl ErrorCode {
    /// The stable text of the code, for logs, metrics and other programs.
    ///
    /// ```
    /// assert_eq!(watershed::ErrorCode::SelectDrained.as_str(), "error.select.drained");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "error.timeout",
            Self::Canceled => "error.canceled",
            Self::Panic => "error.panic",
            Self::Source => "error.source",
            Self::Handler => "error.handler",
            Self::Validation => "error.validation",
            Self::Aggregate => "error.aggregate",
            Self::Compensation => "error.compensation",
            Self::ChannelCompleted => "error.channel.completed",
            Self::SelectDrained => "error.select.drained",
            Self::Unspecified => "error.unspecified",
            Self::Custom(code) => code,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error of every fallible operation of this crate.
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
/// assert_eq!(error.to_string(), "the magnitude is not a number");
/// assert_eq!(error.metadata("field"), Some("mag"));
/// assert_eq!(error.downcast_ref::<std::num::ParseIntError>(), Some(&cause));
/// ```
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    code: ErrorCode,
    message: Cow<'static, str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    origin: Option<Origin>,
    metadata: Vec<(Cow<'static, str>, String)>,
    related: Vec<Error>,
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
        let inner = Inner {
            code,
            message: message.into(),
            source: None,
            origin: None,
            metadata: Vec::new(),
            related: Vec::new(),
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

    /// Wraps a foreign error under `code`. An [`Error`] is returned as it is, code and all.
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
        match cause.into().downcast::<Error>() {
            Ok(error) => *error,
            Err(cause) => {
                let message = match code {
                    ErrorCode::Handler => "the handler failed",
                    ErrorCode::Source => "the source failed",
                    ErrorCode::Compensation => "the compensation failed",
                    _ => "the operation failed",
                };
                Self::new(code, message).with_source(cause)
            }
        }
    }

    pub(crate) fn canceled() -> Self {
        Self::new(ErrorCode::Canceled, "the operation was cancelled")
    }

    /// `what`, such as "the drain", was not done within `timeout`.
    pub(crate) fn timeout(what: &str, timeout: Duration) -> Self {
        let message = format!("{what} was not done within {timeout:?}");
        Self::new(ErrorCode::Timeout, message).with_metadata("duration", format!("{timeout:?}"))
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
        self.edit().source = Some(Arc::from(cause.into()));
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

    /// The same error with further errors attached behind those it has.
    ///
    /// ```
    /// use watershed::Error;
    ///
    /// let error = Error::validation("first").with_related([Error::validation("second")]);
    /// assert_eq!(error.related()[0].to_string(), "second");
    /// ```
    #[must_use]
    pub fn with_related(mut self, errors: impl IntoIterator<Item = Error>) -> Self {
        self.edit().related.extend(errors);
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

    fn edit(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.inner)
    }

    /// What kind of failure this is.
    ///
    /// ```
    /// use watershed::{Error, ErrorCode};
    /// assert_eq!(Error::validation("x").code(), ErrorCode::Validation);
    /// ```
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.inner.code
    }

    /// The value of a metadata key.
    ///
    /// A drain sets `duration` (the timeout that passed), `handled` (messages done before it
    /// ended) and `dropped_handlers` (handlers still in flight when the grace ended); a rollback
    /// sets `label`, `registered_at` and `attempts` on the error of each action.
    ///
    /// ```
    /// let error = watershed::Error::validation("x").with_metadata("field", "mag");
    /// assert_eq!(error.metadata("field"), Some("mag"));
    /// assert_eq!(error.metadata("line"), None);
    /// ```
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let mut entries = self.inner.metadata.iter();
        entries.find(|(existing, _)| existing == key).map(|(_, value)| value.as_str())
    }

    /// The name of the source whose message failed, where the error belongs to one.
    ///
    /// ```
    /// assert_eq!(watershed::Error::validation("x").source_name(), None);
    /// ```
    #[must_use]
    pub fn source_name(&self) -> Option<&str> {
        self.inner.origin.as_ref().map(|origin| origin.source.as_str())
    }

    /// The number, in its source, of the message that failed; the first one is 1.
    ///
    /// ```
    /// assert_eq!(watershed::Error::validation("x").message_number(), None);
    /// ```
    #[must_use]
    pub fn message_number(&self) -> Option<u64> {
        let origin = self.inner.origin.as_ref()?;
        (origin.message > 0).then_some(origin.message)
    }

    /// The further errors met while this one was dealt with, ordered by source and message.
    ///
    /// ```
    /// assert!(watershed::Error::validation("x").related().is_empty());
    /// ```
    #[must_use]
    pub fn related(&self) -> &[Error] {
        &self.inner.related
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
        let mut cause = StdError::source(self);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<E>() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        match &self.inner.origin {
            Some(Origin { source, message: 0 }) => write!(f, " (source `{}`)", source.as_str()),
            Some(Origin { source, message }) => {
                write!(f, " (message {message} of source `{}`)", source.as_str())
            }
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.inner;
        let mut debug = f.debug_struct("Error");
        debug.field("code", &inner.code.as_str()).field("message", &self.to_string());
        if let Some(source) = &inner.source {
            debug.field("source", source);
        }
        if !inner.metadata.is_empty() {
            debug.field("metadata", &inner.metadata);
        }
        if !inner.related.is_empty() {
            debug.field("related", &inner.related);
        }
        debug.finish()
    }
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
