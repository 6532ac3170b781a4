//! Rule 6.3: the counters reach a real recorder of the `metrics` facade.

mod support;

use std::collections::BTreeMap;

use futures::stream;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use support::{block_on, filled, roll_back};
use watershed::{BoxError, Commit, StepContext, channels, fan_in};

#[test]
fn every_counter_and_both_histograms_reach_the_recorder() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().expect("no other recorder is there");
    let before = watershed::diagnostics::Snapshot::now();

    let context = StepContext::new("t");
    let drain = fan_in(&context, [filled([1, 2]), filled([3])], |_, step: StepContext| {
        step.register_compensation(|| async {});
        async { Ok::<_, BoxError>(()) }
    });
    block_on(drain.commit(Commit::Never)).expect("no failure");
    assert_eq!(roll_back(context.scope()), 3);
    let drain = fan_in(&context, [filled([1])], |_, _| async { Err::<(), _>("no") });
    block_on(drain).expect_err("it fails");
    let mut select = channels::Select::new(&context).pass(stream::iter([1]));
    block_on(select.run()).expect("one is ready");

    let now = watershed::diagnostics::Snapshot::now().since(&before);
    let mut values = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        values.insert(key.key().name().to_owned(), value);
    }
    let counter = |name: &str| match values.get(name) {
        Some(DebugValue::Counter(value)) => *value,
        other => panic!("{name}: {other:?}"),
    };
    let expected = [
        ("watershed_drains_started_total", now.drains_started, 2),
        ("watershed_drains_succeeded_total", now.drains_succeeded, 1),
        ("watershed_drains_failed_total", now.drains_failed, 1),
        ("watershed_messages_succeeded_total", now.messages_succeeded, 3),
        ("watershed_messages_failed_total", now.messages_failed, 1),
        ("watershed_compensations_run_total", now.compensations_run, 3),
        ("watershed_selects_succeeded_total", now.selects_succeeded, 1),
    ];
    for (name, counted, expected) in expected {
        assert_eq!((counter(name), counted), (expected, expected), "{name}");
    }
    for (name, count) in [("watershed_drain_seconds", 2), ("watershed_select_seconds", 1)] {
        match &values[name] {
            DebugValue::Histogram(samples) => assert_eq!(samples.len(), count, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}
