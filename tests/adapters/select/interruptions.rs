//! Runs that end early, and loops of them.

use super::*;
use crate::support::neighbours::Bomb;

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
