//! What a wrapper leaves to its source.
//!
//! A method that a wrapper forgets to pass on is a pause or a window that gets lost there, so they are
//! written once.

/// All but `poll_delivery` and `take_held`; with `profile`, what an operation asks beforehand as well. The wrapper is pinned
/// with its `source`.
macro_rules! leave_to_source {
    (profile) => {
        $crate::source::passing::leave_to_source!();

        fn profile(&self) -> $crate::source::Profile {
            self.source.profile()
        }
    };
    () => {
        #[inline]
        fn poll_gate(
            self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
        ) -> ::std::task::Poll<$crate::source::Gate> {
            self.project().source.poll_gate(cx)
        }

        #[inline]
        fn give_out(self: ::std::pin::Pin<&mut Self>) -> bool {
            self.project().source.give_out()
        }

        #[inline]
        fn hold(self: ::std::pin::Pin<&mut Self>, hold: $crate::source::Hold) {
            self.project().source.hold(hold);
        }

        #[inline]
        fn is_paused(&self) -> bool {
            self.source.is_paused()
        }

        #[inline]
        fn holds(&self) -> bool {
            self.source.holds()
        }

        fn is_exhausted(&self) -> bool {
            self.source.is_exhausted()
        }
    };
}

pub(super) use leave_to_source;
