//! What is staged, in which order, and what nothing can lose. Rules 4.1, 4.2, 4.9, 4.11, 4.12.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use watershed::{
    Action, Compensated, CompensationPolicy, CompensationScope, Reservation, StepContext,
    diagnostics, labelled,
};

use crate::support::{Gate, Hand, block_on, roll_back, timed, within};

type Log = Arc<Mutex<Vec<usize>>>;

/// An action that writes its number down.
fn undo(log: &Log, number: usize) -> impl Action + use<> {
    let log = Arc::clone(log);
    move || {
        let log = Arc::clone(&log);
        async move { log.lock().unwrap().push(number) }
    }
}

/// An action that does nothing but hold its state.
fn holding<T: Send + Sync + 'static>(state: T) -> impl Action {
    move || {
        let _held = &state;
        async {}
    }
}

// Rule 4.2
#[test]
fn absorbed_scopes_roll_back_in_reverse_of_registration_over_any_nesting() {
    let (scopes, log) = ([(); 4].map(|()| CompensationScope::new()), Log::default());
    for number in 0..1_000 {
        let scope = &scopes[number * 7 % 4];
        match number % 3 {
            0 => scope.register_compensation(undo(&log, number)),
            1 => scope.register_compensation(labelled("one", undo(&log, number))),
            _ => drop(scope.reserve(undo(&log, number))),
        }
        if number % 100 == 99 {
            scopes[number % 3].absorb(&scopes[(number + 1) % 4]);
        }
    }
    for scope in &scopes[1..] {
        scopes[0].absorb(scope);
    }
    scopes[0].absorb(&scopes[0].clone());
    assert_eq!(roll_back(&scopes[0]), 1_000);
    assert!(log.lock().unwrap().iter().copied().eq((0..1_000).rev()));
}

// Rules 4.1, 4.2
#[test]
fn what_threads_register_is_there_for_all_and_is_undone_in_reverse() {
    let (scope, log) = (CompensationScope::new(), Log::default());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let (scope, log, done) = (&scope, &log, &done);
            threads.spawn(move || {
                for number in 0..5_000 {
                    // Under the lock, so that the list has the order of registration.
                    let mut done = done.lock().unwrap();
                    done.push(thread * 10_000 + number);
                    scope.register_compensation(undo(log, thread * 10_000 + number));
                    assert!(scope.len() >= done.len());
                }
            });
        }
    });
    assert_eq!(roll_back(&scope), 20_000);
    done.lock().unwrap().reverse();
    assert_eq!(*log.lock().unwrap(), *done.lock().unwrap());
}

// Rule 4.4
#[test]
fn the_place_is_the_users_for_every_way_of_registering() {
    let context = StepContext::new("test");
    let fail = || async { Err::<(), _>("no") };
    let from = line!();
    context.register_compensation(fail);
    context.register_compensation_with((), |()| async { Err::<(), _>("no") });
    context.try_register_compensation(true, fail);
    drop(context.reserve(fail));
    context.scope().register_compensation(fail);
    context.scope().register_compensation_with((), |()| async { Err::<(), _>("no") });
    context.scope().try_register_compensation(true, fail);
    drop(context.scope().reserve(labelled("the last", fail)));
    Compensated::new(()).with_compensation(fail).absorb_into(context.scope());
    let failure = block_on(context.roll_back(&CompensationPolicy::default())).unwrap_err();
    let failures = failure.report().failures();
    let lines: Vec<_> = failures.iter().map(|f| f.registered_at().line() - from).collect();
    assert_eq!(lines, [9, 8, 7, 6, 5, 4, 3, 2, 1]);
    assert!(failures.iter().all(|failure| failure.registered_at().file() == file!()));
    assert_eq!(failures[1].label(), Some("the last"));
    assert_eq!(context.scope().clear(), 9);
}

// Rule 4.1
#[test]
fn a_step_shows_how_much_is_staged() {
    let step = StepContext::new("orders");
    step.register_compensation(|| async {});
    step.register_compensation(|| async {});
    assert!(format!("{step:?}").contains("len: 2"), "{step:?}");
    step.scope().clear();
}

// Rule 4.1
#[test]
fn a_step_can_be_used_while_its_thread_goes_away() {
    struct Late(StepContext);
    impl Drop for Late {
        fn drop(&mut self) {
            self.0.register_compensation(|| async {});
            let clone = self.0.clone();
            assert_eq!(clone.scope().len(), 1);
            assert_eq!(roll_back(clone.scope()), 1);
            self.0.register_compensation(|| async {});
        }
    }
    thread_local! {
        static LATE: std::cell::RefCell<Option<Late>> = const { std::cell::RefCell::new(None) };
    }
    let step = StepContext::new("orders");
    let own = step.clone();
    std::thread::spawn(move || LATE.with_borrow_mut(|late| *late = Some(Late(own))))
        .join()
        .unwrap();
    assert_eq!(step.scope().clear(), 1);
}

// Rule 4.9
#[test]
fn a_reservation_stays_staged_when_it_is_dropped_and_is_gone_when_it_is_disarmed() {
    let (scope, log) = (CompensationScope::new(), Log::default());
    drop(scope.reserve(undo(&log, 1)));
    let (second, third) = (scope.reserve(undo(&log, 2)), scope.reserve(undo(&log, 3)));
    assert!(second.disarm());
    assert_eq!(scope.len(), 2);
    assert_eq!(roll_back(&scope), 2);
    assert_eq!(*log.lock().unwrap(), [3, 1]);
    assert!(!third.disarm(), "it has run");
}

// Rule 4.9
#[test]
fn a_reservation_is_withdrawn_wherever_its_action_has_moved() {
    let (scopes, log) = ([(); 5].map(|()| CompensationScope::new()), Log::default());
    let held = Arc::new(());
    let mut reservations: Vec<Reservation> = Vec::new();
    for number in 0..100 {
        let scope = &scopes[number % 5];
        let (own, undo) = (Arc::clone(&held), undo(&log, number));
        reservations.push(scope.reserve(labelled("kept", undo)));
        reservations.push(scope.reserve(holding(own)));
    }
    for index in [3, 1, 4, 2] {
        scopes[index - 1].absorb(&scopes[index]);
    }
    scopes[0].absorb(&scopes[1]);
    scopes[0].absorb(&scopes[2]);
    scopes[0].absorb(&scopes[3]);
    assert_eq!(scopes[0].len(), 200);
    for (index, reservation) in reservations.into_iter().enumerate() {
        if index % 2 == 1 {
            assert!(reservation.disarm());
        }
    }
    assert_eq!((scopes[0].len(), Arc::strong_count(&held)), (100, 1));
    assert_eq!(roll_back(&scopes[0]), 100);
    assert!(log.lock().unwrap().iter().copied().eq((0..100).rev()));
}

// Rules 4.9, 4.13
#[test]
fn a_reservation_whose_action_has_moved_a_hundred_thousand_times_needs_no_stack() {
    let thread = std::thread::Builder::new().stack_size(128 * 1024).spawn(|| {
        for disarms in [true, false] {
            let mut scope = CompensationScope::new();
            let reservation = scope.reserve(|| async {});
            for _ in 0..100_000 {
                let next = CompensationScope::new();
                drop(next.reserve(|| async {}).disarm());
                next.absorb(&scope);
                scope = next;
            }
            assert!(!disarms || reservation.disarm());
            assert_eq!(scope.clear(), usize::from(!disarms));
        }
    });
    thread.unwrap().join().unwrap();
}

// Rule 4.9
#[test]
fn a_reservation_does_not_keep_its_scope_and_knows_when_that_is_gone() {
    let scope = CompensationScope::new();
    let reservation = scope.reserve(|| async {});
    scope.clear();
    drop(scope);
    assert!(!reservation.disarm());
}

// Rule 4.9
#[test]
fn a_reservation_that_is_disarmed_while_a_rollback_has_it_in_hand_does_nothing() {
    let (scope, log) = (CompensationScope::new(), Log::default());
    let reservation = Arc::new(Mutex::new(Some(scope.reserve(undo(&log, 1)))));
    for number in 2..60 {
        let reservation = Arc::clone(&reservation);
        let last = undo(&log, number);
        let mut last = Some(last);
        scope.register_compensation(move || {
            if number == 30 {
                let taken = reservation.lock().unwrap().take();
                taken.map(Reservation::disarm);
            }
            drop(last.take());
            async {}
        });
    }
    roll_back(&scope);
    assert!(log.lock().unwrap().is_empty());
    assert!(scope.is_empty());
}

// Rules 4.9, 4.13
#[test]
fn withdrawing_is_linear_in_every_order_and_where_the_actions_have_moved() {
    let orders: [fn(&mut Vec<Reservation>); 3] = [
        |_| (),
        |reservations| reservations.reverse(),
        |reservations| {
            // From the middle outwards.
            let half = reservations.split_off(reservations.len() / 2);
            let pairs = half.into_iter().zip(reservations.drain(..).rev());
            *reservations = pairs.flat_map(|(right, left)| [left, right]).collect();
        },
    ];
    for (index, order) in orders.into_iter().enumerate() {
        for moved in [false, true] {
            let took = |n: usize| {
                let (scope, other) = (CompensationScope::new(), CompensationScope::new());
                let mut all: Vec<_> = (0..n).map(|_| scope.reserve(|| async {})).collect();
                if moved {
                    other.absorb(&scope);
                }
                order(&mut all);
                let took = timed(|| all.into_iter().all(Reservation::disarm));
                assert!(took.0 && scope.is_empty() && other.is_empty());
                took.1
            };
            // A busy machine spoils a try now and then, and not every one.
            let is_linear = |(one, eight): &(Duration, Duration)| {
                *eight < 24 * *one + Duration::from_millis(20)
            };
            let tries: Vec<_> = (0..5).map(|_| (took(4_000), took(32_000))).collect();
            assert!(tries.iter().any(is_linear), "order {index}, moved {moved}: {tries:?}");
        }
    }
}

// Rules 2.8, 4.9
#[test]
fn a_long_life_of_reserving_and_withdrawing_leaves_nothing_behind() {
    let scope = CompensationScope::new();
    scope.register_compensation(|| async {});
    let first = scope.reserve(|| async {});
    let (_, took) = timed(|| {
        for round in 0..200_000 {
            let two = [scope.reserve(holding([round; 16])), scope.reserve(holding([round; 16]))];
            for reservation in two {
                assert!(reservation.disarm());
            }
        }
    });
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(scope.len(), 2);
    assert!(first.disarm());
    assert_eq!(roll_back(&scope), 1);
}

// Rule 4.11
#[test]
fn actions_lost_with_their_scope_are_counted_and_not_run() {
    let before = diagnostics::Snapshot::now();
    let (scope, log) = (CompensationScope::new(), Log::default());
    scope.register_compensation(undo(&log, 1));
    drop(scope.reserve(undo(&log, 2)));
    drop(scope);
    assert!(diagnostics::Snapshot::now().since(&before).compensations_lost >= 2);
    assert!(log.lock().unwrap().is_empty());
    assert_eq!(Arc::strong_count(&log), 1, "nothing leaked");
}

// Rule 4.11
#[test]
fn a_scope_that_is_lost_needs_no_standard_error_also_while_unwinding() {
    const NAME: &str = "a_scope_that_is_lost_needs_no_standard_error_also_while_unwinding";
    if std::env::var("CASE").is_ok() {
        std::panic::set_hook(Box::new(|_| ()));
        let unwinding = std::panic::catch_unwind(|| {
            let scope = CompensationScope::new();
            scope.register_compensation(|| async {});
            if scope.len() == 1 {
                std::panic::resume_unwind(Box::new("lost on the way"));
            }
        });
        let scope = CompensationScope::new();
        scope.register_compensation(|| async {});
        drop(scope);
        std::process::exit(if unwinding.is_err() { 7 } else { 8 })
    }
    let mut me = Command::new(std::env::current_exe().unwrap());
    me.args(["--exact", &format!("undo_scope::{NAME}"), "--nocapture"]).env("CASE", "1");
    let mut me = me.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(me.stderr.take());
    assert_eq!(me.wait().unwrap().code(), Some(7));
}

/// Counts its destruction, and panics in it.
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        assert!(std::thread::panicking(), "a destructor went wrong");
    }
}

// Rule 4.12
#[test]
fn panicking_destructors_are_all_run_once_and_leak_no_neighbour() {
    let ends: [fn(CompensationScope); 5] = [
        |scope| assert_eq!(scope.clear(), 15),
        |scope| assert_eq!(roll_back(&scope), 15),
        drop,
        |scope| {
            let other = CompensationScope::new();
            other.absorb(&scope);
            assert_eq!(other.clear(), 15);
        },
        |scope| {
            let parallel = scope.roll_back(&CompensationPolicy::parallel());
            assert_eq!(block_on(parallel).unwrap().succeeded(), 15);
        },
    ];
    for end in ends {
        let (scope, drops) = (CompensationScope::new(), Arc::new(AtomicUsize::new(0)));
        let neighbour = Arc::new(());
        let usable = scope.clone();
        for _ in 0..5 {
            scope.register_compensation(holding(Arc::clone(&neighbour)));
            scope.register_compensation(holding(Bomb(Arc::clone(&drops))));
            scope.register_compensation(holding(Arc::clone(&neighbour)));
        }
        drop(usable);
        end(scope);
        assert_eq!((drops.load(Ordering::SeqCst), Arc::strong_count(&neighbour)), (5, 1));
    }
    let (scope, drops) = (CompensationScope::new(), Arc::new(AtomicUsize::new(0)));
    let reservations: Vec<_> =
        (0..5).map(|_| scope.reserve(holding(Bomb(Arc::clone(&drops))))).collect();
    assert!(reservations.into_iter().all(Reservation::disarm));
    assert_eq!((drops.load(Ordering::SeqCst), scope.len()), (5, 0));
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

// Rule 4.12
#[test]
fn a_destructor_may_use_the_scope_that_it_is_dropped_from() {
    let ended = within(Duration::from_secs(10), || {
        for way in 0..4 {
            let (scope, drops) = (CompensationScope::new(), Arc::new(AtomicUsize::new(0)));
            let curious = || holding(Curious(scope.clone(), Arc::clone(&drops)));
            scope.register_compensation(curious());
            let reservation = scope.reserve(curious());
            match way {
                0 => assert_eq!(scope.clear(), 2),
                1 => assert!(roll_back(&scope) >= 2),
                2 => assert!(reservation.disarm()),
                _ => {
                    let rollback = scope.roll_back(&CompensationPolicy::parallel());
                    block_on(rollback).unwrap();
                }
            }
            while scope.clear() > 0 {}
            assert_eq!(drops.load(Ordering::SeqCst), 2);
        }
    });
    assert!(ended.is_some(), "deadlock");
}

/// An error whose destructor asks a scope.
#[derive(Debug)]
struct AsksTheScope(#[allow(dead_code, reason = "for its destructor")] Asks);

struct Asks(CompensationScope);

impl std::fmt::Debug for Asks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("asks")
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        let _ = self.0.has_actions();
    }
}

impl std::fmt::Display for AsksTheScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for AsksTheScope {}

// Rule 4.12
#[test]
fn no_error_of_the_user_is_dropped_under_the_lock_of_a_scope() {
    let ended = within(Duration::from_secs(10), || {
        for clears in [true, false] {
            for policy in [CompensationPolicy::default(), CompensationPolicy::parallel()] {
                let (scope, gate) = (CompensationScope::new(), Gate::default());
                let wait = gate.clone();
                scope.register_compensation(move || {
                    let wait = wait.clone();
                    async move { wait.wait().await }
                });
                let inside = scope.clone();
                scope.register_compensation(move || {
                    let inside = inside.clone();
                    async move { Err(AsksTheScope(Asks(inside))) }
                });
                let mut rollback = Hand::new(scope.roll_back(&policy));
                let mut other = Hand::new(scope.roll_back(&policy));
                assert!(rollback.run().is_pending());
                assert!(other.run().is_pending());
                if clears {
                    scope.clear();
                }
                gate.open();
                drop(rollback.run());
                drop((rollback, other));
                scope.clear();
            }
        }
    });
    assert!(ended.is_some(), "deadlock");
}

/// An action whose label does something.
struct Labelling<F>(F);

impl<F: Fn() + Send + 'static> Action for Labelling<F> {
    fn attempt(
        &mut self,
        _: &watershed::Undoing,
    ) -> impl Future<Output = Result<(), watershed::Error>> + Send + 'static {
        async { Err(watershed::Error::validation("no")) }
    }

    fn label(&self) -> Option<&str> {
        (self.0)();
        Some("labelled")
    }
}

// Rule 4.12
#[test]
fn a_label_may_use_its_scope_and_may_panic() {
    let ended = within(Duration::from_secs(10), || {
        let scope = CompensationScope::new();
        let own = scope.clone();
        scope.register_compensation(Labelling(move || assert!(own.has_actions())));
        scope.register_compensation(Labelling(|| panic!("the label")));
        let failure = block_on(scope.roll_back(&CompensationPolicy::default())).unwrap_err();
        let labels: Vec<_> = failure.report().failures().iter().map(|f| f.label()).collect();
        assert_eq!(labels, [None, Some("labelled")]);
        assert_eq!(scope.clear(), 2);
    });
    assert!(ended.is_some(), "deadlock");
}

// Rule 4.13
#[test]
fn absorbing_is_linear_whichever_of_the_two_is_the_large_one() {
    for gathered_is_absorbed in [true, false] {
        let took = |n: usize| {
            let (scope, took) = timed(|| {
                let mut gathered = CompensationScope::new();
                for _ in 0..n {
                    let next = CompensationScope::new();
                    next.register_compensation(|| async {});
                    if gathered_is_absorbed {
                        next.absorb(&gathered);
                        gathered = next;
                    } else {
                        gathered.absorb(&next);
                    }
                }
                gathered
            });
            assert_eq!(roll_back(&scope), n);
            took
        };
        // A busy machine spoils a try now and then, and not every one.
        let is_linear =
            |(one, eight): &(Duration, Duration)| *eight < 24 * *one + Duration::from_millis(20);
        let tries: Vec<_> = (0..5).map(|_| (took(4_000), took(32_000))).collect();
        assert!(tries.iter().any(is_linear), "{gathered_is_absorbed}: {tries:?}");
    }
}
