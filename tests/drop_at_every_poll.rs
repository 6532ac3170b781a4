//! Rules 4.1 and 4.5: a future dropped after its k-th poll, for every k, loses nothing.

mod support;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use support::{Ledger, block_on, filled, left_in, poll_times, yields};
use watershed::{
    BoxError, CancellationToken, Commit, CompensationPolicy, CompensationScope, StepContext,
    fan_in, run_compensation,
};

fn roll_back(scope: &CompensationScope) -> usize {
    let policy = CompensationPolicy::sequential_reverse();
    let rollback = run_compensation(&policy, scope, CancellationToken::never());
    block_on(rollback).expect("every action succeeds").succeeded()
}

// Rules 2.1, 4.1, 4.3
#[test]
fn a_drain_dropped_after_any_poll_leaves_every_effect_done_or_undone_once() {
    let mut drops = 0;
    for concurrency in [1, 2, 3] {
        for commit in [Commit::Pipeline, Commit::Message, Commit::Never] {
            for k in 0.. {
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
                        yields(message as usize / 10 % 3).await;
                        ledger.apply(&step, message + 1);
                        yields(1).await;
                        ledger.apply(&step, message + 2);
                        committed.lock().expect("no panic").push(message);
                        Ok::<_, BoxError>(())
                    }
                });
                let permits = NonZeroUsize::new(concurrency).expect("not zero");
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
                assert_eq!(ledger.undone(), expected, "{commit:?}, {concurrency}, poll {k}");
                drops += 1;
                if ended {
                    break;
                }
            }
        }
    }
    assert!(drops > 50, "{drops} drops");
}

// Rule 4.5
#[test]
fn a_rollback_dropped_after_any_poll_is_resumed_where_it_was() {
    for k in 0.. {
        let scope = CompensationScope::new();
        let log = Arc::new(Mutex::new(Vec::new()));
        for effect in 0..5 {
            scope.register_compensation_with(Arc::clone(&log), move |log| async move {
                yields(effect % 3).await;
                log.lock().expect("no panic").push(effect);
            });
        }
        let policy = CompensationPolicy::sequential_reverse();
        let mut rollback = run_compensation(&policy, &scope, CancellationToken::never());
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
