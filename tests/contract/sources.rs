//! Rules 2.2, 6.2, 7.19: what a source is asked to be, and who takes it.

use std::time::Duration;

use async_channel::Receiver;
use futures::executor::block_on;
use futures::{StreamExt, TryStreamExt, stream};
use watershed::channels::{
    AnySource, Select, SourceState, Unsettled, Window, broadcast, fan_out, merge, merge_into, mixed,
};
use watershed::{Configured, Error, ErrorCode, Source, StepContext};

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
    let merging = merge_into(&context(), [make()], sender.clone()).into_future();
    let first = |_: &[SourceState]| Some(0);
    let by_strategy = merge_into(&context(), [make()], sender.clone()).strategy(first);
    let broadcasting = broadcast(&context(), make(), [sender.clone()]).into_future();
    let (fanning_out, _branches) = fan_out(&context(), make(), 2, 4);
    let mut selecting = Select::new(&context()).pass(make());
    vec![
        ("merge", block_on(merging).expect_err("refused")),
        ("strategy", block_on(by_strategy.into_future()).expect_err("refused")),
        ("merged", block_on(merge(&context(), [make()]).next()).unwrap().expect_err("refused")),
        ("broadcast", block_on(broadcasting).expect_err("refused").into_error()),
        ("fan_out", block_on(fanning_out.into_future()).expect_err("refused").into_error()),
        ("select", block_on(selecting.run()).expect_err("refused")),
        ("windows", Window::new(&context(), make()).count(1).stream().expect_err("refused")),
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
fn an_option_of_a_source_that_an_operation_does_not_heed_is_refused_by_it() {
    assert_refused(|source| source.rate(5, SECOND), "`rate` of a source has no effect in");
    let source = filled([1, 2]);
    let of_one = |source: Configured<Receiver<u32>>| {
        let (sender, _receiver) = async_channel::unbounded();
        let broadcasting = broadcast(&context(), source, [sender]);
        block_on(broadcasting.into_future())
            .map(drop)
            .expect_err("one source has no turns")
            .into_error()
    };
    for error in [of_one(source.clone().weighted(2)), of_one(source.clone().prioritized(1))] {
        assert_eq!(error.code(), ErrorCode::Validation);
    }
    let windows = Window::new(&context(), source.clone().weighted(2)).count(1).stream();
    assert_eq!(windows.expect_err("nor have windows").code(), ErrorCode::Validation);
    assert_eq!(source.len(), 2);
}

// Rule 2.3
#[test]
fn weights_are_shares_of_a_merge() {
    let sources = [("a", 5), ("b", 3), ("c", 2)]
        .map(|(name, weight)| stream::repeat(name).take(1_000).weighted(weight));
    let merged = merge(&context(), sources).quantum(1).take(1_000);
    let merged: Vec<_> = block_on(merged.try_collect()).expect("no failure");
    for round in merged.chunks(10) {
        let share = |source| round.iter().filter(|message| **message == source).count();
        assert_eq!([share("a"), share("b"), share("c")], [5, 3, 2]);
    }
}

// Rule 2.3
#[test]
fn a_more_urgent_source_makes_others_of_a_merge_slow_and_starves_none() {
    let urgent = stream::repeat("urgent").take(1_000).prioritized(1);
    let others = ["a", "b"].map(|name| stream::repeat(name).take(1_000).prioritized(100));
    let [a, b] = others;
    let merged = merge(&context(), [a, urgent, b]);
    let merged: Vec<_> = block_on(merged.try_collect()).expect("no failure");
    let begun = merged.iter().position(|message| *message == "urgent").expect("it is there");
    for round in merged[begun..begun + 660].chunks(66) {
        let share = |source| round.iter().filter(|message| **message == source).count();
        assert_eq!([share("urgent"), share("a"), share("b")], [64, 1, 1]);
    }
    let last = merged.iter().rposition(|message| *message == "urgent").expect("it is there");
    let after = &merged[last + 1..];
    assert_eq!(after[..128], [["b"; 64], ["a"; 64]].concat(), "and then turns are whole again");
}

// Rule 2.3
#[test]
fn weights_are_turns_in_a_row_of_a_select() {
    let mut select = Select::new(&context())
        .pass(stream::repeat("a").weighted(2))
        .pass(stream::repeat("b").weighted(1));
    let won: Vec<_> = (0..9).map(|_| block_on(select.run()).expect("one is ready")).collect();
    assert_eq!(won, ["a", "a", "b"].repeat(3));
}

// Rules 2.2, 6.2
#[test]
fn a_limit_of_zero_is_refused_before_anything_is_taken() {
    let source = filled([1, 2]);
    let (sender, receiver) = async_channel::unbounded();
    let code = |result: Result<(), Error>| result.map_err(|error| error.code());
    let refused = Err(ErrorCode::Validation);
    let none = merge_into(&context(), [source.clone()], sender.clone()).quantum(0);
    assert_eq!(code(block_on(none.into_future()).map(drop)), refused);
    let none = merge(&context(), [source.clone()]).quantum(0);
    assert_eq!(code(block_on(none.try_collect::<Vec<_>>()).map(drop)), refused);
    let none = merge_into(&context(), [source.clone().weighted(0)], sender);
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
    let merging = merge_into(&context(), [filled([1, 2])], sender).quantum(usize::MAX);
    assert_eq!(block_on(merging.into_future()).expect("no failure").delivered(), 2);
    assert_eq!(receiver.len(), 2);
    let windows =
        Window::new(&context(), filled([1, 2])).count(usize::MAX).stream().expect("valid");
    let windows: Vec<_> = block_on(windows.try_collect()).expect("no failure");
    assert_eq!(windows, [[1, 2]]);
}

#[test]
fn sources_of_different_types_make_one_list() {
    let faults = stream::iter([Ok::<u32, std::io::Error>(4)]).faults();
    let sources = mixed((filled([1, 2]), stream::iter([3]).named("three"), faults));
    let (sender, receiver) = async_channel::unbounded();
    let report =
        block_on(merge_into(&context(), sources, sender).into_future()).expect("no failure");
    let sources: Vec<_> =
        report.sources().iter().map(|source| (source.name(), source.delivered())).collect();
    assert_eq!(sources, [("source 0", 2), ("three", 1), ("source 2", 1)]);
    assert_eq!(block_on(receiver.collect::<Vec<_>>()), [1, 2, 3, 4]);
}

#[test]
fn a_box_changes_nothing_of_a_source() {
    let numbers = || stream::iter([Ok(1), Err("connection lost")]).faults().named("orders");
    let error = |source: AnySource<'_, u32>| {
        let merged = merge(&context(), [source]);
        block_on(merged.try_collect::<Vec<_>>()).expect_err("the fault")
    };
    for boxed in [numbers().erased(), AnySource::from(Box::pin(numbers()))] {
        let error = error(boxed);
        assert_eq!((error.code(), error.source_name()), (ErrorCode::Source, Some("orders")));
    }
}

#[test]
fn a_source_with_several_options_has_the_type_of_one_with_one() {
    let _: [Configured<Receiver<u32>>; 4] = [
        filled([]).weighted(2),
        filled([]).weighted(2).prioritized(1),
        filled([]).named("orders"),
        filled([]).prioritized(0).rate(3, SECOND).weighted(5),
    ];
}
