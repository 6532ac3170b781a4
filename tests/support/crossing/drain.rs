//! A case as a drain, and the executor that polls and steers it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::{FutureExt, StreamExt};
use watershed::channels::{IncomingSources, LiveSource, Window, live};
use watershed::{
    Commit, CompensationPolicy, FanIn, OnFailure, RetryPolicy, Source, StepContext, fan_in,
};

use super::account::check;
use super::case::{Case, Order};
use super::world::{Batch, Boxed, World};
use crate::support::ending::Ended;
use crate::support::fed::Fed;

const SOURCES: usize = 3;
const MESSAGES: u32 = 12;

/// A new source with a dozen messages, or so many as there are.
fn add(world: &World, messages: u32) {
    let case = &world.case;
    let number = world.fed.borrow().len();
    let first = number as u32 * 100;
    let items = first..first + messages;
    let fed = if case.until_idle { Fed::open(items) } else { Fed::closed(items) };
    let plain = fed.source();
    let source: Boxed = if case.windows && number % 2 == 0 {
        let window = Window::new(&world.context, plain).count(4);
        if number % 4 == 0 {
            window.every(Duration::from_millis(300)).erased()
        } else {
            window.erased()
        }
    } else {
        plain.map(|message| vec![message]).erased()
    };
    let mut source = source.weighted(1);
    if case.weights {
        source = source.weighted(1 + number as u32 % 3);
    }
    if case.priorities {
        source = source.prioritized(number as u32 % 2);
    }
    if let Some((most, per)) = case.source_rate {
        source = source.rate(most, per);
    }
    let source = if case.names {
        source.named(format!("source {number}")).erased()
    } else {
        source.erased()
    };
    let live = world.live.borrow();
    let Some(live) = live.as_ref() else { return };
    if let Ok(handle) = live.add(source) {
        world.know(handle.id(), number);
        world.handles.borrow_mut().push(handle);
        world.fed.borrow_mut().push(fed);
    }
}

type Erased = LocalBoxFuture<'static, Ended>;

/// What has no influence on the type.
fn with_options<H>(
    world: &World,
    mut drain: FanIn<LiveSource<Boxed>, H>,
) -> FanIn<LiveSource<Boxed>, H> {
    let case = &world.case;
    if let Some(handlers) = case.concurrency {
        drain = drain.concurrency(handlers);
    }
    if let Some(handlers) = case.per_source {
        drain = drain.per_source_concurrency(handlers);
    }
    if let Some(quantum) = case.quantum {
        drain = drain.quantum(quantum);
    }
    if let Some(timeout) = case.timeout {
        drain = drain.timeout(timeout);
    }
    if let Some(timeout) = case.message_timeout {
        drain = drain.message_timeout(timeout);
    }
    if let Some(grace) = case.grace {
        drain = drain.grace(grace);
    }
    if case.cancelled_at.is_some() || case.steered.is_some() {
        drain = drain.cancellation(world.stop.token());
    }
    if case.shut_down_at.is_some() || case.steered.is_some() {
        drain = drain.shutdown(world.shutdown.token());
    }
    if let Some(within) = case.finish_within {
        drain = drain.finish_within(within);
    }
    if case.commit != Commit::Pipeline {
        drain = drain.commit(case.commit);
    }
    if let Some((attempts, wait)) = case.retry {
        drain = drain.retry(RetryPolicy::fixed(attempts, wait));
    }
    if let Some(messages) = case.max_waiting {
        drain = drain.max_waiting(messages);
    }
    if case.continues {
        drain = drain.on_failure(OnFailure::Continue);
    }
    if let Some(timeout) = case.letter_timeout {
        drain = drain.dead_letter_timeout(timeout);
    }
    if case.compensation {
        let policy =
            CompensationPolicy::parallel_limited(2).attempt_timeout(Duration::from_secs(9));
        drain = drain.message_compensation(policy);
    }
    if case.until_idle {
        drain = drain.until_idle();
    }
    if let Some((most, per)) = case.rate {
        drain = drain.rate(most, per);
    }
    if case.progress {
        drain = drain.progress(&world.progress);
    }
    drain
}

/// One of the eight types: with the options in this order.
macro_rules! erased {
    ($world:ident, $incoming:ident, $drain:expr, $order:ident $(($key:expr))?, letters: $letters:tt,
     put_back: $put_back:tt, undos: $undos:tt, incoming: $coming:tt) => {{
        let drain = $drain;
        let drain = erased!(@$order drain $(, $key)?);
        let drain = erased!(@letters $letters drain, $world);
        let drain = erased!(@put_back $put_back drain, $world);
        let drain = erased!(@undos $undos drain, $world);
        let drain = erased!(@incoming $coming drain, $incoming);
        drain.into_future().boxed_local()
    }};
    (@in_order $drain:ident) => { $drain };
    (@unordered $drain:ident) => { $drain.unordered() };
    (@ordered_by $drain:ident, $key:expr) => { $drain.ordered_by($key) };
    (@across $drain:ident, $key:expr) => { $drain.ordered_across_sources_by($key) };
    (@letters yes $drain:ident, $world:ident) => {{
        let world = Rc::clone(&$world);
        $drain.dead_letters(move |_| {
            let world = Rc::clone(&world);
            async move { world.store().await }
        })
    }};
    (@put_back yes $drain:ident, $world:ident) => {{
        let world = Rc::clone(&$world);
        $drain.put_back(move |source, batch: Batch| {
            world.look();
            world.back.borrow_mut().push((source, batch));
        })
    }};
    (@undos yes $drain:ident, $world:ident) => { $drain.local_undos(&$world.undos) };
    (@incoming yes $drain:ident, $incoming:ident) => { $drain.incoming($incoming) };
    (@$what:ident no $drain:ident, $other:ident) => { $drain };
}

fn erased(world: &Rc<World>, incoming: IncomingSources<Boxed>) -> Erased {
    let (shape, context) = (world.case.shape, world.context.clone());
    let mut incoming = Box::pin(incoming);
    let mut sources = Vec::new();
    if !shape.incoming {
        while let Some(Some(source)) = incoming.next().now_or_never() {
            sources.push(source);
        }
    }
    let called = Rc::clone(world);
    let handler = move |batch: Batch, step: StepContext| {
        let world = Rc::clone(&called);
        async move { world.handle(batch, step).await }
    };
    let world = Rc::clone(world);
    let drain = with_options(&world, fan_in(&context, sources, handler));
    let key = |batch: &Batch| batch[0] % 3;
    match (shape.order, shape.letters) {
        (Order::InOrder, false) => {
            erased!(world, incoming, drain, in_order, letters: no, put_back: no, undos: no, incoming: no)
        }
        (Order::InOrder, true) => {
            erased!(world, incoming, drain, in_order, letters: yes, put_back: yes, undos: yes, incoming: yes)
        }
        (Order::Unordered, false) => {
            erased!(world, incoming, drain, unordered, letters: no, put_back: yes, undos: no, incoming: yes)
        }
        (Order::Unordered, true) => {
            erased!(world, incoming, drain, unordered, letters: yes, put_back: no, undos: yes, incoming: no)
        }
        (Order::ByKey, false) => {
            erased!(world, incoming, drain, ordered_by(key), letters: no, put_back: no, undos: yes, incoming: yes)
        }
        (Order::ByKey, true) => {
            erased!(world, incoming, drain, ordered_by(key), letters: yes, put_back: yes, undos: no, incoming: no)
        }
        (Order::Across, false) => {
            erased!(world, incoming, drain, across(key), letters: no, put_back: yes, undos: yes, incoming: no)
        }
        (Order::Across, true) => {
            erased!(world, incoming, drain, across(key), letters: yes, put_back: no, undos: no, incoming: yes)
        }
    }
}

/// Whether the task was woken since it was last polled.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs a case to its end, or drops it where that is its end, and holds it against the rules.
pub(crate) fn run(case: &Case) {
    let world = World::new(case.clone());
    let (live, incoming) = live();
    *world.live.borrow_mut() = Some(live);
    (0..SOURCES).for_each(|_| add(&world, MESSAGES));
    let drain = erased(&world, incoming);
    if !case.shape.incoming {
        *world.live.borrow_mut() = None;
    }
    let ended = execute(&world, drain);
    check(&world, ended);
}

/// Why a case is not as it must be, if it is not.
pub(crate) fn broken_by(case: &Case) -> Option<String> {
    let why = std::panic::catch_unwind(|| run(case)).err()?;
    let said = why.downcast_ref::<String>().cloned();
    let said = said.or_else(|| why.downcast_ref::<&str>().map(|why| (*why).to_owned()));
    Some(said.unwrap_or_default().chars().take(500).collect())
}

fn execute(world: &World, mut drain: Erased) -> Option<Ended> {
    let mut chance = world.case.steered.map(fastrand::Rng::with_seed);
    let (mut woken, mut helped) = (Arc::<Woken>::default(), 0);
    woken.0.store(true, Ordering::SeqCst);
    if chance.is_none() {
        *world.live.borrow_mut() = None;
    }
    let mut old = Vec::new();
    for polls in 0.. {
        assert!(polls < 100_000, "it runs for ever");
        // What holds it is let go for good: from then on nobody holds anything up.
        if let Some(chance) = chance.as_mut().filter(|_| helped == 0) {
            if chance.u8(..) < 20 && between_polls(world, chance) {
                return None;
            }
            if chance.u8(..) < 10 {
                old.drain(..).for_each(Waker::wake);
            }
        }
        let unasked = chance.as_mut().is_some_and(|chance| chance.u8(..) < 10);
        if woken.0.swap(false, Ordering::SeqCst) || unasked {
            if chance.as_mut().is_some_and(|chance| chance.bool()) {
                // The task has moved: from this poll on, whoever has the old waker wakes nobody.
                woken = Arc::default();
            }
            let waker = Waker::from(Arc::clone(&woken));
            old.push(waker.clone());
            old.truncate(3);
            if let Poll::Ready(ended) = drain.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(ended);
            }
            if world.case.progress {
                world.look();
            }
            continue;
        }
        if world.clock.advance_to_next() {
            continue;
        }
        // It waits, and not for the clock: whatever may hold it is let go, one after another.
        if world
            .handles
            .borrow()
            .iter()
            .filter(|handle| handle.is_paused() && handle.resume())
            .count()
            > 0
        {
            continue;
        }
        helped += 1;
        match helped {
            1 => *world.live.borrow_mut() = None,
            2 => world.fed.borrow().iter().for_each(Fed::close),
            3 => world.hanging.open(()),
            _ => panic!("it waits, and nobody will wake it: {}", world.tell()),
        }
    }
    unreachable!("it was polled often enough");
}

/// Something that happens from outside; says whether the drain is to be dropped.
fn between_polls(world: &World, chance: &mut fastrand::Rng) -> bool {
    let handles = world.handles.borrow();
    let one = (!handles.is_empty()).then(|| &handles[chance.usize(..handles.len())]);
    match (chance.u8(..32), one) {
        (0..6, Some(handle)) => drop(handle.pause()),
        (6..14, Some(handle)) => drop(handle.resume()),
        (14, Some(handle)) => drop(handle.request_removal()),
        (15, Some(handle)) => drop(handle.remove().now_or_never()),
        (16..20, _) => world.clock.advance(Duration::from_millis(chance.u64(..200))),
        (20..26, _) => {
            let fed = world.fed.borrow();
            fed[chance.usize(..fed.len())].wake();
        }
        (26..28, _) if handles.len() < 12 => {
            drop(handles);
            add(world, chance.u32(..8));
        }
        (28, _) => *world.live.borrow_mut() = None,
        (29, _) if chance.u8(..4) == 0 => world.stop.cancel(),
        (30, _) if chance.u8(..4) == 0 => world.shutdown.cancel(),
        (31, _) => return chance.u8(..8) == 0,
        _ => {}
    }
    false
}
