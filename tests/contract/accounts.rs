//! Rule 6.3: what is counted, in the progress at every moment, in the report and in `diagnostics`.

use std::cell::RefCell;
use std::future::pending;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use watershed::channels::Window;
use watershed::diagnostics::Snapshot;
use watershed::{
    BoxError, CancellationSource, Commit, FanInReport, OnFailure, Progress, RetryPolicy, Source,
    StepContext, fan_in,
};

use crate::support::alone::alone;
use crate::support::ending::{ENDINGS, Ending, Stage, assert_adds_up, heed, report};
use crate::support::fed::{Fed, Gates};
use crate::support::{Hand, filled, manual, yields};

const SECOND: Duration = Duration::from_secs(1);

fn counts(report: &FanInReport) -> [u64; 7] {
    [
        report.handled(),
        report.failed(),
        report.in_flight(),
        report.waiting(),
        report.held(),
        report.put_back(),
        report.unfinished(),
    ]
}

// Rule 6.3
#[test]
fn every_place_a_message_can_be_in_is_shown_while_it_is_there() {
    let ((context, clock), gates, progress) = (manual("t"), Gates::default(), Progress::new());
    assert_eq!(progress.report().taken(), 0);
    let sources = [
        Fed::open([vec![1]]).source().named("handled").erased(),
        Fed::open([vec![2]]).source().named("failed").erased(),
        Fed::open([vec![3]]).source().named("running").erased(),
        Fed::open([vec![4]]).source().named("waiting").erased(),
        Fed::open([vec![5], vec![5]]).source().named("holding a message").erased(),
        Window::new(&context, Fed::open([6, 6]).source()).count(9).erased(),
        Fed::open([vec![7]]).source().named("undone").erased(),
    ];
    let drain = fan_in(&context, sources, async |batch: Vec<u32>, step: StepContext| {
        step.register_compensation(async || {});
        match batch[0] {
            2 => return Err("fails"),
            3 | 5 => gates.wait(()).await,
            4 => return Err("again"),
            7 => {
                let gate = gates.of(());
                step.register_compensation(move || {
                    let gate = gate.clone();
                    async move { gate.wait().await }
                });
                return Err("fails");
            }
            _ => {}
        }
        Ok(())
    });
    let policy =
        RetryPolicy::fixed(2, SECOND).only_if(|error| format!("{error:#}").contains("again"));
    let drain = drain.retry(policy).on_failure(OnFailure::Continue).progress(&progress);
    let stop = CancellationSource::new();
    let drain = drain.concurrency(9).ordered_by(|batch| batch[0]).cancellation(stop.token());
    let drain = drain.put_back(|_, _| ());
    let mut drain = Hand::new(drain.into_future());
    clock.advance(3 * SECOND);
    assert!(drain.run().is_pending());
    clock.advance(SECOND / 2);
    let now = progress.report();
    assert_adds_up(&now);
    // One is handled, one failed, three are in flight, one waits, one and a window are held.
    assert_eq!(counts(&now), [1, 1, 3, 1, 2, 0, 0], "{now:?}");
    assert_eq!((now.attempts(), now.elapsed()), (6, SECOND / 2));
    // Those of 1, of 3 and 5, and two of 7.
    assert_eq!(now.staged(), 5, "{now:?}");
    assert_eq!(now.sources().len(), 7);
    assert_eq!(now.sources()[4].name(), "holding a message");
    assert_eq!((now.sources()[4].in_flight(), now.sources()[4].held()), (1, 1));
    gates.open(());
    stop.cancel();
    let failure = drain.finish().expect_err("cancelled");
    // Those in flight are finished, the second of them in its undoing.
    assert_eq!(counts(failure.report()), [3, 2, 0, 0, 0, 4, 0], "{:?}", failure.report());
    assert_adds_up(failure.report());
    assert_eq!(counts(&progress.report()), counts(failure.report()));
    assert_eq!(progress.report().elapsed(), failure.report().elapsed());
    context.scope().clear();
}

// Rule 6.3
#[test]
fn the_progress_adds_up_at_every_poll_and_from_every_thread() {
    for order in 0..3 {
        let ((context, clock), progress) = (manual("t"), Progress::new());
        let watched = progress.clone();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let end = std::sync::Arc::clone(&stop);
        let watching = std::thread::spawn(move || {
            let mut last = 0;
            while !end.load(std::sync::atomic::Ordering::SeqCst) {
                let now = watched.report();
                assert_adds_up(&now);
                assert!(now.taken() >= last, "messages were given back");
                last = now.taken();
            }
        });
        let sources = (0..3_u32).map(|source| filled((0..300).map(move |n| source * 1_000 + n)));
        let drain = fan_in(&context, sources, async |message: u32, step: StepContext| {
            let now = progress.report();
            assert_adds_up(&now);
            assert!(now.in_flight() > 0);
            yields((message % 3) as usize).await;
            step.register_compensation(async || yields(1).await);
            if message % 7 == 0 && step.attempt() == 1 { Err("once") } else { Ok(()) }
        });
        let drain = drain.concurrency(4).progress(&progress).commit(Commit::Message);
        let drain = drain.retry(RetryPolicy::fixed(2, SECOND)).max_waiting(10);
        let mut drain = Hand::new(in_order!(order, drain, |message| message % 5));
        let ended = loop {
            if let std::task::Poll::Ready(ended) = drain.poll() {
                break ended;
            }
            let now = progress.report();
            assert_adds_up(&now);
            if now.waiting() > 0 {
                clock.advance_to_next();
            }
        };
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        watching.join().expect("it added up");
        assert_eq!(ended.expect("no failure").handled(), 900);
    }
}

// Rules 6.3, 2.1
#[test]
fn a_window_is_one_message_from_its_first_on_and_those_of_one_that_goes_back_are_one_each() {
    for windows_within in [false, true] {
        for put_back in [true, false] {
            let ((context, clock), gates, progress) =
                (manual("t"), Gates::default(), Progress::new());
            let (sender, receiver) = async_channel::unbounded();
            let stop = CancellationSource::new();
            let last = std::cell::Cell::new(0);
            let look = || {
                let now = progress.report();
                assert_adds_up(&now);
                assert!(now.taken() >= last.replace(now.taken()), "{now:?}");
                now
            };
            // A window within another one is no message of the drain.
            let rows = Window::new(&context, receiver).count(if windows_within { 2 } else { 4 });
            let source = if windows_within {
                let outer = Window::new(&context, rows).count(2).every(SECOND);
                outer.erased()
            } else {
                Window::new(&context, rows.every(SECOND)).count(1).erased()
            };
            let drain = fan_in(&context, [source], async |batches: Vec<Vec<u32>>, _| {
                assert_eq!(look().held(), 0);
                gates.wait(batches[0][0]).await;
                look();
                Ok::<_, BoxError>(())
            });
            let drain = drain.concurrency(4).ordered_by(|batches| batches[0][0] / 100);
            let drain = drain.progress(&progress).cancellation(stop.token());
            let mut drain = Hand::new(if put_back {
                let took = drain.put_back(|_, batches: Vec<Vec<u32>>| {
                    assert!(batches[0].len() <= 2 || batches[0][0] == 5);
                    look();
                });
                took.into_future().boxed_local()
            } else {
                drain.into_future().boxed_local()
            });
            for (number, places) in [
                // held, and in flight
                (1, (1, 0)),
                (2, (1, 0)),
                (3, (1, 0)),
                (4, (0, 1)),
                // Of the same key: held as an open window, and then as one whose key is busy.
                (5, (1, 1)),
                (6, (1, 1)),
                (7, (1, 1)),
                (8, (1, 1)),
            ] {
                sender.try_send(number).expect("it is open");
                assert!(drain.run().is_pending());
                let now = look();
                assert_eq!((now.held(), now.in_flight()), places, "after {number}: {now:?}");
            }
            gates.open(1);
            assert!(drain.run().is_pending());
            assert_eq!(counts(&look()), [1, 0, 1, 0, 0, 0, 0]);
            // The one that runs is finished; three of an open window go back.
            for number in 9..12 {
                sender.try_send(number).expect("it is open");
            }
            assert!(drain.run().is_pending());
            assert_eq!(counts(&look()), [1, 0, 1, 0, 1, 0, 0]);
            stop.cancel();
            gates.open(5);
            let failure = drain.finish_by(&clock).expect_err("cancelled");
            // Of windows of two, one was closed and is one.
            let went = if windows_within { 2 } else { 3 };
            let [back, lost] = if put_back { [went, 0] } else { [0, went] };
            assert_eq!(counts(failure.report()), [2, 0, 0, 0, 0, back, lost]);
            assert_eq!(counts(&look()), counts(failure.report()));
        }
    }
}

// Rules 6.3, 2.1
#[test]
fn what_a_window_holds_whose_source_panics_goes_back() {
    let ((context, _clock), back) = (manual("t"), RefCell::new(Vec::new()));
    let source = futures::stream::iter([1, 2, 3]).inspect(|row| assert!(*row < 3, "thrown"));
    let windows = Window::new(&context, source).count(9);
    let drain = fan_in(&context, [windows], async |_: Vec<u32>, _| Ok::<_, BoxError>(()));
    let drain = drain.put_back(|_, rows| back.borrow_mut().push(rows));
    let failure = Hand::new(drain.into_future()).finish().expect_err("its source panics");
    assert_eq!(failure.error().code(), watershed::ErrorCode::Panic);
    assert_eq!(counts(failure.report()), [0, 0, 0, 0, 0, 2, 0], "{:?}", failure.report());
    assert_eq!(back.into_inner(), [[1], [2]]);
}

// Rule 6.3
#[test]
fn attempts_are_counted_apart() {
    let (context, clock) = manual("t");
    let drain = fan_in(&context, [filled([1, 2, 3])], async |message, step: StepContext| {
        if step.attempt() < message { Err("not yet") } else { Ok(()) }
    });
    let drain = drain.retry(RetryPolicy::fixed(9, SECOND));
    let report = Hand::new(drain.into_future()).finish_by(&clock).expect("no failure");
    assert_eq!((report.taken(), report.attempts()), (3, 6));
    assert_eq!((report.sources()[0].taken(), report.sources()[0].attempts()), (3, 6));
}

/// What one drain that ends so counts.
fn counted(ending: Option<Ending>) -> Snapshot {
    let (stage, before) = (Stage::default(), Snapshot::now());
    let own = if ending.is_some() { Fed::open([1, 2]) } else { Fed::closed([1, 2]) };
    let mut sources = vec![own.source().erased()];
    if ending.is_some() {
        sources.push(stage.trigger().erased());
    }
    let drain = fan_in(&stage.context, sources, async |message: u32, step: StepContext| {
        step.register_compensation(async || {});
        heed(message)
    });
    let drain = drain.timeout(crate::support::ending::DEADLINE).shutdown(stage.shutdown.token());
    let mut drain = Hand::new(drain.cancellation(stage.stop.token()).into_future());
    match ending {
        None => drop(drain.finish().expect("no failure")),
        Some(ending) => {
            assert!(drain.run().is_pending());
            stage.end(ending, drain);
        }
    }
    stage.context.scope().clear();
    Snapshot::now().since(&before)
}

// Rule 6.3
#[test]
fn each_result_is_counted_once_in_the_diagnostics() {
    alone(module_path!(), "each_result_is_counted_once_in_the_diagnostics", || {
        for ending in [None].into_iter().chain(ENDINGS.map(Some)) {
            let counted = counted(ending);
            let results = [
                counted.drains_succeeded,
                counted.drains_failed,
                counted.drains_timed_out,
                counted.drains_cancelled,
                counted.drains_dropped,
            ];
            let wanted = match ending {
                None | Some(Ending::Shutdown) => [1, 0, 0, 0, 0],
                Some(Ending::Failure | Ending::Panic | Ending::Fault) => [0, 1, 0, 0, 0],
                Some(Ending::Timeout) => [0, 0, 1, 0, 0],
                Some(Ending::Cancelled) => [0, 0, 0, 1, 0],
                Some(Ending::Dropped) => [0, 0, 0, 0, 1],
            };
            assert_eq!((counted.drains_started, results), (1, wanted), "{ending:?}");
            let failed = matches!(ending, Some(Ending::Failure | Ending::Panic));
            assert_eq!(counted.messages_succeeded, 2, "{ending:?}");
            assert_eq!(counted.messages_failed, u64::from(failed), "{ending:?}");
            let latency =
                if ending == Some(Ending::Timeout) { 100 * SECOND } else { Duration::ZERO };
            assert_eq!(counted.drain_time, latency, "{ending:?}");
        }
    });
}

// Rules 6.3, 3.10, 3.8
#[test]
fn retries_letters_and_undos_are_counted_once_each() {
    alone(module_path!(), "retries_letters_and_undos_are_counted_once_each", || {
        let ((context, clock), before) = (manual("t"), Snapshot::now());
        let drain = fan_in(&context, [filled(0..10)], async |message, step: StepContext| {
            step.register_compensation(async || {});
            if message % 2 == 0 { Err("no") } else { Ok(()) }
        });
        let drain = drain.retry(RetryPolicy::fixed(3, SECOND)).dead_letters(async |_| ());
        let report = Hand::new(drain.into_future()).finish_by(&clock).expect("it goes on");
        assert_eq!((report.handled(), report.failed(), report.attempts()), (5, 5, 20));
        let counted = Snapshot::now().since(&before);
        assert_eq!((counted.messages_succeeded, counted.messages_failed), (5, 5));
        assert_eq!((counted.messages_retried, counted.dead_letters), (10, 5));
        assert_eq!(counted.compensations_run, 15);
        assert_eq!((counted.compensations_failed, counted.compensations_cleared), (0, 5));
    });
}

// Rule 6.3
#[test]
fn a_drain_that_was_dropped_or_never_polled_is_told_as_it_was() {
    let ((context, clock), progress) = (manual("t"), Progress::new());
    let back = RefCell::new(Vec::new());
    let drain = fan_in(&context, [filled([1, 2]), filled([3])], async |message: u32, _| {
        if message == 1 {
            return Ok(());
        }
        pending::<Result<(), BoxError>>().await
    });
    let drain = drain
        .concurrency(2)
        .progress(&progress)
        .put_back(|_, message| back.borrow_mut().push(message));
    let mut drain = Hand::new(drain.into_future());
    assert_eq!(progress.report().taken(), 0);
    assert!(drain.run().is_pending());
    assert_eq!(counts(&progress.report()), [1, 0, 2, 0, 0, 0, 0]);
    drop(drain);
    let now = progress.report();
    assert_adds_up(&now);
    assert_eq!(counts(&now), [1, 0, 0, 0, 0, 0, 2], "{now:?}");
    clock.advance(SECOND);
    assert_eq!(progress.report().elapsed(), Duration::ZERO, "it has ended");
    assert_eq!(back.into_inner(), [], "their handlers were called");
}

// Rule 6.3
#[test]
fn what_somebody_registers_late_is_counted() {
    let (context, kept) = (StepContext::new("t"), RefCell::new(Vec::new()));
    let drain = fan_in(&context, [filled([1, 2, 3])], async |_: u32, step: StepContext| {
        for earlier in kept.borrow().iter() {
            let earlier: &StepContext = earlier;
            earlier.register_compensation(async || {});
        }
        kept.borrow_mut().push(step);
        Ok::<_, BoxError>(())
    });
    let ended = Hand::new(drain.commit(Commit::Never).into_future()).finish();
    let report = report(&ended);
    assert_eq!((report.late_registrations(), context.scope().clear()), (3, 3));
    let mut late = futures::stream::iter(kept.take()).boxed();
    while let Some(Some(step)) = late.next().now_or_never() {
        step.register_compensation(async || {});
    }
    assert_eq!(context.scope().clear(), 3, "afterwards it is the context's");
}
