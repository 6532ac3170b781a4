//! What two who had only the contract and the docs, and two who read the code, have found.

use std::cell::{Cell, RefCell};
use std::future::{IntoFuture, pending};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use watershed::channels::{
    Destination, LiveSource, Refused, SourceHandle, Window, broadcast, live, merge, merge_into,
};
use watershed::group::Group;
use watershed::{
    BoxError, CancellationSource, Clock, CompensationPolicy, CompensationScope, Error, Letter,
    ManualClock, OnFailure, Progress, RetryPolicy, Sleep, Source, StepContext, Tick, fan_in,
    timers,
};

use crate::support::ending::assert_settled;
use crate::support::{Gate, Hand, manual};

const NS: Duration = Duration::from_nanos(1);

type Boxed = BoxStream<'static, u32>;

/// Messages, and a note of each that is taken.
fn noted(messages: Vec<u32>, taken: &Arc<Mutex<Vec<u32>>>) -> Boxed {
    let taken = Arc::clone(taken);
    stream::iter(messages).inspect(move |it| taken.lock().unwrap().push(*it)).boxed()
}

// Rule 2.2: over all sources the one that was taken first is handled first
#[test]
fn a_held_message_keeps_its_place_while_its_source_is_paused() {
    let (context, clock) = manual("t");
    let (taken, handled) = (Arc::default(), RefCell::new(Vec::new()));
    let (sources, incoming) = live::<Boxed>();
    let _first = sources.add(noted(vec![1, 2, 3], &taken)).ok().unwrap();
    let second = sources.add(noted(vec![10], &taken)).ok().unwrap();
    drop(sources);
    let drain = fan_in(&context, [], async |number: u32, step: StepContext| {
        handled.borrow_mut().push(number);
        timers::delay(&step, 10 * NS).await
    });
    let drain = drain.concurrency(8).ordered_across_sources_by(|_| ()).incoming(incoming);
    let mut drain = Hand::new(drain.into_future());
    assert!(drain.run().is_pending());
    assert!(taken.lock().unwrap().contains(&10), "it is held: its key is busy");
    assert!(second.pause());
    for _ in 0..5 {
        clock.advance(10 * NS);
        assert!(drain.run().is_pending());
    }
    assert!(second.resume());
    drain.finish_by(&clock).unwrap();
    assert_eq!(*taken.lock().unwrap(), *handled.borrow());
}

// Rules 2.2, 2.10
#[test]
fn a_held_message_keeps_its_place_while_its_source_waits_for_its_rate() {
    let (context, clock) = manual("t");
    let (taken, handled) = (Arc::default(), RefCell::new(Vec::new()));
    let sources = [
        noted(vec![1, 2], &taken).rate(1, 100 * NS),
        noted(vec![10, 11, 12], &taken).rate(1_000, NS),
    ];
    let drain = fan_in(&context, sources, async |number: u32, step: StepContext| {
        handled.borrow_mut().push(number);
        timers::delay(&step, 10 * NS).await
    });
    let drain = drain.concurrency(8).quantum(1).ordered_across_sources_by(|_| ());
    Hand::new(drain.into_future()).finish_by(&clock).unwrap();
    assert_eq!(*taken.lock().unwrap(), *handled.borrow());
}

/// The most that wait at a time, of sources whose every message fails.
fn most_waiting(sources: usize, concurrency: usize, per_source: Option<usize>, rate: bool) -> u64 {
    let ((context, clock), progress) = (manual("t"), Progress::new());
    let sources = (0..sources).map(|_| stream::iter(0_u64..));
    let drain = fan_in(&context, sources, async |_, step: StepContext| {
        timers::delay(&step, 2 * NS).await?;
        Err::<(), BoxError>("no".into())
    });
    let drain = drain.concurrency(concurrency).max_waiting(1).progress(&progress);
    let drain = drain.retry(RetryPolicy::fixed(u32::MAX, 3 * NS));
    let drain = if rate { drain.rate(1, 100 * NS) } else { drain };
    let drain = match per_source {
        Some(limit) => drain.unordered().per_source_concurrency(limit).into_future().boxed_local(),
        None => drain.into_future().boxed_local(),
    };
    let (mut drain, mut most) = (Hand::new(drain), 0);
    for _ in 0..3_000 {
        let before = drain.wakes();
        assert!(drain.poll().is_pending());
        most = most.max(progress.report().waiting());
        if drain.wakes() == before {
            clock.advance_to_next();
        }
    }
    most
}

// Rule 3.10: "at most `max_waiting` wait"
#[test]
fn a_slot_that_is_left_to_a_due_retry_goes_to_nothing_else() {
    for (sources, concurrency, per_source, rate) in [
        (1_000, 4, None, false),
        (1_000, 1, None, true),
        (50, 4, Some(1), false),
        (50, 4, Some(2), true),
        (1, 4, Some(4), false),
    ] {
        let most = most_waiting(sources, concurrency, per_source, rate);
        // One that has left its slot waits until the other one has it.
        let bound = 1 + concurrency as u64;
        assert!(
            most <= bound,
            "{most} with {sources} sources, {concurrency}, {per_source:?}, {rate}"
        );
    }
}

// Rule 2.4
#[test]
fn what_is_left_out_counts_for_the_budget_of_a_poll() {
    let (context, clock) = manual("t");
    for into in [false, true] {
        let taken = Cell::new(0_u64);
        let endless = stream::iter(0_u64..).inspect(|_| {
            taken.set(taken.get() + 1);
            clock.advance(NS);
        });
        let endless = endless.picked(|_| None::<u64>);
        if into {
            let (sender, _receiver) = async_channel::unbounded();
            let merged = merge_into(&context, [endless], sender).timeout(300 * NS);
            assert!(Hand::new(merged.into_future()).poll().is_pending());
        } else {
            let mut merged = merge(&context, [endless]).timeout(300 * NS);
            assert!(Hand::new(merged.next()).poll().is_pending());
        }
        assert!(taken.get() <= 256, "{} in one poll", taken.get());
    }
}

// Rule 2.4
#[test]
fn what_a_window_takes_counts_for_the_budget_of_a_broadcast() {
    let (context, taken) = (StepContext::new("t"), Cell::new(0_u64));
    let endless = stream::iter(0_u64..).inspect(|_| taken.set(taken.get() + 1));
    let windows = Window::new(&context, endless).count(200);
    let (sender, _receiver) = async_channel::unbounded::<Vec<u64>>();
    let news = broadcast(&context, windows, [sender]);
    assert!(Hand::new(news.into_future()).poll().is_pending());
    assert!(taken.get() <= 512, "{} in one poll", taken.get());
}

/// Has room when somebody says so, and counts how often it is asked.
struct Full {
    has_room: Arc<Mutex<(bool, Option<Waker>)>>,
    asked: Arc<Mutex<usize>>,
}

impl Destination for Full {
    type Message = u32;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        *self.asked.lock().unwrap() += 1;
        let mut has_room = self.has_room.lock().unwrap();
        if has_room.0 {
            return Poll::Ready(Ok(()));
        }
        has_room.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    fn try_send(self: Pin<&mut Self>, _: &mut Context<'_>, _: u32) -> Result<(), Refused<u32>> {
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}

// Nothing idle is polled
#[test]
fn a_broadcast_asks_only_those_destinations_that_were_woken() {
    let (count, asked) = (300, Arc::default());
    let rooms: Vec<Arc<Mutex<(bool, Option<Waker>)>>> =
        (0..count).map(|_| Arc::default()).collect();
    let full =
        |has_room: &Arc<_>| Full { has_room: Arc::clone(has_room), asked: Arc::clone(&asked) };
    let destinations: Vec<_> = rooms.iter().map(full).collect();
    let news = broadcast(&StepContext::new("t"), stream::iter([1]), destinations);
    let mut news = Hand::new(news.into_future());
    assert!(news.run().is_pending());
    for room in &rooms[1..] {
        let waker = {
            let mut room = room.lock().unwrap();
            room.0 = true;
            room.1.take()
        };
        waker.expect("it waits").wake();
        assert!(news.run().is_pending());
    }
    let waker = std::mem::replace(&mut *rooms[0].lock().unwrap(), (true, None)).1;
    waker.expect("it waits").wake();
    news.finish().unwrap();
    let asked = *asked.lock().unwrap();
    assert!(asked <= 3 * count, "{asked} for {count} destinations");
}

/// Where a wait for the end of the message's own source is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Handler,
    DrainInHandler,
    DrainInThat,
    Undo,
    DeadLetter,
    DrainInLetter,
}

// Rule 2.7: "no wait on a handle hangs"
#[test]
fn whoever_would_wait_for_itself_is_told_so() {
    use Where::*;
    for at in [Handler, DrainInHandler, DrainInThat, Undo, DeadLetter, DrainInLetter] {
        for removes in [false, true] {
            let (context, clock) = manual("t");
            let (sources, incoming) = live::<stream::Iter<std::vec::IntoIter<u32>>>();
            let handle = Arc::new(sources.add(stream::iter(vec![1, 2])).ok().unwrap());
            drop(sources);
            let waited = Arc::new(Mutex::new(0));
            let waits = {
                let (handle, waited) = (Arc::clone(&handle), Arc::clone(&waited));
                move || wait(Arc::clone(&handle), removes, Arc::clone(&waited))
            };
            let handler = async |_: u32, step: StepContext| {
                if at == Undo {
                    step.register_compensation(waits.clone());
                }
                match at {
                    Handler => waits().await,
                    DrainInHandler => within(&step, &waits).await?,
                    DrainInThat => {
                        let outer = fan_in(&step, [stream::iter([1])], async |_, step| {
                            within(&step, &waits).await
                        });
                        outer.await.map_err(|failure| failure.into_error())?;
                    }
                    Undo | DeadLetter | DrainInLetter => return Err(BoxError::from("no")),
                }
                Ok(())
            };
            let letters = async |_: Letter<u32>| {
                match at {
                    DeadLetter => waits().await,
                    DrainInLetter => within(&StepContext::new("letter"), &waits).await?,
                    _ => {}
                }
                Ok::<_, BoxError>(())
            };
            let drain = fan_in(&context, [], handler).incoming(incoming);
            let drain = drain.dead_letters(letters).retry(RetryPolicy::fixed(2, NS));
            Hand::new(drain.into_future()).finish_by(&clock).unwrap();
            assert!(*waited.lock().unwrap() > 0, "{at:?} {removes}");
        }
    }
}

// Rules 2.7, 3.9: handlers that wait for each other's sources, in a drain that is asked to end
#[test]
fn handlers_that_wait_for_each_others_sources_do_not_hold_up_a_shutdown() {
    for (ring, removes, cancels) in
        [(2, false, false), (2, true, false), (3, true, false), (3, false, true)]
    {
        let ((context, clock), stop) = (manual("t"), CancellationSource::new());
        let (sources, incoming) = live::<stream::Iter<std::vec::IntoIter<usize>>>();
        let handles: Vec<_> = (0..ring)
            .map(|at| Arc::new(sources.add(stream::iter(vec![at, at])).ok().unwrap()))
            .collect();
        let handler = async |at: usize, _| {
            let next = &handles[(at + 1) % ring];
            if removes {
                drop(next.remove().await);
            } else {
                next.ended().await;
            }
            Ok::<_, BoxError>(())
        };
        let drain = fan_in(&context, [], handler).incoming(incoming).concurrency(ring);
        let drain = match cancels {
            true => drain.cancellation(stop.token()),
            false => drain.shutdown(stop.token()),
        };
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        stop.cancel();
        let ended = drain.finish_by(&clock);
        assert_eq!(ended.is_err(), cancels);
    }
}

type Handle = SourceHandle<stream::Iter<std::vec::IntoIter<u32>>>;

async fn wait(handle: Arc<Handle>, removes: bool, waited: Arc<Mutex<u32>>) {
    if removes {
        assert!(handle.remove().await.is_none());
    } else {
        assert_eq!(handle.ended().await, watershed::channels::SourceEnd::NotYet);
    }
    *waited.lock().unwrap() += 1;
}

async fn within<F: Future<Output = ()>>(
    step: &StepContext,
    waits: impl Fn() -> F,
) -> Result<(), Error> {
    let inner = fan_in(step, [stream::iter([1])], async |_, _| {
        waits().await;
        Ok::<_, BoxError>(())
    });
    inner.await.map(drop).map_err(|failure| failure.into_error())
}

/// Looks at the scope whenever it is woken, as an executor does that drops a task.
struct Looks(CompensationScope);

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        assert!(self.0.len() <= 2);
    }
}

// Rule 4.12
#[test]
fn rollbacks_of_one_scope_are_woken_under_no_lock() {
    let (scope, gate) = (CompensationScope::new(), Gate::default());
    for _ in 0..2 {
        let gate = gate.clone();
        scope.register_compensation_with(gate, async |gate: Gate| gate.wait().await);
    }
    let policy = CompensationPolicy::parallel();
    let waker = Waker::from(Arc::new(Looks(scope.clone())));
    let mut rollbacks = [scope.roll_back(&policy), scope.roll_back(&policy)];
    for rollback in &mut rollbacks {
        assert!(Pin::new(rollback).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    gate.open();
    for rollback in rollbacks {
        assert_eq!(Hand::new(rollback).finish().unwrap().succeeded(), 2);
    }
}

/// Adds a task to a group whenever it is asked for the time.
#[derive(Debug)]
struct Asks(ManualClock, Mutex<Option<Group<'static>>>);

impl Clock for Asks {
    fn now(&self) -> Tick {
        let group = self.1.lock().unwrap().take();
        if let Some(group) = group {
            // It may be over: what counts is that this returns.
            drop(group.go(None, async |_| Ok::<_, BoxError>(())));
        }
        self.0.now()
    }

    fn sleep_until(&self, deadline: Tick) -> Sleep {
        self.0.sleep_until(deadline)
    }
}

// Rule 4.12
#[test]
fn a_group_asks_its_clock_under_no_lock() {
    let clock = Arc::new(Asks(ManualClock::new(), Mutex::default()));
    let context = StepContext::new("t").with_clock(Arc::clone(&clock) as _);
    let group = Group::new(&context).grace(Duration::from_secs(1));
    let gate = Gate::default();
    let fails = gate.clone();
    group
        .go(None, async move |_| {
            fails.wait().await;
            Err::<(), _>(BoxError::from("no"))
        })
        .unwrap();
    group.go(None, async |_| pending::<Result<(), BoxError>>().await).unwrap();
    let door = group.clone();
    let mut wait = Hand::new(group.wait());
    assert!(wait.run().is_pending());
    *clock.1.lock().unwrap() = Some(door);
    gate.open();
    let polled = wait.run();
    assert!(polled.is_pending(), "{polled:?}");
    assert!(clock.1.lock().unwrap().is_none(), "it was asked");
    clock.0.advance(Duration::from_secs(2));
    wait.finish().unwrap_err();
}

// Rule 6.3: each message in one count
#[test]
fn a_window_that_is_left_out_or_cannot_be_decoded_is_counted_once() {
    for fails in [false, true] {
        let (context, progress) = (StepContext::new("t"), Progress::new());
        let windows = Window::new(&context, stream::iter(1_u32..=6)).count(2);
        let handler = async |_: Vec<u32>, _| Ok::<_, BoxError>(());
        let report = if fails {
            let windows = windows.decoded(|window: Vec<u32>| match window[0] {
                3 => Err("no window"),
                _ => Ok(window),
            });
            let drain = fan_in(&context, [windows], handler).on_failure(OnFailure::Continue);
            Hand::new(drain.progress(&progress).into_future()).finish().unwrap()
        } else {
            let windows = windows.picked(|window| (window[0] != 3).then_some(window));
            let drain = fan_in(&context, [windows], handler);
            Hand::new(drain.progress(&progress).into_future()).finish().unwrap()
        };
        assert_settled(&report);
        let counts = (report.taken(), report.handled(), report.failed(), report.unfinished());
        assert_eq!(counts, if fails { (3, 2, 1, 0) } else { (3, 3, 0, 0) }, "{fails}");
        assert_eq!(report.attempts(), 2, "no handler was called for the other one");
    }
}

// Rules 2.7, 3.9
#[test]
fn a_source_that_is_paused_and_removed_can_be_drained_again() {
    let (context, stop) = (StepContext::new("t"), CancellationSource::new());
    let (sources, incoming) = live::<Boxed>();
    let handle = sources.add(stream::iter([1, 2, 3]).boxed()).ok().unwrap();
    assert!(handle.pause());
    let incoming = incoming.map(|source: LiveSource<Boxed>| source.named("again"));
    let drain = fan_in(&context, [], async |_: u32, _| Ok::<_, BoxError>(())).incoming(incoming);
    let mut drain = Hand::new(drain.shutdown(stop.token()).into_future());
    assert!(drain.run().is_pending());
    let back = handle.remove();
    let mut back = Hand::new(back);
    assert!(back.run().is_pending());
    assert!(drain.run().is_pending());
    let Poll::Ready(Some(back)) = back.run() else { panic!("it is out") };
    stop.cancel();
    drain.finish().unwrap();
    let again = fan_in(&context, [back], async |_: u32, _| Ok::<_, BoxError>(()));
    assert_eq!(again.into_future().now_or_never().unwrap().unwrap().handled(), 3);
}
