//! What an outside reviewer found in settlement: pauses, removals, limits and hints.

use std::future::{Future, IntoFuture};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use watershed::channels;
use watershed::testing::{
    FetchAnswer, QueueCall, QueueReceipt, RenewalAnswer, ScriptedQueue, Simulation, World,
};
use watershed::transport::{
    self, Able, Facts, Fetched, Link, Notices, Received, Settled, Transport, Trouble, Verdict, Want,
};
use watershed::{
    BoxError, CancellationSource, Clock, Error, ErrorCode, Letter, OnFailure, RetryPolicy, Source,
    StepContext, Tick, fan_in,
};

use crate::found::{Log, ms, released_at, say, shut_down_at_one_second};

// 7.1, 7.6: a clone of the step (in a task that the handler has started; here, the undo itself) takes `settling()` while
// its message is being undone. Seen: the drain never ends, not by a shutdown either (and releases each new delivery for ever).
#[test]
fn settling_while_the_message_is_undone_hangs_for_good() {
    let sim = Simulation::new(1);
    let queue = ScriptedQueue::new(sim.world()).with([7]).endless();
    let (context, stop) = (sim.world().context("c"), shut_down_at_one_second(&sim));
    let drain =
        fan_in(&context, [Link::new(queue.clone()).source()], async |_, step: StepContext| {
            let late = step.clone();
            step.register_compensation(move || {
                late.settling().unwrap().ended(Settled::Confirmed);
                async {}
            });
            Err::<(), _>("it failed")
        });
    let outcome = sim.run(drain.on_failure(OnFailure::Continue).shutdown(stop));
    assert!(outcome.is_ok(), "{outcome:?}");
}

// The same while its dead letter is stored.
#[test]
fn settling_while_the_dead_letter_is_stored_hangs_for_good() {
    let sim = Simulation::new(1);
    let queue = ScriptedQueue::new(sim.world()).with([7]).endless();
    let (context, stop) = (sim.world().context("c"), shut_down_at_one_second(&sim));
    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    let drain =
        fan_in(&context, [Link::new(queue.clone()).source()], move |_, step: StepContext| {
            *keep.lock().unwrap() = Some(step);
            async { Err::<(), _>("it failed") }
        });
    let drain = drain.dead_letters(move |_: Letter<i32>| {
        let step: StepContext = kept.lock().unwrap().take().unwrap();
        step.settling().unwrap().ended(Settled::Confirmed);
        async {}
    });
    let outcome = sim.run(drain.shutdown(stop));
    assert!(outcome.is_ok(), "{outcome:?}");
}

// 7.13: "a message at the limit that may never have begun is first tried alone, with nothing else of its source in flight".
// Seen: it begins at 1 s, while the undo of another message, whose lease was lost, runs until 6 s.
#[test]
fn a_message_at_its_limit_begins_beside_an_undo() {
    let sim = Simulation::new(1);
    let queue = ScriptedQueue::new(sim.world()).with([1, 2]).leased_for(ms(3000));
    queue.renews([RenewalAnswer::Lost]);
    let context = sim.world().context("c");
    let log = Log::default();
    let l = log.clone();
    let drain = fan_in(
        &context,
        [Link::new(queue.clone()).max_deliveries(2).source()],
        move |message: i32, step: StepContext| {
            let l = l.clone();
            async move {
                let (deliveries, clock) = (step.deliveries()[0].deliveries, step.clock().clone());
                if deliveries == Some(2) {
                    say(&l, format!("{message} at its limit"));
                    return Ok(());
                }
                if message == 2 {
                    return Err("it failed");
                }
                let at = clock.clone();
                step.register_compensation(move || {
                    let (l, at) = (l.clone(), at.clone());
                    async move {
                        at.sleep_until(at.now() + ms(5000)).await;
                        say(&l, "1 undone");
                    }
                });
                clock.sleep_until(Tick::MAX).await;
                Ok(())
            }
        },
    );
    sim.run(drain.on_failure(OnFailure::Continue).concurrency(2).unordered()).unwrap().unwrap();
    assert_eq!(log.lock().unwrap()[..2], ["1 undone", "2 at its limit"]);
}

// The doc of `Link`: "An option of 0 is `ErrorCode::Validation` before anything is fetched."; that of `RetryPolicy`: "A policy
// of no attempt at all is `ErrorCode::Validation` where it is used." Seen: three of them are taken without a word.
#[test]
fn options_of_zero_are_not_refused() {
    let sim = Simulation::new(1);
    let queue = || Link::new(ScriptedQueue::new(sim.world()).with([1]));
    let links = [
        queue().unreachable_for(Duration::ZERO),
        queue().slow_down_after(1, RetryPolicy::fixed(0, ms(1))),
    ];
    let outcomes: Vec<_> = links
        .into_iter()
        .map(|link| {
            let context = sim.world().context("c");
            sim.run(fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(())))
                .unwrap()
                .map(|_| ())
                .map_err(|failure| failure.error().code())
        })
        .collect();
    assert_eq!(outcomes, [Err(ErrorCode::Validation); 2]);
}

// 7.21: "a paused one fetches nothing", and what a fetch "brings after ... a pause ... is released at once".
// Seen: paused at 525 ms while its handler runs and no fetch is on its way, the source goes on asking; what comes at 1 s is
// fetched, and held (and renewed) until the source is resumed at 6 s.
#[test]
fn a_paused_source_fetches_while_its_handler_runs() {
    let sim = Simulation::new(1);
    let able = Able::each().fences().renews().prefetches(2).asks_every(ms(100));
    let queue = ScriptedQueue::new(sim.world()).able(able).with([1]).endless();
    let context = sim.world().context("c");
    // A short fetch, so that none is on its way when the source is paused.
    let link = Link::new(queue.clone()).settle_within(ms(20));
    let (live, incoming) = channels::live();
    let source = live.add(link.source()).unwrap();
    let (q, w, stop) = (queue.clone(), sim.world().clone(), CancellationSource::new());
    let token = stop.token();
    sim.spawn("operator", async move {
        let until = async |at: u64| w.clock().sleep_until(Tick::from_nanos(at * 1_000_000)).await;
        until(525).await;
        source.pause();
        until(1000).await;
        q.push(2);
        until(6000).await;
        source.resume();
        until(9000).await;
        stop.cancel();
    })
    .forget();
    let drain = fan_in(&context, [], async |message, step: StepContext| {
        let clock = step.clock().clone();
        if message == 1 {
            clock.sleep_until(Tick::from_nanos(3_000_000_000)).await;
        }
        Ok::<_, BoxError>(())
    });
    sim.run(drain.incoming(incoming).shutdown(token)).unwrap().unwrap();
    let fetched: Vec<_> = queue
        .calls()
        .into_iter()
        .filter_map(|call| match call {
            QueueCall::Fetch { at, brought } => Some((at.as_nanos() / 1_000_000, brought)),
            _ => None,
        })
        .filter(|(at, _)| (526..6000).contains(at))
        .collect();
    assert_eq!(fetched, []);
}

// 7.21: "fetching stops, what was fetched and not started is released, what runs is finished ... Removing a settling source
// does the same for that source". Seen: removed at 1 s, its handler runs until 60 s: it keeps on fetching, and what it has
// fetched is released at 60 s. (At a shutdown it is right.)
#[test]
fn a_source_that_is_removed_fetches_on_and_keeps_what_it_has_until_its_handler_has_ended() {
    let sim = Simulation::new(1);
    let able = Able::each().fences().renews().prefetches(2);
    let queue = ScriptedQueue::new(sim.world()).able(able).with([1, 2]).endless();
    let context = sim.world().context("c");
    let link = Link::new(queue.clone());
    let (live, incoming) = channels::live();
    let source = live.add(link.source()).unwrap();
    drop(live);
    let (q, w) = (queue.clone(), sim.world().clone());
    sim.spawn("operator", async move {
        w.clock().sleep_until(Tick::from_nanos(1_000_000_000)).await;
        source.request_removal();
        w.clock().sleep_until(Tick::from_nanos(20_000_000_000)).await;
        q.push(3);
    })
    .forget();
    let drain = fan_in(&context, [], async |_, step: StepContext| {
        let clock = step.clock().clone();
        clock.sleep_until(Tick::from_nanos(60_000_000_000)).await;
        Ok::<_, BoxError>(())
    });
    sim.run(drain.incoming(incoming)).unwrap().unwrap();
    let fetched: Vec<_> = queue
        .calls()
        .into_iter()
        .filter_map(|call| match call {
            QueueCall::Fetch { at, brought } if !brought.is_empty() => {
                Some((at.as_nanos() / 1_000_000_000, brought))
            }
            _ => None,
        })
        .collect();
    assert_eq!((released_at(&queue, 1), released_at(&queue, 2)), (vec![1], vec![]));
}

struct Hints(Notices, Mutex<u32>);
impl Transport for Hints {
    type Message = i32;
    type Receipt = i32;
    fn able(&self) -> Able {
        Able::each()
    }
    fn notices(&self) -> Notices {
        self.0.clone()
    }
    async fn fetch(&self, _: Want) -> Fetched<i32, i32> {
        let mut calls = self.1.lock().unwrap();
        *calls += 1;
        if *calls >= 10_000 {
            return Err(Trouble::Lasts(Error::validation("10,000 fetches in one poll")));
        }
        self.0.tell(transport::Event::Ready); // somebody has said so meanwhile
        Ok(Some(Vec::new())) // but another consumer was faster
    }
    async fn settle(&self, batch: Vec<(i32, Verdict)>) -> Vec<Settled> {
        batch.iter().map(|_| Settled::Confirmed).collect()
    }
}

// 2.4: "An always-ready source never starves the timeout, the cancellation or the executor"; "`Ready`: a hint".
// Seen: one poll of the drain fetches for ever (also with `asks_every(0)`); a timeout of 1 ms does not fire.
#[test]
fn hints_that_come_with_each_fetch_keep_the_drain_in_one_poll() {
    let link = Link::new(Hints(Notices::new(), Mutex::new(0)));
    let context = StepContext::new("c");
    let drain =
        fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(())).timeout(ms(1));
    let mut drain = std::pin::pin!(drain.into_future());
    let _ = drain.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    let fetches = *link.transport().1.lock().unwrap();
    assert!(fetches <= 256, "{fetches} fetches in one poll");
}

// 2.8 (constant memory): seen: each `Ready` that is told while no drain runs is kept (48 bytes), and worked through in one
// poll. Promised: "a hint".
#[test]
fn hints_are_kept_one_by_one() {
    let notices = Notices::new();
    let _link = Link::new(Hints(notices.clone(), Mutex::new(0)));
    for _ in 0..1_000 {
        notices.tell(transport::Event::Ready);
    }
    assert!(format!("{notices:?}").len() < 300, "{notices:?}");
}

// 7.23: "passing trouble beyond `unreachable_for`" is "a fault at once". Seen: it is looked at only with the next try, whose back-off
// doubles up to 30 s: 15 s become 25.5 s.
#[test]
fn unreachable_for_is_overrun_by_the_back_off() {
    let sim = Simulation::new(1);
    let queue = ScriptedQueue::new(sim.world()).with([1]);
    queue.fetches([FetchAnswer::Passes; 100]);
    let context = sim.world().context("c");
    let link = Link::new(queue).unreachable_for(Duration::from_secs(15));
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
    let failure = sim.run(drain).unwrap().unwrap_err();
    assert!(
        failure.report().elapsed() <= Duration::from_secs(16),
        "{:?}",
        failure.report().elapsed()
    );
}

// 7.11: "renewed ... until the verdict is handed over"; the doc of `settling` says nothing of it. Seen: from `settling()` on the
// lease is not renewed: a transaction that takes longer than the rest of it loses its message.
#[test]
fn a_lease_is_not_renewed_while_its_handler_settles() {
    let sim = Simulation::new(1);
    let queue = ScriptedQueue::new(sim.world()).leased_for(ms(900)).with([1]);
    let context = sim.world().context("c");
    let q = queue.clone();
    let drain =
        fan_in(&context, [Link::new(queue.clone()).source()], move |_, step: StepContext| {
            let q = q.clone();
            async move {
                let settling = step.settling()?;
                let clock = step.clock().clone();
                clock.sleep_until(clock.now() + ms(2000)).await; // the transaction
                let mut outcome = q
                    .settle(vec![(step.receipt::<QueueReceipt>(0).unwrap(), Verdict::Accept)])
                    .await;
                settling.ended(outcome.remove(0));
                Ok::<_, BoxError>(())
            }
        });
    let token = shut_down_at_one_second(&sim);
    let report = sim.run(drain.shutdown(token)).unwrap().unwrap();
    assert_eq!((report.accepted(), report.lost()), (1, 0));
}

// 7.23: what a settlement finds and does not pass is a fault at once, and no receipt is lost by it.
#[test]
fn a_fault_that_a_settlement_has_found_ends_the_drain() {
    let sim = Simulation::new(1);
    let context = sim.world().context("c");
    let notices = Notices::new();
    let link = Link::new(Hints(notices.clone(), Mutex::new(0)));
    assert_eq!(link.source().assignment(), transport::Assignment::default());
    notices.tell(transport::Event::Fault(Error::validation("the key is disabled")));
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
    let failure = sim.run(drain).unwrap().unwrap_err();
    assert_eq!(failure.error().code(), ErrorCode::Validation);
    assert_eq!(failure.report().lost(), 0);
}

/// One message, that comes again as soon as it is released; each call takes a millisecond.
struct Again(World, Mutex<(bool, u32, Vec<bool>)>);
impl Transport for Again {
    type Message = i32;
    type Receipt = ();
    fn able(&self) -> Able {
        Able::each().fences().counts()
    }
    async fn fetch(&self, want: Want) -> Fetched<i32, ()> {
        let until = self.0.clock().now() + want.wait;
        loop {
            self.0.clock().sleep_until(self.0.clock().now() + ms(1)).await;
            let mut state = self.1.lock().unwrap();
            if !state.0 {
                (state.0, state.1) = (true, state.1 + 1);
                let facts = Facts { deliveries: Some(state.1), ..Facts::default() };
                return Ok(Some(vec![Received::new(7, ()).with_facts(facts)]));
            }
            if want.stop.is_cancelled() || self.0.clock().now() >= until {
                return Ok(Some(Vec::new()));
            }
        }
    }
    async fn settle(&self, batch: Vec<((), Verdict)>) -> Vec<Settled> {
        let mut state = self.1.lock().unwrap();
        if let [(_, Verdict::Release { begun, .. })] = batch[..] {
            state.2.push(begun);
            if !begun {
                state.1 -= 1;
            }
            state.0 = false;
        }
        vec![Settled::Confirmed]
    }
}

/// How often the message was released in 5 s, whether as begun, and how the drain ended.
fn storm(kind: u8) -> (usize, bool, Result<(), String>) {
    let sim = Simulation::new(1);
    let (stop, w) = (CancellationSource::new(), sim.world().clone());
    let token = stop.token();
    sim.spawn("stop", async move {
        w.clock().sleep_until(Tick::from_nanos(5_000_000_000)).await;
        stop.cancel()
    })
    .forget();
    let context = sim.world().context("c");
    let link = Link::new(Again(sim.world().clone(), Mutex::default())).max_deliveries(30);
    let source = link.source().picked(move |m: i32| {
        assert!(kind != 1, "the user's function");
        Some(m)
    });
    let drain = fan_in(&context, [source], move |_, _| async move {
        if kind == 2 { Err("it failed") } else { Ok(()) }
    })
    .ordered_by(move |m: &i32| {
        assert!(kind != 0, "the user's key");
        *m
    })
    .concurrency(2)
    .on_failure(OnFailure::Continue)
    .shutdown(token);
    let ended =
        sim.run(drain).unwrap().map(|_| ()).map_err(|failure| format!("{:#}", failure.error()));
    let state = link.transport().1.lock().unwrap();
    (state.2.len(), state.2.iter().any(|begun| *begun), ended)
}

// 3.7: "One in a key function fails its message, as one in its handler does"; 7.24: "after n in a row on one source, taking from it
// slows down ... so that ..." no "storm of redeliveries"; 7.13: `max_deliveries` ends what comes too often.
// Seen: released as not begun, so its delivery is taken back and `max_deliveries` never ends it; and not slowed down.
#[test]
fn a_key_function_that_panics_makes_a_storm_of_redeliveries() {
    let (by_handler, by_key, by_pick) = (storm(2).0, storm(0).0, storm(1).0);
    assert!(
        by_key <= by_handler && by_pick <= by_handler,
        "{by_handler} releases by the handler, {by_key} by the key, {by_pick} by the pick"
    );
}

// 2.3, 7.7: while `max_unsettled` is reached, each room that becomes free went to the same source.
#[test]
fn no_source_starves_while_too_many_verdicts_are_out() {
    let sim = Simulation::new(1);
    let context = sim.world().context("c");
    let queue = |from: i32| {
        let queue = ScriptedQueue::new(sim.world()).with(from..from + 100);
        queue.latency(ms(100))
    };
    let queue = queue(0);
    let link = Link::new(queue.clone()).max_unsettled(1);
    let (sources, stop) =
        ([link.source().named("a"), link.source().named("b")], CancellationSource::new());
    let (w, token) = (sim.world().clone(), stop.token());
    sim.spawn("stop", async move {
        w.clock().sleep_until(Tick::from_nanos(5_000_000_000)).await;
        stop.cancel()
    })
    .forget();
    let drain = fan_in(&context, sources, async |_, _| Ok::<_, BoxError>(())).concurrency(2);
    let report = sim.run(drain.shutdown(token)).unwrap().unwrap();
    let handled: Vec<_> = report.sources().iter().map(|source| source.handled()).collect();
    assert!(handled.iter().all(|it| *it > 10), "{handled:?}");
}

/// Rule 7.23: what fails where no call is made is counted and told, and however much of it there is, no
/// history is kept.
#[test]
fn a_trouble_that_no_call_has_is_counted() {
    let notices = Notices::new();
    let trouble = || transport::Event::Trouble(Error::validation("the group is not there yet"));
    (0..1_000).for_each(|_| notices.tell(trouble()));
    assert!(!format!("{notices:?}").contains("Trouble"), "nobody listens");
    let link = Link::new(Hints(notices.clone(), Mutex::new(0)));
    let simulation = Simulation::new(1);
    let context = simulation.world().context("troubles");
    let stop = CancellationSource::new();
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
    let mut drain = Box::pin(drain.shutdown(stop.token()).into_future());
    assert!(drain.as_mut().now_or_never().is_none());
    (0..1_000).for_each(|_| notices.tell(trouble()));
    assert!(format!("{notices:?}").len() < 10_000, "{notices:?}");
    stop.cancel();
    let report = simulation.run(drain).unwrap().unwrap();
    assert!((1..=16).contains(&report.troubles()), "{}", report.troubles());
}
