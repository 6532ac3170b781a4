//! Whole drains: steps that other threads keep, handlers that other threads wake, and two drains on
//! one scope.

use std::sync::{Arc, Mutex};

use futures::stream;

use super::super::effects::Effects;
use super::super::executor::{block_on, give_way};
use super::every_schedule;
use crate::sync;
use crate::sync::thread::{self, JoinHandle};
use crate::{BoxError, CancellationSource, Commit, CompensationPolicy, StepContext, fan_in};

/// Threads that handlers have started.
#[derive(Clone, Default)]
struct Threads(Arc<Mutex<Vec<JoinHandle<()>>>>);

impl Threads {
    fn start(&self, work: impl FnOnce() + Send + 'static) {
        self.0.lock().unwrap().push(thread::spawn(work));
    }

    fn join(&self) {
        let threads = std::mem::take(&mut *self.0.lock().unwrap());
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

/// Drains one message whose context is `kept` by another thread, which registers with it, and one
/// more if there are to be two, which registers on its own. One alone is not looked at again.
fn keep_a_context(
    name: &'static str,
    messages: usize,
    commit: Commit,
    kept: impl Fn(StepContext, &Threads, Effects) + Copy + Send + Sync + 'static,
) {
    every_schedule(name, Some(2), move || {
        let (context, effects, threads) =
            (StepContext::new("model"), Effects::new(messages), Threads::default());
        let (own, starting) = (effects.clone(), threads.clone());
        let handler = move |message, step: StepContext| {
            if message == 0 {
                kept(step, &starting, own.clone());
            } else {
                step.register_compensation(own.undo(1, 0));
            }
            async { Ok::<_, BoxError>(()) }
        };
        let drain = fan_in(&context, [stream::iter(0..messages)], handler).commit(commit);
        assert_eq!(block_on(drain.into_future()).unwrap().handled(), messages as u64);
        threads.join();
        let (len, gone) =
            (context.scope().len(), (0..messages).map(|index| effects.gone(index)).sum::<usize>());
        assert_eq!(len + gone, messages, "{len} staged and {gone} committed");
        assert!(commit != Commit::Never || gone == 0);
        assert!(commit == Commit::Never || gone + 1 >= messages);
        let policy = CompensationPolicy::sequential_reverse();
        let rollback = context.scope().roll_back(&policy);
        assert_eq!(block_on(rollback).unwrap().succeeded(), len);
        assert_eq!(effects.undone_in_all(), len);
        effects.assert_gone();
    });
}

fn clone_it(step: StepContext, threads: &Threads, effects: Effects) {
    let kept = step.clone();
    threads.start(move || kept.register_compensation(effects.undo(0, 0)));
}

fn move_it(step: StepContext, threads: &Threads, effects: Effects) {
    threads.start(move || step.register_compensation(effects.undo(0, 0)));
}

fn take_its_scope(step: StepContext, threads: &Threads, effects: Effects) {
    let scope = step.scope().clone();
    threads.start(move || effects.stage(&scope, 0));
}

// Rule 4.1
#[test]
fn a_context_that_is_cloned_loses_nothing() {
    keep_a_context("a context is cloned by the last message", 1, Commit::Never, clone_it);
    keep_a_context("a context is cloned, nothing committed", 2, Commit::Never, clone_it);
    keep_a_context("a context is cloned, messages committed", 2, Commit::Message, clone_it);
    keep_a_context("a context is cloned, the drain committed", 2, Commit::Pipeline, clone_it);
}

// Rule 4.1
#[test]
fn a_context_that_is_moved_loses_nothing() {
    keep_a_context("a context is moved by the last message", 1, Commit::Never, move_it);
    keep_a_context("a context is moved, nothing committed", 2, Commit::Never, move_it);
    keep_a_context("a context is moved, messages committed", 2, Commit::Message, move_it);
    keep_a_context("a context is moved, the drain committed", 2, Commit::Pipeline, move_it);
}

// Rule 4.1
#[test]
fn a_scope_that_is_kept_loses_nothing() {
    keep_a_context("a scope is kept by the last message", 1, Commit::Never, take_its_scope);
    keep_a_context("a scope is kept, nothing committed", 2, Commit::Never, take_its_scope);
    keep_a_context("a scope is kept, messages committed", 2, Commit::Message, take_its_scope);
}

// Rules 4.3 and 4.8
#[test]
fn two_drains_on_one_scope_clear_their_own() {
    every_schedule("two drains on one scope", Some(2), || {
        let (context, effects) = (StepContext::new("model"), Effects::new(3));
        let drains = [0, 1].map(|index| {
            let (context, effects) = (context.clone(), effects.clone());
            thread::spawn(move || {
                let handler = move |(), step: StepContext| {
                    step.register_compensation(effects.undo(index, 0));
                    async move {
                        if index == 1 {
                            give_way().await;
                            return Err(BoxError::from("failed"));
                        }
                        Ok(())
                    }
                };
                let drain = fan_in(&context, [stream::iter([()])], handler);
                assert_eq!(block_on(drain.into_future()).is_ok(), index == 0);
            })
        });
        effects.stage(context.scope(), 2);
        for drain in drains {
            drain.join().unwrap();
        }
        assert_eq!(context.scope().len(), 2);
        let policy = CompensationPolicy::sequential_reverse();
        let rollback = context.scope().roll_back(&policy);
        assert_eq!(block_on(rollback).unwrap().succeeded(), 2);
        assert_eq!([0, 1, 2].map(|index| effects.undone(index)), [0, 1, 1]);
        effects.assert_gone();
    });
}

// Rule 4.1
#[test]
fn what_was_registered_before_a_context_was_cloned_is_seen_through_the_clone() {
    every_schedule("a context is cloned after a registration", Some(3), || {
        let (context, threads) = (StepContext::new("model"), Threads::default());
        let starting = threads.clone();
        let handler = move |(), step: StepContext| {
            step.register_compensation(|| async {});
            let (kept, looked) = (step.clone(), CancellationSource::new());
            let waiting = looked.token();
            starting.start(move || {
                assert_eq!(kept.scope().len(), 1);
                drop(kept);
                looked.cancel();
            });
            async move {
                waiting.cancelled().await;
                Ok::<_, BoxError>(())
            }
        };
        let drain = fan_in(&context, [stream::iter([()])], handler).commit(Commit::Message);
        block_on(drain.into_future()).unwrap();
        threads.join();
        assert!(context.scope().is_empty());
    });
}

/// Opened by another thread: wakes whoever waits for it.
async fn opened(gate: &CancellationSource) {
    gate.token().cancelled().await;
}

/// Two gates, each with a thread that opens it.
fn gates_that_threads_open() -> ([CancellationSource; 2], [thread::JoinHandle<()>; 2]) {
    let gates = [(); 2].map(|()| CancellationSource::new());
    let threads = gates.each_ref().map(|gate| {
        let gate = gate.clone();
        thread::spawn(move || {
            gate.cancel();
        })
    });
    (gates, threads)
}

// Rules 2.2 and 2.5
#[test]
fn handlers_that_other_threads_wake_hand_their_slots_on() {
    every_schedule("two sources wait for one slot and for two threads", Some(2), || {
        let context = StepContext::new("model");
        let (gates, threads) = gates_that_threads_open();
        let handler = async |index: usize, _: StepContext| {
            opened(&gates[index]).await;
            Ok::<_, BoxError>(())
        };
        let drain = fan_in(&context, [stream::iter([0]), stream::iter([1])], handler);
        assert_eq!(block_on(drain.into_future()).unwrap().handled(), 2);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

// Rules 2.2 and 2.5
#[test]
fn messages_of_one_source_are_woken_each_for_itself() {
    every_schedule("two messages of one source wait for two threads", Some(2), || {
        let context = StepContext::new("model");
        let (gates, threads) = gates_that_threads_open();
        let handler = async |index: usize, _: StepContext| {
            opened(&gates[index]).await;
            Ok::<_, BoxError>(())
        };
        let drain = fan_in(&context, [stream::iter([0, 1])], handler).unordered().concurrency(2);
        assert_eq!(block_on(drain.into_future()).unwrap().handled(), 2);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

// Rules 2.10 and 2.7
#[test]
fn an_idle_drain_ends_beside_a_waker_that_comes_late() {
    every_schedule("a source is woken while its drain becomes idle", Some(3), || {
        let context = StepContext::new("model");
        let waker = Arc::new(sync::Mutex::new(None));
        let left = Arc::clone(&waker);
        let source = stream::poll_fn(move |cx| {
            *left.lock().unwrap() = Some(cx.waker().clone());
            std::task::Poll::<Option<()>>::Pending
        });
        let late = thread::spawn(move || {
            // Twice, with nothing to take.
            for _ in 0..2 {
                let woken = waker.lock().unwrap().take();
                woken.into_iter().for_each(std::task::Waker::wake);
            }
        });
        let drain = fan_in(&context, [source], async |(), _| Ok::<_, BoxError>(()));
        assert_eq!(block_on(drain.until_idle().into_future()).unwrap().handled(), 0);
        late.join().unwrap();
    });
}

// Rule 3.9
#[test]
fn a_shutdown_from_another_thread_is_heard() {
    every_schedule("a drain is shut down while it waits", Some(3), || {
        let context = StepContext::new("model");
        let stop = CancellationSource::new();
        let shutdown = stop.token();
        let stopping = thread::spawn(move || stop.cancel());
        let drain =
            fan_in(&context, [stream::pending::<()>()], async |(), _| Ok::<_, BoxError>(()));
        assert_eq!(block_on(drain.shutdown(shutdown).into_future()).unwrap().handled(), 0);
        stopping.join().unwrap();
    });
}
