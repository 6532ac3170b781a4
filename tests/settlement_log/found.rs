//! What an outside reviewer found in prefix order, with nothing but the contract and the public docs.

use std::future::IntoFuture;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Wake;
use std::time::Duration;

use watershed::channels::Window;
use watershed::testing::{LogRecord, ScriptedLog, Simulation};
use watershed::transport::{
    Able, Assignment, Event, Fetched, Link, Notices, Received, Revocation, Settled, Transport,
    Verdict, Want,
};
use watershed::{
    BoxError, CancellationSource, Clock, Error, ErrorCode, ManualClock, OnFailure, StepContext,
    Tick, fan_in, timers,
};

/// A waker that says whether it was woken.
struct Flag(AtomicBool);

impl Flag {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A log that notes what is asked of it.
struct Tiny {
    notices: Notices,
    records: u64,
    clock: ManualClock,
    state: Mutex<State>,
    settle_takes: Duration,
    batch: usize,
}
#[derive(Default)]
struct State {
    next: std::collections::BTreeMap<Assignment, u64>,
    over: std::collections::BTreeSet<Assignment>,
    with_it: usize,
    most: usize,
    calls: Vec<String>,
}
type Shared = Arc<Tiny>;
#[derive(Clone)]
struct Log(Shared);
impl Tiny {
    fn note(&self, what: String) {
        self.state.lock().unwrap().calls.push(what);
    }
    fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }
}
fn log(clock: &ManualClock, records: u64, settle_takes: u64) -> Log {
    Log(Arc::new(Tiny {
        notices: Notices::new(),
        records,
        clock: clock.clone(),
        state: Mutex::default(),
        settle_takes: ms(settle_takes),
        batch: 4,
    }))
}
fn it(partition: u32, generation: u64) -> Assignment {
    Assignment { partition, generation }
}
fn lost() -> Error {
    Error::new(ErrorCode::Source, "taken away")
}
impl Transport for Log {
    type Message = u64;
    type Receipt = (Assignment, u64);
    fn able(&self) -> Able {
        Able::prefix().assigns().batches_of(self.0.batch).prefetches(4).asks_every(ms(100))
    }
    fn notices(&self) -> Notices {
        self.0.notices.clone()
    }
    async fn fetch(&self, want: Want) -> Fetched<u64, (Assignment, u64)> {
        let a = want.assignment;
        let over = self.0.state.lock().unwrap().over.contains(&a);
        self.0.note(format!(
            "fetch {}/{}{}",
            a.partition,
            a.generation,
            if over { " STALE" } else { "" }
        ));
        if over {
            return Ok(Some(vec![]));
        }
        let mut state = self.0.state.lock().unwrap();
        let next = state.next.entry(a).or_default();
        let from = *next;
        *next = (from + want.at_most as u64).min(self.0.records);
        Ok(Some((from..*next).map(|n| Received::new(n, (a, n))).collect()))
    }
    async fn settle(&self, batch: Vec<((Assignment, u64), Verdict)>) -> Vec<Settled> {
        let n = batch.len();
        for ((a, n), v) in &batch {
            let over = self.0.state.lock().unwrap().over.contains(a);
            self.0.note(format!(
                "{} {}/{} {n}{}",
                match v {
                    Verdict::Accept => "accept",
                    Verdict::Release { .. } => "release",
                    _ => "reject",
                },
                a.partition,
                a.generation,
                if over { " STALE" } else { "" }
            ));
        }
        {
            let mut s = self.0.state.lock().unwrap();
            s.with_it += n;
            s.most = s.most.max(s.with_it);
        }
        struct Gone<'a>(&'a Tiny, usize);
        impl Drop for Gone<'_> {
            fn drop(&mut self) {
                self.0.state.lock().unwrap().with_it -= self.1;
            }
        }
        let gone = Gone(&self.0, n);
        if !self.0.settle_takes.is_zero() {
            self.0.clock.sleep_until(self.0.clock.now() + self.0.settle_takes).await;
        }
        drop(gone);
        let mut state = self.0.state.lock().unwrap();
        batch
            .into_iter()
            .map(|((a, n), v)| {
                if state.over.contains(&a) {
                    return Settled::Lost(lost());
                }
                if let Verdict::Release { .. } = v {
                    state.next.insert(a, n);
                }
                Settled::Confirmed
            })
            .collect()
    }
}
impl Log {
    fn assign(&self, a: Assignment) {
        self.0.notices.tell(Event::Assigned(a));
    }
    fn lose(&self, a: Assignment) {
        self.0.state.lock().unwrap().over.insert(a);
        self.0.note(format!("lost {}/{}", a.partition, a.generation));
        self.0.notices.tell(Event::Lost(a, lost()));
    }
    fn revoke(&self, a: Assignment, within: Option<Duration>) {
        let me = self.clone();
        self.0.note(format!("revoked {}/{}", a.partition, a.generation));
        let r = Revocation::new(a, move |left| {
            me.0.state.lock().unwrap().over.insert(a);
            me.0.note(format!("answered {}/{} left {left}", a.partition, a.generation));
        });
        self.0.notices.tell(Event::Revoked(match within {
            Some(d) => r.within(d),
            None => r,
        }));
    }
}
/// Polls while it is woken, then moves the clock; `None`: it has not ended by then.
fn run<T>(
    clock: &ManualClock,
    until: u64,
    future: std::pin::Pin<&mut dyn Future<Output = T>>,
) -> Option<T> {
    let mut future = future;
    let flag = Flag::new();
    let waker = std::task::Waker::from(flag.clone());
    for _ in 0..100_000 {
        if flag.take() {
            if let std::task::Poll::Ready(x) =
                future.as_mut().poll(&mut std::task::Context::from_waker(&waker))
            {
                return Some(x);
            }
        } else if clock.now() >= Tick::from_nanos(until * 1_000_000) {
            return None;
        } else {
            clock.advance(ms(1));
        }
    }
    panic!("busy");
}
fn context(clock: &ManualClock) -> StepContext {
    StepContext::new("orders").with_clock(Arc::new(clock.clone()))
}

/// 7.15: "Release in prefix order stops its partition: those behind it that are done and not committed
/// are undone in reverse and count as released. The seek is sent when nothing of the partition runs."
/// Seen: a window (of two or more) that was done behind one that failed is never undone, no seek is sent, nothing is
/// fetched any more, and a shutdown never ends: pending, no timer, nobody to wake it. (Windows of one work.)
#[test]
fn a_window_done_behind_one_that_fails_is_never_undone_and_the_drain_hangs() {
    let simulation = Simulation::new(7);
    let world = simulation.world();
    let log = ScriptedLog::new(world.clock().clone()).partition(0, 4).endless().prefetches(10);
    let consumer = log.consumer();
    let link = Link::new(consumer.clone());
    let context = world.context("orders");
    let windows = Window::new(&context, link.partition(consumer.assign(0))).count(2).every(ms(10));
    let (stop, failed) = (CancellationSource::new(), Mutex::new(false));
    let drain = fan_in(&context, [windows], async |rows: Vec<LogRecord>, step: StepContext| {
        rows.iter().for_each(|row| log.apply(&step, *row));
        if rows[0].offset == 0 && !std::mem::replace(&mut *failed.lock().unwrap(), true) {
            timers::delay(&step, ms(100)).await?; // [2, 3] is done meanwhile
            return Err::<(), BoxError>("fails once".into());
        }
        Ok(())
    });
    let drain = drain
        .concurrency(2)
        .unordered()
        .on_failure(OnFailure::Continue)
        .shutdown(stop.token())
        .into_future();
    let stopping = async {
        timers::delay(&context, Duration::from_secs(60)).await.unwrap();
        stop.cancel();
    };
    let report =
        simulation.run(async { futures::join!(drain, stopping).0 }).expect("it hangs").unwrap();
    assert!(log.is_drained() && report.accepted() == 4, "{report:?}");
}

/// 7.20: "What is lost or revoked in an open window leaves it"; 7.18: "taking from that partition stops".
/// Seen: a revocation closes the open window early and calls the handler with it.
#[test]
fn a_revocation_hands_the_open_window_to_the_handler() {
    let clock = ManualClock::new();
    let (log, context) = (log(&clock, 2, 0), context(&clock));
    let link = Link::new(log.clone());
    let windows =
        Window::new(&context, link.partition(it(0, 1))).count(3).every(Duration::from_secs(10));
    let seen = Mutex::new(vec![]);
    let stop = CancellationSource::new();
    let drain = fan_in(&context, [windows], async |rows: Vec<u64>, _| {
        seen.lock().unwrap().push(rows);
        Ok::<_, BoxError>(())
    });
    let mut drain = std::pin::pin!(drain.shutdown(stop.token()).into_future());
    assert!(run(&clock, 1_000, drain.as_mut()).is_none());
    assert!(seen.lock().unwrap().is_empty(), "the window is open");
    log.revoke(it(0, 1), Some(Duration::from_secs(5)));
    let _ = run(&clock, 1_000, drain.as_mut());
    assert!(
        seen.lock().unwrap().is_empty(),
        "handled after the revocation: {:?}",
        seen.lock().unwrap()
    );
}

/// 7.17: "a receipt and a fetch carry the generation of their assignment; one of an older generation is never sent".
/// Seen: a loss that is told between two drains is forgotten when a newer assignment of that partition is
/// told and asked back before the next drain begins: that drain has a source of the generation that was lost, and fetches
/// in it for ever.
#[test]
fn a_loss_between_two_drains_is_forgotten_and_the_old_generation_is_fetched() {
    let clock = ManualClock::new();
    let (log, context) = (log(&clock, 3, 0), context(&clock));
    let link = Link::new(log.clone());
    log.assign(it(0, 1));
    let handler = async |_: u64, _| Ok::<_, BoxError>(());
    let stop = CancellationSource::new();
    {
        let drain = fan_in(&context, [], handler).incoming(link.assigned()).shutdown(stop.token());
        let mut drain = std::pin::pin!(drain.into_future());
        assert!(run(&clock, 1_000, drain.as_mut()).is_none());
        stop.cancel();
        let report = run(&clock, 1_000, drain.as_mut()).unwrap().unwrap();
        assert_eq!(report.accepted(), 3);
    }
    log.lose(it(0, 1));
    log.assign(it(0, 2));
    log.revoke(it(0, 2), None); // answered at once
    let drain = fan_in(&context, [], handler).incoming(link.assigned());
    let mut drain = std::pin::pin!(drain.into_future());
    assert!(run(&clock, 2_000, drain.as_mut()).is_none());
    let calls = log.0.calls();
    let lost = calls.iter().position(|call| call == "lost 0/1").unwrap();
    assert!(!calls[lost..].iter().any(|call| call.contains("STALE")), "{:?}", &calls[lost..]);
}

/// 7.4: "A release runs only after every undo of its message has succeeded"; 7.15: those behind it are undone first.
/// Seen: a failure ends the drain, the grace drops a handler behind it, whose undo is on the context's scope: the
/// seek to the failed message is sent all the same, which gives the other one back with its effect in place.
#[test]
fn a_seek_gives_back_a_message_that_is_not_undone() {
    let clock = ManualClock::new();
    let (log, context) = (log(&clock, 2, 0), context(&clock));
    let link = Link::new(log.clone());
    let effects = Arc::new(Mutex::new(vec![]));
    let drain = fan_in(&context, [link.partition(it(0, 1))], async |n: u64, step: StepContext| {
        effects.lock().unwrap().push(n);
        step.register_compensation_with((effects.clone(), n), async |(effects, n)| {
            effects.lock().unwrap().retain(|it| *it != n)
        });
        if n == 1 {
            std::future::pending::<()>().await;
        }
        step.clock().sleep_until(step.clock().now() + ms(10)).await;
        Err::<(), BoxError>("fails".into())
    });
    let mut drain = std::pin::pin!(drain.unordered().concurrency(2).grace(ms(1)).into_future());
    run(&clock, 10_000, drain.as_mut()).unwrap().unwrap_err();
    let given_back = log.0.calls().iter().any(|call| call == "release 0/1 0");
    assert!(
        !(given_back && *effects.lock().unwrap() == [1]),
        "released with the effect of 1 in place, {} staged",
        context.scope().len()
    );
}

/// 7.7: "At most `max_unsettled` verdicts are with a transport at a time."
/// Seen: a verdict of a partition that was given up at its deadline is not counted any more while its call is still with the transport.
#[test]
fn a_partition_that_is_given_up_lets_more_than_max_unsettled_verdicts_out() {
    let clock = ManualClock::new();
    let (log, context) = (log(&clock, 1, 1_000), context(&clock));
    let link = Link::new(log.clone()).max_unsettled(1);
    let handler = async |_: u64, _| Ok::<_, BoxError>(());
    let drain = fan_in(&context, [], handler).incoming(link.assigned());
    let mut drain = std::pin::pin!(drain.into_future());
    for generation in 1..=5 {
        log.assign(it(0, generation));
        assert!(run(&clock, generation * 10, drain.as_mut()).is_none());
        log.revoke(it(0, generation), Some(ms(1)));
        clock.advance(ms(2));
    }
    let most = log.0.state.lock().unwrap().most;
    assert!(most <= 1, "{most} at a time: {:?}", log.0.calls());
}

/// One record a fetch, which takes 60 ms; what seeks and commits are answered is the test's.
#[derive(Clone)]
struct Odd {
    log: Log,
    seeks: Arc<Mutex<Option<Settled>>>,
    commits: Arc<Mutex<Option<Settled>>>,
}
fn odd(log: &Log) -> Odd {
    Odd { log: log.clone(), seeks: Arc::default(), commits: Arc::default() }
}
impl Transport for Odd {
    type Message = u64;
    type Receipt = (Assignment, u64);
    fn able(&self) -> Able {
        Able::prefix().assigns().batches_of(1).prefetches(1).asks_every(ms(100))
    }
    fn notices(&self) -> Notices {
        self.log.notices()
    }
    async fn fetch(&self, want: Want) -> Fetched<u64, (Assignment, u64)> {
        let tiny = &self.log.0;
        tiny.clock.sleep_until(tiny.clock.now() + ms(60)).await;
        let mut state = tiny.state.lock().unwrap();
        let next = state.next.entry(want.assignment).or_default();
        let from = *next;
        *next = (from + 1).min(tiny.records);
        let all = from..*next;
        if !all.is_empty() {
            state.calls.push(format!("fetched {from}"));
        }
        Ok(Some(all.map(|n| Received::new(n, (want.assignment, n))).collect()))
    }
    async fn settle(&self, batch: Vec<((Assignment, u64), Verdict)>) -> Vec<Settled> {
        let seek = matches!(batch[0].1, Verdict::Release { .. });
        let answer = if seek {
            self.seeks.lock().unwrap().clone()
        } else {
            self.commits.lock().unwrap().clone()
        };
        match answer {
            Some(answer) => {
                self.log.0.note(format!(
                    "{} {} -> {answer:?}",
                    if seek { "seek" } else { "commit" },
                    batch[0].0.1
                ));
                vec![answer]
            }
            None => self.log.settle(batch).await,
        }
    }
}

/// 7.14: "the offset committed never passes a message that is not done"; 7.15 "nothing is fetched until [the seek] is confirmed".
/// Seen: a shutdown sends its seek to 0 in vain (*unknown* until `settle_within`), and a fetch came back with 1 meanwhile, which is thrown
/// away. The next drain on the same assignment seeks to 1 only, and commits past 0, which nobody has handled.
#[test]
fn the_next_drain_commits_past_a_message_that_is_not_done() {
    let clock = ManualClock::new();
    let (log, context) = (log(&clock, 4, 0), context(&clock));
    let odd = odd(&log);
    let link = Link::new(odd.clone()).settle_within(ms(500));
    log.assign(it(0, 1));
    let (stop, done) = (CancellationSource::new(), Mutex::new(vec![]));
    let stopping = stop.token();
    let handler = async |n: u64, step: StepContext| {
        timers::delay(&step, ms(100)).await?;
        if n == 0
            && done.lock().unwrap().is_empty()
            && log.0.clock.now() < Tick::from_nanos(200_000_000)
        {
            return Err::<(), BoxError>("fails once".into());
        }
        done.lock().unwrap().push(n);
        Ok(())
    };
    *odd.seeks.lock().unwrap() = Some(Settled::Unknown(lost()));
    {
        let drain = fan_in(&context, [], handler)
            .incoming(link.assigned())
            .on_failure(OnFailure::Continue)
            .shutdown(stopping);
        let mut drain = std::pin::pin!(drain.into_future());
        assert!(run(&clock, 100, drain.as_mut()).is_none()); // 0 runs, 1 is being fetched
        stop.cancel();
        run(&clock, 10_000, drain.as_mut()).expect("it ends").ok();
    }
    *odd.seeks.lock().unwrap() = None;
    let drain = fan_in(&context, [], handler).incoming(link.assigned());
    let mut drain = std::pin::pin!(drain.into_future());
    assert!(run(&clock, 20_000, drain.as_mut()).is_none());
    let (calls, done) = (log.0.calls(), done.lock().unwrap().clone());
    let past = calls.iter().any(|call| call.starts_with("accept 0/1"));
    assert!(!past || done.contains(&0), "committed past 0, done are {done:?}: {calls:?}");
}

/// 7.18: "After a loss: no commit"; 7.14: "the offset committed never passes a message that is not done".
/// Seen: a seek that is answered *lost* gives its messages up, and the drain goes on fetching in that generation from where the
/// position is, and commits past them.
#[test]
fn after_a_seek_that_is_lost_the_drain_commits_past_the_message() {
    let clock = ManualClock::new();
    let (log, context) = (log(&clock, 4, 0), context(&clock));
    let odd = odd(&log);
    *odd.seeks.lock().unwrap() = Some(Settled::Lost(lost()));
    let link = Link::new(odd);
    let drain = fan_in(&context, [link.partition(it(0, 1))], async |n: u64, _| {
        if n == 1 { Err::<(), BoxError>("fails".into()) } else { Ok(()) }
    });
    let mut drain = std::pin::pin!(drain.on_failure(OnFailure::Continue).into_future());
    let _ = run(&clock, 5_000, drain.as_mut());
    let calls = log.0.calls();
    let lost = calls.iter().position(|call| call.starts_with("seek")).unwrap();
    assert!(!calls[lost..].iter().any(|call| call.starts_with("accept")), "{calls:?}");
}

/// 7.18: "After a loss: no commit."
/// Seen: a commit is answered *lost* ("its partition was taken away"), and further commits of that generation are sent.
#[test]
fn after_a_commit_that_is_lost_further_commits_are_sent() {
    let clock = ManualClock::new();
    let (log, context) = (log(&clock, 4, 0), context(&clock));
    let odd = odd(&log);
    *odd.commits.lock().unwrap() = Some(Settled::Lost(lost()));
    let link = Link::new(odd);
    let drain =
        fan_in(&context, [link.partition(it(0, 1))], async |_: u64, _| Ok::<_, BoxError>(()));
    let mut drain = std::pin::pin!(drain.into_future());
    let _ = run(&clock, 5_000, drain.as_mut());
    let calls = log.0.calls();
    assert_eq!(calls.iter().filter(|call| call.starts_with("commit")).count(), 1, "{calls:?}");
}
