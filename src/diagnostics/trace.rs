//! Spans and events for the `tracing` facade; without the feature, nothing.

#[cfg(feature = "tracing")]
pub(crate) use on::{DrainSpan, MessageSpan, compensated, lost, trouble, without_effect};

#[cfg(not(feature = "tracing"))]
pub(crate) use off::{DrainSpan, MessageSpan, compensated, lost, trouble, without_effect};

#[cfg(feature = "tracing")]
mod on {
    use std::panic::Location;

    use tracing::field::{Empty, display};
    use tracing::{Level, Span};

    use super::super::facade;
    use crate::error::Error;
    use crate::origin::SourceName;

    /// The span of a drain.
    #[derive(Clone, Debug)]
    pub(crate) struct DrainSpan(Span);

    impl DrainSpan {
        pub(crate) fn new(step: &str) -> Self {
            Self(tracing::info_span!("drain", step, outcome = Empty))
        }

        pub(crate) fn in_scope<T>(&self, code: impl FnOnce() -> T) -> T {
            self.0.in_scope(code)
        }

        pub(crate) fn end(&self, result: Result<(), &Error>) {
            record(&self.0, result);
        }
    }

    /// The span of a message, while there is one.
    #[derive(Debug)]
    pub(crate) struct MessageSpan(Span);

    impl MessageSpan {
        pub(crate) fn none() -> Self {
            Self(Span::none())
        }

        pub(crate) fn new(source: &SourceName, number: u64) -> Self {
            if !tracing::enabled!(Level::DEBUG) {
                return Self::none();
            }
            let source = source.as_str();
            Self(tracing::debug_span!("message", source, number, outcome = Empty))
        }

        pub(crate) fn in_scope<T>(&self, code: impl FnOnce() -> T) -> T {
            self.0.in_scope(code)
        }

        /// Closes the span of a message that was handled, or failed.
        pub(crate) fn end(&mut self, result: Result<(), &Error>) {
            record(&self.0, result);
            facade(|| self.0 = Span::none());
        }

        /// Closes the span of a message whose handler was dropped.
        pub(crate) fn end_dropped(&mut self) {
            facade(|| {
                self.0.record("outcome", "dropped");
                self.0 = Span::none();
            });
        }
    }

    fn record(span: &Span, result: Result<(), &Error>) {
        let outcome = result.map_or_else(|error| error.code().as_str(), |()| "ok");
        facade(|| {
            span.record("outcome", outcome);
        });
    }

    /// A compensation has ended; `describe` tells its label and its place.
    pub(crate) fn compensated(
        describe: impl FnOnce() -> (Option<String>, &'static Location<'static>),
        attempts: u32,
        error: Option<&Error>,
    ) {
        if !tracing::enabled!(Level::DEBUG) && error.is_none() {
            return;
        }
        let (label, place) = describe();
        let registered_at = display(place);
        facade(|| match error {
            None => tracing::debug!(label, registered_at, attempts, "compensated"),
            Some(error) => {
                let error = format!("{error:#}");
                tracing::warn!(label, registered_at, attempts, error, "a compensation failed");
            }
        });
    }

    /// An option of a drain can have no effect on it.
    pub(crate) fn without_effect(option: &str, why: &str) {
        facade(|| tracing::warn!(option, why, "an option has no effect"));
    }

    /// A transport could not do what it was asked for; it is tried again, or counted.
    pub(crate) fn trouble(error: &Error) {
        facade(|| tracing::warn!(error = format!("{error:#}"), "trouble with a transport"));
    }

    /// Places that one event names.
    const MAX_PLACES: usize = 8;

    /// So many compensations were lost, registered at these places. May be called in a destructor,
    /// also while the thread is unwinding or going away.
    pub(crate) fn lost(count: usize, places: &[&'static Location<'static>]) {
        facade(|| {
            let more = if places.len() > MAX_PLACES { ", …" } else { "" };
            let places: Vec<_> = places.iter().take(MAX_PLACES).map(ToString::to_string).collect();
            let places = places.join(", ") + more;
            tracing::warn!(count, places, "compensations were lost with their scope");
        });
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    use std::panic::Location;

    use crate::error::Error;
    use crate::origin::SourceName;

    #[derive(Clone, Debug)]
    pub(crate) struct DrainSpan;

    impl DrainSpan {
        pub(crate) fn new(_: &str) -> Self {
            Self
        }

        #[inline]
        #[allow(clippy::unused_self, reason = "there is no span")]
        pub(crate) fn in_scope<T>(&self, code: impl FnOnce() -> T) -> T {
            code()
        }

        #[inline]
        #[allow(clippy::unused_self, reason = "there is no span")]
        pub(crate) fn end(&self, _: Result<(), &Error>) {}
    }

    #[derive(Debug)]
    pub(crate) struct MessageSpan;

    #[allow(clippy::unused_self, reason = "there is no span")]
    impl MessageSpan {
        pub(crate) fn none() -> Self {
            Self
        }

        #[inline]
        pub(crate) fn new(_: &SourceName, _: u64) -> Self {
            Self
        }

        #[inline]
        pub(crate) fn in_scope<T>(&self, code: impl FnOnce() -> T) -> T {
            code()
        }

        #[inline]
        pub(crate) fn end(&mut self, _: Result<(), &Error>) {}

        #[inline]
        pub(crate) fn end_dropped(&mut self) {}
    }

    #[inline]
    pub(crate) fn compensated(
        _: impl FnOnce() -> (Option<String>, &'static Location<'static>),
        _: u32,
        _: Option<&Error>,
    ) {
    }

    #[inline]
    pub(crate) fn trouble(_: &Error) {}

    pub(crate) fn without_effect(_: &str, _: &str) {}

    #[inline]
    pub(crate) fn lost(_: usize, _: &[&'static Location<'static>]) {}
}
