//! Rule 2.7: sources that are added, removed, paused and resumed while the drain runs.

#[macro_use]
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use support::{block_on, filled, left_in, poll_times, yields};
use watershed::channels::{SourceEnd, live};
use watershed::{BoxError, ErrorCode, ManualClock, Source, StepContext, fan_in};

type Log = Arc<Mutex<Vec<u32>>>;

fn noted(log: &Log) -> Vec<u32> {
    std::mem::take(&mut log.lock().expect("no panic"))
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
    let mut drain = fan_in(&context, [], note(&log, 2)).incoming(incoming).into_future();
    assert!(poll_times(&mut drain, 1).is_none());
    let mut removal = Box::pin(handle.remove());
    assert!((&mut removal).now_or_never().is_none(), "its message is in flight");
    assert_eq!(noted(&log), []);
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
    let mut drain = fan_in(&context, [], note(&log, 1)).incoming(incoming).into_future();
    assert!(poll_times(&mut drain, 1).is_none());
    handle.pause();
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
                yields(1).await;
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
    assert_eq!(error.code(), ErrorCode::Timeout);
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
