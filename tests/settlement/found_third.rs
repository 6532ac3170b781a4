//! What a third outside reviewer found in settlement: room that nobody was told of, letters, late answers, and
//! leases that are too short for another attempt.

use std::cell::RefCell;
use std::time::Duration;

use watershed::testing::{
    FetchAnswer, LogRecord, RenewalAnswer, ScriptedLog, ScriptedQueue, SettleAnswer, Simulation,
};
use watershed::transport::{Able, Link};
use watershed::{
    BoxError, CancellationSource, ErrorCode, Letter, Progress, RetryPolicy, StepContext, fan_in,
    timers, with_step,
};

use crate::found::ms;
use crate::shop::{MINUTE, SECOND, assert_sum};

/// Two messages are without an outcome, and no more may be. One of them is refused to the end.
fn refused_to_the_end(messages: u32) -> (Simulation, Link<ScriptedQueue<u32>>) {
    let simulation = Simulation::new(1).with_most_polls(100_000);
    let queue = ScriptedQueue::new(simulation.world()).with(0..messages).leased_for(MINUTE);
    queue.settles([SettleAnswer::Refused, SettleAnswer::Refused, SettleAnswer::Refused]);
    let link = Link::new(queue).max_unsettled(2).settle_within(ms(150));
    (simulation, link)
}

// 7.7: at most `max_unsettled` verdicts are without an outcome. Seen: where one is refused to the end there is room
// again, and nobody who waits for it is woken.
#[test]
fn room_that_comes_from_a_refusal_is_used() {
    for messages in [3, 4, 6, 20] {
        let (simulation, link) = refused_to_the_end(messages);
        let context = simulation.world().context("c");
        let drain = fan_in(&context, [link.source()], async |_, step: StepContext| {
            step.register_compensation(|| async {});
            Ok::<_, BoxError>(())
        });
        let report = simulation.run(drain).expect("it ends").unwrap();
        assert_sum(&report);
        assert!(report.accepted() >= u64::from(messages) - 1, "{report:?}");
    }
}

// 7.4: "where an undo fails for good the message is dead-lettered and rejected, and the action stays staged". Seen: not
// where the undo is that of a message whose accept was refused to the end; and the failure was seen much later.
#[test]
fn what_cannot_be_undone_behind_a_refusal_has_its_letter() {
    for (has_place, retries) in [(true, false), (true, true), (false, false)] {
        let (simulation, link) = refused_to_the_end(1);
        let context = simulation.world().context("c");
        let letters = RefCell::new(Vec::new());
        let drain = fan_in(&context, [link.source()], async |_, step: StepContext| {
            step.register_compensation(|| async { Err::<(), _>("no") });
            Ok::<_, BoxError>(())
        });
        let drain = if retries { drain.retry(RetryPolicy::fixed(2, SECOND)) } else { drain };
        let ended = if has_place {
            simulation.run(drain.dead_letters(async |letter: Letter<u32>| {
                let rollback = letter.rollback().unwrap_err();
                assert_eq!(rollback.error().code(), ErrorCode::Compensation);
                let id = letter.deliveries()[0].id.clone().unwrap();
                letters.borrow_mut().push((
                    id.to_string(),
                    letter.attempts(),
                    letter.message_number(),
                ));
                assert_eq!(letter.into_message(), Some(0));
                Ok::<_, BoxError>(())
            }))
        } else {
            simulation.run(drain)
        };
        let ended = ended.expect("it ends");
        assert_eq!(ended.is_ok(), has_place);
        let report = ended.unwrap_or_else(|failure| failure.report().clone());
        assert_sum(&report);
        let wanted = if has_place { (1, 1, 0) } else { (1, 0, 1) };
        assert_eq!((report.handled(), report.rejected(), report.abandoned()), wanted);
        assert_eq!(letters.into_inner().len(), usize::from(has_place));
        assert_eq!(context.scope().len(), 1, "the action stays staged");
        context.scope().clear();
    }
}

// The same, where the place for it fails, panics or never says: the drain ends with both errors.
#[test]
fn a_letter_behind_a_refusal_that_is_not_stored_ends_the_drain() {
    let ways = [
        ("fails", ErrorCode::Destination),
        ("panics", ErrorCode::Panic),
        ("hangs", ErrorCode::Timeout),
    ];
    for (how, code) in ways {
        let (simulation, link) = refused_to_the_end(1);
        let context = simulation.world().context("c");
        let drain = fan_in(&context, [link.source()], async |_, step: StepContext| {
            step.register_compensation(|| async { Err::<(), _>("no") });
            Ok::<_, BoxError>(())
        });
        let drain =
            drain.dead_letter_timeout(SECOND).dead_letters(async |_: Letter<u32>| match how {
                "fails" => Err::<(), _>("the place is full"),
                "panics" => panic!("thrown"),
                _ => std::future::pending().await,
            });
        let failure = simulation.run(drain).expect("it ends").unwrap_err();
        let text = format!("{:#}", failure.error());
        assert_eq!(failure.error().code(), ErrorCode::Compensation, "{how}: {text}");
        let related = failure.error().related();
        assert!(related.iter().any(|error| error.code() == code), "{how}: {related:?}");
        assert_eq!((failure.report().rejected(), failure.report().abandoned()), (0, 1), "{how}");
        context.scope().clear();
    }
}

// And where the drain is dropped, or cancelled, while that goes on: nothing is rejected, and the action stays.
#[test]
fn a_drain_may_end_at_any_poll_while_it_stores_a_letter_behind_a_refusal() {
    for drops in [false, true] {
        for after in 0..40 {
            let (simulation, link) = refused_to_the_end(1);
            let world = simulation.world().clone();
            let context = world.context("c");
            let stop = CancellationSource::new();
            let drain = fan_in(&context, [link.source()], async |_, step: StepContext| {
                step.register_compensation(|| async { Err::<(), _>("no") });
                Ok::<_, BoxError>(())
            });
            let drain = drain.cancellation(stop.token()).dead_letters(async |_: Letter<u32>| {
                for _ in 0..8 {
                    world.pause().await;
                }
            });
            let mut drain = Some(Box::pin(drain.into_future()));
            let mut polls = 0;
            let ended = simulation.run(std::future::poll_fn(|cx| {
                polls += 1;
                if polls > after {
                    stop.cancel();
                    if drops {
                        drain = None;
                    }
                }
                drain
                    .as_mut()
                    .map_or(std::task::Poll::Ready(None), |it| it.as_mut().poll(cx).map(Some))
            }));
            match ended.expect("it ends") {
                Some(Ok(report)) => assert_sum(&report),
                Some(Err(failure)) => assert_sum(failure.report()),
                None => {}
            }
            assert!(context.scope().len() <= 2);
            context.scope().clear();
        }
    }
}

// 7.5: a message that is no longer ours has no verdict. Seen: where its lease was lost while it was undone, a letter of
// it was stored that did not say of which message, and then it was handled.
#[test]
fn a_message_that_is_lost_while_it_is_undone_has_no_letter() {
    let simulation = Simulation::new(1);
    let queue = ScriptedQueue::new(simulation.world()).with(["tea"]).leased_for(30 * SECOND);
    queue.renews([RenewalAnswer::Lost]);
    let context = simulation.world().context("c");
    let drain =
        fan_in(&context, [Link::new(queue.clone()).source()], async |_, step: StepContext| {
            let facts = step.deliveries();
            if facts[0].deliveries > Some(1) {
                return Ok(());
            }
            let handled = step.clone();
            step.register_compensation(with_step(move |undoing: StepContext| {
                let handled = handled.clone();
                async move {
                    timers::delay(&undoing, 20 * SECOND).await?;
                    let now = &handled.deliveries()[0];
                    assert_eq!(
                        (now.id.as_deref(), now.deliveries),
                        (Some("0"), Some(1)),
                        "still known"
                    );
                    Ok::<_, BoxError>(())
                }
            }));
            Err("it fails")
        });
    let drain =
        drain.dead_letters(async |letter: Letter<&str>| Err::<(), _>(format!("{letter:?}")));
    let report = simulation.run(drain).unwrap().unwrap();
    assert_sum(&report);
    assert_eq!((report.accepted(), report.lost(), report.failed()), (1, 1, 0));
}

// 7.5: that a message comes again proves an earlier delivery lost. Seen: the late answer of an earlier fetch was taken for
// that, and ended the delivery that was good.
#[test]
fn a_late_answer_of_an_earlier_fetch_does_not_end_a_later_delivery() {
    let simulation = Simulation::new(1);
    let queue = ScriptedQueue::new(simulation.world()).with(["tea"]).leased_for(10 * SECOND);
    queue.fetches([FetchAnswer::Late(20 * SECOND)]);
    let link = Link::new(queue.clone()).settle_within(60 * SECOND);
    let context = simulation.world().context("c");
    let begun = RefCell::new(Vec::new());
    let sources = [link.source(), link.source()];
    let drain = fan_in(&context, sources, async |_, step: StepContext| {
        begun.borrow_mut().push(step.deliveries()[0].deliveries);
        timers::delay(&step, 15 * SECOND).await
    });
    let report = simulation.run(drain.concurrency(2)).unwrap().unwrap();
    assert_sum(&report);
    assert_eq!(begun.into_inner(), [Some(2)]);
    assert_eq!((report.accepted(), report.lost(), report.released()), (1, 1, 0));
}

// 7.11: "where a lease cannot be renewed, … a message with less of its lease left than that is released". Seen: one that
// had waited for its key, or for another attempt, began all the same, and was lost in the middle.
#[test]
fn a_message_that_has_waited_begins_with_enough_of_its_lease() {
    let able = Able::each().fences().leases().counts().prefetches(4);
    for by_key in [false, true] {
        let simulation = Simulation::new(1);
        let queue = ScriptedQueue::new(simulation.world()).able(able).with([1, 2]);
        let context = simulation.world().context("c");
        let source = Link::new(queue.leased_for(30 * SECOND)).source();
        let drain = fan_in(&context, [source], async |number, step: StepContext| {
            let is_first = number == 1 && step.deliveries()[0].deliveries == Some(1);
            let work = if by_key && is_first { 25 * SECOND } else { 9 * SECOND };
            timers::delay(&step, work).await?;
            if is_first && !by_key { Err(BoxError::from("again")) } else { Ok(()) }
        });
        let drain = drain.concurrency(2);
        let report = if by_key {
            simulation.run(drain.message_timeout(28 * SECOND).ordered_by(|_| 0))
        } else {
            let policy = RetryPolicy::fixed(2, 15 * SECOND);
            simulation.run(drain.message_timeout(10 * SECOND).retry(policy))
        };
        let report = report.unwrap().unwrap();
        assert_sum(&report);
        assert_eq!((report.accepted(), report.lost()), (2, 0), "{by_key} {report:?}");
        assert_eq!(report.released(), report.troubles(), "each of them is told");
        assert!(report.released() > 0);
    }
}

// 2.10: idle is a drain whose sources have nothing. Seen: a partition that was assigned before the first poll, and that
// nobody had looked at.
#[test]
fn a_partition_that_was_assigned_before_is_no_idleness() {
    for seed in 0..20 {
        let simulation = Simulation::new(seed);
        let log = ScriptedLog::new(simulation.world().clock().clone()).partition(0, 3);
        let consumer = log.consumer();
        let link = Link::new(consumer.clone());
        consumer.assign(0);
        let context = simulation.world().context("c");
        let progress = Progress::new();
        let drain = fan_in(&context, [], async |record: LogRecord, step: StepContext| {
            log.apply(&step, record);
            Ok::<_, BoxError>(())
        });
        let drain = drain.incoming(link.assigned()).until_idle().progress(&progress);
        let report = simulation.run(drain).unwrap().unwrap();
        assert_eq!((report.handled(), log.is_drained()), (3, true), "{seed}");
    }
}
