//! The attempts of actions that are not `Send`: one at a time, and gone once it has succeeded. Rules
//! 4.4, 4.9, 4.10, 4.15.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::time::Duration;

use watershed::{
    CancellationSource, Clock, CompensationPolicy, CompensationScope, LocalAction, LocalUndos,
    ManualClock, Reservation, RetryPolicy,
};

use crate::support::{Gate, Hand, block_on, yields};

const SECOND: Duration = Duration::from_secs(1);

fn policies() -> [CompensationPolicy; 3] {
    [
        CompensationPolicy::sequential_reverse(),
        CompensationPolicy::parallel(),
        CompensationPolicy::parallel_limited(3),
    ]
}

/// Attempts at an action: how many there have been, how many there are, and were at once.
#[derive(Clone, Default)]
struct Attempts(Rc<Counts>);

#[derive(Default)]
struct Counts {
    begun: Cell<usize>,
    alive: Cell<usize>,
    most: Cell<usize>,
}

struct Alive(Attempts);

impl Attempts {
    fn begin(&self) -> Alive {
        let Counts { begun, alive, most } = &*self.0;
        begun.set(begun.get() + 1);
        alive.set(alive.get() + 1);
        most.set(most.get().max(alive.get()));
        Alive(self.clone())
    }

    fn begun(&self) -> usize {
        self.0.begun.get()
    }

    fn alive(&self) -> usize {
        self.0.alive.get()
    }

    fn most_at_once(&self) -> usize {
        self.0.most.get()
    }

    /// An action whose attempts wait for ever.
    fn hanging(&self) -> impl LocalAction + use<> {
        let attempts = self.clone();
        move || {
            let alive = attempts.begin();
            async move {
                let _alive = alive;
                pending::<()>().await;
            }
        }
    }

    /// An action that pauses before it succeeds.
    fn pausing(&self, pauses: usize) -> impl LocalAction + use<> {
        let attempts = self.clone();
        move || {
            let alive = attempts.begin();
            async move {
                let _alive = alive;
                yields(pauses).await;
            }
        }
    }

    /// An action whose first attempt fails.
    fn failing_once(&self) -> impl LocalAction + use<> {
        let attempts = self.clone();
        move || {
            let _alive = attempts.begin();
            let fails = attempts.begun() == 1;
            async move { if fails { Err("once") } else { Ok(()) } }
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let alive = &self.0.0.alive;
        alive.set(alive.get() - 1);
    }
}

#[test]
fn an_attempt_whose_rollback_was_told_to_stop_is_dropped_before_another_one_starts_it_anew() {
    for first in policies() {
        for second in policies() {
            let (scope, undos) = (CompensationScope::new(), LocalUndos::new());
            let (attempts, stop) = (Attempts::default(), CancellationSource::new());
            undos.register(&scope, attempts.hanging());
            let rollback = scope.roll_back(&first).cancellation(stop.token());
            let mut held = Hand::new(rollback.local(&undos));
            assert!(held.run().is_pending());
            stop.cancel();
            let mut other = Hand::new(scope.roll_back(&second).local(&undos));
            assert!(other.run().is_pending());
            assert_eq!((attempts.begun(), attempts.most_at_once()), (2, 1), "{first:?} {second:?}");
            assert!(held.run().is_ready());
            assert_eq!((attempts.begun(), attempts.alive()), (2, 1), "the other one's goes on");
            drop(other);
            assert_eq!((attempts.alive(), scope.clear(), undos.len()), (0, 1, 0));
        }
    }
}

#[test]
fn an_attempt_that_took_too_long_while_others_drove_is_dropped_before_the_next_one() {
    for policy in policies() {
        for crowd in [0, 5] {
            let (scope, undos, clock) =
                (CompensationScope::new(), LocalUndos::new(), ManualClock::new());
            let shared: Arc<dyn Clock> = Arc::new(clock.clone());
            let (attempts, gate) = (Attempts::default(), Gate::default());
            undos.register(&scope, attempts.hanging());
            for _ in 0..crowd {
                let gate = gate.clone();
                undos.register(&scope, move || {
                    let gate = gate.clone();
                    async move { gate.wait().await }
                });
            }
            let tries = RetryPolicy::fixed(3, Duration::ZERO);
            let terms = policy.clone().retry(tries).attempt_timeout(SECOND);
            let mut held = Hand::new(scope.roll_back(&terms).clock(&shared).local(&undos));
            assert!(held.run().is_pending());
            let mut other = Hand::new(scope.roll_back(&policy));
            for _ in 0..2 {
                // The others end in the poll in which the attempt is begun anew.
                gate.open();
                clock.advance(SECOND);
                assert!(other.run().is_pending());
                let _ = held.run();
            }
            assert_eq!(attempts.most_at_once(), 1, "{policy:?}");
            drop((held, other));
            assert_eq!(attempts.alive(), 0);
            scope.clear();
        }
    }
}

#[test]
fn an_attempt_goes_with_an_action_that_was_cleared() {
    let (scope, undos) = (CompensationScope::new(), LocalUndos::new());
    let (attempts, stop) = (Attempts::default(), CancellationSource::new());
    undos.register(&scope, attempts.hanging());
    let policy = CompensationPolicy::default();
    let mut held = Hand::new(scope.roll_back(&policy).cancellation(stop.token()).local(&undos));
    assert!(held.run().is_pending());
    stop.cancel();
    block_on(scope.roll_back(&policy)).unwrap_err(); // it was not given the action
    assert_eq!((scope.clear(), undos.len(), attempts.alive()), (1, 0, 0));
}

/// A local rollback that waits, after a local action has succeeded.
struct Scene<R> {
    scope: CompensationScope,
    undos: LocalUndos,
    reservation: Reservation,
    rollback: Hand<R>,
}

/// Beside `crowd` actions that wake themselves all the time.
fn one_of_a_crowd(
    policy: &CompensationPolicy,
    crowd: usize,
    pauses: usize,
) -> Scene<impl Future<Output: Sized> + use<>> {
    let (scope, undos, attempts) =
        (CompensationScope::new(), LocalUndos::new(), Attempts::default());
    for _ in 0..crowd {
        scope.register_compensation(|| {
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            })
        });
    }
    let reservation = undos.reserve(&scope, attempts.pausing(pauses));
    let mut rollback = Hand::new(scope.roll_back(policy).local(&undos));
    for _ in 0..=pauses {
        assert!(rollback.poll().is_pending());
    }
    assert_eq!((attempts.begun(), attempts.alive()), (1, 0), "it has succeeded");
    Scene { scope, undos, reservation, rollback }
}

#[test]
fn a_local_action_that_succeeded_is_gone_whatever_runs_beside_it() {
    for policy in policies() {
        for (crowd, pauses) in [(1, 0), (2, 0), (2, 1), (2, 2), (50, 0), (50, 1)] {
            let told = format!("{policy:?} {crowd} {pauses}");
            let scene = one_of_a_crowd(&policy, crowd, pauses);
            assert_eq!((scene.scope.len(), scene.undos.len()), (crowd, 0), "{told}");
            assert!(!scene.reservation.disarm(), "it had been run: {told}");
            drop(scene.rollback);
            assert_eq!((scene.scope.len(), scene.undos.len()), (crowd, 0), "{told}");
            assert_eq!(scene.scope.clear(), crowd, "{told}");
        }
    }
}

#[test]
fn a_local_action_that_succeeded_is_neither_run_again_nor_named_after_its_rollback_was_dropped() {
    for policy in policies() {
        for pauses in [0, 1] {
            let (scope, undos) = (CompensationScope::new(), LocalUndos::new());
            let (attempts, gate) = (Attempts::default(), Gate::default());
            for _ in 0..2 {
                let gate = gate.clone();
                scope.register_compensation(move || {
                    let gate = gate.clone();
                    async move {
                        yields(2).await;
                        gate.wait().await;
                    }
                });
            }
            undos.register(&scope, attempts.pausing(pauses));
            let mut rollback = Hand::new(scope.roll_back(&policy).local(&undos));
            for _ in 0..=pauses {
                assert!(rollback.poll().is_pending());
            }
            drop(rollback);
            gate.open();
            let report = block_on(scope.roll_back(&policy)).unwrap();
            assert_eq!((report.succeeded(), attempts.begun()), (2, 1), "{policy:?}");
        }
    }
}

#[test]
fn a_success_that_another_rollback_has_not_heard_of_is_not_lost_when_its_own_is_dropped() {
    // The other one has the run in its hands, on its thread, until the local one has gone away.
    let (scope, undos, attempts) =
        (CompensationScope::new(), LocalUndos::new(), Attempts::default());
    let (reached, go_on) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    let (reached, go_on) = (Arc::new(reached), Arc::new(go_on));
    let gate = Gate::default();
    let waits = gate.clone();
    undos.register(&scope, move || {
        let (alive, gate) = (attempts.begin(), waits.clone());
        async move {
            gate.wait().await;
            drop(alive);
        }
    });
    let mut local = Hand::new(scope.roll_back(&CompensationPolicy::parallel()).local(&undos));
    assert!(local.run().is_pending());
    let (at, on) = (Arc::clone(&reached), Arc::clone(&go_on));
    scope.register_compensation(move || {
        let (at, on) = (Arc::clone(&at), Arc::clone(&on));
        async move {
            at.wait();
            on.wait();
        }
    });
    let other = scope.roll_back(&CompensationPolicy::parallel());
    let driving = std::thread::spawn(move || block_on(other));
    reached.wait();
    gate.open();
    assert!(local.poll().is_pending(), "its action succeeds, and the run is in other hands");
    drop(local);
    go_on.wait();
    let report = driving.join().unwrap().unwrap();
    assert_eq!((report.succeeded(), scope.len(), undos.len()), (2, 0, 0));
}

/// An action that is told to go on by another thread, in the middle of its second poll, and succeeds.
fn met_by_another_thread(attempts: &Attempts, meeting: &Arc<Barrier>) -> impl LocalAction + use<> {
    let (attempts, meeting) = (attempts.clone(), Arc::clone(meeting));
    move || {
        let (alive, meeting) = (attempts.begin(), Arc::clone(&meeting));
        async move {
            let _alive = alive;
            yields(1).await;
            meeting.wait();
            meeting.wait();
        }
    }
}

// Rules 4.4, 4.15
#[test]
fn a_local_action_that_succeeds_while_another_thread_stops_it_is_gone() {
    for (policy, reserved) in policies().into_iter().flat_map(|p| [(p.clone(), true), (p, false)]) {
        let (scope, undos) = (CompensationScope::new(), LocalUndos::new());
        let (attempts, meeting) = (Attempts::default(), Arc::new(Barrier::new(2)));
        let action = met_by_another_thread(&attempts, &meeting);
        if reserved {
            drop(undos.reserve(&scope, action));
        } else {
            undos.register(&scope, action);
        }
        let stop = CancellationSource::new();
        let rollback = scope.roll_back(&policy).cancellation(stop.token());
        let mut local = Hand::new(rollback.local(&undos));
        let other = scope.roll_back(&policy);
        let stopping = std::thread::spawn(move || {
            meeting.wait();
            stop.cancel();
            let ended = block_on(other);
            meeting.wait();
            ended
        });
        assert_eq!(local.finish().unwrap().succeeded(), 1, "{policy:?}, {reserved}");
        stopping.join().unwrap().unwrap_err(); // it was not given the action, and tried all the same
        assert_eq!((attempts.begun(), attempts.alive()), (1, 0));
        assert_eq!((scope.len(), undos.len()), (0, 0), "{policy:?}, {reserved}");
        assert_eq!(scope.clear(), 0);
    }
}

// Rules 4.4, 4.15
#[test]
fn a_local_action_that_succeeds_while_another_thread_gives_it_up_has_not_failed() {
    for policy in policies() {
        let (scope, undos, clock) =
            (CompensationScope::new(), LocalUndos::new(), ManualClock::new());
        let (attempts, meeting) = (Attempts::default(), Arc::new(Barrier::new(2)));
        undos.register(&scope, met_by_another_thread(&attempts, &meeting));
        let (gate, shared) = (Gate::default(), Arc::new(clock.clone()) as Arc<dyn Clock>);
        let waits = gate.clone();
        scope.register_compensation(move || {
            let gate = waits.clone();
            async move { gate.wait().await }
        });
        let terms = CompensationPolicy::parallel().attempt_timeout(SECOND);
        let mut local = Hand::new(scope.roll_back(&terms).clock(&shared).local(&undos));
        let other = scope.roll_back(&policy);
        let stopping = std::thread::spawn(move || {
            meeting.wait();
            gate.open();
            clock.advance(SECOND);
            let ended = block_on(other);
            meeting.wait();
            ended
        });
        let report = local.finish().unwrap();
        stopping.join().unwrap().unwrap_err(); // the attempt took too long, as far as it knows
        assert_eq!((report.succeeded(), attempts.begun()), (2, 1));
        assert_eq!((scope.len(), undos.len()), (0, 0), "{policy:?}");
    }
}

#[test]
fn a_local_action_that_was_disarmed_is_attempted_no_more() {
    for policy in policies() {
        for other_is_local in [false, true] {
            let (scope, undos, attempts) =
                (CompensationScope::new(), LocalUndos::new(), Attempts::default());
            let reservation = undos.reserve(&scope, attempts.failing_once());
            let clock = ManualClock::new();
            let shared: Arc<dyn Clock> = Arc::new(clock.clone());
            let terms = policy.clone().retry(RetryPolicy::fixed(3, SECOND));
            let mut first = Hand::new(scope.roll_back(&terms).clock(&shared).local(&undos));
            assert!(first.run().is_pending());
            assert_eq!(attempts.begun(), 1, "between two attempts");
            clock.advance(SECOND);
            // Another one drives: it asks for the next attempt.
            let other = scope.roll_back(&policy);
            if other_is_local {
                assert!(Hand::new(other.local(&undos)).poll().is_pending());
            } else {
                assert!(Hand::new(other).poll().is_pending());
            }
            assert!(!reservation.disarm(), "a rollback has it in hand");
            assert!(first.run().is_ready());
            assert_eq!((attempts.begun(), scope.len(), undos.len()), (1, 0, 0), "{policy:?}");
        }
    }
}

#[test]
fn an_attempt_that_nobody_waits_for_any_more_does_not_begin() {
    let (scope, undos, attempts) =
        (CompensationScope::new(), LocalUndos::new(), Attempts::default());
    undos.register(&scope, attempts.failing_once());
    let (stop, clock) = (CancellationSource::new(), ManualClock::new());
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let policy = CompensationPolicy::parallel();
    let terms = policy.clone().retry(RetryPolicy::fixed(3, SECOND)).attempt_timeout(SECOND);
    let rollback = scope.roll_back(&terms).clock(&shared).cancellation(stop.token());
    let mut first = Hand::new(rollback.local(&undos));
    assert!(first.run().is_pending());
    clock.advance(SECOND);
    let mut other = Hand::new(scope.roll_back(&policy));
    assert!(other.run().is_pending(), "it has asked for the next attempt");
    clock.advance(SECOND);
    assert!(other.run().is_pending(), "which took too long");
    assert!(first.run().is_pending());
    assert_eq!(attempts.begun(), 1, "that one is not begun, and the next is not due");
    clock.advance(SECOND);
    assert!(first.run().is_ready());
    assert_eq!((attempts.begun(), undos.len()), (2, 0));
}
