//! What a program is, and how bytes say it.
//!
//! Every list of bytes is a program. A byte that is missing counts as 0, and 0 is the simplest
//! choice everywhere: fewer and smaller bytes are a simpler program, which is how one is shrunk.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use watershed::{Commit, CompensationPolicy, OnFailure, RetryPolicy};

#[derive(Debug)]
pub struct Program {
    pub seed: u64,
    pub strict_wakers: bool,
    /// Registered by the user before the drains: no drain may touch these.
    pub before: Vec<Plan>,
    /// At once, on one scope.
    pub drains: Vec<Arc<Drain>>,
    pub phases: Vec<Phase>,
    /// How the program ends: all is forgotten, or undone by a last rollback that cannot fail.
    pub clears: bool,
}

#[derive(Debug)]
pub struct Drain {
    pub concurrency: usize,
    pub per_source: Option<usize>,
    pub quantum: usize,
    /// How many keys there are, if messages are ordered by key.
    pub keys: Option<usize>,
    pub commit: Commit,
    pub on_failure: OnFailure,
    pub timeout: Option<Duration>,
    pub message_timeout: Option<Duration>,
    pub grace: Duration,
    pub policy: Policy,
    pub dead_letter_panics: bool,
    pub cut: Option<Cut>,
    pub cancel_after: Option<Duration>,
    pub shut_down_after: Option<Duration>,
    pub finish_within: Option<Duration>,
    pub sources: Vec<Vec<Act>>,
}

/// When a future is dropped.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    Polls(u64),
    After(Duration),
}

/// What a source does.
#[derive(Debug)]
pub enum Act {
    Message(Message),
    Pending(u64),
    Wait(Duration),
    StrayWakes(u64),
    Fault,
    Panic,
    Never,
}

#[derive(Debug)]
pub struct Message {
    pub ops: Vec<Op>,
    pub end: End,
}

#[derive(Debug)]
pub enum End {
    Succeed,
    Compensated(Plan),
    Fail,
    Panic,
    Never,
}

/// What a handler does.
#[derive(Debug)]
pub enum Op {
    Effect(Plan),
    /// Pending so many times.
    Yield(u64),
    Wait(Duration),
    /// Staged before the effect, and perhaps withdrawn.
    Reserve {
        plan: Plan,
        yields: u64,
        disarm: bool,
    },
    /// Effects on a scope of their own, which the message's scope absorbs, at the latest when the
    /// handler is dropped.
    Child {
        plans: Vec<Plan>,
        yields: u64,
        reserves: bool,
    },
    /// Waits for the token, with an effect when it has come.
    Heed(Plan),
    Cancel,
    /// Forgets what the message has staged so far.
    Clear,
    /// Somebody keeps the context, and registers something when the drains are over.
    LeakStep(Plan),
    /// Somebody keeps the reservation, and disarms it when the drains are over.
    LeakReservation(Plan),
    Timeout {
        after: Duration,
        policy: Policy,
        ops: Vec<Op>,
        fails: bool,
    },
    Nested(Arc<Drain>),
}

/// An action: how it goes when it is run.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Attempts that fail before one succeeds.
    pub fails: u32,
    pub how: Failure,
    pub yields: u64,
    pub wait: Option<Duration>,
    /// Actions that its first attempt registers.
    pub registers: u64,
    /// Where it registers them: on the scope it was registered on itself, or on the outermost.
    pub at_home: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Failure {
    Error,
    PanicAtPoll,
    PanicAtCall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    SequentialReverse,
    Parallel,
    Limited,
    None,
}

#[derive(Clone, Copy)]
pub struct Policy {
    pub order: Order,
    pub attempts: u32,
    pub wait: Duration,
}

/// What happens after the drains: one or two rollbacks at once.
#[derive(Debug)]
pub struct Phase {
    pub before: Vec<Plan>,
    pub rollbacks: Vec<Rollback>,
}

#[derive(Clone, Copy, Debug)]
pub struct Rollback {
    pub policy: Policy,
    pub cut: Option<Cut>,
    pub cancel_after: Option<Duration>,
}

/// On one line, and what is usual left out.
impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fails, how, yields, wait, registers, at_home } = self;
        f.write_str("Plan")?;
        if *fails > 0 {
            write!(f, " fails {fails} ({how:?})")?;
        }
        if *yields > 0 {
            write!(f, " yields {yields}")?;
        }
        if let Some(wait) = wait {
            write!(f, " waits {wait:?}")?;
        }
        if *registers > 0 {
            write!(f, " registers {registers} {}", if *at_home { "at home" } else { "outside" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { order, attempts, wait } = self;
        write!(f, "{order:?}, {attempts} attempts, {wait:?} between")
    }
}

impl Policy {
    /// The policy of the last rollback.
    pub const PLAIN: Self =
        Self { order: Order::SequentialReverse, attempts: 1, wait: Duration::ZERO };

    pub fn build(self) -> CompensationPolicy {
        let policy = match self.order {
            Order::SequentialReverse => CompensationPolicy::sequential_reverse(),
            Order::Parallel => CompensationPolicy::parallel(),
            Order::Limited => CompensationPolicy::parallel_limited(2),
            Order::None => CompensationPolicy::none(),
        };
        policy.retry(RetryPolicy::fixed(self.attempts, self.wait))
    }
}

/// The bytes that are left.
pub struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    pub fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn below(&mut self, end: u8) -> u8 {
        self.next() % end
    }

    /// True once in so many times, and never for a byte of 0.
    pub fn one_in(&mut self, times: u8) -> bool {
        self.below(times) == times - 1
    }

    pub fn count(&mut self, end: u8) -> u64 {
        u64::from(self.below(end))
    }

    /// A multiple of a quarter of a millisecond, so that some moments coincide.
    pub fn wait(&mut self, end: u8) -> Duration {
        Duration::from_micros(250) * u32::from(self.below(end))
    }

    fn list<T>(&mut self, end: u8, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(end)).map(|_| item(self)).collect()
    }

    fn maybe<T>(&mut self, times: u8, item: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.one_in(times).then(|| item(self))
    }
}

fn at_least_one(more: u8) -> usize {
    1 + usize::from(more)
}

impl Program {
    pub fn decode(bytes: &mut Bytes<'_>) -> Self {
        let seed = bytes.next().into();
        let flags = bytes.next();
        let clears = flags & 3 == 3;
        let drains = if flags & 0b1_1100 == 0b1_1100 { 2 } else { 1 };
        let before = bytes.list(3, Plan::decode);
        let phases = bytes.list(4, Phase::decode);
        let drains = (0..drains).map(|_| Arc::new(Drain::decode(bytes, 1))).collect();
        Self { seed, strict_wakers: flags & 32 == 32, before, drains, phases, clears }
    }

    /// Whether something in it waits for ever unless it is told to stop.
    pub fn waits_for_ever(&self) -> bool {
        self.drains.iter().any(|drain| drain.waits_for_ever())
    }
}

impl Drain {
    fn decode(bytes: &mut Bytes<'_>, depth: u8) -> Self {
        let modes = bytes.next();
        let commit = match modes & 3 {
            0 | 1 => Commit::Pipeline,
            2 => Commit::Message,
            _ => Commit::Never,
        };
        let alone = modes & 0b1100 == 0b1100;
        let on_failure = if alone { OnFailure::Continue } else { OnFailure::Abort };
        let policy = if alone { Policy::decode(bytes) } else { Policy::PLAIN };
        let quantum =
            if modes & 16 == 16 { at_least_one(bytes.below(3)) } else { at_least_one(63) };
        let concurrency = at_least_one(bytes.below(4));
        let keys = bytes.maybe(4, |bytes| usize::from(bytes.below(3)) + 1);
        Self {
            concurrency,
            per_source: keys.and_then(|_| bytes.maybe(2, |bytes| at_least_one(bytes.below(3)))),
            quantum,
            keys,
            commit,
            on_failure,
            timeout: bytes.maybe(6, |bytes| bytes.wait(40)),
            message_timeout: bytes.maybe(5, |bytes| bytes.wait(16)),
            grace: bytes.wait(16),
            policy,
            dead_letter_panics: alone && bytes.one_in(16),
            cut: if depth == 1 { bytes.maybe(6, Cut::decode) } else { None },
            cancel_after: if depth == 1 { bytes.maybe(6, |bytes| bytes.wait(24)) } else { None },
            shut_down_after: if depth == 1 { bytes.maybe(6, |bytes| bytes.wait(24)) } else { None },
            finish_within: if depth == 1 { bytes.maybe(2, |bytes| bytes.wait(12)) } else { None },
            sources: (0..=bytes.below(if depth == 1 { 4 } else { 2 }))
                .map(|_| bytes.list(7, |bytes| Act::decode(bytes, depth)))
                .collect(),
        }
    }

    fn waits_for_ever(&self) -> bool {
        self.sources.iter().flatten().any(|act| match act {
            Act::Never => true,
            Act::Message(message) => {
                matches!(message.end, End::Never) || message.ops.iter().any(Op::waits_for_ever)
            }
            _ => false,
        })
    }
}

impl Cut {
    fn decode(bytes: &mut Bytes<'_>) -> Self {
        let amount = bytes.below(24);
        if bytes.one_in(2) {
            Self::After(Duration::from_micros(250) * amount.into())
        } else {
            Self::Polls(amount.into())
        }
    }
}

impl Act {
    fn decode(bytes: &mut Bytes<'_>, depth: u8) -> Self {
        match bytes.below(32) {
            24 | 25 => Self::Pending(bytes.count(3) + 1),
            26 | 27 => Self::Wait(bytes.wait(12)),
            28 => Self::StrayWakes(bytes.count(3) + 1),
            29 => Self::Fault,
            30 => Self::Panic,
            31 => Self::Never,
            _ => Self::Message(Message::decode(bytes, depth)),
        }
    }
}

impl Message {
    fn decode(bytes: &mut Bytes<'_>, depth: u8) -> Self {
        let ops = bytes.list(5, |bytes| Op::decode(bytes, depth));
        let end = match bytes.below(24) {
            18 | 19 => End::Compensated(Plan::decode(bytes)),
            20 | 21 => End::Fail,
            22 => End::Panic,
            23 => End::Never,
            _ => End::Succeed,
        };
        Self { ops, end }
    }
}

impl Op {
    fn decode(bytes: &mut Bytes<'_>, depth: u8) -> Self {
        match bytes.below(32) {
            12..=14 => Self::Yield(bytes.count(3) + 1),
            15..=18 => Self::Wait(bytes.wait(12)),
            19 | 20 => Self::Reserve {
                plan: Plan::decode(bytes),
                yields: bytes.count(2),
                disarm: bytes.one_in(2),
            },
            21 | 22 => Self::Child {
                plans: bytes.list(4, Plan::decode),
                yields: bytes.count(2),
                reserves: bytes.one_in(4),
            },
            23 => Self::Heed(Plan::decode(bytes)),
            24 => Self::Cancel,
            25 => Self::Clear,
            26 => Self::LeakStep(Plan::decode(bytes)),
            27 => Self::LeakReservation(Plan::decode(bytes)),
            28 | 29 if depth > 0 => Self::Timeout {
                after: bytes.wait(8),
                policy: Policy::decode(bytes),
                ops: bytes.list(4, |bytes| Self::decode(bytes, depth - 1)),
                fails: bytes.one_in(4),
            },
            30 | 31 if depth > 0 => Self::Nested(Arc::new(Drain::decode(bytes, depth - 1))),
            _ => Self::Effect(Plan::decode(bytes)),
        }
    }

    fn waits_for_ever(&self) -> bool {
        match self {
            Self::Heed(_) => true,
            Self::Timeout { ops, .. } => ops.iter().any(Self::waits_for_ever),
            Self::Nested(drain) => drain.waits_for_ever(),
            _ => false,
        }
    }
}

impl Plan {
    /// An action that succeeds at once.
    pub const PLAIN: Self =
        Self { fails: 0, how: Failure::Error, yields: 0, wait: None, registers: 0, at_home: false };

    pub fn decode(bytes: &mut Bytes<'_>) -> Self {
        let fails = match bytes.below(12) {
            8 | 9 => 1,
            10 => 2,
            11 => u32::MAX,
            _ => 0,
        };
        let rest = bytes.next();
        let how = match rest & 3 {
            0 | 1 => Failure::Error,
            2 => Failure::PanicAtPoll,
            _ => Failure::PanicAtCall,
        };
        let (yields, wait) = match (rest >> 2) & 7 {
            4 => (1, None),
            5 => (2, None),
            6 => (0, Some(bytes.wait(8))),
            7 => (1, Some(bytes.wait(8))),
            _ => (0, None),
        };
        let registers = if (rest >> 5) & 3 == 3 { bytes.count(2) + 1 } else { 0 };
        Self { fails, how, yields, wait, registers, at_home: rest & 128 != 0 }
    }
}

impl Policy {
    pub fn decode(bytes: &mut Bytes<'_>) -> Self {
        let order = match bytes.below(8) {
            4 | 5 => Order::Parallel,
            6 => Order::Limited,
            7 => Order::None,
            _ => Order::SequentialReverse,
        };
        let retry = bytes.below(9);
        let attempts = 1 + u32::from(retry % 3);
        Self { order, attempts, wait: Duration::from_micros(500) * u32::from(retry / 3) }
    }
}

impl Phase {
    fn decode(bytes: &mut Bytes<'_>) -> Self {
        let two = bytes.one_in(3);
        Self {
            before: bytes.list(3, Plan::decode),
            rollbacks: (0..=u8::from(two)).map(|_| Rollback::decode(bytes)).collect(),
        }
    }
}

impl Rollback {
    pub fn decode(bytes: &mut Bytes<'_>) -> Self {
        Self {
            policy: Policy::decode(bytes),
            cut: bytes.maybe(4, Cut::decode),
            cancel_after: bytes.maybe(5, |bytes| bytes.wait(8)),
        }
    }
}
