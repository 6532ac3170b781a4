//! Actions that are not `Send`. Rule 4.15.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use watershed::timers::delay;
use watershed::{
    CancellationSource, Clock, CompensationPolicy, CompensationScope, ErrorCode, LocalAction,
    LocalUndos, ManualClock, RetryPolicy, StepContext, diagnostics, labelled, with_step,
};

use crate::support::{Gate, Hand, block_on, policies, yields};

type Log = Rc<RefCell<Vec<usize>>>;

fn undo(log: &Log, number: usize) -> impl LocalAction + use<> {
    let log = Rc::clone(log);
    move || {
        let log = Rc::clone(&log);
        async move {
            yields(number % 3).await;
            log.borrow_mut().push(number);
        }
    }
}

#[test]
fn local_actions_run_in_their_place_in_the_order() {
    let (context, undos, log) = (StepContext::new("x"), LocalUndos::new(), Log::default());
    let sent = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    for number in 0..300 {
        if number % 2 == 0 {
            undos.register(&context, undo(&log, number));
        } else {
            context.register_compensation_with(sent.clone(), move |sent| async move {
                sent.lock().unwrap().push(number);
            });
        }
    }
    let both = sent.clone();
    let seen = Rc::clone(&log);
    undos.register(context.scope(), move || {
        assert!(both.lock().unwrap().is_empty() && seen.borrow().is_empty(), "it is the first");
        async {}
    });
    let policy = CompensationPolicy::default();
    let report = block_on(context.roll_back(&policy).local(&undos)).unwrap();
    assert_eq!((report.succeeded(), undos.len()), (301, 0));
    assert!(log.borrow().iter().copied().eq((0..300).rev().filter(|n| n % 2 == 0)));
    assert!(sent.lock().unwrap().iter().copied().eq((0..300).rev().filter(|n| n % 2 == 1)));
}

#[test]
fn every_policy_and_option_holds_for_local_actions() {
    for policy in policies() {
        let (scope, undos) = (CompensationScope::new(), LocalUndos::new());
        let (clock, second) = (ManualClock::new(), Duration::from_secs(1));
        let shared: std::sync::Arc<dyn Clock> = std::sync::Arc::new(clock.clone());
        let attempts = Rc::new(RefCell::new(0));
        let counted = Rc::clone(&attempts);
        undos.register(&scope, move || {
            *counted.borrow_mut() += 1;
            let hangs = *counted.borrow() == 1;
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok::<_, &str>(())
            }
        });
        undos.register(&scope, labelled("panics", || -> std::future::Ready<()> { panic!("no") }));
        undos.register(&scope, labelled("fails", || async { Err("no") }));
        undos.register(
            &scope,
            with_step(async |step: StepContext| delay(&step, Duration::from_secs(1)).await),
        );
        let policy = policy.retry(RetryPolicy::fixed(2, second)).attempt_timeout(2 * second);
        let mut rollback = Hand::new(scope.roll_back(&policy).clock(&shared).local(&undos));
        let mut result = rollback.run();
        for _ in 0..20 {
            if result.is_ready() {
                break;
            }
            clock.advance(second);
            result = rollback.run();
        }
        let Poll::Ready(Err(failure)) = result else { panic!("it ends: {policy:?}") };
        let report = failure.report();
        let mut labels: Vec<_> = report.failures().iter().filter_map(|f| f.label()).collect();
        labels.sort_unstable();
        assert_eq!(labels, ["fails", "panics"]);
        assert!(report.failures().iter().all(|failed| failed.attempts() == 2));
        assert_eq!((report.succeeded(), *attempts.borrow()), (2, 2));
        assert_eq!((scope.len(), undos.len()), (2, 2));
        scope.clear();
        assert!(undos.is_empty());
    }
}

#[test]
fn a_rollback_that_was_not_given_the_value_reports_the_action_and_keeps_it() {
    for policy in policies() {
        let (scope, undos, log) = (CompensationScope::new(), LocalUndos::new(), Log::default());
        undos.register(&scope, labelled("local", undo(&log, 1)));
        scope.register_compensation(|| async {});
        let failure = block_on(scope.roll_back(&policy)).unwrap_err();
        assert_eq!(failure.report().succeeded(), 1);
        assert_eq!(failure.report().failures()[0].label(), Some("local"));
        let wrong = LocalUndos::new();
        let failure = block_on(scope.roll_back(&policy).local(&wrong)).unwrap_err();
        assert_eq!(failure.report().failures().len(), 1);
        assert_eq!((scope.len(), undos.len()), (1, 1));
        assert_eq!(block_on(scope.roll_back(&policy).local(&undos)).unwrap().succeeded(), 1);
        assert_eq!((&*log.borrow(), undos.len()), (&vec![1], 0));
    }
}

#[test]
fn a_local_action_is_forgotten_with_its_place_on_whatever_thread_that_goes() {
    let (scope, undos, held) = (CompensationScope::new(), LocalUndos::new(), Rc::new(()));
    for round in 0..1_000 {
        let held = Rc::clone(&held);
        undos.register(&scope, move || {
            let _held = &held;
            async {}
        });
        if round % 2 == 0 {
            assert_eq!(scope.clear(), 1);
        } else {
            let scope = scope.clone();
            std::thread::spawn(move || scope.clear()).join().unwrap();
        }
        assert!(undos.len() <= 1, "it does not grow");
    }
    let reservation = undos.reserve(&scope, || async {});
    assert_eq!((undos.len(), scope.len()), (1, 1));
    assert!(reservation.disarm());
    assert_eq!((undos.len(), Rc::strong_count(&held)), (0, 1));
}

#[test]
fn dropping_or_cancelling_a_local_rollback_keeps_what_has_not_succeeded() {
    for policy in policies() {
        for cancels in [true, false] {
            let (scope, undos, log) = (CompensationScope::new(), LocalUndos::new(), Log::default());
            let held = Rc::new(());
            undos.register(&scope, undo(&log, 1));
            let own = Rc::clone(&held);
            let hangs = Rc::new(RefCell::new(true));
            let first = Rc::clone(&hangs);
            undos.register(&scope, move || {
                let (own, hangs) = (Rc::clone(&own), first.replace(false));
                async move {
                    if hangs {
                        std::future::pending::<()>().await;
                    }
                    drop(own);
                }
            });
            let stop = CancellationSource::new();
            let rollback = scope.roll_back(&policy).cancellation(stop.token()).local(&undos);
            let mut rollback = Hand::new(rollback);
            assert!(rollback.run().is_pending());
            assert_eq!(Rc::strong_count(&held), 3);
            if cancels {
                stop.cancel();
                let Poll::Ready(Err(failure)) = rollback.run() else { panic!("it is cancelled") };
                assert_eq!(failure.error().code(), ErrorCode::Canceled);
            } else {
                drop(rollback);
            }
            assert_eq!(Rc::strong_count(&held), 2, "its attempt is dropped");
            let left = scope.len();
            assert_eq!(left, 2 - log.borrow().len());
            let report = block_on(scope.roll_back(&policy).local(&undos)).unwrap();
            assert_eq!((report.succeeded(), undos.len()), (left, 0));
            assert_eq!(*log.borrow(), [1]);
        }
    }
}

#[test]
fn another_rollback_waits_for_the_local_one_and_wakes_it() {
    let (scope, undos, log) = (CompensationScope::new(), LocalUndos::new(), Log::default());
    undos.register(&scope, undo(&log, 2));
    let policy = CompensationPolicy::default();
    let mut local = Hand::new(scope.roll_back(&policy).local(&undos));
    assert!(local.poll().is_pending());
    let mut other = Hand::new(scope.roll_back(&policy));
    assert!(other.run().is_pending(), "it cannot run the action");
    assert!(matches!(local.run(), Poll::Ready(Ok(report)) if report.succeeded() == 1));
    assert!(other.wakes() > 0);
    assert!(matches!(other.run(), Poll::Ready(Ok(_))));
    assert_eq!(*log.borrow(), [2]);
}

#[test]
fn a_local_action_may_use_the_value_it_lives_in() {
    let (scope, undos, log) = (CompensationScope::new(), LocalUndos::new(), Log::default());
    let (inner, own, list) = (undos.clone(), scope.clone(), Rc::clone(&log));
    undos.register(&scope, move || {
        assert!(inner.len() <= 1);
        inner.register(&own, undo(&list, 7));
        async {}
    });
    let report = block_on(scope.roll_back(&CompensationPolicy::default()).local(&undos)).unwrap();
    assert_eq!((report.succeeded(), undos.len()), (2, 0));
    assert_eq!(*log.borrow(), [7]);
}

#[test]
fn actions_that_go_away_with_their_value_are_counted_as_lost() {
    let before = diagnostics::Snapshot::now();
    let (scope, undos) = (CompensationScope::new(), LocalUndos::new());
    undos.register(&scope, || async {});
    drop(undos);
    assert!(diagnostics::Snapshot::now().since(&before).compensations_lost >= 1);
    let failure = block_on(scope.roll_back(&CompensationPolicy::default())).unwrap_err();
    assert_eq!((failure.report().failures().len(), scope.clear()), (1, 1));
}

#[test]
fn a_hundred_thousand_local_actions_take_linear_time() {
    let (scope, undos) = (CompensationScope::new(), LocalUndos::new());
    let count = Rc::new(RefCell::new(0));
    for _ in 0..100_000 {
        let count = Rc::clone(&count);
        undos.register(&scope, move || {
            *count.borrow_mut() += 1;
            async {}
        });
    }
    let report = block_on(scope.roll_back(&CompensationPolicy::default()).local(&undos)).unwrap();
    assert_eq!((report.succeeded(), *count.borrow()), (100_000, 100_000));
}

#[test]
fn local_actions_begin_in_their_place_in_the_order_whatever_runs_at_once() {
    type Seen = std::sync::Arc<std::sync::Mutex<Vec<String>>>;
    for policy in policies() {
        for waits in [false, true] {
            let (scope, undos, seen) =
                (CompensationScope::new(), LocalUndos::new(), Seen::default());
            for number in 0..400_usize {
                let (called, seen) = (Seen::clone(&seen), Seen::clone(&seen));
                let action = move || {
                    called.lock().unwrap().push(format!("{number} is called"));
                    let seen = Seen::clone(&seen);
                    async move {
                        seen.lock().unwrap().push(format!("{number} begins"));
                        yields(usize::from(waits)).await;
                    }
                };
                if number % 3 == 0 {
                    let own = Rc::new(());
                    undos.register(&scope, move || {
                        let _own = &own;
                        action()
                    });
                } else {
                    scope.register_compensation(action);
                }
            }
            let report = block_on(scope.roll_back(&policy).local(&undos)).unwrap();
            assert_eq!(report.succeeded(), 400);
            let expected =
                (0..400).rev().flat_map(|n| [format!("{n} is called"), format!("{n} begins")]);
            assert!(seen.lock().unwrap().iter().cloned().eq(expected), "{policy:?}");
        }
    }
}

#[test]
fn a_local_action_that_awaits_the_rollback_of_its_own_scope_gets_an_error() {
    for policy in policies() {
        for (given, pauses) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
            let (scope, undos) = (CompensationScope::new(), LocalUndos::new());
            let (own, value, terms) = (scope.clone(), undos.clone(), policy.clone());
            let seen = Rc::new(RefCell::new(Vec::new()));
            let list = Rc::clone(&seen);
            undos.register(&scope, move || {
                let (rollback, list) = (own.roll_back(&terms), Rc::clone(&list));
                let value = value.clone();
                async move {
                    yields(pauses).await;
                    let result = if given { rollback.local(&value).await } else { rollback.await };
                    list.borrow_mut().push(result.unwrap_err().error().code());
                }
            });
            let mut rollback = Hand::new(scope.roll_back(&policy).local(&undos));
            let ended =
                matches!(rollback.run(), Poll::Ready(Ok(report)) if report.succeeded() == 1);
            assert!(ended, "deadlock: {policy:?}");
            assert_eq!(*seen.borrow(), [ErrorCode::Validation]);
        }
    }
}

#[test]
fn an_attempt_of_a_local_action_is_that_of_the_rollback_that_started_it() {
    for policy in policies() {
        let (scope, undos) = (CompensationScope::new(), LocalUndos::new());
        let (names, gates) =
            (Rc::new(RefCell::new(Vec::new())), [Gate::default(), Gate::default()]);
        let (seen, waits) = (Rc::clone(&names), gates.clone());
        undos.register(
            &scope,
            with_step(move |step: StepContext| {
                let attempt = seen.borrow().len();
                seen.borrow_mut().push(step.name().to_owned());
                let gate = waits[attempt].clone();
                async move {
                    gate.wait().await;
                    if attempt == 0 { Err("no") } else { Ok(()) }
                }
            }),
        );
        let policy = policy.retry(RetryPolicy::fixed(2, Duration::ZERO));
        let rollback = |name| {
            let step = StepContext::new(name).with_scope(scope.clone());
            Hand::new(step.roll_back(&policy).local(&undos))
        };
        let mut first = rollback("first");
        assert!(first.run().is_pending());
        gates[0].open();
        assert!(first.poll().is_pending(), "it lets others have their turn between attempts");
        let mut second = rollback("second");
        assert!(second.run().is_pending());
        drop(second);
        assert!(first.run().is_pending());
        gates[1].open();
        let Poll::Ready(Ok(report)) = first.run() else { panic!("what another one drove is lost") };
        assert_eq!((report.succeeded(), undos.len()), (1, 0));
        assert_eq!(*names.borrow(), ["first", "first"]);
    }
}
