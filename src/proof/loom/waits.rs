//! Sleeping by a clock that another thread sets, and sources that another thread pauses and removes.

use std::sync::Arc;
use std::time::Duration;

use futures::stream;

use super::super::executor::{block_on, poll_once};
use super::every_schedule;
use crate::channels::{SourceEnd, live};
use crate::sync::thread;
use crate::{BoxError, Clock, ManualClock, StepContext, fan_in};

// Rule 5.4
#[test]
fn a_sleeper_hears_of_its_time() {
    every_schedule("a sleep, one that is given up, and a clock", Some(3), || {
        let clock = ManualClock::new();
        let second = Duration::from_secs(1);
        let (sleep, mut given_up) =
            (clock.sleep_until(clock.now() + second), clock.sleep_until(clock.now() + second));
        let sleeper = thread::spawn(move || block_on(sleep));
        let fickle = thread::spawn(move || {
            let _ = poll_once(&mut given_up);
            drop(given_up);
        });
        clock.advance(second);
        sleeper.join().unwrap();
        fickle.join().unwrap();
        assert_eq!(clock.sleepers(), 0);
    });
}

// Rule 2.7
#[test]
fn a_source_that_is_paused_and_removed_comes_back() {
    every_schedule("a source is paused and removed beside its drain", Some(2), || {
        let (live, incoming) = live();
        let handle = live.add(stream::pending::<()>()).unwrap();
        drop(live);
        let drain = thread::spawn(move || {
            let context = StepContext::new("model");
            let drain = fan_in(&context, [], |(), _| async { Ok::<_, BoxError>(()) });
            block_on(drain.incoming(incoming).into_future()).unwrap().handled()
        });
        handle.pause();
        let handle = Arc::new(handle);
        let waiting = handle.ended();
        let waiter = thread::spawn(move || block_on(waiting));
        assert!(block_on(handle.remove()).is_some());
        assert_eq!(waiter.join().unwrap(), SourceEnd::Removed);
        assert_eq!(drain.join().unwrap(), 0);
    });
}

// Rule 2.7
#[test]
fn a_source_that_is_resumed_is_drained() {
    every_schedule("a source is paused and resumed beside its drain", Some(3), || {
        let (live, incoming) = live();
        let handle = live.add(stream::iter([()])).unwrap();
        drop(live);
        assert!(handle.pause());
        let drain = thread::spawn(move || {
            let context = StepContext::new("model");
            let drain = fan_in(&context, [], |(), _| async { Ok::<_, BoxError>(()) });
            block_on(drain.incoming(incoming).into_future()).unwrap().handled()
        });
        handle.resume();
        assert_eq!(block_on(handle.ended()), SourceEnd::Drained);
        assert_eq!(drain.join().unwrap(), 1);
    });
}
