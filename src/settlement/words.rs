//! Verdicts, their outcomes, and what is known of a delivery.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

/// What a drain has decided about a message: see [`Transport::settle`](crate::transport::Transport::settle).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// It was handled: the transport forgets it. In prefix order, and everything before it.
    Accept,
    /// It is given back, to be delivered again.
    Release {
        /// Not before so long from now, where the transport can [delay](Able::delays) it.
        after: Option<Duration>,
        /// Whether a handler was called with it, or it has failed before that (it cannot be decoded, it
        /// came too often), or was left out.
        /// A delivery that nobody began is taken back from the count, where the transport can.
        begun: bool,
    },
    /// It is never to be delivered again: its dead letter is stored, or the transport
    /// [keeps it](Able::rejects).
    Reject {
        /// What it has failed with.
        error: Error,
    },
}

impl Verdict {
    /// Back at once, and nobody has begun it.
    pub(crate) const UNTOUCHED: Self = Self::Release { after: None, begun: false };

    /// Given back once whatever its handler did is undone.
    pub(crate) const UNDONE: Self = Self::Release { after: None, begun: true };

    /// The same without what the transport cannot do.
    pub(crate) fn fit(self, able: &Able) -> Self {
        match self {
            Self::Release { begun, .. } if !able.delays => Self::Release { after: None, begun },
            verdict => verdict,
        }
    }
}

/// What became of one settlement, as far as the transport knows.
#[derive(Clone, Debug)]
pub enum Settled {
    /// The transport said so.
    Confirmed,
    /// It was sent, and the transport never says more.
    Sent,
    /// Certainly not applied, and the receipt is still good.
    Refused(Error),
    /// The receipt is no longer ours: its lease ran out, or its partition was taken away.
    Lost(Error),
    /// Sent, and no answer came: it may have been applied.
    Unknown(Error),
}

impl Settled {
    pub(crate) fn into_error(self) -> Option<Error> {
        match self {
            Self::Refused(error) | Self::Lost(error) | Self::Unknown(error) => Some(error),
            Self::Confirmed | Self::Sent => None,
        }
    }
}

/// A partition as one consumer has it: its number, and the generation of the assignment, session or
/// connection. `0` of both where there is no such thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assignment {
    /// The number of the partition.
    pub partition: u32,
    /// Grows with each assignment, session or connection; never comes again.
    pub generation: u64,
}

/// What is known of a delivery.
///
/// ```
/// use watershed::transport::Facts;
///
/// let facts = Facts { id: Some("m-17".into()), deliveries: Some(2), ..Facts::default() };
/// assert!(facts.headers.is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What the message is called, the same in each delivery of it.
    pub id: Option<Arc<str>>,
    /// How often it was delivered, this time included.
    pub deliveries: Option<u32>,
    /// Where it came from.
    pub assignment: Assignment,
    /// Of what it is a part, where the transport [keeps order by group](Able::groups).
    pub group: Option<Arc<str>>,
    /// What came with it.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Facts {
    /// Nothing is known.
    pub(crate) const NONE: Self = Self {
        id: None,
        deliveries: None,
        assignment: Assignment { partition: 0, generation: 0 },
        group: None,
        headers: Vec::new(),
    };

    pub(crate) fn is_known(&self) -> bool {
        let Self { id, deliveries, assignment, group, headers } = self;
        id.is_some()
            || deliveries.is_some()
            || group.is_some()
            || !headers.is_empty()
            || *assignment != Assignment::default()
    }
}

/// What a transport can do: each method says one thing of it. It may depend on how the transport is
/// set up, so it is a value.
///
/// ```
/// use std::time::Duration;
/// use watershed::transport::Able;
///
/// let queue = Able::each().fences().renews().delays().counts().batches_of(10);
/// let log = Able::prefix().assigns().asks_every(Duration::from_millis(100));
/// # let _ = (queue, log);
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
#[allow(clippy::struct_excessive_bools, reason = "each says one thing")]
pub struct Able {
    pub(crate) prefix: bool,
    pub(crate) assigns: bool,
    pub(crate) groups: bool,
    pub(crate) fences: bool,
    pub(crate) leases: bool,
    pub(crate) renews: bool,
    pub(crate) delays: bool,
    pub(crate) rejects: bool,
    pub(crate) redrives: bool,
    pub(crate) counts: bool,
    pub(crate) batch: usize,
    pub(crate) prefetch: usize,
    pub(crate) asks_every: Duration,
}

impl Able {
    const fn new(prefix: bool) -> Self {
        Self {
            prefix,
            assigns: false,
            groups: false,
            fences: false,
            leases: false,
            renews: false,
            delays: false,
            rejects: false,
            redrives: false,
            counts: false,
            batch: 1,
            prefetch: 1,
            asks_every: Duration::from_secs(1),
        }
    }

    /// Each message is settled by itself.
    pub const fn each() -> Self {
        Self::new(false)
    }

    /// An accept covers every message of its partition that was taken before: offsets.
    pub const fn prefix() -> Self {
        Self::new(true)
    }

    /// Its partitions are [assigned](crate::transport::Event::Assigned) to this process: its sources come
    /// from [`Link::assigned`](crate::transport::Link::assigned), and from nowhere else.
    pub const fn assigns(mut self) -> Self {
        self.assigns = true;
        self
    }

    /// It keeps order by [group](Facts::group), as FIFO queues do: of each group one message at a time
    /// is handled, those of different groups at once, without being asked; and what is behind one that
    /// goes back goes back before it. [`unordered`](crate::FanIn::unordered) is
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation) there, and so are
    /// [windows](crate::channels::Window) over some of its sources and not over others. For messages that
    /// are settled [each by itself](Self::each).
    pub const fn groups(mut self) -> Self {
        self.groups = true;
        self
    }

    /// It refuses a receipt that is no longer good, by itself.
    pub const fn fences(mut self) -> Self {
        self.fences = true;
        self
    }

    /// Messages are ours [for a time](crate::transport::Received::leased_for).
    pub const fn leases(mut self) -> Self {
        self.leases = true;
        self
    }

    /// There are leases, and they can be renewed.
    pub const fn renews(mut self) -> Self {
        self.leases = true;
        self.renews = true;
        self
    }

    /// A release can say when the message comes again.
    pub const fn delays(mut self) -> Self {
        self.delays = true;
        self
    }

    /// It keeps what is rejected: a rejected message is not lost, also without a dead letter.
    pub const fn rejects(mut self) -> Self {
        self.rejects = true;
        self
    }

    /// It puts aside by itself what was delivered too often.
    pub const fn redrives(mut self) -> Self {
        self.redrives = true;
        self
    }

    /// It counts the deliveries of a message.
    pub const fn counts(mut self) -> Self {
        self.counts = true;
        self
    }

    /// The most verdicts, or renewals, in one call. Default: 1.
    pub const fn batches_of(mut self, most: usize) -> Self {
        self.batch = if most == 0 { 1 } else { most };
        self
    }

    /// The most messages of one source that are fetched and not handed out. Where the transport keeps
    /// order by [group](Self::groups), those that wait for their group come on top,
    /// [`max_ahead`](crate::transport::Link::max_ahead) at most. Default: 1.
    pub const fn prefetches(mut self, most: usize) -> Self {
        self.prefetch = if most == 0 { 1 } else { most };
        self
    }

    /// How long after a fetch that brought nothing the next one is sent, if no
    /// [`Event::Ready`](crate::transport::Event::Ready) comes before. Default: 1 second.
    pub const fn asks_every(mut self, interval: Duration) -> Self {
        self.asks_every = interval;
        self
    }
}
