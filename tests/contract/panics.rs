//! Rule 3.7: a panic never crosses the drain as a panic, whoever it comes from.

use std::cell::{Cell, RefCell};
use std::future::IntoFuture;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt, stream};
use watershed::{
    BoxError, Clock, ErrorCode, Letter, ManualClock, OnFailure, RetryPolicy, Sleep, StepContext,
    Tick, fan_in,
};

use crate::support::ending::{assert_settled, report};
use crate::support::{Hand, Ledger, Log, filled, manual, roll_back, yields};

fn ok() -> Result<(), BoxError> {
    Ok(())
}

// Rule 3.7
#[test]
fn a_panic_of_a_handler_is_a_failure_with_its_message_wherever_it_comes() {
    for place in ["call", "first poll", "later poll", "drop", "drop of one that failed"] {
        for unordered in [true, false] {
            struct Throws(bool);
            impl Drop for Throws {
                fn drop(&mut self) {
                    assert!(!self.0, "thrown in a destructor");
                }
            }
            let (context, ledger) = (StepContext::new("t"), Ledger::default());
            let drain = fan_in(&context, [filled([1, 2, 3])], |message: u32, step: StepContext| {
                ledger.apply(&step, message);
                assert!(!(place == "call" && message == 2), "thrown {}", "in the call");
                async move {
                    let _throws = Throws(place.starts_with("drop") && message == 2);
                    if message == 2 {
                        assert!(place != "first poll", "thrown in the first poll");
                        yields(2).await;
                        assert!(place != "later poll", "thrown in a later poll");
                        if place == "drop of one that failed" {
                            return Err("the failure");
                        }
                    }
                    Ok(())
                }
            });
            let mut drain = Hand::new(if unordered {
                drain.unordered().into_future().boxed_local()
            } else {
                drain.into_future().boxed_local()
            });
            let failure = drain.finish().expect_err(place);
            let said = format!("{:#} {:?}", failure.error(), failure.error());
            assert!(said.contains("thrown in"), "{place}: {said}");
            assert_eq!(failure.error().message_number(), Some(2), "{place}");
            assert!(matches!(failure.error().code(), ErrorCode::Panic | ErrorCode::Handler));
            let counts = (failure.report().handled(), failure.report().failed());
            assert_eq!(counts, (1, 1), "{place}, unordered: {unordered}");
            assert_settled(failure.report());
            assert_eq!(roll_back(context.scope()), 2, "{place}");
        }
    }
}

/// A key that panics when it is made, compared, hashed, cloned or dropped.
#[derive(Debug)]
struct Key(u32, &'static str);

impl Key {
    fn does(&self, what: &str) {
        assert!(!(self.0 == 2 && self.1 == what), "the key is {what}");
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.does("hashed");
        self.0.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.does("compared");
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Clone for Key {
    fn clone(&self) -> Self {
        self.does("cloned");
        Self(self.0, self.1)
    }
}

// Rule 3.7
#[test]
fn a_panic_in_a_key_function_fails_its_message_as_one_in_its_handler_does() {
    for across in [true, false] {
        for what in ["made", "hashed", "compared", "cloned"] {
            let (context, letters) = (StepContext::new("t"), Log::default());
            // The key is compared where it is busy.
            let messages = if what == "compared" { vec![1, 2, 2, 3] } else { vec![1, 2, 3] };
            let drain = fan_in(&context, [filled(messages)], async |_: u32, _| {
                yields(1).await;
                ok()
            });
            let key = |message: &u32| {
                assert!(!(*message == 2 && what == "made"), "the key is made");
                Key(*message, what)
            };
            let drain = drain.concurrency(3).dead_letters(async |letter: Letter<u32>| {
                assert_eq!(letter.error().code(), ErrorCode::Panic);
                let said = format!("{:#}", letter.error());
                assert!(said.contains("the key is"), "{said}");
                letters.push(letter.into_message());
            });
            let mut drain = Hand::new(if across {
                drain.ordered_across_sources_by(key).into_future().boxed_local()
            } else {
                drain.ordered_by(key).into_future().boxed_local()
            });
            let report = drain.finish().expect("it goes on");
            assert_settled(&report);
            let letters = letters.take();
            assert!(letters.iter().all(|message| *message == Some(2)), "{what}: {letters:?}");
            assert_eq!(report.failed(), letters.len() as u64);
            assert!(report.handled() >= 2, "{what}: {report:?}");
            if what == "made" {
                assert_eq!(letters.len(), 1);
            }
        }
    }
}

/// A source that panics in its second poll, and perhaps when it is dropped.
struct Throws(u32, bool);

impl Stream for Throws {
    type Item = u32;
    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u32>> {
        self.0 += 1;
        assert!(self.0 < 2, "thrown by the source");
        Poll::Ready(Some(self.0))
    }
}

impl Drop for Throws {
    fn drop(&mut self) {
        assert!(!self.1, "thrown by its destructor");
    }
}

// Rules 3.7, 3.2
#[test]
fn a_panic_of_a_source_is_a_fault_and_the_source_is_gone() {
    for drops in [true, false] {
        let context = StepContext::new("t");
        let sources = [Throws(0, drops).boxed(), stream::repeat(9).boxed()];
        let drain = fan_in(&context, sources, async |_: u32, _| ok());
        let failure = Hand::new(drain.quantum(10).into_future()).finish().expect_err("thrown");
        assert_eq!(failure.error().code(), ErrorCode::Panic);
        assert!(format!("{:#}", failure.error()).contains("thrown by the source"));
        assert_eq!(failure.error().source_name(), Some("source 0"));
        assert_settled(failure.report());
    }
}

// Rule 3.7
#[test]
fn a_panic_of_the_stream_of_sources_ends_the_drain_as_an_error() {
    let context = StepContext::new("t");
    let coming = stream::poll_fn(|_| -> Poll<Option<async_channel::Receiver<u32>>> {
        panic!("thrown by the listener")
    });
    let drain = fan_in(&context, [filled([1, 2])], async |_: u32, _| ok()).incoming(coming);
    let failure = Hand::new(drain.into_future()).finish().expect_err("thrown");
    assert_eq!(failure.error().code(), ErrorCode::Panic);
    assert!(format!("{:#}", failure.error()).contains("thrown by the listener"));
}

/// A clock that panics at some look.
#[derive(Debug)]
struct Fragile(ManualClock, std::sync::atomic::AtomicUsize, usize);

impl Clock for Fragile {
    fn now(&self) -> Tick {
        let looks = self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        assert!(looks != self.2, "thrown by the clock");
        self.0.now()
    }
    fn sleep_until(&self, deadline: Tick) -> Sleep {
        self.0.sleep_until(deadline)
    }
}

// Rule 3.7
#[test]
fn a_clock_that_panics_at_any_look_ends_the_drain_or_harms_nobody() {
    for look in 0..60 {
        for unordered in [true, false] {
            let clock = ManualClock::new();
            let fragile = Fragile(clock.clone(), 0.into(), look);
            let context = StepContext::new("t").with_clock(Arc::new(fragile));
            let ledger = Ledger::default();
            let drain = fan_in(
                &context,
                [filled(0..5), filled(5..9)],
                async |message, step: StepContext| {
                    ledger.apply(&step, message);
                    yields(1).await;
                    if message == 3 && step.attempt() == 1 { Err("once") } else { Ok(()) }
                },
            );
            let drain = drain
                .concurrency(2)
                .timeout(Duration::from_secs(100))
                .message_timeout(Duration::from_secs(10))
                .rate(100, Duration::from_secs(1))
                .retry(watershed::RetryPolicy::fixed(2, Duration::from_secs(1)));
            let mut drain = Hand::new(if unordered {
                drain.unordered().into_future().boxed_local()
            } else {
                drain.into_future().boxed_local()
            });
            let ended = drain.finish_by(&clock);
            if let Err(failure) = &ended {
                assert_eq!(failure.error().code(), ErrorCode::Panic, "look {look}: {failure:?}");
            }
            // A drain that could not even begin has nothing to tell.
            if report(&ended).taken() > 0 {
                assert_settled(report(&ended));
            }
            let staged = context.scope().len();
            let (done, undone) = (ledger.done().len(), ledger.undone().len());
            let open = done - undone;
            assert_eq!(staged, if ended.is_ok() { 0 } else { open }, "look {look}");
            context.scope().clear();
        }
    }
}

// Rule 3.7
#[test]
fn destructors_of_messages_and_errors_that_panic_harm_nobody() {
    #[derive(Debug)]
    struct Bomb(u32);
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(self.0 % 2 == 1, "thrown by a destructor");
        }
    }
    impl std::fmt::Display for Bomb {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a bomb")
        }
    }
    impl std::error::Error for Bomb {}
    let context = StepContext::new("t");
    let queue = filled((0..6).map(Bomb));
    let drain = fan_in(&context, [queue], async |message: Bomb, _| {
        let number = message.0;
        yields(1).await;
        if number == 3 { Err(Bomb(4)) } else { Ok(()) }
    });
    let drain = drain.on_failure(OnFailure::Continue);
    let report = Hand::new(drain.into_future()).finish().expect("it goes on");
    // Those whose message cannot be dropped have failed, and so has the one that says so.
    assert_eq!((report.handled(), report.failed()), (2, 4), "{report:?}");
    assert_settled(&report);
}

// Rules 3.7, 4.12
#[test]
fn a_neighbour_that_panics_costs_the_others_nothing() {
    let ((context, clock), done) = (manual("t"), RefCell::new(Vec::new()));
    let calls = Cell::new(0);
    let sources = (0..300_u32).map(|number| filled(vec![number; 3]));
    let drain = fan_in(&context, sources, |number: u32, _| {
        calls.set(calls.get() + 1);
        assert!(number % 3 != 0, "thrown by the call");
        let done = &done;
        async move {
            yields(1).await;
            assert!(number % 3 != 1, "thrown by a poll");
            done.borrow_mut().push(number);
            ok()
        }
    });
    let drain = drain.concurrency(7).on_failure(OnFailure::Continue);
    let report = Hand::new(drain.into_future()).finish_by(&clock).expect("it goes on");
    assert_eq!((report.handled(), report.failed(), calls.get()), (300, 600, 900));
    assert_eq!(done.borrow().len(), 300);
    assert_settled(&report);
}

/// A message whose clone, kept for another attempt, cannot be dropped.
struct Kept {
    number: u32,
    is_clone: bool,
}

impl Clone for Kept {
    fn clone(&self) -> Self {
        Self { number: self.number, is_clone: true }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        assert!(!self.is_clone || self.number != 2, "it cannot be dropped");
    }
}

// Rules 2.1 and 3.7
#[test]
fn a_kept_message_that_cannot_be_dropped_changes_no_result() {
    let context = StepContext::new("kept");
    for fails in [false, true] {
        let messages = (1..4).map(|number| Kept { number, is_clone: false });
        let drain = fan_in(&context, [stream::iter(messages)], async |message: Kept, _| {
            // The handler has the message itself: the clone is what waits for another attempt.
            if fails && message.number == 2 { Err("no") } else { Ok(()) }
        });
        let result = drain.retry(RetryPolicy::fixed(1, Duration::from_secs(1))).into_future();
        let result = result.now_or_never().expect("nothing waits");
        match result {
            Ok(report) => assert_eq!((fails, report.handled(), report.failed()), (false, 3, 0)),
            Err(failure) => {
                assert!(fails);
                assert_eq!(failure.error().code(), ErrorCode::Handler);
                assert_eq!((failure.report().handled(), failure.report().failed()), (1, 1));
            }
        }
    }
}
