//! The right to settle one message.

use std::fmt;
use std::sync::Arc;

use super::desk::{Desk, Given, Key};
use super::words::{Facts, Settled, Verdict};
use crate::error::Error;
use crate::step::{LentStep, StepDelivery};
use crate::undo::{self, Action, Undoing};

/// What the messages of a source are settled by that has a transport, see
/// [`Source::Receipt`](crate::Source::Receipt). Only a drain does that: dropped, it settles nothing.
///
/// One of a window stands for all its messages, and one of a source without a transport for none.
#[derive(Default)]
pub struct Ticket(Delivered);

/// A message as its transport delivered it; a window, with all of its messages.
///
/// It has no allocation of its own where it is one message: what a handler settles by itself is known
/// to the desk.
#[derive(Clone, Default)]
pub struct Delivered {
    receipts: Receipts,
    /// See [`Delivered::order`].
    order: u64,
}

/// Numbers of receipts, and the desks where they are known.
#[derive(Clone, Default)]
enum Receipts {
    #[default]
    None,
    One((Arc<dyn Desk>, Key)),
    Many(Vec<(Arc<dyn Desk>, Key)>),
}

impl Receipts {
    #[inline]
    fn all(&self) -> &[(Arc<dyn Desk>, Key)] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    fn append(&mut self, other: Self) {
        if other.all().is_empty() {
            return;
        }
        let mut all = match std::mem::take(self) {
            Self::None => return *self = other,
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        };
        match other {
            Self::None => {}
            Self::One(one) => all.push(one),
            Self::Many(others) => all.extend(others),
        }
        *self = Self::Many(all);
    }
}

impl Ticket {
    pub(crate) fn new(desk: Arc<dyn Desk>, key: Key) -> Self {
        Self(Delivered { receipts: Receipts::One((desk, key)), order: 0 })
    }

    /// Whoever settles this one settles the other as well.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        self.0.receipts.append(std::mem::take(&mut other.0.receipts));
    }

    #[inline]
    pub(crate) fn delivered(&self) -> Option<&Delivered> {
        (!self.0.receipts().is_empty()).then_some(&self.0)
    }

    #[inline]
    pub(crate) fn delivered_mut(&mut self) -> Option<&mut Delivered> {
        (!self.0.receipts().is_empty()).then_some(&mut self.0)
    }

    /// One verdict for all.
    pub(crate) fn give(mut self, verdict: &Verdict, given: Given) {
        std::mem::take(&mut self.0).give(verdict, given);
    }

    /// It was handled, and there is nothing to be undone. `false`: it has to be given.
    #[inline]
    pub(crate) fn accept(&mut self) -> bool {
        let Receipts::One((desk, key)) = &self.0.receipts else { return false };
        let is_accepted = desk.accept(*key);
        if is_accepted {
            self.0.receipts = Receipts::None;
        }
        is_accepted
    }

    /// The handler has settled all of them.
    pub(crate) fn settled_by_hand(mut self, outcome: &Settled) {
        std::mem::take(&mut self.0).settled_by_hand(outcome);
    }

    /// What releases the message once all that was done for it is undone.
    pub(crate) fn into_release(mut self) -> Option<Release> {
        let delivered = std::mem::take(&mut self.0);
        (!delivered.receipts().is_empty()).then(|| Release::new(delivered))
    }
}

/// Who has delivered the message of a step: which one of theirs it is is the step's number.
struct Deliverer {
    desk: Arc<dyn Desk>,
    number: u32,
}

impl Delivered {
    /// A handler is about to be called, with this step: what it stages comes behind this.
    #[inline]
    pub(crate) fn begin(&mut self, step: &mut LentStep) {
        self.order = undo::next_order();
        match &self.receipts {
            Receipts::None => step.set_delivery(None),
            // Most messages of a slot come from one desk.
            Receipts::One((desk, key)) => {
                let number = key.desk;
                let deliverer = || Arc::new(Deliverer { desk: Arc::clone(desk), number }) as _;
                step.set_receipt(number, key.number(), deliverer);
            }
            Receipts::Many(_) => step.set_delivery(Some(Arc::new(self.clone()))),
        }
    }

    /// What a step says of its message.
    pub(super) fn of_step((delivery, receipt): (StepDelivery, u64)) -> Option<Self> {
        let one = match delivery.downcast::<Self>() {
            Ok(many) => return Some(Self::clone(&many)),
            Err(other) => other.downcast::<Deliverer>().ok()?,
        };
        let key = Key::at_desk(one.number, receipt);
        Some(Self { receipts: Receipts::One((Arc::clone(&one.desk), key)), order: 0 })
    }

    /// The number of what releases the message, below all that its handler stages.
    pub(crate) fn order(&self) -> u64 {
        match self.order {
            0 => undo::next_order(),
            number => number,
        }
    }

    #[inline]
    pub(crate) fn receipts(&self) -> &[(Arc<dyn Desk>, Key)] {
        self.receipts.all()
    }

    /// One verdict for all of them, unless whoever has a step of it has settled it meanwhile.
    fn give(&self, verdict: &Verdict, given: Given) {
        if let Some(outcome) = self.take_by_hand() {
            return self.settled_by_hand(&outcome);
        }
        for (desk, key) in self.receipts() {
            desk.give(*key, verdict.clone(), given);
        }
    }

    fn settled_by_hand(&self, outcome: &Settled) {
        for (desk, key) in self.receipts() {
            desk.settled_by_hand(*key, outcome);
        }
    }

    pub(crate) fn facts(&self) -> Vec<Facts> {
        self.receipts().iter().map(|(desk, key)| desk.facts(*key)).collect()
    }

    /// Whether any of its receipts is to be given back rather than tried again.
    pub(crate) fn is_asked_back(&self) -> bool {
        self.receipts().iter().any(|(desk, key)| desk.is_asked_back(*key))
    }

    /// Whether nothing of it is lost, asked back, or behind a message of its group that goes back.
    pub(crate) fn may_begin(&self) -> bool {
        self.receipts().iter().all(|(desk, key)| desk.may_begin(*key))
    }

    /// Whether a handler has time enough for all of it.
    pub(crate) fn has_time(&self) -> bool {
        self.receipts().iter().all(|(desk, key)| desk.has_time(*key))
    }

    /// How often its transport has lost or asked back messages that were taken.
    pub(crate) fn recalls(&self) -> u64 {
        self.receipts().first().map_or(0, |(desk, _)| desk.recalls())
    }

    /// Whether any of its receipts is no longer ours.
    pub(crate) fn is_lost(&self) -> bool {
        self.receipts().iter().any(|(desk, key)| !desk.is_ours(*key))
    }

    pub(super) fn set_by_hand(&self, outcome: Option<Settled>) {
        let outcomes = std::iter::repeat_n(outcome, self.receipts().len());
        for ((desk, key), outcome) in self.receipts().iter().zip(outcomes) {
            desk.by_hand(*key, outcome);
        }
    }

    /// Whether the handler has settled it, or is about to.
    pub(crate) fn is_by_hand(&self) -> bool {
        self.receipts().iter().any(|(desk, key)| desk.is_by_hand(*key))
    }

    /// How the handler's own settlement went, if it made one.
    pub(crate) fn take_by_hand(&self) -> Option<Settled> {
        // All of a window have the same.
        let taken = self.receipts().iter().filter_map(|(desk, key)| desk.take_by_hand(*key));
        taken.reduce(|first, _| first)
    }
}

/// A ticket that goes away settles nothing: nobody will.
impl Drop for Ticket {
    #[inline]
    fn drop(&mut self) {
        for (desk, key) in self.0.receipts() {
            desk.abandon(*key);
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.receipts().iter().map(|(_, key)| key)).finish()
    }
}

impl fmt::Debug for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivered")
            .field("receipts", &self.receipts().len())
            .finish_non_exhaustive()
    }
}

/// Releases a message whose drain is gone, as the last of its compensations.
#[derive(Debug)]
pub(crate) struct Release(Delivered);

impl Release {
    pub(crate) fn new(delivered: Delivered) -> Self {
        for (desk, key) in delivered.receipts() {
            desk.keep(*key);
        }
        Self(delivered)
    }
}

impl Action for Release {
    fn attempt(&mut self, _: &Undoing) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let delivered = self.0.clone();
        async move {
            for (desk, key) in delivered.receipts() {
                if let Settled::Refused(error) = Arc::clone(desk).release_kept(*key).await {
                    return Err(error);
                }
            }
            Ok(())
        }
    }

    fn label(&self) -> Option<&str> {
        Some("release the message")
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        for (desk, key) in self.0.receipts() {
            desk.forget_kept(*key);
        }
    }
}
