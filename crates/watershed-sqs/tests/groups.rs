//! FIFO queues: the message group is the order. Against a service that answers on demand, since an
//! emulator holds back a whole group while one of its messages is out, and hides what goes wrong.

mod support;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use support::queue;
use support::service::{Answer, Service, message};
use watershed::transport::Link;
use watershed::{
    BoxError, CancellationSource, ErrorCode, OnFailure, RetryPolicy, StepContext, fan_in, timers,
};

const RECEIVE: &str = "ReceiveMessage";

/// The messages 0 to 9, by turns of the groups 0 and 1.
fn messages() -> Vec<Value> {
    let grouped = |number: u32| {
        let mut message = message(number);
        message["Attributes"]["MessageGroupId"] = json!(format!("g-{}", number % 2));
        message
    };
    (0..10).map(grouped).collect()
}

fn number(message: &watershed_sqs::aws_sdk_sqs::types::Message) -> u32 {
    message.body().and_then(|body| body.parse().ok()).unwrap_or(u32::MAX)
}

/// What became of each message, in the order in which the service was told: the seconds after which it
/// is visible again, or nothing where it was deleted.
fn told(service: &Service) -> Vec<(String, Option<u64>)> {
    let mut told = Vec::new();
    for call in service.calls() {
        let entries = call.input["Entries"].as_array().cloned().unwrap_or_default();
        for entry in entries {
            let handle = entry["ReceiptHandle"].as_str().unwrap_or_default().to_owned();
            told.push((handle, entry["VisibilityTimeout"].as_u64()));
        }
    }
    told
}

#[test]
fn a_group_is_handled_in_its_order_and_others_at_once_without_being_asked() {
    let service = Service::queue(messages(), |_| None);
    let link = Link::new(queue(&service.address, "orders.fifo"));
    let context = StepContext::new("orders");
    let (began, at_once) = (Mutex::new(BTreeMap::<_, Vec<_>>::new()), Mutex::new((0, 0)));
    let drain = fan_in(&context, [link.source()], async |message, step| {
        let group = step.deliveries()[0].group.clone().ok_or("it has no group")?;
        began.lock().unwrap().entry(group.to_string()).or_default().push(number(&message));
        {
            let mut at_once = at_once.lock().unwrap();
            at_once.0 += 1;
            at_once.1 = at_once.0.max(at_once.1);
        }
        timers::delay(&step, Duration::from_millis(5)).await?;
        at_once.lock().unwrap().0 -= 1;
        Ok::<_, BoxError>(())
    });
    let drain = drain.concurrency(8).until_idle();
    assert_eq!(smol::block_on(drain.into_future()).unwrap().accepted(), 10);
    let began = began.into_inner().unwrap();
    assert_eq!(began["g-0"], [0, 2, 4, 6, 8]);
    assert_eq!(began["g-1"], [1, 3, 5, 7, 9]);
    assert_eq!(at_once.into_inner().unwrap().1, 2, "one of each group");
}

#[test]
fn what_is_behind_a_failed_message_is_visible_again_before_it_is() {
    let service = Service::queue(messages(), |_| None);
    let link = Link::new(queue(&service.address, "orders.fifo"));
    let context = StepContext::new("orders");
    let began = Mutex::new(Vec::new());
    let drain = fan_in(&context, [link.source()], async |message, _| {
        began.lock().unwrap().push(number(&message));
        if number(&message) == 4 { Err("declined") } else { Ok(()) }
    });
    let drain = drain
        .concurrency(8)
        .on_failure(OnFailure::Continue)
        .retry(RetryPolicy::fixed(1, Duration::from_secs(7)))
        .until_idle();
    let report = smol::block_on(drain.into_future()).unwrap();
    assert_eq!((report.accepted(), report.released()), (7, 3));
    let mut began = began.into_inner().unwrap();
    began.retain(|number| number % 2 == 0);
    assert_eq!(began, [0, 2, 4], "nothing behind it is handled");

    let back: Vec<_> = told(&service).into_iter().filter(|it| it.1.is_some()).collect();
    let wanted = [("h-8", 0), ("h-6", 0), ("h-4", 7)];
    assert_eq!(back, wanted.map(|(handle, after)| (handle.to_owned(), Some(after))));
}

#[test]
fn what_is_not_begun_at_the_end_is_given_back_the_last_first() {
    let service = Service::queue(messages(), |_| None);
    let link = Link::new(queue(&service.address, "orders.fifo"));
    let (context, stop) = (StepContext::new("orders"), CancellationSource::new());
    let drain = fan_in(&context, [link.source()], async |_, _| {
        stop.cancel();
        Ok::<_, BoxError>(())
    });
    let report = smol::block_on(drain.shutdown(stop.token()).into_future()).unwrap();
    assert_eq!(report.accepted() + report.released(), 10);
    for group in 0..2 {
        let of_group = |handle: &str| {
            let number = handle.trim_start_matches("h-").parse::<u32>().ok()?;
            (number % 2 == group).then_some(number)
        };
        let back = told(&service).into_iter().filter(|it| it.1.is_some());
        let back: Vec<_> = back.filter_map(|(handle, _)| of_group(&handle)).collect();
        assert!(!back.is_empty() && back.is_sorted_by(|a, b| a > b), "{back:?}");
    }
}

#[test]
fn a_fifo_queue_is_not_unordered_and_a_standard_one_has_no_order_by_group() {
    let service = Service::queue(messages(), |_| None);
    let link = Link::new(queue(&service.address, "orders.fifo"));
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
    let failure = smol::block_on(drain.unordered().until_idle().into_future()).unwrap_err();
    assert_eq!(failure.error().code(), ErrorCode::Validation);
    assert!(service.calls().is_empty());

    let link = Link::new(queue(&service.address, "orders"));
    let drain = fan_in(&context, [link.source()], async |_, step| {
        assert_eq!(step.deliveries()[0].group, None);
        Ok::<_, BoxError>(())
    });
    let report = smol::block_on(drain.unordered().concurrency(8).until_idle().into_future());
    assert_eq!(report.unwrap().accepted(), 10);
}

#[test]
fn a_receive_without_an_answer_is_repeated_under_the_same_id() {
    let calls = AtomicUsize::new(0);
    let service = Service::queue(messages(), move |call| {
        let is_receive = call.operation == RECEIVE;
        let first = is_receive && calls.fetch_add(1, Ordering::Relaxed) == 0;
        first.then_some(Answer::HangUp)
    });
    let link = Link::new(queue(&service.address, "orders.fifo"));
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
    smol::block_on(drain.until_idle().into_future()).unwrap();
    let ids: Vec<_> = service
        .inputs(RECEIVE)
        .into_iter()
        .map(|it| it["ReceiveRequestAttemptId"].clone())
        .collect();
    assert!(ids.len() > 2 && ids[0].is_string(), "{ids:?}");
    assert_eq!(ids[0], ids[1], "the same messages");
    assert_ne!(ids[1], ids[2], "others");
}

#[test]
fn a_standard_queue_knows_no_such_ids() {
    let service = Service::queue(messages(), |_| None);
    let link = Link::new(queue(&service.address, "orders"));
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
    smol::block_on(drain.until_idle().into_future()).unwrap();
    assert!(service.inputs(RECEIVE).iter().all(|it| it["ReceiveRequestAttemptId"].is_null()));
}
