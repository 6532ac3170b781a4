//! Rule 3.7: whatever panics in a drain becomes an error, destructors included.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use support::{Bad, Ledger, block_on, filled, poll_times, roll_back, yields};
use watershed::{
    BoxError, Clock, Commit, Compensated, ErrorCode, ManualClock, OnFailure, Sleep, Source,
    StepContext, Tick, fan_in,
};

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("bomb");
    }
}

// Rule 3.7
#[test]
fn panics_of_handler_source_callback_and_destructors_become_errors() {
    let context = StepContext::new("t");
    let in_call = fan_in(&context, [filled([1])], |_, _| {
        assert!(context.scope().len() > 9, "call");
        async { Ok::<_, BoxError>(()) }
    });
    let error = block_on(in_call).expect_err("the call panics").into_error();
    assert_eq!(error.code(), ErrorCode::Panic);
    assert!(error.to_string().contains("call"), "{error}");

    let in_poll = fan_in(&context, [filled([1])], |_, _| async {
        yields(1).await;
        assert!(context.scope().len() > 9, "poll");
        Ok::<_, BoxError>(())
    });
    let error = block_on(in_poll).expect_err("the poll panics").into_error();
    assert!(error.to_string().contains("poll"), "{error}");

    let in_destructor = fan_in(&context, [filled([1])], |_, _| {
        let bomb = Bomb;
        std::future::poll_fn(move |_| {
            let _ = &bomb;
            Poll::Ready(Ok::<_, BoxError>(()))
        })
    });
    let error = block_on(in_destructor).expect_err("the destructor panics").into_error();
    assert!(error.to_string().contains("bomb"), "{error}");

    let source = stream::poll_fn(|_| -> Poll<Option<u32>> { panic!("source") });
    let error = block_on(fan_in(&context, [source], |_, _| async { Ok::<_, BoxError>(()) }))
        .expect_err("the source panics")
        .into_error();
    assert!(error.to_string().contains("source"), "{error}");

    let in_callback = fan_in(&context, [filled([1, 2])], |_, _| async { Err::<(), _>("no") })
        .on_failure(OnFailure::Continue)
        .dead_letters(|_| -> std::future::Ready<()> { panic!("letter") });
    let error = block_on(in_callback).expect_err("the callback panics").into_error();
    assert_eq!((error.code(), error.related().len()), (ErrorCode::Handler, 1));
    assert!(error.related()[0].to_string().contains("letter"), "{error:?}");
}

/// A handler that is ready with this, once, and whose destructor panics.
fn ready_with_a_bomb<T: Unpin>(output: T) -> impl Future<Output = T> {
    let (bomb, mut output) = (Bomb, Some(output));
    std::future::poll_fn(move |_| {
        let _ = &bomb;
        output.take().map_or(Poll::Pending, Poll::Ready)
    })
}

// Rules 3.2, 3.4, 3.7
#[test]
fn the_destructor_of_a_handler_that_failed_is_attached_to_the_failure() {
    let clock = ManualClock::new();
    let context = StepContext::new("t").with_clock(Arc::new(clock.clone()));
    let refused = fan_in(&context, [filled([1])], |_, _| ready_with_a_bomb(Err::<(), _>("no")));
    let error = block_on(refused).expect_err("it fails").into_error();
    assert_eq!((error.code(), error.related()[0].code()), (ErrorCode::Handler, ErrorCode::Panic));
    assert_eq!(error.related()[0].message_number(), Some(1));

    let late = fan_in(&context, [filled([1])], |_, _| {
        let bomb = Bomb;
        std::future::poll_fn(move |_| {
            let _ = &bomb;
            Poll::<Result<(), BoxError>>::Pending
        })
    });
    let mut late = late.message_timeout(Duration::from_secs(1)).into_future();
    assert!(poll_times(&mut late, 1).is_none());
    clock.advance(Duration::from_secs(1));
    let error = poll_times(&mut late, 1).expect("it is over").expect_err("it is late").into_error();
    assert_eq!((error.code(), error.related()[0].code()), (ErrorCode::Timeout, ErrorCode::Panic));

    let panicking = fan_in(&context, [filled([1])], |_, _| {
        let bomb = Bomb;
        std::future::poll_fn(move |_| -> Poll<Result<(), BoxError>> {
            let _ = &bomb;
            panic!("poll")
        })
    });
    let error = block_on(panicking).expect_err("it panics").into_error();
    assert!(error.to_string().contains("poll"), "{error}");
    assert!(error.related()[0].to_string().contains("bomb"), "{error:?}");
}

// Rules 3.7, 4.1
#[test]
fn what_a_handler_returned_is_staged_when_its_destructor_panics() {
    let (context, undone) = (StepContext::new("t"), Arc::new(Mutex::new(0)));
    let drain = fan_in(&context, [filled([1])], |_, _| {
        let undone = Arc::clone(&undone);
        let output = Compensated::new(()).with_compensation(move || {
            *undone.lock().expect("no panic under the lock") += 1;
            async {}
        });
        ready_with_a_bomb(Ok::<_, BoxError>(output))
    });
    assert_eq!(
        block_on(drain).expect_err("its destructor panics").error().code(),
        ErrorCode::Panic
    );
    assert_eq!(roll_back(context.scope()), 1);
    assert_eq!(*undone.lock().expect("no panic under the lock"), 1);
}

// Rules 4.1, 3.7
#[test]
fn a_panic_keeps_what_the_message_staged() {
    let context = StepContext::new("t");
    let ledger = Ledger::default();
    let error = block_on(fan_in(&context, [filled([1, 2])], |message, step| {
        let ledger = ledger.clone();
        async move {
            ledger.apply(&step, message);
            assert!(message < 2, "too high");
            Ok::<_, BoxError>(())
        }
    }));
    assert_eq!(error.expect_err("it panics").error().code(), ErrorCode::Panic);
    assert_eq!(roll_back(context.scope()), 2);
    ledger.assert_undone_in_reverse();
}

// Rule 3.7
#[test]
fn payloads_that_are_not_text_or_panic_when_dropped_are_contained() {
    let context = StepContext::new("t");
    let number = fan_in(&context, [filled([1])], |_, _| async {
        yields(1).await;
        if context.scope().is_empty() {
            std::panic::panic_any(17);
        }
        Ok::<_, BoxError>(())
    });
    assert_eq!(block_on(number).expect_err("it panics").error().code(), ErrorCode::Panic);
    let bomb = fan_in(&context, [filled([1])], |_, _| async {
        if context.scope().is_empty() {
            std::panic::panic_any(Bomb);
        }
        Ok::<_, BoxError>(())
    });
    assert_eq!(block_on(bomb).expect_err("it panics").error().code(), ErrorCode::Panic);
}

// Rules 2.6, 3.7
#[test]
fn a_source_whose_destructor_panics_becomes_an_error_or_is_attached_to_one() {
    let context = StepContext::new("t");
    let bomb = Bomb;
    let ends = stream::poll_fn(move |_| -> Poll<Option<u32>> {
        let _ = &bomb;
        Poll::Ready(None)
    });
    let error = block_on(fan_in(&context, [ends], |_, _| async { Ok::<_, BoxError>(()) }))
        .expect_err("the destructor panics")
        .into_error();
    assert_eq!(error.code(), ErrorCode::Panic);
    assert!(error.to_string().contains("bomb"), "{error}");

    let bomb = Bomb;
    let idle = stream::poll_fn(move |_| -> Poll<Option<u32>> {
        let _ = &bomb;
        Poll::Pending
    });
    let sources = [idle.boxed().named("idle"), filled([1]).boxed().named("fails")];
    let error = block_on(fan_in(&context, sources, |m, _| async move { Err::<(), _>(Bad(m)) }))
        .expect_err("the drain fails")
        .into_error();
    assert_eq!(error.downcast_ref::<Bad>(), Some(&Bad(1)));
    let related: Vec<_> = error.related().iter().map(|e| (e.code(), e.source_name())).collect();
    assert_eq!(related, [(ErrorCode::Panic, Some("idle"))]);

    let bomb = Bomb;
    let broken = stream::poll_fn(move |_| -> Poll<Option<u32>> {
        let _ = &bomb;
        panic!("a broken source");
    });
    let error = block_on(fan_in(&context, [broken], |_, _| async { Ok::<_, BoxError>(()) }))
        .expect_err("the source panics")
        .into_error();
    assert!(error.to_string().contains("a broken source"), "{error}");
    assert_eq!(error.related().len(), 1);
    assert!(error.related()[0].to_string().contains("bomb"), "{error:?}");
}

/// Its sleeps never end, and panic when they are dropped.
#[derive(Clone, Debug)]
struct BombClock;

impl Clock for BombClock {
    fn now(&self) -> Tick {
        Tick::ZERO
    }

    fn sleep_until(&self, _: Tick) -> Sleep {
        let bomb = Bomb;
        Box::pin(async move {
            std::future::pending::<()>().await;
            drop(bomb);
        })
    }
}

// Rules 2.7, 3.7
#[test]
fn destructors_of_the_timer_and_of_the_stream_of_sources_stay_inside() {
    let incoming = || {
        let bomb = Bomb;
        stream::poll_fn(move |_| -> Poll<Option<stream::Iter<std::ops::Range<u32>>>> {
            let _ = &bomb;
            Poll::Pending
        })
    };
    let context = StepContext::new("t").with_clock(Arc::new(BombClock));
    for fails in [false, true] {
        let drain = fan_in(&context, [stream::iter(0..1)], |m, _| async move {
            if fails { Err(Bad(m)) } else { Ok(()) }
        });
        let result = block_on(drain.timeout(Duration::from_secs(1)));
        assert_eq!(result.is_err(), fails, "the drain ends as if nothing had happened");

        let drain = fan_in(&context, [stream::iter(0..1)], |m, _| async move {
            if fails { Err(Bad(m)) } else { Ok(()) }
        });
        let mut drain = drain.timeout(Duration::from_secs(1)).incoming(incoming()).into_future();
        let polled = poll_times(&mut drain, 1);
        assert_eq!(polled.is_some(), fails, "others may come");
        if let Some(result) = polled {
            let error = result.expect_err("it fails").into_error();
            assert_eq!(error.downcast_ref::<Bad>(), Some(&Bad(0)));
            assert!(error.related()[0].to_string().contains("bomb"), "{error:?}");
        }
        drop(drain);
    }
}

// Rule 3.7
#[test]
fn a_drain_polled_after_its_end_answers_with_an_error() {
    let context = StepContext::new("t");
    let drain = fan_in(&context, [filled([1])], |_, _| async { Ok::<_, BoxError>(()) });
    let mut drain = drain.into_future();
    assert!(poll_times(&mut drain, 1).is_some_and(|result| result.is_ok()));
    let again = poll_times(&mut drain, 1)
        .expect("it is over")
        .expect_err("it was over before")
        .into_error();
    assert_eq!(again.code(), ErrorCode::Unspecified);
}

/// A clock that panics when it is asked for the n-th time.
#[derive(Debug)]
struct BrokenClock(ManualClock, AtomicUsize);

impl Clock for BrokenClock {
    fn now(&self) -> Tick {
        let left = self.1.load(Ordering::Relaxed);
        assert_ne!(left, 0, "the clock is broken");
        self.1.store(left - 1, Ordering::Relaxed);
        self.0.now()
    }

    fn sleep_until(&self, deadline: Tick) -> Sleep {
        self.0.sleep_until(deadline)
    }
}

// Rules 3.7, 4.1
#[test]
fn a_clock_that_panics_at_any_time_is_contained_and_nothing_staged_is_lost() {
    let mut failed = 0;
    for readings in 0..100 {
        let clock = BrokenClock(ManualClock::new(), AtomicUsize::new(readings));
        let context = StepContext::new("t").with_clock(Arc::new(clock));
        let ledger = Ledger::default();
        let sources = [filled([1, 2, 3]), filled([4, 5])];
        let result = block_on(
            fan_in(&context, sources, |message, step| {
                let ledger = ledger.clone();
                async move {
                    ledger.apply(&step, message);
                    yields(1).await;
                    Ok::<_, BoxError>(())
                }
            })
            .timeout(Duration::from_secs(1))
            .message_timeout(Duration::from_secs(1))
            .concurrency(2)
            .commit(Commit::Never),
        );
        if let Err(error) = &result {
            assert_eq!(error.error().code(), ErrorCode::Panic, "{error}");
            failed += 1;
        }
        assert_eq!(roll_back(context.scope()), ledger.done().len(), "{readings} readings");
        ledger.assert_undone_in_reverse();
        if result.is_ok() {
            break;
        }
    }
    assert!((3..100).contains(&failed), "{failed}");
}
