//! Rules 4.1 and 4.5: a future dropped after its k-th poll, for every k, loses nothing.

mod support;

use std::sync::{Arc, Mutex};

use support::{Ledger, filled, left_in, poll_times, rests, roll_back};
use watershed::{
    BoxError, CancellationSource, Commit, CompensationPolicy, CompensationScope, ErrorCode,
    OnFailure, StepContext, fan_in,
};

/// Runs a scenario for every concurrency and commit mode, dropped after its k-th poll for every k,
/// until it says that it has ended.
fn at_every_poll(least: usize, mut scenario: impl FnMut(usize, Commit, usize) -> bool) {
    let mut drops = 0;
    for concurrency in [1, 2, 3] {
        for commit in [Commit::Pipeline, Commit::Message, Commit::Never] {
            let ends = (0..10_000).position(|k| scenario(concurrency, commit, k));
            drops += ends.expect("it ends some time") + 1;
        }
    }
    assert!(drops > least, "{drops} drops");
}

// Rules 2.1, 4.1, 4.3
#[test]
fn a_drain_dropped_after_any_poll_leaves_every_effect_done_or_undone_once() {
    at_every_poll(50, |permits, commit, k| {
        let context = StepContext::new("t");
        let ledger = Ledger::default();
        let started = Mutex::new(Vec::new());
        let committed = Mutex::new(Vec::new());
        let sources = [filled([10, 20, 30]), filled([40, 50]), filled([60, 70, 80])];
        let drain = fan_in(&context, sources.clone(), |message: u32, step| {
            started.lock().expect("no panic").push(message);
            let (ledger, committed) = (ledger.clone(), &committed);
            async move {
                ledger.apply(&step, message);
                rests(message as usize / 10 % 3).await;
                ledger.apply(&step, message + 1);
                rests(1).await;
                ledger.apply(&step, message + 2);
                committed.lock().expect("no panic").push(message);
                Ok::<_, BoxError>(())
            }
        });
        let mut drain = drain.concurrency(permits).commit(commit).into_future();
        let ended = poll_times(&mut drain, k).is_some();
        drop(drain);

        let mut all = started.into_inner().expect("no panic");
        all.extend(sources.iter().flat_map(left_in));
        all.sort_unstable();
        assert_eq!(all, [10, 20, 30, 40, 50, 60, 70, 80], "poll {k}");

        let committed = committed.into_inner().expect("no panic");
        let mut expected = ledger.done();
        match commit {
            Commit::Pipeline if ended => expected.clear(),
            Commit::Message => {
                expected.retain(|effect| !committed.contains(&(effect / 10 * 10)));
            }
            _ => {}
        }
        expected.reverse();
        assert_eq!(roll_back(context.scope()), expected.len());
        assert_eq!(ledger.undone(), expected, "{commit:?}, {permits}, poll {k}");
        ended
    });
}

// Rule 4.5
#[test]
fn a_rollback_dropped_after_any_poll_is_resumed_where_it_was() {
    for k in 0.. {
        let (scope, log) = five_slow_actions();
        let policy = CompensationPolicy::sequential_reverse();
        let mut rollback = scope.roll_back(&policy);
        let ended = poll_times(&mut rollback, k).is_some();
        drop(rollback);
        let undone = log.lock().expect("no panic").len();
        assert_eq!(scope.len(), 5 - undone, "poll {k}");
        assert_eq!(roll_back(&scope), 5 - undone);
        assert_eq!(*log.lock().expect("no panic"), [4, 3, 2, 1, 0], "poll {k}");
        if ended {
            assert!(k > 4);
            break;
        }
    }
}

// Rules 2.1, 3.2, 4.1
#[test]
fn a_drain_that_fails_may_be_dropped_after_any_poll() {
    at_every_poll(30, |permits, commit, k| {
        let context = StepContext::new("t");
        let ledger = Ledger::default();
        let started = Mutex::new(Vec::new());
        let committed = Mutex::new(Vec::new());
        let sources = [filled([10, 20, 30]), filled([40, 50]), filled([60, 70, 80])];
        let drain = fan_in(&context, sources.clone(), |message: u32, step| {
            started.lock().expect("no panic").push(message);
            let (ledger, committed) = (ledger.clone(), &committed);
            async move {
                ledger.apply(&step, message);
                rests(message as usize / 10 % 4).await;
                assert_ne!(message, 70, "seventy panics");
                if message == 50 {
                    return Err("no");
                }
                ledger.apply(&step, message + 1);
                committed.lock().expect("no panic").push(message);
                Ok(())
            }
        });
        let mut drain = drain.concurrency(permits).commit(commit).into_future();
        let ended = poll_times(&mut drain, k);
        drop(drain);

        let mut all = started.into_inner().expect("no panic");
        all.extend(sources.iter().flat_map(left_in));
        all.sort_unstable();
        assert_eq!(all, [10, 20, 30, 40, 50, 60, 70, 80], "poll {k}");
        let committed = committed.into_inner().expect("no panic");
        let mut expected = ledger.done();
        if commit == Commit::Message {
            expected.retain(|effect| !committed.contains(&(effect / 10 * 10)));
        }
        expected.reverse();
        assert_eq!(roll_back(context.scope()), expected.len());
        assert_eq!(ledger.undone(), expected, "{commit:?}, {permits}, poll {k}");
        ended.is_some_and(|ended| {
            let code = ended.expect_err("it fails").error().code();
            assert!([ErrorCode::Handler, ErrorCode::Panic].contains(&code), "{code}");
            true
        })
    });
}

// Rules 3.8, 4.1, 4.5
#[test]
fn a_drain_dropped_while_it_rolls_a_message_back_undoes_each_effect_once() {
    at_every_poll(80, |permits, commit, k| {
        let context = StepContext::new("t");
        let ledger = Ledger::default();
        let committed = Mutex::new(Vec::new());
        let sources = [filled([10, 20, 30]), filled([40, 50]), filled([60, 70, 80])];
        let drain = fan_in(&context, sources, |message: u32, step| {
            let (ledger, committed) = (ledger.clone(), &committed);
            async move {
                ledger.apply_at_rest(&step, message);
                rests(message as usize / 10 % 2).await;
                ledger.apply_at_rest(&step, message + 1);
                if [20, 40, 70].contains(&message) {
                    return Err("no");
                }
                committed.lock().expect("no panic").push(message);
                Ok(())
            }
        });
        let drain = drain.on_failure(OnFailure::Continue).commit(commit);
        let mut drain = drain.concurrency(permits).into_future();
        let ended = poll_times(&mut drain, k).map(|result| result.expect("it succeeds"));
        drop(drain);

        roll_back(context.scope());
        let committed = committed.into_inner().expect("no panic");
        let mut expected = ledger.done();
        if commit == Commit::Message || commit == Commit::Pipeline && ended.is_some() {
            expected.retain(|effect| !committed.contains(&(effect / 10 * 10)));
        }
        expected.sort_unstable();
        let mut undone = ledger.undone();
        undone.sort_unstable();
        assert_eq!(undone, expected, "{commit:?}, {permits}, poll {k}");
        ended.is_some_and(|report| {
            assert_eq!((report.handled(), report.failed()), (5, 3));
            true
        })
    });
}

// Rule 4.1
#[test]
fn a_context_kept_beyond_its_drain_still_stages_on_the_drains_scope() {
    for k in 0.. {
        let context = StepContext::new("t");
        let kept = Mutex::new(Vec::new());
        let ledger = Ledger::default();
        let drain = fan_in(&context, [filled([1, 2]), filled([3])], |message, step| {
            kept.lock().expect("no panic").push(step.clone());
            let ledger = ledger.clone();
            async move {
                ledger.apply(&step, message);
                rests(2).await;
                Ok::<_, BoxError>(())
            }
        });
        let mut drain = drain.into_future();
        let ended = poll_times(&mut drain, k).is_some();
        drop(drain);
        let kept = kept.into_inner().expect("no panic");
        for (effect, step) in (100..).zip(&kept) {
            assert_eq!(step.cancellation().is_cancelled(), !ended, "told of the drop");
            ledger.apply(step, effect);
        }
        // A drain that succeeded has cleared what its handlers staged; what came later stays.
        let staged = if ended { kept.len() } else { 2 * kept.len() };
        assert_eq!(roll_back(context.scope()), staged);
        if ended {
            assert_eq!(ledger.undone(), [102, 101, 100]);
            break;
        }
        ledger.assert_undone_in_reverse();
    }
}

/// Five actions, each of which is pending a few times before it notes its number.
fn five_slow_actions() -> (CompensationScope, Arc<Mutex<Vec<usize>>>) {
    let scope = CompensationScope::new();
    let log = Arc::new(Mutex::new(Vec::new()));
    for effect in 0..5 {
        scope.register_compensation_with(Arc::clone(&log), move |log| async move {
            rests(effect % 3).await;
            log.lock().expect("no panic").push(effect);
        });
    }
    (scope, log)
}

// Rules 4.5, 4.6
#[test]
fn a_parallel_rollback_dropped_after_any_poll_runs_each_action_to_its_end_once() {
    for policy in [CompensationPolicy::parallel(), CompensationPolicy::parallel_limited(2)] {
        for k in 0.. {
            let (scope, log) = five_slow_actions();
            let mut rollback = scope.roll_back(&policy);
            let ended = poll_times(&mut rollback, k).is_some();
            drop(rollback);
            let undone = log.lock().expect("no panic").len();
            assert_eq!(scope.len(), 5 - undone, "poll {k}");
            assert_eq!(roll_back(&scope), 5 - undone);
            let mut all = log.lock().expect("no panic").clone();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4], "poll {k}");
            if ended {
                assert!(k > 1);
                break;
            }
        }
    }
}

// Rule 4.5
#[test]
fn a_rollback_cancelled_after_any_poll_is_resumed_where_it_was() {
    for k in 0.. {
        let (scope, log) = five_slow_actions();
        let stop = CancellationSource::new();
        let policy = CompensationPolicy::sequential_reverse();
        let mut rollback = scope.roll_back(&policy).cancellation(stop.token());
        if let Some(ended) = poll_times(&mut rollback, k) {
            assert_eq!(ended.expect("it succeeds").succeeded(), 5);
            assert!(k > 4);
            break;
        }
        stop.cancel();
        let result = poll_times(&mut rollback, 3).expect("it is over");
        let undone = log.lock().expect("no panic").len();
        match result {
            Ok(report) => assert_eq!((report.succeeded(), undone), (5, 5)),
            Err(error) => {
                assert_eq!(error.error().code(), ErrorCode::Canceled);
                assert_eq!(error.report().succeeded(), undone);
            }
        }
        assert_eq!(scope.len(), 5 - undone, "poll {k}");
        assert_eq!(roll_back(&scope), 5 - undone);
        assert_eq!(*log.lock().expect("no panic"), [4, 3, 2, 1, 0], "poll {k}");
    }
}
