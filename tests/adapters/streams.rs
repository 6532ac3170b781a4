//! Streams of results, worked on step by step.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use crate::support::{Ledger, poll_times, roll_back, yields};
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use watershed::streams::StepStreamExt;
use watershed::{
    BoxError, CancellationSource, CancellationToken, Error, ErrorCode, ManualClock, StepContext,
};

const SECOND: Duration = Duration::from_secs(1);

fn block_on<F: Future>(future: F) -> F::Output {
    futures::executor::block_on(future)
}

fn ok<'a>(
    items: impl IntoIterator<Item = u32, IntoIter: Send + 'a>,
) -> BoxStream<'a, Result<u32, BoxError>> {
    stream::iter(items).map(Ok).boxed()
}

fn codes<T: std::fmt::Debug>(items: Vec<Result<T, Error>>) -> Vec<Result<T, ErrorCode>> {
    items.into_iter().map(|item| item.map_err(|error| error.code())).collect()
}

/// Does an effect, waits once, does another.
async fn work(ledger: Ledger, effect: u32, step: StepContext) -> Result<u32, BoxError> {
    ledger.apply(&step, effect);
    yields(1).await;
    ledger.apply(&step, 10 * effect);
    if effect == 13 { Err("unlucky".into()) } else { Ok(effect) }
}

// P47
#[test]
fn a_mapped_stream_keeps_its_order_and_stages_what_its_operations_register() {
    let (context, ledger) = (StepContext::new("t"), Ledger::default());
    let mapped = ok(1..=4).map_step(&context, |n, step| work(ledger.clone(), n, step));
    assert_eq!(block_on(mapped.try_collect::<Vec<_>>()).expect("no failure"), [1, 2, 3, 4]);
    assert_eq!(roll_back(context.scope()), 8);
    ledger.assert_undone_in_reverse();
}

// P39, P47
#[test]
fn nothing_is_asked_for_or_called_after_the_first_failure_of_either_side() {
    let (context, ledger) = (StepContext::new("t"), Ledger::default());
    let asked = Cell::new(0);
    let items =
        stream::iter([1, 13, 2]).map(Ok::<_, BoxError>).inspect(|_| asked.set(asked.get() + 1));
    let mapped = items.map_step(&context, |n, step| work(ledger.clone(), n, step));
    let items = codes(block_on(mapped.collect()));
    assert_eq!((items, asked.get()), (vec![Ok(1), Err(ErrorCode::Handler)], 2));
    assert_eq!(roll_back(context.scope()), 4);

    let items = stream::iter([Ok(1), Err("connection lost"), Ok(2)]);
    let mapped = items.map_step(&context, |n, _| async move { Ok::<_, BoxError>(n) });
    assert_eq!(codes(block_on(mapped.collect())), [Ok(1), Err(ErrorCode::Source)]);
}

// Rule 3.7, P47
#[test]
fn panics_of_the_stream_the_call_and_the_poll_are_the_last_item() {
    let context = StepContext::new("t");
    let panicking = ok(1..).inspect(|item| assert!(*item.as_ref().expect("ok") < 3, "no more"));
    let mapped = panicking.map_step(&context, |n, _| async move { Ok::<_, BoxError>(n) });
    let panic = Err(ErrorCode::Panic);
    assert_eq!(codes(block_on(mapped.collect())), [Ok(1), Ok(2), panic]);
    let mapped = ok(1..).map_step(&context, |n, _| {
        assert!(n < 2, "in the call");
        async move { Ok::<_, BoxError>(n) }
    });
    assert_eq!(codes(block_on(mapped.collect())), [Ok(1), panic]);
    let mapped = ok(1..).map_step(&context, |n, step: StepContext| async move {
        step.register_compensation(|| async {});
        assert!(n < 2, "in the poll");
        Ok::<_, BoxError>(n)
    });
    assert_eq!(codes(block_on(mapped.collect())), [Ok(1), panic]);
    assert_eq!(context.scope().clear(), 2);
}

// P49
#[test]
fn what_an_operation_leaves_out_is_left_out_and_failures_stay() {
    let context = StepContext::new("t");
    let items = stream::iter([Ok(1), Ok(2), Ok(3), Ok(4), Err("no"), Ok(6)]);
    let even = items.filter_map_step(&context, |n, _| async move {
        Ok::<_, BoxError>((n % 2 == 0).then_some(n))
    });
    assert_eq!(codes(block_on(even.collect())), [Ok(2), Ok(4), Err(ErrorCode::Source)]);
    // Rule 2.4: a stream of which everything is left out gives the thread back.
    let nothing =
        ok(0..).filter_map_step(&context, |_, _| async { Ok::<_, BoxError>(None::<u32>) });
    let mut nothing = Box::pin(nothing);
    assert!(poll_times(&mut nothing.next(), 20).is_none());
}

// P48
#[test]
fn inner_streams_follow_one_another_and_their_failure_is_that_of_the_whole() {
    let context = StepContext::new("t");
    let flat = ok([1, 2, 0, 3]).flat_map_step(&context, |n, step: StepContext| {
        step.register_compensation(|| async {});
        stream::iter((0..n).map(move |m| if n == 3 && m == 1 { Err("no") } else { Ok(10 * n + m) }))
    });
    let expected = [Ok(10), Ok(20), Ok(21), Ok(30), Err(ErrorCode::Source)];
    assert_eq!(codes(block_on(flat.collect())), expected);
    assert_eq!(context.scope().clear(), 4);

    let cancelled = Error::new(ErrorCode::Canceled, "stopped inside");
    let flat = ok([1, 2]).flat_map_step(&context, move |_, _| {
        stream::iter([Ok::<u32, Error>(1), Err(cancelled.clone())])
    });
    assert_eq!(codes(block_on(flat.collect())), [Ok(1), Err(ErrorCode::Canceled)]);

    let endless = ok(0..).flat_map_step(&context, |_, _| stream::iter([Ok::<u32, BoxError>(1); 0]));
    let mut endless = Box::pin(endless);
    assert!(poll_times(&mut endless.next(), 20).is_none(), "it gives the thread back");
    let flat = ok([1]).flat_map_step(&context, |_, _| -> stream::Empty<Result<u32, BoxError>> {
        panic!("in the call")
    });
    assert_eq!(codes(block_on(flat.collect())), [Err(ErrorCode::Panic)]);
}

#[test]
fn every_error_is_told_and_passed_on_and_what_telling_fails_with_is_attached() {
    let (context, ledger) = (StepContext::new("t"), Ledger::default());
    let items = stream::iter([Ok(1), Err("first"), Ok(2), Err("second"), Err("third")]);
    let mut told = 0;
    let tapped = items.tap_err_step(&context, |error, step| {
        told += 1;
        assert!(told < 3, "in the call");
        let (ledger, effect) = (ledger.clone(), if told == 2 { 13 } else { 1 });
        assert_eq!(error.code(), ErrorCode::Source);
        async move { work(ledger, effect, step).await.map(drop) }
    });
    let items: Vec<Result<u32, Error>> = block_on(tapped.collect());
    let related: Vec<_> = items
        .iter()
        .map(|item| item.as_ref().map_err(|error| error.related().len()).copied())
        .collect();
    assert_eq!(related, [Ok(1), Err(0), Ok(2), Err(1), Err(1)]);
    assert_eq!(roll_back(context.scope()), 4);
    ledger.assert_undone_in_reverse();
}

// P50
#[test]
fn all_errors_are_collected_or_all_values() {
    let context = StepContext::new("t");
    assert_eq!(block_on(ok(1..=3).collect_all(&context)).expect("no failure"), [1, 2, 3]);
    assert_eq!(block_on(ok([]).collect_all(&context)).expect("no failure"), []);
    let items = stream::iter([Err("a"), Ok(1), Err("b")]);
    let error = block_on(items.collect_all(&context)).expect_err("two fail");
    assert_eq!((error.code(), error.metadata("succeeded")), (ErrorCode::Aggregate, Some("1")));
    let causes = error
        .related()
        .iter()
        .map(|error| std::error::Error::source(error).map(ToString::to_string));
    assert!(causes.eq([Some("a".to_owned()), Some("b".to_owned())]));
    let stop = CancellationSource::new();
    let cancelled = context.clone().with_cancellation(stop.token());
    let stops = stop.clone();
    let items = stream::iter([Err("a"), Ok(1)]).chain(stream::poll_fn(move |_| {
        stops.cancel();
        Poll::Ready(Some(Ok(2)))
    }));
    let error = block_on(items.collect_all(&cancelled)).expect_err("cancelled");
    assert_eq!((error.code(), error.related().len()), (ErrorCode::Canceled, 1));
}

// Rule 3.5
#[test]
fn cancellation_before_and_during_an_operation_is_the_last_item() {
    for during in [false, true] {
        let stop = CancellationSource::new();
        let context = StepContext::new("t").with_cancellation(stop.token());
        let calls = Cell::new(0);
        let mapped = ok(1..).map_step(&context, |_, step: StepContext| {
            calls.set(calls.get() + 1);
            async move {
                step.register_compensation(|| async {});
                futures::future::pending::<Result<u32, BoxError>>().await
            }
        });
        let mut mapped = Box::pin(mapped);
        if during {
            assert!(poll_times(&mut mapped.next(), 2).is_none());
        }
        stop.cancel();
        let item = poll_times(&mut mapped.next(), 1).expect("it is over").expect("an item");
        assert_eq!(item.expect_err("cancelled").code(), ErrorCode::Canceled);
        assert!(poll_times(&mut mapped.next(), 1).expect("it is over").is_none());
        drop(mapped);
        assert_eq!(
            (calls.get(), context.scope().clear()),
            (usize::from(during), usize::from(during))
        );
    }
}

// Rules 3.3, 3.4
#[test]
fn a_deadline_for_each_item_ends_the_run_and_its_step_hears_of_the_end() {
    let clock = ManualClock::new();
    let context = StepContext::new("t").with_clock(Arc::new(clock.clone()));
    let tokens = std::cell::RefCell::new(Vec::<CancellationToken>::new());
    let run = ok(1..=3).for_each_step(&context, |n, step: StepContext| {
        tokens.borrow_mut().push(step.cancellation().clone());
        let clock = step.clock().clone();
        async move {
            step.register_compensation(|| async {});
            clock.sleep_until(clock.now() + n * SECOND).await;
            Ok::<_, BoxError>(())
        }
    });
    let mut run = Box::pin(run.item_timeout(SECOND * 3 / 2).into_future());
    assert!(poll_times(&mut run, 2).is_none());
    clock.advance(SECOND);
    assert!(poll_times(&mut run, 2).is_none(), "the second item");
    assert!(tokens.borrow()[0].is_cancelled(), "the first is over");
    assert!(!tokens.borrow()[1].is_cancelled());
    clock.advance(SECOND * 3 / 2);
    let error = poll_times(&mut run, 2).expect("it is over").expect_err("too late");
    assert_eq!((error.code(), error.metadata("handled")), (ErrorCode::Timeout, Some("1")));
    assert_eq!((tokens.borrow().len(), context.scope().clear()), (2, 2));
}

// Rule 2.4
#[test]
fn an_always_ready_run_gives_the_thread_back() {
    let context = StepContext::new("t");
    let count = AtomicUsize::new(0);
    let run = ok(0..).for_each_step(&context, |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, BoxError>(()) }
    });
    let mut run = Box::pin(run.into_future());
    for polls in 1..5 {
        assert!(poll_times(&mut run, 1).is_none());
        assert!(count.load(Ordering::Relaxed) <= 256 * polls);
    }
}

// P33, P38
#[test]
fn a_lifted_stream_goes_through_a_channel_and_back_with_its_cancellation() {
    let stop = CancellationSource::new();
    let context = StepContext::new("t").with_cancellation(stop.token());
    let (sender, receiver) = async_channel::unbounded();
    let mut lifted = Box::pin(ok(1..).lifted(&context));
    block_on(async {
        while let Some(item) = lifted.next().await {
            if item.as_ref().is_ok_and(|n| *n == 3) {
                stop.cancel();
            }
            sender.send(item).await.expect("the channel is open");
        }
    });
    drop(sender);
    let items = codes(block_on(receiver.collect()));
    assert_eq!(items, [Ok(1), Ok(2), Ok(3), Err(ErrorCode::Canceled)]);
}

// Rule 4.1
#[test]
fn dropping_a_stream_after_any_poll_loses_no_compensation() {
    type Job<'a> = Pin<Box<dyn Stream<Item = Result<u32, Error>> + 'a>>;
    let jobs: [fn(&StepContext, Ledger) -> Job<'static>; 3] = [
        |context, ledger| {
            Box::pin(ok([1, 2, 13]).map_step(context, move |n, step| work(ledger.clone(), n, step)))
        },
        |context, ledger| {
            Box::pin(ok([1, 2, 3]).filter_map_step(context, move |n, step| {
                let ledger = ledger.clone();
                async move { work(ledger, n, step).await.map(|n| (n > 1).then_some(n)) }
            }))
        },
        |context, ledger| {
            Box::pin(ok([1, 2]).flat_map_step(context, move |n, step: StepContext| {
                let ledger = ledger.clone();
                ledger.apply(&step, n);
                stream::iter([1, 2]).then(move |m| {
                    let (ledger, step) = (ledger.clone(), step.clone());
                    async move {
                        yields(1).await;
                        ledger.apply(&step, 10 * n + m);
                        Ok::<_, BoxError>(m)
                    }
                })
            }))
        },
    ];
    for (which, job) in jobs.into_iter().enumerate() {
        for k in 0.. {
            let (context, ledger) = (StepContext::new("t"), Ledger::default());
            let mut stream = job(&context, ledger.clone());
            let mut ended = false;
            for _ in 0..k {
                ended = matches!(poll_times(&mut stream.next(), 1), Some(None));
            }
            drop(stream);
            assert_eq!(roll_back(context.scope()), ledger.done().len(), "job {which}, poll {k}");
            ledger.assert_undone_in_reverse();
            if ended {
                assert!(k > 4, "job {which}");
                break;
            }
        }
    }
}

// Rule 5.2
async fn steps_over_streams_work_here() {
    let (context, ledger) = (StepContext::new("suite"), Ledger::default());
    let mapped = ok(1..=5).map_step(&context, |n, step| work(ledger.clone(), n, step));
    let even = mapped.filter_map_step(&context, |n, _| async move {
        yields(1).await;
        Ok::<_, BoxError>((n % 2 == 0).then_some(n))
    });
    let twice = even.flat_map_step(&context, |n, _| stream::iter([Ok::<_, BoxError>(n), Ok(n)]));
    let count = twice.for_each_step(&context, |_, _| async {
        yields(1).await;
        Ok::<_, BoxError>(())
    });
    assert_eq!(count.item_timeout(60 * SECOND).await.expect("no failure"), 4);
    assert_eq!(context.scope().clear(), 10);

    let (sender, receiver) = async_channel::bounded(2);
    let feeding = std::thread::spawn(move || {
        (1..=300_u32).all(|n| {
            let item = if n % 100 == 0 { Err("no") } else { Ok(n) };
            sender.send_blocking(item).is_ok()
        })
    });
    let told = Arc::new(AtomicUsize::new(0));
    let tapped = receiver.lifted(&context).tap_err_step(&context, |_, _| {
        let told = Arc::clone(&told);
        async move {
            yields(1).await;
            told.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::fmt::Error>(())
        }
    });
    let error = tapped.collect_all(&context).await.expect_err("three fail");
    assert_eq!((error.related().len(), error.metadata("succeeded")), (3, Some("297")));
    assert_eq!(told.load(Ordering::Relaxed), 3);
    assert!(feeding.join().expect("the thread ends"));
}

on_every_executor! { steps_over_streams_work_here }
