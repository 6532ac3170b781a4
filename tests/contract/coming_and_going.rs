//! Rule 2.7: sources that are added, removed, paused and resumed while the drain runs.

use std::cell::RefCell;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use watershed::channels::{SourceEnd, Window, live};
use watershed::{
    BoxError, CancellationSource, Commit, Progress, RetryPolicy, Source, StepContext, fan_in,
};

use crate::support::ending::{
    DEADLINE, ENDINGS, Ending, Stage, assert_adds_up, assert_settled, heed, report,
};
use crate::support::fed::{Fed, Gates};
use crate::support::{Hand, Log, filled, left_in, manual, timed, within, yields};

const SECOND: Duration = Duration::from_secs(1);

fn ok() -> Result<(), BoxError> {
    Ok(())
}

// Rule 2.7
#[test]
fn a_source_that_is_added_while_the_drain_runs_is_drained_and_in_its_report() {
    let (context, (live, incoming)) = (StepContext::new("t"), live());
    let drain = fan_in(&context, [], async |_: u32, _| {
        yields(1).await;
        ok()
    });
    let mut drain = Hand::new(drain.incoming(incoming).concurrency(3).into_future());
    assert!(drain.run().is_pending());
    let mut handles = Vec::new();
    for number in 0..5 {
        handles.push(
            live.clone().add(filled(0..number).named(format!("s{number}"))).expect("it runs"),
        );
        assert!(drain.run().is_pending());
    }
    drop(live);
    let report = drain.finish().expect("no failure");
    let rows: Vec<_> =
        report.sources().iter().map(|row| (row.id(), row.name(), row.handled())).collect();
    let wanted: Vec<_> = handles.iter().map(|handle| handle.id()).zip(0..5_u64).collect();
    assert_eq!(rows.iter().map(|(id, _, handled)| (*id, *handled)).collect::<Vec<_>>(), wanted);
    assert_eq!(rows[4].1, "s4");
    for handle in handles {
        assert_eq!(handle.ended().now_or_never(), Some(SourceEnd::Drained));
    }
}

// Rule 2.7
#[test]
fn a_removal_waits_for_the_messages_in_flight_and_takes_no_more() {
    for unordered in [true, false] {
        let (context, (live, incoming), gates) = (StepContext::new("t"), live(), Gates::default());
        let queue = filled(0..10);
        let handle = live.add(queue.clone()).expect("it will run");
        let started = Log::default();
        let drain = fan_in(&context, [], async |message, _| {
            started.push(message);
            gates.wait(message).await;
            ok()
        });
        let drain = drain.incoming(incoming).concurrency(3);
        let mut drain = Hand::new(if unordered {
            drain.unordered().into_future().boxed_local()
        } else {
            drain.into_future().boxed_local()
        });
        assert!(drain.run().is_pending());
        let started = started.take();
        assert_eq!(started.len(), if unordered { 3 } else { 1 });
        let mut removal = Box::pin(handle.remove());
        assert!((&mut removal).now_or_never().is_none());
        for message in started {
            assert!(drain.run().is_pending());
            assert!((&mut removal).now_or_never().is_none(), "message {message} is in flight");
            gates.open(message);
        }
        assert!(drain.run().is_pending());
        let source = removal.now_or_never().expect("it is out").expect("it had not ended");
        assert_eq!(left_in(&source).len(), if unordered { 7 } else { 9 });
        assert_eq!(handle.ended().now_or_never(), Some(SourceEnd::Removed));
        drop(live);
        assert_settled(&drain.finish().expect("no failure"));
    }
}

// Rule 2.7; fault d17
#[test]
fn a_handler_may_remove_its_own_source() {
    for waits in [true, false] {
        let (context, (live, incoming)) = (StepContext::new("t"), live());
        let own = live.add(stream::iter([1, 2])).expect("it will run");
        drop(live);
        let drain = fan_in(&context, [], async |_, _| {
            if waits {
                assert!(own.remove().await.is_none(), "it cannot wait for itself");
                assert_eq!(own.ended().await, SourceEnd::NotYet);
            } else {
                assert!(own.request_removal());
            }
            ok()
        });
        let mut drain = Hand::new(drain.incoming(incoming).into_future());
        assert_eq!(drain.finish().expect("no failure").handled(), 1);
        let source = own.remove().now_or_never().expect("it is out").expect("it had not ended");
        assert_eq!(source.collect::<Vec<_>>().now_or_never(), Some(vec![2]));
    }
}

// Rule 2.7
#[test]
fn a_paused_source_starts_nothing_and_what_runs_is_finished() {
    let (context, (live, incoming), gates) = (StepContext::new("t"), live(), Gates::default());
    let (fed, other) = (Fed::open(0..5), Fed::open([100, 101]));
    let handle = live.add(fed.source()).expect("it will run");
    live.add(other.source()).expect("it will run");
    let done = Log::default();
    let drain = fan_in(&context, [], async |message, _| {
        if message < 100 {
            gates.wait(message).await;
        }
        done.push(message);
        ok()
    });
    let mut drain = Hand::new(drain.incoming(incoming).concurrency(5).into_future());
    assert!(drain.run().is_pending());
    assert_eq!((done.take(), fed.taken()), (vec![100, 101], 1));
    assert!(handle.pause() && handle.pause());
    gates.open(0);
    other.push(102);
    assert!(drain.run().is_pending());
    let mut both = done.take();
    both.sort_unstable();
    assert_eq!((both, fed.taken()), (vec![0, 102], 1));
    let polls = fed.polls();
    fed.wake();
    fed.push(5);
    assert!(drain.run().is_pending());
    assert_eq!(fed.polls(), polls, "it is not even asked");
    (1..6).for_each(|message| gates.open(message));
    assert!(handle.resume());
    assert!(drain.run().is_pending());
    assert_eq!(done.take(), [1, 2, 3, 4, 5]);
}

// Rules 2.7, 3.10
#[test]
fn a_retry_that_is_due_waits_for_resume_and_its_time_goes_on() {
    for order in 0..3 {
        let ((context, clock), (live, incoming)) = (manual("t"), live());
        let fed = Fed::open([1]);
        let handle = live.add(fed.source()).expect("it will run");
        drop(live);
        let attempts = Log::default();
        let drain = fan_in(&context, [], async |_, step: StepContext| {
            attempts.push(step.attempt());
            if step.attempt() < 3 { Err("not yet") } else { Ok(()) }
        });
        let drain = drain.incoming(incoming).retry(RetryPolicy::fixed(3, 10 * SECOND));
        let mut drain = Hand::new(in_order!(order, drain, |message| *message));
        assert!(drain.run().is_pending());
        assert!(handle.pause());
        for _ in 0..5 {
            clock.advance(7 * SECOND);
            assert!(drain.run().is_pending());
        }
        assert_eq!(attempts.take(), [1], "order {order}");
        assert!(handle.resume());
        assert!(drain.run().is_pending());
        assert_eq!(attempts.take(), [2], "it was due long ago");
        fed.close();
        assert_eq!(drain.finish_by(&clock).expect("no failure").handled(), 1);
        assert_eq!(attempts.take(), [3]);
    }
}

// Rule 2.7
#[test]
fn a_held_message_and_an_open_window_wait_for_resume() {
    let ((context, clock), (live, incoming), gates) = (manual("t"), live(), Gates::default());
    let (keyed, windowed) = (Fed::open([vec![1], vec![11]]), Fed::open([5, 6]));
    let window = Window::new(&context, windowed.source()).count(9).every(10 * SECOND);
    let handles = [live.add(keyed.source().erased()), live.add(window.erased())];
    let handles = handles.map(|handle| handle.unwrap_or_else(|_| panic!("it will run")));
    let started = Log::default();
    let drain = fan_in(&context, [], async |batch: Vec<u32>, _| {
        started.push(batch.clone());
        gates.wait(batch[0]).await;
        ok()
    });
    let drain = drain.incoming(incoming).concurrency(9).ordered_by(|batch| batch[0] % 10);
    let mut drain = Hand::new(drain.into_future());
    assert!(drain.run().is_pending());
    assert_eq!((started.take(), keyed.taken()), (vec![vec![1]], 2));
    assert!(handles.iter().all(watershed::channels::SourceHandle::pause));
    gates.open(1);
    clock.advance(100 * SECOND);
    assert!(drain.run().is_pending());
    assert_eq!(started.take(), Vec::<Vec<u32>>::new());
    assert!(handles.iter().all(watershed::channels::SourceHandle::resume));
    assert!(drain.run().is_pending());
    let mut now = started.take();
    now.sort();
    assert_eq!(now, [vec![5, 6], vec![11]], "no time is left to wait for");
}

// Rule 2.7
#[test]
fn pause_holds_when_it_returns_on_another_thread_too() {
    let (context, (live, incoming), stop) =
        (StepContext::new("t"), live(), CancellationSource::new());
    let (taken, called) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&taken);
    let source = stream::poll_fn(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::task::Poll::Ready(Some(1))
    });
    let handle = live.add(source).expect("it will run");
    let counts = [Arc::clone(&taken), Arc::clone(&called)];
    let done = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&done);
    let end = stop.clone();
    let switching = std::thread::spawn(move || {
        let now = || counts.each_ref().map(|count| count.load(Ordering::SeqCst));
        let mut most = [0, 0];
        for _ in 0..500 {
            let seen = now();
            handle.resume();
            while now()[0] < seen[0] + 3 {
                std::hint::spin_loop();
            }
            assert!(handle.pause());
            let paused = now();
            (0..300).for_each(|_| std::hint::spin_loop());
            // The one that was being taken meanwhile runs already.
            most = [0, 1].map(|count| most[count].max(now()[count] - paused[count]));
        }
        ended.store(true, Ordering::SeqCst);
        end.cancel();
        handle.resume();
        most
    });
    let drain = fan_in(&context, [], |_, _| {
        called.fetch_add(1, Ordering::SeqCst);
        async { ok() }
    });
    let drain = drain.incoming(incoming).cancellation(stop.token()).commit(Commit::Message);
    let _ = crate::support::block_on(drain);
    assert!(done.load(Ordering::SeqCst));
    let most = switching.join().expect("no panic");
    assert!(
        most[0] <= 1 && most[1] <= 1,
        "{most:?} messages were taken, and handled, after a pause"
    );
}

// Rule 2.7
#[test]
fn whatever_ends_the_drain_every_source_comes_back_and_no_wait_hangs() {
    for ending in ENDINGS {
        let (stage, (live, incoming)) = (Stage::default(), live());
        let queues = [filled([1]), filled([2]), filled([3]), filled([4])];
        let add = |queue: &async_channel::Receiver<u32>| {
            let source = queue.clone().chain(stream::pending());
            live.add(source.erased()).unwrap_or_else(|_| panic!("it will run"))
        };
        let mut handles = vec![add(&queues[0]), add(&queues[1]), add(&queues[2])];
        assert!(handles[1].pause());
        live.add(stage.trigger().erased()).unwrap_or_else(|_| panic!("it will run"));
        let drain = fan_in(&stage.context, [], async |message, _| {
            heed(message)?;
            ok()
        });
        let drain = drain.incoming(incoming).timeout(DEADLINE).concurrency(3);
        let drain = drain.cancellation(stage.stop.token()).shutdown(stage.shutdown.token());
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        // One that the drain has not seen yet.
        handles.push(add(&queues[3]));
        let mut waits: Vec<_> = handles.iter().map(|handle| handle.ended()).collect();
        waits.push(handles[2].ended());
        let ended = stage.end(ending, drain);
        if let Some(ended) = &ended {
            assert_settled(report(ended));
        }
        for wait in waits {
            let how = wait.now_or_never();
            assert_eq!(how, Some(SourceEnd::Abandoned), "{ending:?}");
        }
        for handle in &handles {
            assert!(handle.remove().now_or_never().expect("no wait").is_some(), "{ending:?}");
            assert!(!handle.pause() && !handle.resume() && !handle.request_removal());
        }
        assert!(live.add(filled([9]).erased()).is_err(), "{ending:?}");
    }
}

// Rule 2.7
#[test]
fn a_drain_that_was_asked_to_end_gives_an_added_source_back_while_it_ends() {
    for ending in [Ending::Cancelled, Ending::Shutdown, Ending::Timeout, Ending::Failure] {
        let (stage, (live, incoming), gates) = (Stage::default(), live(), Gates::default());
        live.add(filled([1]).erased()).unwrap_or_else(|_| panic!("it will run"));
        let trigger = Fed::open([]);
        live.add(trigger.source().erased()).unwrap_or_else(|_| panic!("it will run"));
        let drain = fan_in(&stage.context, [], async |message, _| {
            heed(message)?;
            gates.wait(()).await;
            ok()
        });
        let drain = drain.incoming(incoming).timeout(DEADLINE).concurrency(3);
        let drain = drain.cancellation(stage.stop.token()).shutdown(stage.shutdown.token());
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        match ending {
            Ending::Cancelled => stage.stop.cancel(),
            Ending::Shutdown => stage.shutdown.cancel(),
            Ending::Timeout => stage.clock.advance(DEADLINE),
            _ => trigger.push(crate::support::ending::FAILS),
        }
        assert!(drain.run().is_pending(), "a handler is in flight");
        assert!(live.add(filled([2]).erased()).is_err(), "{ending:?}");
        gates.open(());
        assert_eq!(report(&drain.finish()).handled(), 1);
    }
}

// Rules 2.7, 3.10, 2.1
#[test]
fn a_removal_is_for_its_messages_what_the_end_of_the_drain_is() {
    for put_back in [true, false] {
        let ((context, clock), (live, incoming), gates) = (manual("t"), live(), Gates::default());
        let (retried, keyed) = (Fed::open([vec![7]]), Fed::open([vec![1], vec![1]]));
        let windowed = Fed::open([5, 6]);
        let window = Window::new(&context, windowed.source()).count(9);
        let added = [retried.source().erased(), keyed.source().erased(), window.erased()];
        let handles =
            added.map(|source| live.add(source).unwrap_or_else(|_| panic!("it will run")));
        let (back, progress) = (RefCell::new(Vec::new()), Progress::new());
        let drain = fan_in(&context, [], async |batch: Vec<u32>, step: StepContext| {
            step.register_compensation(async || {});
            match batch[0] {
                7 => Err("not yet"),
                _ => Ok(gates.wait(batch[0]).await),
            }
        });
        let drain = drain.incoming(incoming).concurrency(9).ordered_by(|batch| batch[0]);
        let drain = drain.retry(RetryPolicy::fixed(9, SECOND)).progress(&progress);
        let mut drain = Hand::new(if put_back {
            let keep = |source, batch: Vec<u32>| back.borrow_mut().push((source, batch));
            drain.put_back(keep).into_future().boxed_local()
        } else {
            drain.into_future().boxed_local()
        });
        assert!(drain.run().is_pending());
        let now = progress.report();
        assert_adds_up(&now);
        assert_eq!((now.waiting(), now.held(), now.in_flight()), (1, 2, 1), "{now:?}");
        assert!(handles.iter().all(watershed::channels::SourceHandle::request_removal));
        assert!(drain.run().is_pending());
        gates.open(1);
        assert!(drain.run().is_pending());
        let mut told = back.borrow().clone();
        told.sort();
        let wanted = [
            (handles[0].id(), vec![7]),
            (handles[1].id(), vec![1]),
            (handles[2].id(), vec![5]),
            (handles[2].id(), vec![6]),
        ];
        if put_back {
            assert_eq!(told, wanted);
        }
        for handle in &handles {
            assert_eq!(handle.ended().now_or_never(), Some(SourceEnd::Removed));
            assert!(handle.remove().now_or_never().expect("it is out").is_some());
        }
        assert_eq!(back.borrow().len(), if put_back { 4 } else { 0 });
        drop(live);
        let report = drain.finish_by(&clock).expect("a removal is no failure");
        assert_settled(&report);
        let counts = (report.handled(), report.put_back(), report.unfinished(), report.failed());
        assert_eq!(counts, if put_back { (1, 4, 0, 0) } else { (1, 0, 4, 0) });
    }
}

// Rules 2.7, 3.10
#[test]
fn a_removal_ends_the_waiting_of_a_message_that_keeps_its_permit_and_frees_its_key() {
    for order in 0..4 {
        let ((context, _clock), (live, incoming)) = (manual("t"), live());
        let (back, handled) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let add = |message: u32| live.add(Fed::open([message]).source()).expect("it will run");
        let drain = fan_in(&context, [], async |message: u32, _| {
            if message < 30 {
                return Err("not yet");
            }
            Ok(handled.borrow_mut().push(message))
        });
        let drain = drain.retry(RetryPolicy::fixed(9, SECOND)).max_waiting(1).concurrency(2);
        let drain = drain.incoming(incoming).put_back(|_, message| back.borrow_mut().push(message));
        let key = |message: &u32| message % 10;
        let mut drain = Hand::new(in_order!(order, drain, key));
        let _waits = add(19);
        assert!(drain.run().is_pending());
        let kept = add(21);
        assert!(drain.run().is_pending());
        let _free = add(31);
        assert!(drain.run().is_pending());
        // Where keys count over all sources, the third one waits for that of the second.
        assert_eq!(*handled.borrow(), if order == 3 { &[][..] } else { &[31] }, "order {order}");
        assert!(kept.request_removal());
        assert!(drain.run().is_pending());
        assert_eq!(*back.borrow(), [21], "order {order}");
        assert_eq!(kept.ended().now_or_never(), Some(SourceEnd::Removed), "order {order}");
        assert_eq!(*handled.borrow(), [31], "order {order}");
    }
}

// Rules 2.7, 2.6
#[test]
fn a_source_that_is_removed_leaves_what_others_hold_alone() {
    let ((context, clock), (live, incoming)) = (manual("t"), live());
    let handles = [1, 2].map(|message| live.add(filled([message])).expect("it will run"));
    drop(live);
    let drain = fan_in(
        &context,
        [],
        async |_: u32, step: StepContext| {
            if step.attempt() == 1 { Err("not yet") } else { Ok(()) }
        },
    );
    let drain = drain.incoming(incoming).retry(RetryPolicy::fixed(2, SECOND));
    let mut drain = Hand::new(drain.into_future());
    assert!(drain.run().is_pending());
    assert!(handles[0].request_removal());
    let report = drain.finish_by(&clock).expect("no failure");
    assert_eq!((report.handled(), report.unfinished()), (1, 1));
    assert_eq!(handles[1].ended().now_or_never(), Some(SourceEnd::Drained));
}

// Rules 2.7, 4.13; fault d14
#[test]
fn a_wave_of_removals_and_switches_is_linear() {
    let work = |crowd: usize| {
        let (context, (live, incoming)) = (StepContext::new("t"), live());
        let all: Vec<_> =
            (0..crowd).map(|_| live.add(stream::iter([1])).expect("it will run")).collect();
        let drain = fan_in(&context, [], async |_, _| pending::<Result<(), BoxError>>().await);
        let mut drain = Hand::new(drain.incoming(incoming).into_future());
        let (_, took) = timed(|| {
            assert!(drain.run().is_pending());
            assert!(all.iter().all(watershed::channels::SourceHandle::pause));
            assert!(drain.run().is_pending());
            assert!(all.iter().all(watershed::channels::SourceHandle::resume));
            assert!(drain.run().is_pending());
            assert!(all.iter().all(watershed::channels::SourceHandle::request_removal));
            assert!(drain.run().is_pending());
        });
        let gone = all.iter().filter(|handle| handle.ended().now_or_never().is_some()).count();
        assert_eq!(gone, crowd - 1, "one is in flight");
        took.as_secs_f64()
    };
    let ratio = (0..3).map(|_| work(20_000) / work(2_000)).fold(f64::INFINITY, f64::min);
    assert!(ratio < 40.0, "ten times the sources take {ratio} times as long");
}

// Rule 2.7
#[test]
fn a_drain_whose_only_source_is_paused_waits_for_resume_and_can_be_ended() {
    for ending in [Ending::Cancelled, Ending::Timeout, Ending::Shutdown, Ending::Dropped] {
        let (stage, (live, incoming)) = (Stage::default(), live());
        let handle = live.add(filled([1])).expect("it will run");
        assert!(handle.pause());
        drop(live);
        let drain = fan_in(&stage.context, [], async |_, _| ok()).incoming(incoming);
        let drain = drain.timeout(DEADLINE).cancellation(stage.stop.token());
        let mut drain = Hand::new(drain.shutdown(stage.shutdown.token()).into_future());
        assert!(drain.run().is_pending());
        stage.end(ending, drain);
        assert_eq!(handle.ended().now_or_never(), Some(SourceEnd::Abandoned));
        let source = handle.remove().now_or_never().expect("it is out").expect("it had not ended");
        assert_eq!(left_in(&source), [1]);
    }
}

// Rule 2.7
#[test]
fn sources_that_other_threads_add_switch_and_remove_lose_nothing() {
    let sums = within(60 * SECOND, || {
        let (context, (live, incoming)) = (StepContext::new("t"), live());
        let handled = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let live = live.clone();
                std::thread::spawn(move || {
                    let mut left = 0;
                    for round in 0..300 {
                        let handle = live.add(filled(0..10)).expect("it runs");
                        if round % 3 == 0 {
                            handle.pause();
                            handle.resume();
                        }
                        if round % 2 == 0 {
                            let source = futures::executor::block_on(handle.remove());
                            left += source.map_or(0, |source| left_in(&source).len());
                        }
                    }
                    left
                })
            })
            .collect();
        drop(live);
        let count = Arc::clone(&handled);
        let drain = fan_in(&context, [], move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            async {
                yields(1).await;
                ok()
            }
        });
        let drain = drain.incoming(incoming).concurrency(4).commit(Commit::Message);
        let report = crate::support::block_on(drain).expect("no failure");
        let left: usize = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
        assert_eq!(report.handled(), handled.load(Ordering::SeqCst) as u64);
        (report.handled(), left as u64)
    });
    let (handled, left) = sums.expect("it ends");
    assert_eq!(handled + left, 9_000);
}
