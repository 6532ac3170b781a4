//! Wakers are the executor's code: whatever they do, they do it to themselves alone.
//! Rules 4.12, 2.5, 5.4.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use watershed::timers::delay;
use watershed::{
    BoxError, CancellationSource, CancellationToken, Clock, ManualClock, StepContext, SystemClock,
    Tick, fan_in,
};

use crate::support::Hand;

/// Panics when it is woken.
struct PanicsWoken;

impl Wake for PanicsWoken {
    fn wake(self: Arc<Self>) {
        panic!("the waker");
    }
}

/// Panics when its last copy is dropped; tells on which thread that was.
struct PanicsDropped(mpsc::Sender<Option<String>>);

impl Wake for PanicsDropped {
    fn wake(self: Arc<Self>) {}
}

impl Drop for PanicsDropped {
    fn drop(&mut self) {
        let _ = self.0.send(std::thread::current().name().map(str::to_owned));
        panic!("the destructor of the waker");
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn counting() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count::default());
    (Arc::clone(&count), Waker::from(count))
}

/// The system clock still wakes whoever waits for it.
fn the_clock_is_alive() {
    block_on(SystemClock::new().sleep_until(SystemClock::new().now() + Duration::from_millis(5)));
    SystemClock::new().check().unwrap();
}

// Rule 4.12; fault d11
#[test]
fn a_waker_that_panics_does_not_stop_the_clock_of_the_process() {
    let context = StepContext::new("orders");
    let mut wait = delay(&context, Duration::from_millis(5));
    let bad = Waker::from(Arc::new(PanicsWoken));
    for waker in [Waker::noop(), &bad] {
        assert!(wait.poll_unpin(&mut Context::from_waker(waker)).is_pending());
    }
    // The thread serves this one after the one above.
    the_clock_is_alive();
    the_clock_is_alive();
    block_on(wait).unwrap();
}

// Rule 4.12; fault d11
#[test]
fn a_waker_whose_destructor_panics_does_not_stop_the_clock_of_the_process() {
    // Dropped with the wait, replaced by another one, and used up by being woken.
    for way in ["dropped", "replaced", "woken", "forgotten"] {
        let (sender, dropped) = mpsc::channel();
        let bad = Waker::from(Arc::new(PanicsDropped(sender)));
        let clock = SystemClock::new();
        let mut wait = clock.sleep_until(clock.now() + Duration::from_millis(5));
        assert!(wait.poll_unpin(&mut Context::from_waker(&bad)).is_pending());
        // The last copy is that of the wait.
        std::mem::drop(bad);
        match way {
            "dropped" => drop(wait),
            "replaced" => {
                let polled = wait.poll_unpin(&mut Context::from_waker(Waker::noop()));
                assert!(polled.is_pending());
            }
            "woken" => {
                the_clock_is_alive();
                assert!(wait.poll_unpin(&mut Context::from_waker(Waker::noop())).is_ready());
            }
            _ => std::mem::forget(wait),
        }
        dropped.recv_timeout(Duration::from_secs(30)).expect("it is dropped");
        the_clock_is_alive();
    }
}

// Rules 4.12, 2.5
#[test]
fn a_wait_of_the_system_clock_wakes_whoever_polled_it_last() {
    let clock = SystemClock::new();
    let mut wait = clock.sleep_until(clock.now() + Duration::from_millis(30));
    let ((old, first), (new, second)) = (counting(), counting());
    for waker in [&first, &first, &second, &first, &second] {
        assert!(wait.poll_unpin(&mut Context::from_waker(waker)).is_pending());
    }
    while new.0.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(old.0.load(Ordering::SeqCst), 0, "nobody waits with it any more");
    assert!(wait.poll_unpin(&mut Context::from_waker(&first)).is_ready());
}

// Rule 2.5
#[test]
fn a_wait_of_a_manual_clock_and_of_a_token_wakes_whoever_polled_it_last() {
    let (clock, source) = (ManualClock::new(), CancellationSource::new());
    let tokens = [CancellationSource::new().token(), source.token()];
    let mut sleep = clock.sleep_until(Tick::from_nanos(5));
    let mut cancelled = CancellationToken::linked(tokens).cancelled();
    let ((old, first), (new, second)) = (counting(), counting());
    for waker in [&first, &first, &second, &first, &second] {
        assert!(sleep.poll_unpin(&mut Context::from_waker(waker)).is_pending());
        assert!(cancelled.poll_unpin(&mut Context::from_waker(waker)).is_pending());
    }
    assert_eq!(clock.sleepers(), 1, "it waits once");
    clock.advance(Duration::from_nanos(5));
    source.cancel();
    assert_eq!((old.0.load(Ordering::SeqCst), new.0.load(Ordering::SeqCst)), (0, 2));
}

// Rule 4.12
#[test]
fn a_waker_that_panics_keeps_no_other_from_being_woken_by_a_manual_clock_or_a_token() {
    let (clock, source) = (ManualClock::new(), CancellationSource::new());
    let bad = Waker::from(Arc::new(PanicsWoken));
    let (count, good) = counting();
    let mut sleeps: Vec<_> = (0..3).map(|_| clock.sleep_until(Tick::from_nanos(5))).collect();
    let mut waits: Vec<_> = (0..3).map(|_| source.token().cancelled()).collect();
    for (index, waker) in [&good, &bad, &good].into_iter().enumerate() {
        let mut cx = Context::from_waker(waker);
        assert!(sleeps[index].poll_unpin(&mut cx).is_pending());
        assert!(waits[index].poll_unpin(&mut cx).is_pending());
    }
    clock.advance(Duration::from_nanos(5));
    source.cancel();
    assert_eq!(count.0.load(Ordering::SeqCst), 4);
}

// Rule 4.12
#[test]
fn waits_contain_the_destructors_of_wakers_however_they_end() {
    for way in ["dropped", "replaced", "ended"] {
        let (clock, source) = (ManualClock::new(), CancellationSource::new());
        let tokens = [source.token(), CancellationSource::new().token()];
        let mut sleep = clock.sleep_until(Tick::from_nanos(5));
        let mut cancelled = CancellationToken::linked(tokens).cancelled();
        let (sender, dropped) = mpsc::channel();
        let bad = || Waker::from(Arc::new(PanicsDropped(sender.clone())));
        let (one, other) = (bad(), bad());
        assert!(sleep.poll_unpin(&mut Context::from_waker(&one)).is_pending());
        assert!(cancelled.poll_unpin(&mut Context::from_waker(&other)).is_pending());
        std::mem::drop((one, other));
        match way {
            "dropped" => drop((sleep, cancelled)),
            "replaced" => {
                let mut cx = Context::from_waker(Waker::noop());
                assert!(sleep.poll_unpin(&mut cx).is_pending());
                assert!(cancelled.poll_unpin(&mut cx).is_pending());
            }
            _ => {
                clock.advance(Duration::from_nanos(5));
                source.cancel();
                let mut cx = Context::from_waker(Waker::noop());
                assert!(sleep.poll_unpin(&mut cx).is_ready());
                assert!(cancelled.poll_unpin(&mut cx).is_ready());
                drop((sleep, cancelled));
            }
        }
        assert_eq!(dropped.try_iter().count(), 2, "{way}");
    }
}

// Rule 4.12
#[test]
fn a_waker_may_use_the_clock_and_the_token_that_wake_and_drop_it() {
    struct Uses(ManualClock, CancellationSource);
    impl Wake for Uses {
        fn wake(self: Arc<Self>) {
            self.0.advance_to_next();
            self.1.cancel();
        }
    }
    impl Drop for Uses {
        fn drop(&mut self) {
            assert!(self.0.sleepers() <= 1);
            assert!(self.1.token().cancelled().now_or_never().is_some() || !self.1.is_cancelled());
        }
    }
    for ends in [true, false] {
        let (clock, source) = (ManualClock::new(), CancellationSource::new());
        let mut sleep = clock.sleep_until(Tick::from_nanos(5));
        let mut cancelled = source.token().cancelled();
        for _ in 0..2 {
            let waker = Waker::from(Arc::new(Uses(clock.clone(), source.clone())));
            assert!(sleep.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
            assert!(cancelled.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        }
        if ends {
            clock.advance(Duration::from_nanos(5));
            assert!(source.is_cancelled());
        }
    }
}

/// Wakes somebody whenever it is asked to wait, as a clock that sets itself does.
#[derive(Debug, Default)]
struct WakesWhenAsked {
    clock: ManualClock,
    whom: Arc<std::sync::Mutex<Vec<Waker>>>,
}

impl Clock for WakesWhenAsked {
    fn now(&self) -> Tick {
        self.clock.now()
    }

    fn sleep_until(&self, deadline: Tick) -> watershed::Sleep {
        let woken = std::mem::take(&mut *self.whom.lock().unwrap());
        woken.into_iter().for_each(Waker::wake);
        self.clock.sleep_until(deadline)
    }
}

// Rules 2.5 and 5.4
#[test]
fn a_clock_that_wakes_a_handler_while_the_drain_asks_it_to_wait_is_heard() {
    let clock = Arc::new(WakesWhenAsked::default());
    let whom = Arc::clone(&clock.whom);
    let context = StepContext::new("orders").with_clock(clock);
    let handler = move |(), _| {
        let (whom, mut asked) = (Arc::clone(&whom), false);
        std::future::poll_fn(move |cx| {
            if std::mem::replace(&mut asked, true) {
                return std::task::Poll::Ready(Ok::<_, BoxError>(()));
            }
            whom.lock().unwrap().push(cx.waker().clone());
            std::task::Poll::Pending
        })
    };
    let sources = [futures::stream::iter([()])];
    let drain = fan_in(&context, sources, handler).message_timeout(Duration::from_secs(1));
    let mut drain = Hand::new(drain.into_future());
    let std::task::Poll::Ready(result) = drain.run() else { panic!("nobody wakes the drain") };
    assert_eq!(result.unwrap().handled(), 1);
}
