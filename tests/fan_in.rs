//! Sections 2 and 3: what is taken, in which order, and how a drain ends.

mod support;

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use support::{Ledger, block_on, filled, left_in, poll_times, roll_back, yields};
use watershed::{
    BoxError, CancellationSource, CancellationToken, Clock, Commit, Compensated,
    CompensationPolicy, Error, ErrorCode, ManualClock, OnFailure, RetryPolicy, Sleep, Source,
    StepContext, Tick, fan_in, labelled, run_compensation,
};

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("message {0} is bad")]
struct Bad(u32);

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("bomb");
    }
}

fn permits(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("not zero")
}

// Rule 2.1
#[test]
fn after_an_abort_the_messages_left_are_exactly_those_whose_handlers_never_ran() {
    for bad in 0..30 {
        for concurrency in [1, 2, 3] {
            let sources: Vec<_> = (0..3).map(|s| filled((0..10).map(|m| s * 10 + m))).collect();
            let seen = Mutex::new(Vec::new());
            let context = StepContext::new("t");
            let outcome = block_on(
                fan_in(&context, sources.clone(), |message, _| {
                    seen.lock().expect("no panic").push(message);
                    async move {
                        yields(message as usize % 4).await;
                        if message == bad { Err(Bad(message)) } else { Ok(()) }
                    }
                })
                .concurrency(permits(concurrency))
                .quantum(permits(2)),
            );
            assert!(outcome.is_err());
            let mut all = seen.into_inner().expect("no panic");
            all.extend(sources.iter().flat_map(left_in));
            all.sort_unstable();
            assert_eq!(all, (0..30).collect::<Vec<_>>(), "bad {bad}, concurrency {concurrency}");
        }
    }
}

// Rule 2.2
#[test]
fn messages_of_a_source_are_handled_in_order_and_concurrency_is_bounded() {
    for concurrency in [1, 2, 5] {
        let sources: Vec<_> = (0..5).map(|s| filled((0..20).map(move |m| (s, m)))).collect();
        let running = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        let seen = Mutex::new(vec![Vec::new(); 5]);
        let context = StepContext::new("t");
        block_on(
            fan_in(&context, sources, |(source, message), _| {
                let (running, most, seen) = (&running, &most, &seen);
                async move {
                    most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    seen.lock().expect("no panic")[source].push(message);
                    yields(message % 3).await;
                    running.fetch_sub(1, Ordering::Relaxed);
                    Ok::<_, BoxError>(())
                }
            })
            .concurrency(permits(concurrency)),
        )
        .expect("the drain succeeds");
        assert_eq!(most.into_inner(), concurrency);
        for source in seen.into_inner().expect("no panic") {
            assert_eq!(source, (0..20).collect::<Vec<_>>());
        }
    }
}

// Rule 2.5
#[test]
fn a_handler_in_flight_goes_on_while_another_source_is_always_ready() {
    let (sender, receiver) = futures::channel::oneshot::channel::<()>();
    let mut sender = Some(sender);
    let mut receiver = Some(receiver);
    let mut count = 0;
    let sources = [filled([0]).boxed(), stream::repeat(1).take(5_000).boxed()];
    let context = StepContext::new("t");
    let finished = Arc::new(AtomicUsize::new(0));
    block_on(
        fan_in(&context, sources, |message, _| {
            let waits = if message == 0 { receiver.take() } else { None };
            count += 1;
            if count == 1_000 {
                drop(sender.take());
            }
            let finished = Arc::clone(&finished);
            let now = count;
            async move {
                if let Some(waits) = waits {
                    assert!(waits.await.is_err());
                    finished.store(1, Ordering::Relaxed);
                } else if now == 4_000 {
                    assert_eq!(finished.load(Ordering::Relaxed), 1, "the first was not frozen");
                }
                Ok::<_, BoxError>(())
            }
        })
        .concurrency(permits(2)),
    )
    .expect("the drain succeeds");
}

// Rule 2.6
#[test]
fn a_source_that_ends_is_dropped_at_once_and_not_polled_again() {
    struct Once(Arc<AtomicUsize>, bool);
    impl futures::Stream for Once {
        type Item = u32;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> Poll<Option<u32>> {
            assert!(!self.1, "polled after its end");
            self.1 = true;
            Poll::Ready(None)
        }
    }
    impl Drop for Once {
        fn drop(&mut self) {
            self.0.store(1, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let sources = [Once(Arc::clone(&dropped), false).boxed(), filled([1, 2, 3]).boxed()];
    let context = StepContext::new("t");
    block_on(fan_in(&context, sources, |message, _| {
        let dropped = Arc::clone(&dropped);
        async move {
            assert_eq!(dropped.load(Ordering::Relaxed), 1, "at message {message}");
            Ok::<_, BoxError>(())
        }
    }))
    .expect("the drain succeeds");
}

// Rule 2.6
#[test]
fn zero_sources_succeed_at_once() {
    let context = StepContext::new("t");
    let none: [async_channel::Receiver<u32>; 0] = [];
    let report = block_on(fan_in(&context, none, |_, _| async { Ok::<_, BoxError>(()) }));
    assert_eq!(report.expect("the drain succeeds").handled(), 0);
}

// Rules 3.1, 6.1
#[test]
fn an_error_names_source_and_message_and_gives_the_users_error_back() {
    let context = StepContext::new("t");
    let sources = [filled([1, 2]).named("web"), filled([3, 4, 5]).named("phone")];
    let error = block_on(fan_in(&context, sources, |message, _| async move {
        if message == 4 { Err(Bad(message)) } else { Ok(()) }
    }))
    .expect_err("the drain fails");
    assert_eq!(error.downcast_ref::<Bad>(), Some(&Bad(4)));
    assert_eq!((error.source_name(), error.message_number()), (Some("phone"), Some(2)));
    assert_eq!(error.metadata("handled"), Some("3"));
}

// Rule 3.2
#[test]
fn further_errors_are_attached_in_the_order_of_sources() {
    let context = StepContext::new("t");
    let sources = [filled([1]), filled([2]), filled([3])];
    let error = block_on(
        fan_in(&context, sources, |message, step| async move {
            if message == 2 {
                yields(1).await;
            } else {
                step.cancellation().cancelled().await;
            }
            Err::<(), _>(Bad(message))
        })
        .concurrency(permits(3)),
    )
    .expect_err("the drain fails");
    assert_eq!(error.downcast_ref::<Bad>(), Some(&Bad(2)));
    let related: Vec<_> = error.related().iter().filter_map(|e| e.downcast_ref::<Bad>()).collect();
    assert_eq!(related, [&Bad(1), &Bad(3)]);
}

// Rule 3.2
#[test]
fn a_source_fault_is_noticed_although_another_source_is_always_ready() {
    let context = StepContext::new("t");
    let faulty = stream::iter([Ok(1), Err(Bad(7))]).boxed();
    let busy = stream::repeat_with(|| Ok(1)).boxed();
    let sources = [busy.faults().named("busy"), faulty.faults().named("faulty")];
    let mut count = 0;
    let error = block_on(fan_in(&context, sources, |_, _| {
        count += 1;
        async { Ok::<_, BoxError>(()) }
    }))
    .expect_err("the drain fails");
    assert_eq!(error.code(), ErrorCode::Source);
    assert_eq!(error.source_name(), Some("faulty"));
    assert_eq!(error.downcast_ref::<Bad>(), Some(&Bad(7)));
    assert!(count <= 64 + 1, "one turn of the busy source at most, not {count} messages");
}

// Rule 3.7
#[test]
fn panics_of_handler_source_callback_and_destructors_become_errors() {
    let context = StepContext::new("t");
    let in_call = fan_in(&context, [filled([1])], |_, _| {
        assert!(context.scope().len() > 9, "call");
        async { Ok::<_, BoxError>(()) }
    });
    let error = block_on(in_call).expect_err("the call panics");
    assert_eq!(error.code(), ErrorCode::Panic);
    assert!(error.to_string().contains("call"), "{error}");

    let in_poll = fan_in(&context, [filled([1])], |_, _| async {
        yields(1).await;
        assert!(context.scope().len() > 9, "poll");
        Ok::<_, BoxError>(())
    });
    let error = block_on(in_poll).expect_err("the poll panics");
    assert!(error.to_string().contains("poll"), "{error}");

    let in_destructor = fan_in(&context, [filled([1])], |_, _| {
        let bomb = Bomb;
        std::future::poll_fn(move |_| {
            let _ = &bomb;
            Poll::Ready(Ok::<_, BoxError>(()))
        })
    });
    let error = block_on(in_destructor).expect_err("the destructor panics");
    assert!(error.to_string().contains("bomb"), "{error}");

    let source = stream::poll_fn(|_| -> Poll<Option<u32>> { panic!("source") });
    let error = block_on(fan_in(&context, [source], |_, _| async { Ok::<_, BoxError>(()) }))
        .expect_err("the source panics");
    assert!(error.to_string().contains("source"), "{error}");

    let in_callback = fan_in(&context, [filled([1, 2])], |_, _| async { Err::<(), _>("no") })
        .on_failure(OnFailure::RollBackMessage)
        .dead_letter(|_| panic!("letter"));
    let error = block_on(in_callback).expect_err("the callback panics");
    assert!(error.to_string().contains("letter"), "{error}");
}

// Rule 4.3: what comes back from a handler is used again or freed, whenever that is
#[test]
fn no_context_is_leaked_whenever_its_handler_drops_it() {
    #[derive(Clone, Copy, Debug)]
    enum Dropped {
        InTheCall,
        BeforeTheWait,
        BehindTheWait,
    }
    for when in [Dropped::InTheCall, Dropped::BeforeTheWait, Dropped::BehindTheWait] {
        for mode in [OnFailure::RollBackMessage, OnFailure::Abort] {
            for fails in [false, true] {
                let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
                let context = StepContext::new("t").with_clock(Arc::clone(&clock));
                let sources = [filled([1, 2, 3]), filled([4, 5, 6]), filled([7, 8, 9])];
                let drain = fan_in(&context, sources, |message: u32, step| {
                    step.register_compensation(|| async {});
                    let mut step =
                        if matches!(when, Dropped::InTheCall) { None } else { Some(step) };
                    async move {
                        if matches!(when, Dropped::BeforeTheWait) {
                            step = None;
                        }
                        yields(1 + message as usize % 2).await;
                        drop(step);
                        if fails && message % 4 == 0 { Err("no") } else { Ok(()) }
                    }
                });
                let drain = drain.on_failure(mode).commit(Commit::Message);
                let two = NonZeroUsize::new(2).expect("not zero");
                let ended = block_on(drain.concurrency(two));
                assert_eq!(ended.is_err(), fails && mode == OnFailure::Abort);
                roll_back(context.scope());
                drop((context, ended));
                assert_eq!(Arc::strong_count(&clock), 1, "{when:?}, {mode:?}, fails: {fails}");
            }
        }
    }
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
    let error = block_on(refused).expect_err("it fails");
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
    let error = poll_times(&mut late, 1).expect("it is over").expect_err("it is late");
    assert_eq!((error.code(), error.related()[0].code()), (ErrorCode::Timeout, ErrorCode::Panic));

    let panicking = fan_in(&context, [filled([1])], |_, _| {
        let bomb = Bomb;
        std::future::poll_fn(move |_| -> Poll<Result<(), BoxError>> {
            let _ = &bomb;
            panic!("poll")
        })
    });
    let error = block_on(panicking).expect_err("it panics");
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
    assert_eq!(block_on(drain).expect_err("its destructor panics").code(), ErrorCode::Panic);
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
    assert_eq!(error.expect_err("it panics").code(), ErrorCode::Panic);
    let rollback = run_compensation(
        &CompensationPolicy::default(),
        context.scope(),
        CancellationToken::never(),
    );
    assert_eq!(block_on(rollback).expect("the rollback succeeds").succeeded(), 2);
    ledger.assert_undone_in_reverse();
}

// Rule 3.8
#[test]
fn a_failed_message_is_rolled_back_alone_and_the_drain_goes_on() {
    for commit in [Commit::Pipeline, Commit::Message] {
        let context = StepContext::new("t");
        let ledger = Ledger::default();
        let mut letters = Vec::new();
        let report = block_on(
            fan_in(&context, [filled([1, 2, 3]), filled([4, 5, 6])], |message, step| {
                let ledger = ledger.clone();
                async move {
                    ledger.apply(&step, message * 10);
                    ledger.apply(&step, message * 10 + 1);
                    if message % 3 == 2 {
                        assert_ne!(message, 5, "five panics");
                        return Err(Bad(message));
                    }
                    Ok(())
                }
            })
            .commit(commit)
            .on_failure(OnFailure::RollBackMessage)
            .dead_letter(|letter| {
                letters.push((letter.error().code(), letter.rollback().expect("ok").succeeded()));
            }),
        )
        .expect("the drain succeeds");
        assert_eq!((report.handled(), report.rolled_back()), (4, 2));
        assert_eq!(letters, [(ErrorCode::Handler, 2), (ErrorCode::Panic, 2)]);
        assert_eq!(ledger.undone(), [21, 20, 51, 50]);
        assert!(context.scope().is_empty(), "{commit:?}");
    }
}

// Rule 5.3
#[test]
fn a_drain_is_send_with_parts_that_are_and_works_with_parts_that_are_not() {
    fn assert_send<T: Send>(value: T) -> T {
        value
    }
    let context = StepContext::new("t");
    let cell = Cell::new(0);
    let drain = fan_in(&context, [filled([1, 2])], move |_, _| {
        cell.set(cell.get() + 1);
        async { Ok::<_, BoxError>(()) }
    });
    block_on(assert_send(drain.into_future())).expect("a handler that is not Sync");

    let sum = Rc::new(Cell::new(0));
    let local = stream::iter([Rc::new(1), Rc::new(2)]);
    block_on(fan_in(&context, [local], |message, _| {
        let sum = Rc::clone(&sum);
        async move {
            sum.set(sum.get() + *message);
            Ok::<_, BoxError>(())
        }
    }))
    .expect("a handler that is not Send");
    assert_eq!(sum.get(), 3);
}

// Section 1: any stream is a source
#[test]
fn streams_that_cannot_move_are_sources_as_they_are() {
    let source = stream::unfold(0, |n| async move {
        yields(1).await;
        (n < 3).then_some((n, n + 1))
    });
    let context = StepContext::new("t");
    let report = block_on(fan_in(&context, [source], |_, _| async { Ok::<_, BoxError>(()) }));
    assert_eq!(report.expect("the drain succeeds").handled(), 3);
}

// Section 1: `Compensated` in place of `()`
#[test]
fn a_handler_may_return_a_value_with_its_compensations() {
    let context = StepContext::new("t");
    block_on(
        fan_in(&context, [filled([1, 2])], |_, step| async move {
            step.register_compensation(|| async {});
            Ok::<_, BoxError>(Compensated::new(()).with_compensation(|| async {}))
        })
        .commit(Commit::Never),
    )
    .expect("the drain succeeds");
    assert_eq!(context.scope().clear(), 4);
}

// Rule 4.1
#[test]
fn what_is_staged_on_a_context_kept_beyond_its_handler_goes_to_the_drains_scope() {
    let context = StepContext::new("t");
    let kept = Mutex::new(Vec::new());
    block_on(
        fan_in(&context, [filled([1, 2, 3])], |_, step| {
            kept.lock().expect("no panic").push(step.clone());
            async move {
                step.register_compensation(|| async {});
                Ok::<_, BoxError>(())
            }
        })
        .commit(Commit::Message),
    )
    .expect("the drain succeeds");
    assert!(context.scope().is_empty());
    let kept = kept.into_inner().expect("no panic");
    let numbers: Vec<_> = kept.iter().map(StepContext::message_number).collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(3)]);
    for step in &kept {
        step.register_compensation(|| async {});
    }
    assert_eq!(context.scope().clear(), 3);
}

// Rule 4.1: a context is lent from message to message: what one handler did must not show in the next.
#[test]
fn a_context_replaced_by_its_handler_is_not_taken_back() {
    let context = StepContext::new("outer");
    block_on(fan_in(&context, [filled([1, 2, 3])], |message, step| async move {
        assert_eq!((step.name(), step.message_number()), ("outer", Some(message)));
        let own = StepContext::new("own").with_scope(step.scope().clone());
        drop(step.with_cancellation(CancellationToken::never()));
        let inner = fan_in(&own, [filled([1, 2])], |_, step| async move {
            assert_eq!(step.name(), "own");
            Ok::<_, BoxError>(())
        });
        inner.await.map(drop)
    }))
    .expect("the drain succeeds");
}

// Rule 2.1
#[test]
fn a_borrowed_stream_is_a_source_and_keeps_what_was_not_taken() {
    let mut numbers = stream::iter(0..10);
    let context = StepContext::new("t");
    let outcome = block_on(fan_in(&context, [&mut numbers], |message, _| async move {
        if message == 6 { Err(Bad(message)) } else { Ok(()) }
    }));
    assert!(outcome.is_err());
    assert_eq!(block_on(numbers.collect::<Vec<_>>()), [7, 8, 9]);
}

// Rule 2.2
#[test]
fn one_handler_at_a_time_is_the_default() {
    let running = AtomicUsize::new(0);
    let context = StepContext::new("t");
    let sources: Vec<_> = (0..4).map(|_| filled(0..20)).collect();
    let report = block_on(fan_in(&context, sources, |message: usize, _| {
        let running = &running;
        async move {
            assert_eq!(running.fetch_add(1, Ordering::Relaxed), 0, "another handler runs");
            yields(message % 4).await;
            running.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, BoxError>(())
        }
    }));
    assert_eq!(report.expect("the drain succeeds").handled(), 80);
}

// Rule 3.1
#[test]
fn the_report_counts_by_source_and_tells_the_time_of_the_contexts_clock() {
    let clock = ManualClock::new();
    let context = StepContext::new("t").with_clock(Arc::new(clock.clone()));
    let sources =
        [filled([1, 2]).named("web"), filled([]).named("idle"), filled([3]).named("phone")];
    let report = block_on(fan_in(&context, sources, |_: u32, step| {
        clock.advance(Duration::from_secs(1));
        async move {
            assert!(["web", "phone"].contains(&step.source_name().unwrap_or_default()));
            Ok::<_, BoxError>(())
        }
    }))
    .expect("the drain succeeds");
    let counts: Vec<_> = report.sources().iter().map(|s| (s.name(), s.handled())).collect();
    assert_eq!(counts, [("web", 2), ("idle", 0), ("phone", 1)]);
    assert_eq!((report.handled(), report.rolled_back()), (3, 0));
    assert_eq!(report.elapsed(), Duration::from_secs(3));
}

// Rule 3.2
#[test]
fn errors_and_panics_met_after_a_fault_are_attached_and_late_successes_count() {
    let context = StepContext::new("t");
    let ledger = Ledger::default();
    let sources = [
        filled([Ok(1)]).faults().named("fails"),
        filled([Ok(2), Err(Bad(7)), Ok(9)]).faults().named("faulty"),
        filled([Ok(3)]).faults().named("panics"),
        filled([Ok(4)]).faults().named("succeeds"),
    ];
    let error = block_on(
        fan_in(&context, sources, |message: u32, step| {
            let ledger = ledger.clone();
            async move {
                ledger.apply(&step, message);
                if message == 2 {
                    yields(1).await; // until the others have begun
                    return Ok(());
                }
                step.cancellation().cancelled().await;
                assert_ne!(message, 3, "three panics");
                if message == 1 { Err(Bad(message)) } else { Ok(()) }
            }
        })
        .concurrency(permits(4)),
    )
    .expect_err("the drain fails");
    assert_eq!((error.code(), error.source_name()), (ErrorCode::Source, Some("faulty")));
    assert_eq!(error.metadata("handled"), Some("2"));
    let related: Vec<_> = error.related().iter().map(|e| (e.code(), e.source_name())).collect();
    let expected = [(ErrorCode::Handler, Some("fails")), (ErrorCode::Panic, Some("panics"))];
    assert_eq!(related, expected);
    assert_eq!(roll_back(context.scope()), 4);
    ledger.assert_undone_in_reverse();
}

// Rules 3.2, 6.1
#[test]
fn an_error_of_the_library_returned_by_a_handler_keeps_its_code_and_metadata() {
    let context = StepContext::new("t");
    let error = block_on(fan_in(&context, [filled([1]).named("web")], |_, _| async {
        Err::<(), _>(Error::validation("no such order").with_metadata("order", 17))
    }))
    .expect_err("the drain fails");
    assert_eq!((error.code(), error.metadata("order")), (ErrorCode::Validation, Some("17")));
    assert_eq!((error.source_name(), error.message_number()), (Some("web"), Some(1)));
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
    assert_eq!(block_on(number).expect_err("it panics").code(), ErrorCode::Panic);
    let bomb = fan_in(&context, [filled([1])], |_, _| async {
        if context.scope().is_empty() {
            std::panic::panic_any(Bomb);
        }
        Ok::<_, BoxError>(())
    });
    assert_eq!(block_on(bomb).expect_err("it panics").code(), ErrorCode::Panic);
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
        .expect_err("the destructor panics");
    assert_eq!(error.code(), ErrorCode::Panic);
    assert!(error.to_string().contains("bomb"), "{error}");

    let bomb = Bomb;
    let idle = stream::poll_fn(move |_| -> Poll<Option<u32>> {
        let _ = &bomb;
        Poll::Pending
    });
    let sources = [idle.boxed().named("idle"), filled([1]).boxed().named("fails")];
    let error = block_on(fan_in(&context, sources, |m, _| async move { Err::<(), _>(Bad(m)) }))
        .expect_err("the drain fails");
    assert_eq!(error.downcast_ref::<Bad>(), Some(&Bad(1)));
    let related: Vec<_> = error.related().iter().map(|e| (e.code(), e.source_name())).collect();
    assert_eq!(related, [(ErrorCode::Panic, Some("idle"))]);

    let bomb = Bomb;
    let broken = stream::poll_fn(move |_| -> Poll<Option<u32>> {
        let _ = &bomb;
        panic!("a broken source");
    });
    let error = block_on(fan_in(&context, [broken], |_, _| async { Ok::<_, BoxError>(()) }))
        .expect_err("the source panics");
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
            let error = result.expect_err("it fails");
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
    let again = poll_times(&mut drain, 1).expect("it is over").expect_err("it was over before");
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
            .concurrency(permits(2))
            .commit(Commit::Never),
        );
        if let Err(error) = &result {
            assert_eq!(error.code(), ErrorCode::Panic, "{error}");
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

// Rules 3.8, 4.4
#[test]
fn a_compensation_that_fails_when_its_message_is_rolled_back_stays_staged() {
    for commit in [Commit::Pipeline, Commit::Message, Commit::Never] {
        let context = StepContext::new("t");
        let ledger = Ledger::default();
        let mut letters = Vec::new();
        let report = block_on(
            fan_in(&context, [filled([1])], |message, step| {
                let ledger = ledger.clone();
                async move {
                    ledger.apply(&step, message);
                    let stuck = || async { Err::<(), _>("still down") };
                    step.register_compensation(labelled("row", stuck));
                    Err::<(), _>(Bad(message))
                }
            })
            .commit(commit)
            .on_failure(OnFailure::RollBackMessage)
            .dead_letter(|letter| {
                let rollback = letter.rollback().expect_err("one compensation fails");
                letters.push((letter.error().downcast_ref() == Some(&Bad(1)), rollback.code()));
            }),
        )
        .expect("the drain succeeds");
        assert_eq!(report.rolled_back(), 1);
        assert_eq!(letters, [(true, ErrorCode::Compensation)]);
        assert_eq!(ledger.undone(), [1]);
        assert_eq!(context.scope().clear(), 1, "{commit:?}");
    }
}

// Rules 3.8, 5.4
#[test]
fn a_message_is_rolled_back_by_its_policy_on_the_contexts_clock() {
    let clock = ManualClock::new();
    let context = StepContext::new("t").with_clock(Arc::new(clock.clone()));
    let attempts = Arc::new(AtomicUsize::new(0));
    let three = std::num::NonZeroU32::new(3).expect("three is not zero");
    let retry = RetryPolicy::exponential(three, Duration::from_secs(60));
    let drain = fan_in(&context, [filled([1, 2])], |message, step| {
        let attempts = Arc::clone(&attempts);
        async move {
            step.register_compensation_with(attempts, |attempts| async move {
                match attempts.fetch_add(1, Ordering::Relaxed) {
                    0 => Err("not yet"),
                    _ => Ok(()),
                }
            });
            if message == 1 { Err(Bad(message)) } else { Ok(()) }
        }
    });
    let drain = drain.on_failure(OnFailure::RollBackMessage);
    let policy = CompensationPolicy::sequential_reverse().retry(retry);
    let mut drain = drain.message_compensation(policy).into_future();
    assert!(poll_times(&mut drain, 5).is_none(), "the second attempt is a minute away");
    assert_eq!(attempts.load(Ordering::Relaxed), 1);
    clock.advance(Duration::from_secs(60));
    let report = poll_times(&mut drain, 5).expect("it is over").expect("the drain succeeds");
    assert_eq!((report.handled(), report.rolled_back()), (1, 1));
    assert_eq!(attempts.load(Ordering::Relaxed), 2);
}

// Rules 2.5, 3.8
#[test]
fn other_sources_go_on_while_a_message_is_rolled_back() {
    let (gate, opened) = async_channel::bounded::<()>(1);
    let context = StepContext::new("t");
    let sources = [filled([0, 1]).named("fails"), filled([2, 3, 4]).named("goes on")];
    let report = block_on(
        fan_in(&context, sources, |message: u32, step| {
            if message == 0 {
                step.register_compensation_with(opened.clone(), |opened| async move {
                    assert!(opened.recv().await.is_err(), "the gate is closed");
                });
            }
            if message == 4 {
                gate.close();
            }
            async move { if message == 0 { Err(Bad(message)) } else { Ok(()) } }
        })
        .concurrency(permits(2))
        .on_failure(OnFailure::RollBackMessage),
    )
    .expect("the drain succeeds");
    assert_eq!((report.handled(), report.rolled_back()), (4, 1));
}

// Rules 3.5, 3.8
#[test]
fn a_message_that_fails_while_the_drain_ends_is_attached_and_left_staged() {
    let stop = CancellationSource::new();
    let context = StepContext::new("t").with_cancellation(stop.token());
    let ledger = Ledger::default();
    let drain = fan_in(&context, [filled([1, 2])], |message, step| {
        let ledger = ledger.clone();
        async move {
            ledger.apply(&step, message);
            step.cancellation().cancelled().await;
            Err::<(), _>(Bad(message))
        }
    });
    let drain = drain.on_failure(OnFailure::RollBackMessage);
    let mut drain = drain.dead_letter(|letter| panic!("{}", letter.error())).into_future();
    assert!(poll_times(&mut drain, 2).is_none());
    stop.cancel();
    let error = poll_times(&mut drain, 3).expect("it is over").expect_err("cancelled");
    assert_eq!(error.code(), ErrorCode::Canceled);
    assert_eq!(error.related()[0].downcast_ref::<Bad>(), Some(&Bad(1)));
    assert_eq!(roll_back(context.scope()), 1);
    ledger.assert_undone_in_reverse();
}

// Rule 4.3
#[test]
fn what_is_staged_afterwards_is_what_the_commit_left_and_what_others_registered() {
    for (commit, bad, expected) in [
        (Commit::Pipeline, 3, &[3, 2, 1, 100][..]),
        (Commit::Message, 3, &[3, 100]),
        (Commit::Never, 3, &[3, 2, 1, 100]),
        (Commit::Pipeline, 9, &[100]),
        (Commit::Message, 9, &[100]),
        (Commit::Never, 9, &[4, 3, 2, 1, 100]),
    ] {
        let context = StepContext::new("t");
        let ledger = Ledger::default();
        ledger.apply(&context, 100);
        let drain = fan_in(&context, [filled([1, 2, 3, 4])], |message, step| {
            let ledger = ledger.clone();
            async move {
                ledger.apply(&step, message);
                if message == bad { Err(Bad(message)) } else { Ok(()) }
            }
        });
        assert_eq!(block_on(drain.commit(commit)).is_ok(), bad == 9);
        assert_eq!(roll_back(context.scope()), expected.len());
        assert_eq!(ledger.undone(), expected, "{commit:?}");
    }
}

// Section 1: sources of different types
#[test]
fn boxed_sources_of_different_types_are_drained_together() {
    let sources = [
        filled([1, 2]).boxed().named("queue"),
        stream::iter([3]).boxed().named("fixed"),
        stream::once(async { 4 }).boxed().named("once"),
        stream::unfold(5, |n| async move { (n < 7).then_some((n, n + 1)) }).boxed().named("made"),
    ];
    let mut seen = Vec::new();
    let context = StepContext::new("t");
    let report = block_on(fan_in(&context, sources, |message: u32, _| {
        seen.push(message);
        async { Ok::<_, BoxError>(()) }
    }))
    .expect("the drain succeeds");
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    let counts: Vec<_> = report.sources().iter().map(|s| (s.name(), s.handled())).collect();
    assert_eq!(counts, [("queue", 2), ("fixed", 1), ("once", 1), ("made", 2)]);
}

// Rule 4.2
#[test]
fn returned_compensations_are_staged_behind_those_the_handler_registered() {
    let context = StepContext::new("t");
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |number: u32| {
        let order = Arc::clone(&order);
        move || {
            order.lock().expect("no panic").push(number);
            async {}
        }
    };
    block_on(
        fan_in(&context, [filled([10, 20])], |message, step| {
            step.register_compensation(note(message));
            let output = Compensated::new(()).with_compensation(note(message + 1));
            let output = output.with_compensation(note(message + 2));
            async move { Ok::<_, BoxError>(output) }
        })
        .commit(Commit::Never),
    )
    .expect("the drain succeeds");
    assert_eq!(roll_back(context.scope()), 6);
    assert_eq!(*order.lock().expect("no panic"), [22, 21, 20, 12, 11, 10]);
}
