//! What becomes of the compensations of a drain's messages. Rules 3.8, 4.1 to 4.3, 4.8, 4.9, 4.12.

use std::cell::RefCell;
use std::future::IntoFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use futures::{FutureExt, stream};
use watershed::{
    BoxError, Commit, Compensated, CompensationPolicy, CompensationScope, Error, Letter,
    LocalUndos, OnFailure, StepContext, fan_in,
};

use crate::support::{Gate, Hand, Ledger, block_on, filled, roll_back, yields};

const COMMITS: [Commit; 3] = [Commit::Pipeline, Commit::Message, Commit::Never];

fn ok() -> Result<(), BoxError> {
    Ok(())
}

/// An action that does nothing but hold its state.
fn holding<T: Send + Sync + 'static>(state: T) -> impl watershed::Action {
    move || {
        let _held = &state;
        async {}
    }
}

// Rules 4.1, 4.2
#[test]
fn concurrent_handlers_are_rolled_back_in_reverse_of_registration() {
    for commit in [Commit::Pipeline, Commit::Never] {
        let (context, ledger) = (StepContext::new("t"), Ledger::default());
        let sources: Vec<_> =
            (0..4).map(|s| filled((0..9).map(move |m| s * 100 + m * 10))).collect();
        let drain = fan_in(&context, sources, |message: u32, step| {
            let ledger = ledger.clone();
            async move {
                for effect in 0..3 {
                    ledger.apply(&step, message + effect);
                    yields((message / 10 + effect) as usize % 4).await;
                }
                if message == 270 { Err("boom") } else { Ok(()) }
            }
        });
        block_on(drain.concurrency(4).commit(commit)).unwrap_err();
        assert_eq!(roll_back(context.scope()), ledger.done().len());
        assert!(ledger.done().len() > 60);
        ledger.assert_undone_in_reverse();
    }
}

// Rule 4.1
#[test]
fn a_handler_sees_its_own_and_nothing_of_the_messages_before() {
    for commit in COMMITS {
        let context = StepContext::new("t");
        let drain = fan_in(&context, [filled([1, 2, 3])], |_, step: StepContext| async move {
            step.register_compensation(|| async {});
            let scope = step.scope();
            assert_eq!(scope.len(), 1);
            step.register_compensation(|| async {});
            step.register_compensation_with((), |()| async {});
            assert_eq!(scope.len(), 3);
            assert_eq!(scope.clear(), 3);
            step.register_compensation(|| async {});
            ok()
        });
        block_on(drain.commit(commit)).unwrap();
        assert_eq!(context.scope().clear(), if commit == Commit::Never { 3 } else { 0 });
    }
}

// Rule 4.1
#[test]
fn the_thread_that_is_handed_a_step_sees_what_was_staged_and_may_undo_it() {
    for commit in COMMITS {
        let context = StepContext::new("t");
        let drain = fan_in(&context, [filled(0..100)], |_, step: StepContext| async move {
            step.register_compensation(|| async {});
            drop(step.reserve(|| async {}));
            let (seen, undone, step) = std::thread::spawn(move || {
                let seen = step.scope().len();
                (seen, roll_back(step.scope()), step)
            })
            .join()
            .unwrap();
            assert_eq!((seen, undone, step.scope().len()), (2, 2, 0));
            step.register_compensation(|| async {});
            ok()
        });
        let report = block_on(drain.commit(commit)).unwrap();
        assert_eq!((report.handled(), report.late_registrations()), (100, 0));
        assert_eq!(context.scope().clear(), if commit == Commit::Never { 100 } else { 0 });
    }
}

// Rule 4.1
#[test]
fn whatever_ends_a_drain_everything_is_on_the_scope_of_its_context() {
    for commit in COMMITS {
        for polls in 0..40 {
            let (context, ledger) = (StepContext::new("t"), Ledger::default());
            let sources = [filled(0..20), filled(20..40)];
            let drain = fan_in(&context, sources, |message, step| {
                let ledger = ledger.clone();
                async move {
                    ledger.apply(&step, message);
                    yields(message as usize % 3).await;
                    ledger.apply(&step, 100 + message);
                    ok()
                }
            });
            let mut drain = Hand::new(drain.concurrency(2).commit(commit).into_future());
            let ended = (0..polls).any(|_| drain.poll().is_ready());
            drop(drain);
            let staged = roll_back(context.scope());
            match (commit, ended) {
                (Commit::Pipeline | Commit::Message, true) => assert_eq!(staged, 0),
                (Commit::Message, false) => assert!(staged <= 4),
                _ => {
                    assert_eq!(staged, ledger.done().len());
                    ledger.assert_undone_in_reverse();
                }
            }
        }
    }
}

// Rules 4.1, 4.2
#[test]
fn handlers_on_two_threads_stage_on_one_scope_in_one_order() {
    let context = StepContext::new("t");
    let order = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|threads| {
        for first in [0, 1] {
            let (context, order) = (context.clone(), Arc::clone(&order));
            threads.spawn(move || {
                let drain = fan_in(&context, [filled(0..2_000)], |message, step: StepContext| {
                    // Under the lock, so that the order of the log is that of registration.
                    let mut done = order.lock().unwrap();
                    let effect = 2 * message + first;
                    done.push(effect);
                    let undone = Arc::clone(&order);
                    step.register_compensation_with(undone, move |undone| async move {
                        let mut left = undone.lock().unwrap();
                        assert_eq!(left.pop(), Some(effect), "the last one is undone first");
                    });
                    async { ok() }
                });
                block_on(drain.commit(Commit::Never)).unwrap();
            });
        }
    });
    assert_eq!(roll_back(context.scope()), 4_000);
    assert!(order.lock().unwrap().is_empty());
}

// Rule 4.1
#[test]
fn what_a_kept_step_registers_late_is_the_drains_then_the_contexts_and_is_counted() {
    for commit in COMMITS {
        let (context, kept) = (StepContext::new("t"), Mutex::new(Vec::<StepContext>::new()));
        let drain = fan_in(&context, [filled([1, 2, 3])], |_, step: StepContext| {
            let mut kept = kept.lock().unwrap();
            for step in &*kept {
                step.register_compensation(|| async {});
            }
            kept.push(step);
            async { ok() }
        });
        let report = block_on(drain.commit(commit)).unwrap();
        assert_eq!(report.late_registrations(), 3);
        for step in kept.lock().unwrap().drain(..) {
            step.register_compensation(|| async {});
        }
        let left = context.scope().clear();
        if commit == Commit::Pipeline {
            assert_eq!(left, 3);
        } else {
            assert!(left >= 3);
        }
    }
}

// Rule 4.3
#[test]
fn success_clears_what_the_messages_staged_and_nothing_else() {
    for (commit, left) in [(Commit::Message, 0), (Commit::Never, 9), (Commit::Pipeline, 0)] {
        let context = StepContext::new("t");
        context.register_compensation(|| async {});
        let drain = fan_in(&context, [filled([1, 2, 3])], |_: u32, step| {
            context.register_compensation(|| async {});
            async move {
                step.register_compensation(|| async {});
                drop(step.reserve(|| async {}));
                Ok::<_, BoxError>(Compensated::new(()).with_compensation(|| async {}))
            }
        });
        block_on(drain.commit(commit)).unwrap();
        assert_eq!(context.scope().clear(), left + 4, "{commit:?}");
    }
}

// Rule 4.8
#[test]
fn two_drains_of_one_scope_clear_their_own_whichever_ends_first() {
    for first in [0, 1] {
        let context = StepContext::new("t");
        context.register_compensation(|| async {});
        let channels = [(); 2].map(|()| async_channel::unbounded());
        let mut drains = channels.each_ref().map(|(_, receiver)| {
            let drain = fan_in(&context, [receiver.clone()], |fails, step: StepContext| {
                step.register_compensation(|| async {});
                async move { if fails { Err("no") } else { Ok(()) } }
            });
            Hand::new(drain.into_future())
        });
        for drain in [0, 0, 1, 1, 1] {
            channels[drain].0.try_send(false).unwrap();
        }
        assert!(drains.iter_mut().all(|drain| drain.run().is_pending()));
        channels[first].0.close();
        assert!(matches!(drains[first].run(), Poll::Ready(Ok(_))));
        assert_eq!(context.scope().len(), 1);
        channels[1 - first].0.try_send(true).unwrap();
        assert!(matches!(drains[1 - first].run(), Poll::Ready(Err(_))));
        assert_eq!(context.scope().clear(), 1 + [4, 3][first]);
    }
}

// Rules 4.2, 4.3
#[test]
fn a_nested_drain_is_undone_with_its_message_in_one_order() {
    for commit in COMMITS {
        let (context, ledger) = (StepContext::new("t"), Ledger::default());
        let drain = fan_in(&context, [filled([100, 200])], |outer, step: StepContext| {
            let ledger = ledger.clone();
            async move {
                ledger.apply(&step, outer);
                let inner = fan_in(&step, [filled([1, 2])], |inner, nested: StepContext| {
                    ledger.apply(&nested, outer + inner);
                    async { ok() }
                });
                inner.commit(commit).await?;
                ledger.apply(&step, outer + 3);
                let staged = if commit == Commit::Message { 2 } else { 4 };
                assert_eq!(step.scope().len(), staged, "{commit:?}");
                if outer == 200 { Err(Error::validation("no")) } else { Ok(()) }
            }
        });
        block_on(drain).unwrap_err();
        let staged = roll_back(context.scope());
        if commit == Commit::Message {
            assert_eq!((staged, ledger.undone()), (4, vec![203, 200, 103, 100]));
        } else {
            assert_eq!(staged, 8);
            ledger.assert_undone_in_reverse();
        }
    }
}

// Rule 4.3
#[test]
fn a_drain_that_outlives_the_message_it_began_in_clears_what_it_staged() {
    for outer_commit in COMMITS {
        for inner_commit in COMMITS {
            let (context, gate) = (StepContext::new("outer"), Gate::default());
            let (sender, inner) = std::sync::mpsc::channel();
            let drain = fan_in(&context, [filled([1])], |_, step: StepContext| {
                let (sender, gate) = (sender.clone(), gate.clone());
                async move {
                    let mut inner = async move {
                        let drain = fan_in(&step, [filled(0..3)], |_, step: StepContext| {
                            let gate = gate.clone();
                            async move {
                                gate.wait().await;
                                step.register_compensation(|| async {});
                                ok()
                            }
                        });
                        drain.commit(inner_commit).await
                    }
                    .boxed_local();
                    assert!(futures::poll!(&mut inner).is_pending());
                    sender.send(inner).unwrap();
                    ok()
                }
            });
            block_on(drain.commit(outer_commit)).unwrap();
            gate.open();
            block_on(inner.recv().unwrap()).unwrap();
            let left = context.scope().clear();
            match (outer_commit, inner_commit) {
                (_, Commit::Message) | (Commit::Pipeline | Commit::Message, Commit::Pipeline) => {
                    assert_eq!(left, 0, "{outer_commit:?} {inner_commit:?}");
                }
                // The caller of one of them decides.
                _ => assert_eq!(left, 3, "{outer_commit:?} {inner_commit:?}"),
            }
        }
    }
}

// Rules 3.8, 4.1
#[test]
fn a_failed_message_takes_back_its_own_and_nothing_of_others() {
    for commit in COMMITS {
        let (context, ledger) = (StepContext::new("t"), Ledger::default());
        let undone_at_failure = Mutex::new(Vec::new());
        let drain = fan_in(&context, [filled([1, 2, 3, 4])], |message, step| {
            ledger.apply(&step, message);
            ledger.apply_slowly(&step, 10 * message);
            async move { if message == 3 { Err("no") } else { Ok(()) } }
        });
        let drain = drain.commit(commit).dead_letters(async |letter: Letter<u32>| {
            assert_eq!(letter.rollback().unwrap().succeeded(), 2);
            *undone_at_failure.lock().unwrap() = ledger.undone();
        });
        let report = block_on(drain).unwrap();
        assert_eq!((report.handled(), report.failed()), (3, 1));
        assert_eq!(*undone_at_failure.lock().unwrap(), [30, 3], "{commit:?}");
        let left = roll_back(context.scope());
        assert_eq!(left, if commit == Commit::Never { 6 } else { 0 }, "{commit:?}");
    }
}

// Rule 4.4
#[test]
fn what_could_not_be_undone_stays_staged_whatever_becomes_of_the_drain() {
    for commit in COMMITS {
        let context = StepContext::new("t");
        let drain = fan_in(&context, [filled([1, 2])], |message, step: StepContext| {
            step.register_compensation(move || async move {
                if message == 1 { Err("stuck") } else { Ok(()) }
            });
            async { Err::<(), _>("no") }
        });
        let drain = drain.commit(commit).on_failure(OnFailure::Continue);
        block_on(drain).unwrap();
        assert_eq!(context.scope().clear(), 1, "{commit:?}");
    }
}

// Rules 4.1, 4.9
#[test]
fn a_reservation_that_outlives_its_message_can_be_withdrawn() {
    for commit in COMMITS {
        let (context, kept) = (StepContext::new("t"), Mutex::new(Vec::new()));
        let drain = fan_in(&context, [filled(0..100)], |_, step: StepContext| {
            kept.lock().unwrap().push(step.reserve(|| async {}));
            async { ok() }
        });
        let report = block_on(drain.commit(commit)).unwrap();
        assert_eq!(report.late_registrations(), 0);
        for reservation in kept.into_inner().unwrap() {
            assert_eq!(reservation.disarm(), commit == Commit::Never);
        }
        assert!(context.scope().is_empty());
    }
}

// Rules 3.7, 4.1
#[test]
fn a_handler_that_panics_before_its_first_await_loses_nothing() {
    for in_the_call in [true, false] {
        let (context, ledger) = (StepContext::new("t"), Ledger::default());
        let drain = fan_in(&context, [filled([1, 2])], |message, step| {
            ledger.apply(&step, message);
            assert!(message == 1 || !in_the_call, "in the call");
            async move {
                assert!(message == 1, "in the first poll");
                drop(step);
                ok()
            }
        });
        block_on(drain).unwrap_err();
        assert_eq!(roll_back(context.scope()), 2);
        ledger.assert_undone_in_reverse();
    }
}

// Rule 4.1
#[test]
fn a_context_changed_by_its_handler_loses_nothing() {
    let (context, elsewhere) = (StepContext::new("t"), CompensationScope::new());
    let ledger = Ledger::default();
    let drain = fan_in(&context, [filled([1, 2])], |message, step: StepContext| {
        ledger.apply(&step, message);
        let step = step.with_scope(elsewhere.clone());
        ledger.apply(&step, 10 * message);
        async { ok() }
    });
    block_on(drain.commit(Commit::Never)).unwrap();
    assert_eq!((context.scope().len(), elsewhere.len()), (2, 2));
    context.scope().absorb(&elsewhere);
    roll_back(context.scope());
    ledger.assert_undone_in_reverse();
}

/// Counts its destruction, and panics in it.
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        assert!(std::thread::panicking(), "a destructor went wrong");
    }
}

// Rules 3.1, 3.7, 4.12
#[test]
fn panicking_destructors_between_neighbours_are_all_run_once_in_a_commit() {
    for commit in [Commit::Pipeline, Commit::Message] {
        let context = StepContext::new("t");
        let (drops, neighbour) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
        let drain = fan_in(&context, [filled([1])], |_, step| {
            for _ in 0..5 {
                step.register_compensation(holding(Arc::clone(&neighbour)));
                step.register_compensation(holding(Bomb(Arc::clone(&drops))));
                step.register_compensation(holding(Arc::clone(&neighbour)));
            }
            async { ok() }
        });
        // What was done is done: that it cannot be forgotten changes no result.
        let report = block_on(drain.commit(commit)).expect("its handler has succeeded");
        assert_eq!(report.handled(), 1, "{commit:?}");
        assert_eq!(drops.load(Ordering::SeqCst), 5);
        assert_eq!(Arc::strong_count(&neighbour), 1);
        assert!(context.scope().is_empty());
    }
}

/// Asks and changes a scope while it is destroyed.
struct Curious(CompensationScope, Arc<AtomicUsize>);

impl Drop for Curious {
    fn drop(&mut self) {
        self.0.register_compensation(|| async {});
        assert!(self.0.len() < 100);
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

// Rules 4.1, 4.12
#[test]
fn a_destructor_may_stage_on_the_scopes_of_its_drain_while_it_commits() {
    for commit in [Commit::Pipeline, Commit::Message] {
        let (context, drops) = (StepContext::new("t"), Arc::new(AtomicUsize::new(0)));
        let parent = context.scope().clone();
        let drain = fan_in(&context, [filled([1, 2])], |_, step| {
            let curious = |scope: &CompensationScope| Curious(scope.clone(), Arc::clone(&drops));
            step.register_compensation(holding(curious(&parent)));
            step.register_compensation(holding(curious(step.scope())));
            async { ok() }
        });
        block_on(drain.commit(commit)).unwrap();
        // What holds its own scope goes with the scope of its drain, which is the context's then.
        roll_back(&parent);
        while parent.clear() > 0 {}
        assert_eq!(drops.load(Ordering::SeqCst), 4, "{commit:?}");
    }
}

// Rule 4.15
#[test]
fn a_drain_that_is_not_send_undoes_state_that_is_not() {
    use std::cell::RefCell;
    use std::rc::Rc;
    for commit in COMMITS {
        let (context, undos) = (StepContext::new("t"), LocalUndos::new());
        let lines = Rc::new(RefCell::new(Vec::new()));
        let drain = fan_in(&context, [filled(1..=4)], |message, step: StepContext| {
            let (lines, undos) = (Rc::clone(&lines), undos.clone());
            async move {
                lines.borrow_mut().push(message);
                let undone = Rc::clone(&lines);
                undos.register(&step, move || {
                    let undone = Rc::clone(&undone);
                    async move { undone.borrow_mut().retain(|line| *line != message) }
                });
                yields(1).await;
                if message == 3 { Err("no") } else { Ok(()) }
            }
        });
        let drain = drain.commit(commit).on_failure(OnFailure::Continue).local_undos(&undos);
        let report = block_on(drain).unwrap();
        assert_eq!((report.handled(), report.failed()), (3, 1));
        assert_eq!(*lines.borrow(), [1, 2, 4], "the failed one was undone: {commit:?}");
        let left = if commit == Commit::Never { 3 } else { 0 };
        assert_eq!((context.scope().len(), undos.len()), (left, left));
        let policy = CompensationPolicy::default();
        assert_eq!(block_on(context.roll_back(&policy).local(&undos)).unwrap().succeeded(), left);
        assert_eq!(lines.borrow().len(), 3 - left);
    }
}

// Rules 3.8, 4.3, 4.6; found by random programs
#[test]
fn what_a_policy_keeps_staged_of_a_failed_message_is_not_cleared_by_the_success_of_the_drain() {
    for (commit, staged) in [(Commit::Pipeline, 2), (Commit::Message, 2), (Commit::Never, 4)] {
        for kept in [false, true] {
            let (context, steps) = (StepContext::new("t"), RefCell::new(Vec::new()));
            let handler = async |message: u32, step: StepContext| {
                step.register_compensation(async || {});
                steps.borrow_mut().extend(kept.then(|| step.clone()));
                if message % 2 == 0 { Err("fails") } else { Ok(()) }
            };
            let drain = fan_in(&context, [stream::iter(0..4)], handler)
                .commit(commit)
                .on_failure(OnFailure::Continue)
                .message_compensation(CompensationPolicy::none());
            let report = block_on(drain).expect("it goes on");
            assert_eq!((report.handled(), report.failed()), (2, 2));
            assert_eq!(context.scope().len(), staged, "{commit:?}, steps kept: {kept}");
        }
    }
}
