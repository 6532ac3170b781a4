//! Tasks of a group that run, fail and are dropped on other threads.

use std::sync::{Arc, Mutex};

use futures::task::{FutureObj, Spawn, SpawnError};

use super::super::effects::Effects;
use super::super::executor::{block_on, give_way, polls};
use super::every_schedule;
use crate::group::Group;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::{BoxError, CompensationPolicy, ErrorCode, OnFailure, StepContext};

/// An executor with a thread a task, which drops it after so many polls.
struct Threads {
    polls: usize,
    running: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Threads {
    fn new(polls: usize) -> Self {
        Self { polls, running: Arc::default() }
    }

    fn join(self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap());
        for thread in running {
            thread.join().unwrap();
        }
    }
}

impl Spawn for Threads {
    fn spawn_obj(&self, task: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        let most = self.polls;
        let thread = thread::spawn(move || {
            let _ = block_on(polls(task, most));
        });
        self.running.lock().unwrap().push(thread);
        Ok(())
    }
}

// Rule 4.1
#[test]
fn a_group_hears_of_every_task() {
    every_schedule("a group with two tasks on threads", Some(2), || {
        let (context, effects, threads) =
            (StepContext::new("model"), Effects::new(2), Threads::new(usize::MAX));
        let group = Group::new(&context).on_failure(OnFailure::Continue);
        for index in 0..2 {
            let undo = effects.undo(index, 0);
            let work = |step: StepContext| async move {
                step.register_compensation(undo);
                Ok::<_, BoxError>(())
            };
            group.go_on(&threads, None, work).unwrap();
        }
        assert_eq!(block_on(group.wait()).unwrap().succeeded(), 2);
        assert_eq!(context.scope().clear(), 2);
        effects.assert_gone();
        threads.join();
    });
}

// Rule 4.1
#[test]
fn a_group_hears_of_a_task_that_its_executor_dropped() {
    every_schedule("a group whose executor drops a task", None, || {
        let (context, effects, threads) =
            (StepContext::new("model"), Effects::new(1), Threads::new(1));
        let group = Group::new(&context).on_failure(OnFailure::Continue);
        let undo = effects.undo(0, 0);
        let work = |step: StepContext| async move {
            step.register_compensation(undo);
            give_way().await;
            Ok::<_, BoxError>(())
        };
        group.go_on(&threads, None, work).unwrap();
        let error = block_on(group.wait()).unwrap_err().into_error();
        assert_eq!(error.code(), ErrorCode::Canceled);
        assert_eq!(context.scope().clear(), 1);
        effects.assert_gone();
        threads.join();
    });
}

// Rules 3.2 and 4.4
#[test]
fn a_group_that_fails_rolls_back_what_its_tasks_did() {
    every_schedule("a group with a task that fails", Some(2), || {
        let (context, effects, threads) =
            (StepContext::new("model"), Effects::new(2), Threads::new(usize::MAX));
        let group = Group::new(&context).roll_back(CompensationPolicy::sequential_reverse());
        for index in 0..2 {
            let undo = effects.undo(index, 0);
            let work = move |step: StepContext| async move {
                step.register_compensation(undo);
                if index == 0 { Err(BoxError::from("failed")) } else { Ok(()) }
            };
            // The other one may come when the group is stopping, and then does not begin.
            group.go_on(&threads, None, work).unwrap();
        }
        let error = block_on(group.wait()).unwrap_err().into_error();
        assert_eq!(error.code(), ErrorCode::Handler);
        assert_eq!(effects.undone(0), 1);
        assert!(context.scope().is_empty());
        effects.assert_gone();
        threads.join();
        let rest = context.roll_back(&CompensationPolicy::default());
        assert_eq!(block_on(rest).unwrap().succeeded(), 0);
    });
}

// A permit that one task gives back is given to the next, whichever thread either is on.
#[test]
fn tasks_of_a_group_with_a_limit_run_one_after_another() {
    every_schedule("a group of two tasks, one at once", Some(2), || {
        let (context, threads) = (StepContext::new("model"), Threads::new(usize::MAX));
        let group = Group::collecting(&context).concurrency(1);
        let running = Arc::new(AtomicUsize::new(0));
        for index in 0..2 {
            let running = Arc::clone(&running);
            let work = move |_| async move {
                assert_eq!(running.fetch_add(1, Ordering::Relaxed), 0);
                give_way().await;
                running.fetch_sub(1, Ordering::Relaxed);
                Ok::<_, BoxError>(index)
            };
            group.go_on(&threads, None, work).unwrap();
        }
        assert_eq!(block_on(group.wait()).unwrap().into_values(), [0, 1]);
        threads.join();
    });
}

// The wait hears of the last handle, and of a task that came before it went.
#[test]
fn a_group_ends_with_its_last_handle() {
    every_schedule("a group whose last handle goes on another thread", Some(2), || {
        let group = Group::new(&StepContext::new("model"));
        let door = group.clone();
        let adder = thread::spawn(move || {
            door.go(None, |_| async { Ok::<_, BoxError>(()) }).unwrap();
        });
        assert_eq!(block_on(group.wait()).unwrap().succeeded(), 1);
        adder.join().unwrap();
    });
}
