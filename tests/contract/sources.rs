//! Rules 2.2, 6.2, 7.19: what a source is asked to be, and who takes it.

use std::time::Duration;

use async_channel::Receiver;
use futures::executor::block_on;
use futures::{StreamExt, TryStreamExt, stream};
use watershed::channels::{
    AnySource, Unsettled, broadcast, fan_out, merge, merge_with_strategy, merged, mixed, select,
    weighted, window,
};
use watershed::{Error, ErrorCode, Source, StepContext, Tuned};

const SECOND: Duration = Duration::from_secs(1);

fn context() -> StepContext {
    StepContext::new("t")
}

fn filled(messages: impl IntoIterator<Item = u32>) -> Receiver<u32> {
    let (sender, receiver) = async_channel::unbounded();
    messages.into_iter().for_each(|message| sender.try_send(message).expect("it is open"));
    receiver
}

/// The errors of every operation that is given this source.
fn everywhere<S>(make: impl Fn() -> S) -> Vec<(&'static str, Error)>
where
    S: Source<Message = u32, Receipt = Unsettled> + Send,
{
    let (sender, _receiver) = async_channel::unbounded();
    let merging = merge(&context(), [make()], sender.clone()).into_future();
    let by_strategy = merge_with_strategy(&context(), [make()], sender.clone(), weighted([1]));
    let broadcasting = broadcast(&context(), make(), [sender.clone()]).into_future();
    let (fanning_out, _branches) = fan_out(&context(), make(), 2, 4);
    let mut selecting = select(&context()).pass(make());
    vec![
        ("merge", block_on(merging).expect_err("refused")),
        ("strategy", block_on(by_strategy.into_future()).expect_err("refused")),
        ("merged", block_on(merged(&context(), [make()]).next()).unwrap().expect_err("refused")),
        ("broadcast", block_on(broadcasting).expect_err("refused").into_error()),
        ("fan_out", block_on(fanning_out.into_future()).expect_err("refused").into_error()),
        ("select", block_on(selecting.run()).expect_err("refused")),
        ("windows", window(&context(), make()).count(1).stream().expect_err("refused")),
    ]
}

fn assert_refused<S>(make: impl Fn(Receiver<u32>) -> S, says: &str)
where
    S: Source<Message = u32, Receipt = Unsettled> + Send,
{
    let source = filled([1, 2]);
    for (operation, error) in everywhere(|| make(source.clone())) {
        assert_eq!(error.code(), ErrorCode::Validation, "{operation}");
        assert!(error.to_string().contains(says), "{operation}: {error}");
    }
    assert_eq!(source.len(), 2, "nothing was taken");
}

// Rules 2.2, 6.2
#[test]
fn an_option_of_a_source_that_is_zero_is_refused_by_every_operation_before_anything_is_taken() {
    assert_refused(|source| source.weighted(0), "weight");
    assert_refused(|source| source.rate(0, SECOND), "rate");
    assert_refused(|source| source.rate(1, Duration::ZERO), "rate");
    assert_refused(|source| source.weighted(0).named("behind a name"), "weight");
    assert_refused(|source| source.weighted(0).erased(), "weight");
    assert_refused(|source| source.named("inner").rate(0, SECOND).prioritized(7), "rate");
}

// Rule 2.2
#[test]
fn an_option_of_a_source_that_only_a_drain_heeds_is_refused_by_the_other_operations() {
    assert_refused(|source| source.weighted(2), "`weighted` of a source has no effect in");
    assert_refused(|source| source.prioritized(1), "`prioritized` of a source has no effect in");
    assert_refused(|source| source.rate(5, SECOND), "`rate` of a source has no effect in");
}

// Rules 2.2, 6.2
#[test]
fn a_limit_of_zero_is_refused_before_anything_is_taken() {
    let source = filled([1, 2]);
    let (sender, receiver) = async_channel::unbounded();
    let code = |result: Result<(), Error>| result.map_err(|error| error.code());
    let refused = Err(ErrorCode::Validation);
    let none = merge(&context(), [source.clone()], sender.clone()).quantum(0);
    assert_eq!(code(block_on(none.into_future()).map(drop)), refused);
    let none = merged(&context(), [source.clone()]).quantum(0);
    assert_eq!(code(block_on(none.try_collect::<Vec<_>>()).map(drop)), refused);
    let shares = weighted([3, 0]);
    let none = merge_with_strategy(&context(), [source.clone(), filled([])], sender, shares);
    assert_eq!(code(block_on(none.into_future()).map(drop)), refused);
    for (branches, capacity) in [(0, 4), (4, 0), (1, usize::MAX)] {
        let (none, readers) = fan_out(&context(), source.clone(), branches, capacity);
        assert_eq!(readers.len(), branches);
        assert_eq!(code(block_on(none.into_future()).map(drop).map_err(Error::from)), refused);
        assert!(readers.iter().all(Receiver::is_closed), "a branch ends with its broadcast");
    }
    assert_eq!((source.len(), receiver.len()), (2, 0));
}

// Rule 2.2
#[test]
fn a_limit_is_no_size() {
    let (sender, receiver) = async_channel::unbounded();
    let merging = merge(&context(), [filled([1, 2])], sender).quantum(usize::MAX);
    assert_eq!(block_on(merging.into_future()).expect("no failure").delivered(), 2);
    assert_eq!(receiver.len(), 2);
    let windows = window(&context(), filled([1, 2])).count(usize::MAX).stream().expect("valid");
    let windows: Vec<_> = block_on(windows.try_collect()).expect("no failure");
    assert_eq!(windows, [[1, 2]]);
}

#[test]
fn sources_of_different_types_make_one_list() {
    let faults = stream::iter([Ok::<u32, std::io::Error>(4)]).faults();
    let sources = mixed((filled([1, 2]), stream::iter([3]).named("three"), faults));
    let (sender, receiver) = async_channel::unbounded();
    let report = block_on(merge(&context(), sources, sender).into_future()).expect("no failure");
    let sources: Vec<_> =
        report.sources().iter().map(|source| (source.name(), source.delivered())).collect();
    assert_eq!(sources, [("source 0", 2), ("three", 1), ("source 2", 1)]);
    assert_eq!(block_on(receiver.collect::<Vec<_>>()), [1, 2, 3, 4]);
}

#[test]
fn a_box_changes_nothing_of_a_source() {
    let numbers = || stream::iter([Ok(1), Err("connection lost")]).faults().named("orders");
    let error = |source: AnySource<'_, u32>| {
        let merged = merged(&context(), [source]);
        block_on(merged.try_collect::<Vec<_>>()).expect_err("the fault")
    };
    for boxed in [numbers().erased(), AnySource::from(Box::pin(numbers()))] {
        let error = error(boxed);
        assert_eq!((error.code(), error.source_name()), (ErrorCode::Source, Some("orders")));
    }
}

#[test]
fn a_source_with_several_options_has_the_type_of_one_with_one() {
    let _: [Tuned<Receiver<u32>>; 3] = [
        filled([]).weighted(2),
        filled([]).weighted(2).prioritized(1),
        filled([]).prioritized(0).rate(3, SECOND).weighted(5),
    ];
}
