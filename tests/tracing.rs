//! Rule 6.3: spans and events reach a real subscriber of the `tracing` facade.

mod support;

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use support::{block_on, filled, yields};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use watershed::{BoxError, CompensationPolicy, OnFailure, Source, StepContext, fan_in, labelled};

/// Writes down what happens: spans by name, fields and parent.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() != "registered_at" {
            write!(self.0, " {}={value:?}", field.name()).expect("a string takes all");
        }
    }
}

impl Log {
    fn note(&self, head: String, record: impl FnOnce(&mut Text)) {
        let mut text = Text(head);
        record(&mut text);
        self.0.lock().expect("no panic").push(text.0);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no panic"))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).expect("it is new");
        let parent = span.parent().map_or("-", |parent| parent.name());
        let head = format!("{parent}/{}", span.name());
        self.note(head, |text| attributes.record(text));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let name = context.span(id).expect("it is open").name();
        self.note(format!("{name} ends"), |text| values.record(text));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let span = context.lookup_current().map_or("-", |span| span.name());
        self.note(format!("{} in {span}", event.metadata().level()), |text| event.record(text));
    }
}

fn logged(work: impl FnOnce()) -> Vec<String> {
    let log = Log::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    tracing::subscriber::with_default(subscriber, work);
    log.take()
}

#[test]
fn a_drain_and_its_messages_are_spans_with_their_outcomes() {
    let lines = logged(|| {
        let context = StepContext::new("orders");
        let drain = fan_in(&context, [filled([1, 2]).named("web")], |message, _| async move {
            tracing::info!(message, "handling");
            yields(1).await;
            tracing::info!("still there");
            if message == 2 { Err("no") } else { Ok(()) }
        });
        block_on(drain).expect_err("the second fails");
    });
    let expected = [
        r#"-/drain step="orders""#,
        r#"drain/message source="web" number=1"#,
        "INFO in message message=1",
        "INFO in message message=still there",
        r#"message ends outcome="ok""#,
        r#"drain/message source="web" number=2"#,
        "INFO in message message=2",
        "INFO in message message=still there",
        r#"message ends outcome="error.handler""#,
        r#"drain ends outcome="error.handler""#,
    ];
    let lines: Vec<_> = lines.iter().map(|line| line.replace(" message=handling", "")).collect();
    assert_eq!(lines, expected);
}

#[test]
fn every_compensation_that_ends_is_an_event_within_the_message_that_it_undoes() {
    let lines = logged(|| {
        let context = StepContext::new("orders");
        let drain = fan_in(&context, [filled([1])], |_, step: StepContext| async move {
            step.register_compensation(labelled("seat", || async {}));
            step.register_compensation(|| async { Err("no connection") });
            Err::<(), BoxError>("declined".into())
        });
        block_on(drain.on_failure(OnFailure::Continue)).expect("the drain goes on");
        let policy = CompensationPolicy::sequential_reverse();
        let again = context.scope().roll_back(&policy);
        futures::executor::block_on(again).expect_err("it fails again");
        context.scope().clear();
    });
    let expected = [
        r#"-/drain step="orders""#,
        r#"drain/message source="source 0" number=1"#,
        "WARN in message message=a compensation failed attempts=1 error=\"the compensation failed: no connection\"",
        r#"DEBUG in message message=compensated label="seat" attempts=1"#,
        r#"message ends outcome="error.handler""#,
        r#"drain ends outcome="ok""#,
        "WARN in - message=a compensation failed attempts=1 error=\"the compensation failed: no connection\"",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_message_whose_handler_was_dropped_says_so() {
    let lines = logged(|| {
        let context = StepContext::new("orders");
        let drain = fan_in(&context, [filled([1])], |_, _| {
            futures::future::pending::<Result<(), BoxError>>()
        });
        let mut drain = drain.into_future();
        assert!(support::poll_times(&mut drain, 1).is_none());
        drop(drain);
    });
    assert!(lines.contains(&String::from(r#"message ends outcome="dropped""#)), "{lines:?}");
}
