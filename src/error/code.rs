//! The codes by which programs tell failures apart.

use std::fmt;

/// What kind of failure an [`Error`](crate::Error) reports.
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
    /// Several errors, found in [`Error::related`](crate::Error::related).
    Aggregate,
    /// One or more compensations failed and are still staged.
    Compensation,
    /// A channel was closed before the operation was done.
    ChannelCompleted,
    /// A channel had no room, and was not to be waited for.
    ChannelFull,
    /// A destination failed with an error of its own.
    Destination,
    /// Every case of a select had ended.
    SelectDrained,
    /// The clock cannot wait, or cannot tell the time, where this process runs: see
    /// [`Clock::check`](crate::Clock::check).
    Clock,
    /// A foreign error that nobody has classified.
    Unspecified,
    /// A code of the user's own; the library itself never uses one.
    Custom(&'static str),
}

impl ErrorCode {
    /// The stable text of the code, for logs, metrics and other programs.
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
            Self::ChannelFull => "error.channel.full",
            Self::Destination => "error.destination",
            Self::SelectDrained => "error.select.drained",
            Self::Clock => "error.clock",
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
