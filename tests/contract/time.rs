//! All time comes from the clock. Rules 5.4, 3.3, 3.5.

use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use watershed::timers::{Ticker, delay, with_timeout};
use watershed::{
    BoxError, CancellationSource, Clock, ErrorCode, ManualClock, Sleep, StepContext, Tick,
};

use crate::tokens::tenfold;

/// A clock whose sleeps say nothing of the time.
#[derive(Debug)]
struct Lying {
    now: AtomicU64,
    /// Its sleeps end at once, or never.
    early: bool,
}

impl Clock for Lying {
    fn now(&self) -> Tick {
        Tick::from_nanos(self.now.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, _: Tick) -> Sleep {
        if self.early { Box::pin(std::future::ready(())) } else { Box::pin(std::future::pending()) }
    }
}

fn lying(early: bool) -> (Arc<Lying>, StepContext) {
    let clock = Arc::new(Lying { now: AtomicU64::new(0), early });
    (Arc::clone(&clock), StepContext::new("orders").with_clock(clock))
}

// Rule 5.4
#[test]
fn what_is_due_is_judged_by_the_time_and_not_by_a_sleep() {
    for early in [true, false] {
        let (clock, context) = lying(early);
        let ten = Duration::from_nanos(10);
        let mut wait = delay(&context, ten);
        let mut ticks = Ticker::new(&context, ten).unwrap();
        let never = |_: StepContext| std::future::pending::<Result<(), BoxError>>();
        let mut timed = pin!(with_timeout(&context, ten, never).into_future());
        let mut cx = Context::from_waker(Waker::noop());
        for now in [0, 5, 9] {
            clock.now.store(now, Ordering::SeqCst);
            assert!(wait.poll_unpin(&mut cx).is_pending(), "at {now}, early: {early}");
            assert!(ticks.poll_next_unpin(&mut cx).is_pending());
            assert!(timed.as_mut().poll(&mut cx).is_pending());
        }
        clock.now.store(10, Ordering::SeqCst);
        assert!(matches!(wait.poll_unpin(&mut cx), Poll::Ready(Ok(()))));
        assert_eq!(ticks.poll_next_unpin(&mut cx), Poll::Ready(Some(Tick::from_nanos(10))));
        let Poll::Ready(Err(error)) = timed.as_mut().poll(&mut cx) else { panic!("it is due") };
        assert_eq!(error.code(), ErrorCode::Timeout);
    }
}

// Rule 5.4
#[test]
fn a_clock_that_steps_back_makes_what_was_not_seen_to_be_due_wait_longer() {
    let clock = ManualClock::new();
    let context = StepContext::new("orders").with_clock(Arc::new(clock.clone()));
    let mut wait = delay(&context, Duration::from_nanos(10));
    assert!((&mut wait).now_or_never().is_none());
    clock.set(Tick::from_nanos(10));
    clock.set(Tick::from_nanos(3));
    assert!((&mut wait).now_or_never().is_none());
    assert_eq!(clock.sleepers(), 1, "it waits again");
    assert!(clock.advance_to_next());
    assert_eq!(clock.now(), Tick::from_nanos(10));
    assert!(wait.now_or_never().is_some());
}

// Rules 3.3, 3.5
#[test]
fn a_cancelled_token_goes_before_a_deadline_that_has_passed() {
    let (clock, source) = (ManualClock::new(), CancellationSource::new());
    let context = StepContext::new("orders").with_clock(Arc::new(clock.clone()));
    let never = |_: StepContext| std::future::pending::<Result<(), BoxError>>();
    let timed = with_timeout(&context, Duration::from_nanos(10), never);
    let mut timed = pin!(timed.cancellation(source.token()).into_future());
    assert!(timed.as_mut().now_or_never().is_none());
    clock.advance(Duration::from_nanos(10));
    source.cancel();
    let error = timed.as_mut().now_or_never().unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Canceled);
}

// Rule 5.4
#[test]
fn sleepers_are_woken_by_deadline_and_then_in_the_order_in_which_they_began_to_wait() {
    struct Named(usize, Arc<Mutex<Vec<usize>>>);
    impl Wake for Named {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    let (clock, woken) = (ManualClock::new(), Arc::new(Mutex::new(Vec::new())));
    let mut sleeps: Vec<_> =
        [7, 3, 7, 5, 3].map(|at| clock.sleep_until(Tick::from_nanos(at))).into();
    // The last begins to wait first.
    for (index, sleep) in sleeps.iter_mut().enumerate().rev() {
        let waker = Waker::from(Arc::new(Named(index, Arc::clone(&woken))));
        assert!(sleep.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    }
    assert!(clock.advance_to_next());
    assert_eq!((clock.now(), woken.lock().unwrap().clone()), (Tick::from_nanos(3), vec![4, 1]));
    clock.advance(Duration::from_secs(1));
    assert_eq!(*woken.lock().unwrap(), [4, 1, 3, 2, 0]);
    assert!(!clock.advance_to_next());
}

// Rules 5.4, 4.13
#[test]
fn a_crowd_of_sleepers_is_served_in_linear_time() {
    // All at one moment, or each at its own.
    for spread in [0, 1] {
        let ratio = tenfold(|size| {
            let clock = ManualClock::new();
            let at = |index: usize| Tick::from_nanos(1 + spread * index as u64);
            let mut sleeps: Vec<_> = (0..size).map(|index| clock.sleep_until(at(index))).collect();
            let mut cx = Context::from_waker(Waker::noop());
            assert!(sleeps.iter_mut().all(|sleep| sleep.poll_unpin(&mut cx).is_pending()));
            assert_eq!(clock.sleepers(), size);
            sleeps.truncate(size / 2);
            let mut steps = 0;
            while clock.advance_to_next() {
                steps += 1;
            }
            assert_eq!(steps, if spread == 0 { 1 } else { size / 2 });
            assert!(sleeps.iter_mut().all(|sleep| sleep.poll_unpin(&mut cx).is_ready()));
        });
        assert!(ratio < 40.0, "ten times the crowd takes {ratio} times as long");
    }
}

// Rules 5.4, 5.6, 4.11
#[test]
fn no_code_outside_the_clock_asks_for_the_time_or_a_thread_and_nothing_prints() {
    fn visit(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            // Unit tests, which are no part of the library.
            if name == "proof" {
                continue;
            }
            if path.is_dir() {
                visit(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let clock = path.parent().is_some_and(|parent| parent.ends_with("src/clock"));
            for line in code {
                let asks = ["Instant::now", "SystemTime", "thread::spawn", "thread::Builder"];
                let asks = asks.iter().chain(&["thread::sleep", "futures_timer"]);
                let prints = ["print!", "println!", "eprint!", "eprintln!", "dbg!"];
                let bad = prints.iter().any(|word| line.contains(word))
                    || (!clock && asks.into_iter().any(|word| line.contains(word)));
                if bad {
                    found.push(format!("{}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    let mut found = Vec::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.is_empty(), "{found:#?}");
}
