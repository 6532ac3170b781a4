//! The actions of effects: which may run, when, and on whose behalf.

use super::super::program::{Failure, Order, Plan, Policy};
use super::{
    Effect, EffectId, FrameId, Model, Participant, ROOT, Runner, Stage, State,
    all_alone_in_parallel,
};

impl Model {
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
    pub(super) fn commit(&mut self, outer: FrameId) -> usize {
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

    pub(super) fn is_busy(&self, id: EffectId) -> bool {
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
    pub(super) fn find_runner(&self, id: EffectId, owner: Option<usize>) -> Option<Runner> {
        let mut frame = self.effects[id].frame;
        while frame != ROOT {
            if self.frames[frame].stage == Stage::Rolling {
                return Some(Runner::Frame(frame));
            }
            frame = self.frames[frame].parent;
        }
        owner.map(Runner::Rollback)
    }

    pub(super) fn is_over(&self, runner: Runner) -> bool {
        match runner {
            // Once its token is cancelled, another one begins its attempts anew.
            Runner::Rollback(number) => {
                let Participant { over, token, .. } = &self.rollbacks[number];
                *over || token.is_cancelled()
            }
            Runner::Frame(frame) => self.frames[frame].stage != Stage::Rolling,
        }
    }

    pub(super) fn policy(&self, runner: Runner) -> Policy {
        match runner {
            Runner::Rollback(number) => self.rollbacks[number].policy,
            Runner::Frame(frame) => self.frames[frame].policy,
        }
    }

    /// Rule 4.2: the action registered last comes first.
    pub(super) fn check_order(&mut self, id: EffectId, runner: Runner) {
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
}
