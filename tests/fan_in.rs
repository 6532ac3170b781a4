//! Sections 1, 2 and 4: what is taken, in which order, and what is staged.

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use support::{Bad, Ledger, block_on, filled, left_in, roll_back, yields};
use watershed::{
    BoxError, CancellationToken, Clock, Commit, Compensated, Failure, ManualClock, OnFailure,
    Source, StepContext, fan_in,
};

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
                .concurrency(concurrency)
                .quantum(2),
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
            .concurrency(concurrency),
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
        .concurrency(2),
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
        for mode in [OnFailure::Continue, OnFailure::Abort] {
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
                let ended = block_on(drain.concurrency(2));
                assert_eq!(ended.is_err(), fails && mode == OnFailure::Abort);
                roll_back(context.scope());
                drop((context, ended));
                assert_eq!(Arc::strong_count(&clock), 1, "{when:?}, {mode:?}, fails: {fails}");
            }
        }
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

// P2, section 1: `Compensated` in place of `()`
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
        inner.await.map(drop).map_err(Failure::into_error)
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
    assert_eq!((report.handled(), report.failed()), (3, 0));
    assert_eq!(report.elapsed(), Duration::from_secs(3));
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
