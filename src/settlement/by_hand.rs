//! Handlers that settle their message themselves, inside a transaction of their own.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use super::desk::Key;
use super::ticket::Delivered;
use super::words::{Facts, Settled};
use crate::error::{Error, ErrorCode};
use crate::step::StepContext;

/// A settlement that a handler makes by itself, see [`StepContext::settling`]. Dropped without
/// [`ended`](Settling::ended), its outcome is unknown.
#[derive(Debug)]
#[must_use = "dropped, the outcome of the settlement is unknown"]
pub struct Settling(Delivered);

impl Settling {
    /// How the settlement went. One that was [refused](Settled::Refused) is as if it had not been
    /// tried: the drain settles the message as usual, so a handler whose transaction was undone with
    /// it returns an error. With `Ok` the message is accepted.
    pub fn ended(self, outcome: Settled) {
        self.0.set_by_hand(match outcome {
            Settled::Refused(_) => None,
            outcome => Some(outcome),
        });
    }
}

/// What tells this process from every other.
fn process() -> u64 {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    *PROCESS.get_or_init(|| RandomState::new().hash_one(0_u8))
}

/// Of a message that has a transport.
impl StepContext {
    fn delivered(&self) -> Option<Delivered> {
        Delivered::of_step(self.delivery()?)
    }

    /// What the transport knows of the step's message; of a window, of each of its messages. Empty
    /// outside a drain, and for a message of a plain source.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Facts> {
        self.delivered().map(|delivered| delivered.facts()).unwrap_or_default()
    }

    /// The transport's own receipt of the message with this place in
    /// [`deliveries`](StepContext::deliveries), for a handler that settles in a transaction of its own.
    /// `None` where there is none of that type, or it is no longer ours.
    #[must_use]
    pub fn receipt<R: 'static>(&self, at: usize) -> Option<R> {
        let delivered = self.delivered()?;
        let (desk, key) = delivered.receipts().get(at)?;
        desk.receipt(*key)?.downcast().ok().map(|receipt| *receipt)
    }

    /// From now on the handler settles its message by itself: the drain gives no verdict, and undoes
    /// nothing of the message. Its lease is renewed meanwhile. Say how it went by [`Settling::ended`].
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Validation`] where the message has no transport.
    pub fn settling(&self) -> Result<Settling, Error> {
        let Some(delivered) = self.delivered() else {
            return Err(Error::validation("the message has no transport to be settled with"));
        };
        let unknown = Error::new(ErrorCode::Unspecified, "the handler did not say how it settled");
        delivered.set_by_hand(Some(Settled::Unknown(unknown)));
        Ok(Settling(delivered))
    }

    /// A text that no other delivery has, of this message or another, in any process: what a handler
    /// writes beside its effect, so that its undo undoes only what this delivery did. `None` where the
    /// message has no transport.
    #[must_use]
    pub fn undo_key(&self) -> Option<String> {
        let delivered = self.delivered()?;
        let (_, Key { desk, place, turn }) = delivered.receipts().first()?;
        Some(format!("{:016x}-{desk:x}-{place:x}-{turn:x}", process()))
    }
}
