//! Rules 2.5 and 2.6: handlers that have started go on, and sources that have ended are gone.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::{FutureExt, StreamExt, stream};
use watershed::channels::{Window, live};
use watershed::{
    BoxError, CancellationSource, ErrorCode, OnFailure, RetryPolicy, Source, StepContext, fan_in,
};

use crate::support::fed::{Fed, Gates};
use crate::support::{Hand, Log, block_on, filled, manual, yields};

const SECOND: Duration = Duration::from_secs(1);

fn ok() -> Result<(), BoxError> {
    Ok(())
}

/// A handler in steps, of which another one is done at each call of the function.
fn step_by_step(gates: &Gates<u32>, steps: &Cell<u32>, drain: &mut impl FnMut(), what: &str) {
    for step in 0..5 {
        gates.open(step);
        drain();
        assert_eq!(steps.get(), step + 1, "a handler is frozen while the drain {what}");
    }
}

// Rule 2.5
#[test]
fn no_handler_is_frozen_whatever_else_the_drain_waits_for() {
    const CASES: [&str; 13] = [
        "waits for a source",
        "waits for a permit",
        "waits for its rate",
        "has a retry that waits",
        "has a source that is paused",
        "stores a letter",
        "undoes a message",
        "shuts down",
        "is stopping",
        "has a key that is busy",
        "waits for further sources",
        "has a window that is open",
        "has more to do than one poll can",
    ];
    for case in CASES {
        let (context, clock) = manual("t");
        let (gates, steps, others) = (Gates::default(), Cell::new(0), Cell::new(0));
        let (stop, shutdown) = (CancellationSource::new(), CancellationSource::new());
        let (live, incoming) = live();
        live.add(filled([vec![0]]).boxed().erased()).expect("there is a drain");
        let second = match case {
            "waits for a source" | "waits for further sources" => Fed::open([]),
            "has more to do than one poll can" => Fed::closed((0..20_000).map(|_| vec![9])),
            "has a key that is busy" => Fed::open([vec![10], vec![10], vec![10]]),
            "has a retry that waits" | "stores a letter" | "undoes a message" => {
                Fed::open([vec![7], vec![8]])
            }
            _ => Fed::open([vec![8], vec![8], vec![8], vec![8]]),
        };
        let handle = match case {
            "has a window that is open" => {
                let first = second.source().map(|batch| batch[0]).chain(stream::pending());
                live.add(Window::new(&context, first).count(9).erased())
            }
            "waits for its rate" => live.add(second.source().rate(1, 1_000 * SECOND).erased()),
            _ => live.add(second.source().erased()),
        };
        let handle = handle.unwrap_or_else(|_| panic!("there is a drain"));
        let drain = fan_in(&context, [], async |batch: Vec<u32>, step: StepContext| {
            match batch[0] {
                0 => {
                    for at in 0..5 {
                        gates.wait(at).await;
                        steps.set(steps.get() + 1);
                    }
                }
                7 if case == "undoes a message" => {
                    step.register_compensation(pending::<()>);
                    return Err("undone for ever");
                }
                7 => return Err("fails"),
                8 if case == "waits for a permit" => pending::<()>().await,
                _ => others.set(others.get() + 1),
            }
            Ok(())
        });
        let drain = drain
            .incoming(incoming)
            .concurrency(if case == "has more to do than one poll can" { 9 } else { 2 })
            .ordered_across_sources_by(|batch: &Vec<u32>| batch[0] % 10)
            .cancellation(stop.token())
            .shutdown(shutdown.token())
            .grace(1_000 * SECOND)
            .on_failure(OnFailure::Continue);
        let drain: LocalBoxFuture<'_, _> = match case {
            "stores a letter" => {
                drain.dead_letters(async |_| pending::<()>().await).into_future().boxed_local()
            }
            "has a retry that waits" => {
                drain.retry(RetryPolicy::fixed(9, 1_000 * SECOND)).into_future().boxed_local()
            }
            _ => drain.into_future().boxed_local(),
        };
        let mut drain = Hand::new(drain);
        if case == "has more to do than one poll can" {
            assert!(drain.poll().is_pending());
        } else {
            assert!(drain.run().is_pending(), "{case}");
        }
        match case {
            "has a source that is paused" => assert!(handle.pause()),
            "shuts down" => shutdown.cancel(),
            "is stopping" => stop.cancel(),
            _ => {}
        }
        let many = case == "has more to do than one poll can";
        let mut run = || {
            // As a busy drain gets to it, too: it was woken, so the next polls are its turn.
            for _ in 0..2 {
                if many {
                    let _ = drain.poll();
                } else {
                    let _ = drain.run();
                }
            }
        };
        step_by_step(&gates, &steps, &mut run, case);
        drop(drain);
        context.scope().clear();
        drop(clock);
    }
}

// Rule 2.5; fault d1
#[test]
fn a_source_that_is_woken_while_it_waits_for_a_permit_still_gets_it() {
    let (context, gates) = (StepContext::new("t"), Gates::default());
    let woken = Fed::open([]);
    let sources = [
        woken.source(),
        Fed::closed([0]).source(),
        Fed::closed([]).source(),
        Fed::closed(1_000..1_256).source(),
    ];
    let drain = fan_in(&context, sources, async |message: u32, _| {
        if message == 0 {
            gates.wait("first").await;
        }
        if message == 1_255 {
            woken.wake(); // of a source that waits for a permit
            gates.wait("last").await;
        }
        ok()
    });
    let mut drain = Hand::new(drain.quantum(256).into_future());
    assert!(drain.run().is_pending());
    woken.push(1);
    woken.close();
    assert!(drain.run().is_pending());
    gates.open("first");
    assert!(drain.run().is_pending());
    gates.open("last");
    assert_eq!(drain.finish().expect("no failure").handled(), 258);
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

// Rule 2.5
#[test]
fn whoever_polled_the_drain_last_is_woken_by_whatever_happens() {
    let (context, clock) = manual("t");
    let events: [&str; 9] = [
        "source", "handler", "token", "shutdown", "deadline", "incoming", "resume", "retry",
        "stray",
    ];
    for event in events {
        let (gates, fed) = (Gates::default(), Fed::open([]));
        let (stop, shutdown) = (CancellationSource::new(), CancellationSource::new());
        let (live, incoming) = live();
        let (own, rested) = (Fed::open([1]), Fed::open([]));
        let handle = live.add(rested.source()).expect("there is a drain");
        assert!(handle.pause());
        rested.push(3);
        for source in [&fed, &own] {
            live.add(source.source()).expect("there is a drain");
        }
        let drain = fan_in(&context, [], async |message, step: StepContext| {
            if message == 1 && event == "retry" && step.attempt() == 1 {
                return Err("once");
            }
            gates.wait(message).await;
            Ok(())
        });
        let drain = drain
            .incoming(incoming)
            .concurrency(9)
            .timeout(100 * SECOND)
            .retry(RetryPolicy::fixed(2, SECOND))
            .cancellation(stop.token())
            .shutdown(shutdown.token());
        let mut drain = Box::pin(drain.into_future());
        let old: Arc<Count> = Arc::default();
        for _ in 0..20 {
            let waker = Waker::from(Arc::clone(&old));
            assert!(drain.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let new: Arc<Count> = Arc::default();
        let waker = Waker::from(Arc::clone(&new));
        assert!(drain.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let before = (old.0.load(Ordering::SeqCst), new.0.load(Ordering::SeqCst));
        match event {
            "source" => fed.push(2),
            "stray" => fed.wake(),
            "handler" => gates.open(1),
            "token" => stop.cancel(),
            "shutdown" => shutdown.cancel(),
            "deadline" => clock.advance(100 * SECOND),
            "retry" => clock.advance(SECOND),
            "incoming" => drop(live.add(Fed::open([]).source())),
            _ => assert!(handle.resume()),
        }
        assert_eq!(old.0.load(Ordering::SeqCst), before.0, "{event} woke who is gone");
        assert!(new.0.load(Ordering::SeqCst) > before.1, "{event} woke nobody");
    }
}

// Rule 2.5
#[test]
fn a_drain_that_has_nothing_to_do_is_not_polled() {
    let (context, clock) = manual("t");
    let fed = Fed::open([1, 2]);
    let drain = fan_in(&context, [fed.source()], async |message, _| {
        yields(3).await;
        if message == 2 { Err("again") } else { Ok(()) }
    });
    let drain = drain.timeout(100 * SECOND).retry(RetryPolicy::fixed(2, SECOND));
    let mut drain = Hand::new(drain.into_future());
    assert!(drain.run().is_pending());
    let rests = drain.wakes();
    clock.advance(SECOND / 2);
    assert_eq!(drain.wakes(), rests, "nothing is due");
    // A poll without a cause changes nothing, and does not lead to the next.
    for _ in 0..10 {
        assert!(drain.poll().is_pending());
    }
    assert_eq!(drain.wakes(), rests);
}

// Rule 2.5
#[test]
fn handlers_are_woken_one_by_one_however_many_run() {
    // The polls of handlers go with what is woken, and not with how many there are.
    let polls_for = |crowd: u32| {
        let (context, gates, polls) = (StepContext::new("t"), Gates::default(), Cell::new(0));
        let drain = fan_in(&context, [filled(0..crowd)], |message, _| {
            let (gate, polls) = (gates.of(message), &polls);
            let mut wait = Box::pin(async move { gate.wait().await });
            std::future::poll_fn(move |cx| {
                polls.set(polls.get() + 1);
                wait.as_mut().poll(cx).map(|()| ok())
            })
        });
        let mut drain = Hand::new(drain.unordered().concurrency(crowd as usize).into_future());
        assert!(drain.run().is_pending());
        let before = polls.get();
        for message in 0..crowd.min(100) {
            gates.open(message);
            assert!(drain.run().is_pending() || crowd == 100);
        }
        polls.get() - before
    };
    assert_eq!((polls_for(1_000), polls_for(20_000)), (100, 100));
}

// Rule 2.6
#[test]
fn a_source_that_ends_is_dropped_at_once_and_not_polled_again() {
    for order in 0..4 {
        let (context, gates) = (StepContext::new("t"), Gates::default());
        let ends = [Fed::closed([]), Fed::closed([1]), Fed::closed([2, 3, 4])];
        let stays = Fed::open([]);
        let sources: Vec<_> = ends.iter().chain([&stays]).map(Fed::source).collect();
        let drain = fan_in(&context, sources, async |message: u32, _| {
            yields(2).await;
            if message == 4 {
                gates.wait(message).await;
            }
            ok()
        });
        let drain = drain.concurrency(10);
        let mut drain = Hand::new(in_order!(order, drain, |message| *message));
        assert!(drain.run().is_pending());
        // In order, the end of the third is not asked for before its message is done.
        let dropped = ends.each_ref().map(Fed::drops);
        assert_eq!(dropped, [1, 1, usize::from(order != 0)], "order {order}");
        gates.open(4);
        assert!(drain.run().is_pending());
        assert_eq!(ends.each_ref().map(Fed::drops), [1, 1, 1]);
        for _ in 0..5 {
            ends.iter().for_each(Fed::wake);
            assert!(drain.poll().is_pending());
        }
        stays.close();
        assert_eq!(drain.finish().expect("no failure").handled(), 4);
        assert!(ends.iter().all(|fed| fed.polls_after_end() == 0), "order {order}");
        assert_eq!((stays.polls_after_end(), stays.drops()), (0, 1));
    }
}

// Rule 2.6
#[test]
fn a_source_is_not_polled_while_it_has_not_called_for_it() {
    let context = StepContext::new("t");
    let quiet: Vec<_> = (0..1_000).map(|_| Fed::open([])).collect();
    let busy = Fed::open(0..100);
    let sources: Vec<_> = quiet.iter().chain([&busy]).map(Fed::source).collect();
    let drain = fan_in(&context, sources, async |_: u32, _| {
        yields(1).await;
        ok()
    });
    let mut drain = Hand::new(drain.into_future());
    assert!(drain.run().is_pending());
    for message in 0..100 {
        busy.push(message);
        assert!(drain.run().is_pending());
    }
    assert_eq!(busy.taken(), 200);
    assert_eq!(quiet.iter().map(Fed::polls).max(), Some(1));
}

// Rule 2.6
#[test]
fn a_drain_of_no_sources_and_none_to_come_succeeds_at_once_unless_it_was_cancelled() {
    let (stop, context) = (CancellationSource::new(), manual("t").0);
    let none = || fan_in(&context, [filled([1_u32]); 0], async |_, _| ok()).timeout(Duration::ZERO);
    let ended = none().into_future().now_or_never().expect("at once");
    assert_eq!(ended.expect("no failure").taken(), 0);
    let coming = none().incoming(stream::empty());
    assert!(coming.into_future().now_or_never().expect("at once").is_ok());
    let unordered = none().unordered().until_idle().rate(1, SECOND).incoming(stream::empty());
    assert!(unordered.into_future().now_or_never().expect("at once").is_ok());
    stop.cancel();
    let ended = none().cancellation(stop.token()).into_future().now_or_never().expect("at once");
    assert_eq!(ended.expect_err("cancelled").error().code(), ErrorCode::Canceled);
    let context = context.with_cancellation(stop.token());
    let none = fan_in(&context, [filled([1_u32]); 0], async |_, _| ok());
    let ended = none.into_future().now_or_never().expect("at once");
    assert_eq!(ended.expect_err("cancelled").error().code(), ErrorCode::Canceled);
}

// Rules 2.6, 3.1
#[test]
fn sources_that_are_all_empty_succeed_whatever_the_timeout() {
    for sources in [1, 2, 300] {
        let (context, _) = manual("t");
        let sources: Vec<_> = (0..sources).map(|_| stream::empty::<u32>()).collect();
        let drain = fan_in(&context, sources, async |_, _| ok()).timeout(SECOND);
        assert_eq!(block_on(drain).expect("no failure").taken(), 0);
    }
}

// Rule 2.6
#[test]
fn the_handlers_of_a_source_that_has_ended_are_finished() {
    let (context, gates, done) = (StepContext::new("t"), Gates::default(), Log::default());
    let fed = Fed::closed(0..50);
    let drain = fan_in(&context, [fed.source()], async |message, _| {
        gates.wait(message).await;
        done.push(message);
        ok()
    });
    let mut drain = Hand::new(drain.unordered().concurrency(100).into_future());
    assert!(drain.run().is_pending());
    assert_eq!(fed.drops(), 1, "it has ended");
    for message in (0..50).rev() {
        assert!(drain.run().is_pending());
        gates.open(message);
    }
    assert_eq!(drain.finish().expect("no failure").handled(), 50);
    assert_eq!(done.take(), (0..50).rev().collect::<Vec<_>>());
}

// Rules 2.6, 3.7
#[test]
fn a_destructor_of_a_source_may_do_what_it_likes() {
    struct Ends {
        left: u32,
        tell: Rc<RefCell<Vec<u32>>>,
        wakes: Fed<u32>,
    }
    impl futures::Stream for Ends {
        type Item = u32;
        fn poll_next(mut self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u32>> {
            self.left -= 1;
            Poll::Ready((self.left > 0).then_some(self.left))
        }
    }
    impl Drop for Ends {
        fn drop(&mut self) {
            self.tell.borrow_mut().push(self.left);
            self.wakes.push(7);
            self.wakes.close();
            panic!("the destructor of a source");
        }
    }
    let (context, told, wakes) = (StepContext::new("t"), Rc::default(), Fed::open([]));
    let source = |left| Ends { left, tell: Rc::clone(&told), wakes: wakes.clone() };
    let sources: [futures::stream::LocalBoxStream<'_, u32>; 3] =
        [source(3).boxed_local(), source(1).boxed_local(), wakes.source().boxed_local()];
    let drain = fan_in(&context, sources, async |_, _| ok());
    let report = Hand::new(drain.into_future()).finish();
    let report = report.unwrap_or_else(|failure| {
        assert_eq!(failure.error().code(), ErrorCode::Panic);
        failure.report().clone()
    });
    assert_eq!(told.borrow().len(), 2);
    assert!(report.handled() >= 2, "{report:?}");
}
