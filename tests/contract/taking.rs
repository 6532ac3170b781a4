//! Rule 2.1: a message is taken when its handler is about to be called, and whatever holds messages
//! gives them back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::pending;
use std::task::Poll;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use watershed::channels::Window;
use watershed::{BoxError, RetryPolicy, Source, SourceId, StepContext, fan_in};

use crate::support::ending::{
    DEADLINE, ENDINGS, Ended, Ending, Stage, assert_settled, heed, report,
};
use crate::support::fed::{Fed, Gates};
use crate::support::{Hand, Log, block_on, filled, left_in, yields};

const SECOND: Duration = Duration::from_secs(1);

fn ok() -> Result<(), BoxError> {
    Ok(())
}

// Rule 2.1
#[test]
fn a_message_is_taken_when_its_handler_is_about_to_be_called_and_not_before() {
    for order in 0..4 {
        for (handlers, waits) in [(1, 0), (1, 2), (3, 0), (3, 2), (1_000, 2)] {
            let (taken, called) = (Cell::new(0), Cell::new(0));
            let source = |first: u32| {
                let (taken, called) = (&taken, &called);
                let mut next = first..first + 40;
                stream::poll_fn(move |_| {
                    assert_eq!(
                        taken.get(),
                        called.get(),
                        "order {order}: one is on its way already"
                    );
                    let message = next.next();
                    taken.set(taken.get() + u32::from(message.is_some()));
                    Poll::Ready(message)
                })
            };
            let context = StepContext::new("t");
            let drain = fan_in(&context, [source(0), source(100), source(200)], |_, _| {
                called.set(called.get() + 1);
                async move {
                    yields(waits).await;
                    ok()
                }
            });
            let drain = drain.concurrency(handlers);
            let report = block_on(in_order!(order, drain, |message| *message));
            assert_eq!(report.expect("no failure").handled(), 120);
        }
    }
}

// Rule 2.1
#[test]
fn whatever_ends_a_drain_every_message_whose_handler_was_not_called_is_still_in_its_source() {
    for ending in ENDINGS {
        for ordered in [true, false] {
            let stage = Stage::default();
            let queues = [filled(0..20), filled(100..120), filled(200..220)];
            let called = Log::default();
            let mut sources: Vec<_> = queues.iter().map(|queue| queue.clone().erased()).collect();
            sources.push(stage.trigger().erased());
            // Every third message is never done, and hears of nothing.
            let drain = fan_in(&stage.context, sources, async |message, _| {
                called.push(message);
                heed(message)?;
                yields(1).await;
                if message % 100 == 3 {
                    pending::<()>().await;
                }
                ok()
            });
            let drain = drain.concurrency(4).per_source_concurrency(1).timeout(DEADLINE);
            let drain = drain
                .cancellation(stage.stop.token())
                .shutdown(stage.shutdown.token())
                .finish_within(SECOND);
            let ended = if ordered {
                let mut drain = Hand::new(drain.into_future());
                assert!(drain.run().is_pending());
                end_or_time_out(&stage, ending, drain)
            } else {
                let mut drain = Hand::new(drain.unordered().into_future());
                assert!(drain.run().is_pending());
                end_or_time_out(&stage, ending, drain)
            };
            if let Some(ended) = &ended {
                assert_settled(report(ended));
                assert_eq!(report(ended).taken(), called.len() as u64, "{ending:?}");
            }
            let mut seen: Vec<_> = called.take();
            seen.retain(|message| *message < 1_000);
            let left: Vec<_> = queues.iter().flat_map(left_in).collect();
            assert!(!seen.is_empty() && !left.is_empty(), "{ending:?} {ordered}");
            seen.extend(left);
            seen.sort_unstable();
            let all: Vec<_> = (0..20).chain(100..120).chain(200..220).collect();
            assert_eq!(seen, all, "{ending:?}, ordered: {ordered}");
        }
    }
}

/// As [`Stage::end`], with handlers that are never done: a shutdown fails by its limit.
fn end_or_time_out<F: Future<Output = Ended>>(
    stage: &Stage,
    ending: Ending,
    mut drain: Hand<F>,
) -> Option<Ended> {
    if ending == Ending::Shutdown {
        stage.shutdown.cancel();
        return Some(drain.finish_by(&stage.clock));
    }
    stage.end(ending, drain)
}

// Rule 2.1
#[test]
fn a_source_that_was_lent_is_drained_on_afterwards() {
    let context = StepContext::new("t");
    let mut messages = stream::iter(0..10);
    let failed = fan_in(
        &context,
        [&mut messages],
        async |message, _| {
            if message == 3 { Err("no") } else { Ok(()) }
        },
    );
    block_on(failed).expect_err("the fourth fails");
    let rest = Log::default();
    let second = fan_in(&context, [&mut messages], async |message, _| {
        rest.push(message);
        ok()
    });
    block_on(second).expect("no failure");
    assert_eq!(rest.take(), (4..10).collect::<Vec<_>>());
    assert_eq!(block_on(messages.collect::<Vec<_>>()), []);
}

/// What holds messages when the drain ends: the messages that were put back, by source.
type Back = RefCell<Vec<(SourceId, u32)>>;

// Rule 2.1
#[test]
fn an_open_window_goes_back_message_by_message_whatever_ends_the_drain() {
    for ending in ENDINGS {
        for put_back in [true, false] {
            let (stage, back, batches) = (Stage::default(), Back::default(), Log::default());
            let fed = Fed::open(0..13);
            let sources = [
                Window::new(&stage.context, fed.source().erased()).count(5).every(1_000 * SECOND),
                Window::new(&stage.context, stage.trigger().erased()).count(1),
            ];
            let drain = fan_in(&stage.context, sources, async |batch: Vec<u32>, _| {
                assert!(!batch.is_empty());
                heed(batch[0])?;
                batches.push(batch);
                ok()
            });
            let drain = drain.timeout(DEADLINE).cancellation(stage.stop.token());
            let drain = drain.shutdown(stage.shutdown.token());
            let ended = if put_back {
                let drain = drain.put_back(|source, batch: Vec<u32>| {
                    assert_eq!(batch.len(), 1, "one by one");
                    back.borrow_mut().push((source, batch[0]));
                });
                let mut drain = Hand::new(drain.into_future());
                assert!(drain.run().is_pending());
                stage.end(ending, drain)
            } else {
                let mut drain = Hand::new(drain.into_future());
                assert!(drain.run().is_pending());
                stage.end(ending, drain)
            };
            assert_eq!(batches.take(), [vec![0, 1, 2, 3, 4], vec![5, 6, 7, 8, 9]], "{ending:?}");
            let back: Vec<_> = back.take();
            if put_back {
                let messages: Vec<_> = back.iter().map(|(_, message)| *message).collect();
                assert_eq!(messages, [10, 11, 12], "{ending:?}");
            }
            let Some(ended) = ended else { continue };
            assert_settled(report(&ended));
            let row = &report(&ended).sources()[0];
            assert!(back.iter().all(|(source, _)| *source == row.id()));
            let places = (row.put_back(), row.unfinished());
            assert_eq!(places, if put_back { (3, 0) } else { (0, 3) }, "{ending:?}");
            if let Err(failure) = &ended {
                let told = failure.error().metadata("unfinished");
                assert_eq!(told, (!put_back).then_some("3"), "{ending:?}");
            }
        }
    }
}

// Rule 2.1
#[test]
fn a_source_in_order_of_keys_holds_one_message_that_goes_back_whatever_ends_the_drain() {
    for ending in ENDINGS {
        for across in [true, false] {
            for put_back in [true, false] {
                a_busy_key(ending, across, put_back);
            }
        }
    }
}

fn a_busy_key(ending: Ending, across: bool, put_back: bool) {
    let (stage, back, gates) = (Stage::default(), Back::default(), Gates::default());
    // Key 1 is busy with the first message, so the second is held, and the third is not taken.
    let fed = Fed::open([1, 11, 2]);
    let sources = [fed.source().erased(), stage.trigger().erased()];
    let called = Log::default();
    let drain = fan_in(&stage.context, sources, async |message, _| {
        called.push(message);
        heed(message)?;
        gates.wait(message).await;
        ok()
    });
    let drain = drain.timeout(DEADLINE).cancellation(stage.stop.token()).concurrency(5);
    let drain = drain.shutdown(stage.shutdown.token());
    let key = |message: &u32| message % 10;
    let keep = |source, message| back.borrow_mut().push((source, message));
    // What runs is done once the drain must end, which is no time for what is held.
    let end = |mut drain: Hand<futures::future::LocalBoxFuture<'_, Ended>>| {
        assert!(drain.run().is_pending());
        assert_eq!((called.all(), fed.taken()), (vec![1], 2));
        if ending == Ending::Shutdown {
            stage.shutdown.cancel();
            assert!(drain.run().is_pending(), "what runs is finished");
            gates.open(1);
        }
        stage.end(ending, drain)
    };
    let ended = match (across, put_back) {
        (false, true) => {
            end(Hand::new(drain.ordered_by(key).put_back(keep).into_future().boxed_local()))
        }
        (false, false) => end(Hand::new(drain.ordered_by(key).into_future().boxed_local())),
        (true, true) => {
            let drain = drain.ordered_across_sources_by(key).put_back(keep);
            end(Hand::new(drain.into_future().boxed_local()))
        }
        (true, false) => {
            end(Hand::new(drain.ordered_across_sources_by(key).into_future().boxed_local()))
        }
    };
    assert!(!called.all().contains(&11), "{ending:?}");
    assert_eq!(fed.left(), [2], "{ending:?}");
    let back = back.take();
    if put_back {
        assert_eq!(
            back.iter().map(|(_, message)| *message).collect::<Vec<_>>(),
            [11],
            "{ending:?}"
        );
    }
    let Some(ended) = ended else { return };
    assert_settled(report(&ended));
    let row = &report(&ended).sources()[0];
    assert!(back.iter().all(|(source, _)| *source == row.id()));
    // Message 1 was dropped when the grace ended, except in a shutdown.
    let dropped = u64::from(ending != Ending::Shutdown);
    let places = (row.put_back(), row.unfinished() - dropped);
    assert_eq!(places, if put_back { (1, 0) } else { (0, 1) }, "{ending:?} {across}");
}

// Rules 2.1, 3.10
#[test]
fn a_message_that_waits_for_its_next_attempt_goes_back_whatever_ends_the_drain() {
    for ending in ENDINGS {
        for put_back in [true, false] {
            let (stage, back) = (Stage::default(), Back::default());
            let fed = Fed::open([1, 2]);
            let sources = [fed.source().erased(), stage.trigger().erased()];
            let attempts = Log::default();
            let policy = RetryPolicy::fixed(3, 1_000 * SECOND)
                .only_if(|error| error.to_string().contains("source 0"));
            let drain = fan_in(&stage.context, sources, async |message, step: StepContext| {
                attempts.push(message);
                heed(message)?;
                step.register_compensation(async || {});
                Err::<(), BoxError>("not yet".into())
            });
            let drain = drain.timeout(DEADLINE).cancellation(stage.stop.token()).retry(policy);
            let drain = drain.shutdown(stage.shutdown.token());
            let ended = if put_back {
                let keep = |source, message| back.borrow_mut().push((source, message));
                let mut drain = Hand::new(drain.put_back(keep).into_future());
                assert!(drain.run().is_pending());
                stage.end(ending, drain)
            } else {
                let mut drain = Hand::new(drain.into_future());
                assert!(drain.run().is_pending());
                stage.end(ending, drain)
            };
            assert_eq!(attempts.all().iter().filter(|message| **message < 1_000).count(), 1);
            assert_eq!(fed.left(), [2], "its source waits with it");
            let back = back.take();
            if put_back {
                assert_eq!(back.iter().map(|(_, message)| *message).collect::<Vec<_>>(), [1]);
            }
            assert!(!stage.context.scope().has_actions(), "it was undone before it waited");
            let Some(ended) = ended else { continue };
            assert_settled(report(&ended));
            let row = &report(&ended).sources()[0];
            let places = (row.put_back(), row.unfinished(), row.failed());
            assert_eq!(places, if put_back { (1, 0, 0) } else { (0, 1, 0) }, "{ending:?}");
        }
    }
}

// Rules 2.1, 2.10
#[test]
fn the_end_of_its_source_and_an_idle_drain_give_an_open_window_out_as_it_is() {
    for idle in [true, false] {
        let context = StepContext::new("t");
        let fed = if idle { Fed::open(0..7) } else { Fed::closed(0..7) };
        let empty = if idle { Fed::open([]) } else { Fed::closed([]) };
        let sources = [&fed, &empty].map(|fed| Window::new(&context, fed.source()).count(5));
        let batches = Log::default();
        let drain = fan_in(&context, sources, async |batch: Vec<i32>, _| {
            yields(2).await;
            batches.push(batch);
            ok()
        });
        let drain = drain.put_back(|_, batch| panic!("{batch:?} was to be handled"));
        let drain = if idle { drain.until_idle() } else { drain };
        let report = Hand::new(drain.into_future()).finish().expect("no failure");
        assert_eq!(batches.take(), [vec![0, 1, 2, 3, 4], vec![5, 6]], "never an empty one");
        assert_eq!((report.handled(), report.put_back()), (2, 0));
        assert_settled(&report);
    }
}

// Rule 2.1
#[test]
fn a_crowd_that_is_held_goes_back_and_nothing_is_lost() {
    const SOURCES: u32 = 20_000;
    for ending in [Ending::Cancelled, Ending::Dropped, Ending::Failure] {
        let (stage, back) = (Stage::default(), Back::default());
        let queues: Vec<_> = (0..SOURCES).map(|number| filled([number])).collect();
        let mut sources: Vec<_> = queues.iter().map(|queue| queue.clone().erased()).collect();
        sources.push(stage.trigger().erased());
        let drain = fan_in(&stage.context, sources, async |message, _| {
            heed(message)?;
            Err::<(), BoxError>("later".into())
        });
        let retryable = |error: &watershed::Error| format!("{error:#}").contains("later");
        let drain = drain
            .retry(RetryPolicy::fixed(2, 1_000 * SECOND).only_if(retryable))
            .max_waiting(100_000)
            .timeout(DEADLINE)
            .cancellation(stage.stop.token())
            .shutdown(stage.shutdown.token())
            .put_back(|source, message| back.borrow_mut().push((source, message)));
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        let ended = stage.end(ending, drain);
        let back = back.take();
        let ids: BTreeSet<_> = back.iter().map(|(source, _)| *source).collect();
        let messages: BTreeSet<_> = back.iter().map(|(_, message)| *message).collect();
        assert_eq!((ids.len(), messages.len(), back.len()), (20_000, 20_000, 20_000), "{ending:?}");
        if let Some(ended) = ended {
            assert_eq!(report(&ended).put_back(), u64::from(SOURCES));
        }
    }
}

// Rules 2.1, 3.7
#[test]
fn a_put_back_that_panics_loses_its_own_message_alone() {
    let stage = Stage::default();
    let fed: Vec<_> = (0..3).map(|number| Fed::open([number])).collect();
    let sources = fed.iter().map(|fed| Window::new(&stage.context, fed.source()).count(9));
    let back = Log::default();
    let drain = fan_in(&stage.context, sources, async |_: Vec<u32>, _| ok());
    let drain = drain.cancellation(stage.stop.token()).put_back(|_, batch: Vec<u32>| {
        assert!(batch != [1], "the place is full");
        back.push(batch[0]);
    });
    let mut drain = Hand::new(drain.into_future());
    assert!(drain.run().is_pending());
    stage.stop.cancel();
    let failure = drain.finish().expect_err("cancelled");
    assert_eq!(back.take(), [0, 2]);
    assert_settled(failure.report());
    assert_eq!(failure.report().taken(), 3);
}
