//! A plain account of what a program may do and must have done, which knows nothing of how the
//! library does it.
//!
//! Effects are numbered in the order of registration. Each belongs to a frame: the scope of the
//! program, a drain, a message, an operation with a timeout. What a frame's success commits, or its
//! rollback runs, is whatever is staged in it and in the frames within. Everything that the code of
//! a program sees (a handler is called, an action starts, a future is dropped) is told to the model
//! in the order in which it happens, and whatever the contract does not allow is noted as wrong.

mod checks;
mod drains;
mod effects;
mod rollbacks;

use std::sync::{Arc, Mutex, MutexGuard};

use watershed::testing::World;
use watershed::{Clock, Error, RollbackReport, Tick};

use super::program::{Drain, Order, Plan, Policy};

pub type FrameId = usize;
pub type EffectId = usize;

/// The scope that everything ends up in.
pub const ROOT: FrameId = 0;

/// What happened in how many programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub programs: u64,
    pub drains: u64,
    pub nested_drains: u64,
    pub succeeded: u64,
    pub drops: u64,
    pub cancellations: u64,
    pub shutdowns: u64,
    pub timeouts: u64,
    pub messages: u64,
    pub handlers_dropped: u64,
    pub faults: u64,
    pub dead_letters: u64,
    pub effects: u64,
    pub attempts: u64,
    pub failed_attempts: u64,
    pub rollbacks: u64,
    pub rollbacks_dropped: u64,
    pub rollbacks_cancelled: u64,
    pub shared_rollbacks: u64,
    pub committed: u64,
    pub undone: u64,
    pub withdrawn: u64,
    pub stuck_once: u64,
}

impl std::ops::AddAssign for Numbers {
    fn add_assign(&mut self, more: Self) {
        macro_rules! add {
            ($($field:ident)+) => { $(self.$field += more.$field;)+ };
        }
        add!(programs drains nested_drains succeeded drops cancellations timeouts messages shutdowns);
        add!(handlers_dropped faults dead_letters effects attempts failed_attempts rollbacks);
        add!(rollbacks_dropped rollbacks_cancelled shared_rollbacks committed undone withdrawn);
        add!(stuck_once);
    }
}

/// What became of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Staged,
    Running,
    /// An attempt has failed, and another one is due.
    Retrying(Tick),
    Undone,
    Committed,
    Withdrawn,
}

struct Effect {
    frame: FrameId,
    plan: Plan,
    state: State,
    /// Its reservation can withdraw it no more: it is run without an effect.
    out_of_reach: bool,
    /// Whose run it is or was in, and how many attempts that has made.
    runner: Option<Runner>,
    attempts: u32,
    all_attempts: u32,
}

/// Who runs actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    Rollback(usize),
    Frame(FrameId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    Rolling,
    Over,
}

struct Frame {
    parent: FrameId,
    stage: Stage,
    policy: Policy,
    /// What its rollback has given up, in this order; and how many actions have succeeded.
    given_up: Vec<EffectId>,
    succeeded: usize,
    /// The number of the first effect that was registered after its rollback began.
    first_new: EffectId,
    kind: Kind,
}

enum Kind {
    Root,
    Drain(Box<Run>),
    Message(Call),
    Timeout { due: Tick },
}

/// A drain on its way.
struct Run {
    plan: Arc<Drain>,
    started: Tick,
    token: watershed::CancellationToken,
    stopped_outside: Option<Tick>,
    shut_down_at: Option<Tick>,
    calls_after_cancel: usize,
    failures: Vec<Failed>,
    /// When it had its first reason to end early.
    cause_at: Option<Tick>,
    /// Handlers were dropped, so no other may be called.
    dropping: bool,
    sources: Vec<Source>,
}

impl Run {
    /// When its time is over: that of the whole drain, or that after its shutdown.
    fn deadline(&self) -> Option<Tick> {
        let drain = self.plan.timeout.map(|timeout| self.started + timeout);
        let finish = self.shut_down_at.zip(self.plan.finish_within);
        let finish = finish.map(|(at, within)| at.max(self.started) + within);
        drain.into_iter().chain(finish).min()
    }

    /// Whether a drain that is polled at this time stops; none where the token was cancelled by one
    /// of its own handlers, or by whatever it runs in: then it does after the turn.
    fn is_stopping(&self, now: Tick) -> Option<bool> {
        let deadline = self.deadline();
        let certain = self.stopped_outside.is_some()
            || self.failures.iter().any(|failed| failed.ends)
            || deadline.is_some_and(|deadline| now >= deadline);
        (certain || !self.token.is_cancelled()).then_some(certain)
    }
}

#[derive(Clone, Default)]
struct Source {
    taken: usize,
    put_back: usize,
    /// Messages whose letter could not be stored.
    refused: usize,
    active: Vec<FrameId>,
    succeeded: u64,
    rolled_back: u64,
    ended: bool,
}

struct Call {
    drain: FrameId,
    source: usize,
    index: usize,
    at: Tick,
    end: Option<Ended>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Succeeded,
    Failed,
    Panicked,
    Dropped,
}

/// A reason why a drain fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Handler(FrameId),
    HandlerPanic(FrameId),
    MessageTimeout(FrameId),
    Fault(usize),
    SourcePanic(usize),
    DeadLetterPanic(FrameId),
    Timeout,
    Canceled,
}

impl Cause {
    fn message(self) -> Option<FrameId> {
        match self {
            Self::Handler(message)
            | Self::HandlerPanic(message)
            | Self::MessageTimeout(message) => Some(message),
            _ => None,
        }
    }
}

struct Failed {
    cause: Cause,
    at: Tick,
    /// Whether it ends the drain; the failure of a message may end only the message.
    ends: bool,
    stopped_before: bool,
    /// Whether the drain was stopping already, if that is certain.
    stopping: Option<bool>,
}

/// The error of a handler.
#[derive(Debug)]
pub struct Broke(pub FrameId);

impl std::fmt::Display for Broke {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broke as planned")
    }
}

impl std::error::Error for Broke {}

/// A rollback of the whole scope.
struct Participant {
    policy: Policy,
    token: watershed::CancellationToken,
    joined: bool,
    over: bool,
    succeeded_before: usize,
    /// What had been given up when it joined is not what it has given up.
    given_up_before: usize,
    /// Rollbacks that were abandoned or ran beside it make more than one order legal.
    mixed: bool,
}

pub struct Model {
    world: World,
    effects: Vec<Effect>,
    frames: Vec<Frame>,
    rollbacks: Vec<Participant>,
    /// The last rollback: nothing fails any more.
    pub mild: bool,
    /// Whoever polls does so when it likes: things may be late.
    pub lenient: bool,
    pub numbers: Numbers,
    wrong: Option<String>,
}

/// The model, told by everything that runs.
#[derive(Clone)]
pub struct Book(Arc<Mutex<Model>>);

impl Book {
    pub fn new(world: &World) -> Self {
        let root = Frame::new(ROOT, Kind::Root, Policy::PLAIN);
        Self(Arc::new(Mutex::new(Model {
            world: world.clone(),
            effects: Vec::new(),
            frames: vec![root],
            rollbacks: Vec::new(),
            mild: false,
            lenient: false,
            numbers: Numbers { programs: 1, ..Numbers::default() },
            wrong: None,
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Frame {
    fn new(parent: FrameId, kind: Kind, policy: Policy) -> Self {
        let (stage, given_up) = (Stage::Open, Vec::new());
        Self { parent, stage, policy, given_up, succeeded: 0, first_new: 0, kind }
    }
}

impl Model {
    pub fn wrong(&mut self, what: impl Into<String>) {
        let (what, at) = (what.into(), self.now());
        self.world.note(format!("WRONG: {what}"));
        self.wrong.get_or_insert_with(|| format!("{what} (at {:?})", at.since(Tick::ZERO)));
    }

    pub fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong(what());
        }
    }

    pub fn verdict(&mut self) -> Result<Numbers, String> {
        self.numbers.effects = self.effects.len() as u64;
        for effect in &self.effects {
            match effect.state {
                State::Undone => self.numbers.undone += 1,
                State::Committed => self.numbers.committed += 1,
                State::Withdrawn => self.numbers.withdrawn += 1,
                State::Staged | State::Running | State::Retrying(_) => {}
            }
        }
        self.wrong.take().map_or(Ok(self.numbers), Err)
    }

    pub fn now(&self) -> Tick {
        self.world.clock().now()
    }

    fn is_within(&self, mut frame: FrameId, outer: FrameId) -> bool {
        while frame != outer && frame != ROOT {
            frame = self.frames[frame].parent;
        }
        frame == outer
    }

    fn within(&self, outer: FrameId) -> Vec<EffectId> {
        (0..self.effects.len())
            .filter(|id| self.is_within(self.effects[*id].frame, outer))
            .collect()
    }

    /// What is staged in a frame, running or not.
    pub fn staged(&self, outer: FrameId) -> Vec<EffectId> {
        let mut staged = self.within(outer);
        staged.retain(|id| {
            matches!(self.effects[*id].state, State::Staged | State::Running | State::Retrying(_))
        });
        staged
    }

    /// Actions that are staged and do nothing.
    fn ghosts(&self) -> usize {
        let ghost = |effect: &&Effect| effect.out_of_reach && effect.state == State::Withdrawn;
        self.effects.iter().filter(ghost).count()
    }

    /// Whether a count of actions is right, those that do nothing counted or not.
    pub fn must_count(&mut self, what: &str, count: usize, expected: usize) {
        let ghosts = self.ghosts();
        self.must((expected..=expected + ghosts).contains(&count), || {
            format!("{what} is {count}, expected {expected} and at most {ghosts} more")
        });
    }
}

fn all_alone_in_parallel(order: Order) -> bool {
    matches!(order, Order::Parallel | Order::Limited)
}

fn labels(report: &RollbackReport) -> Vec<EffectId> {
    let labels = report.failures().iter().map(|failure| failure.label()?.parse().ok());
    labels.map(|label| label.unwrap_or(usize::MAX)).collect()
}

/// The effects that the error of a rollback names.
fn reported(error: &Error) -> Vec<EffectId> {
    let labels = error.related().iter().map(|error| error.metadata("label")?.parse().ok());
    labels.map(|label| label.unwrap_or(usize::MAX)).collect()
}
