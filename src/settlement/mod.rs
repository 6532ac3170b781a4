//! What a message is settled by, and what becomes of that.
//!
//! A settlement is an effect, and giving a message back is its compensation. A drain gives the
//! verdict on a message to the *desk* where the message came from, by its *ticket*; the desk knows
//! the transport, and what it has heard of it.
//!
//! - `words`: verdicts, their outcomes, and what is known of a delivery
//! - `desk`: a transport as a drain sees it; `bell`: whether there is anything to be seen
//! - `ticket`: the right to settle one message
//! - `by_hand`: handlers that settle their message themselves

mod bell;
mod by_hand;
mod desk;
mod ticket;
mod words;

pub(crate) use bell::{BellPull, DeskBell, DeskBells};
pub use by_hand::Settling;
pub(crate) use desk::{Desk, Given, Handled, Key, News, Settlements, Tag};
pub use ticket::Ticket;
pub(crate) use ticket::{Delivered, Release};
pub use words::{Able, Assignment, Facts, Settled, Verdict};
