//! What a fifth outsider, and a reader of the code, have found.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use watershed::channels::{AnySource, Window, live};
use watershed::transport::{
    Able, Assignment, Event, Facts, Fetched, Link, Notices, Received, Renewed, Settled, Transport,
    TransportSource, Verdict, Want,
};
use watershed::{
    BoxError, CancellationSource, Clock, ManualClock, OnFailure, Progress, RetryPolicy, Tick,
    fan_in,
};

use crate::support::{Gate, Hand, manual};

const SECOND: Duration = Duration::from_secs(1);

/// Messages with names and leases that cannot be renewed; what goes back, or runs out, comes again.
#[derive(Clone)]
struct Shelf {
    clock: ManualClock,
    lease: Option<Duration>,
    state: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    here: VecDeque<u32>,
    out: Vec<(u64, u32, Tick)>,
    deliveries: u64,
    accepted: Vec<u32>,
}

impl Shelf {
    fn new(clock: &ManualClock, messages: impl IntoIterator<Item = u32>) -> Self {
        let here = messages.into_iter().collect();
        let state = Arc::new(Mutex::new(Inner { here, ..Inner::default() }));
        Self { clock: clock.clone(), lease: None, state }
    }

    fn state(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap()
    }
}

impl Transport for Shelf {
    type Message = u32;
    type Receipt = u64;

    fn able(&self) -> Able {
        let able = Able::each().prefetches(4).batches_of(4).asks_every(SECOND / 50);
        if self.lease.is_some() { able.renews() } else { able }
    }

    async fn fetch(&self, want: Want) -> Fetched<u32, u64> {
        let (now, mut state) = (self.clock.now(), self.state());
        let out = std::mem::take(&mut state.out);
        let (over, out) = out.into_iter().partition(|(_, _, until)| *until <= now);
        state.out = out;
        let over: Vec<(u64, u32, Tick)> = over;
        state.here.extend(over.into_iter().map(|(_, number, _)| number));
        let mut received = Vec::new();
        while received.len() < want.at_most {
            let Some(number) = state.here.pop_front() else { break };
            state.deliveries += 1;
            let receipt = state.deliveries;
            let until = self.lease.map_or(Tick::MAX, |lease| now + lease);
            state.out.push((receipt, number, until));
            let facts = Facts { id: Some(number.to_string().into()), ..Facts::default() };
            let one = Received::new(number, receipt).with_facts(facts);
            received.push(self.lease.into_iter().fold(one, Received::leased_for));
        }
        Ok(Some(received))
    }

    async fn settle(&self, batch: Vec<(u64, Verdict)>) -> Vec<Settled> {
        let mut state = self.state();
        let mut outcomes = Vec::new();
        for (receipt, verdict) in batch {
            let Some(at) = state.out.iter().position(|(it, ..)| *it == receipt) else {
                outcomes.push(Settled::Lost(watershed::Error::validation("stale")));
                continue;
            };
            let (_, number, _) = state.out.remove(at);
            match verdict {
                Verdict::Accept => state.accepted.push(number),
                _ => state.here.push_back(number),
            }
            outcomes.push(Settled::Confirmed);
        }
        outcomes
    }

    async fn renew(&self, batch: Vec<u64>) -> Vec<Renewed> {
        batch.iter().map(|_| Renewed::AtMaximum).collect()
    }
}

/// Polls whenever it is woken, and moves the clock on to each timer, for so long.
fn pass<F: Future>(hand: &mut Hand<F>, clock: &ManualClock, time: Duration) {
    let until = clock.now() + time;
    while clock.now() < until {
        assert!(hand.run().is_pending());
        clock.advance(SECOND / 100);
    }
}

// Rules 7.5, 7.20: what is lost in an open window leaves it, and comes again as any other
#[test]
fn a_message_that_is_lost_in_an_open_window_is_taken_again_at_once() {
    for every in [None, Some(100 * SECOND)] {
        let (context, clock) = manual("orders");
        let shelf = Shelf { lease: Some(2 * SECOND), ..Shelf::new(&clock, [7]) };
        let (link, stop) = (Link::new(shelf.clone()), CancellationSource::new());
        let windows = Window::new(&context, link.source()).count(4);
        let windows = match every {
            Some(every) => windows.every(every),
            None => windows,
        };
        let drain = fan_in(&context, [windows], async |_: Vec<u32>, _| Ok::<_, BoxError>(()));
        let mut drain = Hand::new(drain.shutdown(stop.token()).into_future());
        pass(&mut drain, &clock, 60 * SECOND);
        let deliveries = shelf.state().deliveries;
        // Once a lease, and once more where it is fetched before the window has heard of the loss.
        assert!((25..=70).contains(&deliveries), "{deliveries}");
        // It is in the window now.
        shelf.state().here.extend([8, 9, 10]);
        pass(&mut drain, &clock, SECOND);
        assert_eq!(shelf.state().accepted.len(), 4);
        stop.cancel();
        drain.finish_by(&clock).unwrap();
    }
}

// Rules 2.7, 7.21: a source that was on hold, or slowed down, in a drain before
#[test]
fn a_source_that_comes_back_is_fetched_again_in_its_next_drain() {
    for how in ["removed", "paused and removed", "slowed down and removed"] {
        let (context, clock) = manual("orders");
        let shelf = Shelf::new(&clock, 0..20);
        let slow = RetryPolicy::fixed(2, 1_000 * SECOND);
        let link = Link::new(shelf.clone()).slow_down_after(1, slow);
        let (sources, incoming) = live::<TransportSource<Shelf>>();
        let handle = sources.add(link.source()).ok().unwrap();
        let fails = how.starts_with("slowed");
        let drain = fan_in(
            &context,
            [],
            async |_: u32, _| {
                if fails { Err(BoxError::from("no")) } else { Ok(()) }
            },
        );
        let stop = CancellationSource::new();
        let drain = drain.incoming(incoming).on_failure(OnFailure::Continue);
        let mut drain = Hand::new(drain.shutdown(stop.token()).into_future());
        pass(&mut drain, &clock, SECOND);
        if how.starts_with("paused") {
            assert!(handle.pause());
            pass(&mut drain, &clock, SECOND);
        }
        let mut back = Hand::new(handle.remove());
        assert!(back.run().is_pending());
        pass(&mut drain, &clock, SECOND);
        let std::task::Poll::Ready(Some(back)) = back.run() else { panic!("{how}: it is out") };
        stop.cancel();
        drain.finish_by(&clock).unwrap();
        shelf.state().here.extend(100..110);
        let again =
            fan_in(&context, [AnySource::from(back)], async |_: u32, _| Ok::<_, BoxError>(()));
        let mut again = Hand::new(again.until_idle().into_future());
        let report = again.finish_by(&clock).unwrap();
        assert!(report.accepted() >= 10 && shelf.state().here.is_empty(), "{how}: {report:?}");
    }
}

// House rule 7, rule 7.23: the policy is the user's code
#[test]
fn the_policy_that_slows_down_may_look_at_the_progress() {
    let (context, clock) = manual("orders");
    let (shelf, progress, asked) =
        (Shelf::new(&clock, 0..4), Progress::new(), Arc::new(AtomicUsize::new(0)));
    let policy = {
        let (progress, asked) = (progress.clone(), Arc::clone(&asked));
        RetryPolicy::custom(move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            assert!(progress.report().accepted() <= 4);
            Some(SECOND)
        })
    };
    let link = Link::new(shelf.clone()).slow_down_after(1, policy);
    let failed = AtomicUsize::new(0);
    let drain = fan_in(&context, [link.source()], async |_: u32, _| {
        if failed.fetch_add(1, Ordering::Relaxed) < 6 { Err(BoxError::from("no")) } else { Ok(()) }
    });
    let drain = drain.on_failure(OnFailure::Continue).progress(&progress).until_idle();
    let report = Hand::new(drain.into_future()).finish_by(&clock).unwrap();
    assert_eq!((report.accepted(), shelf.state().accepted.len()), (4, 4));
    assert!(asked.load(Ordering::Relaxed) > 0);
}

// Rule 7.11: leases go by the clock of the drain that has them
#[test]
fn a_source_that_is_drained_again_by_another_clock_goes_by_that() {
    let (context, clock) = manual("orders");
    let shelf = Shelf { lease: Some(10 * SECOND), ..Shelf::new(&clock, 0..3) };
    let link = Link::new(shelf.clone());
    let (sources, incoming) = live::<TransportSource<Shelf>>();
    let handle = sources.add(link.source()).ok().unwrap();
    let handler = async |_: u32, _| Ok::<_, BoxError>(());
    let drain = fan_in(&context, [], handler).incoming(incoming).until_idle();
    assert_eq!(Hand::new(drain.into_future()).finish_by(&clock).unwrap().accepted(), 3);
    // The first one is far ahead.
    clock.advance(1_000_000 * SECOND);
    let (context, clock) = manual("orders again");
    shelf.state().here.extend(3..6);
    let source = AnySource::from(Hand::new(handle.remove()).finish().expect("it was left"));
    let drain = fan_in(&context, [source], handler).until_idle();
    let report = Hand::new(drain.into_future()).finish_by(&clock).unwrap();
    assert_eq!((report.accepted(), report.lost()), (3, 0));
}

/// A log of one partition that has no generations.
#[derive(Clone)]
struct Plain {
    notices: Notices,
    next: Arc<Mutex<u32>>,
    committed: Arc<Mutex<Vec<u32>>>,
}

impl Transport for Plain {
    type Message = u32;
    type Receipt = u32;

    fn able(&self) -> Able {
        Able::prefix().assigns().prefetches(2)
    }

    fn notices(&self) -> Notices {
        self.notices.clone()
    }

    async fn fetch(&self, _: Want) -> Fetched<u32, u32> {
        let mut next = self.next.lock().unwrap();
        let taken: Vec<_> = (*next..(*next + 2).min(10)).collect();
        *next += u32::try_from(taken.len()).unwrap();
        Ok(Some(taken.into_iter().map(|number| Received::new(number, number)).collect()))
    }

    async fn settle(&self, batch: Vec<(u32, Verdict)>) -> Vec<Settled> {
        for (receipt, verdict) in &batch {
            match verdict {
                Verdict::Accept => self.committed.lock().unwrap().push(*receipt),
                _ => *self.next.lock().unwrap() = *receipt,
            }
        }
        batch.iter().map(|_| Settled::Confirmed).collect()
    }
}

// Rule 7.21: "the next drain goes on"; `0` of both where there is no such thing
#[test]
fn partition_0_without_generations_is_a_source_of_each_drain() {
    let log = Plain { notices: Notices::new(), next: Arc::default(), committed: Arc::default() };
    let link = Link::new(log.clone());
    log.notices.tell(Event::Assigned(Assignment::default()));
    for round in 1..=2 {
        let ((context, clock), stop) = (manual("orders"), CancellationSource::new());
        let done = AtomicUsize::new(0);
        let drain = fan_in(&context, [], async |_: u32, _| {
            if done.fetch_add(1, Ordering::Relaxed) == 4 {
                stop.cancel();
            }
            Ok::<_, BoxError>(())
        });
        let drain = drain.incoming(link.assigned()).shutdown(stop.token());
        let report = Hand::new(drain.into_future()).finish_by(&clock).unwrap();
        assert_eq!(report.accepted(), 5, "{round}");
    }
    assert_eq!(log.committed.lock().unwrap().last(), Some(&9));
}

/// Panics when it is dropped.
struct Bomb(Shelf);

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a transport that panics when it is dropped");
    }
}

impl Transport for Bomb {
    type Message = u32;
    type Receipt = u64;

    fn able(&self) -> Able {
        self.0.able()
    }

    async fn fetch(&self, want: Want) -> Fetched<u32, u64> {
        self.0.fetch(want).await
    }

    async fn settle(&self, batch: Vec<(u64, Verdict)>) -> Vec<Settled> {
        self.0.settle(batch).await
    }
}

// Rule 3.7
#[test]
fn a_transport_that_panics_when_it_is_dropped_changes_no_result() {
    let (context, clock) = manual("orders");
    let shelf = Shelf::new(&clock, 0..3);
    let link = Link::new(Bomb(shelf.clone()));
    let gate = Gate::default();
    let drain = fan_in(&context, [link.source()], async |_: u32, _| {
        gate.wait().await;
        Ok::<_, BoxError>(())
    });
    let mut drain = Hand::new(drain.until_idle().into_future());
    assert!(drain.run().is_pending());
    // The drain is the last one to have it.
    drop(link);
    gate.open();
    let report = drain.finish_by(&clock).unwrap();
    drop(drain);
    assert_eq!(report.accepted(), 3);
}
