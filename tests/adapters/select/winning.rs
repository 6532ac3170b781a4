//! Who wins.

use super::*;

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
