//! The four orders that a drain can handle its messages in.

/// The future of a drain in one of its orders: 0 is in order, 1 unordered, 2 by key and 3 by key over
/// all sources.
#[allow(unused_macros, reason = "each test file uses a part of the support")]
macro_rules! in_order {
    ($order:expr, $drain:expr, $key:expr) => {{
        use ::futures::FutureExt as _;
        match $order {
            0 => $drain.into_future().boxed_local(),
            1 => $drain.unordered().into_future().boxed_local(),
            2 => $drain.ordered_by($key).into_future().boxed_local(),
            _ => $drain.ordered_across_sources_by($key).into_future().boxed_local(),
        }
    }};
}
