//! A plain account of what a program may do and must have done, which knows nothing of how the
//! library does it.
//!
//! Effects are numbered in the order of registration. Each belongs to a frame: the scope of the
//! program, a drain, a message, an operation with a timeout. What a frame's success commits, or its
//! rollback runs, is whatever is staged in it and in the frames within. Everything that the code of
//! a program sees (a handler is called, an action starts, a future is dropped) is told to the model
//! in the order in which it happens, and whatever the contract does not allow is noted as wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use watershed::testing::World;
use watershed::{
    Clock, Commit, Error, ErrorCode, FanInReport, Letter, OnFailure, RollbackReport, Tick,
};

use super::program::{Drain, Failure, Order, Plan, Policy};

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

    // Effects.

    pub fn register(&mut self, frame: FrameId, plan: Plan) -> EffectId {
        let id = self.effects.len();
        self.effects.push(Effect {
            frame,
            plan,
            state: State::Staged,
            out_of_reach: false,
            runner: None,
            attempts: 0,
            all_attempts: 0,
        });
        id
    }

    /// Its reservation knows another scope than the one that it has moved to.
    pub fn move_out_of_reach(&mut self, id: EffectId) {
        self.effects[id].out_of_reach = true;
    }

    /// The reservation of an effect was disarmed, and says whether the action was still staged.
    pub fn disarmed(&mut self, id: EffectId, withdrawn: bool) {
        let effect = &mut self.effects[id];
        let staged = effect.state == State::Staged;
        if staged {
            effect.state = State::Withdrawn;
        }
        // Also where the action has moved to another scope (4.13).
        let expected = staged;
        self.must(withdrawn == expected, || {
            format!("disarm of {id} said {withdrawn}, expected {expected}")
        });
    }

    /// Everything in a frame was cleared, or committed.
    fn commit(&mut self, outer: FrameId) -> usize {
        let staged = self.staged(outer);
        for id in &staged {
            self.effects[*id].state = State::Committed;
        }
        staged.len()
    }

    /// Everything in a frame was cleared, but what is being run.
    pub fn cleared(&mut self, frame: FrameId, count: usize) {
        let mut cleared = self.staged(frame);
        cleared.retain(|id| !self.is_busy(*id));
        for id in &cleared {
            self.effects[*id].state = State::Committed;
        }
        let given_up = std::mem::take(&mut self.frames[frame].given_up);
        if frame == ROOT {
            for Participant { given_up_before, .. } in &mut self.rollbacks {
                let before = given_up.iter().take(*given_up_before);
                *given_up_before = before.filter(|id| !cleared.contains(id)).count();
            }
        }
        self.frames[frame].given_up =
            given_up.into_iter().filter(|id| !cleared.contains(id)).collect();
        self.must_count("the count of a clear", count, cleared.len());
    }

    fn is_busy(&self, id: EffectId) -> bool {
        let effect = &self.effects[id];
        match effect.state {
            State::Running => true,
            State::Retrying(_) => effect.runner.is_some_and(|runner| !self.is_over(runner)),
            _ => false,
        }
    }

    // Attempts.

    /// An attempt starts, of a rollback of the whole scope if it has an `owner`. Says whether it fails,
    /// and how many actions it registers.
    pub fn begin_attempt(&mut self, id: EffectId, owner: Option<usize>) -> (Option<Failure>, u64) {
        self.world.note(format!("attempt at {id}"));
        self.numbers.attempts += 1;
        let runner = self.find_runner(id, owner);
        let now = self.now();
        let Some(runner) = runner else {
            self.wrong(format!("{id} is run, but nothing is rolled back"));
            return (None, 0);
        };
        let again = match (self.effects[id].state, self.effects[id].runner) {
            (State::Staged, _) => false,
            (State::Retrying(due), Some(last)) if last == runner => {
                let in_time = now == due || self.lenient && now > due;
                self.must(in_time, || format!("{id} is retried late, it was due at {due:?}"));
                true
            }
            (State::Retrying(_), Some(last)) if self.is_over(last) => false,
            (state, last) => {
                self.wrong(format!("{id} is run by {runner:?}, but it is {state:?} by {last:?}"));
                false
            }
        };
        if !again {
            self.check_order(id, runner);
            self.effects[id].attempts = 0;
        }
        let mild = self.mild;
        let effect = &mut self.effects[id];
        effect.runner = Some(runner);
        effect.state = State::Running;
        effect.attempts += 1;
        effect.all_attempts += 1;
        let fails = !mild && effect.all_attempts <= effect.plan.fails;
        let registers = if effect.all_attempts == 1 { effect.plan.registers } else { 0 };
        (fails.then_some(effect.plan.how), registers)
    }

    /// The innermost rollback that the effect is in.
    fn find_runner(&self, id: EffectId, owner: Option<usize>) -> Option<Runner> {
        let mut frame = self.effects[id].frame;
        while frame != ROOT {
            if self.frames[frame].stage == Stage::Rolling {
                return Some(Runner::Frame(frame));
            }
            frame = self.frames[frame].parent;
        }
        owner.map(Runner::Rollback)
    }

    fn is_over(&self, runner: Runner) -> bool {
        match runner {
            // Once its token is cancelled, another one begins its attempts anew.
            Runner::Rollback(number) => {
                let Participant { over, token, .. } = &self.rollbacks[number];
                *over || token.is_cancelled()
            }
            Runner::Frame(frame) => self.frames[frame].stage != Stage::Rolling,
        }
    }

    fn policy(&self, runner: Runner) -> Policy {
        match runner {
            Runner::Rollback(number) => self.rollbacks[number].policy,
            Runner::Frame(frame) => self.frames[frame].policy,
        }
    }

    /// Rule 4.2: the action registered last comes first.
    fn check_order(&mut self, id: EffectId, runner: Runner) {
        let (outer, mixed, all_alone) = match runner {
            Runner::Frame(frame) => (frame, false, true),
            Runner::Rollback(number) => {
                let mut members = self.rollbacks.iter().filter(|other| other.joined && !other.over);
                let alone = members.all(|other| other.policy.order == Order::SequentialReverse);
                (ROOT, self.rollbacks[number].mixed, alone)
            }
        };
        let frame = &self.frames[outer];
        let given_up = match runner {
            Runner::Rollback(number) => self.given_up_by(number).contains(&id),
            Runner::Frame(_) => frame.given_up.contains(&id),
        };
        let first_new = frame.first_new;
        let order = self.policy(runner).order;
        self.must(!given_up, || format!("{id} is run again by a rollback that gave it up"));
        let sequential = order == Order::SequentialReverse && all_alone;
        let mut busy = None;
        let mut later = None;
        for other in self.staged(outer) {
            if other == id {
                continue;
            }
            if self.is_busy(other) {
                busy = Some(other);
            } else if other > id
                && (sequential || other < first_new)
                && !self.frames[outer].given_up.contains(&other)
            {
                later = Some(other);
            }
        }
        self.must(order != Order::None, || format!("{id} is run by a policy that runs nothing"));
        if sequential {
            self.must(busy.is_none(), || format!("{id} is run while {busy:?} is"));
        }
        if sequential || !mixed && all_alone_in_parallel(order) && id < first_new {
            self.must(later.is_none(), || format!("{id} is run before {later:?}"));
        }
    }

    pub fn end_attempt(&mut self, id: EffectId, succeeded: bool) {
        let now = self.now();
        let Some(runner) = self.effects[id].runner else { return };
        let policy = self.policy(runner);
        let outer = match runner {
            Runner::Frame(frame) => frame,
            Runner::Rollback(_) => ROOT,
        };
        let effect = &mut self.effects[id];
        if succeeded {
            effect.state = State::Undone;
            self.frames[outer].succeeded += 1;
            return;
        }
        self.numbers.failed_attempts += 1;
        if effect.attempts < policy.attempts {
            effect.state = State::Retrying(now + policy.wait);
        } else {
            self.numbers.stuck_once += 1;
            effect.state = State::Staged;
            self.frames[outer].given_up.push(id);
        }
    }

    pub fn drop_attempt(&mut self, id: EffectId) {
        self.effects[id].state = State::Staged;
    }

    // Rollbacks of the whole scope.

    pub fn new_rollback(&mut self, policy: Policy, token: watershed::CancellationToken) -> usize {
        self.numbers.rollbacks += 1;
        let (joined, over, mixed) = (false, false, false);
        let (succeeded_before, given_up_before) = (0, 0);
        let own =
            Participant { policy, token, joined, over, succeeded_before, given_up_before, mixed };
        self.rollbacks.push(own);
        self.rollbacks.len() - 1
    }

    fn members(&self) -> Vec<usize> {
        let member =
            |number: &usize| self.rollbacks[*number].joined && !self.rollbacks[*number].over;
        (0..self.rollbacks.len()).filter(member).collect()
    }

    /// Whether a rollback is on its way that runs many actions at once.
    pub fn runs_in_parallel(&self) -> bool {
        let order = |number: &usize| self.rollbacks[*number].policy.order;
        self.members().iter().any(|number| order(number) != Order::SequentialReverse)
    }

    pub fn join(&mut self, number: usize) {
        if self.rollbacks[number].joined || self.rollbacks[number].policy.order == Order::None {
            return;
        }
        let members = self.members();
        let effects = self.effects.len();
        if members.is_empty() {
            self.frames[ROOT].succeeded = 0;
            self.frames[ROOT].first_new = effects;
        } else {
            self.numbers.shared_rollbacks += 1;
        }
        let mixed = !members.is_empty();
        for member in members {
            self.rollbacks[member].mixed = true;
        }
        let (succeeded, given_up) = (self.frames[ROOT].succeeded, self.frames[ROOT].given_up.len());
        let own = &mut self.rollbacks[number];
        (own.joined, own.mixed) = (true, mixed);
        (own.succeeded_before, own.given_up_before) = (succeeded, given_up);
    }

    /// Rules 4.4 to 4.6 and 4.10: what a rollback answers.
    pub fn rollback_ended(
        &mut self,
        number: usize,
        result: &Result<RollbackReport, watershed::Failure<RollbackReport>>,
        cancelled: bool,
    ) {
        let policy = self.rollbacks[number].policy;
        if policy.order == Order::None {
            let nothing = result.as_ref().is_ok_and(|report| report.succeeded() == 0);
            self.must(nothing, || format!("a rollback that runs nothing answered {result:?}"));
            self.rollbacks[number].over = true;
            return;
        }
        let gave_up =
            result.as_ref().is_err_and(|failure| failure.error().code() == ErrorCode::Canceled);
        let given_up = self.given_up_by(number).to_vec();
        // What is run again by one that joined later is waited for; where that one goes away, it is
        // left to those who have not given it up.
        let done = |id: &EffectId| given_up.contains(id) && !self.is_busy(*id);
        let left: Vec<_> = self.staged(ROOT).into_iter().filter(|id| !done(id)).collect();
        let expected = self.frames[ROOT].succeeded - self.rollbacks[number].succeeded_before;
        if gave_up {
            self.numbers.rollbacks_cancelled += 1;
            self.must(cancelled, || "a rollback was canceled by nobody".into());
            let ghosts = self.ghosts();
            // What another one has in hand is waited for until that has heard of its own token.
            let in_hand = |id: &EffectId| self.effects[*id].state != State::Staged;
            let waits = self.staged(ROOT).iter().any(in_hand);
            self.must(!left.is_empty() || waits || ghosts > 0, || {
                "a rollback that had run everything was gave_up".into()
            });
        } else {
            self.must(left.is_empty(), || format!("a rollback answered, but {left:?} are staged"));
        }
        let (succeeded, failures) = match result {
            Ok(report) => (report.succeeded(), Vec::new()),
            Err(failure) => (failure.report().succeeded(), labels(failure.report())),
        };
        let named = self.named_by(number);
        self.must(failures == named, || format!("{failures:?} are reported, not {named:?}"));
        self.must_count("the count of actions that succeeded", succeeded, expected);
        self.leave(number);
    }

    /// Rules 4.4 and 4.10: of what was given up since a rollback joined, each action once, where it
    /// failed last; and none that a later rollback has undone, for that is gone, and "failed and still
    /// staged" would be wrong.
    fn named_by(&self, number: usize) -> Vec<EffectId> {
        let mut named = Vec::new();
        for id in self.given_up_by(number).iter().rev() {
            if self.effects[*id].state != State::Undone && !named.contains(id) {
                named.push(*id);
            }
        }
        named.reverse();
        named
    }

    /// What was given up since a rollback joined.
    fn given_up_by(&self, number: usize) -> &[EffectId] {
        &self.frames[ROOT].given_up[self.rollbacks[number].given_up_before..]
    }

    pub fn rollback_dropped(&mut self, number: usize) {
        self.numbers.rollbacks_dropped += 1;
        if self.rollbacks[number].joined {
            self.leave(number);
        }
        self.rollbacks[number].over = true;
    }

    fn leave(&mut self, number: usize) {
        self.rollbacks[number].over = true;
        for effect in &mut self.effects {
            let own = effect.runner == Some(Runner::Rollback(number));
            if own && matches!(effect.state, State::Retrying(_)) {
                effect.state = State::Staged;
            }
        }
        let running = self.effects.iter().position(|effect| {
            effect.runner == Some(Runner::Rollback(number)) && effect.state == State::Running
        });
        self.must(running.is_none(), || format!("a rollback is over, but {running:?} runs"));
        if self.members().is_empty() {
            self.frames[ROOT].given_up.clear();
        }
    }

    // Rollbacks of one frame.

    fn begin_rolling(&mut self, frame: FrameId) {
        let effects = self.effects.len();
        let frame = &mut self.frames[frame];
        (frame.stage, frame.succeeded, frame.first_new) = (Stage::Rolling, 0, effects);
        frame.given_up.clear();
    }

    /// Whether the rollback of a frame has run what it should, and says so.
    fn check_frame_rollback(&mut self, id: FrameId, told: Option<usize>, failures: &[EffectId]) {
        let frame = &self.frames[id];
        let (given_up, succeeded) = (frame.given_up.clone(), frame.succeeded);
        let runs = frame.policy.order != Order::None;
        let mut left = self.staged(id);
        left.retain(|effect| !given_up.contains(effect));
        self.must(!runs || left.is_empty(), || format!("{left:?} were not rolled back"));
        if let Some(told) = told {
            self.must_count("the count of a frame's actions", told, succeeded);
        }
        self.must(failures == given_up, || format!("{failures:?} are reported, not {given_up:?}"));
    }

    /// A frame and everything in it is over.
    pub fn close(&mut self, outer: FrameId) {
        for id in 0..self.frames.len() {
            if self.is_within(id, outer) && id != ROOT {
                self.frames[id].stage = Stage::Over;
            }
        }
        for id in self.within(outer) {
            let effect = &mut self.effects[id];
            if matches!(effect.state, State::Retrying(_)) {
                effect.state = State::Staged;
            }
            let running = effect.state == State::Running;
            self.must(!running, || format!("{id} runs, but what runs it is over"));
        }
    }

    // Operations with a timeout.

    pub fn open_timeout(&mut self, parent: FrameId, after: Duration, policy: Policy) -> FrameId {
        let due = self.now() + after;
        self.frames.push(Frame::new(parent, Kind::Timeout { due }, policy));
        self.frames.len() - 1
    }

    /// The operation was dropped before its end.
    pub fn operation_dropped(&mut self, id: FrameId) {
        if matches!(self.frames[id].kind, Kind::Timeout { due } if self.now() >= due) {
            self.begin_rolling(id);
        }
    }

    pub fn operation_ended(
        &mut self,
        id: FrameId,
        ended: Option<bool>,
        result: &Result<(), Error>,
        cancelled: bool,
    ) {
        let rolling = self.frames[id].stage == Stage::Rolling;
        let Kind::Timeout { due } = self.frames[id].kind else { return };
        let code = result.as_ref().err().map(Error::code);
        let legal = match (ended, code) {
            (Some(succeeded), None) => succeeded,
            (Some(succeeded), Some(ErrorCode::Unspecified)) => !succeeded,
            (None, Some(ErrorCode::Timeout)) => self.now() >= due,
            // Both may happen at once: then nothing was run.
            (None, Some(ErrorCode::Canceled)) => {
                let frame = &self.frames[id];
                cancelled && frame.succeeded == 0 && frame.given_up.is_empty()
            }
            _ => false,
        };
        self.must(legal, || format!("an operation that came to {ended:?} gave {result:?}"));
        if let (true, Some(ErrorCode::Timeout), Err(error)) = (rolling, code, result) {
            if let Some(error) = error.related().first() {
                self.check_frame_rollback(id, None, &reported(error));
            } else {
                let nothing = self.frames[id].given_up.is_empty();
                self.must(nothing, || "a timeout hides what could not be undone".into());
                let runs = self.frames[id].policy.order != Order::None;
                let left = self.staged(id);
                self.must(!runs || left.is_empty(), || format!("{left:?} were not undone"));
            }
        }
        self.close(id);
    }

    // Drains.

    pub fn open_drain(
        &mut self,
        parent: FrameId,
        plan: &Arc<Drain>,
        token: watershed::CancellationToken,
    ) -> FrameId {
        if parent == ROOT {
            self.numbers.drains += 1;
        } else {
            self.numbers.nested_drains += 1;
        }
        let run = Run {
            plan: Arc::clone(plan),
            started: self.now(),
            token,
            stopped_outside: None,
            shut_down_at: None,
            calls_after_cancel: 0,
            failures: Vec::new(),
            cause_at: None,
            dropping: false,
            sources: vec![Source::default(); plan.sources.len()],
        };
        self.frames.push(Frame::new(parent, Kind::Drain(Box::new(run)), plan.policy));
        self.frames.len() - 1
    }

    fn run(&mut self, drain: FrameId) -> &mut Run {
        match &mut self.frames[drain].kind {
            Kind::Drain(run) => run,
            _ => unreachable!("a drain"),
        }
    }

    fn failures(&self, drain: FrameId) -> &[Failed] {
        match &self.frames[drain].kind {
            Kind::Drain(run) => &run.failures,
            _ => &[],
        }
    }

    fn call(&mut self, message: FrameId) -> &mut Call {
        match &mut self.frames[message].kind {
            Kind::Message(call) => call,
            _ => unreachable!("a message"),
        }
    }

    /// It is polled for the first time.
    pub fn drain_began(&mut self, drain: FrameId) {
        let now = self.now();
        self.run(drain).started = now;
    }

    /// Its token was cancelled by another task: between two polls.
    pub fn cancelled_outside(&mut self, drain: FrameId) {
        let now = self.now();
        let open = self.frames[drain].stage == Stage::Open;
        if open && !self.run(drain).token.is_cancelled() {
            self.numbers.cancellations += 1;
            let run = self.run(drain);
            run.stopped_outside.get_or_insert(now);
            run.cause_at.get_or_insert(now);
        }
    }

    /// Its shutdown token was cancelled by another task: between two polls.
    pub fn shut_down(&mut self, drain: FrameId) {
        let now = self.now();
        if self.frames[drain].stage == Stage::Open {
            self.numbers.shutdowns += 1;
            self.run(drain).shut_down_at.get_or_insert(now);
        }
    }

    pub fn taken(&mut self, drain: FrameId, source: usize, index: usize) {
        let over = self.frames[drain].stage == Stage::Over;
        let state = &mut self.run(drain).sources[source];
        let expected = state.taken;
        state.taken += 1;
        self.must(!over && index == expected, || format!("took message {index} of {source}"));
    }

    pub fn put_back(&mut self, drain: FrameId, source: usize) {
        self.run(drain).sources[source].put_back += 1;
    }

    pub fn source_broke(&mut self, drain: FrameId, source: usize, panics: bool) {
        self.numbers.faults += 1;
        let cause = if panics { Cause::SourcePanic(source) } else { Cause::Fault(source) };
        self.failed(drain, cause, true);
    }

    fn failed(&mut self, drain: FrameId, cause: Cause, ends: bool) {
        let at = self.now();
        let run = self.run(drain);
        let stopped_before = run.stopped_outside.is_some();
        let stopping = run.is_stopping(at);
        run.failures.push(Failed { cause, at, ends, stopped_before, stopping });
        if ends {
            run.cause_at.get_or_insert(at);
        }
    }

    /// Rules 2.1 to 2.3 and 3.2 to 3.5: whether a handler may be called now.
    pub fn called(&mut self, drain: FrameId, source: usize, index: usize) -> FrameId {
        self.world.note(format!("call {source}/{index}"));
        self.numbers.messages += 1;
        let now = self.now();
        let message = self.frames.len();
        let over = self.frames[drain].stage == Stage::Over;
        let run = self.run(drain);
        let plan = Arc::clone(&run.plan);
        let active: usize = run.sources.iter().map(|source| source.active.len()).sum();
        let state = &run.sources[source];
        let same = state.active.clone();
        let mut wrong = None;
        let mut refuse = |refuse: bool, why: &str| {
            if refuse {
                wrong.get_or_insert_with(|| format!("called {source}/{index}, but {why}"));
            }
        };
        refuse(over, "the drain is over");
        refuse(run.dropping, "handlers were dropped");
        refuse(run.failures.iter().any(|failed| failed.ends), "it has a reason to end");
        refuse(run.stopped_outside.is_some(), "it was told to stop");
        refuse(run.shut_down_at.is_some(), "it was shut down");
        let deadline = plan.timeout.map(|timeout| run.started + timeout);
        refuse(deadline.is_some_and(|deadline| now >= deadline), "its deadline has passed");
        if run.token.is_cancelled() {
            run.calls_after_cancel += 1;
        }
        refuse(run.calls_after_cancel >= plan.quantum, "it was told to stop, a turn ago");
        refuse(active >= plan.concurrency, "too many handlers run");
        let most = match plan.keys {
            None => 1,
            Some(_) => plan.per_source.unwrap_or(plan.concurrency),
        };
        refuse(same.len() >= most, "too many of its source run");
        if plan.keys.is_none() {
            refuse(state.taken != index + 1, "it was not the one taken last");
        }
        run.sources[source].active.push(message);
        if let Some(keys) = plan.keys {
            let key_of = |other: FrameId| match &self.frames[other].kind {
                Kind::Message(call) => call.index % keys,
                _ => usize::MAX,
            };
            refuse(same.iter().any(|other| key_of(*other) == index % keys), "its key is busy");
        }
        // Order within a source, or within a key.
        let earlier = self.frames.iter().any(|frame| match &frame.kind {
            Kind::Message(call) if call.drain == drain && call.source == source => {
                let same_key = plan.keys.is_none_or(|keys| call.index % keys == index % keys);
                same_key && call.index >= index
            }
            _ => false,
        });
        refuse(earlier, "a later one was called before");
        if let Some(wrong) = wrong {
            self.wrong(wrong);
        }
        let call = Call { drain, source, index, at: now, end: None };
        self.frames.push(Frame::new(drain, Kind::Message(call), plan.policy));
        message
    }

    /// The handler of a message has ended, or was dropped.
    pub fn handler_ended(&mut self, message: FrameId, end: Ended) {
        self.world.note(format!("handler: {end:?}"));
        let now = self.now();
        let drain = self.frames[message].parent;
        let plan = Arc::clone(&self.run(drain).plan);
        let alone = plan.on_failure == OnFailure::Continue;
        let call = self.call(message);
        call.end = Some(end);
        let (source, at) = (call.source, call.at);
        let due = plan.message_timeout.map(|timeout| at + timeout);
        self.must(due.is_none_or(|due| now <= due), || "a handler outlived its timeout".into());
        let timed_out = end == Ended::Dropped && due.is_some_and(|due| now >= due);
        let cause = match end {
            Ended::Succeeded => None,
            Ended::Failed => Some(Cause::Handler(message)),
            Ended::Panicked => Some(Cause::HandlerPanic(message)),
            Ended::Dropped => timed_out.then_some(Cause::MessageTimeout(message)),
        };
        match cause {
            None if end == Ended::Dropped => {
                self.numbers.handlers_dropped += 1;
                self.run(drain).dropping = true;
                self.close(message);
            }
            None => {
                if plan.commit == Commit::Message {
                    self.commit(message);
                }
                self.close(message);
                self.run(drain).sources[source].succeeded += 1;
            }
            Some(cause) => {
                self.numbers.faults += 1;
                self.close(message);
                self.failed(drain, cause, !alone);
                // While the drain ends, too; one that was told to stop is no dead letter.
                if alone {
                    self.begin_rolling(message);
                    return;
                }
            }
        }
        self.run(drain).sources[source].active.retain(|active| *active != message);
    }

    /// Rule 3.8: a message was rolled back alone.
    pub fn dead_letter<M>(&mut self, drain: FrameId, failed: &Letter<M>, panics: bool) {
        self.numbers.dead_letters += 1;
        let cause = self.classify(drain, failed.error());
        let listed = |failure: &&mut Failed| Some(failure.cause) == cause && !failure.ends;
        let Some(failure) = self.run(drain).failures.iter_mut().find(listed) else {
            return self.wrong(format!("a dead letter of {}", failed.error()));
        };
        let failed_by = failure.cause;
        let Some(message) = failed_by.message() else {
            return self.wrong("a dead letter without a message");
        };
        let position = self.run(drain).failures.iter().position(|other| Some(other.cause) == cause);
        self.run(drain).failures.remove(position.unwrap_or_default());
        let undone = match failed.rollback() {
            Ok(report) => report,
            Err(failure) => failure.report(),
        };
        self.check_frame_rollback(message, Some(undone.succeeded()), &labels(undone));
        self.close(message);
        // What is left is no longer the drain's.
        self.frames[message].parent = self.frames[drain].parent;
        let source = self.call(message).source;
        let state = &mut self.run(drain).sources[source];
        state.active.retain(|active| *active != message);
        if panics {
            // The drain ends with both, and the message goes back.
            state.refused += 1;
            self.numbers.faults += 1;
            self.failed(drain, failed_by, true);
            self.failed(drain, Cause::DeadLetterPanic(message), true);
        } else {
            state.rolled_back += 1;
        }
    }

    /// Which failure an error tells of.
    fn classify(&self, drain: FrameId, error: &Error) -> Option<Cause> {
        let source = || error.source_name()?.strip_prefix("source ")?.parse::<usize>().ok();
        let message = || {
            let (source, number) = (source()?, error.message_number()?);
            self.frames.iter().position(|frame| match &frame.kind {
                Kind::Message(call) => {
                    call.drain == drain && call.source == source && call.index as u64 + 1 == number
                }
                _ => false,
            })
        };
        let text = error.to_string();
        match error.code() {
            ErrorCode::Handler => error.downcast_ref().map(|Broke(frame)| Cause::Handler(*frame)),
            ErrorCode::Source => source().map(Cause::Fault),
            ErrorCode::Panic if text.contains("the source") => source().map(Cause::SourcePanic),
            ErrorCode::Panic if text.contains("the dead letters") => {
                let failures = self.failures(drain).iter().map(|failed| failed.cause);
                failures.rev().find(|cause| matches!(cause, Cause::DeadLetterPanic(_)))
            }
            ErrorCode::Panic => message().map(Cause::HandlerPanic),
            ErrorCode::Timeout if error.source_name().is_some() => {
                message().map(Cause::MessageTimeout)
            }
            ErrorCode::Timeout => Some(Cause::Timeout),
            ErrorCode::Canceled => Some(Cause::Canceled),
            _ => None,
        }
    }

    pub fn drain_ended(
        &mut self,
        drain: FrameId,
        result: &Result<FanInReport, Error>,
        rest: &[usize],
    ) {
        self.world.note(format!("drain: {}", result.is_ok()));
        match result {
            Ok(report) => self.check_success(drain, report, rest),
            Err(error) => self.check_failure(drain, error),
        }
        self.check_sources(drain);
        if result.is_ok() {
            self.numbers.succeeded += 1;
            // One that is nested in a message is final when the message is (4.3).
            if self.run(drain).plan.commit == Commit::Pipeline && !self.is_in_message(drain) {
                self.commit(drain);
            }
        }
        self.close(drain);
    }

    fn is_in_message(&self, frame: FrameId) -> bool {
        let mut outer = self.frames[frame].parent;
        loop {
            match self.frames[outer].kind {
                Kind::Root => return false,
                Kind::Message(_) => return true,
                Kind::Drain(_) | Kind::Timeout { .. } => outer = self.frames[outer].parent,
            }
        }
    }

    pub fn drain_dropped(&mut self, drain: FrameId) {
        self.numbers.drops += 1;
        self.check_sources(drain);
        self.close(drain);
    }

    /// Rules 2.1 and 2.6: what was taken was handled, or put back.
    fn check_sources(&mut self, drain: FrameId) {
        let ordered = self.run(drain).plan.keys.is_some();
        let mut called = BTreeMap::<usize, usize>::new();
        for frame in &self.frames {
            match &frame.kind {
                Kind::Message(call) if call.drain == drain => {
                    *called.entry(call.source).or_default() += 1;
                }
                _ => {}
            }
        }
        for source in 0..self.run(drain).sources.len() {
            let Source { taken, put_back, refused, .. } = self.run(drain).sources[source];
            let called = called.get(&source).copied().unwrap_or_default();
            let most = usize::from(ordered);
            // A message whose letter could not be stored was handled as well.
            let held = put_back.saturating_sub(if ordered { refused } else { 0 });
            self.must(held <= most && taken == called + held, || {
                format!(
                    "{taken} messages of {source} were taken, {called} handled, {put_back} put back"
                )
            });
        }
    }

    /// Rules 3.1 and 3.3: also where it was told to stop, or its time was over, at the very end.
    fn check_success(&mut self, drain: FrameId, report: &FanInReport, rest: &[usize]) {
        let now = self.now();
        let run = self.run(drain);
        let mut wrong = Vec::new();
        if run.failures.iter().any(|failed| !matches!(failed.cause, Cause::MessageTimeout(_))) {
            wrong.push("something had failed");
        }
        // What has ended by the poll that would have seen it has succeeded.
        if run.stopped_outside.is_some_and(|at| at < now) {
            wrong.push("it was told to stop");
        }
        if run.plan.timeout.is_some_and(|timeout| now > run.started + timeout) {
            wrong.push("its time was over");
        }
        if run.dropping || run.sources.iter().any(|source| !source.active.is_empty()) {
            wrong.push("handlers had not ended");
        }
        // Rule 3.9: a drain that was shut down succeeds with what it did.
        let shut_down = run.shut_down_at.is_some();
        if !shut_down && rest.iter().any(|left| *left > 0) {
            wrong.push("sources had not ended");
        }
        if !shut_down && run.sources.iter().any(|source| !source.ended) {
            wrong.push("a source was not polled to its end");
        }
        let sources =
            report.sources().iter().zip(&run.sources).all(|(told, own)| {
                (told.handled(), told.failed()) == (own.succeeded, own.rolled_back)
            });
        if !sources || report.sources().len() != run.sources.len() {
            wrong.push("the report counts wrongly");
        }
        if report.elapsed() != now.since(run.started) {
            wrong.push("the report has another time");
        }
        for wrong in wrong {
            self.wrong(format!("the drain succeeded, but {wrong}: {report:?}"));
        }
    }

    pub fn source_ended(&mut self, drain: FrameId, source: usize) {
        let state = &mut self.run(drain).sources[source];
        let twice = std::mem::replace(&mut state.ended, true);
        self.must(!twice, || "a source was polled after its end".into());
    }

    /// Rules 3.2 to 3.6: the first cause is the cause, and nothing is lost.
    fn check_failure(&mut self, drain: FrameId, error: &Error) {
        let now = self.now();
        let listed: Vec<_> = std::iter::once(error).chain(error.related()).collect();
        let listed: Vec<_> = listed.into_iter().map(|error| self.classify(drain, error)).collect();
        let dropped_handlers = self.frames.iter().enumerate().filter(|(id, frame)| {
            let listed = listed.contains(&Some(Cause::MessageTimeout(*id)));
            let dropped =
                matches!(&frame.kind, Kind::Message(call) if call.end == Some(Ended::Dropped));
            frame.parent == drain && dropped && !listed && frame.stage != Stage::Rolling
        });
        let unfinished = self.frames.iter().enumerate().filter(|(id, frame)| {
            let rolling = frame.stage == Stage::Rolling && frame.policy.order != Order::None;
            let left = |id: usize| self.staged(id).iter().any(|id| !frame.given_up.contains(id));
            frame.parent == drain && rolling && left(*id)
        });
        let dropped = [dropped_handlers.count(), unfinished.count()];
        let told = ["dropped_handlers", "dropped_rollbacks"].map(|key| {
            error.metadata(key).map_or(0, |count| count.parse::<usize>().unwrap_or(usize::MAX))
        });
        let run = self.run(drain);
        let mut wrong = Vec::new();
        let top = listed[0];
        let first = run.failures.iter().find(|failed| failed.ends);
        let deadline = run.deadline();
        let top_legal = match top {
            Some(Cause::Timeout) => {
                let before = first.is_some_and(|first| deadline.is_some_and(|at| first.at < at));
                deadline.is_some_and(|deadline| now >= deadline) && !before
            }
            Some(Cause::Canceled) => {
                run.token.is_cancelled()
                    && first
                        .is_none_or(|first| first.stopped_before || run.stopped_outside.is_none())
            }
            Some(cause) => {
                first.is_some_and(|first| first.cause == cause && (!first.stopped_before))
            }
            None => false,
        };
        if !top_legal {
            wrong.push(format!("it is not the first: {:?}", first.map(|first| first.cause)));
        }
        for (index, cause) in listed.iter().enumerate() {
            let known = run.failures.iter().any(|failed| Some(failed.cause) == *cause);
            let own = index == 0 && matches!(cause, Some(Cause::Timeout | Cause::Canceled));
            if !known && !own || listed[..index].contains(cause) {
                wrong.push(format!("{cause:?} is told, and did not happen, or once"));
            }
        }
        for failed in &run.failures {
            // The letter's error is attached to the message's.
            let may_be_dropped =
                matches!(failed.cause, Cause::MessageTimeout(_) | Cause::DeadLetterPanic(_));
            if !may_be_dropped && !listed.contains(&Some(failed.cause)) {
                wrong.push(format!("{:?} is not told", failed.cause));
            }
        }
        if told != dropped {
            wrong.push(format!("{told:?} handlers and rollbacks are dropped, not {dropped:?}"));
        }
        let handled: u64 = run.sources.iter().map(|source| source.succeeded).sum();
        if error.metadata("handled") != Some(&handled.to_string()) {
            wrong.push("the count of handled messages is wrong".into());
        }
        let cause_at = [run.cause_at, deadline].into_iter().flatten().min();
        if cause_at.is_some_and(|at| now > at.max(run.started) + run.plan.grace) {
            wrong.push("it has outlived its grace".into());
        }
        if top == Some(Cause::Timeout) {
            self.numbers.timeouts += 1;
        }
        for wrong in wrong {
            self.wrong(format!("the drain gave {error:?}, but {wrong}"));
        }
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
