//! How an error is printed.
//!
//! `{error}` is the message and the place. `{error:#}` goes on with the causes, one after another
//! with ": " before each, down to the last one. A cause whose words are the end of what stands there
//! already is left out: many error types print their own cause.

use std::error::Error as StdError;
use std::fmt;

use super::{Error, causes};
use crate::origin::Origin;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            f.write_str(&with_causes(self))
        } else {
            f.write_str(&self.inner.message)?;
            self.origin().map_or(Ok(()), |origin| write_origin(f, origin))
        }
    }
}

fn write_origin(f: &mut impl fmt::Write, origin: &Origin) -> fmt::Result {
    let source = origin.source.as_str();
    match origin.message {
        0 => write!(f, " (source `{source}`)"),
        message => write!(f, " (message {message} of source `{source}`)"),
    }
}

/// The text of the error and of every cause of it.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut place = error.origin();
    for cause in causes(error) {
        let words = match cause.downcast_ref::<Error>() {
            // The place of an error within an error is told where it is another one.
            Some(inner) if same(inner.origin(), place) => inner.inner.message.to_string(),
            Some(inner) => {
                place = inner.origin().or(place);
                inner.to_string()
            }
            None => cause.to_string(),
        };
        if !repeats(&text, &words) {
            text.push_str(": ");
            text.push_str(&words);
        }
    }
    text
}

fn same(one: Option<&Origin>, other: Option<&Origin>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            one.message == other.message && one.source.as_str() == other.source.as_str()
        }
        _ => false,
    }
}

/// Whether `text` ends with `words` already, as words of their own.
fn repeats(text: &str, words: &str) -> bool {
    let Some(before) = text.strip_suffix(words) else { return false };
    !before.ends_with(char::is_alphanumeric) || words.is_empty()
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.inner;
        let mut debug = f.debug_struct("Error");
        debug.field("code", &inner.code.as_str()).field("message", &self.to_string());
        if let Some(source) = StdError::source(self) {
            debug.field("source", &source);
        }
        if !inner.metadata.is_empty() {
            debug.field("metadata", &inner.metadata);
        }
        let related = &inner.related;
        if related.total() > 0 {
            debug.field("related", &related.kept());
        }
        if related.total() > related.kept().len() as u64 {
            debug.field("related_total", &related.total());
        }
        debug.finish()
    }
}
