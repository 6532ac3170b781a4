//! What an answer of the service's means for a message, against a service that answers on demand.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::orders;
use support::service::{Answer, Call, Service, message};
use watershed::transport::Link;
use watershed::{
    BoxError, CancellationSource, FanInReport, OnFailure, RetryPolicy, StepContext, fan_in,
};

const DELETE: &str = "DeleteMessageBatch";
const HIDE: &str = "ChangeMessageVisibilityBatch";

/// Handles what there is, until there is nothing more.
fn drain(service: &Service) -> FanInReport {
    let link = Link::new(orders(&service.address)).settle_within(Duration::from_millis(250));
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
    smol::block_on(drain.until_idle().into_future()).unwrap()
}

/// The same with handlers that fail.
fn drain_badly(service: &Service) -> FanInReport {
    let link = Link::new(orders(&service.address)).settle_within(Duration::from_millis(250));
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [link.source()], async |_, _| Err::<(), _>("no"))
        .on_failure(OnFailure::Continue)
        .retry(RetryPolicy::fixed(1, Duration::from_millis(2_500)))
        .until_idle();
    smol::block_on(drain.into_future()).unwrap()
}

/// A queue of so many messages, where the first call of an operation has this answer.
fn first(messages: u32, operation: &'static str, answer: fn(&Call) -> Answer) -> Service {
    let calls = AtomicUsize::new(0);
    Service::queue((0..messages).map(message), move |call| {
        let is_first = call.operation == operation && calls.fetch_add(1, Ordering::Relaxed) == 0;
        is_first.then(|| answer(call))
    })
}

#[test]
fn accepts_go_in_batches_of_ten_at_most_under_ids_of_their_own() {
    let service = Service::queue((0..35).map(message), |_| None);
    let report = drain(&service);
    assert_eq!((report.accepted(), report.fetched()), (35, 35));

    let calls: Vec<_> = service.calls().into_iter().filter(|it| it.operation == DELETE).collect();
    let mut deleted = BTreeSet::new();
    for call in &calls {
        let ids = call.each("Id");
        assert!(ids.len() <= 10, "{ids:?}");
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
        deleted.extend(call.each("ReceiptHandle"));
    }
    assert_eq!(deleted.len(), 35);
    assert!(calls.len() < 20, "{} calls", calls.len());
}

#[test]
fn one_bad_entry_does_not_keep_the_others_from_being_deleted() {
    let service = Service::queue((0..10).map(message), |call| {
        let has_bad = call.each("ReceiptHandle").contains(&"h-7".to_owned());
        let refuses = call.operation == DELETE && has_bad;
        refuses.then_some(Answer::Error(400, "InvalidParameterValue", "a bad handle"))
    });
    let report = drain(&service);
    // Those behind it were handled: what its handler did stays.
    assert_eq!((report.accepted(), report.unknown()), (9, 1));
    let with_bad = service.calls().into_iter().map(|call| call.each("ReceiptHandle"));
    assert!(with_bad.filter(|it| it.contains(&"h-7".to_owned())).any(|batch| batch.len() > 1));
}

#[test]
fn a_throttled_delete_is_sent_again() {
    let service = first(1, DELETE, |_| Answer::Error(403, "RequestThrottled", "slowly"));
    assert_eq!(drain(&service).accepted(), 1);
    assert_eq!(service.inputs(DELETE).len(), 2);
}

#[test]
fn a_throttled_entry_is_sent_again() {
    let service = first(1, DELETE, |call| call.done_but_first("RequestThrottled", true));
    assert_eq!(drain(&service).accepted(), 1);
    assert_eq!(service.inputs(DELETE).len(), 2);
}

#[test]
fn a_delete_that_is_refused_to_the_end_is_undone_and_given_back() {
    let service = Service::queue([message(1)], |call| {
        let refuses = call.operation == DELETE;
        refuses.then_some(Answer::Error(403, "RequestThrottled", "slowly"))
    });
    let report = drain(&service);
    assert_eq!((report.accepted(), report.released()), (0, 1));
}

#[test]
fn a_delete_without_an_answer_is_unknown_and_is_not_sent_again_by_the_sdk() {
    let service = first(1, DELETE, |_| Answer::HangUp);
    assert_eq!(drain(&service).unknown(), 1);
    assert_eq!(service.inputs(DELETE).len(), 1, "nobody could say whether the first was applied");
}

#[test]
fn a_fault_of_the_service_leaves_a_delete_unknown() {
    let service = first(1, DELETE, |_| Answer::Error(500, "InternalError", "oops"));
    assert_eq!(drain(&service).unknown(), 1);
    let service = first(1, DELETE, |call| call.done_but_first("InternalError", false));
    assert_eq!(drain(&service).unknown(), 1);
}

#[test]
fn an_entry_that_the_answer_does_not_mention_is_unknown() {
    let nothing = |_: &Call| Answer::Json(serde_json::json!({"Successful": [], "Failed": []}));
    let service = first(1, DELETE, nothing);
    assert_eq!(drain(&service).unknown(), 1);
}

#[test]
fn a_stale_receipt_is_lost() {
    let service = first(1, DELETE, |call| call.done_but_first("ReceiptHandleIsInvalid", true));
    assert_eq!(drain(&service).lost(), 1);
    let service = first(1, DELETE, |_| {
        let text = "Value h-1 for parameter ReceiptHandle is invalid. Reason: The receipt handle has \
                    expired.";
        Answer::Error(400, "InvalidParameterValue", text)
    });
    assert_eq!(drain(&service).lost(), 1);
    let service = first(1, HIDE, |call| {
        call.done_but_first("AWS.SimpleQueueService.MessageNotInflight", true)
    });
    assert_eq!(drain_badly(&service).lost(), 1);
}

#[test]
fn a_failed_message_is_visible_again_after_its_delay_in_whole_seconds() {
    let service = Service::queue([message(1)], |_| None);
    assert_eq!(drain_badly(&service).released(), 1);
    let hidden = service.inputs(HIDE);
    assert_eq!(hidden.len(), 1);
    assert_eq!(hidden[0]["Entries"][0]["VisibilityTimeout"], 3, "2.5 seconds");
    assert!(service.inputs(DELETE).is_empty());
}

#[test]
fn a_delay_beyond_the_twelve_hours_is_none() {
    let service = Service::queue([message(1)], |call| {
        let beyond = call.operation == HIDE && call.input["Entries"][0]["VisibilityTimeout"] != 0;
        beyond.then(|| {
            let text = "Value 3 for parameter VisibilityTimeout is invalid. Reason: Total \
                        VisibilityTimeout for the message is beyond the limit [43200 seconds]";
            let failed = serde_json::json!({
                "Id": "0", "Code": "InvalidParameterValue", "Message": text, "SenderFault": true
            });
            Answer::Json(serde_json::json!({"Successful": [], "Failed": [failed]}))
        })
    });
    assert_eq!(drain_badly(&service).released(), 1);
    assert_eq!(service.inputs(HIDE).len(), 2);
}

#[test]
fn a_queue_that_is_gone_ends_the_drain_when_a_delete_finds_out() {
    let service = first(1, DELETE, |_| {
        Answer::Error(400, "AWS.SimpleQueueService.NonExistentQueue", "it is gone")
    });
    let link = Link::new(orders(&service.address)).settle_within(Duration::from_millis(250));
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
    // Not until it is idle: it would go on.
    let drain = drain.timeout(Duration::from_secs(20));
    let error = smol::block_on(drain.into_future()).unwrap_err().into_error();
    assert!(format!("{error:#}").contains("deleting from orders"), "{error:#}");
}

#[test]
fn what_the_last_release_finds_out_ends_the_drain_as_well() {
    let service = Service::queue([message(1), message(2)], |call| {
        let refuses = call.operation == HIDE;
        refuses.then_some(Answer::Error(400, "AccessDeniedException", "not you"))
    });
    let link = Link::new(orders(&service.address)).settle_within(Duration::from_millis(250));
    let (context, stop) = (StepContext::new("orders"), CancellationSource::new());
    let drain = fan_in(&context, [link.source()], async |_, _| {
        stop.cancel();
        Ok::<_, BoxError>(())
    });
    let drain = drain.shutdown(stop.token());
    let failure = smol::block_on(drain.into_future()).unwrap_err();
    assert_eq!((failure.report().accepted(), failure.report().abandoned()), (1, 1));
    let text = format!("{:#}", failure.error());
    assert!(text.contains("changing the visibility in orders: AccessDenied"), "{text}");
}
