//! Leases: by the clock of the drain's context, against a service that answers on demand.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use support::service::{Answer, Call, Service, message};
use support::{client, orders};
use watershed::transport::Link;
use watershed::{BoxError, FanInReport, ManualClock, StepContext, fan_in};

const HIDE: &str = "ChangeMessageVisibilityBatch";

/// Drains one message that is invisible for 30 seconds at a time, and whose handler takes 40 seconds of
/// a clock that it moves on by itself. Renewals have the answers of `answer`, by their number.
fn drain(answer: fn(usize, &Call) -> Option<Answer>) -> (FanInReport, Service) {
    let renewals = AtomicUsize::new(0);
    let service = Service::queue([message(1)], move |call| {
        let is_renewal = call.operation == HIDE;
        is_renewal.then(|| answer(renewals.fetch_add(1, Ordering::Relaxed), call)).flatten()
    });
    let clock = Arc::new(ManualClock::new());
    let link = Link::new(orders(&service.address).visibility(Duration::from_secs(30)));
    let context = StepContext::new("orders").with_clock(Arc::<ManualClock>::clone(&clock));
    let other = client(&service.address);
    let drain = fan_in(&context, [link.source()], async |_, _| {
        for _ in 0..80 {
            clock.advance(Duration::from_millis(500));
            // Whatever is due is sent meanwhile, and has its answer before this has.
            for _ in 0..3 {
                other.list_queues().send().await?;
            }
        }
        Ok::<_, BoxError>(())
    });
    let report = smol::block_on(drain.until_idle().into_future()).unwrap();
    (report, service)
}

/// That the first entry was not done, in these words.
fn failed(code: &str, text: &str) -> Answer {
    let failed = json!({"Id": "0", "Code": code, "Message": text, "SenderFault": true});
    Answer::Json(json!({"Successful": [], "Failed": [failed]}))
}

#[test]
fn a_slow_message_is_renewed_from_a_third_of_its_visibility_on() {
    let (report, service) = drain(|_, _| None);
    assert_eq!((report.accepted(), report.lost()), (1, 0));
    let renewals = service.inputs(HIDE);
    // At 10, 20 and 30 seconds, and perhaps at 40.
    assert!((3..=4).contains(&renewals.len()), "{renewals:?}");
    for renewal in renewals {
        assert_eq!(renewal["Entries"][0]["VisibilityTimeout"], 30);
        assert_eq!(renewal["Entries"][0]["ReceiptHandle"], "h-1");
    }
}

#[test]
fn a_throttled_renewal_is_tried_again() {
    let (report, service) =
        drain(|number, _| (number < 2).then_some(Answer::Error(403, "RequestThrottled", "slowly")));
    assert_eq!((report.accepted(), report.lost()), (1, 0));
    assert!(service.inputs(HIDE).len() >= 4);
}

#[test]
fn at_twelve_hours_nothing_is_renewed_any_more_and_the_message_is_lost_when_it_is() {
    let (report, service) = drain(|_, _| {
        let text = "Value 30 for parameter VisibilityTimeout is invalid. Reason: Total \
                    VisibilityTimeout for the message is beyond the limit [43200 seconds]";
        Some(failed("InvalidParameterValue", text))
    });
    assert_eq!((report.accepted(), report.lost()), (0, 1));
    assert_eq!(service.inputs(HIDE).len(), 1);
    assert!(service.inputs("DeleteMessageBatch").is_empty());
}

#[test]
fn a_renewal_with_a_stale_receipt_ends_the_handler() {
    let (report, service) = drain(|_, _| Some(failed("MessageNotInflight", "it is not")));
    assert_eq!((report.accepted(), report.lost()), (0, 1));
    assert_eq!(service.inputs(HIDE).len(), 1);
    assert!(service.inputs("DeleteMessageBatch").is_empty());
}
