//! Random programs over a queue that answers by a seed: each ends, and its account is exact.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use watershed::channels::{AnySource, Window};
use watershed::testing::{ScriptedQueue, Simulation, Stopped};
use watershed::transport::{Able, Settled, Ticket};
use watershed::{
    Answer, BoxError, CancellationSource, Clock, CompensationPolicy, Error, ErrorCode, Failure,
    FanInReport, Letter, OnFailure, RetryPolicy, Source, StepContext, Tick, fan_in, timers,
};

use crate::shop::{SECOND, Shop, assert_sum};

type Message = Vec<u32>;
type Ended = Result<FanInReport, Failure<FanInReport>>;

/// What is drawn of a seed before the drain begins.
struct Plan {
    messages: u32,
    renews: bool,
    rejects: bool,
    redrives: bool,
    windows: bool,
    /// So many, where the queue keeps order by group.
    groups: Option<u32>,
    order: usize,
    letters: usize,
    drop_after: Option<usize>,
    calm: bool,
}

fn millis(rng: &mut Rng, most: u64) -> Duration {
    Duration::from_millis(rng.u64(1..=most))
}

fn queue(simulation: &Simulation, plan: &Plan, rng: &mut Rng, seed: u64) -> Shop {
    let mut able = Able::each().fences().counts().leases();
    if plan.renews {
        able = able.renews();
    }
    if rng.bool() {
        able = able.delays();
    }
    if plan.rejects {
        able = able.rejects();
    }
    if plan.redrives {
        able = able.redrives();
    }
    if plan.groups.is_some() {
        able = able.groups();
    }
    able = able.batches_of(rng.usize(1..=6)).prefetches(rng.usize(1..=6));
    able = able.asks_every(millis(rng, 2_000));
    let mut queue = ScriptedQueue::new(simulation.world())
        .able(able)
        .leased_for(SECOND * rng.u32(3..60))
        .seeded(seed, if plan.calm { 0 } else { rng.u64(0..40) })
        .with(0..plan.messages);
    if rng.bool() {
        queue = queue.latency(millis(rng, 300));
    }
    if let Some(groups) = plan.groups {
        queue = queue.grouped_by(move |number| (number % groups).to_string());
    }
    if plan.redrives {
        queue = queue.redrives_after(rng.u32(2..6));
    }
    let shop = Shop::new(queue);
    let mut book = shop.book();
    (book.keeps_rejects, book.redrives) = (plan.rejects, plan.redrives);
    drop(book);
    shop
}

/// The sources of one shop, some in windows, some that decode or leave out.
fn sources(
    shop: &Shop,
    plan: &Plan,
    context: &StepContext,
    rng: &mut Rng,
) -> Vec<AnySource<'static, Message, Ticket>> {
    let (patience, room) = if rng.bool() { (60_000, 20) } else { (500, 3) };
    // Longer than a call takes.
    let mut link = shop.link().settle_within(SECOND / 2 + millis(rng, patience));
    if !plan.windows {
        link = link.max_unsettled(rng.usize(1..room));
    }
    if rng.u8(0..4) == 0 {
        link = link.max_deliveries(rng.u32(1..6));
    }
    if rng.u8(0..4) == 0 {
        link = link.unreachable_for(millis(rng, 300_000));
    }
    if rng.u8(0..4) == 0 {
        link = link.slow_down_after(rng.u32(1..4), RetryPolicy::fixed(9, millis(rng, 9_000)));
    }
    let skips = rng.u8(0..4) == 0;
    if skips {
        shop.book().skipped = (0..u64::from(plan.messages)).filter(|it| it % 5 == 4).collect();
    }
    let mut sources = Vec::new();
    for _ in 0..rng.usize(1..3) {
        let source = link.source().named("queue");
        let source = source.picked(move |it| (!skips || it % 5 != 4).then_some(it));
        let source = if plan.windows {
            let window = Window::new(context, source).count(rng.usize(1..4));
            window.every(millis(rng, 5_000)).erased()
        } else if rng.u8(0..3) == 0 {
            let decode = |it| if it % 6 == 3 { Err("no order") } else { Ok(vec![it]) };
            source.decoded(decode).erased()
        } else {
            source.picked(|it| Some(vec![it])).erased()
        };
        sources.push(source);
    }
    sources
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|it| it.parse().ok())
}

/// When every program has ended by itself.
const LATE: Duration = Duration::from_secs(3_600);

/// One program.
fn run(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let simulation = Simulation::new(seed).with_most_polls(60_000);
    let simulation = if seed % 2 == 0 { simulation } else { simulation.with_strict_wakers() };
    let mut plan = Plan {
        messages: rng.u32(1..12),
        renews: rng.u8(0..5) != 0,
        rejects: rng.u8(0..3) == 0,
        redrives: rng.u8(0..3) == 0,
        windows: rng.u8(0..4) == 0,
        groups: (rng.u8(0..3) == 0).then(|| rng.u32(1..4)),
        order: rng.usize(0..4),
        letters: rng.usize(0..4),
        drop_after: (rng.u8(0..3) == 0).then(|| rng.usize(0..120)),
        calm: rng.u8(0..5) == 0,
    };
    if plan.groups.is_some() && (plan.order == 1 || plan.windows) {
        plan.order = 0;
    }
    let shop = queue(&simulation, &plan, &mut rng, seed);
    let world = simulation.world().clone();
    let context = world.context("program");
    let sources = sources(&shop, &plan, &context, &mut rng);

    // Whoever ends it.
    let (shutdown, cancel) = (CancellationSource::new(), CancellationSource::new());
    let shutdown_after = if rng.bool() { millis(&mut rng, 60_000) } else { LATE };
    let (clock, token) = (world.clock().clone(), shutdown.clone());
    let _stops = simulation.spawn("shutdown", async move {
        clock.sleep_until(clock.now() + shutdown_after).await;
        token.cancel();
    });
    let cancel_after = (rng.u8(0..6) == 0).then(|| millis(&mut rng, 60_000));
    let (clock, token) = (world.clock().clone(), cancel.clone());
    let _cancels = simulation.spawn("cancel", async move {
        if let Some(after) = cancel_after {
            clock.sleep_until(clock.now() + after).await;
            token.cancel();
        }
    });
    // Whoever has messages come again that are out.
    let (queue, clock) = (shop.queue.clone(), world.clock().clone());
    let again: Vec<_> =
        (0..rng.usize(0..4)).map(|_| (millis(&mut rng, 20_000), rng.u64(0..12))).collect();
    let _again = simulation.spawn("again", async move {
        for (after, number) in again {
            clock.sleep_until(clock.now() + after).await;
            queue.redeliver(number);
        }
    });

    let state = Arc::new(Mutex::new((Rng::with_seed(rng.u64(..)), 0_u32)));
    let settings = Rng::with_seed(rng.u64(..));
    let (calm, lease) = (plan.calm, SECOND * 10);
    // A window that is rejected is through: those behind it do not wait for that to be sent.
    let groups = plan.groups.filter(|_| !(plan.windows && plan.rejects)).unwrap_or(u32::MAX);
    let handle = async |step: &StepContext| -> Result<Answer, BoxError> {
        let mut rng = {
            let mut state = state.lock().unwrap();
            state.1 += 1;
            // Nobody is unlucky for ever.
            if state.1 > 60 { Rng::with_seed(1) } else { Rng::with_seed(state.0.u64(..)) }
        };
        let bad = !calm && state.lock().unwrap().1 <= 60;
        let slow = world.clone();
        let receipts = shop.work(step);
        if !receipts.is_empty() && receipts[0].number % 2 == 0 {
            step.register_compensation(move || slow.clone().pause());
        }
        if bad && rng.u8(0..12) == 0 {
            // An undo that fails for good.
            shop.book().stuck.extend(receipts.iter().copied());
            step.register_compensation(|| async { Err::<(), _>("cannot be undone") });
        }
        match rng.u8(0..4) {
            0 => world.pause().await,
            1 => timers::delay(step, millis(&mut rng, 500)).await?,
            2 if bad => timers::delay(step, lease.mul_f32(rng.f32() * 4.0)).await?,
            _ => {}
        }
        if !bad {
            return Ok(Answer::Done);
        }
        match rng.u8(0..16) {
            0..3 => Err("declined".into()),
            3 => panic!("thrown"),
            4 => Ok(Answer::Later(millis(&mut rng, 3_000))),
            5 => {
                let settling = step.settling()?;
                shop.book().by_hand.extend(receipts.iter().copied());
                if rng.bool() {
                    world.pause().await;
                }
                let error = || Error::new(ErrorCode::Handler, "by hand");
                match rng.u8(0..4) {
                    0 => {
                        shop.book().by_hand.retain(|it| !receipts.contains(it));
                        settling.ended(Settled::Refused(error()));
                    }
                    1 => settling.ended(Settled::Lost(error())),
                    2 => settling.ended(Settled::Confirmed),
                    _ => drop(settling),
                }
                if rng.u8(0..4) == 0 { Err("after it".into()) } else { Ok(Answer::Done) }
            }
            _ => Ok(Answer::Done),
        }
    };
    let handler = async |message: Message, step: StepContext| -> Result<Answer, BoxError> {
        shop.begin_in_order(&message, groups);
        let answer = handle(&step).await?;
        if let Answer::Done = answer {
            shop.finish(&message);
        }
        Ok(answer)
    };

    let drain =
        fan_in(&context, sources, handler).shutdown(shutdown.token()).cancellation(cancel.token());
    macro_rules! go {
        ($drain:expr) => {{
            let mut rng = settings.clone();
            let mut drain = $drain.concurrency(rng.usize(1..6));
            if rng.u8(0..4) == 0 {
                drain = drain.per_source_concurrency(rng.usize(1..3));
            }
            if rng.bool() {
                drain = drain.retry(RetryPolicy::exponential(rng.u32(1..4), millis(&mut rng, 900)));
            }
            if !plan.renews || rng.u8(0..4) == 0 {
                drain = drain.message_timeout(millis(&mut rng, 20_000));
            }
            if rng.u8(0..6) == 0 {
                drain = drain.timeout(millis(&mut rng, 60_000));
            }
            if rng.bool() {
                drain = drain.grace(millis(&mut rng, 5_000));
            }
            if rng.u8(0..3) == 0 {
                drain = drain.finish_within(millis(&mut rng, 5_000));
            }
            if rng.u8(0..3) == 0 {
                drain = drain.on_failure(OnFailure::Continue);
            }
            if rng.u8(0..6) == 0 {
                drain = drain.max_waiting(rng.usize(1..3));
            }
            if rng.u8(0..6) == 0 {
                drain = drain.rate(rng.usize(1..5), millis(&mut rng, 2_000));
            }
            if plan.letters > 0 {
                let fails = plan.letters == 3;
                let store = |letter: Letter<Message>| {
                    let (shop, world) = (shop.clone(), world.clone());
                    let fails = fails && letter.message_number() % 3 == 2;
                    async move {
                        world.pause().await;
                        let ids = letter.deliveries().iter().filter_map(|it| it.id.clone());
                        if fails {
                            return Err("the place is full");
                        }
                        shop.book().letters.extend(ids.map(|id| id.parse::<u64>().unwrap()));
                        Ok(())
                    }
                };
                run_to_its_end(&simulation, plan.drop_after, drain.dead_letters(store))
            } else {
                run_to_its_end(&simulation, plan.drop_after, drain)
            }
        }};
    }
    let ended = match plan.order {
        0 => go!(drain),
        1 => go!(drain.unordered()),
        2 => go!(drain.ordered_by(|it: &Message| it[0] % 3)),
        _ => go!(drain.ordered_across_sources_by(|it: &Message| it[0] % 2)),
    };
    let ended = ended.unwrap_or_else(|stopped| {
        let calls = shop.queue.calls();
        let last =
            &calls[calls.len().saturating_sub(if number("SEED").is_some() { 60 } else { 0 })..];
        panic!(
            "it has not ended: {stopped} at {:?}, {} calls {last:#?}",
            world.clock().now(),
            calls.len()
        )
    });
    // Leases that cannot be renewed may be too short for any handler, again and again.
    let ended_late = world.clock().now() >= Tick::ZERO + LATE;
    let slept = plan.renews && ended_late && matches!(&ended, Some(Ok(_)));
    assert!(!slept, "nothing more to do, and not ended: {ended:?}");
    match &ended {
        Some(Ok(report)) => assert_sum(report),
        Some(Err(failure)) => assert_sum(failure.report()),
        None => {}
    }
    if number("SEED").is_some() {
        println!("{:#?}", shop.queue.calls());
        println!("undone {:?} accepted {:?}", shop.book().undone, shop.queue.accepted());
        println!("{ended:?}");
    }
    if number("SHOW").is_some() {
        let told = match &ended {
            None => "dropped".to_owned(),
            Some(Ok(report)) => format!("{} of {}", report.handled(), report.fetched()),
            Some(Err(failure)) => format!("{:?} {}", failure.error().code(), failure.error()),
        };
        println!(
            "{seed}: {} polls, {} calls, {told}",
            simulation.polls(),
            shop.queue.calls().len()
        );
    }
    let before = shop.book().faults.clone();
    assert!(before.is_empty(), "in the drain: {before:#?}");
    let rollback = context.roll_back(&CompensationPolicy::sequential_reverse());
    let _ = simulation.run(rollback).expect("a rollback ends");
    shop.check_all(u64::from(plan.messages));
}

/// `None`: it was dropped.
fn run_to_its_end<F>(
    simulation: &Simulation,
    drop_after: Option<usize>,
    drain: F,
) -> Result<Option<Ended>, Stopped>
where
    F: IntoFuture<Output = Ended>,
{
    use std::task::Poll;
    let mut future = Some(Box::pin(drain.into_future()));
    let mut polls = 0;
    simulation.run(std::future::poll_fn(move |cx| {
        if drop_after == Some(polls) {
            drop(future.take());
            return Poll::Ready(None);
        }
        polls += 1;
        match &mut future {
            Some(future) => future.as_mut().poll(cx).map(Some),
            None => Poll::Ready(None),
        }
    }))
}

/// Rules 7.1 to 7.13 and 7.19 to 7.24, all at once. `SEED` runs one; `PROGRAMS` so many.
#[test]
fn every_program_ends_and_its_account_is_exact() {
    let seeds = match (number("SEED"), number("PROGRAMS")) {
        (Some(seed), None) => seed..seed + 1,
        (from, Some(programs)) => from.unwrap_or(0)..from.unwrap_or(0) + programs,
        (None, None) if cfg!(debug_assertions) => 0..3_000,
        (None, None) => 0..100_000,
    };
    std::panic::set_hook(Box::new(|_| {}));
    let mut failed = Vec::new();
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            failed.push(format!("SEED={seed}: {text}"));
            if failed.len() >= 12 {
                break;
            }
        }
    }
    drop(std::panic::take_hook());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
