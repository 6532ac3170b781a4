//! The options that several operations have, so that each has one name, one type, one default and
//! one text everywhere.

/// An option of a builder: which one, and where the builder keeps it.
macro_rules! option {
    (timeout: $($at:ident).+) => {
        /// One absolute deadline for the whole operation, counted from its first poll by the
        /// context's clock. Default: never. Zero times out before anything is taken or called;
        /// [`Duration::MAX`](std::time::Duration::MAX) never does.
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.$($at).+ = Some(timeout);
            self
        }
    };
    (cancellation: $($at:ident).+) => {
        /// A token that ends the operation, beside that of the context. Default: that of the
        /// context alone.
        pub fn cancellation(mut self, token: crate::CancellationToken) -> Self {
            self.$($at).+ = token;
            self
        }
    };
    (grace: $($at:ident).+) => {
        /// How long what was told to stop is awaited before it is dropped, by the context's clock.
        /// Default: 5 seconds. Zero: not at all.
        pub fn grace(mut self, grace: std::time::Duration) -> Self {
            self.$($at).+ = grace;
            self
        }
    };
    (compensation: $($at:ident).+) => {
        /// How what has to be undone is undone, by the context's clock. Default: one action after
        /// another in reverse, one attempt each.
        pub fn compensation(mut self, policy: crate::CompensationPolicy) -> Self {
            self.$($at).+ = policy;
            self
        }
    };
    (quantum: $($at:ident).+) => {
        /// How many messages of one source may be taken before every other ready source has its
        /// turn, times the weight of the source. Default: 64; 0 is
        /// [`ErrorCode::Validation`](crate::ErrorCode::Validation), and so is a quantum beside a
        /// strategy. Token and timeout are looked at once a turn.
        pub fn quantum(mut self, messages: usize) -> Self {
            self.$($at).+ = Some(messages);
            self
        }
    };
}
pub(crate) use option;

/// How long what was told to stop is awaited, unless the user says otherwise.
pub(crate) const DEFAULT_GRACE: std::time::Duration = std::time::Duration::from_secs(5);
