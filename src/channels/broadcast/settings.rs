//! What a destination that does not take an item does to the broadcast.

/// What is done with an item for a destination that has no room for it.
///
/// ```
/// assert_eq!(watershed::channels::Overflow::default(), watershed::channels::Overflow::Wait);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The broadcast waits for room: the slowest destination sets the pace of all.
    #[default]
    Wait,
    /// The destination does not get this item.
    DropNewest,
    /// The destination gets this item in place of the oldest that it still holds. Channels can do
    /// that, sinks cannot.
    DropOldest,
    /// The broadcast ends with an error under the code `error.channel.full`.
    Fail,
}

/// What a destination that is closed does to the broadcast.
///
/// ```
/// assert_eq!(watershed::channels::OnClosed::default(), watershed::channels::OnClosed::Fail);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnClosed {
    /// The broadcast ends with [`ErrorCode::ChannelCompleted`](crate::ErrorCode::ChannelCompleted).
    #[default]
    Fail,
    /// The broadcast goes on without it, as long as a destination is left.
    Detach,
}
