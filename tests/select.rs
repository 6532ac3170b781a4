//! `channels::select`: one winner a run, and nothing taken from the others.

#[macro_use]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{pending, ready};
use futures::{FutureExt, StreamExt, stream};
use support::{Ledger, block_on, filled, left_in, poll_times, roll_back, yields};
use watershed::channels::Select;
use watershed::{
    BoxError, CancellationSource, Clock, Compensated, Error, ErrorCode, ManualClock, Sleep, Source,
    StepContext, Tick,
};

const SECOND: Duration = Duration::from_secs(1);

fn context(clock: &ManualClock) -> StepContext {
    StepContext::new("t").with_clock(Arc::new(clock.clone()))
}

// P5
#[test]
fn cases_over_streams_of_different_types_give_one_type_of_result() {
    let context = StepContext::new("t");
    let mut select = Select::new(&context)
        .case(filled([1]), |number: u32, _| async move { Ok::<_, BoxError>(number.to_string()) })
        .case(filled(["a"]), |text, _| async move { Ok::<_, std::fmt::Error>(text.to_owned()) })
        .pass(filled([String::from("as it is")]));
    let mut results: Vec<_> =
        (0..3).map(|_| block_on(select.run()).expect("one is ready")).collect();
    results.sort_unstable();
    assert_eq!(results, ["1", "a", "as it is"]);
}

// P1
#[test]
fn what_the_winning_continuation_registers_is_staged_on_the_context() {
    let (context, ledger) = (StepContext::new("t"), Ledger::default());
    let mut select = Select::new(&context).case(filled([1, 2]), |effect, step| {
        let ledger = ledger.clone();
        async move {
            ledger.apply(&step, effect);
            yields(1).await;
            ledger.apply(&step, 10 * effect);
            if effect == 2 { Err("no") } else { Ok(()) }
        }
    });
    block_on(select.run()).expect("the first succeeds");
    let error = block_on(select.run()).expect_err("the second fails");
    assert_eq!((error.code(), error.source_name()), (ErrorCode::Handler, Some("source 0")));
    assert_eq!(roll_back(context.scope()), 4);
    ledger.assert_undone_in_reverse();
}

// P41, rule 2.1
#[test]
fn a_ready_message_is_taken_at_once_and_none_from_a_losing_case() {
    let context = StepContext::new("t");
    let sources = [filled([1, 2]), filled([3]), filled([4])];
    let [a, b, c] = sources.clone();
    let mut select = Select::new(&context).pass(a).pass(b).pass(c);
    let first = select.run().now_or_never().expect("at once").expect("no failure");
    let left: usize = sources.iter().map(async_channel::Receiver::len).sum();
    assert_eq!(left, 3, "only message {first} was taken");
}

// P42, PARITY 3.17
#[test]
fn the_lowest_priority_wins_and_equal_ones_take_turns_within_a_bound() {
    let context = StepContext::new("t");
    let mut select = Select::new(&context)
        .pass(stream::repeat(1))
        .pass(stream::repeat(2))
        .case(
            filled([70, 71]).prioritized(7),
            |message, _| async move { Ok::<_, BoxError>(message) },
        )
        .pass(stream::repeat(3))
        .case(stream::repeat(9).prioritized(200), |message, _| async move {
            Ok::<_, BoxError>(message)
        });
    let results: Vec<_> = (0..302).map(|_| block_on(select.run()).expect("one is ready")).collect();
    assert_eq!(results[..2], [70, 71]);
    for source in 1..=3 {
        let positions: Vec<_> = (2..302).filter(|at| results[*at] == source).collect();
        assert_eq!(positions.len(), 100);
        assert!(positions.windows(2).all(|pair| pair[1] - pair[0] <= 3), "it waits for 3 runs");
    }
}

// P44
#[test]
fn cases_that_have_ended_are_not_asked_again_and_when_all_have_the_select_is_drained() {
    let context = StepContext::new("t");
    let asked = AtomicUsize::new(0);
    let once = stream::poll_fn(|_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Poll::Ready(Some(1)),
        1 => Poll::Ready(None),
        _ => panic!("it had ended"),
    });
    let mut select = Select::new(&context).pass(once).pass(filled([2, 3, 4]));
    let mut results: Vec<_> =
        (0..4).map(|_| block_on(select.run()).expect("there is more")).collect();
    results.sort_unstable();
    assert_eq!(results, [1, 2, 3, 4]);
    for _ in 0..2 {
        let error = block_on(select.run()).expect_err("all have ended");
        assert_eq!(error.code(), ErrorCode::SelectDrained);
    }
}

// P44
#[test]
fn a_select_without_cases_is_drained() {
    let context = StepContext::new("t");
    let error = block_on(Select::<()>::new(&context).run()).expect_err("nothing can come");
    assert_eq!(error.code(), ErrorCode::SelectDrained);
}

// P43
#[test]
fn the_default_runs_when_nothing_is_ready_and_its_failure_is_that_of_the_run() {
    let context = StepContext::new("t");
    let (sender, receiver) = async_channel::unbounded();
    let mut round = 0;
    let mut select = Select::new(&context).pass(receiver).default(|step| {
        step.register_compensation(|| async {});
        round += 1;
        assert!(round != 3, "in the call");
        let now = round;
        async move {
            assert!(now != 4, "in the poll");
            if now == 2 { Err("no") } else { Ok(0) }
        }
    });
    assert_eq!(block_on(select.run()).expect("the default"), 0);
    assert_eq!(block_on(select.run()).expect_err("the default").code(), ErrorCode::Handler);
    for _ in 0..2 {
        assert_eq!(block_on(select.run()).expect_err("it panics").code(), ErrorCode::Panic);
    }
    sender.try_send(7).expect("the channel is open");
    assert_eq!(block_on(select.run()).expect("a message goes first"), 7);
    drop(select);
    assert_eq!(context.scope().clear(), 4);
}

// Rule 3.3
#[test]
fn a_timeout_of_zero_takes_nothing_and_one_without_end_sets_no_timer() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let source = filled([1]);
    let mut zero = Select::new(&context).pass(source.clone()).timeout(Duration::ZERO);
    let error = block_on(zero.run()).expect_err("no time");
    assert_eq!((error.code(), error.metadata("duration")), (ErrorCode::Timeout, Some("0ns")));
    assert_eq!(source.len(), 1);
    let mut endless = Select::new(&context).pass(stream::pending::<()>()).timeout(Duration::MAX);
    assert!(endless.run().now_or_never().is_none());
    assert_eq!(clock.sleepers(), 0);
}

// Rule 3.3
#[test]
fn the_timeout_counts_for_each_run_from_its_first_poll() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let (sender, receiver) = async_channel::unbounded();
    let mut select = Select::new(&context).pass(receiver).timeout(SECOND);
    for _ in 0..3 {
        let mut run = select.run();
        assert!(poll_times(&mut run, 2).is_none());
        clock.advance(SECOND);
        let error = poll_times(&mut run, 1).expect("it is over").expect_err("it timed out");
        assert_eq!(error.code(), ErrorCode::Timeout);
    }
    sender.try_send(1).expect("the channel is open");
    assert_eq!(block_on(select.run()).expect("in time"), 1);
}

// Rules 3.2, 3.3, 3.6
#[test]
fn a_continuation_that_is_late_is_told_and_awaited_and_dropped_when_the_grace_ends() {
    for heeds in [true, false] {
        let clock = ManualClock::new();
        let (context, ledger) = (context(&clock), Ledger::default());
        let mut select = Select::new(&context).case(filled([1]), |effect, step: StepContext| {
            let ledger = ledger.clone();
            async move {
                ledger.apply(&step, effect);
                step.cancellation().cancelled().await;
                ledger.apply(&step, 10 * effect);
                if !heeds {
                    pending::<()>().await;
                }
                Err::<(), _>("stopped half way")
            }
        });
        select = select.timeout(SECOND).grace(SECOND);
        let mut run = select.run();
        assert!(poll_times(&mut run, 2).is_none());
        clock.advance(SECOND);
        let error = if heeds {
            poll_times(&mut run, 1).expect("it stopped").expect_err("it timed out")
        } else {
            assert!(poll_times(&mut run, 2).is_none(), "there is grace");
            clock.advance(SECOND);
            poll_times(&mut run, 1).expect("no grace is left").expect_err("it timed out")
        };
        assert_eq!(error.code(), ErrorCode::Timeout);
        assert_eq!(error.related().len(), usize::from(heeds));
        assert_eq!(error.metadata("dropped_handlers"), (!heeds).then_some("1"));
        assert_eq!(roll_back(context.scope()), 2);
        ledger.assert_undone_in_reverse();
    }
}

// Rule 3.5
#[test]
fn a_cancelled_select_takes_nothing_and_one_that_waits_ends_by_either_token() {
    for by_context in [true, false] {
        let (of_context, of_call) = (CancellationSource::new(), CancellationSource::new());
        let context = StepContext::new("t").with_cancellation(of_context.token());
        let (sender, receiver) = async_channel::unbounded();
        let mut select = Select::new(&context).pass(receiver.clone()).cancellation(of_call.token());
        let mut run = select.run();
        assert!(poll_times(&mut run, 2).is_none());
        if by_context {
            of_context.cancel();
        } else {
            of_call.cancel();
        }
        let error = poll_times(&mut run, 1).expect("it is over").expect_err("cancelled");
        assert_eq!(error.code(), ErrorCode::Canceled);
        drop(run);
        sender.try_send(1).expect("the channel is open");
        let error = block_on(select.run()).expect_err("cancelled before");
        assert_eq!((error.code(), left_in(&receiver)), (ErrorCode::Canceled, vec![1]));
    }
}

// Rules 3.2, 3.7
#[test]
fn faults_and_panics_are_errors_that_name_their_source_and_the_select_goes_on() {
    let context = StepContext::new("t");
    let mut polls = 0;
    let panicking = stream::poll_fn(move |_| {
        polls += 1;
        assert!(polls > 1, "no connection");
        Poll::Ready(None::<u32>)
    });
    let faulty = stream::iter([Err("connection lost"), Ok(5)]).faults().named("faulty");
    let mut select = Select::new(&context).pass(panicking.named("panicking")).pass(faulty).case(
        filled([1, 2]).named("numbers"),
        |number, _| {
            assert!(number > 1, "in the call");
            async move { Ok::<_, BoxError>(number) }
        },
    );
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(match block_on(select.run()) {
            Ok(number) => number.to_string(),
            Err(error) => format!("{} {}", error.code(), error.source_name().unwrap_or("-")),
        });
    }
    seen.sort_unstable();
    let expected =
        ["2", "5", "error.panic numbers", "error.panic panicking", "error.source faulty"];
    assert_eq!(seen, expected);
}

// Rules 2.1, 4.1
#[test]
fn dropping_a_run_after_any_poll_loses_no_message_and_no_compensation() {
    for k in 0.. {
        let (context, ledger) = (StepContext::new("t"), Ledger::default());
        let sources = [filled([1, 2]), filled([3])];
        let started = Arc::new(std::sync::Mutex::new(Vec::new()));
        let handler = |effect: u32, step: StepContext| {
            started.lock().expect("no panic").push(effect);
            let ledger = ledger.clone();
            async move {
                ledger.apply(&step, effect);
                yields(2).await;
                ledger.apply(&step, 10 * effect);
                Ok::<_, BoxError>(())
            }
        };
        let [a, b] = sources.clone();
        let late = stream::once(yields(1)).filter_map(|()| async { None::<u32> });
        let mut select =
            Select::new(&context).case(late, handler).case(a, handler).case(b, handler);
        let mut run = select.run();
        let ended = poll_times(&mut run, k).is_some();
        drop(run);
        let mut all = started.lock().expect("no panic").clone();
        all.extend(sources.iter().flat_map(left_in));
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3], "poll {k}");
        assert_eq!(roll_back(context.scope()), ledger.done().len());
        ledger.assert_undone_in_reverse();
        if ended {
            assert!(k > 2);
            break;
        }
        let error = block_on(select.run()).expect_err("it can be run again, and all is taken");
        assert_eq!(error.code(), ErrorCode::SelectDrained);
        context.scope().clear();
    }
}

// PARITY 3.17, rule 2.3
#[test]
fn cases_of_one_priority_keep_their_turns_when_another_priority_wins_in_between() {
    let context = StepContext::new("t");
    let (urgent, from_urgent) = async_channel::unbounded();
    let mut select = Select::new(&context)
        .pass(stream::repeat(1))
        .pass(stream::repeat(2))
        .pass(stream::pending())
        .case(from_urgent.prioritized(0), |message, _| async move { Ok::<_, BoxError>(message) });
    let mut waited = [0; 3];
    for run in 0..300 {
        if run % 3 != 0 {
            urgent.try_send(0).expect("the channel is open");
        }
        let won = block_on(select.run()).expect("one is ready");
        if won > 0 {
            waited[won] = 0;
            waited[3 - won] += 1;
            assert!(waited[3 - won] <= 1, "case {} waits in run {run}", 3 - won);
        }
    }
}

// PARITY 3.17, rule 2.3
#[test]
fn a_case_that_always_faults_leaves_its_equals_their_turns() {
    let context = StepContext::new("t");
    let broken = stream::repeat_with(|| Err::<u32, _>("connection lost")).faults();
    let mut select = Select::new(&context).pass(broken).pass(stream::repeat(1));
    let faults = (0..100).filter(|_| block_on(select.run()).is_err()).count();
    assert_eq!(faults, 50);
}

/// Says when it is dropped.
struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

// Rule 2.6
#[test]
fn a_source_that_has_ended_or_panicked_is_dropped_at_once_and_never_polled_again() {
    let (context, dropped) = (StepContext::new("t"), Arc::new(AtomicUsize::new(0)));
    let (ends, panics) = (Guard(Arc::clone(&dropped)), Guard(Arc::clone(&dropped)));
    let ends = stream::poll_fn(move |_| {
        let _keep = &ends;
        Poll::Ready(None)
    });
    let panics = stream::poll_fn(move |_| -> Poll<Option<u32>> {
        let _keep = &panics;
        panic!("no connection")
    });
    let mut select = Select::new(&context).pass(ends).pass(panics).pass(filled([1]));
    let error = block_on(select.run()).expect_err("the second panics");
    assert_eq!((error.code(), error.source_name()), (ErrorCode::Panic, Some("source 1")));
    assert_eq!(dropped.load(Ordering::Relaxed), 2);
    assert_eq!(block_on(select.run()).expect("the third is ready"), 1);
    assert_eq!(
        block_on(select.run()).expect_err("all have ended").code(),
        ErrorCode::SelectDrained
    );
}

// Rule 2.4
#[test]
fn a_loop_over_cases_that_are_always_ready_hands_the_thread_back() {
    for by_default in [false, true] {
        let context = StepContext::new("t");
        let runs = AtomicUsize::new(0);
        let mut select = Select::new(&context);
        select = if by_default {
            select.pass(stream::pending()).default(|_| async { Ok::<_, BoxError>(7) })
        } else {
            select.pass(stream::repeat(7))
        };
        let mut forever = Box::pin(async {
            while runs.fetch_add(1, Ordering::Relaxed) < 100_000 {
                select.run().await.expect("one is ready");
            }
        });
        for polls in 1..20 {
            assert!(poll_times(&mut forever, 1).is_none());
            let runs = runs.load(Ordering::Relaxed);
            assert!((polls..=polls * 300).contains(&runs), "{runs} runs in {polls} polls");
        }
    }
}

// PARITY 3.9
#[test]
fn a_wake_up_polls_its_own_case_and_no_idle_one() {
    let context = StepContext::new("t");
    let polls = Arc::new(AtomicUsize::new(0));
    let (sender, receiver) = async_channel::unbounded();
    let mut select = Select::new(&context);
    for _ in 0..500 {
        let polls = Arc::clone(&polls);
        select = select.pass(stream::poll_fn(move |_| {
            polls.fetch_add(1, Ordering::Relaxed);
            Poll::Pending
        }));
    }
    let mut select = select.pass(receiver);
    for message in 0..100 {
        let mut run = select.run();
        assert!(poll_times(&mut run, 3).is_none());
        sender.try_send(message).expect("the channel is open");
        assert_eq!(poll_times(&mut run, 1).expect("it is ready").expect("no failure"), message);
    }
    assert_eq!(polls.load(Ordering::Relaxed), 500, "each was asked once");
}

// Rule 3.5
#[test]
fn whoever_kept_the_step_of_a_run_that_is_dropped_sees_it_cancelled() {
    let context = StepContext::new("t");
    let kept = Arc::new(std::sync::Mutex::new(None));
    let mut select = Select::new(&context).case(filled([1]), |_, step: StepContext| {
        *kept.lock().expect("no panic") = Some(step);
        pending::<Result<(), BoxError>>()
    });
    let mut run = select.run();
    assert!(poll_times(&mut run, 1).is_none());
    drop(run);
    let step = kept.lock().expect("no panic").take().expect("it was called");
    assert!(step.cancellation().is_cancelled());
    step.register_compensation(|| async {});
    assert_eq!(context.scope().clear(), 1, "what comes late is staged on the context");
}

/// Panics when it is dropped.
#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("bomb");
    }
}

// Rules 3.3, 3.7
#[test]
fn a_result_that_comes_too_late_and_panics_when_dropped_hides_no_timeout() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let mut select =
        Select::new(&context).timeout(SECOND).case(filled([1]), |_, step| async move {
            step.cancellation().cancelled().await;
            Ok::<_, BoxError>(Bomb)
        });
    let mut run = select.run();
    assert!(poll_times(&mut run, 1).is_none());
    clock.advance(SECOND);
    let error = poll_times(&mut run, 1).expect("it is over").expect_err("it timed out");
    assert_eq!(error.code(), ErrorCode::Timeout);
}

// Rule 3.7
#[test]
fn a_source_and_a_continuation_that_panic_when_dropped_are_contained() {
    let context = StepContext::new("t");
    let bomb = Bomb;
    let ends = stream::poll_fn(move |_| {
        let _keep = &bomb;
        Poll::Ready(None::<u32>)
    });
    let bomb = Bomb;
    let stays = stream::poll_fn(move |_| -> Poll<Option<u32>> {
        let _keep = &bomb;
        Poll::Pending
    });
    let mut select = Select::new(&context).pass(ends).pass(stays).case(filled([1]), |_, _| async {
        let _bomb = Bomb;
        pending::<Result<u32, BoxError>>().await
    });
    let error = block_on(select.run()).expect_err("the first panics when it ends");
    assert_eq!((error.code(), error.source_name()), (ErrorCode::Panic, Some("source 0")));
    let mut run = select.run();
    assert!(poll_times(&mut run, 1).is_none());
    drop(run);
    drop(select);
}

// P1, rule 4.1
#[test]
fn the_compensations_of_a_result_are_absorbed_also_when_it_comes_too_late() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let undone = Arc::new(std::sync::Mutex::new(Vec::new()));
    let undo = |effect: u32| {
        let undone = Arc::clone(&undone);
        Compensated::new(effect).with_compensation(move || {
            let undone = Arc::clone(&undone);
            async move { undone.lock().expect("no panic").push(effect) }
        })
    };
    let mut select = Select::<u32>::new(&context)
        .case(filled([1]), |effect, step| {
            ready(Ok::<_, BoxError>(undo(effect).absorb_into(step.scope())))
        })
        .case(filled([2]), |effect, step| {
            let undo = &undo;
            async move {
                step.cancellation().cancelled().await;
                Ok::<_, BoxError>(undo(effect).absorb_into(step.scope()))
            }
        })
        .timeout(SECOND);
    assert_eq!(block_on(select.run()).expect("the first is ready"), 1);
    let mut run = select.run();
    assert!(poll_times(&mut run, 1).is_none());
    clock.advance(SECOND);
    let error = poll_times(&mut run, 1).expect("it stopped").expect_err("it timed out");
    assert_eq!(error.code(), ErrorCode::Timeout);
    assert_eq!(roll_back(context.scope()), 2);
    assert_eq!(*undone.lock().expect("no panic"), [2, 1]);
}

// P42
#[test]
fn a_case_that_passes_its_message_on_can_have_a_priority() {
    let context = StepContext::new("t");
    let mut select = Select::new(&context)
        .pass(filled([3]).prioritized(101))
        .pass(filled([2]))
        .pass(filled([1]).prioritized(99));
    let results: Vec<_> = (0..3).map(|_| block_on(select.run()).expect("one is ready")).collect();
    assert_eq!(results, [1, 2, 3]);
}

// P41
#[test]
fn a_case_that_is_ready_wins_at_once_beside_silent_ones_of_every_priority() {
    let context = StepContext::new("t");
    let mut select = Select::new(&context)
        .pass(stream::pending().prioritized(1))
        .pass(stream::pending())
        .pass(filled([7]))
        .pass(stream::pending().prioritized(200));
    assert_eq!(select.run().now_or_never().expect("at once").expect("no failure"), 7);
    assert!(select.run().now_or_never().is_none());
}

// Rules 3.3, 3.5
#[test]
fn a_select_that_has_run_can_be_given_cases_and_limits() {
    let context = StepContext::new("t");
    let mut first = Select::new(&context).pass(filled([1, 4]));
    assert_eq!(block_on(first.run()).expect("one is ready"), 1);
    let mut second = first.pass(filled([2]).prioritized(1)).pass(filled([3]));
    let mut results: Vec<_> = (0..3)
        .map(|_| second.run().now_or_never().expect("at once").expect("no failure"))
        .collect();
    results[1..].sort_unstable();
    assert_eq!(results, [2, 3, 4]);
    let mut timed = second.pass(stream::pending());
    assert!(timed.run().now_or_never().is_none());
    timed = timed.timeout(Duration::ZERO);
    let code = |result: Result<u32, Error>| result.expect_err("it is to end").code();
    assert_eq!(timed.run().now_or_never().map(code), Some(ErrorCode::Timeout));
    let stop = CancellationSource::new();
    stop.cancel();
    let mut cancelled = timed.timeout(Duration::MAX).cancellation(stop.token());
    assert_eq!(cancelled.run().now_or_never().map(code), Some(ErrorCode::Canceled));
}

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl std::task::Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

// PARITY 3.9, rule 5.2
#[test]
fn the_task_of_the_latest_run_is_woken_and_no_earlier_one() {
    let stop = CancellationSource::new();
    let context = StepContext::new("t").with_cancellation(stop.token());
    let (sender, receiver) = async_channel::unbounded();
    let mut select = Select::new(&context).pass(receiver).pass(stream::pending());
    let tasks = [Arc::new(Wakes::default()), Arc::new(Wakes::default())];
    for task in &tasks {
        let waker = Arc::clone(task).into();
        assert!(select.run().poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    }
    sender.try_send(1).expect("the channel is open");
    let woken = || tasks.each_ref().map(|task| task.0.load(Ordering::Relaxed));
    assert_eq!(woken(), [0, 0], "both runs have been dropped");
    assert!(tasks.iter().all(|task| Arc::strong_count(task) == 1), "no run keeps its task");
    assert_eq!(select.run().now_or_never().expect("at once").expect("no failure"), 1);
    let waker = Arc::clone(&tasks[1]).into();
    let mut run = select.run();
    assert!(run.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    sender.try_send(2).expect("the channel is open");
    assert_eq!(woken(), [0, 1]);
    assert_eq!(poll_times(&mut run, 1).expect("it is ready").expect("no failure"), 2);
}

// Rules 2.4, 3.5
#[test]
fn a_case_that_keeps_waking_itself_starves_neither_its_equals_nor_the_default_nor_the_token() {
    let stop = CancellationSource::new();
    let context = StepContext::new("t").with_cancellation(stop.token());
    let restless = || {
        stream::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    };
    let mut waiting = Select::new(&context).pass(restless()).pass(restless()).pass(filled([1, 2]));
    assert_eq!(waiting.run().now_or_never().expect("at once").expect("no failure"), 1);
    assert_eq!(waiting.run().now_or_never().expect("at once").expect("no failure"), 2);
    let mut run = waiting.run();
    assert!(poll_times(&mut run, 100).is_none());
    stop.cancel();
    assert_eq!(
        poll_times(&mut run, 1).expect("over").expect_err("cancelled").code(),
        ErrorCode::Canceled
    );
    let context = StepContext::new("t");
    let mut hasty = Select::new(&context).pass(restless()).default(|_| ready(Ok::<_, BoxError>(0)));
    assert_eq!(hasty.run().now_or_never().expect("at once").expect("no failure"), 0);
}

// Rules 3.2, 3.5, 3.6
#[test]
fn cancelling_tells_the_continuation_and_what_it_says_is_attached() {
    for by_context in [true, false] {
        let (of_context, of_call) = (CancellationSource::new(), CancellationSource::new());
        let context = StepContext::new("t").with_cancellation(of_context.token());
        let source = filled([1, 2]);
        let mut select = Select::new(&context).cancellation(of_call.token()).case(
            source.clone(),
            |_, step| async move {
                step.cancellation().cancelled().await;
                yields(1).await;
                Err::<(), _>("stopped half way")
            },
        );
        let mut run = select.run();
        assert!(poll_times(&mut run, 2).is_none());
        if by_context {
            of_context.cancel();
        } else {
            of_call.cancel();
        }
        let error = poll_times(&mut run, 2).expect("it stopped").expect_err("cancelled");
        assert_eq!((error.code(), error.related().len()), (ErrorCode::Canceled, 1));
        assert_eq!(error.related()[0].code(), ErrorCode::Handler);
        assert_eq!(left_in(&source), [2]);
    }
}

// Rules 3.6, 3.7
#[test]
fn a_continuation_that_panics_when_the_grace_ends_is_attached_to_the_timeout() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let mut select = Select::new(&context).timeout(SECOND).grace(Duration::ZERO).case(
        filled([1]),
        |_, _| async {
            let _bomb = Bomb;
            pending::<Result<(), BoxError>>().await
        },
    );
    let mut run = select.run();
    assert!(poll_times(&mut run, 1).is_none());
    clock.advance(SECOND);
    let error = poll_times(&mut run, 1).expect("no grace").expect_err("it timed out");
    assert_eq!(error.code(), ErrorCode::Timeout);
    assert_eq!(error.metadata("dropped_handlers"), Some("1"));
    let related: Vec<_> = error.related().iter().map(Error::code).collect();
    assert_eq!(related, [ErrorCode::Panic]);
}

/// Panics when it is asked for the time.
#[derive(Debug)]
struct Broken;

impl Clock for Broken {
    fn now(&self) -> Tick {
        panic!("no time")
    }

    fn sleep_until(&self, _: Tick) -> Sleep {
        Box::pin(pending())
    }
}

// Rule 3.7
#[test]
fn a_clock_that_panics_fails_the_run_and_drops_its_continuation() {
    let context = StepContext::new("t").with_clock(Arc::new(Broken));
    let ledger = Ledger::default();
    let mut select = Select::new(&context).case(filled([1]), |effect, step| {
        let ledger = ledger.clone();
        async move {
            ledger.apply(&step, effect);
            pending::<Result<(), BoxError>>().await
        }
    });
    let error = block_on(select.run()).expect_err("there is no time");
    assert_eq!(error.code(), ErrorCode::Panic);
    assert_eq!(roll_back(context.scope()), 1);
    assert_eq!(
        block_on(select.run()).expect_err("all have ended").code(),
        ErrorCode::SelectDrained
    );
}

// Rules 2.1, 4.1
#[test]
fn a_loop_of_runs_dropped_after_any_poll_accounts_for_every_message_and_effect() {
    let mut drops = 0;
    for k in 0.. {
        let (context, ledger) = (StepContext::new("t"), Ledger::default());
        let sources = [filled([1, 2, 3]), filled([4, 5]), filled([6])];
        let started = std::sync::Mutex::new(Vec::new());
        let handler = |effect: u32, step: StepContext| {
            started.lock().expect("no panic").push(effect);
            let ledger = ledger.clone();
            async move {
                ledger.apply(&step, effect);
                yields(effect as usize % 3).await;
                ledger.apply(&step, 10 * effect);
                if effect == 5 { Err("no") } else { Ok(()) }
            }
        };
        let [a, b, c] = sources.clone();
        // Every second message is late.
        let late = |source: async_channel::Receiver<u32>| {
            stream::unfold((source, false), |(source, late)| async move {
                yields(usize::from(late)).await;
                let message = source.try_recv().ok()?;
                Some((message, (source, !late)))
            })
        };
        let mut select = Select::new(&context)
            .case(late(a), handler)
            .case(late(b), handler)
            .case(late(c).prioritized(1), handler);
        let mut all_runs = Box::pin(async {
            loop {
                match select.run().await {
                    Err(error) if error.code() == ErrorCode::SelectDrained => return,
                    _ => {}
                }
            }
        });
        let ended = poll_times(&mut all_runs, k).is_some();
        drop(all_runs);
        drop(select);
        let mut all = started.into_inner().expect("no panic");
        all.extend(sources.iter().flat_map(left_in));
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4, 5, 6], "poll {k}");
        assert_eq!(roll_back(context.scope()), ledger.done().len(), "poll {k}");
        ledger.assert_undone_in_reverse();
        drops += 1;
        if ended {
            break;
        }
    }
    assert!(drops > 5, "{drops} drops");
}

// P5, rule 5.2
async fn a_select_in_a_loop_takes_everything_from_live_channels() {
    let (numbers, from_numbers) = async_channel::bounded(2);
    let (words, from_words) = async_channel::bounded(2);
    let producers = [
        std::thread::spawn(move || (0..200_u32).all(|n| numbers.send_blocking(n).is_ok())),
        std::thread::spawn(move || (0..200).all(|_| words.send_blocking("word").is_ok())),
    ];
    let context = StepContext::new("suite");
    let mut select = Select::new(&context)
        .case(from_numbers, |number: u32, _| async move {
            yields(1).await;
            Ok::<_, BoxError>(number)
        })
        .case(from_words, |_, _| async { Ok::<_, BoxError>(0) });
    let (mut runs, mut sum) = (0, 0);
    let error = loop {
        match select.run().await {
            Ok(number) => {
                runs += 1;
                sum += number;
            }
            Err(error) => break error,
        }
    };
    assert_eq!((error.code(), runs, sum), (ErrorCode::SelectDrained, 400, (0..200).sum()));
    assert!(producers.into_iter().all(|producer| producer.join().expect("the thread ends")));
}

// Rules 3.3, 5.2
async fn a_select_times_out() {
    let context = StepContext::new("suite");
    let mut select = Select::new(&context).pass(stream::pending::<()>()).timeout(SECOND / 200);
    assert_eq!(select.run().await.expect_err("it timed out").code(), ErrorCode::Timeout);
}

// Rules 3.5, 5.2
async fn cancelling_from_another_thread_ends_a_run_that_waits() {
    let stop = CancellationSource::new();
    let context = StepContext::new("suite").with_cancellation(stop.token());
    let mut select = Select::new(&context).pass(stream::pending::<()>());
    let canceller = std::thread::spawn(move || stop.cancel());
    assert_eq!(select.run().await.expect_err("cancelled").code(), ErrorCode::Canceled);
    canceller.join().expect("the thread ends");
}

// P43, rules 2.4, 5.2
async fn a_default_in_a_loop_lets_a_live_channel_go_on() {
    let (sender, receiver) = async_channel::bounded(1);
    let producer =
        std::thread::spawn(move || (1..=50_u32).all(|number| sender.send_blocking(number).is_ok()));
    let context = StepContext::new("suite");
    let mut select = Select::new(&context).pass(receiver).default(|_| ready(Ok::<_, BoxError>(0)));
    let mut sum = 0;
    while sum < (1..=50).sum() {
        sum += select.run().await.expect("a message or the default");
    }
    assert!(producer.join().expect("the thread ends"));
}

on_every_executor! {
    a_select_in_a_loop_takes_everything_from_live_channels,
    a_select_times_out,
    cancelling_from_another_thread_ends_a_run_that_waits,
    a_default_in_a_loop_lets_a_live_channel_go_on,
}
