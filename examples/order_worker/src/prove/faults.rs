//! What is done to a round: which faults, and when.
//!
//! Everything is drawn from the round's seed before it begins, as a list of actions in the order of
//! their moments. An action that begins something (a freeze, a stall, a lock) has another one that ends
//! it.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

use super::workers::WORKERS;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL; another worker takes its place.
    KillWorker,
    /// SIGSTOP for longer than leases and the session last, then SIGCONT.
    FreezeWorker,
    /// SIGTERM in the middle of its work, sometimes twice; another worker takes its place.
    EndWorker,
    /// An immediate stop, and a start.
    RestartPostgres,
    /// SIGKILL, and a start on the same storage.
    KillKafka,
    /// SIGSTOP, and SIGCONT some seconds later.
    FreezeSqs,
    /// All connections to one server are closed.
    Cut,
    /// All connections to one server are silent for some seconds.
    Stall,
    /// A lock in the store, held for longer than `message_timeout`.
    Hang,
    /// Many orders that fail in every attempt.
    Poison,
}

impl Fault {
    const ALL: [Self; 10] = [
        Self::KillWorker,
        Self::FreezeWorker,
        Self::RestartPostgres,
        Self::KillKafka,
        Self::FreezeSqs,
        Self::Cut,
        Self::Stall,
        Self::Hang,
        Self::Poison,
        Self::EndWorker,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::KillWorker => "kill-worker",
            Self::FreezeWorker => "freeze-worker",
            Self::EndWorker => "end-worker",
            Self::RestartPostgres => "restart-postgres",
            Self::KillKafka => "kill-kafka",
            Self::FreezeSqs => "freeze-sqs",
            Self::Cut => "cut",
            Self::Stall => "stall",
            Self::Hang => "hang",
            Self::Poison => "poison",
        }
    }
}

/// Which connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Of the handlers, to the store.
    Store,
    /// Of the source, to the queue in `PostgreSQL`.
    Rows,
    /// To the Kafka broker.
    Kafka,
    /// To the SQS server.
    Sqs,
}

impl Line {
    pub(crate) const ALL: [Self; 4] = [Self::Store, Self::Rows, Self::Kafka, Self::Sqs];
}

/// What a handler needs and the driver can lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locked {
    Tokens,
    Outbox,
}

/// One step of a round; workers by their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Kill(usize),
    Freeze(usize),
    Thaw(usize),
    End { worker: usize, twice: bool },
    RestartPostgres,
    KillKafka,
    StartKafka,
    FreezeSqs,
    ThawSqs,
    Cut(Line),
    Stall(Line),
    GoOn(Line),
    Lock(Locked),
    Unlock,
}

/// What is done in one round.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: Vec<Fault>,
    /// How many orders of each source are poison.
    pub(crate) poison: u32,
    /// In the order of their moments, which count from when messages flow.
    pub(crate) actions: Vec<(Duration, Action)>,
}

impl Plan {
    /// The kinds take turns; each third time all had theirs, a round has two of them.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let kinds = Fault::ALL.len();
        let turn = usize::try_from(seed).unwrap_or(usize::MAX);
        let mut faults = vec![Fault::ALL[turn % kinds]];
        if turn / kinds % 3 == 2 {
            faults.push(Fault::ALL[(turn + random.usize(1..kinds)) % kinds]);
        }
        let mut actions = Vec::new();
        for fault in &faults {
            draw(*fault, &mut random, &mut actions);
        }
        actions.sort_by_key(|(moment, _)| *moment);
        let poison = if faults.contains(&Fault::Poison) { 20 } else { 2 };
        Self { seed, faults, poison, actions }
    }
}

/// `kill-worker+cut`
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.faults.iter().enumerate() {
            write!(f, "{}{}", if n > 0 { "+" } else { "" }, fault.name())?;
        }
        Ok(())
    }
}

/// The actions of one fault.
fn draw(fault: Fault, random: &mut Rng, actions: &mut Vec<(Duration, Action)>) {
    let worker = random.usize(0..WORKERS);
    let line = Line::ALL[random.usize(0..Line::ALL.len())];
    let start = match fault {
        Fault::KillKafka => milliseconds(random, flow(Line::Kafka)),
        Fault::FreezeSqs => milliseconds(random, flow(Line::Sqs)),
        Fault::Stall => milliseconds(random, flow(line)),
        _ => milliseconds(random, flow(Line::Store)),
    };
    let mut during = |length, begin, end| actions.extend([(start, begin), (start + length, end)]);
    match fault {
        Fault::KillWorker => {
            for _ in 0..random.u32(1..4) {
                let moment = milliseconds(random, flow(Line::Store));
                actions.push((moment, Action::Kill(random.usize(0..WORKERS))));
            }
        }
        // Leases and the session last six seconds; the broker needs some more to give partitions away.
        Fault::FreezeWorker => {
            let length = milliseconds(random, 7_500..10_000);
            during(length, Action::Freeze(worker), Action::Thaw(worker));
        }
        Fault::EndWorker => actions.push((start, Action::End { worker, twice: random.bool() })),
        Fault::RestartPostgres => actions.push((start, Action::RestartPostgres)),
        Fault::KillKafka => {
            let length = milliseconds(random, 0..3_000);
            during(length, Action::KillKafka, Action::StartKafka);
        }
        Fault::FreezeSqs => {
            let length = milliseconds(random, 3_000..9_000);
            during(length, Action::FreezeSqs, Action::ThawSqs);
        }
        Fault::Cut => {
            for _ in 0..random.u32(1..5) {
                let line = Line::ALL[random.usize(0..Line::ALL.len())];
                actions.push((milliseconds(random, flow(line)), Action::Cut(line)));
            }
        }
        Fault::Stall => {
            let length = milliseconds(random, 2_000..9_000);
            during(length, Action::Stall(line), Action::GoOn(line));
        }
        Fault::Hang => {
            let locked = if random.bool() { Locked::Tokens } else { Locked::Outbox };
            let length = milliseconds(random, 5_000..8_000);
            during(length, Action::Lock(locked), Action::Unlock);
        }
        // It is in what is produced.
        Fault::Poison => {}
    }
}

/// When something flows there, as it was seen: SQS has few messages, and a group of Kafka's needs three
/// seconds until it has its partitions.
fn flow(line: Line) -> Range<u64> {
    match line {
        Line::Store | Line::Rows => 100..7_000,
        Line::Kafka => 1_500..8_000,
        Line::Sqs => 100..2_500,
    }
}

fn milliseconds(random: &mut Rng, range: Range<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}
