//! What is asked of the service and when, and what its answers to a receive mean.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use support::service::{Answer, Call, Service, message};
use support::{orders, queue, url};
use watershed::transport::Link;
use watershed::{
    BoxError, CancellationSource, Error, ErrorCode, Failure, FanInReport, Letter, Source,
    StepContext, fan_in,
};
use watershed_sqs::Queue;

const RECEIVE: &str = "ReceiveMessage";
const ATTRIBUTES: &str = "GetQueueAttributes";

/// Drains until `handled` messages are done.
fn drain(link: &Link<Queue>, handled: usize) -> Result<FanInReport, Error> {
    let (done, count) = (CancellationSource::new(), AtomicUsize::new(0));
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [link.source()], async |_, _| {
        if count.fetch_add(1, Ordering::Relaxed) + 1 == handled {
            done.cancel();
        }
        Ok::<_, BoxError>(())
    })
    .shutdown(done.token())
    .timeout(Duration::from_secs(20));
    smol::block_on(drain.into_future()).map_err(Failure::into_error)
}

/// A queue of one message, where the first receives have these answers.
fn after(answers: Vec<Answer>) -> Service {
    let calls = AtomicUsize::new(0);
    Service::queue([message(1)], move |call| {
        let is_receive = call.operation == RECEIVE;
        let number = if is_receive { calls.fetch_add(1, Ordering::Relaxed) } else { usize::MAX };
        answers.get(number).cloned()
    })
}

#[test]
fn a_receive_says_how_long_its_messages_are_invisible_and_how_long_it_waits() {
    let service = Service::queue([message(1)], |_| None);
    let link = Link::new(orders(&service.address).visibility(Duration::from_millis(23_500)));
    drain(&link, 1).unwrap();
    let first = &service.inputs(RECEIVE)[0];
    assert_eq!(first["VisibilityTimeout"], 24);
    assert_eq!(first["WaitTimeSeconds"], 4, "a sixth");
    assert_eq!(first["MaxNumberOfMessages"], 10);
    assert_eq!(first["QueueUrl"], url(&service.address, "orders"));

    let service = Service::queue([message(1)], |_| None);
    let link = Link::new(orders(&service.address).wait(Duration::from_secs(3)));
    drain(&link, 1).unwrap();
    let first = &service.inputs(RECEIVE)[0];
    assert_eq!((&first["VisibilityTimeout"], &first["WaitTimeSeconds"]), (&json!(60), &json!(3)));

    // Nor longer than a third of the visibility.
    let service = Service::queue([message(1)], |_| None);
    let queue = orders(&service.address).visibility(Duration::from_secs(9));
    drain(&Link::new(queue.wait(Duration::from_secs(4))), 1).unwrap();
    assert_eq!(service.inputs(RECEIVE)[0]["WaitTimeSeconds"], 3);

    // No longer than the drain wants to wait at its end.
    let service = Service::queue([message(1)], |_| None);
    let link = Link::new(orders(&service.address)).settle_within(Duration::from_secs(2));
    drain(&link, 1).unwrap();
    assert_eq!(service.inputs(RECEIVE)[0]["WaitTimeSeconds"], 2);
}

#[test]
fn an_empty_answer_is_no_end() {
    let service = after(vec![Answer::Json(json!({})), Answer::Json(json!({"Messages": []}))]);
    let report = drain(&Link::new(orders(&service.address)), 1).unwrap();
    assert_eq!(report.accepted(), 1);
}

#[test]
fn what_passes_is_waited_for() {
    let service = after(vec![
        Answer::Error(403, "OverLimit", "too many in flight"),
        Answer::Error(403, "RequestThrottled", "slowly"),
        Answer::Error(503, "ServiceUnavailable", "later"),
        Answer::HangUp,
    ]);
    let report = drain(&Link::new(orders(&service.address)), 1).unwrap();
    assert_eq!(report.accepted(), 1);
    assert_eq!(service.inputs(RECEIVE)[..5].len(), 5);
}

#[test]
fn what_lasts_ends_the_drain_with_the_words_of_the_service() {
    for (status, code) in [
        (400, "AWS.SimpleQueueService.NonExistentQueue"),
        (400, "AccessDeniedException"),
        (403, "InvalidClientTokenId"),
    ] {
        let service = after(vec![Answer::Error(status, code, "what the service says")]);
        let error = drain(&Link::new(orders(&service.address)), 1).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("receiving from orders") && text.contains(code), "{text}");
        assert!(text.contains("what the service says"), "{text}");
        assert_eq!(service.inputs(RECEIVE).len(), 1);
    }
}

#[test]
fn a_handler_sees_what_the_service_knows_of_its_message() {
    let mut first = message(1);
    first["Attributes"]["ApproximateReceiveCount"] = json!("3");
    first["MessageAttributes"] = json!({
        "kind": {"DataType": "String", "StringValue": "new"},
        "sum": {"DataType": "Binary", "BinaryValue": "AQI="},
    });
    let service = Service::queue([first], |_| None);
    let link = Link::new(orders(&service.address));
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [link.source()], async |message, step| {
        assert_eq!(message.body(), Some("1"));
        let facts = &step.deliveries()[0];
        assert_eq!((facts.id.as_deref(), facts.deliveries), (Some("m-1"), Some(3)));
        let headers = [("kind".to_owned(), b"new".to_vec()), ("sum".to_owned(), vec![1, 2])];
        assert_eq!(facts.headers, headers);
        let receipt = step.receipt::<watershed_sqs::Receipt>(0).ok_or("there is no receipt")?;
        assert_eq!(receipt.handle(), "h-1");
        Ok::<_, BoxError>(())
    });
    smol::block_on(drain.until_idle().into_future()).unwrap();
    let asked = &service.inputs(RECEIVE)[0];
    assert_eq!(asked["MessageAttributeNames"], json!(["All"]));
    assert_eq!(asked["MessageSystemAttributeNames"], json!(["All"]));
}

#[test]
fn what_arrives_after_a_stop_is_given_back_and_not_forgotten() {
    let (held, holds) = mpsc::channel();
    let (go, goes) = mpsc::channel::<()>();
    let goes = std::sync::Mutex::new(goes);
    let service = Service::queue([message(1), message(2)], move |call| {
        if call.operation == RECEIVE {
            let _ = held.send(());
            // The answer comes when the test says so.
            let _ = goes.lock().unwrap().recv();
        }
        None
    });
    let link = Link::new(orders(&service.address));
    let stop = CancellationSource::new();
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()))
        .shutdown(stop.token())
        .into_future();
    std::thread::spawn(move || {
        let _ = holds.recv();
        stop.cancel();
        let _ = go.send(());
    });
    let report = smol::block_on(drain).unwrap();
    assert_eq!((report.handled(), report.fetched(), report.released()), (0, 2, 2));
    let given_back = service.inputs("ChangeMessageVisibilityBatch");
    let entries = given_back.iter().flat_map(|input| input["Entries"].as_array().unwrap().clone());
    assert!(entries.map(|entry| entry["VisibilityTimeout"].clone()).all(|it| it == 0));
    assert_eq!(service.inputs(RECEIVE).len(), 1, "nothing more is received");
}

/// A queue that says this of its redrive policy.
fn with_policy(policy: &'static str) -> Service {
    Service::queue([message(1), message(2)], move |call| {
        let asked = call.operation == ATTRIBUTES;
        asked.then(|| Answer::Json(json!({"Attributes": {"RedrivePolicy": policy}})))
    })
}

#[test]
fn a_queue_that_puts_aside_before_the_drain_does_is_refused_with_both_numbers() {
    let service =
        with_policy(r#"{"deadLetterTargetArn":"arn:aws:sqs:eu:1:dead","maxReceiveCount":3}"#);
    let link = Link::new(orders(&service.address)).max_deliveries(3);
    let error = drain(&link, 1).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Validation);
    let text = error.to_string();
    assert!(text.contains("maxReceiveCount of orders is 3"), "{text}");
    assert!(text.contains("`max_deliveries`, which is 3"), "{text}");
    assert!(service.inputs(RECEIVE).is_empty());
}

#[test]
fn the_redrive_policy_is_read_once_and_only_where_it_matters() {
    let by_one = |given: &AtomicUsize| {
        let number = u32::try_from(given.fetch_add(1, Ordering::Relaxed)).unwrap_or(u32::MAX);
        Answer::Json(json!({"Messages": [message(number)]}))
    };
    let given = AtomicUsize::new(0);
    let service = Service::new(move |call| match call.operation.as_str() {
        RECEIVE => by_one(&given),
        ATTRIBUTES => Answer::Json(json!({"Attributes": {
            "RedrivePolicy": r#"{"deadLetterTargetArn":"arn:aws:sqs:eu:1:dead","maxReceiveCount":"4"}"#
        }})),
        _ => call.done(),
    });
    drain(&Link::new(orders(&service.address)), 5).unwrap();
    assert!(service.inputs(ATTRIBUTES).is_empty());
    drain(&Link::new(orders(&service.address)).max_deliveries(3), 5).unwrap();
    assert!(service.inputs(RECEIVE).len() >= 2);
    assert_eq!(service.inputs(ATTRIBUTES).len(), 1);
}

#[test]
fn a_queue_that_is_said_to_be_redriven_has_a_policy() {
    let service = Service::queue([message(1)], |_| None);
    let error = drain(&Link::new(orders(&service.address).redriven()), 1).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Validation);
    assert!(error.to_string().contains("has no redrive policy"), "{error}");
}

#[test]
fn what_cannot_be_handled_goes_back_to_a_queue_that_is_redriven() {
    let policy = r#"{"maxReceiveCount":4}"#;
    let service = with_policy(policy);
    let link = Link::new(orders(&service.address).redriven()).max_deliveries(3);
    let context = StepContext::new("orders");
    let source = link.source().decoded(|_| Err::<u32, _>("no order"));
    let drain = fan_in(&context, [source], async |_, _| Ok::<_, BoxError>(()));
    let report = smol::block_on(drain.until_idle().into_future()).unwrap();
    assert_eq!((report.released(), report.rejected()), (2, 0));
}

#[test]
fn options_that_do_not_go_together_are_refused_before_anything_is_received() {
    let service = Service::queue([message(1)], |_| None);
    let orders = || orders(&service.address);
    let own = url(&service.address, "orders");
    let dead = url(&service.address, "dead");
    for (queue, says) in [
        (orders().visibility(Duration::ZERO), "visibility"),
        (orders().visibility(Duration::from_secs(43_201)), "visibility"),
        (orders().wait(Duration::from_millis(900)), "wait"),
        (orders().wait(Duration::from_secs(21)), "wait"),
        (orders().letters(own), "its own dead-letter queue"),
        (orders().letters(dead).redriven(), "one has no effect"),
    ] {
        let error = drain(&Link::new(queue), 1).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Validation);
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(service.calls().is_empty());
}

#[test]
fn a_message_that_came_too_often_is_not_handled() {
    let mut often = message(1);
    often["Attributes"]["ApproximateReceiveCount"] = json!("4");
    let service = Service::queue([often], |_: &Call| None);
    let link = Link::new(queue(&service.address, "orders")).max_deliveries(3);
    let context = StepContext::new("orders");
    let letters = std::sync::Mutex::new(Vec::<Value>::new());
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()))
        .dead_letters(async |letter: Letter<_>| {
            letters.lock().unwrap().push(json!(letter.deliveries()[0].deliveries));
        })
        .until_idle();
    let report = smol::block_on(drain.into_future()).unwrap();
    assert_eq!((report.handled(), report.rejected()), (0, 1));
    assert_eq!(letters.into_inner().unwrap(), [json!(4)]);
    assert_eq!(service.inputs("DeleteMessageBatch").len(), 1);
}
