//! Rollbacks of the whole scope and of one frame.

use watershed::{ErrorCode, RollbackReport};

use super::super::program::{Order, Policy};
use super::{EffectId, FrameId, Model, Participant, ROOT, Runner, Stage, State, labels};

impl Model {
    pub fn new_rollback(&mut self, policy: Policy, token: watershed::CancellationToken) -> usize {
        self.numbers.rollbacks += 1;
        let (joined, over, mixed) = (false, false, false);
        let (succeeded_before, given_up_before) = (0, 0);
        let own =
            Participant { policy, token, joined, over, succeeded_before, given_up_before, mixed };
        self.rollbacks.push(own);
        self.rollbacks.len() - 1
    }

    pub(super) fn members(&self) -> Vec<usize> {
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
        self.must(failures == named, || format!("{failures:?} are not {named:?}"));
        self.must_count("the count of actions that succeeded", succeeded, expected);
        self.leave(number);
    }

    /// Rules 4.4 and 4.10: of what was given up since a rollback joined, each action once, where it
    /// failed last; and none that a later rollback has undone, for that is gone, and "failed and still
    /// staged" would be wrong.
    pub(super) fn named_by(&self, number: usize) -> Vec<EffectId> {
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
    pub(super) fn given_up_by(&self, number: usize) -> &[EffectId] {
        &self.frames[ROOT].given_up[self.rollbacks[number].given_up_before..]
    }

    pub fn rollback_dropped(&mut self, number: usize) {
        self.numbers.rollbacks_dropped += 1;
        if self.rollbacks[number].joined {
            self.leave(number);
        }
        self.rollbacks[number].over = true;
    }

    pub(super) fn leave(&mut self, number: usize) {
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

    pub(super) fn begin_rolling(&mut self, frame: FrameId) {
        let effects = self.effects.len();
        let frame = &mut self.frames[frame];
        (frame.stage, frame.succeeded, frame.first_new) = (Stage::Rolling, 0, effects);
        frame.given_up.clear();
    }

    /// Whether the rollback of a frame has run what it should, and says so.
    pub(super) fn check_frame_rollback(
        &mut self,
        id: FrameId,
        told: Option<usize>,
        failures: &[EffectId],
    ) {
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
}
