//! How each operation over a stream of results ends, in every way it can: one table, one row for
//! each operation.

#![allow(clippy::needless_pass_by_value, reason = "an operation is handed its step")]

use crate::support::neighbours::Wakes;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::support::{block_on, poll_times, yields};
use futures::FutureExt;
use futures::future::pending;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use watershed::streams::StepStreamExt;
use watershed::{
    BoxError, CancellationSource, CancellationToken, Clock, ErrorCode, ManualClock, Sleep,
    StepContext, Tick,
};

const SECOND: Duration = Duration::from_secs(1);

type Item = Result<u32, BoxError>;
type Ended = Vec<Result<u32, ErrorCode>>;
type Operation = fn(u32, StepContext) -> Pin<Box<dyn Future<Output = Item> + Send>>;
type Row = (&'static str, fn(&StepContext, Feed, Operation) -> BoxStream<'static, Coded>);
type Coded = Result<u32, ErrorCode>;

fn coded<T>(value: impl Fn(T) -> u32) -> impl Fn(Result<T, watershed::Error>) -> Coded {
    move |item| item.map(&value).map_err(|error| error.code())
}

/// Every operation, as a stream; one that gathers yields its result as the only item.
const ROWS: [Row; 7] = [
    ("map_step", |context, feed, operation| {
        feed.map_step(context, operation).map(coded(|n| n)).boxed()
    }),
    ("filter_map_step", |context, feed, operation| {
        let mapped =
            feed.filter_map_step(context, move |n, step| operation(n, step).map(|r| r.map(Some)));
        mapped.map(coded(|n| n)).boxed()
    }),
    ("flat_map_step", |context, feed, operation| {
        let flat =
            feed.flat_map_step(context, move |n, step| stream::once(operation(n, step)).boxed());
        flat.map(coded(|n| n)).boxed()
    }),
    ("for_each_step", |context, feed, operation| {
        let run =
            feed.for_each_step(context, move |n, step| operation(n, step).map(|r| r.map(drop)));
        let handled = coded(|handled: u64| u32::try_from(handled).expect("a few"));
        run.into_future().map(handled).into_stream().boxed()
    }),
    ("tap_err_step", |context, feed, operation| {
        // The operation hears of errors, so each item is made one, and is back afterwards.
        let tapped =
            feed.tap_err_step(context, move |_, step| operation(0, step).map(|r| r.map(drop)));
        tapped.map(coded(|n| n)).boxed()
    }),
    ("collect_all", |context, feed, _| {
        let all = feed
            .collect_all(context)
            .map(coded(|all: Vec<u32>| u32::try_from(all.len()).expect("a few")));
        stream::once(all).boxed()
    }),
    ("lifted", |context, feed, _| feed.lifted(context).map(coded(|n| n)).boxed()),
];

/// What each row makes of a feed that yields one item and then ends with `last`.
fn expected(name: &str, last: Option<ErrorCode>) -> Ended {
    match (name, last) {
        ("for_each_step" | "collect_all", None) => vec![Ok(1)],
        // A gatherer has several errors to tell of, unless it is told to stop.
        ("collect_all", Some(code)) if code != ErrorCode::Canceled => {
            vec![Err(ErrorCode::Aggregate)]
        }
        ("for_each_step" | "collect_all", Some(code)) => vec![Err(code)],
        (_, last) => [Ok(1)].into_iter().chain(last.map(Err)).collect(),
    }
}

/// A stream that says how often it was polled, and when it was dropped.
struct Feed {
    acts: Vec<fn() -> Poll<Option<Item>>>,
    polls: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Feed {
    fn new(acts: impl IntoIterator<Item = fn() -> Poll<Option<Item>>>) -> Self {
        let mut acts: Vec<_> = acts.into_iter().collect();
        acts.reverse();
        Self { acts, polls: Arc::default(), dropped: Arc::default(), waker: Arc::default() }
    }
}

impl Stream for Feed {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        *self.waker.lock().expect("no panic") = Some(cx.waker().clone());
        self.acts.pop().map_or(Poll::Ready(None), |act| act())
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

fn one() -> Poll<Option<Item>> {
    Poll::Ready(Some(Ok(1)))
}

fn fault() -> Poll<Option<Item>> {
    Poll::Ready(Some(Err("connection lost".into())))
}

fn broken() -> Poll<Option<Item>> {
    panic!("the feed broke")
}

fn works(n: u32, step: StepContext) -> Pin<Box<dyn Future<Output = Item> + Send>> {
    step.register_compensation(|| async {});
    Box::pin(async move {
        yields(1).await;
        Ok(n)
    })
}

/// Polls a stream to its end, and leaves it there: what it holds on to shows.
fn run_out(stream: &mut BoxStream<'static, Coded>) -> Ended {
    let mut items = Vec::new();
    for _ in 0..100 {
        match poll_times(&mut stream.next(), 3).expect("it goes on") {
            Some(item) => items.push(item),
            None => return items,
        }
    }
    panic!("it does not end: {items:?}")
}

// Rules 2.6, 3.2, 3.7, P39, P47
#[test]
fn the_end_a_fault_and_a_panic_of_the_stream_are_the_last_item_and_it_is_dropped_at_once() {
    type Act = fn() -> Poll<Option<Item>>;
    let endings: [(&[Act], Option<ErrorCode>); 3] = [
        (&[one], None),
        (&[one, fault], Some(ErrorCode::Source)),
        (&[one, broken, one], Some(ErrorCode::Panic)),
    ];
    for (name, row) in ROWS {
        for (acts, last) in endings {
            let context = StepContext::new("t");
            let feed = Feed::new(acts.iter().copied());
            let (polls, dropped) = (Arc::clone(&feed.polls), Arc::clone(&feed.dropped));
            let mut stream = row(&context, feed, works);
            assert_eq!(run_out(&mut stream), expected(name, last), "{name}");
            assert_eq!(dropped.load(Ordering::Relaxed), 1, "{name} {last:?}: it is gone");
            let asked = polls.load(Ordering::Relaxed);
            assert!((2..=3).contains(&asked), "{name} {last:?}: asked {asked} times");
            // Whoever rolls back now finds everything, whether the stream is still there or not.
            let told = usize::from(last.is_some());
            let staged = match name {
                "collect_all" | "lifted" => 0,
                "tap_err_step" => told,
                _ => 1,
            };
            assert_eq!(context.scope().clear(), staged, "{name} {last:?}");
            drop(stream);
            assert_eq!(context.scope().clear(), 0, "{name} {last:?}");
        }
    }
}

// Rule 3.1
#[test]
fn an_empty_stream_is_an_empty_success() {
    for (name, row) in ROWS {
        let mut stream = row(&StepContext::new("t"), Feed::new([]), works);
        let gathers = ["for_each_step", "collect_all"].contains(&name);
        assert_eq!(run_out(&mut stream), vec![Ok(0); usize::from(gathers)], "{name}");
    }
}

// Rules 2.1, 3.5
#[test]
fn cancellation_before_the_first_poll_takes_nothing_and_one_during_a_wait_wakes() {
    fn silent() -> Poll<Option<Item>> {
        Poll::Pending
    }
    for (name, row) in ROWS {
        for waits in [false, true] {
            let stop = CancellationSource::new();
            let context = StepContext::new("t").with_cancellation(stop.token());
            let feed = Feed::new([silent as fn() -> _, one]);
            let (polls, dropped) = (Arc::clone(&feed.polls), Arc::clone(&feed.dropped));
            let mut stream = row(&context, feed, works);
            let wakes = Arc::new(Wakes::default());
            if waits {
                let wake = Waker::from(Arc::clone(&wakes));
                let polled = stream.as_mut().poll_next(&mut Context::from_waker(&wake));
                assert_eq!(polled, Poll::Pending, "{name}");
            }
            stop.cancel();
            assert_eq!(wakes.0.load(Ordering::Relaxed), usize::from(waits), "{name}");
            assert_eq!(run_out(&mut stream), [Err(ErrorCode::Canceled)], "{name}");
            assert_eq!(polls.load(Ordering::Relaxed), usize::from(waits), "{name}");
            assert_eq!(dropped.load(Ordering::Relaxed), 1, "{name}");
        }
    }
}

/// The operations that work on items: not those that only gather.
fn working() -> impl Iterator<Item = Row> {
    ROWS.into_iter().filter(|(name, _)| !["collect_all", "lifted"].contains(name))
}

/// What the working rows are fed: the one that taps needs an error.
fn fed(name: &str) -> Feed {
    let act = if name == "tap_err_step" { fault } else { one };
    Feed::new([act as fn() -> _, one])
}

// Rules 3.2, 3.7, 4.1
#[test]
fn an_operation_that_fails_or_panics_is_the_last_and_what_it_registered_is_staged_by_then() {
    fn fails(_: u32, step: StepContext) -> Pin<Box<dyn Future<Output = Item> + Send>> {
        step.register_compensation(|| async {});
        Box::pin(async { Err("no".into()) })
    }
    fn breaks(_: u32, step: StepContext) -> Pin<Box<dyn Future<Output = Item> + Send>> {
        step.register_compensation(|| async {});
        Box::pin(async { panic!("in the poll") })
    }
    fn breaks_in_the_call(_: u32, step: StepContext) -> Pin<Box<dyn Future<Output = Item> + Send>> {
        step.register_compensation(|| async {});
        panic!("in the call")
    }
    let operations: [(Operation, ErrorCode); 3] = [
        (fails, ErrorCode::Handler),
        (breaks, ErrorCode::Panic),
        (breaks_in_the_call, ErrorCode::Panic),
    ];
    for (name, row) in working() {
        for (which, (operation, code)) in operations.into_iter().enumerate() {
            let context = StepContext::new("t");
            let mut stream = row(&context, fed(name), operation);
            let items = run_out(&mut stream);
            match name {
                // Its error is attached to the one it was told of, and the stream goes on.
                "tap_err_step" => assert_eq!(items, [Err(ErrorCode::Source), Ok(1)]),
                // The inner stream of this row fails as a stream does.
                "flat_map_step" if which == 0 => assert_eq!(items, [Err(ErrorCode::Source)]),
                _ => assert_eq!(items, [Err(code)], "{name}, operation {which}"),
            }
            assert_eq!(context.scope().len(), 1, "{name}, operation {which}: staged by now");
            drop(stream);
            assert_eq!(context.scope().clear(), 1, "{name}, operation {which}");
        }
    }
}

static POLLS: AtomicUsize = AtomicUsize::new(0);

fn never_ends(_: u32, step: StepContext) -> Pin<Box<dyn Future<Output = Item> + Send>> {
    step.register_compensation(|| async {});
    Box::pin(std::future::poll_fn(|_| {
        POLLS.fetch_add(1, Ordering::Relaxed);
        Poll::Pending
    }))
}

// Rules 2.1, 3.5, 4.1
#[test]
fn cancellation_during_an_operation_wakes_and_cuts_it_short_without_another_poll() {
    // One that tells of errors is awaited, see below.
    for (name, row) in working().filter(|(name, _)| *name != "tap_err_step") {
        let stop = CancellationSource::new();
        let context = StepContext::new("t").with_cancellation(stop.token());
        let mut stream = row(&context, fed(name), never_ends);
        let wakes = Arc::new(Wakes::default());
        let wake = Waker::from(Arc::clone(&wakes));
        assert_eq!(stream.as_mut().poll_next(&mut Context::from_waker(&wake)), Poll::Pending);
        stop.cancel();
        assert!(wakes.0.load(Ordering::Relaxed) > 0, "{name}");
        let polls = POLLS.load(Ordering::Relaxed);
        assert_eq!(run_out(&mut stream), [Err(ErrorCode::Canceled)], "{name}");
        assert_eq!(POLLS.load(Ordering::Relaxed), polls, "{name}");
        assert_eq!(context.scope().clear(), 1, "{name}");
    }
}

static TOKENS: Mutex<Vec<CancellationToken>> = Mutex::new(Vec::new());

fn keeps_its_token(n: u32, step: StepContext) -> Pin<Box<dyn Future<Output = Item> + Send>> {
    TOKENS.lock().expect("no panic").push(step.cancellation().clone());
    step.register_compensation(|| async {});
    Box::pin(async move {
        yields(1).await;
        Ok(n)
    })
}

// Rules 2.5, 3.5, 4.1
#[test]
fn whoever_works_for_an_item_hears_when_it_is_over_and_when_its_stream_is_dropped() {
    for (name, row) in working() {
        for dropped in [false, true] {
            let context = StepContext::new("t");
            let mut stream = row(&context, fed(name), keeps_its_token);
            assert!(stream.next().now_or_never().is_none(), "{name}");
            let token = TOKENS.lock().expect("no panic").pop().expect("it has begun");
            assert!(!token.is_cancelled(), "{name}: at work");
            if dropped {
                drop(stream);
            } else {
                run_out(&mut stream);
            }
            assert!(token.is_cancelled(), "{name}, dropped: {dropped}");
            assert!(!context.cancellation().is_cancelled(), "{name}: only its own");
            context.scope().clear();
        }
    }
}

// Rule 3.5, P54
#[test]
fn telling_of_an_error_is_not_cut_short_by_a_cancellation_which_comes_after_it() {
    let stop = CancellationSource::new();
    let context = StepContext::new("t").with_cancellation(stop.token());
    let told = Arc::new(Mutex::new(Vec::new()));
    let items = Feed::new([fault as fn() -> _, one]);
    let log = Arc::clone(&told);
    let tapped = items.tap_err_step(&context, move |error, step| {
        let log = Arc::clone(&log);
        async move {
            yields(2).await;
            log.lock().expect("no panic").push((error.code(), step.cancellation().is_cancelled()));
            Ok::<_, BoxError>(())
        }
    });
    let mut tapped = pin!(tapped.map(coded(|n| n)));
    assert!(tapped.next().now_or_never().is_none());
    stop.cancel();
    let rest: Vec<_> = block_on(tapped.collect());
    assert_eq!(rest, [Err(ErrorCode::Source), Err(ErrorCode::Canceled)]);
    let told = told.lock().expect("no panic");
    assert_eq!(*told, [(ErrorCode::Source, true), (ErrorCode::Canceled, true)]);
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in a destructor");
    }
}

// Rules 3.2, 3.7
#[test]
fn panicking_destructors_stay_inside_and_that_of_an_operation_cut_short_is_told() {
    let stop = CancellationSource::new();
    let context = StepContext::new("t").with_cancellation(stop.token());
    let bomb = Bomb;
    let items = stream::repeat_with(move || {
        let _keep = &bomb;
        Ok::<_, BoxError>(1)
    });
    let mapped = items.map_step(&context, |_, _| async {
        let _bomb = Bomb;
        pending::<Item>().await
    });
    let mut mapped = Box::pin(mapped);
    assert!(mapped.next().now_or_never().is_none());
    stop.cancel();
    let error = block_on(mapped.next()).expect("the last").expect_err("cancelled");
    assert_eq!(error.code(), ErrorCode::Canceled);
    let related: Vec<_> = error.related().iter().map(watershed::Error::code).collect();
    assert_eq!(related, [ErrorCode::Panic]);
    assert!(block_on(mapped.next()).is_none());
}

// Rule 2.4
#[test]
fn gathering_an_always_ready_stream_gives_the_thread_back_and_hears_of_the_cancellation() {
    let stop = CancellationSource::new();
    let context = StepContext::new("t").with_cancellation(stop.token());
    let taken = AtomicUsize::new(0);
    let items = stream::repeat_with(|| {
        taken.fetch_add(1, Ordering::Relaxed);
        Ok::<_, BoxError>(7)
    });
    let mut all = Box::pin(items.take(100_000).collect_all(&context));
    for polls in 1..5 {
        assert!(poll_times(&mut all, 1).is_none());
        assert!(taken.load(Ordering::Relaxed) <= 256 * polls);
    }
    stop.cancel();
    let error = poll_times(&mut all, 1).expect("it is over").expect_err("cancelled");
    assert_eq!((error.code(), error.metadata("succeeded")), (ErrorCode::Canceled, Some("1024")));
}

// Rule 2.4
#[test]
fn whoever_gives_the_thread_back_has_woken_itself() {
    fn ready(n: u32, _: StepContext) -> Pin<Box<dyn Future<Output = Item> + Send>> {
        Box::pin(async move { Ok(n) })
    }
    let context = StepContext::new("t");
    let feed = || Feed::new(vec![one as fn() -> _; 2000]);
    let gatherers =
        ROWS.into_iter().filter(|(name, _)| ["for_each_step", "collect_all"].contains(name));
    let mut none: Vec<_> =
        gatherers.map(|(name, row)| (name, row(&context, feed(), ready))).collect();
    none.push((
        "filter_map_step",
        feed()
            .filter_map_step(&context, |_, _| async { Ok::<Option<u32>, BoxError>(None) })
            .map(coded(|n| n))
            .boxed(),
    ));
    none.push((
        "flat_map_step",
        feed().flat_map_step(&context, |_, _| stream::empty::<Item>()).map(coded(|n| n)).boxed(),
    ));
    for (name, mut stream) in none {
        let wakes = Arc::new(Wakes::default());
        let wake = Waker::from(Arc::clone(&wakes));
        let mut given = 0;
        while stream.as_mut().poll_next(&mut Context::from_waker(&wake)).is_pending() {
            given += 1;
            assert_eq!(wakes.0.load(Ordering::Relaxed), given, "{name}");
        }
        assert_eq!(given, 2000 / 256, "{name}");
    }
}

// Rules 3.7, 4.1
#[test]
fn the_step_of_an_inner_stream_ends_with_it_and_a_destructor_that_panics_stays_inside() {
    let context = StepContext::new("t");
    let tokens = Mutex::new(Vec::new());
    let items = stream::iter([Ok::<_, BoxError>(1_u32), Ok(2)]).chain(stream::pending());
    let flat = items.flat_map_step(&context, |n, step| {
        step.register_compensation(|| async {});
        tokens.lock().expect("no panic").push(step.cancellation().clone());
        let bomb = Bomb;
        stream::iter([Ok::<_, BoxError>(n)]).inspect(move |_| {
            let _keep = &bomb;
        })
    });
    let mut flat = Box::pin(flat);
    for n in 1..=2 {
        assert_eq!(block_on(flat.next()).expect("an item").expect("no failure"), n);
        assert!(!tokens.lock().expect("no panic").last().expect("its own").is_cancelled());
    }
    assert!(flat.next().now_or_never().is_none(), "it waits for another");
    assert!(tokens.lock().expect("no panic").iter().all(CancellationToken::is_cancelled));
    assert_eq!(context.scope().clear(), 2);

    let flat = stream::iter([Ok::<_, BoxError>(1)]).flat_map_step(&context, |_, _| {
        let bomb = Bomb;
        stream::iter([Err::<u32, _>("no"), Ok(1)]).inspect(move |_| {
            let _keep = &bomb;
        })
    });
    assert_eq!(block_on(flat.map(coded(|n| n)).collect::<Vec<_>>()), [Err(ErrorCode::Source)]);
}

// P48, P50
#[test]
fn only_the_cancellation_of_its_own_step_makes_a_gathering_cancelled() {
    let of_another = || Err(watershed::Error::new(ErrorCode::Canceled, "stopped inside"));
    for (item, cancels) in [(of_another as fn() -> Result<u32, _>, false), (fails_late, true)] {
        let stop = CancellationSource::new();
        let context = StepContext::new("t").with_cancellation(stop.token());
        let items = stream::iter([Ok(1), item()]).chain(stream::poll_fn(move |_| {
            if cancels {
                stop.cancel();
            }
            Poll::Ready(None)
        }));
        let error = block_on(items.collect_all(&context)).expect_err("one failed");
        assert_eq!((error.code(), error.related().len()), (ErrorCode::Aggregate, 1));
    }
}

fn fails_late() -> Result<u32, watershed::Error> {
    Err(watershed::Error::new(ErrorCode::Handler, "no"))
}

// Rules 3.3, 3.4
#[test]
fn the_deadline_of_an_item_counts_from_its_call_and_passes_at_its_tick() {
    // The call takes so long, then the operation waits so long.
    let cases = [
        (Duration::ZERO, Duration::from_nanos(999_999_999), SECOND, true),
        (Duration::ZERO, SECOND + Duration::from_nanos(1), SECOND, false),
        (SECOND / 2, SECOND, SECOND, false),
        (SECOND / 2, SECOND / 4, SECOND, true),
        (Duration::ZERO, SECOND, Duration::ZERO, false),
        (Duration::ZERO, 1000 * SECOND, Duration::MAX, true),
    ];
    for (call, work, timeout, succeeds) in cases {
        let clock = ManualClock::new();
        let context = StepContext::new("t").with_clock(Arc::new(clock.clone()));
        let run = stream::iter([Ok::<_, BoxError>(1)]).for_each_step(&context, |_, _| {
            clock.advance(call);
            let wakes_at = clock.now() + work;
            let clock = clock.clone();
            async move {
                clock.sleep_until(wakes_at).await;
                Ok::<_, BoxError>(())
            }
        });
        let mut run = run.item_timeout(timeout).into_future().boxed_local();
        let ended = loop {
            if let Some(ended) = (&mut run).now_or_never() {
                break ended;
            }
            assert!(clock.advance_to_next(), "it waits for the clock");
        };
        let case = format!("{call:?}, {work:?}, {timeout:?}");
        assert_eq!(ended.map_err(|error| error.code()).is_ok(), succeeds, "{case}");
    }
}

/// A clock of the user's that breaks as soon as a sleep is asked for.
#[derive(Debug)]
struct BrokenClock;

impl Clock for BrokenClock {
    fn now(&self) -> Tick {
        Tick::ZERO
    }

    fn sleep_until(&self, _: Tick) -> Sleep {
        panic!("the clock broke")
    }
}

async fn waits_once(_: u32, _: StepContext) -> Result<(), BoxError> {
    yields(1).await;
    Ok(())
}

// Rule 3.7
#[test]
fn a_clock_that_panics_ends_the_run_and_what_its_operation_did_is_staged() {
    let context = StepContext::new("t").with_clock(Arc::new(BrokenClock));
    let run = stream::iter([Ok::<_, BoxError>(1), Ok(2)]).for_each_step(&context, |_, step| {
        step.register_compensation(|| async {});
        pending::<Result<(), BoxError>>()
    });
    let mut run = Box::pin(run.item_timeout(SECOND).into_future());
    let error = poll_times(&mut run, 1).expect("it is over").expect_err("the clock broke");
    assert_eq!((error.code(), error.metadata("handled")), (ErrorCode::Panic, Some("0")));
    assert_eq!(context.scope().clear(), 1, "while the run is still there");

    // An item that may take for ever needs no timer, and between two items there is none.
    let run = stream::iter([Ok::<_, BoxError>(1)]).for_each_step(&context, waits_once);
    assert_eq!(block_on(run.item_timeout(Duration::MAX)).expect("no failure"), 1);
    let clock = ManualClock::new();
    let context = StepContext::new("t").with_clock(Arc::new(clock.clone()));
    let items = stream::iter([Ok::<_, BoxError>(1)]).chain(stream::pending());
    let run = items.for_each_step(&context, waits_once);
    let mut run = Box::pin(run.item_timeout(SECOND).into_future());
    assert_eq!((poll_times(&mut run, 1).is_none(), clock.sleepers()), (true, 1));
    assert_eq!((poll_times(&mut run, 1).is_none(), clock.sleepers()), (true, 0));
}
