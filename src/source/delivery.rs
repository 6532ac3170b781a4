//! What passes between a source and whoever polls it.

use std::any::Any;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::Source;
use super::live::Refusal;
use crate::error::Error;
use crate::origin::SourceId;
use crate::settlement::{Delivered, Desk, Ticket};

/// The priority of a source that was given none.
const DEFAULT_PRIORITY: u32 = 100;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Unsettled {}
    impl Sealed for super::Ticket {}
}

/// What a message is settled by, see [`Source::Receipt`](crate::Source::Receipt).
pub trait Receipt: sealed::Sealed + Default + Send + 'static {
    /// Whether a transport waits to hear what became of the message.
    const SETTLES: bool;

    /// Several messages become one, as in a window: whoever settles that one settles all of them.
    fn join(&mut self, other: Self);

    /// It was handled, and there is nothing to be undone: whether that is all there is to be said.
    fn accept(&mut self) -> bool;

    /// The right to settle, if there is one.
    fn into_ticket(self) -> Ticket;

    fn delivered(&self) -> Option<&Delivered>;

    fn delivered_mut(&mut self) -> Option<&mut Delivered>;
}

/// The receipt of a source that nobody settles with: every stream. It has no size.
///
/// Operations other than a drain keep no receipts, so a function over their sources asks for it:
///
/// ```
/// use watershed::channels::{Merge, Unsettled, merge};
/// use watershed::{Source, StepContext};
///
/// fn both<S: Source<Receipt = Unsettled>>(a: S, b: S) -> Merge<S> {
///     merge(&StepContext::new("both"), [a, b])
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsettled;

impl Receipt for Unsettled {
    const SETTLES: bool = false;

    #[inline]
    fn join(&mut self, Self: Self) {}

    #[inline]
    fn accept(&mut self) -> bool {
        true
    }

    #[inline]
    fn into_ticket(self) -> Ticket {
        Ticket::default()
    }

    #[inline]
    fn delivered(&self) -> Option<&Delivered> {
        None
    }

    #[inline]
    fn delivered_mut(&mut self) -> Option<&mut Delivered> {
        None
    }
}

impl Receipt for Ticket {
    const SETTLES: bool = true;

    fn join(&mut self, other: Self) {
        self.absorb(other);
    }

    #[inline]
    fn accept(&mut self) -> bool {
        Ticket::accept(self)
    }

    fn into_ticket(self) -> Ticket {
        self
    }

    #[inline]
    fn delivered(&self) -> Option<&Delivered> {
        Ticket::delivered(self)
    }

    #[inline]
    fn delivered_mut(&mut self) -> Option<&mut Delivered> {
        Ticket::delivered_mut(self)
    }
}

/// A message as it was before it could not be decoded.
pub(crate) type Raw = Box<dyn Any + Send + Sync>;

/// What was taken.
#[derive(Debug)]
pub enum Body<M> {
    /// A message for the handler.
    Message(M),
    /// It could not be made a message of: a message that has failed, not a fault of its source; and
    /// what it was, for its letter.
    Failed(Error, Option<Raw>),
    /// Nobody wants it: it is done without a handler.
    Skipped,
    /// One message was taken and is held by its source, in a window that is open: it counts to
    /// every bound of what is taken at a time, and the source is asked again.
    Held,
}

/// What a source yields.
#[derive(Debug)]
pub struct Delivery<M, R = Unsettled> {
    pub body: Body<M>,
    pub receipt: R,
}

impl<M, R: Receipt> Delivery<M, R> {
    #[inline]
    pub(crate) fn message(message: M, receipt: R) -> Self {
        Self { body: Body::Message(message), receipt }
    }

    /// One message more is held by its source, and its receipt with it.
    #[inline]
    pub(crate) fn held() -> Self {
        Self { body: Body::Held, receipt: R::default() }
    }

    /// The same with another message.
    #[inline]
    pub(crate) fn map<N>(self, map: impl FnOnce(M) -> N) -> Delivery<N, R> {
        self.and_then(|message| Body::Message(map(message)))
    }

    /// The same with whatever comes of its message.
    #[inline]
    pub(crate) fn and_then<N>(self, then: impl FnOnce(M) -> Body<N>) -> Delivery<N, R> {
        let body = match self.body {
            Body::Message(message) => then(message),
            Body::Failed(error, raw) => Body::Failed(error, raw),
            Body::Skipped => Body::Skipped,
            Body::Held => Body::Held,
        };
        Delivery { body, receipt: self.receipt }
    }
}

/// What a source of the type `S` yields.
pub(crate) type DeliveryOf<S> = Delivery<<S as Source>::Message, <S as Source>::Receipt>;

/// What polling a source of the type `S` comes to.
pub(crate) type Polled<S> = Poll<Option<Result<DeliveryOf<S>, Error>>>;

/// Whether something of a source may be started. A pending answer means that the source is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// The source is to leave its drain: it is dropped when its messages in flight have ended.
    Removed,
}

/// Whether something of a source is to be started, for whatever fetches ahead for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    #[default]
    No,
    Pause,
    /// The source leaves its drain: what was fetched and nobody has taken goes back.
    Leave,
    /// Its drain was asked to end.
    End,
}

/// What a drain learns of a source once, when it takes it in.
#[derive(Clone, Debug)]
pub struct Profile {
    pub name: Option<Arc<str>>,
    /// The identity of a source that has one already; others are given one.
    pub id: Option<SourceId>,
    pub weight: u32,
    pub priority: u32,
    pub rate: Option<(usize, Duration)>,
    /// Why the source cannot be used as it was asked to be.
    pub invalid: Option<Error>,
    /// The source can be paused and removed.
    pub live: bool,
    /// Where its owner hears that the drain cannot settle with its transport.
    pub refusal: Option<Arc<Refusal>>,
    /// The source takes what it does not yield at once.
    pub gathers: bool,
    /// Its transport keeps order by group: it yields nothing that is not to be handled at once.
    pub groups: bool,
    /// Where its messages are settled.
    pub desks: Vec<Arc<dyn Desk>>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            name: None,
            id: None,
            weight: 1,
            priority: DEFAULT_PRIORITY,
            rate: None,
            invalid: None,
            live: false,
            refusal: None,
            gathers: false,
            groups: false,
            desks: Vec::new(),
        }
    }
}

impl Profile {
    /// What a source is to an operation other than a drain; `turns`: to one whose sources have
    /// turns.
    ///
    /// # Errors
    ///
    /// When the source has an option that is wrong, or that `operation` does not heed.
    pub(crate) fn heeded_by(self, operation: &str, turns: bool) -> Result<Self, Error> {
        if let Some(error) = self.invalid {
            return Err(error);
        }
        let option = if self.rate.is_some() {
            "rate"
        } else if !turns && self.weight != 1 {
            "weighted"
        } else if !turns && self.priority != DEFAULT_PRIORITY {
            "prioritized"
        } else {
            return Ok(self);
        };
        Err(Error::validation(format!("`{option}` of a source has no effect in {operation}")))
    }
}
