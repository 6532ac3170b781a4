//! What an outside reviewer found in settlement, with nothing but the contract and the public docs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use watershed::channels::Window;
use watershed::testing::{
    QueueCall, QueueReceipt, RenewalAnswer, ScriptedQueue, SettleAnswer, Simulation,
};
use watershed::transport::{Able, Fetched, Link, Received, Settled, Transport, Verdict, Want};
use watershed::{
    Answer, BoxError, CancellationSource, CancellationToken, Clock, ErrorCode, Letter, OnFailure,
    Progress, RetryPolicy, Source, StepContext, Tick, fan_in,
};

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
pub type Log = Arc<Mutex<Vec<String>>>;
pub fn say(log: &Log, what: impl Into<String>) {
    log.lock().unwrap().push(what.into());
}

/// What is seen where a handler has settled its message by itself, which is confirmed, and ends like this.
fn settled_by_hand_and_then(ends: fn() -> Result<Answer, BoxError>) -> Vec<String> {
    let sim = Simulation::new(1);
    let queue = ScriptedQueue::new(sim.world()).with([7]);
    let log = Log::default();
    let context = sim.world().context("c");
    let stop = shut_down_at_one_second(&sim);
    let (l, q) = (log.clone(), queue.clone());
    let drain =
        fan_in(&context, [Link::new(queue.clone()).source()], move |_, step: StepContext| {
            let (l, q) = (l.clone(), q.clone());
            async move {
                say(&l, format!("begin {}", step.attempt()));
                if l.lock().unwrap().len() > 1 {
                    return Ok(Answer::Done);
                }
                let l2 = l.clone();
                step.register_compensation(move || {
                    let l = l2.clone();
                    async move { say(&l, "undo") }
                });
                let settling = step.settling()?;
                let receipt = step.receipt::<QueueReceipt>(0).unwrap();
                let settled = q.settle(vec![(receipt, Verdict::Accept)]).await;
                assert!(matches!(settled[0], Settled::Confirmed));
                settling.ended(Settled::Confirmed);
                ends()
            }
        });
    let _ = sim.run(drain.retry(RetryPolicy::fixed(3, ms(1))).shutdown(stop)).unwrap();
    let log = log.lock().unwrap();
    log.clone()
}

// 7.1: "from step.settling() on the drain gives no verdict and undoes nothing of that message."
// Seen: a handler that has settled by itself (confirmed: the row is gone) and answers Later is undone,
// and its message is handled a second time.
#[test]
fn settled_by_hand_and_later_is_undone_and_handled_again() {
    assert_eq!(settled_by_hand_and_then(|| Ok(Answer::Later(ms(10)))), ["begin 1"]);
}

// 7.1: the same, where the handler fails and there are retries.
#[test]
fn settled_by_hand_and_failed_is_not_tried_again() {
    assert_eq!(settled_by_hand_and_then(|| Err("x".into())), ["begin 1"]);
}

// 7.1, 3.5: the drain hangs for good; a cancellation does not end it.
// Promised: nothing is undone after `settling()`; and a cancelled drain ends within its grace.
#[test]
fn settled_by_hand_later_and_an_undo_that_fails_hangs() {
    let sim = Simulation::new(1);
    let queue = ScriptedQueue::new(sim.world()).with([7]);
    let context = sim.world().context("c");
    let q = queue.clone();
    let stop = CancellationSource::new();
    let (s, w) = (stop.clone(), sim.world().clone());
    sim.spawn("cancel", async move {
        w.clock().sleep_until(Tick::from_nanos(60_000_000_000)).await;
        s.cancel()
    })
    .forget();
    let drain =
        fan_in(&context, [Link::new(queue.clone()).source()], move |_, step: StepContext| {
            let q = q.clone();
            async move {
                step.register_compensation(async || Err::<(), _>("it cannot be undone"));
                let settling = step.settling()?;
                q.settle(vec![(step.receipt::<QueueReceipt>(0).unwrap(), Verdict::Accept)]).await;
                settling.ended(Settled::Confirmed);
                Ok::<_, BoxError>(Answer::Later(ms(10)))
            }
        })
        .dead_letters(async |_: Letter<i32>| {})
        .cancellation(stop.token());
    let outcome = sim.run(drain);
    assert!(outcome.is_ok(), "{outcome:?}");
}

// 7.4, 7.20: a window loses one of three receipts while its handler runs, and its undo fails for good.
// Seen: no letter, no verdict, two receipts abandoned, the drain goes on. Promised: dead-lettered and rejected.
#[test]
fn window_with_a_lost_receipt_whose_undo_fails_is_abandoned_without_a_letter() {
    let sim = Simulation::new(1);
    let queue = ScriptedQueue::new(sim.world()).with([7, 8, 9]).leased_for(ms(900));
    queue.renews([RenewalAnswer::Usual, RenewalAnswer::Lost]);
    let context = sim.world().context("c");
    let window = Window::new(&context, Link::new(queue.clone()).source()).count(3).every(ms(100));
    let (letters, w) = (Log::default(), sim.world().clone());
    let l = letters.clone();
    let mut calls = 0;
    let drain = fan_in(&context, [window], move |_: Vec<i32>, step: StepContext| {
        calls += 1;
        let (first, w) = (calls == 1, w.clone());
        async move {
            if first {
                step.register_compensation(async || Err::<(), _>("it cannot be undone"));
                w.clock().sleep_until(Tick::from_nanos(2_000_000_000)).await;
            }
            Ok::<_, BoxError>(())
        }
    })
    .dead_letters(move |letter: Letter<Vec<i32>>| {
        say(&l, format!("{:?}", letter.message()));
        async {}
    });
    let report = sim.run(drain).unwrap().unwrap();
    assert_eq!(
        (report.lost(), report.abandoned(), report.rejected()),
        (1, 0, 2),
        "{:?}",
        letters.lock().unwrap()
    );
}

// 7.1, 7.19: an undecodable message is a failed one; failed ones are released after a delay that grows.
// Seen: `after: None`, where one whose handler fails has 100 ms.
#[test]
fn undecodable_is_released_without_a_delay() {
    let sim = Simulation::new(1);
    let able = Able::each().fences().renews().delays().counts().redrives();
    let queue = ScriptedQueue::new(sim.world()).able(able).redrives_after(3).with([7]);
    let context = sim.world().context("c");
    let source = Link::new(queue.clone()).source().decoded(|_: i32| Err::<i32, _>("no number"));
    let drain = fan_in(&context, [source], async |_, _| Ok::<_, BoxError>(()))
        .retry(RetryPolicy::exponential(3, ms(100)))
        .on_failure(OnFailure::Continue);
    sim.run(drain).unwrap().unwrap();
    let after: Vec<_> = queue
        .calls()
        .into_iter()
        .filter_map(|call| match call {
            QueueCall::Settle { batch, .. } => Some(
                batch
                    .into_iter()
                    .map(|(_, verdict)| match verdict {
                        Verdict::Release { after, .. } => after,
                        _ => None,
                    })
                    .collect::<Vec<_>>(),
            ),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(after, [Some(ms(100)), Some(ms(200)), Some(ms(400))]);
}

pub fn shut_down_at_one_second(sim: &Simulation) -> CancellationToken {
    let (stop, w) = (CancellationSource::new(), sim.world().clone());
    let token = stop.token();
    sim.spawn("stop", async move {
        w.clock().sleep_until(Tick::from_nanos(1_000_000_000)).await;
        stop.cancel()
    })
    .forget();
    token
}
pub fn released_at(queue: &ScriptedQueue<i32>, number: u64) -> Vec<u64> {
    let calls = queue.calls().into_iter().filter_map(|call| match call {
        QueueCall::Settle { at, batch } => Some((at, batch)),
        _ => None,
    });
    calls
        .filter(|(_, batch)| {
            batch.iter().any(|(r, v)| r.number == number && matches!(v, Verdict::Release { .. }))
        })
        .map(|(at, _)| at.as_nanos() / 1_000_000_000)
        .collect()
}

// 7.21, 3.10: shutdown at 1 s, one handler runs until 60 s. Seen: the message that is held for its key, and
// the one that waits for its next attempt, are released at 60 s. Promised: at once.
#[test]
fn what_waits_is_given_back_only_when_the_last_handler_has_ended() {
    async fn handle(message: i32, step: StepContext) -> Result<(), &'static str> {
        if message == 2 {
            return Err("not yet");
        }
        let clock = step.clock().clone();
        clock.sleep_until(Tick::from_nanos(60_000_000_000)).await;
        Ok(())
    }
    let sim = Simulation::new(1);
    let queue = ScriptedQueue::new(sim.world()).with([1, 2]).endless();
    let (context, stop) = (sim.world().context("c"), shut_down_at_one_second(&sim));
    let drain = fan_in(&context, [Link::new(queue.clone()).source()], handle)
        .retry(RetryPolicy::fixed(3, Duration::from_secs(600)))
        .unordered()
        .concurrency(3);
    sim.run(drain.shutdown(stop)).unwrap().unwrap();
    let waiting = released_at(&queue, 1);

    let sim = Simulation::new(1);
    let queue = ScriptedQueue::new(sim.world()).with([1, 3]).endless();
    let (context, stop) = (sim.world().context("c"), shut_down_at_one_second(&sim));
    let drain = fan_in(&context, [Link::new(queue.clone()).source()], handle)
        .ordered_by(|m| m % 2)
        .concurrency(3);
    sim.run(drain.shutdown(stop)).unwrap().unwrap();
    assert_eq!((waiting, released_at(&queue, 1)), (vec![1], vec![1]));
}

struct Told(Arc<dyn Fn() + Send + Sync>);
impl Clone for Told {
    fn clone(&self) -> Self {
        (self.0)();
        Told(self.0.clone())
    }
}
struct One(Arc<dyn Fn() + Send + Sync>, Mutex<bool>);
impl Transport for One {
    type Message = i32;
    type Receipt = Told;
    fn able(&self) -> Able {
        Able::each().prefetches(2)
    }
    async fn fetch(&self, _: Want) -> Fetched<i32, Told> {
        if std::mem::replace(&mut *self.1.lock().unwrap(), true) {
            return Ok(None);
        }
        Ok(Some((0..2).map(|i| Received::new(i, Told(self.0.clone()))).collect()))
    }
    async fn settle(&self, batch: Vec<(Told, Verdict)>) -> Vec<Settled> {
        batch.iter().map(|_| Settled::Confirmed).collect()
    }
}

// 4.12: seen: `clone` of a receipt that looks at the progress hangs the thread. Promised: no user code under a lock.
#[test]
fn receipt_clone_runs_under_a_lock() {
    let sim = Simulation::new(1);
    let progress = Progress::new();
    let seen = progress.clone();
    let link = Link::new(One(
        Arc::new(move || {
            seen.report();
        }),
        Mutex::new(false),
    ));
    let context = sim.world().context("c");
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
    sim.run(drain.progress(&progress)).unwrap().unwrap();
}

// 3.7: seen: the panic crosses the drain; with more in flight the process aborts. Promised: an error with `ErrorCode::Panic`.
#[test]

fn receipt_clone_that_panics_crosses_the_drain() {
    let sim = Simulation::new(1);
    let link = Link::new(One(Arc::new(|| panic!("clone")), Mutex::new(false)));
    let context = sim.world().context("c");
    let drain = fan_in(&context, [link.source()], async |message, _| {
        if message == 1 {
            std::future::pending::<()>().await
        }
        Ok::<_, BoxError>(())
    });
    let failure = sim.run(drain.unordered().concurrency(2)).unwrap().unwrap_err();
    assert_eq!(failure.error().code(), ErrorCode::Panic);
}

// 7.7: "more calls at once are made only where batches are full". Seen: a call with 1 of 2 while another one is in
// flight, because a verdict that may not be sent yet (its renewal has no answer) counts as gathered.
#[test]
fn a_second_call_is_made_with_half_a_batch() {
    let sim = Simulation::new(1);
    let able = Able::each().fences().renews().batches_of(2).prefetches(3);
    let queue = ScriptedQueue::new(sim.world())
        .able(able)
        .leased_for(ms(900))
        .with([310, 330, 320])
        .endless();
    queue.renews([RenewalAnswer::Usual, RenewalAnswer::Usual, RenewalAnswer::Never]);
    queue.settles([SettleAnswer::Never]);
    let context = sim.world().context("c");
    let drain =
        fan_in(&context, [Link::new(queue.clone()).source()], async |wait, step: StepContext| {
            let clock = step.clock().clone();
            clock.sleep_until(Tick::from_nanos(wait * 1_000_000)).await;
            Ok::<_, BoxError>(())
        })
        .unordered()
        .concurrency(3)
        .timeout(ms(600));
    let _ = sim.run(drain).unwrap();
    let calls: Vec<_> = queue
        .calls()
        .into_iter()
        .filter_map(|call| match call {
            QueueCall::Settle { at, batch } if at < Tick::from_nanos(500_000_000) => {
                Some((at.as_nanos() / 1_000_000, batch.len()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(calls, [(310, 1)], "(at, verdicts) of each call");
}
