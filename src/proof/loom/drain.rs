//! Drains: contexts that are lent and kept, actions that a thread keeps for itself, and two drains
//! on one scope.

use std::sync::{Arc, Mutex};

use futures::stream::{self, StreamExt};

use super::super::effects::Effects;
use super::super::executor::{block_on, give_way, poll_once};
use super::every_schedule;
use crate::sync::thread::{self, JoinHandle};
use crate::{
    BoxError, CancellationSource, CancellationToken, Commit, CompensationPolicy, StepContext,
    fan_in,
};

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
    every_schedule(name, None, move || {
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
        let rollback = context.scope().run_compensation(&policy, CancellationToken::never());
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
        let rollback = context.scope().run_compensation(&policy, CancellationToken::never());
        assert_eq!(block_on(rollback).unwrap().succeeded(), 2);
        assert_eq!([0, 1, 2].map(|index| effects.undone(index)), [0, 1, 1]);
        effects.assert_gone();
    });
}

// Rule 4.1
#[test]
fn what_was_registered_before_a_context_was_cloned_is_seen_through_the_clone() {
    every_schedule("a context is cloned after a registration", None, || {
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

// Rule 4.1
#[test]
fn what_a_thread_kept_for_itself_is_there_when_it_waits() {
    every_schedule("a scope is looked at while its drain waits", None, || {
        let (context, effects) = (StepContext::new("model"), Effects::new(2));
        let registering = effects.clone();
        let handler = move |index, step: StepContext| {
            step.register_compensation(registering.undo(index, 0));
            async { Ok::<_, BoxError>(()) }
        };
        let source = stream::iter([0, 1]).chain(stream::pending());
        let scope = context.scope().clone();
        let mut drain = fan_in(&context, [source], handler).into_future();
        assert!(poll_once(&mut drain).is_pending());
        let looking = thread::spawn(move || scope.len());
        assert_eq!(looking.join().unwrap(), 2);
        drop(drain);
        assert_eq!(context.scope().clear(), 2);
        effects.assert_gone();
    });
}
