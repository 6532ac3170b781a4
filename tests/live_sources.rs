//! Rule 2.7: sources that are added, removed, paused and resumed while the drain runs.

#[macro_use]
mod support;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::pending;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use support::{block_on, filled, left_in, poll_times, yields};
use watershed::channels::{AnySource, SourceEnd, SourceHandle, Unsettled, live, merge};
use watershed::{
    BoxError, CancellationSource, ErrorCode, ManualClock, Source, StepContext, fan_in,
};

type Log = Arc<Mutex<Vec<u32>>>;

fn noted(log: &Log) -> Vec<u32> {
    std::mem::take(&mut log.lock().expect("no panic"))
}

/// Counts how often it was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A handler that writes messages down, after so many yields.
fn note(
    log: &Log,
    waits: usize,
) -> impl FnMut(u32, StepContext) -> futures::future::BoxFuture<'static, Result<(), BoxError>> {
    let log = Arc::clone(log);
    move |message, _| {
        let log = Arc::clone(&log);
        async move {
            yields(waits).await;
            log.lock().expect("no panic").push(message);
            Ok(())
        }
        .boxed()
    }
}

/// A handler that writes messages down as soon as its gate is closed.
#[allow(clippy::type_complexity, reason = "a sender and a handler")]
fn gated(
    log: &Log,
) -> (
    async_channel::Sender<()>,
    impl FnMut(u32, StepContext) -> futures::future::BoxFuture<'static, Result<(), BoxError>>,
) {
    let (gate, opened) = async_channel::bounded::<()>(1);
    let log = Arc::clone(log);
    let handler = move |message, _| {
        let (log, opened) = (Arc::clone(&log), opened.clone());
        async move {
            let _ = opened.recv().await;
            log.lock().expect("no panic").push(message);
            Ok(())
        }
        .boxed()
    };
    (gate, handler)
}

// Rule 2.7
#[test]
fn a_source_added_while_the_drain_runs_is_drained_and_reported() {
    let (context, log) = (StepContext::new("t"), Log::default());
    let (live, incoming) = live();
    let first = live.add(filled([1, 2]).named("first")).expect("the drain is there");
    let mut drain = fan_in(&context, [], note(&log, 0)).incoming(incoming).into_future();
    assert!(poll_times(&mut drain, 2).is_none(), "others may come");
    assert_eq!((noted(&log), first.ended().now_or_never()), (vec![1, 2], Some(SourceEnd::Drained)));
    let second = live.clone().add(filled([3]).named("second")).expect("the drain is there");
    assert!(poll_times(&mut drain, 2).is_none());
    assert_eq!(noted(&log), [3]);
    drop(live);
    let report = poll_times(&mut drain, 2).expect("nobody can add more").expect("no failure");
    let names: Vec<_> =
        report.sources().iter().map(|source| (source.name(), source.handled())).collect();
    assert_eq!(names, [("first", 2), ("second", 1)]);
    assert_eq!(second.ended().now_or_never(), Some(SourceEnd::Drained));
}

// Rule 2.7
#[test]
fn adding_a_source_wakes_a_drain_that_waits() {
    let (context, log) = (StepContext::new("t"), Log::default());
    let (live, incoming) = live();
    let adding = std::thread::spawn(move || {
        for number in 0..50 {
            live.add(filled([number])).expect("the drain is there");
        }
    });
    let report = block_on(fan_in(&context, [], note(&log, 0)).incoming(incoming).into_future());
    assert_eq!(report.expect("no failure").handled(), 50);
    adding.join().expect("the thread ends");
}

// Rule 2.7
#[test]
fn a_removed_source_is_handed_back_after_its_message_in_flight() {
    let (context, log) = (StepContext::new("t"), Log::default());
    let (live, incoming) = live();
    let handle = live.add(filled([1, 2, 3])).expect("the drain is there");
    let (gate, handler) = gated(&log);
    let mut drain = fan_in(&context, [], handler).incoming(incoming).into_future();
    assert!(poll_times(&mut drain, 1).is_none());
    let mut removal = Box::pin(handle.remove());
    assert!(poll_times(&mut drain, 3).is_none());
    assert!((&mut removal).now_or_never().is_none(), "its message is in flight");
    assert_eq!(noted(&log), []);
    gate.close();
    assert!(poll_times(&mut drain, 3).is_none());
    assert_eq!(noted(&log), [1], "the message in flight was finished, and no other one taken");
    let source = removal.now_or_never().expect("it is out").expect("it was not drained");
    assert_eq!(left_in(&source), [2, 3]);
    assert_eq!(handle.ended().now_or_never(), Some(SourceEnd::Removed));
    assert!(handle.remove().now_or_never().expect("it is out").is_none(), "handed back already");
    drop(live);
    assert_eq!(block_on(drain).expect("no failure").handled(), 1);
}

// Rule 2.7
#[test]
fn removing_an_idle_source_wakes_its_drain_and_dropping_the_removal_does_not_stop_it() {
    let (context, log) = (StepContext::new("t"), Log::default());
    let (live, incoming) = live();
    let (sender, receiver) = async_channel::unbounded();
    let handle = live.add(receiver).expect("the drain is there");
    drop(live);
    let waiting = std::thread::spawn(move || {
        assert!(handle.remove().now_or_never().is_none_or(|source| source.is_some()));
        futures::executor::block_on(handle.ended())
    });
    let report = block_on(fan_in(&context, [], note(&log, 0)).incoming(incoming).into_future());
    assert_eq!(report.expect("no failure").handled(), 0);
    let end = waiting.join().expect("the thread ends");
    assert!(matches!(end, SourceEnd::Removed | SourceEnd::Abandoned));
    drop(sender);
}

// Rule 2.7
#[test]
fn nothing_is_taken_from_a_paused_source_and_its_message_in_flight_is_finished() {
    let (context, log) = (StepContext::new("t"), Log::default());
    let (live, incoming) = live();
    let source = filled([1, 2, 3]);
    let handle = live.add(source.clone()).expect("the drain is there");
    live.add(filled([10, 20])).expect("the drain is there");
    let (gate, handler) = gated(&log);
    let mut drain = fan_in(&context, [], handler).incoming(incoming).into_future();
    assert!(poll_times(&mut drain, 1).is_none());
    handle.pause();
    gate.close();
    assert!(poll_times(&mut drain, 20).is_none());
    let handled = noted(&log);
    assert!(handled.contains(&10) && handled.contains(&20), "the other goes on: {handled:?}");
    let left = source.len();
    assert!((2..=3).contains(&left), "at most the one in flight was handled");
    handle.resume();
    drop(live);
    assert_eq!(block_on(drain).expect("no failure").handled(), 5);
    assert_eq!(noted(&log).len(), left);
}

// Rules 2.1, 2.7
#[test]
fn sources_of_a_drain_that_failed_go_back_to_their_handles() {
    let context = StepContext::new("t");
    let (live, incoming) = live();
    let handles: Vec<_> = [vec![1, 2, 3], vec![10, 20]]
        .map(|messages| live.add(stream::iter(messages)).expect("the drain is there"))
        .into();
    let drain =
        fan_in(
            &context,
            [],
            |message, _| async move { if message == 2 { Err("no") } else { Ok(()) } },
        );
    block_on(drain.incoming(incoming)).expect_err("it fails");
    assert!(live.add(stream::iter(vec![7])).is_err(), "the drain has ended");
    let mut left = Vec::new();
    for handle in handles {
        assert_eq!(handle.ended().now_or_never(), Some(SourceEnd::Abandoned));
        let source = handle.remove().now_or_never().expect("at once").expect("there is more");
        left.push(block_on(source.collect::<Vec<_>>()));
    }
    assert_eq!(left, [vec![3], vec![10, 20]]);
}

// Rules 2.1, 2.7
#[test]
fn dropping_the_drain_after_any_poll_gives_back_every_message_it_has_not_taken() {
    for k in 0.. {
        let (context, log) = (StepContext::new("t"), Log::default());
        let (live, incoming) = live();
        let handles: Vec<_> = [vec![1, 2, 3], vec![10, 20], vec![]]
            .map(|messages| live.add(stream::iter(messages)).expect("the drain is there"))
            .into();
        drop(live);
        let started = Arc::clone(&log);
        let drain = fan_in(&context, [], move |message: u32, _| {
            started.lock().expect("no panic").push(message);
            async {
                // More than is polled before the thread goes back to the executor.
                yields(300).await;
                Ok::<_, BoxError>(())
            }
        });
        let mut drain = drain.incoming(incoming).into_future();
        let ended = poll_times(&mut drain, k).is_some();
        drop(drain);
        let mut all = noted(&log);
        for handle in handles {
            if let Some(source) = handle.remove().now_or_never().expect("it has ended") {
                all.extend(block_on(source.collect::<Vec<_>>()));
            }
        }
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 10, 20], "poll {k}");
        if ended {
            assert!(k > 3);
            break;
        }
    }
}

// Rules 2.7, 3.3
#[test]
fn a_drain_that_waits_for_sources_times_out_and_takes_none_afterwards() {
    let clock = ManualClock::new();
    let context = StepContext::new("t").with_clock(Arc::new(clock.clone()));
    let (live, incoming) = live::<stream::Empty<u32>>();
    let drain = fan_in(&context, [], |_, _| async { Ok::<_, BoxError>(()) }).incoming(incoming);
    let mut drain = drain.timeout(Duration::from_secs(1)).into_future();
    assert!(poll_times(&mut drain, 3).is_none());
    clock.advance(Duration::from_secs(1));
    let error = poll_times(&mut drain, 1).expect("it is over").expect_err("it timed out");
    assert_eq!(error.error().code(), ErrorCode::Timeout);
    assert!(live.add(stream::empty()).is_err());
}

// Rule 2.7
#[test]
fn a_hundred_thousand_sources_may_come_one_by_one() {
    let context = StepContext::new("t");
    let incoming = stream::iter((0..100_000_u32).map(|number| stream::iter([number])));
    let drain = fan_in(&context, [], |_, _| async { Ok::<_, BoxError>(()) }).incoming(incoming);
    assert_eq!(block_on(drain).expect("no failure").handled(), 100_000);
}

// Rule 2.7
#[test]
fn removing_an_idle_source_does_not_wait_for_the_handlers_of_others() {
    for permits in [1, 2] {
        let (context, log) = (StepContext::new("t"), Log::default());
        let (live, incoming) = live();
        for source in 0..permits {
            live.add(filled([u32::try_from(source).expect("few")])).expect("the drain is there");
        }
        let (sender, idle) = async_channel::unbounded();
        let handle = live.add(idle).expect("the drain is there");
        let last = live.add(filled([7])).expect("the drain is there");
        let (gate, opened) = async_channel::bounded::<()>(1);
        let drain = fan_in(&context, [], |message: u32, _| {
            let (log, opened) = (Arc::clone(&log), opened.clone());
            async move {
                let _ = opened.recv().await;
                log.lock().expect("no panic").push(message);
                Ok::<_, BoxError>(())
            }
        });
        let drain = drain.incoming(incoming.map(|source| source.named("live").weighted(1)));
        let mut drain = drain.concurrency(permits).into_future();
        assert!(poll_times(&mut drain, 2).is_none(), "every permit is taken");
        let wakes = Arc::new(Wakes::default());
        let wake = Waker::from(Arc::clone(&wakes));
        assert!(Pin::new(&mut drain).poll(&mut Context::from_waker(&wake)).is_pending());
        let before = wakes.0.load(Ordering::Relaxed);
        let mut removal = Box::pin(handle.remove());
        assert!((&mut removal).now_or_never().is_none(), "the drain is to give it back");
        assert!(wakes.0.load(Ordering::Relaxed) > before, "the drain is woken");
        sender.try_send(9).expect("the channel is open");
        assert!(poll_times(&mut drain, 1).is_none());
        let source = removal.now_or_never().expect("it is out").expect("it was not drained");
        assert_eq!(left_in(&source), [9]);
        assert_eq!(noted(&log), [], "the handlers are still at work");
        // Its place in the queue for permits is the next one's.
        gate.close();
        drop(live);
        assert_eq!(block_on(drain).expect("no failure").handled(), permits as u64 + 1);
        assert_eq!(last.ended().now_or_never(), Some(SourceEnd::Drained));
    }
}

// Rule 2.7
#[test]
fn a_permit_that_was_granted_to_a_source_that_is_removed_goes_to_the_next() {
    let (context, log) = (StepContext::new("t"), Log::default());
    let (live, incoming) = live();
    let (gate, opened) = async_channel::bounded::<()>(1);
    let handles: Vec<_> =
        [1, 2, 3].map(|message| live.add(filled([message])).expect("the drain is there")).into();
    drop(live);
    let drain = fan_in(&context, [], |message: u32, _| {
        let (log, opened) = (Arc::clone(&log), opened.clone());
        async move {
            if message == 1 {
                let _ = opened.recv().await;
            }
            log.lock().expect("no panic").push(message);
            Ok::<_, BoxError>(())
        }
    });
    let mut drain = drain.incoming(incoming).into_future();
    assert!(poll_times(&mut drain, 2).is_none(), "the first has the permit");
    gate.close();
    let removal = handles[1].remove().now_or_never();
    assert!(removal.is_none());
    assert_eq!(block_on(drain).expect("no failure").handled(), 2);
    assert_eq!(noted(&log), [1, 3]);
    let source = handles[1].remove().now_or_never().expect("it is out").expect("it is whole");
    assert_eq!(left_in(&source), [2]);
}

// Rule 2.7
#[test]
fn what_was_wished_before_the_drain_began_holds_from_its_first_poll() {
    let (context, log) = (StepContext::new("t"), Log::default());
    let (live, incoming) = live();
    let sources = [filled([1]), filled([2]), filled([3])];
    let [paused, removed, both] =
        sources.clone().map(|source| live.add(source).expect("the drain is there"));
    drop(live);
    paused.pause();
    both.pause();
    assert!(removed.remove().now_or_never().is_none());
    assert!(both.remove().now_or_never().is_none());
    both.resume();
    both.pause();
    assert!(!both.is_paused(), "a removal is final");
    let mut drain = fan_in(&context, [], note(&log, 0)).incoming(incoming).into_future();
    assert!(poll_times(&mut drain, 3).is_none(), "a paused source is not a drained one");
    assert_eq!((noted(&log), paused.ended().now_or_never()), (vec![], None));
    for handle in [removed, both] {
        assert_eq!(handle.ended().now_or_never(), Some(SourceEnd::Removed));
        assert!(handle.remove().now_or_never().expect("it is out").is_some());
    }
    assert!(sources.iter().all(|source| source.len() == 1));
    paused.resume();
    assert_eq!(block_on(drain).expect("no failure").handled(), 1);
    assert_eq!(paused.ended().now_or_never(), Some(SourceEnd::Drained));
}

// Rule 2.7
#[test]
fn every_wish_wakes_a_drain_that_waits_and_the_end_wakes_everybody_who_waits_for_it() {
    let (context, log) = (StepContext::new("t"), Log::default());
    let (live, incoming) = live();
    let (sender, receiver) = async_channel::unbounded();
    let handle = live.add(receiver).expect("the drain is there");
    drop(live);
    let mut drain = fan_in(&context, [], note(&log, 0)).incoming(incoming).into_future();
    let wakes = Arc::new(Wakes::default());
    let wake = Waker::from(Arc::clone(&wakes));
    let woken = |drain: &mut (dyn Future<Output = _> + Unpin)| {
        let woken = wakes.0.swap(0, Ordering::Relaxed) > 0;
        let polled = Pin::new(drain).poll(&mut Context::from_waker(&wake));
        (woken, polled.is_ready())
    };
    assert_eq!(woken(&mut drain), (false, false));
    wakes.0.store(0, Ordering::Relaxed);
    handle.pause();
    assert_eq!(woken(&mut drain), (true, false));
    sender.try_send(1).expect("the channel is open");
    assert!(!woken(&mut drain).1);
    assert_eq!(noted(&log), [], "it is paused");
    wakes.0.store(0, Ordering::Relaxed);
    handle.resume();
    assert_eq!(woken(&mut drain), (true, false));
    assert_eq!(noted(&log), [1]);
    wakes.0.store(0, Ordering::Relaxed);
    let ends: Vec<_> = std::iter::repeat_with(|| Arc::new(Wakes::default())).take(3).collect();
    let mut waits: Vec<_> = ends.iter().map(|_| handle.ended()).collect();
    for (wait, wakes) in waits.iter_mut().zip(&ends) {
        let wake = Waker::from(Arc::clone(wakes));
        assert!(Pin::new(wait).poll(&mut Context::from_waker(&wake)).is_pending());
    }
    drop(waits.pop());
    drop(handle.remove().now_or_never());
    assert_eq!(woken(&mut drain), (true, true));
    let woken: Vec<_> = ends.iter().map(|wakes| wakes.0.load(Ordering::Relaxed)).collect();
    assert_eq!(woken, [1, 1, 0], "the last one waits no more");
}

/// A source whose faults and panics are its items.
fn scripted(
    items: &[&'static str],
) -> impl Source<Message = u32, Receipt = Unsettled> + Send + Debug + use<> {
    let items = items.to_vec();
    let items = stream::iter(items).map(|item| match item {
        "fault" => Err("connection lost".into()),
        "panic" => panic!("the source broke"),
        number => number.parse::<u32>().map_err(BoxError::from),
    });
    items.faults()
}

// Rules 2.1, 3.2, 3.3, 3.5, 3.7
#[test]
fn however_a_drain_ends_what_is_left_of_its_sources_goes_back_to_their_handles() {
    /// What the source yields, whether it is cancelled, the timeout, the end, and what is left.
    type Case = (&'static [&'static str], bool, Option<Duration>, ErrorCode, usize);
    let cases: [Case; 6] = [
        (&["1", "fault", "2"], false, None, ErrorCode::Source, 1),
        (&["1", "panic", "2"], false, None, ErrorCode::Panic, 1),
        (&["1", "13", "2"], false, None, ErrorCode::Panic, 1),
        (&["1", "2"], true, None, ErrorCode::Canceled, 2),
        (&["1", "2"], false, Some(Duration::ZERO), ErrorCode::Timeout, 2),
        (&["1", "14", "2"], false, Some(Duration::from_secs(1)), ErrorCode::Timeout, 1),
    ];
    for (items, cancelled, timeout, code, left) in cases {
        let (clock, stop) = (ManualClock::new(), CancellationSource::new());
        let context = StepContext::new("t").with_clock(Arc::new(clock.clone()));
        let (live, incoming) = live();
        let handle = live.add(scripted(items)).expect("the drain is there");
        let drain = fan_in(&context, [], |message: u32, _| async move {
            assert_ne!(message, 13, "unlucky");
            if message == 14 {
                pending::<()>().await;
            }
            Ok::<_, BoxError>(())
        });
        let drain = drain.incoming(incoming).cancellation(stop.token()).grace(Duration::ZERO);
        let drain = if let Some(timeout) = timeout { drain.timeout(timeout) } else { drain };
        let mut drain = drain.into_future();
        if cancelled {
            stop.cancel();
        }
        let ended = poll_times(&mut drain, 2).unwrap_or_else(|| {
            clock.advance(Duration::from_secs(1));
            poll_times(&mut drain, 2).expect("it is over")
        });
        assert_eq!(ended.expect_err("it fails").error().code(), code, "{items:?}");
        assert_eq!(handle.ended().now_or_never(), Some(SourceEnd::Abandoned), "{items:?}");
        let source = handle.remove().now_or_never().expect("at once").expect("it is whole");
        let rest = merge(&StepContext::new("rest"), [AnySource::from(source)]);
        assert_eq!(block_on(rest.count()), left, "{items:?}");
    }
}

// Rules 2.6, 2.7
#[test]
fn nobody_who_adds_and_only_empty_sources_are_a_success() {
    for sources in [0, 3] {
        let (context, log) = (StepContext::new("t"), Log::default());
        let (live, incoming) = live();
        for _ in 0..sources {
            live.add(filled([])).expect("the drain is there");
        }
        drop(live);
        let report = block_on(fan_in(&context, [], note(&log, 0)).incoming(incoming));
        let report = report.expect("no failure");
        assert_eq!((report.handled(), report.sources().len()), (0, sources));
    }
}

// Rules 2.3, 2.7
#[test]
fn what_a_live_source_says_of_itself_is_heard_by_the_drain() {
    let (context, log) = (StepContext::new("t"), Log::default());
    let (live, incoming) = live();
    for (first, weight, priority) in [(0, 1, 5), (10, 2, 5), (20, 2, 1)] {
        let source = filled(first..first + 6).weighted(weight).prioritized(priority);
        live.add(source.named(format!("from {first}"))).expect("the drain is there");
    }
    drop(live);
    let drain = fan_in(&context, [], note(&log, 0)).quantum(1).incoming(incoming);
    let report = block_on(drain).expect("no failure");
    let handled = noted(&log);
    let place = |of: u32| handled.iter().position(|number| *number == of).expect("it was handled");
    let before: Vec<_> = handled.iter().take_while(|number| **number != 25).collect();
    let of = |first: u32| before.iter().filter(|number| **number / 10 == first / 10).count();
    assert_eq!(of(20), 5);
    assert!(of(0) <= 3 && of(10) <= 4, "the urgent one comes first: {handled:?}");
    let rest: Vec<_> = handled.iter().copied().filter(|number| *number < 20).collect();
    assert!(place(13) < place(3), "two for one: {rest:?}");
    assert!(report.sources().iter().all(|source| source.name().starts_with("from ")));
}

// Rules 2.1, 3.2
#[test]
fn a_drain_that_waits_for_its_grace_takes_no_further_source() {
    let context = StepContext::new("t");
    let (sender, connections) = async_channel::unbounded();
    for message in [1, 2] {
        sender.try_send(filled([message])).expect("the channel is open");
    }
    let drain = fan_in(&context, [], |message: u32, _| async move {
        yields(3).await;
        if message == 1 { Err("no") } else { pending::<Result<(), &str>>().await }
    });
    let drain = drain.concurrency(2);
    let mut drain = drain.incoming(connections.clone()).grace(Duration::MAX).into_future();
    assert!(poll_times(&mut drain, 6).is_none(), "the second is awaited");
    sender.try_send(filled([3])).expect("the channel is open");
    assert!(poll_times(&mut drain, 3).is_none());
    drop(drain);
    assert_eq!(left_in(&connections).iter().flat_map(left_in).collect::<Vec<_>>(), [3]);
}

// Rule 2.7
#[test]
fn a_wish_from_inside_the_source_is_not_lost() {
    let (context, log) = (StepContext::new("t"), Log::default());
    let (live, incoming) = live();
    let own = Arc::new(Mutex::new(None::<SourceHandle<BoxStream<'static, u32>>>));
    let handle = Arc::clone(&own);
    let source = stream::poll_fn(move |_| {
        let handle = handle.lock().expect("no panic");
        assert!(handle.as_ref().expect("it is there").remove().now_or_never().is_none());
        Poll::Pending
    });
    *own.lock().expect("no panic") = live.add(source.boxed()).ok();
    drop(live);
    let report = block_on(fan_in(&context, [], note(&log, 0)).incoming(incoming));
    assert_eq!(report.expect("it is removed").handled(), 0);
    let own = own.lock().expect("no panic");
    let ended = own.as_ref().expect("it is there").ended().now_or_never();
    assert_eq!(ended, Some(SourceEnd::Removed));
}

// Rule 4.12
#[test]
fn sources_that_no_drain_took_go_back_even_if_the_destructors_of_others_panic() {
    struct Bomb(bool);
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(!self.0, "in a destructor");
        }
    }
    let (live, incoming) = live();
    let source = |armed| {
        let bomb = Bomb(armed);
        stream::repeat_with(move || {
            let _keep = &bomb;
            1
        })
        .boxed()
    };
    // Nobody holds their handles: they are dropped where they are.
    drop(live.add(source(true)).ok().expect("a drain may come"));
    let handle = live.add(source(false)).ok().expect("a drain may come");
    drop(live.add(source(true)).ok().expect("a drain may come"));
    drop(incoming);
    assert_eq!(handle.ended().now_or_never(), Some(SourceEnd::Abandoned));
    assert!(handle.remove().now_or_never().expect("at once").is_some());
}

// Rules 2.7, 5.2
async fn a_source_that_is_added_later_is_drained() {
    let context = StepContext::new("suite");
    let (live, incoming) = live();
    let handle = live.add(stream::iter(0..10_u32)).expect("the drain is there");
    let adding = std::thread::spawn(move || live.add(stream::iter(10..20)).map(drop));
    let report = fan_in(&context, [], |_, _| async { Ok::<_, BoxError>(()) })
        .incoming(incoming)
        .await
        .expect("no failure");
    assert_eq!(handle.ended().await, SourceEnd::Drained);
    adding.join().expect("the thread ends").expect("the drain is there");
    assert_eq!(report.handled(), 20);
}

on_every_executor! { a_source_that_is_added_later_is_drained }
