//! The step that a drain lends to its handlers, kept by another thread while its message ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::super::effects::Effects;
use super::super::executor::{block_on, give_way, poll_once};
use super::every_schedule;
use crate::origin::{SourceId, SourceName, SourceRef};
use crate::step::LentStep;
use crate::sync::thread;
use crate::undo::DrainScope;
use crate::{CompensationPolicy, StepContext};

/// A drain with one slot, as far as its step and its scopes go.
struct Slot {
    context: StepContext,
    drain: Option<DrainScope>,
    lent: Option<LentStep>,
    source: SourceRef,
}

impl Slot {
    fn new() -> Self {
        let context = StepContext::new("model");
        let drain = DrainScope::open(context.scope());
        let lent = LentStep::new(&context, context.cancellation(), &drain);
        let source = SourceRef { id: SourceId::next(), name: SourceName::new(None, 0) };
        Self { context, drain: Some(drain), lent: Some(lent), source }
    }

    fn drain(&self) -> &DrainScope {
        self.drain.as_ref().unwrap()
    }

    /// Calls a handler, which returns at once.
    fn call(&mut self, number: u64, handler: impl FnOnce(StepContext)) {
        let Self { context, drain, lent, source, .. } = self;
        let drain = drain.as_ref().unwrap();
        let lent =
            lent.get_or_insert_with(|| LentStep::new(context, context.cancellation(), drain));
        let step = lent.begin(source, number, 1);
        lent.arm();
        handler(step);
        lent.disarm();
    }

    /// The handler has returned `Ok`.
    fn succeed(&mut self, committed: bool) {
        let Some(lent) = &mut self.lent else { return };
        if !lent.is_home() {
            self.lent.take().unwrap().let_go(committed);
        } else if committed {
            lent.commit_later();
        } else {
            lent.keep_later();
        }
    }

    /// The turn is over.
    fn flush(&mut self) {
        if let Some(lent) = &mut self.lent {
            lent.flush();
        }
    }

    /// The drain succeeds or fails.
    fn end(&mut self, succeeds: bool) {
        drop(self.lent.take());
        let drain = self.drain.take().unwrap();
        if succeeds { drain.commit() } else { drain.keep() }
    }

    fn roll_back(&self) -> usize {
        let policy = CompensationPolicy::sequential_reverse();
        block_on(self.context.roll_back(&policy)).unwrap().succeeded()
    }
}

/// What the success of a message or a drain does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commit {
    Message,
    Drain,
    Never,
}

const COMMITS: [Commit; 3] = [Commit::Message, Commit::Drain, Commit::Never];

// Rules 4.1 and 4.3
#[test]
fn a_registration_beside_the_end_of_its_message_is_in_one_place() {
    for commit in COMMITS {
        every_schedule(
            "a clone of a step registers beside the end of its message",
            Some(3),
            move || {
                let (mut slot, effects) = (Slot::new(), Effects::new(2));
                let mut keeper = None;
                slot.call(1, |step| {
                    step.register_compensation(effects.undo(0, 0));
                    let late = effects.clone();
                    keeper =
                        Some(thread::spawn(move || step.register_compensation(late.undo(1, 0))));
                });
                slot.succeed(commit == Commit::Message);
                slot.flush();
                let counter = Arc::clone(slot.drain().late_counter());
                slot.end(commit == Commit::Drain);
                keeper.take().unwrap().join().unwrap();
                let late = counter.load(SeqCst);
                assert!(late <= 1, "{late} late ones");
                let staged = slot.context.scope().len();
                assert_eq!(effects.dropped() + staged, 2, "{} are committed", effects.dropped());
                match commit {
                    Commit::Never => assert_eq!(staged, 2),
                    // What came late is the context's, unless the drain's success found it.
                    Commit::Message | Commit::Drain => assert!(staged as u64 <= late),
                }
                assert_eq!(slot.roll_back(), staged);
                assert_eq!(effects.undone_in_all(), staged);
                effects.assert_gone();
            },
        );
    }
}

// Rule 4.1
#[test]
fn what_a_clone_did_before_it_went_away_is_the_messages() {
    for commit in [Commit::Message, Commit::Never] {
        every_schedule("a clone registers, goes away, and its step is home", Some(3), move || {
            let (mut slot, effects) = (Slot::new(), Effects::new(2));
            let mut keeper = None;
            slot.call(1, |step| {
                let (kept, late) = (step.clone(), effects.clone());
                keeper = Some(thread::spawn(move || {
                    kept.register_compensation(late.undo(0, 0));
                    drop(kept);
                }));
            });
            let home = slot.lent.as_ref().unwrap().is_home();
            slot.succeed(commit == Commit::Message);
            slot.call(2, |step| step.register_compensation(effects.undo(1, 0)));
            slot.succeed(false);
            slot.flush();
            if home {
                // The first one was there when its message ended, so it is where that went.
                let first = usize::from(commit == Commit::Message);
                assert_eq!((effects.gone(0), effects.dropped()), (first, first));
            }
            slot.end(false);
            keeper.take().unwrap().join().unwrap();
            assert_eq!(effects.dropped() + slot.context.scope().len(), 2);
            slot.context.scope().clear();
            effects.assert_gone();
        });
    }
}

// Rules 4.1 and 6.3
#[test]
fn whoever_counts_finds_every_action_while_messages_end() {
    for commit in [Commit::Message, Commit::Never] {
        every_schedule("the actions are counted while messages end", Some(3), move || {
            let (mut slot, effects) = (Slot::new(), Effects::new(3));
            let watched = slot.lent.as_ref().unwrap().scope().downgrade();
            let drain = slot.drain().scope().downgrade();
            let staged = Arc::new(AtomicUsize::new(0));
            let before = Arc::clone(&staged);
            let watcher = thread::spawn(move || {
                let before = before.load(SeqCst);
                // In the order in which actions move.
                let scopes = [watched, drain];
                (before, scopes.map(|scope| scope.upgrade().map_or(0, |scope| scope.len())))
            });
            for index in 0..3 {
                slot.call(1 + index as u64, |step| {
                    step.register_compensation(effects.undo(index, 0));
                });
                staged.fetch_add(1, SeqCst);
                slot.succeed(commit == Commit::Message);
            }
            let (before, counts) = watcher.join().unwrap();
            if commit == Commit::Never {
                assert!(counts.iter().sum::<usize>() >= before, "{counts:?} of {before}");
            } else {
                // What is committed is not counted, whether it was dropped by then or not.
                assert!(counts[0] <= 1, "{counts:?}");
            }
            slot.flush();
            slot.end(false);
            assert_eq!(effects.dropped() + slot.context.scope().len(), 3);
            slot.context.scope().clear();
            effects.assert_gone();
        });
    }
}

// Rules 4.1 and 4.2
#[test]
fn what_is_above_the_mark_belongs_to_the_message_that_runs() {
    every_schedule("a scope is looked at between two messages", Some(3), || {
        let (mut slot, effects) = (Slot::new(), Effects::new(2));
        let watched = slot.lent.as_ref().unwrap().scope().downgrade();
        let watcher = thread::spawn(move || watched.upgrade().map_or(0, |scope| scope.len()));
        slot.call(1, |step| step.register_compensation(effects.undo(0, 0)));
        slot.succeed(true);
        // The second one fails, and is undone alone: by a look that another thread had, perhaps.
        slot.call(2, |step| step.register_compensation(effects.undo(1, 0)));
        if let Some(lent) = &slot.lent {
            let policy = CompensationPolicy::sequential_reverse();
            let report = block_on(lent.scope().roll_back(&policy)).unwrap();
            assert_eq!(report.succeeded(), 1);
            assert_eq!([0, 1].map(|index| effects.undone(index)), [0, 1]);
        }
        watcher.join().unwrap();
        slot.end(false);
        assert!(slot.context.scope().is_empty());
        effects.assert_gone();
    });
}

// Rule 4.1
#[test]
fn what_a_failed_message_leaves_goes_with_what_is_registered_beside_it() {
    every_schedule("a message is handed over beside a registration", Some(3), || {
        let (mut slot, effects) = (Slot::new(), Effects::new(2));
        let mut keeper = None;
        slot.call(1, |step| {
            step.register_compensation(effects.undo(0, 0));
            let (kept, late) = (step.scope().clone(), effects.clone());
            keeper = Some(thread::spawn(move || late.stage(&kept, 1)));
        });
        // As a slot ends a message that has failed.
        match &mut slot.lent {
            Some(lent) if lent.is_home() => lent.hand_over(),
            lent => drop(lent.take().unwrap().let_go(false)),
        }
        slot.end(false);
        keeper.take().unwrap().join().unwrap();
        assert_eq!(slot.roll_back(), 2);
        effects.assert_undone();
    });
}

// Rules 4.1 and 4.5
#[test]
fn a_step_that_is_dropped_beside_its_keeper_loses_nothing() {
    every_schedule("a slot is dropped beside a step that is kept", Some(3), || {
        let (mut slot, effects) = (Slot::new(), Effects::new(2));
        let mut keeper = None;
        slot.call(1, |step| {
            step.register_compensation(effects.undo(0, 0));
            let late = effects.clone();
            keeper = Some(thread::spawn(move || step.register_compensation(late.undo(1, 0))));
        });
        slot.end(false);
        keeper.take().unwrap().join().unwrap();
        assert_eq!(slot.context.scope().clear(), 2);
        effects.assert_gone();
    });
}

// Rule 4.3
#[test]
fn a_nested_success_is_as_final_as_its_message() {
    for committed in [true, false] {
        every_schedule("a nested drain succeeds beside the end of its message", None, move || {
            let (mut slot, effects) = (Slot::new(), Effects::new(1));
            let mut nested = None;
            slot.call(1, |step| {
                let effects = effects.clone();
                nested = Some(thread::spawn(move || {
                    let drain = DrainScope::open(step.scope());
                    effects.stage(drain.scope(), 0);
                    drain.commit();
                }));
            });
            slot.succeed(committed);
            slot.flush();
            nested.take().unwrap().join().unwrap();
            slot.end(false);
            let staged = slot.context.scope().len();
            assert_eq!(effects.dropped() + staged, 1);
            assert!(committed || staged == 1, "the message is not final");
            assert!(!committed || staged == 0, "the message was final");
            slot.context.scope().clear();
            effects.assert_gone();
        });
    }
}

// Rule 4.9
#[test]
fn a_reservation_of_a_message_is_withdrawn_on_its_way() {
    every_schedule("a reservation is withdrawn on its way to the context", Some(3), || {
        let (mut slot, effects) = (Slot::new(), Effects::new(1));
        let mut withdrawing = None;
        slot.call(1, |step| {
            let reservation = step.reserve(effects.undo(0, 0));
            withdrawing = Some(thread::spawn(move || reservation.disarm()));
        });
        slot.succeed(false);
        slot.flush();
        slot.end(false);
        let withdrawn = withdrawing.take().unwrap().join().unwrap();
        // One that is told "no" finds its action where it does nothing.
        assert_eq!(slot.roll_back(), usize::from(!withdrawn));
        assert_eq!(effects.undone(0), 0);
        effects.assert_gone();
    });
}

// Rules 4.1 and 4.10
#[test]
fn a_message_that_is_undone_ends_beside_another_rollback_of_its_scope() {
    every_schedule("two rollbacks of a message's scope, and its end", Some(2), || {
        let (mut slot, effects) = (Slot::new(), Effects::new(2));
        let mut other = None;
        slot.call(1, |step| {
            step.register_compensation(effects.undo(0, 0));
            step.register_compensation(effects.undo(1, 1));
            let policy = CompensationPolicy::sequential_reverse();
            let mut rollback = step.roll_back(&policy);
            other = Some(thread::spawn(move || {
                let _ = poll_once(&mut rollback);
                block_on(give_way());
                drop(rollback);
            }));
        });
        let policy = CompensationPolicy::sequential_reverse();
        let rollback = slot.lent.as_ref().unwrap().scope().roll_back(&policy);
        block_on(rollback).unwrap();
        assert_eq!([0, 1].map(|index| effects.undone(index)), [1, 1]);
        slot.lent.take().unwrap().let_go(false);
        other.take().unwrap().join().unwrap();
        slot.end(false);
        assert!(slot.context.scope().is_empty());
        effects.assert_gone();
    });
}
