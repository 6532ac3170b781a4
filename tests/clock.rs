//! Clocks: the order of wake-ups, steps back, the end of time, and wakers that panic.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::FutureExt;
use watershed::{Clock, ManualClock, Sleep, SystemClock, Tick};

type Log = Arc<Mutex<Vec<u32>>>;

/// A waker that writes its name down.
struct Named {
    name: u32,
    log: Log,
}

impl Wake for Named {
    fn wake(self: Arc<Self>) {
        self.log.lock().unwrap().push(self.name);
    }
}

/// A waker of a broken executor.
struct Broken(AtomicUsize);

impl Wake for Broken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("the executor is broken");
    }
}

fn named(name: u32, log: &Log) -> Waker {
    Waker::from(Arc::new(Named { name, log: Arc::clone(log) }))
}

fn poll_with(sleep: &mut Sleep, waker: &Waker) -> Poll<()> {
    sleep.as_mut().poll(&mut Context::from_waker(waker))
}

fn seconds(seconds: u64) -> Tick {
    Tick::ZERO + Duration::from_secs(seconds)
}

/// A sleeper that waits already.
fn sleeper(clock: &ManualClock, deadline: Tick, name: u32, log: &Log) -> Sleep {
    let mut sleep = clock.sleep_until(deadline);
    assert!(poll_with(&mut sleep, &named(name, log)).is_pending());
    sleep
}

fn take(log: &Log) -> Vec<u32> {
    std::mem::take(&mut log.lock().unwrap())
}

// Rule 5.4
#[test]
fn sleepers_wake_by_deadline_and_then_in_the_order_they_began_to_wait() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let deadlines = [3, 1, 2, 1, 3, 2, 1];
    let waiting: Vec<_> = (0..)
        .zip(deadlines)
        .map(|(name, deadline)| sleeper(&clock, seconds(deadline), name, &log))
        .collect();
    assert_eq!(clock.sleepers(), 7);
    clock.advance(Duration::from_secs(3));
    assert_eq!(take(&log), [1, 3, 6, 2, 5, 0, 4]);
    assert_eq!(clock.sleepers(), 0);
    for sleep in waiting {
        assert!(sleep.now_or_never().is_some());
    }
}

// Rule 5.4
#[test]
fn a_sleeper_keeps_its_place_when_it_is_polled_again() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let mut first = sleeper(&clock, seconds(1), 1, &log);
    let _second = sleeper(&clock, seconds(1), 2, &log);
    assert!(poll_with(&mut first, &named(11, &log)).is_pending());
    assert_eq!(clock.sleepers(), 2);
    clock.advance(Duration::from_secs(1));
    assert_eq!(take(&log), [11, 2], "the newest waker, in the oldest place");
}

// Rule 5.4
#[test]
fn only_sleepers_whose_deadline_has_come_are_woken() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let _waiting = [1, 2, 3].map(|name| sleeper(&clock, seconds(u64::from(name)), name, &log));
    clock.set(Tick::from_nanos(seconds(2).as_nanos() - 1));
    assert_eq!(take(&log), [1]);
    clock.advance(Duration::from_nanos(1));
    assert_eq!(take(&log), [2]);
    assert_eq!(clock.sleepers(), 1);
}

// Rule 5.4
#[test]
fn advance_to_next_visits_every_deadline_once() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let _waiting = [5, 2, 5, 9].map(|name| sleeper(&clock, seconds(u64::from(name)), name, &log));
    let mut visited = Vec::new();
    while clock.advance_to_next() {
        visited.push((clock.now(), take(&log)));
    }
    let expected = [(2, vec![2]), (5, vec![5, 5]), (9, vec![9])];
    assert_eq!(visited, expected.map(|(tick, names)| (seconds(tick), names)));
}

// Rule 5.4
#[test]
fn a_step_back_wakes_nobody_and_a_sleeper_waits_for_its_deadline_again() {
    let (clock, log) = (ManualClock::new(), Log::default());
    clock.set(seconds(10));
    let sleep = sleeper(&clock, seconds(12), 1, &log);
    clock.set(seconds(3));
    assert_eq!(clock.now(), seconds(3));
    assert!(take(&log).is_empty());
    clock.advance(Duration::from_secs(8));
    assert!(take(&log).is_empty(), "it is eleven");
    clock.advance(Duration::from_secs(1));
    assert_eq!(take(&log), [1]);
    assert!(sleep.now_or_never().is_some());
}

// Rule 5.4
#[test]
fn a_sleeper_that_was_woken_before_a_step_back_waits_on() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let mut sleep = sleeper(&clock, seconds(1), 1, &log);
    clock.set(seconds(1));
    clock.set(Tick::ZERO);
    assert_eq!(take(&log), [1]);
    assert!(poll_with(&mut sleep, &named(2, &log)).is_pending());
    clock.set(seconds(1));
    assert_eq!(take(&log), [2]);
    assert!(sleep.now_or_never().is_some());
}

// Rule 5.4
#[test]
fn ticks_saturate_at_both_ends() {
    assert_eq!(Tick::MAX + Duration::from_nanos(1), Tick::MAX);
    assert_eq!(Tick::ZERO + Duration::MAX, Tick::MAX);
    assert_eq!(Tick::from_nanos(u64::MAX - 1) + Duration::from_nanos(1), Tick::MAX);
    assert_eq!(Tick::ZERO.since(Tick::MAX), Duration::ZERO);
    assert_eq!(Tick::MAX.since(Tick::ZERO), Duration::from_nanos(u64::MAX));
    assert_eq!(Tick::default(), Tick::ZERO);
    assert!(Tick::ZERO < Tick::from_nanos(1));
}

// Rule 5.4
#[test]
fn the_end_of_time_is_never_reached() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let mut never = clock.sleep_until(Tick::MAX);
    assert!(poll_with(&mut never, &named(1, &log)).is_pending());
    clock.advance(Duration::MAX);
    clock.advance(Duration::MAX);
    assert_eq!(clock.now(), Tick::MAX);
    assert!(poll_with(&mut never, &named(1, &log)).is_pending());
    assert!(take(&log).is_empty());
    let last = clock.sleep_until(Tick::from_nanos(u64::MAX - 1));
    assert!(last.now_or_never().is_some());
}

// Rule 5.4
#[test]
fn a_sleeper_at_the_last_moment_wakes_when_the_clock_jumps_to_the_end() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let _sleep = sleeper(&clock, Tick::from_nanos(u64::MAX - 1), 1, &log);
    clock.advance(Duration::MAX);
    assert_eq!(take(&log), [1]);
}

// Rule 5.4
#[test]
fn a_passed_deadline_is_ready_at_the_first_poll() {
    let clock = ManualClock::new();
    assert!(clock.sleep_until(Tick::ZERO).now_or_never().is_some());
    clock.set(seconds(5));
    assert!(clock.sleep_until(seconds(5)).now_or_never().is_some());
    assert!(clock.sleep_until(seconds(4)).now_or_never().is_some());
    assert_eq!(clock.sleepers(), 0);
}

// Rule 5.4
#[test]
fn a_dropped_sleeper_is_forgotten() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let first = sleeper(&clock, seconds(1), 1, &log);
    let second = sleeper(&clock, seconds(1), 2, &log);
    drop(first);
    assert_eq!(clock.sleepers(), 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(take(&log), [2]);
    drop(second);
    let unpolled = clock.sleep_until(seconds(9));
    assert_eq!(clock.sleepers(), 0);
    drop(unpolled);
    assert_eq!(Arc::strong_count(&log), 1, "no waker is kept");
}

// Rule 5.4
#[test]
fn clones_are_the_same_clock() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let other = clock.clone();
    let _sleep = sleeper(&clock, seconds(1), 1, &log);
    other.advance(Duration::from_secs(1));
    assert_eq!(clock.now(), seconds(1));
    assert_eq!(take(&log), [1]);
}

// Rule 4.12
#[test]
fn a_waker_that_panics_is_contained_and_its_neighbours_are_woken() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let broken = Arc::new(Broken(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&broken));
    let _first = sleeper(&clock, seconds(1), 1, &log);
    let mut middle = clock.sleep_until(seconds(1));
    assert!(poll_with(&mut middle, &waker).is_pending());
    let _last = sleeper(&clock, seconds(1), 3, &log);
    let before = watershed::diagnostics::Snapshot::now();
    clock.advance(Duration::from_secs(1));
    assert_eq!(broken.0.load(Ordering::SeqCst), 1);
    assert_eq!(take(&log), [1, 3]);
    let since = watershed::diagnostics::Snapshot::now().since(&before);
    assert_eq!(since.contained_panics, 1);
    assert!(middle.now_or_never().is_some());
    let _again = sleeper(&clock, seconds(2), 4, &log);
    clock.advance(Duration::from_secs(1));
    assert_eq!(take(&log), [4], "the clock goes on");
}

/// A waker that asks the clock while it is being woken.
struct Curious {
    clock: ManualClock,
    seen: Mutex<Vec<(Tick, usize)>>,
}

impl Wake for Curious {
    fn wake(self: Arc<Self>) {
        self.seen.lock().unwrap().push((self.clock.now(), self.clock.sleepers()));
    }
}

// Rule 4.12
#[test]
fn a_waker_may_use_the_clock_that_wakes_it() {
    let clock = ManualClock::new();
    let curious = Arc::new(Curious { clock: clock.clone(), seen: Mutex::default() });
    let waker = Waker::from(Arc::clone(&curious));
    let mut sleep = clock.sleep_until(seconds(1));
    assert!(poll_with(&mut sleep, &waker).is_pending());
    clock.advance(Duration::from_secs(1));
    assert_eq!(*curious.seen.lock().unwrap(), [(seconds(1), 0)]);
}

// Rule 5.4
#[test]
fn the_system_clock_never_steps_back() {
    let (one, other) = (SystemClock::new(), SystemClock::default());
    let mut last = one.now();
    for turn in 0..10_000 {
        let now = if turn % 2 == 0 { other.now() } else { one.now() };
        assert!(now >= last);
        last = now;
    }
}

// Rule 5.4
#[test]
fn the_system_clock_is_ready_for_the_past_and_never_for_the_end_of_time() {
    let clock = SystemClock::new();
    assert!(clock.sleep_until(Tick::ZERO).now_or_never().is_some());
    assert!(clock.sleep_until(clock.now()).now_or_never().is_some());
    assert!(clock.sleep_until(Tick::MAX).now_or_never().is_none());
    let far = clock.sleep_until(clock.now() + Duration::from_secs(60 * 60 * 24 * 365 * 100));
    assert!(far.now_or_never().is_none(), "further ahead than any timer reaches");
}

// Rule 5.4
#[test]
fn async_code_sees_time_by_the_manual_clock_alone() {
    let clock = ManualClock::new();
    let mut work = pin!(async {
        let mut seen = Vec::new();
        for _ in 0..3 {
            clock.sleep_until(clock.now() + Duration::from_secs(60 * 60)).await;
            seen.push(clock.now());
        }
        seen
    });
    for _ in 0..3 {
        assert!(work.as_mut().now_or_never().is_none());
        assert!(clock.advance_to_next());
    }
    assert_eq!(work.now_or_never().unwrap(), [3600, 7200, 10_800].map(seconds));
}
