//! Order by key within a source, concurrency between its keys, and the limits beside each other.

#[macro_use]
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::time::Duration;

use futures::stream;
use support::{Ledger, block_on, filled, left_in, poll_times, rests, yields};
use watershed::{
    BoxError, CancellationSource, ErrorCode, FanIn, ManualClock, OnFailure, Source, StepContext,
    fan_in,
};

const SECOND: Duration = Duration::from_secs(1);

/// What runs at the moment, by key, and the most there ever was.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    now: BTreeMap<u32, usize>,
    most_at_once: usize,
    most_of_a_key: usize,
    ended: Vec<(u32, u32)>,
}

impl Running {
    async fn work(&self, key: u32, number: u32) {
        {
            let mut state = self.0.lock().expect("no panic");
            *state.now.entry(key).or_default() += 1;
            state.most_at_once = state.most_at_once.max(state.now.values().sum());
            state.most_of_a_key = state.most_of_a_key.max(state.now[&key]);
        }
        // Later messages are quicker, so that only the library can keep them in order.
        yields(9 - (number as usize % 9)).await;
        let mut state = self.0.lock().expect("no panic");
        *state.now.entry(key).or_default() -= 1;
        state.ended.push((key, number));
    }

    fn most(&self) -> (usize, usize) {
        let state = self.0.lock().expect("no panic");
        (state.most_at_once, state.most_of_a_key)
    }

    /// The numbers of each key, in the order in which they ended.
    fn ended(&self) -> BTreeMap<u32, Vec<u32>> {
        let mut ended = BTreeMap::<_, Vec<_>>::new();
        for (key, number) in &self.0.lock().expect("no panic").ended {
            ended.entry(*key).or_default().push(*number);
        }
        ended
    }
}

// Rule 2.2
#[test]
fn messages_of_one_key_keep_their_order_while_other_keys_run_beside_them() {
    let (context, running) = (StepContext::new("t"), Running::default());
    let source = stream::iter((0..200_u32).map(|number| (number % 5, number)));
    let drain = fan_in(&context, [source], |(key, number), _| {
        let running = running.clone();
        async move {
            running.work(key, number).await;
            Ok::<_, BoxError>(())
        }
    });
    let drain = drain.concurrency(8).ordered_by(|(key, _)| *key);
    assert_eq!(block_on(drain).expect("no failure").sources()[0].handled(), 200);
    assert_eq!(running.most(), (5, 1), "all keys at once, each one message at a time");
    for (key, numbers) in running.ended() {
        assert!(numbers.iter().copied().eq((0..200).filter(|number| number % 5 == key)));
    }
}

// Rule 2.2
#[test]
fn the_limits_of_the_drain_of_a_source_and_of_a_key_hold_beside_each_other() {
    for (all, per_source, expected) in [(8, 2, 4), (3, 2, 3), (1, 4, 1), (16, 16, 8)] {
        let (context, running) = (StepContext::new("t"), Running::default());
        let source = |first: u32| stream::iter((0..80_u32).map(move |n| (first + n % 4, n)));
        let drain = fan_in(&context, [source(0), source(10)], |(key, number), _| {
            let running = running.clone();
            async move {
                running.work(key, number).await;
                Ok::<_, BoxError>(())
            }
        });
        let drain = drain.concurrency(all).per_source_concurrency(per_source);
        let report = block_on(drain.ordered_by(|(key, _)| *key)).expect("no failure");
        assert_eq!(report.sources().len(), 2);
        assert_eq!((report.handled(), running.most()), (160, (expected, 1)), "{all}, {per_source}");
    }
}

// Rule 2.2
#[test]
fn a_busy_key_lets_the_handlers_of_its_source_wait_and_not_those_of_others() {
    let context = StepContext::new("t");
    let (gate, opened) = async_channel::bounded::<()>(1);
    let log = Arc::new(Mutex::new(Vec::new()));
    let sources = [filled([1, 1, 2]), filled([7, 8])];
    let drain = fan_in(&context, sources.clone(), |message: u32, _| {
        let (opened, log) = (opened.clone(), Arc::clone(&log));
        async move {
            if message == 1 {
                let _ = opened.recv().await;
            }
            log.lock().expect("no panic").push(message);
            Ok::<_, BoxError>(())
        }
    });
    let mut drain = drain.concurrency(8).ordered_by(|number| *number).into_future();
    assert!(poll_times(&mut drain, 5).is_none());
    assert_eq!(*log.lock().expect("no panic"), [7, 8]);
    assert_eq!(left_in(&sources[0]), [2], "nothing is taken past the message that waits");
    gate.close();
    assert_eq!(block_on(drain).expect("no failure").handled(), 4);
}

// Rules 2.1, 4.1
#[test]
fn dropping_the_drain_after_any_poll_puts_back_what_waits_for_its_key() {
    for k in 0.. {
        let context = StepContext::new("t");
        let source = filled([11, 12, 21, 13, 22, 14]);
        let (unhandled, waiting) = mpsc::channel();
        let started = Mutex::new(Vec::new());
        let drain = fan_in(&context, [source.clone()], |message: u32, _| {
            started.lock().expect("no panic").push(message);
            async {
                rests(2).await;
                Ok::<_, BoxError>(())
            }
        });
        let drain = drain.concurrency(3).ordered_by(|message| message / 10);
        let drain =
            drain.put_back(move |_, message| unhandled.send(message).expect("somebody listens"));
        let mut drain = drain.into_future();
        let ended = poll_times(&mut drain, k).is_some();
        drop(drain);
        let mut all = started.into_inner().expect("no panic");
        all.extend(waiting.try_iter());
        all.extend(left_in(&source));
        assert_eq!(all, [11, 12, 21, 13, 22, 14], "poll {k}: in the order of the source");
        if ended {
            assert!(k > 4);
            break;
        }
    }
}

// Rules 2.1, 3.2
#[test]
fn a_failure_puts_back_what_waits_for_its_key() {
    let context = StepContext::new("t");
    let source = filled([1, 1, 2]);
    let (unhandled, waiting) = mpsc::channel();
    let drain = fan_in(&context, [source.clone()], |_: u32, _| async {
        yields(1).await;
        Err::<(), _>("no")
    });
    let drain = drain.concurrency(4).ordered_by(|number| *number);
    let error = block_on(
        drain.put_back(move |_, message| unhandled.send(message).expect("somebody listens")),
    );
    let error = error.expect_err("it fails").into_error();
    assert_eq!((error.code(), error.message_number()), (ErrorCode::Handler, Some(1)));
    assert_eq!((waiting.try_recv(), left_in(&source)), (Ok(1), vec![2]));
}

// Rule 3.2
#[test]
fn errors_carry_the_number_of_the_message_in_its_source_whichever_handle_took_it() {
    let context = StepContext::new("t");
    let drain =
        fan_in(&context, [stream::iter(0..50_u32).named("numbers")], |number, _| async move {
            yields(number as usize % 4).await;
            if number == 36 { Err("no") } else { Ok(()) }
        });
    let drain = drain.concurrency(7).ordered_by(|number| *number);
    let error = block_on(drain).expect_err("it fails").into_error();
    assert_eq!((error.source_name(), error.message_number()), (Some("numbers"), Some(37)));
}

// Rules 3.2, 3.7
#[test]
fn a_fault_and_a_panic_of_the_key_end_the_drain() {
    let context = StepContext::new("t");
    let faulty = stream::iter([Ok(1), Err("connection lost"), Ok(2)]).faults();
    let drain = fan_in(&context, [faulty], |_: u32, _| async { Ok::<_, BoxError>(()) });
    let error = block_on(drain.ordered_by(|number| *number)).expect_err("a fault").into_error();
    assert_eq!(error.code(), ErrorCode::Source);

    let drain = fan_in(&context, [filled([1, 2])], |_: u32, _| async { Ok::<_, BoxError>(()) });
    let drain = drain.ordered_by(|number| {
        assert!(*number < 2, "no key");
        *number
    });
    assert_eq!(block_on(drain).expect_err("a panic").error().code(), ErrorCode::Panic);
}

// Rule 2.2
#[test]
fn idle_handles_are_woken_one_by_one_as_messages_arrive() {
    let (context, running) = (StepContext::new("t"), Running::default());
    let (sender, receiver) = async_channel::unbounded();
    let (gate, opened) = async_channel::bounded::<()>(1);
    let drain = fan_in(&context, [receiver], |number: u32, _| {
        let (running, opened) = (running.clone(), opened.clone());
        async move {
            running.0.lock().expect("no panic").ended.push((0, number));
            let _ = opened.recv().await;
            Ok::<_, BoxError>(())
        }
    });
    let drain = drain.concurrency(4).ordered_by(|number| *number);
    let mut drain = drain.into_future();
    assert!(poll_times(&mut drain, 1).is_none());
    for number in 0..4 {
        sender.try_send(number).expect("the channel is open");
        assert!(poll_times(&mut drain, 1).is_none());
        assert_eq!(running.ended()[&0].len(), number as usize + 1, "each at once");
    }
    gate.close();
    sender.close();
    assert_eq!(block_on(drain).expect("no failure").handled(), 4);
}

// Rule 3.7
#[test]
fn a_message_whose_key_panics_has_failed_and_ends_the_drain() {
    /// A key whose comparison panics for one value.
    #[derive(Clone, PartialEq, Eq)]
    struct Picky(u32);
    impl std::hash::Hash for Picky {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            assert_ne!(self.0, 14, "no hash");
            self.0.hash(state);
        }
    }
    for bad in [13, 14] {
        let (context, source) = (StepContext::new("t"), filled([11, bad, 15]));
        let (unhandled, left) = mpsc::channel();
        let drain = fan_in(&context, [source.clone()], |_: u32, _| async {
            yields(2).await;
            Ok::<_, BoxError>(())
        });
        let drain = drain.concurrency(4).ordered_by(|number| {
            assert_ne!(*number, 13, "no key");
            Picky(*number)
        });
        let drain = drain.put_back(move |_, message| {
            unhandled.send(message).expect("somebody listens");
            panic!("this goes no further");
        });
        let (error, report) = block_on(drain).expect_err("a panic").into_parts();
        assert_eq!((error.code(), error.metadata("handled")), (ErrorCode::Panic, Some("1")));
        assert_eq!((error.message_number(), report.handled(), report.failed()), (Some(2), 1, 1));
        assert!(error.to_string().contains("no "), "the first panic is the cause: {error}");
        assert!(error.related().is_empty(), "{error:?}");
        assert_eq!((left.try_iter().collect::<Vec<_>>(), left_in(&source)), (vec![], vec![15]));
    }
}

// Rules 2.1, 3.3, 3.5, 3.7
#[test]
fn however_an_ordered_drain_ends_what_waits_for_its_key_is_put_back() {
    // Cancelled or timed out, before the first poll or while two handlers run and one waits.
    for cancels in [true, false] {
        for during in [false, true] {
            let (clock, stop) = (ManualClock::new(), CancellationSource::new());
            let context = StepContext::new("t").with_clock(Arc::new(clock.clone()));
            let source = filled([11, 21, 12, 31]);
            let (unhandled, left) = mpsc::channel();
            let drain =
                fan_in(&context, [source.clone()], |_: u32, step: StepContext| async move {
                    step.cancellation().cancelled().await;
                    Ok::<_, BoxError>(())
                });
            let timeout = if cancels { Duration::MAX } else { SECOND * u32::from(during) };
            let drain = drain.concurrency(4).timeout(timeout).cancellation(stop.token());
            let drain = drain.ordered_by(|number| number / 10);
            let mut drain = drain
                .put_back(move |_, message| unhandled.send(message).expect("somebody listens"))
                .into_future();
            if during {
                assert!(poll_times(&mut drain, 3).is_none());
            }
            match (cancels, during) {
                (true, _) => stop.cancel(),
                (false, true) => clock.advance(SECOND),
                (false, false) => {}
            }
            let error = poll_times(&mut drain, 3)
                .expect("it is over")
                .expect_err("it is stopped")
                .into_error();
            let code = if cancels { ErrorCode::Canceled } else { ErrorCode::Timeout };
            let handled = if during { "2" } else { "0" };
            assert_eq!((error.code(), error.metadata("handled")), (code, Some(handled)));
            let left: Vec<_> = left.try_iter().collect();
            let expected =
                if during { (vec![12], vec![31]) } else { (vec![], vec![11, 21, 12, 31]) };
            assert_eq!((left, left_in(&source)), expected, "{code}");
        }
    }
}

// Rules 3.2, 3.4, 3.7
#[test]
fn a_handler_that_panics_or_is_late_puts_back_what_waits_for_its_key() {
    for late in [false, true] {
        let clock = ManualClock::new();
        let context = StepContext::new("t").with_clock(Arc::new(clock.clone()));
        let source = filled([1, 1, 2]);
        let (unhandled, left) = mpsc::channel();
        let drain = fan_in(&context, [source.clone()], |_: u32, _| async move {
            yields(1).await;
            assert!(late, "the handler broke");
            futures::future::pending::<Result<(), BoxError>>().await
        });
        let drain = drain.concurrency(2).message_timeout(SECOND).ordered_by(|n| *n);
        let mut drain = drain
            .put_back(move |_, message| unhandled.send(message).expect("somebody listens"))
            .into_future();
        let ended = poll_times(&mut drain, 3).unwrap_or_else(|| {
            clock.advance(SECOND);
            poll_times(&mut drain, 3).expect("it is over")
        });
        let code = if late { ErrorCode::Timeout } else { ErrorCode::Panic };
        assert_eq!(ended.expect_err("it fails").error().code(), code);
        assert_eq!((left.try_iter().collect::<Vec<_>>(), left_in(&source)), (vec![1], vec![2]));
    }
}

// Rules 2.2, 3.8
#[test]
fn a_key_is_busy_until_its_failed_message_is_rolled_back() {
    let (context, ledger) = (StepContext::new("t"), Ledger::default());
    let log = Mutex::new(Vec::new());
    let drain = fan_in(&context, [filled([11, 12, 21])], |message: u32, step| {
        log.lock().expect("no panic").push((message, ledger.undone().len()));
        ledger.apply_slowly(&step, message);
        async move { if message == 11 { Err("no") } else { Ok(()) } }
    });
    let drain = drain.concurrency(3).on_failure(OnFailure::Continue);
    let report = block_on(drain.ordered_by(|number| number / 10)).expect("it goes on");
    assert_eq!((report.handled(), report.failed()), (2, 1));
    let log = log.into_inner().expect("no panic");
    assert_eq!(log.iter().find(|(message, _)| *message == 12), Some(&(12, 1)), "undone before");
}

// Rules 2.6, 3.1
#[test]
fn empty_ordered_sources_are_a_success_and_are_polled_to_their_end_once() {
    let context = StepContext::new("t");
    let polls = Arc::new(AtomicUsize::new(0));
    let sources = [0, 1].map(|_| {
        let polls = Arc::clone(&polls);
        stream::poll_fn(move |_| {
            polls.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(None::<u32>)
        })
    });
    let drain = fan_in(&context, sources, |_, _| async { Ok::<_, BoxError>(()) });
    let report = block_on(drain.concurrency(5).ordered_by(|number| *number));
    assert_eq!(report.expect("no failure").handled(), 0);
    assert_eq!(polls.load(Ordering::Relaxed), 2, "five handles, and none asks after the end");
    let none: [stream::Empty<u32>; 0] = [];
    let drain = fan_in(&context, none, |_, _| async { Ok::<_, BoxError>(()) });
    assert_eq!(block_on(drain.ordered_by(|number| *number)).expect("no failure").handled(), 0);
}

/// The longest run of messages of one source while the other has more, and the shares at a time
/// when both have.
fn turns_of(handled: &[u32]) -> (usize, usize) {
    let both =
        handled.iter().rposition(|n| *n < 1000).min(handled.iter().rposition(|n| *n >= 1000));
    let handled = &handled[..=both.expect("both were handled")];
    let runs = handled.chunk_by(|a, b| (*a < 1000) == (*b < 1000));
    (runs.map(<[_]>::len).max().unwrap_or(0), handled.iter().filter(|n| **n < 1000).count())
}

// Rule 2.3
#[test]
fn the_handles_of_a_source_share_its_turn_its_weight_and_its_priority() {
    for (quantum, handles, weight) in [(8, 4, 1), (64, 8, 1), (6, 3, 2), (1, 4, 1), (2, 1, 3)] {
        let context = StepContext::new("t");
        let handled = Mutex::new(Vec::new());
        let sources = [filled(0..900).weighted(weight), filled(1000..1900).weighted(1)];
        let drain = fan_in(&context, sources, |number: u32, _| {
            handled.lock().expect("no panic").push(number);
            async { Ok::<_, BoxError>(()) }
        });
        let drain = drain.concurrency(16).per_source_concurrency(handles);
        let drain = drain.quantum(quantum).ordered_by(|number| *number);
        assert_eq!(block_on(drain).expect("no failure").handled(), 1800);
        let handled = handled.into_inner().expect("no panic");
        let (longest, first) = turns_of(&handled);
        let case = format!("quantum {quantum}, {handles} handles, weight {weight}");
        let weight = weight as usize;
        // Each handle has one message at least.
        assert!(longest <= (quantum * weight).max(handles), "{case}: {longest} in one turn");
        if quantum >= handles {
            let second = 900 / weight;
            assert!(first == 900 || first.abs_diff(900) <= 2 * quantum * weight, "{case}: {first}");
            let others = handled.iter().take_while(|n| **n != 899).filter(|n| **n >= 1000).count();
            assert!(others.abs_diff(second) <= 2 * quantum * weight, "{case}: {others}");
        }
    }
    let context = StepContext::new("t");
    let handled = Mutex::new(Vec::new());
    let sources = [filled(0..50).prioritized(2), filled(1000..1050).prioritized(1)];
    let drain = fan_in(&context, sources, |number: u32, _| {
        handled.lock().expect("no panic").push(number);
        async { Ok::<_, BoxError>(()) }
    });
    block_on(drain.quantum(4).ordered_by(|number| *number)).expect("no failure");
    let handled = handled.into_inner().expect("no panic");
    let urgent = handled.iter().rposition(|n| *n >= 1000).expect("they were handled");
    let others = handled[..urgent].iter().filter(|n| **n < 1000).count();
    assert!(others < 25, "{others} before the last urgent one");
}

// Rule 6.2
#[test]
fn a_limit_without_end_is_as_good_as_any_other() {
    for per_source in [None, Some(usize::MAX)] {
        let context = StepContext::new("t");
        let (gate, opened) = async_channel::bounded::<()>(1);
        let started = AtomicUsize::new(0);
        let drain = fan_in(&context, [filled(0..100_u32)], |_, _| {
            started.fetch_add(1, Ordering::Relaxed);
            let opened = opened.clone();
            async move {
                let _ = opened.recv().await;
                Ok::<_, BoxError>(())
            }
        });
        let drain = drain.concurrency(usize::MAX);
        let drain = match per_source {
            Some(most) => drain.per_source_concurrency(most),
            None => drain,
        };
        let mut drain = drain.ordered_by(|number| *number).into_future();
        assert!(poll_times(&mut drain, 3).is_none());
        assert_eq!(started.load(Ordering::Relaxed), 100, "all at once");
        gate.close();
        assert_eq!(block_on(drain).expect("no failure").handled(), 100);
    }
}

// Rules 2.2, 5.2
async fn keys_run_beside_each_other() {
    fn keyed<S: Source, H>(drain: FanIn<S, H>) -> FanIn<S, H> {
        drain.concurrency(6)
    }
    let (context, running) = (StepContext::new("suite"), Running::default());
    let source = stream::iter((0..90_u32).map(|number| (number % 3, number)));
    let drain = fan_in(&context, [source], |(key, number), _| {
        let running = running.clone();
        async move {
            running.work(key, number).await;
            Ok::<_, BoxError>(())
        }
    });
    let report = keyed(drain).ordered_by(|(key, _)| *key).await.expect("no failure");
    assert_eq!((report.handled(), running.most()), (90, (3, 1)));
}

on_every_executor! { keys_run_beside_each_other }
