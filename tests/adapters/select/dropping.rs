//! What goes when.

use super::*;
use crate::support::neighbours::{Bomb, Gone, Wakes};

// Rule 2.6
#[test]
fn a_source_that_has_ended_or_panicked_is_dropped_at_once_and_never_polled_again() {
    let (context, dropped) = (StepContext::new("t"), Arc::new(AtomicUsize::new(0)));
    let (ends, panics) = (Gone(Arc::clone(&dropped)), Gone(Arc::clone(&dropped)));
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
