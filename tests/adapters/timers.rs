//! Delays and tickers, on a clock that is moved by hand.

use crate::support::neighbours::Wakes;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::support::{block_on, poll_times, roll_back};
use futures::stream::{FusedStream, StreamExt};
use futures::{FutureExt, Stream};
use watershed::timers::{MissedTicks, Ticker, delay};
use watershed::{
    CancellationSource, Clock, ErrorCode, ManualClock, Sleep, StepContext, Tick, diagnostics,
};

const TEN: Duration = Duration::from_nanos(10);

fn context(clock: &ManualClock) -> StepContext {
    StepContext::new("t").with_clock(Arc::new(clock.clone()))
}

fn at(nanos: u64) -> Tick {
    Tick::from_nanos(nanos)
}

/// What the stream has ready, and whether it has ended.
fn ready<S: Stream<Item = Tick> + Unpin>(stream: &mut S) -> (Vec<u64>, bool) {
    let mut ticks = Vec::new();
    loop {
        match stream.next().now_or_never() {
            Some(Some(tick)) => ticks.push(tick.as_nanos()),
            Some(None) => return (ticks, true),
            None => return (ticks, false),
        }
    }
}

/// A clock that panics once it is told to.
#[derive(Debug, Default)]
struct Broken(std::sync::atomic::AtomicBool);

impl Clock for Broken {
    fn now(&self) -> Tick {
        assert!(!self.0.load(Ordering::Relaxed), "the clock is broken");
        Tick::ZERO
    }

    fn sleep_until(&self, _: Tick) -> Sleep {
        futures::future::pending().boxed()
    }
}

// P14
#[test]
fn delays_follow_the_advances_of_the_clock() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let mut delays = [3, 1, 2].map(|seconds| delay(&context, Duration::from_secs(seconds)));
    for passed in 0..=3 {
        let over = delays.each_mut().map(|delay| delay.now_or_never().is_some());
        let expected = [3, 1, 2].map(|seconds| passed == seconds);
        assert_eq!(over, expected, "a delay that is over is not polled again");
        for (delay, over) in delays.iter_mut().zip(over) {
            if over {
                *delay = watershed::timers::delay(&context, Duration::MAX);
            }
        }
        clock.advance(Duration::from_secs(1));
    }
}

// P14
#[test]
fn a_delay_counts_from_its_call() {
    let clock = ManualClock::new();
    let mut delay = delay(&context(&clock), TEN);
    clock.advance(Duration::from_nanos(9));
    assert!(poll_times(&mut delay, 2).is_none());
    clock.advance(Duration::from_nanos(1));
    assert!(poll_times(&mut delay, 1).is_some_and(|result| result.is_ok()));
    let again = poll_times(&mut delay, 1).expect("it says so").expect_err("it is over");
    assert_eq!(again.code(), ErrorCode::Unspecified);
}

// Rule 3.3: zero and `Duration::MAX`
#[test]
fn a_delay_of_zero_is_over_and_one_without_end_never_is() {
    let clock = ManualClock::new();
    clock.set(at(u64::MAX - 1));
    block_on(delay(&context(&clock), Duration::ZERO)).expect("it is over");
    let mut endless = delay(&context(&clock), Duration::MAX);
    assert!(poll_times(&mut endless, 1).is_none());
    clock.set(Tick::MAX);
    assert!(poll_times(&mut endless, 2).is_none());
    assert_eq!(clock.sleepers(), 0, "no timer is set");
}

// Rule 3.5
#[test]
fn a_delay_ends_with_the_token_of_its_context() {
    for before in [true, false] {
        let (clock, stop) = (ManualClock::new(), CancellationSource::new());
        let context = context(&clock).with_cancellation(stop.token());
        let mut delay = if before {
            stop.cancel();
            delay(&context, Duration::ZERO)
        } else {
            let mut delay = delay(&context, TEN);
            assert!(poll_times(&mut delay, 2).is_none());
            stop.cancel();
            delay
        };
        let error = poll_times(&mut delay, 1).expect("it is over").expect_err("cancelled");
        assert_eq!(error.code(), ErrorCode::Canceled);
        assert_eq!(clock.sleepers(), 0);
    }
}

// Rule 5.4
#[test]
fn a_delay_waits_for_a_clock_that_has_stepped_back() {
    let clock = ManualClock::new();
    clock.set(at(100));
    let mut delay = delay(&context(&clock), TEN);
    assert!(poll_times(&mut delay, 2).is_none());
    clock.set(at(0));
    clock.advance(Duration::from_nanos(50));
    assert!(poll_times(&mut delay, 2).is_none(), "the end is a moment, not a span");
    clock.set(at(110));
    assert!(poll_times(&mut delay, 1).is_some());
}

#[test]
fn a_delay_that_is_dropped_leaves_nothing_behind() {
    let clock = ManualClock::new();
    let context = context(&clock);
    for k in 0..3 {
        let mut delay = delay(&context, TEN);
        assert!(poll_times(&mut delay, k).is_none());
        drop(delay);
        assert_eq!(clock.sleepers(), 0, "poll {k}");
    }
    assert!(context.scope().is_empty());
}

// Rule 3.7
#[test]
fn a_clock_that_panics_is_an_error_of_the_delay_and_the_end_of_a_stream() {
    let clock = Arc::new(Broken::default());
    let context = StepContext::new("t").with_clock(clock.clone());
    let mut delays = [delay(&context, TEN), delay(&context, TEN)];
    let mut ticks = Ticker::new(&context, TEN).expect("the period is fine");
    assert!(poll_times(&mut delays[0], 1).is_none());
    clock.0.store(true, Ordering::Relaxed);
    for mut delay in delays {
        let error = poll_times(&mut delay, 1).expect("it is over").expect_err("it panicked");
        assert_eq!(error.code(), ErrorCode::Panic);
        assert!(error.to_string().contains("the clock is broken"), "{error}");
    }
    let before = diagnostics::Snapshot::now();
    assert!(ticks.reset(TEN).is_err_and(|error| error.code() == ErrorCode::Panic));
    assert_eq!(ready(&mut ticks), (vec![], true));
    assert!(
        diagnostics::Snapshot::now().since(&before).contained_panics >= 1,
        "it is not swallowed"
    );
    assert!(context.scope().is_empty());
    let late = Ticker::new(&context, TEN).expect_err("it panics at once");
    assert_eq!(late.code(), ErrorCode::Panic);
    block_on(delay(&context, TEN)).expect_err("it panics at once");
}

#[test]
fn a_delay_is_a_stream_of_one_item_where_one_is_wanted() {
    let clock = ManualClock::new();
    let mut once = Box::pin(futures::stream::once(delay(&context(&clock), TEN)));
    assert!(once.next().now_or_never().is_none());
    clock.advance(3 * TEN);
    assert!(once.next().now_or_never().expect("it is due").is_some_and(|item| item.is_ok()));
    assert!(once.next().now_or_never().expect("it has ended").is_none());
}

// Rule 6.2
#[test]
fn a_period_of_zero_is_refused_before_anything_is_registered() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let error = Ticker::new(&context, Duration::ZERO).expect_err("no period");
    assert_eq!(error.code(), ErrorCode::Validation);
    assert!(context.scope().is_empty());
    let mut ticker = Ticker::new(&context, TEN).expect("the period is fine");
    assert!(ticker.reset(Duration::ZERO).is_err_and(|e| e.code() == ErrorCode::Validation));
    clock.advance(TEN);
    assert_eq!(ready(&mut ticker), (vec![10], false), "it stayed as it was");
}

// P7
#[test]
fn a_ticker_registers_a_compensation_that_stops_it() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let woken = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut ticker = Ticker::new(&context, TEN).expect("the period is fine");
    let mut ticks = Ticker::new(&context, TEN).expect("the period is fine");
    assert_eq!(context.scope().len(), 2);
    assert!(ticker.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
    assert!(ticks.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(roll_back(context.scope()), 2);
    assert_eq!(woken.0.load(Ordering::Relaxed), 2, "whoever waits for a tick hears it");
    clock.advance(TEN);
    assert_eq!(ready(&mut ticker), (vec![], true));
    assert_eq!(ready(&mut ticks), (vec![], true));
    assert!(ticker.is_terminated() && ticks.is_terminated());
    assert_eq!(clock.sleepers(), 0);
}

// P7
#[test]
fn the_compensation_of_a_ticker_goes_with_it() {
    let clock = ManualClock::new();
    let stop = CancellationSource::new();
    let context = context(&clock).with_cancellation(stop.token());
    let mut stopped = Ticker::new(&context, TEN).expect("the period is fine");
    let mut cancelled = Ticker::new(&context, TEN).expect("the period is fine");
    let dropped = Ticker::new(&context, TEN).expect("the period is fine");
    assert_eq!(ready(&mut cancelled), (vec![], false));
    assert_eq!((context.scope().len(), clock.sleepers()), (3, 1));
    drop(dropped);
    assert_eq!(context.scope().len(), 2);
    stopped.stop();
    stopped.stop();
    assert_eq!(context.scope().len(), 1);
    stop.cancel();
    assert_eq!(ready(&mut cancelled), (vec![], true));
    assert_eq!((context.scope().len(), clock.sleepers()), (0, 0));
    for mut ended in [stopped, cancelled] {
        let error = ended.reset(TEN).expect_err("what has ended stays so");
        assert_eq!(error.code(), ErrorCode::Canceled);
    }
}

// P7
#[test]
fn a_rollback_behind_the_drop_of_a_ticker_runs_nothing() {
    let context = context(&ManualClock::new());
    let outer = StepContext::new("outer");
    let ticker = Ticker::new(&context, TEN).expect("the period is fine");
    outer.scope().absorb(context.scope());
    drop(ticker);
    // It had moved, and is withdrawn all the same.
    assert!(!outer.scope().has_actions());
    assert_eq!(roll_back(outer.scope()), 0);
}

/// What three policies do with the same late ticker.
fn late(policy: MissedTicks, taken_at: &[u64]) -> Vec<(u64, Vec<u64>)> {
    let clock = ManualClock::new();
    let ticker = Ticker::new(&context(&clock), TEN).expect("the period is fine");
    let mut ticker = ticker.missed_ticks(policy);
    let takes = taken_at.iter().map(|now| {
        clock.set(at(*now));
        (*now, ready(&mut ticker).0)
    });
    takes.collect()
}

// Rule 5.4
#[test]
fn missed_ticks_come_in_a_burst() {
    assert_eq!(
        late(MissedTicks::Burst, &[9, 10, 35, 40, 49, 70]),
        [
            (9, vec![]),
            (10, vec![10]),
            (35, vec![20, 30]),
            (40, vec![40]),
            (49, vec![]),
            (70, vec![50, 60, 70]),
        ]
    );
}

// Rule 5.4
#[test]
fn missed_ticks_delay_those_that_follow() {
    assert_eq!(
        late(MissedTicks::Delay, &[10, 35, 40, 44, 45, 58]),
        [
            (10, vec![10]),
            (35, vec![20]),
            (40, vec![]),
            (44, vec![]),
            (45, vec![45]),
            (58, vec![55]),
        ]
    );
}

// Rule 5.4
#[test]
fn missed_ticks_are_skipped_to_the_next_multiple() {
    assert_eq!(
        late(MissedTicks::Skip, &[10, 35, 39, 40, 60, 69, 70]),
        [
            (10, vec![10]),
            (35, vec![20]),
            (39, vec![]),
            (40, vec![40]),
            (60, vec![50]),
            (69, vec![]),
            (70, vec![70]),
        ]
    );
}

// Rule 5.4
#[test]
fn no_policy_ticks_before_a_clock_that_stepped_back_is_there_again() {
    for policy in [MissedTicks::Burst, MissedTicks::Delay, MissedTicks::Skip] {
        let trace = late(policy, &[10, 4, 14, 19, 3, 20, 0, 29, 30]);
        let ticks: Vec<_> = trace.into_iter().filter(|(_, ticks)| !ticks.is_empty()).collect();
        let expected = [(10, vec![10]), (20, vec![20]), (30, vec![30])];
        assert_eq!(ticks, expected, "{policy:?}");
    }
}

// Rule 3.3: `Duration::MAX`
#[test]
fn a_period_without_end_never_ticks() {
    let clock = ManualClock::new();
    let mut endless = Ticker::new(&context(&clock), Duration::MAX).expect("the period is fine");
    clock.set(Tick::MAX);
    assert_eq!(ready(&mut endless), (vec![], false));
    assert_eq!(clock.sleepers(), 0);
    // The last tick before the end of time, and none behind it.
    for policy in [MissedTicks::Burst, MissedTicks::Delay, MissedTicks::Skip] {
        clock.set(at(u64::MAX - 15));
        let mut last = Ticker::new(&context(&clock), TEN).expect("fine").missed_ticks(policy);
        clock.set(at(u64::MAX - 1));
        assert_eq!(ready(&mut last), (vec![u64::MAX - 5], false), "{policy:?}");
        clock.set(Tick::MAX);
        assert_eq!(ready(&mut last), (vec![], false), "{policy:?}");
    }
}

#[test]
fn a_jump_over_all_of_time_is_skipped_in_one_step() {
    let clock = ManualClock::new();
    let mut ticker = Ticker::new(&context(&clock), Duration::from_nanos(1)).expect("fine");
    clock.set(at(u64::MAX - 2));
    assert_eq!(ready(&mut ticker), (vec![1], false));
    clock.set(at(u64::MAX - 1));
    assert_eq!(ready(&mut ticker), (vec![u64::MAX - 1], false));
}

#[test]
fn a_reset_counts_from_its_call_and_forgets_the_old_sleep() {
    let clock = ManualClock::new();
    let mut ticker = Ticker::new(&context(&clock), TEN).expect("the period is fine");
    assert_eq!(ready(&mut ticker), (vec![], false));
    clock.advance(Duration::from_nanos(5));
    ticker.reset(Duration::from_nanos(3)).expect("it runs");
    assert_eq!((ready(&mut ticker), clock.sleepers()), ((vec![], false), 1));
    clock.advance(Duration::from_nanos(3));
    assert_eq!(ready(&mut ticker), (vec![8], false));
    clock.set(at(11));
    assert_eq!(ready(&mut ticker), (vec![11], false));
    ticker.reset(2 * TEN).expect("it runs");
    clock.set(at(14));
    assert_eq!(ready(&mut ticker), (vec![], false), "the old sleep would be over");
    clock.set(at(31));
    assert_eq!(ready(&mut ticker), (vec![31], false));
}

// Rule 2.4
#[test]
fn a_ticker_that_is_always_late_hands_the_thread_back() {
    for policy in [MissedTicks::Burst, MissedTicks::Delay, MissedTicks::Skip] {
        let clock = ManualClock::new();
        let context = context(&clock);
        let ticker = Ticker::new(&context, Duration::from_nanos(1)).expect("fine");
        let mut ticker = ticker.missed_ticks(policy);
        let woken = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&woken));
        for turn in 1..4 {
            let mut in_a_row = 0;
            loop {
                clock.advance(TEN);
                match ticker.poll_next_unpin(&mut Context::from_waker(&waker)) {
                    Poll::Ready(tick) => assert!(tick.is_some()),
                    Poll::Pending => break,
                }
                in_a_row += 1;
            }
            assert_eq!((in_a_row, woken.0.load(Ordering::Relaxed)), (64, turn), "{policy:?}");
        }
    }
}

// Rules 2.4, 3.5
#[test]
fn a_ticker_that_is_always_late_hears_its_token() {
    let (clock, stop) = (ManualClock::new(), CancellationSource::new());
    let context = context(&clock).with_cancellation(stop.token());
    let ticker = Ticker::new(&context, Duration::from_nanos(1)).expect("fine");
    clock.advance(1000 * TEN);
    let mut ticks = 0;
    let counting = ticker.missed_ticks(MissedTicks::Burst).for_each(|_| {
        ticks += 1;
        if ticks == 100 {
            stop.cancel();
        }
        std::future::ready(())
    });
    block_on(counting);
    assert_eq!(ticks, 100);
}

// A wait for the next tick that is dropped loses no tick.
#[test]
fn a_wait_for_a_tick_may_be_dropped_after_any_poll() {
    for k in 0..5 {
        let clock = ManualClock::new();
        let mut ticker = Ticker::new(&context(&clock), TEN).expect("the period is fine");
        for _ in 0..k {
            let mut next = ticker.next();
            assert!(poll_times(&mut next, 1).is_none());
        }
        clock.advance(TEN);
        drop(ticker.next());
        assert_eq!(ready(&mut ticker), (vec![10], false), "poll {k}");
    }
}

const SHORT: Duration = Duration::from_millis(1);

// Rule 5.2
async fn a_delay_takes_its_time() {
    let context = StepContext::new("suite");
    let begun = context.clock().now();
    delay(&context, SHORT).await.expect("it is over");
    assert!(context.clock().now().since(begun) >= SHORT);
}

// Rule 5.2
async fn a_ticker_ticks_in_order() {
    let context = StepContext::new("suite");
    let ticker = Ticker::new(&context, SHORT).expect("the period is fine");
    let ticks: Vec<_> = ticker.missed_ticks(MissedTicks::Burst).take(3).collect().await;
    assert_eq!(ticks[1].since(ticks[0]), SHORT);
    assert_eq!(ticks[2].since(ticks[1]), SHORT);
    assert!(context.scope().is_empty());
}

// Rules 3.5, 5.2
async fn cancellation_from_another_thread_ends_the_timers() {
    let stop = CancellationSource::new();
    let context = StepContext::new("suite").with_cancellation(stop.token());
    let canceller = std::thread::spawn(move || stop.cancel());
    let hour = Duration::from_secs(3600);
    let error = delay(&context, hour).await.expect_err("cancelled");
    assert_eq!(error.code(), ErrorCode::Canceled);
    assert_eq!(Ticker::new(&context, hour).expect("fine").next().await, None);
    canceller.join().expect("the thread ends");
}

on_every_executor! {
    a_delay_takes_its_time,
    a_ticker_ticks_in_order,
    cancellation_from_another_thread_ends_the_timers,
}
