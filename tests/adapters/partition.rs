//! `channels::route`: a merge into two destinations, by a predicate.

use crate::support::{block_on, filled, left_in, poll_times};
use futures::StreamExt;
use futures::stream;
use watershed::channels::{Route, Undelivered, merge_into};
use watershed::{ErrorCode, Source, StepContext};

#[allow(clippy::trivially_copy_pass_by_ref, reason = "a predicate takes a reference")]
fn even(number: &u32) -> bool {
    number % 2 == 0
}

// P37
#[test]
fn a_partition_splits_in_order_and_completes_both() {
    let (left, from_left) = async_channel::unbounded();
    let (right, from_right) = async_channel::unbounded();
    let context = StepContext::new("t");
    let sources = [filled([1, 2, 3]), filled([4, 5])];
    let report = block_on(merge_into(&context, sources, Route::new(even, left, right)))
        .expect("it succeeds");
    assert_eq!(report.delivered(), 5);
    assert!(from_left.is_closed() && from_right.is_closed());
    assert_eq!((left_in(&from_left), left_in(&from_right)), (vec![2, 4], vec![1, 3, 5]));
}

// P36, P37
#[test]
fn a_fault_and_a_closed_side_end_the_partition_and_close_both() {
    let context = StepContext::new("t");
    let (left, from_left) = async_channel::unbounded();
    let (right, from_right) = async_channel::unbounded();
    let faulty = stream::iter([Ok(1), Ok(2), Err("connection lost")]).faults();
    let error = block_on(merge_into(&context, [faulty], Route::new(even, left, right)));
    assert_eq!(error.expect_err("a fault").code(), ErrorCode::Source);
    assert!(from_left.is_closed() && from_right.is_closed());
    assert_eq!((left_in(&from_left), left_in(&from_right)), (vec![2], vec![1]));

    let (left, from_left) = async_channel::unbounded();
    let (right, from_right) = async_channel::unbounded();
    from_right.close();
    let source = filled([2, 3]);
    let error = block_on(merge_into(&context, [source.clone()], Route::new(even, left, right)));
    assert_eq!(error.expect_err("one side is closed").code(), ErrorCode::ChannelCompleted);
    assert!(from_left.is_closed());
    assert_eq!(left_in(&source), [2, 3], "nothing was taken");
}

// Rules 2.1, 3.7
#[test]
fn a_predicate_that_panics_is_an_error_and_the_message_is_handed_out() {
    let (left, _from_left) = async_channel::unbounded();
    let (right, from_right) = async_channel::unbounded();
    let mut undelivered = Vec::new();
    let picky = |number: &u32| {
        assert!(*number < 3, "cannot tell");
        false
    };
    let context = StepContext::new("t");
    let merge = merge_into(&context, [filled([1, 2, 3, 4])], Route::new(picky, left, right));
    let merge =
        merge.undelivered(|message: Undelivered<u32>| undelivered.extend(message.into_message()));
    assert_eq!(block_on(merge).expect_err("a panic").code(), ErrorCode::Panic);
    assert_eq!(left_in(&from_right), [1, 2]);
    assert!(undelivered.len() <= 1);
}

// Rule 2.1
#[test]
fn dropping_a_partition_after_any_poll_accounts_for_every_message() {
    for k in 0.. {
        let source = filled([1, 2, 4, 6, 3, 5, 8]);
        let (left, from_left) = async_channel::bounded(1);
        let (right, from_right) = async_channel::bounded(1);
        let mut all = Vec::new();
        let context = StepContext::new("t");
        let merge = merge_into(&context, [source.clone()], Route::new(even, left, right));
        let merge = merge.undelivered(|message: Undelivered<u32>| {
            all.push(message.into_message().expect("it is closed"));
        });
        let mut merge = merge.into_future();
        let (mut got, mut ended) = (Vec::new(), false);
        for _ in 0..k {
            ended = poll_times(&mut merge, 1).is_some();
            got.extend(from_left.try_recv().ok());
            got.extend(from_right.try_recv().ok());
        }
        drop(merge);
        all.extend(got);
        all.extend(left_in(&from_left));
        all.extend(left_in(&from_right));
        all.extend(left_in(&source));
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4, 5, 6, 8], "poll {k}");
        if ended {
            assert!(k > 3);
            break;
        }
    }
}

// P37, rule 5.2
async fn a_partition_keeps_up_with_slow_receivers() {
    let (left, from_left) = async_channel::bounded(2);
    let (right, from_right) = async_channel::bounded(2);
    let receivers = [from_left, from_right].map(|receiver| {
        std::thread::spawn(move || futures::executor::block_on(receiver.collect::<Vec<_>>()))
    });
    let context = StepContext::new("suite");
    merge_into(&context, [stream::iter(0..200)], Route::new(even, left, right))
        .await
        .expect("it succeeds");
    let [left, right] = receivers.map(|receiver| receiver.join().expect("the thread ends"));
    assert!(left.into_iter().eq((0..200).filter(even)));
    assert!(right.into_iter().eq((0..200).filter(|number| !even(number))));
}

on_every_executor! { a_partition_keeps_up_with_slow_receivers }
