//! Programs of somebody who tried to break compensations, and everything beside the drain, for the
//! second time, with nothing but the contract and the docs. Each is named after what was seen.

use futures::{FutureExt, stream};
use std::future::{Future, IntoFuture};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use watershed::*;

// Reservation::disarm, CompensationScope::len, RollbackReport::succeeded (6.3)
// Seen: a scope is absorbed while one of its actions runs; the rollback is dropped; disarm() says false, len() stays
// 1, and the next rollback reports an action that "ran and succeeded" though nothing ran.
// Promised: "Withdraws the action, also where it has moved to another scope. Returns whether it was still staged; false
// means that it had been run or cleared already, or that a rollback has it in hand". Without the absorb it is so.
#[test]
fn disarm_says_false_and_the_withdrawn_action_counts_as_succeeded_after_an_absorb_beside_a_rollback()
 {
    let (scope, other) = (CompensationScope::new(), CompensationScope::new());
    let reservation = scope.reserve(std::future::pending::<()>);
    let mut rollback = scope.roll_back(&CompensationPolicy::default());
    assert!((&mut rollback).now_or_never().is_none());
    other.absorb(&scope);
    drop(rollback);
    assert_eq!(scope.len() + other.len(), 1, "it is staged");
    let disarmed = reservation.disarm();
    let staged = scope.len() + other.len();
    let succeeded = [&scope, &other].map(|s| {
        s.roll_back(&CompensationPolicy::default()).now_or_never().unwrap().unwrap().succeeded()
    });
    assert_eq!((disarmed, staged, succeeded), (true, 0, [0, 0]));
}

/// A clock that stands still, but at one of its looks at the time jumps by 100 ns, as time that passes during a poll does.
#[derive(Debug, Clone)]
struct Jumps {
    clock: ManualClock,
    at_look: u64,
    looks: Arc<AtomicU64>,
}
impl Clock for Jumps {
    fn now(&self) -> Tick {
        if self.looks.fetch_add(1, SeqCst) == self.at_look {
            self.clock.advance(Duration::from_nanos(100));
        }
        self.clock.now()
    }
    fn sleep_until(&self, deadline: Tick) -> Sleep {
        self.clock.sleep_until(deadline)
    }
}
#[derive(Default)]
struct Flag(std::sync::atomic::AtomicBool);
impl std::task::Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst)
    }
}

// 3.10, 5.4 ("What is due is judged by the clock's `now` at each look, not by whether a timer has fired")
// Seen: an unordered (or `ordered_by`) drain with a message that waits for its retry is pending for ever, nobody will wake
// it and nobody sleeps, when the retry becomes due between two looks at the clock within one poll. In-order drains are right.
// Promised: a due retry is begun. (Under a clock that stands still during a poll it never shows.)
#[test]
fn a_drain_hangs_when_its_retry_becomes_due_while_it_is_polled() {
    for at_look in 0..40 {
        let clock = Jumps { clock: ManualClock::new(), at_look, looks: Arc::default() };
        let context = StepContext::new("orders").with_clock(Arc::new(clock.clone()));
        let drain = fan_in(&context, [stream::iter([1])], async |_, step: StepContext| {
            if step.attempt() < 2 { Err("busy") } else { Ok(()) }
        })
        .unordered() // the same with .ordered_by(|_| 0)
        .retry(RetryPolicy::fixed(2, Duration::from_nanos(5)));
        let mut drain = std::pin::pin!(drain.into_future());
        loop {
            let flag = Arc::new(Flag::default());
            if drain.as_mut().poll(&mut Context::from_waker(&Waker::from(flag.clone()))).is_ready()
            {
                break;
            }
            assert!(
                flag.0.load(SeqCst) || clock.clock.advance_to_next(),
                "jump at look {at_look}: pending, not woken, and no sleeper waits for the clock"
            );
        }
    }
}

/// A source that tells when it is polled.
struct Told(Arc<AtomicU64>);
impl futures::Stream for Told {
    type Item = ();
    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> std::task::Poll<Option<()>> {
        self.0.fetch_add(1, SeqCst);
        std::task::Poll::Ready(Some(()))
    }
}

// 2.7, SourceHandle::{ended, pause, remove}, SourceEnd::NotYet ("a source … ends only when that handler has")
// Seen: in an `unordered` (or `ordered_by`) drain `ended()` says `Drained`, `pause()` says false and has no effect, and
// `remove()` is ready at once, while a handler of the source still runs or a message of it waits for its retry; even a
// handler of the source itself is told `Drained` and not `NotYet`. In order (the default) it is as documented.
// Promised: a paused source starts no handler, due retries wait; a removal waits for messages in flight; NotYet.
#[test]
fn a_live_source_counts_as_ended_while_its_retry_waits_or_its_handler_runs() {
    let clock = ManualClock::new();
    let context = StepContext::new("x").with_clock(Arc::new(clock.clone()));
    let (live, incoming) = channels::live();
    let handle = live.add(stream::iter(0..1)).ok().unwrap();
    drop(live);
    let mut drain = fan_in(
        &context,
        Vec::<channels::LiveSource<stream::Iter<std::ops::Range<u32>>>>::new(),
        async |_, step: StepContext| if step.attempt() == 1 { Err("busy") } else { Ok(()) },
    )
    .incoming(incoming)
    .unordered() // without this line: (None, true)
    .retry(RetryPolicy::fixed(2, Duration::from_secs(1)))
    .into_future();
    assert!((&mut drain).now_or_never().is_none(), "the retry waits");
    assert_eq!((handle.ended().now_or_never(), handle.pause()), (None, true));
}
#[test]
fn a_handler_is_told_that_its_own_source_has_drained() {
    let context = StepContext::new("x");
    let (live, incoming) = channels::live();
    let handle = live.add(stream::iter(0..1)).ok().unwrap();
    drop(live);
    let handle = &handle;
    futures::executor::block_on(
        fan_in(
            &context,
            Vec::<channels::LiveSource<stream::Iter<std::ops::Range<u32>>>>::new(),
            async |_, _| {
                let mut again = true; // waits for one poll
                futures::future::poll_fn(|cx| {
                    if std::mem::take(&mut again) {
                        cx.waker().wake_by_ref();
                        std::task::Poll::Pending
                    } else {
                        std::task::Poll::Ready(())
                    }
                })
                .await;
                assert_eq!(handle.ended().await, channels::SourceEnd::NotYet);
                Ok::<_, Error>(())
            },
        )
        .incoming(incoming)
        .unordered()
        .concurrency(2)
        .into_future(),
    )
    .unwrap();
}

// 4.4 ("What succeeded has run exactly once and is gone"), 4.10, 4.15
// Seen: an action of a LocalUndos whose retry became due while a rollback without the LocalUndos was polled is run by the
// rollback of *another scope* that was given the LocalUndos, succeeds there, and is run again by the next rollback of its own
// scope, as its success is not noted anywhere.
#[test]
fn a_local_action_runs_again_after_it_succeeded_in_the_rollback_of_another_scope() {
    let clock = ManualClock::new();
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let (scope, other, undos) =
        (CompensationScope::new(), CompensationScope::new(), LocalUndos::new());
    let (succeeded, mut runs) = (std::rc::Rc::new(std::cell::Cell::new(0)), 0);
    let counted = succeeded.clone();
    undos.register(&scope, move || {
        runs += 1;
        let (run, counted) = (runs, counted.clone());
        async move {
            if run == 1 {
                Err("busy")
            } else {
                counted.set(counted.get() + 1);
                Ok(())
            }
        }
    });
    let policy =
        CompensationPolicy::default().retry(RetryPolicy::fixed(2, Duration::from_nanos(3)));
    let mut first = scope.roll_back(&policy).clock(&shared).local(&undos);
    assert!((&mut first).now_or_never().is_none(), "it waits for its second attempt");
    clock.advance(Duration::from_nanos(3));
    let mut second = scope.roll_back(&CompensationPolicy::default()).clock(&shared); // is not given the local actions
    assert!((&mut second).now_or_never().is_none());
    undos.register(&other, async || {});
    let mut third = other.roll_back(&CompensationPolicy::default()).clock(&shared).local(&undos);
    let third_report = (&mut third).now_or_never();
    let early = succeeded.get();
    drop((first, second, third));
    let _ = scope.roll_back(&CompensationPolicy::default()).local(&undos).now_or_never();
    // The attempt is that of the rollback that started it, and nobody else's; it succeeds once.
    assert_eq!((early, succeeded.get()), (0, 1), "{third_report:?}");
}

// 6.2 ("a library function never panics on a user's input"), 5.6; timers::ticker and all the other operations contain it
// Seen: a panic of the user's `Clock::check` crosses `Window::stream`. Low.
#[test]
fn a_panic_of_clock_check_crosses_window_stream() {
    #[derive(Debug)]
    struct Bad;
    impl Clock for Bad {
        fn now(&self) -> Tick {
            Tick::ZERO
        }
        fn sleep_until(&self, _: Tick) -> Sleep {
            Box::pin(std::future::pending())
        }
        fn check(&self) -> Result<(), Error> {
            panic!("planned")
        }
    }
    let context = StepContext::new("x").with_clock(Arc::new(Bad));
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        channels::Window::new(&context, stream::iter([1]))
            .every(Duration::from_secs(1))
            .stream()
            .map(drop)
    }));
    assert!(
        timers::Ticker::new(&context, Duration::from_secs(1)).is_err(),
        "ticker: ErrorCode::Panic"
    );
    assert!(opened.is_ok(), "the panic came out of `stream`");
}
