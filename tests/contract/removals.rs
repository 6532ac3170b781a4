//! A handler that waits for the removal of another source, whatever that one and the drain are doing.
//! Rules 2.7, 3.9, 3.5.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use watershed::channels::{SourceEnd, live};
use watershed::{BoxError, CancellationSource, ErrorCode, RetryPolicy, StepContext, fan_in};

use crate::support::ending::assert_settled;
use crate::support::{Gate, Hand, manual, yields};

const SECOND: Duration = Duration::from_secs(1);

/// What the source that is taken out was doing.
const DOING: [&str; 5] = ["idle", "paused", "paused while it ran", "a retry waits", "ended"];
/// What happens to the drain, and when.
const DRAIN: [&str; 4] = ["goes on", "shuts down before", "shuts down after", "is cancelled"];

// Rules 2.7, 3.9, 3.5
#[test]
fn a_removal_is_answered_whatever_the_drain_does() {
    for (doing, end) in DOING.into_iter().flat_map(|doing| DRAIN.map(|end| (doing, end))) {
        for (order, concurrency) in [(0, 1), (0, 2), (1, 1), (1, 2), (2, 2), (3, 2)] {
            for asks_first in [true, false] {
                let case =
                    format!("{doing}, the drain {end}, order {order}, {concurrency} at once");
                let ((context, clock), answered) = (manual("t"), Cell::new(false));
                let (shutdown, stop) = (CancellationSource::new(), CancellationSource::new());
                let (live, incoming) = live();
                let messages = stream::iter(if doing == "idle" { vec![] } else { vec![2_u32] });
                let other = if doing == "ended" {
                    live.add(messages.boxed())
                } else {
                    live.add(messages.chain(stream::pending()).boxed())
                };
                let other = RefCell::new(other.ok());
                // It comes when the other one has done what it does.
                let begins = stream::once(yields(5)).filter_map(async |()| Some(1_u32));
                live.add(begins.boxed()).ok().expect("a drain may come");
                drop(live);
                let drain = fan_in(&context, [], async |message: u32, step: StepContext| {
                    if message == 2 {
                        if doing == "paused while it ran" {
                            other.borrow().as_ref().map(|other| other.pause());
                        }
                        let fails = doing == "a retry waits" && step.attempt() == 1;
                        return if fails { Err(BoxError::from("once")) } else { Ok(()) };
                    }
                    let other = other.borrow_mut().take().expect("it comes once");
                    if doing == "paused" {
                        other.pause();
                    }
                    let end_it = || match end {
                        "goes on" => {}
                        "is cancelled" => stop.cancel(),
                        _ => shutdown.cancel(),
                    };
                    if end != "shuts down after" {
                        end_it();
                    }
                    yields(3).await;
                    if asks_first {
                        other.request_removal();
                    }
                    if end == "shuts down after" {
                        end_it();
                    }
                    drop(other.remove().await);
                    answered.set(true);
                    Ok(())
                });
                let drain = drain.incoming(incoming).concurrency(concurrency);
                let drain = drain.retry(RetryPolicy::fixed(2, 9 * SECOND));
                let drain = drain.shutdown(shutdown.token()).cancellation(stop.token());
                let key = |message: &u32| *message;
                let mut drain = Hand::new(in_order!(order, drain, key));
                let result = drain.finish_by(&clock);
                let report = match &result {
                    Ok(report) => report,
                    Err(failure) => {
                        assert_eq!(failure.error().code(), ErrorCode::Canceled, "{case}");
                        failure.report()
                    }
                };
                assert_settled(report);
                assert!(answered.get(), "{case}, it was asked for first: {asks_first}");
                assert!(
                    report.elapsed() < 5 * SECOND,
                    "{case}: no grace and no retry is waited for"
                );
            }
        }
    }
}

// Rules 2.7, 3.10
#[test]
fn a_source_is_there_as_long_as_messages_of_it_are() {
    for order in 0..4 {
        for retried in [true, false] {
            let case = format!("order {order}, retried: {retried}");
            let ((context, clock), gate) = (manual("t"), Gate::default());
            let (live, incoming) = live();
            let handle = live.add(stream::iter([1_u32])).expect("a drain may come");
            drop(live);
            let (attempts, told) = (Cell::new(0), RefCell::new(None));
            let drain = fan_in(&context, [], async |_: u32, _| {
                attempts.set(attempts.get() + 1);
                if attempts.get() == 1 && retried {
                    return Err(BoxError::from("once"));
                }
                *told.borrow_mut() = Some(handle.ended().await);
                gate.wait().await;
                Ok(())
            });
            let drain = drain.incoming(incoming).concurrency(2);
            let drain = drain.retry(RetryPolicy::fixed(2, SECOND));
            let key = |message: &u32| *message;
            let mut drain = Hand::new(in_order!(order, drain, key));
            assert!(drain.run().is_pending(), "{case}");
            if retried {
                assert_eq!(attempts.get(), 1, "{case}");
                assert!(handle.pause(), "{case}: its message waits");
                clock.advance(SECOND);
                assert!(drain.run().is_pending(), "{case}");
                assert_eq!(attempts.get(), 1, "{case}: a paused source starts no handler");
                assert!(handle.resume(), "{case}");
                assert!(drain.run().is_pending(), "{case}");
            }
            assert_eq!(*told.borrow(), Some(SourceEnd::NotYet), "{case}: its own handler runs");
            assert!(handle.ended().now_or_never().is_none(), "{case}");
            assert!(handle.pause() && handle.resume(), "{case}: it is there");
            gate.open();
            assert_eq!(drain.finish().expect("no failure").handled(), 1, "{case}");
            assert_eq!(handle.ended().now_or_never(), Some(SourceEnd::Drained), "{case}");
        }
    }
}
