//! Order by key within a source, concurrency between its keys, and the limits beside each other.

#[macro_use]
mod support;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, mpsc};

use futures::stream;
use support::{block_on, filled, left_in, poll_times, yields};
use watershed::{BoxError, ErrorCode, FanIn, Source, StepContext, fan_in};

fn at_most(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("not zero")
}

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
    let drain = drain.concurrency(at_most(8)).ordered_by(|(key, _)| *key);
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
        let drain = drain.concurrency(at_most(all)).per_source_concurrency(at_most(per_source));
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
    let mut drain = drain.concurrency(at_most(8)).ordered_by(|number| *number).into_future();
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
                yields(2).await;
                Ok::<_, BoxError>(())
            }
        });
        let drain = drain.concurrency(at_most(3)).ordered_by(|message| message / 10);
        let drain =
            drain.put_back(move |message| unhandled.send(message).expect("somebody listens"));
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
    let drain = drain.concurrency(at_most(4)).ordered_by(|number| *number);
    let error =
        block_on(drain.put_back(move |message| unhandled.send(message).expect("somebody listens")));
    let error = error.expect_err("it fails");
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
    let drain = drain.concurrency(at_most(7)).ordered_by(|number| *number);
    let error = block_on(drain).expect_err("it fails");
    assert_eq!((error.source_name(), error.message_number()), (Some("numbers"), Some(37)));
}

// Rules 3.2, 3.7
#[test]
fn a_fault_and_a_panic_of_the_key_end_the_drain() {
    let context = StepContext::new("t");
    let faulty = stream::iter([Ok(1), Err("connection lost"), Ok(2)]).faults();
    let drain = fan_in(&context, [faulty], |_: u32, _| async { Ok::<_, BoxError>(()) });
    let error = block_on(drain.ordered_by(|number| *number)).expect_err("a fault");
    assert_eq!(error.code(), ErrorCode::Source);

    let drain = fan_in(&context, [filled([1, 2])], |_: u32, _| async { Ok::<_, BoxError>(()) });
    let drain = drain.ordered_by(|number| {
        assert!(*number < 2, "no key");
        *number
    });
    assert_eq!(block_on(drain).expect_err("a panic").code(), ErrorCode::Panic);
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
    let drain = drain.concurrency(at_most(4)).ordered_by(|number| *number);
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

// Rules 2.2, 5.2
async fn keys_run_beside_each_other() {
    fn keyed<S, H>(drain: FanIn<S, H>) -> FanIn<S, H> {
        drain.concurrency(NonZeroUsize::new(6).expect("not zero"))
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
