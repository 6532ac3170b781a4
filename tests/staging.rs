//! Rule 4.1: whoever looks at a scope sees every compensation that was registered before, wherever
//! the library keeps it for the moment.

mod support;

use std::sync::{Arc, Mutex};

use support::{Ledger, block_on, filled, poll_times, roll_back, yields};
use watershed::{
    BoxError, Commit, CompensationScope, Error, FailedMessage, OnFailure, StepContext, fan_in,
};

const MODES: [Commit; 3] = [Commit::Pipeline, Commit::Message, Commit::Never];

// Rule 4.1
#[test]
fn a_handler_sees_what_it_registered_before_and_after_it_looked() {
    for commit in MODES {
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
            Ok::<_, BoxError>(())
        });
        block_on(drain.commit(commit)).expect("every assertion holds");
        assert_eq!(context.scope().clear(), if commit == Commit::Never { 3 } else { 0 });
    }
}

// Rules 4.1, 4.3
#[test]
fn a_handler_sees_on_the_drains_scope_what_earlier_messages_of_its_turn_left() {
    for commit in MODES {
        let context = StepContext::new("t");
        let seen = Mutex::new(Vec::new());
        let drain = fan_in(&context, [filled([1, 2, 3])], |_, step: StepContext| {
            seen.lock().expect("no panic").push(context.scope().len());
            step.register_compensation(|| async {});
            async { Ok::<_, BoxError>(()) }
        });
        block_on(drain.commit(commit)).expect("the drain succeeds");
        let expected = if commit == Commit::Message { [0, 0, 0] } else { [0, 1, 2] };
        assert_eq!(seen.into_inner().expect("no panic"), expected, "{commit:?}");
        context.scope().clear();
    }
}

// Rule 4.1
#[test]
fn a_clone_on_another_thread_sees_what_was_registered_before_it_was_made() {
    let context = StepContext::new("t");
    let drain = fan_in(&context, [filled([1])], |_, step: StepContext| {
        step.register_compensation(|| async {});
        let clone = step.clone();
        let seen = std::thread::spawn(move || {
            clone.register_compensation(|| async {});
            clone.scope().len()
        });
        let seen = seen.join().expect("the thread ends");
        step.register_compensation(|| async {});
        let len = step.scope().len();
        async move { if (seen, len) == (2, 3) { Ok(()) } else { Err(format!("{seen}, {len}")) } }
    });
    block_on(drain.commit(Commit::Never)).expect("both are seen");
    assert_eq!(context.scope().clear(), 3);
}

// Rules 4.1, 4.2
#[test]
fn what_is_registered_before_during_and_after_a_wait_keeps_its_order() {
    let (context, ledger) = (StepContext::new("t"), Ledger::default());
    let drain = fan_in(&context, [filled([10, 20])], |message, step| {
        let ledger = ledger.clone();
        ledger.apply(&step, message);
        async move {
            ledger.apply(&step, message + 1);
            yields(2).await;
            ledger.apply(&step, message + 2);
            let _ = step.scope();
            ledger.apply(&step, message + 3);
            Ok::<_, BoxError>(())
        }
    });
    block_on(drain.commit(Commit::Never)).expect("the drain succeeds");
    assert_eq!(roll_back(context.scope()), 8);
    ledger.assert_undone_in_reverse();
}

// Rules 3.8, 4.1
#[test]
fn a_failed_message_takes_back_its_own_and_not_what_its_turn_left_before() {
    for commit in MODES {
        let (context, ledger) = (StepContext::new("t"), Ledger::default());
        let mut undone_at_failure = Vec::new();
        let drain = fan_in(&context, [filled([1, 2, 3, 4])], |message, step| {
            ledger.apply(&step, message);
            ledger.apply(&step, 10 * message);
            async move { if message == 3 { Err("no") } else { Ok(()) } }
        });
        let drain = drain.commit(commit).on_failure(OnFailure::RollBackMessage);
        let drain = drain.dead_letter(|_: FailedMessage| undone_at_failure = ledger.undone());
        block_on(drain).expect("the drain goes on");
        assert_eq!(undone_at_failure, [30, 3], "{commit:?}");
        let left = roll_back(context.scope());
        assert_eq!(left, if commit == Commit::Never { 6 } else { 0 }, "{commit:?}");
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
                Ok::<_, BoxError>(())
            }
        });
        block_on(drain).expect_err("it panicked");
        assert_eq!(roll_back(context.scope()), 2);
        ledger.assert_undone_in_reverse();
    }
}

// Rules 4.1, 4.2
#[test]
fn a_drain_polled_inside_a_handler_sees_and_keeps_the_order_of_both() {
    let (outer, inner) = (StepContext::new("outer"), StepContext::new("inner"));
    let ledger = Ledger::default();
    let drain = fan_in(&outer, [filled([100, 200])], |message, step: StepContext| {
        let (ledger, inner, outer) = (ledger.clone(), inner.clone(), outer.clone());
        async move {
            ledger.apply(&step, message);
            let before = outer.scope().len();
            let nested = fan_in(&inner, [filled([10, 20])], |number, nested: StepContext| {
                ledger.apply(&nested, message + number);
                // What the outer handler has kept is seen from within the inner one.
                let seen = (step.scope().len(), outer.scope().len());
                step.register_compensation(|| async {});
                let expected = number as usize / 10;
                async move { if seen == (expected, before) { Ok(()) } else { Err(format!("{seen:?}")) } }
            });
            nested.commit(Commit::Never).await?;
            ledger.apply(&step, message + 1);
            if step.scope().len() == 4 { Ok(()) } else { Err(Error::validation("not 4")) }
        }
    });
    block_on(drain.commit(Commit::Never)).expect("everything is seen");
    assert_eq!((outer.scope().len(), inner.scope().len()), (8, 4));
    outer.scope().absorb(inner.scope());
    assert_eq!(roll_back(outer.scope()), 12);
    ledger.assert_undone_in_reverse();
}

// Rule 4.1
#[test]
fn a_handler_that_nests_an_unrelated_drain_goes_on_where_it_was() {
    let (outer, ledger) = (StepContext::new("outer"), Ledger::default());
    let drain = fan_in(&outer, [filled([1, 2, 3])], |message, step| {
        ledger.apply(&step, message);
        let other = StepContext::new("other");
        let nested = fan_in(&other, [filled([1, 2])], |_, nested: StepContext| {
            nested.register_compensation(|| async {});
            async { Ok::<_, BoxError>(()) }
        });
        poll_times(&mut nested.into_future(), 3).expect("it ends").expect("it commits");
        ledger.apply(&step, 10 * message);
        async move { if message == 3 { Err("no") } else { Ok(()) } }
    });
    block_on(drain).expect_err("the third fails");
    assert_eq!(roll_back(outer.scope()), 6);
    ledger.assert_undone_in_reverse();
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
        async { Ok::<_, BoxError>(()) }
    });
    block_on(drain.commit(Commit::Never)).expect("the drain succeeds");
    assert_eq!((context.scope().len(), elsewhere.len()), (2, 2));
    context.scope().absorb(&elsewhere);
    roll_back(context.scope());
    ledger.assert_undone_in_reverse();
}

// Rules 4.1, 4.3
#[test]
fn a_drain_dropped_in_the_middle_of_a_source_has_everything_on_its_scope() {
    let (context, ledger) = (StepContext::new("t"), Ledger::default());
    let drain = fan_in(&context, [filled(0..600)], |message, step| {
        ledger.apply(&step, message);
        async { Ok::<_, BoxError>(()) }
    });
    let mut drain = drain.into_future();
    assert!(poll_times(&mut drain, 1).is_none(), "one poll does not take it all");
    drop(drain);
    let done = ledger.done().len();
    assert!(done > 0 && done < 600);
    assert_eq!(roll_back(context.scope()), done);
    ledger.assert_undone_in_reverse();
}

// Rule 4.1
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
                    let mut done = order.lock().expect("no panic");
                    let effect = 2 * message + first;
                    done.push(effect);
                    let undone = Arc::clone(&order);
                    step.register_compensation_with(undone, move |undone| async move {
                        let mut left = undone.lock().expect("no panic");
                        assert_eq!(left.pop(), Some(effect), "the last one is undone first");
                    });
                    async { Ok::<_, BoxError>(()) }
                });
                block_on(drain.commit(Commit::Never)).expect("the drain succeeds");
            });
        }
    });
    assert_eq!(roll_back(context.scope()), 4_000);
    assert!(order.lock().expect("no panic").is_empty());
}

/// Registers from twenty places.
macro_rules! twenty_places {
    ($step:expr) => {
        twenty_places!(@ $step, 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20)
    };
    (@ $step:expr, $($place:literal)+) => {
        $($step.register_compensation(|| async { let _ = $place; });)+
    };
}

// Rule 4.1
#[test]
fn many_places_and_many_actions_are_kept_as_well_as_few() {
    let context = StepContext::new("t");
    let drain = fan_in(&context, [filled([1, 2, 3])], |message: usize, step: StepContext| {
        twenty_places!(step);
        for _ in 0..5_000 {
            step.register_compensation(|| async {});
        }
        // Others look at the scope of the drain while this message has not ended.
        let seen = context.scope().len();
        twenty_places!(step);
        let expected = (message - 1) * 5_040;
        async move { if seen == expected { Ok(()) } else { Err(format!("{seen}")) } }
    });
    block_on(drain.commit(Commit::Never)).expect("each message has its own");
    assert_eq!(roll_back(context.scope()), 3 * 5_040);
}
