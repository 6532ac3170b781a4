//! Keys whose code panics: where they are made, compared, freed and dropped. Rules 3.7, 3.10, 2.4.

use std::cell::{Cell, RefCell};
use std::future::IntoFuture;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use watershed::{BoxError, ErrorCode, Letter, OnFailure, RetryPolicy, StepContext, fan_in};

use crate::support::ending::assert_settled;
use crate::support::{Hand, filled, manual, yields};

const SECOND: Duration = Duration::from_secs(1);

// Rules 3.7, 3.10
#[test]
fn a_message_whose_key_cannot_be_made_is_tried_again_like_any_other() {
    // How often the key function panics for message 2; how it ends.
    for (times, across, letters) in [0, 1, 2, 9].into_iter().flat_map(|times| {
        [(true, true), (true, false), (false, true), (false, false)]
            .map(|(across, letters)| (times, across, letters))
    }) {
        let (context, clock) = manual("t");
        let (thrown, handled, dead) =
            (Cell::new(0), RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let drain = fan_in(&context, [filled([1, 2, 3])], async |message: u32, _| {
            yields(1).await;
            handled.borrow_mut().push(message);
            Ok::<_, BoxError>(())
        });
        let key = |message: &u32| {
            if *message == 2 && thrown.get() < times {
                thrown.set(thrown.get() + 1);
                panic!("no key");
            }
            // All of them have one key.
            0
        };
        let drain = drain.retry(RetryPolicy::fixed(3, SECOND)).concurrency(2);
        let dead_letters = async |letter: Letter<u32>| {
            assert_eq!(letter.error().code(), ErrorCode::Panic);
            dead.borrow_mut().extend(letter.into_message());
        };
        let future = match (across, letters) {
            (true, true) => drain
                .ordered_across_sources_by(key)
                .dead_letters(dead_letters)
                .into_future()
                .boxed_local(),
            (true, false) => drain.ordered_across_sources_by(key).into_future().boxed_local(),
            (false, true) => {
                drain.ordered_by(key).dead_letters(dead_letters).into_future().boxed_local()
            }
            (false, false) => drain.ordered_by(key).into_future().boxed_local(),
        };
        let result = Hand::new(future).finish_by(&clock);
        let case = format!("{times} times, across: {across}, letters: {letters}");
        let report = match &result {
            Ok(report) => report,
            Err(failure) => {
                assert!(times == 9 && !letters, "{case}: {failure:#}");
                assert_eq!(failure.error().code(), ErrorCode::Panic, "{case}");
                assert_eq!(failure.error().message_number(), Some(2), "{case}");
                failure.report()
            }
        };
        assert_settled(report);
        assert_eq!(thrown.get(), times.min(3), "{case}");
        let mut handled = handled.into_inner();
        handled.sort_unstable();
        assert_eq!(handled, if times < 3 { vec![1, 2, 3] } else { vec![1, 3] }, "{case}");
        assert_eq!(
            dead.into_inner(),
            if times == 9 && letters { vec![2] } else { vec![] },
            "{case}"
        );
    }
}

// Rules 3.7, 3.10, 2.1
#[test]
fn a_message_without_a_key_that_waits_for_another_attempt_goes_back_where_the_drain_ends() {
    for across in [true, false] {
        let ((context, clock), back) = (manual("t"), RefCell::new(Vec::new()));
        let drain =
            fan_in(&context, [filled([1, 2]).chain(stream::pending())], async |_: u32, _| {
                Ok::<_, BoxError>(())
            });
        let key = |message: &u32| assert!(*message == 1, "no key");
        let drain = drain.retry(RetryPolicy::fixed(3, 9 * SECOND)).timeout(SECOND);
        let drain = drain.concurrency(2).put_back(|_, message| back.borrow_mut().push(message));
        let mut drain = Hand::new(if across {
            drain.ordered_across_sources_by(key).into_future().boxed_local()
        } else {
            drain.ordered_by(key).into_future().boxed_local()
        });
        let failure = drain.finish_by(&clock).expect_err("its time is over");
        assert_eq!(failure.error().code(), ErrorCode::Timeout);
        assert_settled(failure.report());
        drop(drain);
        assert_eq!(back.into_inner(), [2]);
    }
}

// Rules 2.4, 3.7
#[test]
fn a_crowd_of_messages_without_a_key_gives_the_thread_back() {
    for across in [true, false] {
        let (context, made) = (StepContext::new("t"), Cell::new(0_u64));
        let drain = fan_in(&context, [stream::repeat(1_u32)], async |_, _| Ok::<_, BoxError>(()));
        let drain = drain.on_failure(OnFailure::Continue);
        let key = |_: &u32| {
            made.set(made.get() + 1);
            assert!(made.get() < 10_000, "no end of one poll");
            if made.get() < 10_000 {
                std::panic::panic_any("no key");
            }
        };
        let mut drain = Hand::new(if across {
            drain.ordered_across_sources_by(key).into_future().boxed_local()
        } else {
            drain.ordered_by(key).into_future().boxed_local()
        });
        assert!(drain.poll().is_pending());
        assert!(made.get() <= 256, "{}", made.get());
    }
}

/// A key that panics when it is compared, or dropped.
#[derive(Clone, Debug, Eq)]
struct Key(u32, &'static str);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        assert!(self.1 != "compared", "the key is compared");
        self.0 == other.0
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // All of them meet, whatever they are.
        0.hash(state);
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.1 != "dropped", "the key is dropped");
        }
    }
}

// Rule 3.7
#[test]
fn keys_that_panic_when_they_are_compared_or_dropped_never_cross_or_hold_up_a_drain() {
    for what in ["compared", "dropped"] {
        for across in [true, false] {
            // How many polls it has before it is dropped; the last one is run to its end.
            for polls in 0..12 {
                let context = StepContext::new("t");
                let sources = [filled([1, 2, 1, 3, 1]), filled([1, 1, 4])];
                let drain = fan_in(&context, sources, async |_: u32, _| {
                    yields(2).await;
                    Ok::<_, BoxError>(())
                });
                let drain = drain.concurrency(3).on_failure(OnFailure::Continue);
                let key = |message: &u32| Key(*message, what);
                let ended = catch_unwind(AssertUnwindSafe(|| {
                    let mut drain = Hand::new(if across {
                        drain.ordered_across_sources_by(key).into_future().boxed_local()
                    } else {
                        drain.ordered_by(key).into_future().boxed_local()
                    });
                    if polls == 11 {
                        return Some(drain.finish());
                    }
                    for _ in 0..polls {
                        if drain.poll().is_ready() {
                            break;
                        }
                    }
                    None
                }));
                let ended = ended.unwrap_or_else(|_| panic!("{what}, across: {across}, {polls}"));
                match ended {
                    Some(Ok(report)) => {
                        assert_settled(&report);
                        assert_eq!(report.handled() + report.failed(), 8, "{what}: {report:?}");
                    }
                    Some(Err(failure)) => {
                        assert_settled(failure.report());
                        assert_eq!(failure.error().code(), ErrorCode::Panic);
                        let said = format!("{:#}", failure.error());
                        assert!(said.contains("the key") && what == "compared", "{said}");
                    }
                    None => {}
                }
            }
        }
    }
}
