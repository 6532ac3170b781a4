//! The step of a drain's messages, and the scopes behind it.

mod nested;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::executor::block_on;

use super::{LentStep, StepContext, handled};
use crate::cancellation::CancellationToken;
use crate::origin::{SourceId, SourceName, SourceRef};
use crate::undo::{CompensationPolicy, CompensationScope, DrainScope, Reservation};

fn source() -> SourceRef {
    SourceRef { id: SourceId::next(), name: SourceName::new(None, 0) }
}

fn lent(context: &StepContext) -> (LentStep, DrainScope, SourceRef) {
    let drain = DrainScope::open(context.scope());
    (LentStep::new(context, &CancellationToken::never(), &drain), drain, source())
}

/// Handles a message: `handler` is given the step, and what it returns is kept.
fn handle<T>(
    step: &mut LentStep,
    source: &SourceRef,
    number: u64,
    handler: impl FnOnce(StepContext) -> T,
) -> T {
    let lent = step.begin(source, number, 1);
    step.arm();
    let kept = handler(lent);
    step.disarm();
    kept
}

fn undo(log: &Arc<Mutex<Vec<u32>>>, number: u32) -> impl crate::undo::Action + use<> {
    let log = Arc::clone(log);
    move || {
        let log = Arc::clone(&log);
        async move { log.lock().unwrap().push(number) }
    }
}

fn roll_back(scope: &CompensationScope) -> usize {
    block_on(scope.roll_back(&CompensationPolicy::default())).unwrap().succeeded()
}

fn is_polled(source: SourceId) -> bool {
    handled().contains(&source)
}

#[test]
fn a_step_that_its_handler_drops_comes_home_and_is_lent_again() {
    let context = StepContext::new("orders");
    let (mut step, drain, source) = lent(&context);
    let mut addresses = Vec::new();
    for number in 1..=3 {
        handle(&mut step, &source, number, |step| {
            assert_eq!((step.name(), step.message_number()), ("orders", Some(number)));
            assert_eq!((step.source_id(), step.attempt()), (Some(source.id), 1));
            assert!(is_polled(source.id));
            addresses.push(std::ptr::from_ref(step.scope()).addr());
        });
        assert!(step.is_home() && !step.is_touched());
        assert!(!is_polled(source.id));
    }
    assert!(addresses.windows(2).all(|two| two[0] == two[1]));
    let other = super::tests::source();
    handle(&mut step, &other, 1, |step| assert_eq!(step.source_id(), Some(other.id)));
    assert!(step.is_home());
    drop((step, drain));
}

#[test]
fn a_step_that_is_kept_in_whatever_way_is_not_home() {
    let context = StepContext::new("orders");
    let (mut step, _drain, source) = lent(&context);
    let kept = handle(&mut step, &source, 1, |step| step);
    assert!(!step.is_home());
    drop(kept);
    assert!(step.is_home(), "dropped later, as usual");
    let kept = handle(&mut step, &source, 2, |step| step.clone());
    assert!(!step.is_home());
    drop(kept);
    let kept = handle(&mut step, &source, 3, |step| step.scope().clone());
    assert!(!step.is_home());
    drop(kept);
    let kept =
        handle(&mut step, &source, 4, |step| step.with_cancellation(CancellationToken::never()));
    assert!(!step.is_home(), "its scope is the message's");
    drop(kept);
    let kept = handle(&mut step, &source, 5, |step| step.reserve(|| async {}));
    assert!(step.is_home(), "a reservation keeps nothing");
    assert!(kept.disarm());
    let sent = step.begin(&source, 6, 1);
    step.arm();
    std::thread::scope(|threads| threads.spawn(|| drop(sent)).join()).unwrap();
    step.disarm();
    assert!(step.is_home());
}

#[test]
fn a_drain_within_a_handler_leaves_the_handler_what_it_had() {
    let context = StepContext::new("orders");
    let (mut outer, _drain, outer_source) = lent(&context);
    for drops_first in [true, false] {
        handle(&mut outer, &outer_source, 1, |step| {
            let mut step = Some(step);
            if drops_first {
                step = None;
            }
            let (mut inner, _drain, inner_source) = lent(&context);
            for keeps in [true, false] {
                let entered = super::enter();
                let mut kept = None;
                handle(&mut inner, &inner_source, 1, |step| {
                    assert!(is_polled(inner_source.id) && is_polled(outer_source.id));
                    if keeps {
                        kept = Some(step);
                    }
                });
                drop(entered);
                assert!(is_polled(outer_source.id) && !is_polled(inner_source.id));
                assert_eq!(inner.is_home(), !keeps);
                drop(kept);
            }
            drop(step);
        });
        assert!(outer.is_home());
    }
}

#[test]
fn what_is_committed_is_gone_for_whoever_looks_and_its_panics_are_counted() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a destructor");
        }
    }
    let context = StepContext::new("orders");
    for looks in [true, false] {
        let before = crate::diagnostics::Snapshot::now();
        let (mut step, drain, source) = lent(&context);
        let held = Arc::new(());
        let action = || {
            let held = Arc::clone(&held);
            move || {
                let _ = &held;
                async {}
            }
        };
        for number in 1..=3 {
            handle(&mut step, &source, number, |step| {
                step.register_compensation(action());
                let bomb = (number == 2).then(|| Bomb);
                let own = Arc::clone(&held);
                step.register_compensation(move || {
                    let _ = (&bomb, &own);
                    async {}
                });
                if looks {
                    assert_eq!(step.scope().len(), 2, "only its own");
                }
            });
            assert!(step.is_home() && step.is_touched());
            step.commit_later();
        }
        // The next one waits, and has something of its own.
        let waiting = step.begin(&source, 4, 1);
        waiting.register_compensation(action());
        if looks {
            let seen = std::thread::scope(|threads| {
                threads.spawn(|| waiting.scope().len()).join().unwrap()
            });
            assert_eq!(seen, 1);
        }
        step.flush();
        assert_eq!((Arc::strong_count(&held), waiting.scope().len()), (2, 1), "one is left");
        assert!(crate::diagnostics::Snapshot::now().since(&before).contained_panics >= 1);
        drop(waiting);
        step.commit_later();
        step.flush();
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(!step.is_touched());
        drop(step);
        drain.commit();
        assert!(context.scope().is_empty());
    }
}

#[test]
fn what_is_older_than_the_mark_and_absorbed_later_is_not_committed_by_it() {
    let context = StepContext::new("orders");
    let (mut step, drain, source) = lent(&context);
    let before = CompensationScope::new();
    before.register_compensation(|| async {});
    handle(&mut step, &source, 1, |step| step.register_compensation(|| async {}));
    step.commit_later();
    handle(&mut step, &source, 2, |step| step.scope().absorb(&before));
    step.hand_over();
    step.flush();
    assert_eq!(drain.scope().len(), 1);
    drain.commit();
    assert!(context.scope().is_empty());
}

#[test]
fn what_is_kept_is_the_drains_in_the_order_of_registration() {
    let (context, log) = (StepContext::new("orders"), Arc::default());
    for way in 0..4 {
        let (mut one, drain, source) = lent(&context);
        let mut two = LentStep::new(&context, &CancellationToken::never(), &drain);
        for number in 0..50 {
            let slot = if number % 2 == 0 { &mut one } else { &mut two };
            handle(slot, &source, 1, |step| {
                step.register_compensation(undo(&log, 2 * number));
                if way == 1 {
                    assert_eq!(step.scope().len(), 1);
                }
                drop(step.reserve(undo(&log, 2 * number + 1)));
            });
            match way {
                0 | 1 => slot.keep_later(),
                2 => slot.hand_over(),
                // Told by the next one that begins, or by the end.
                _ => {}
            }
            if number % 10 == 9 {
                slot.flush();
            }
        }
        if way == 0 || way == 3 {
            drop((one, two));
        } else {
            one.flush();
            two.flush();
            assert_eq!(drain.scope().len(), 100);
        }
        drain.keep();
        assert_eq!(roll_back(context.scope()), 100);
        let log = std::mem::take(&mut *log.lock().unwrap());
        assert!(log.into_iter().eq((0..100).rev()), "way {way}");
    }
}

#[test]
fn a_reservation_is_withdrawn_after_its_message_wherever_its_action_is() {
    let context = StepContext::new("orders");
    let (mut step, drain, source) = lent(&context);
    let mut kept = Vec::new();
    for number in 1..=20 {
        kept.push(handle(&mut step, &source, number, |step| step.reserve(|| async {})));
        step.keep_later();
        if number % 5 == 0 {
            step.flush();
        }
    }
    assert!(kept.drain(..8).all(Reservation::disarm));
    step.flush();
    assert_eq!(drain.scope().len(), 12);
    drop(step);
    drain.keep();
    assert!(kept.drain(..).all(Reservation::disarm));
    assert!(context.scope().is_empty());
    // Committed ones are gone.
    let (mut step, _drain, source) = lent(&context);
    let committed = handle(&mut step, &source, 1, |step| step.reserve(|| async {}));
    step.commit_later();
    assert!(!committed.disarm());
    assert!(step.scope().is_empty());
}

#[test]
fn what_comes_late_is_the_drains_and_then_the_contexts_and_is_counted() {
    for committed in [true, false] {
        let context = StepContext::new("orders");
        let (mut step, drain, source) = lent(&context);
        let kept = handle(&mut step, &source, 1, |step| {
            step.register_compensation(|| async {});
            step
        });
        step.let_go(committed);
        let cleared = usize::from(committed);
        assert_eq!((drain.scope().len(), drain.late()), (1 - cleared, 0));
        kept.register_compensation(|| async {});
        let reservation = kept.reserve(|| async {});
        kept.scope().register_compensation(|| async {});
        assert_eq!(drain.late(), 3);
        assert_eq!(drain.scope().len(), 4 - cleared);
        assert!(reservation.disarm());
        let late = Arc::clone(drain.late_counter());
        drain.keep();
        assert_eq!(context.scope().len(), 3 - cleared);
        kept.register_compensation(|| async {});
        assert_eq!(late.load(Ordering::SeqCst), 4);
        assert_eq!(context.scope().clear(), 4 - cleared);
    }
}

#[test]
fn what_cannot_be_undone_goes_to_the_context_whatever_becomes_of_the_drain() {
    let context = StepContext::new("orders");
    let (mut step, drain, source) = lent(&context);
    handle(&mut step, &source, 1, |step| step.register_compensation(|| async {}));
    step.keep_later();
    handle(&mut step, &source, 2, |step| step.register_compensation(|| async { Err("no") }));
    block_on(step.scope().roll_back(&CompensationPolicy::default())).unwrap_err();
    step.hand_over_to_context();
    assert_eq!((context.scope().len(), drain.scope().len()), (1, 1));
    drain.commit();
    assert_eq!(context.scope().clear(), 1);
}

#[test]
fn what_another_thread_registers_while_messages_end_is_never_lost() {
    let (context, kept) = (StepContext::new("orders"), AtomicUsize::new(0));
    let (mut step, drain, source) = lent(&context);
    std::thread::scope(|threads| {
        for number in 0..2_000 {
            let handed = handle(&mut step, &source, number, |step| {
                step.register_compensation(|| async {});
                step
            });
            let kept = &kept;
            threads.spawn(move || {
                handed.register_compensation(|| async {});
                kept.fetch_add(1, Ordering::SeqCst);
            });
            if step.is_home() {
                step.keep_later();
            } else {
                let next = LentStep::new(&context, &CancellationToken::never(), &drain);
                std::mem::replace(&mut step, next).let_go(false);
            }
        }
    });
    drop(step);
    assert_eq!(drain.scope().len(), 2_000 + kept.load(Ordering::SeqCst));
    drain.commit();
}
