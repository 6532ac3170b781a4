//! The dead-letter queue: what goes there, and that nothing is deleted before it is there.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use support::service::{Answer, Call, Service, message};
use support::{queue, url};
use watershed::transport::Link;
use watershed::{BoxError, Error, Failure, FanInReport, Source, StepContext, fan_in};

const SEND: &str = "SendMessageBatch";
const DELETE: &str = "DeleteMessageBatch";

/// Drains messages that nobody can read.
fn drain(service: &Service, from: &str, to: &str) -> Result<FanInReport, Error> {
    let orders = queue(&service.address, from).letters(url(&service.address, to));
    let link = Link::new(orders).settle_within(Duration::from_secs(2));
    let source = link.source().decoded(|_| Err::<u32, _>("it is no order"));
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [source], async |_, _| Ok::<_, BoxError>(())).until_idle();
    smol::block_on(drain.into_future()).map_err(Failure::into_error)
}

/// The entry of the only letter that was sent with so many calls.
fn letter(service: &Service, calls: usize) -> Value {
    let sent = service.inputs(SEND);
    assert_eq!(sent.len(), calls, "{sent:?}");
    sent[calls - 1]["Entries"][0].clone()
}

fn with_attributes(count: u32) -> Value {
    let mut message = message(1);
    for number in 0..count {
        let value = json!({"DataType": "String", "StringValue": number.to_string()});
        message["MessageAttributes"][format!("a{number}")] = value;
    }
    message
}

/// Whether a letter comes with what it has failed with.
fn has_error(call: &Call) -> bool {
    !call.input["Entries"][0]["MessageAttributes"]["watershed-error"].is_null()
}

#[test]
fn a_letter_is_the_message_as_it_came_with_what_it_failed_with() {
    let service = Service::queue([with_attributes(2)], |_| None);
    let report = drain(&service, "orders", "dead").unwrap();
    assert_eq!((report.fetched(), report.rejected()), (1, 1));

    let letter = letter(&service, 1);
    assert_eq!(letter["MessageBody"], "1");
    assert_eq!(letter["MessageAttributes"]["a1"]["StringValue"], "1");
    let error = letter["MessageAttributes"]["watershed-error"]["StringValue"].as_str().unwrap();
    assert!(error.contains("it is no order"), "{error}");
    assert!(letter["MessageGroupId"].is_null(), "it is no FIFO queue");

    let order: Vec<_> = service.calls().into_iter().map(|call| call.operation).collect();
    let place = |operation: &str| order.iter().position(|it| it == operation);
    assert!(place(SEND) < place(DELETE), "{order:?}");
    assert_eq!(service.inputs(SEND)[0]["QueueUrl"], url(&service.address, "dead"));
}

#[test]
fn nothing_is_deleted_before_its_letter_is_there() {
    let calls = AtomicUsize::new(0);
    let service = Service::queue([message(1)], move |call| {
        let is_send = call.operation == SEND;
        let number = if is_send { calls.fetch_add(1, Ordering::Relaxed) } else { usize::MAX };
        match number {
            0 => Some(Answer::Error(403, "RequestThrottled", "slowly")),
            1 => Some(Answer::HangUp),
            2 => Some(call.done_but_first("InternalError", false)),
            _ => None,
        }
    });
    assert_eq!(drain(&service, "orders", "dead").unwrap().rejected(), 1);
    let order: Vec<_> = service.calls().into_iter().map(|call| call.operation).collect();
    let sent = order.iter().filter(|it| *it == SEND).count();
    let deleted = order.iter().position(|it| it == DELETE).unwrap();
    assert_eq!(sent, 4, "{order:?}");
    assert!(order[deleted..].iter().all(|it| it != SEND), "{order:?}");
}

#[test]
fn a_letter_is_stored_once_where_its_delete_is_sent_again() {
    let calls = AtomicUsize::new(0);
    let service = Service::queue([message(1)], move |call| {
        let first = call.operation == DELETE && calls.fetch_add(1, Ordering::Relaxed) == 0;
        first.then_some(Answer::Error(403, "RequestThrottled", "slowly"))
    });
    assert_eq!(drain(&service, "orders", "dead").unwrap().rejected(), 1);
    assert_eq!((service.inputs(SEND).len(), service.inputs(DELETE).len()), (1, 2));
}

#[test]
fn what_is_added_gives_way_to_the_message() {
    let service = Service::queue([message(1)], |call| {
        let too_long = call.operation == SEND && has_error(call);
        too_long.then_some(Answer::Error(
            400,
            "AWS.SimpleQueueService.BatchRequestTooLong",
            "1048577 bytes",
        ))
    });
    assert_eq!(drain(&service, "orders", "dead").unwrap().rejected(), 1);
    assert!(letter(&service, 2)["MessageAttributes"].is_null());

    // No room for an eleventh attribute.
    let service = Service::queue([with_attributes(10)], |_| None);
    assert_eq!(drain(&service, "orders", "dead").unwrap().rejected(), 1);
    assert!(letter(&service, 1)["MessageAttributes"]["watershed-error"].is_null());
    assert_eq!(letter(&service, 1)["MessageAttributes"].as_object().unwrap().len(), 10);
}

#[test]
fn one_letter_that_is_too_large_does_not_keep_the_others() {
    let service = Service::queue((0..6).map(message), |call| {
        let bodies = call.each("MessageBody");
        let is_large = bodies.len() > 1 || has_error(call) && bodies.contains(&"3".to_owned());
        (call.operation == SEND && is_large).then_some(Answer::Error(
            400,
            "AWS.SimpleQueueService.BatchRequestTooLong",
            "1048577 bytes",
        ))
    });
    assert_eq!(drain(&service, "orders", "dead").unwrap().rejected(), 6);
}

#[test]
fn a_message_that_no_letter_can_be_made_of_ends_the_drain_with_its_size_and_the_limit() {
    let mut large = with_attributes(1);
    large["Body"] = json!("x".repeat(3_000));
    let service = Service::queue([large], |call| match call.operation.as_str() {
        SEND => Some(Answer::Error(400, "InvalidParameterValue", "shorter than 2048 bytes")),
        "GetQueueAttributes" => {
            Some(Answer::Json(json!({"Attributes": {"MaximumMessageSize": "2048"}})))
        }
        _ => None,
    });
    let orders = queue(&service.address, "orders").letters(url(&service.address, "dead"));
    let link = Link::new(orders).settle_within(Duration::from_millis(250));
    let source = link.source().decoded(|_| Err::<u32, _>("it is no order"));
    let context = StepContext::new("orders");
    // Not until it is idle: it would go on for ever.
    let drain = fan_in(&context, [source], async |_, _| Ok::<_, BoxError>(()));
    let failure = smol::block_on(drain.into_future()).unwrap_err();
    let text = format!("{:#}", failure.error());
    // The body, and an attribute: name, type and value.
    assert!(text.contains("3009 bytes"), "{text}");
    assert!(text.contains("its limit is 2048 bytes"), "{text}");
    assert!(service.inputs(DELETE).is_empty());
}

#[test]
fn to_a_fifo_queue_a_letter_has_its_own_group_and_an_id_of_its_delivery() {
    let mut first = message(7);
    first["Attributes"] = json!({"ApproximateReceiveCount": "3", "MessageGroupId": "customer-1"});
    let service = Service::queue([first], |_| None);
    assert_eq!(drain(&service, "orders.fifo", "dead.fifo").unwrap().rejected(), 1);
    let sent = letter(&service, 1);
    assert_eq!(sent["MessageGroupId"], "customer-1");
    assert_eq!(sent["MessageDeduplicationId"], "orders.fifo:m-7:3");

    // From a queue without groups, each is a group of its own.
    let service = Service::queue([message(7)], |_| None);
    assert_eq!(drain(&service, "orders", "dead.fifo").unwrap().rejected(), 1);
    let sent = letter(&service, 1);
    assert_eq!(
        (&sent["MessageGroupId"], &sent["MessageDeduplicationId"]),
        (&json!("m-7"), &json!("orders:m-7:1"))
    );
}

#[test]
fn a_dead_letter_queue_that_is_gone_ends_the_drain() {
    let service = Service::queue([message(1)], |call| {
        let gone = call.operation == SEND;
        gone.then_some(Answer::Error(400, "AWS.SimpleQueueService.NonExistentQueue", "gone"))
    });
    let orders = queue(&service.address, "orders").letters(url(&service.address, "dead"));
    let link = Link::new(orders).settle_within(Duration::from_millis(250));
    let source = link.source().decoded(|_| Err::<u32, _>("it is no order"));
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [source], async |_, _| Ok::<_, BoxError>(()));
    let failure = smol::block_on(drain.into_future()).unwrap_err();
    let text = format!("{:#}", failure.error());
    assert!(text.contains("sending a letter to dead"), "{text}");
    assert!(service.inputs(DELETE).is_empty());
}
