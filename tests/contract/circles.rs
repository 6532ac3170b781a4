//! Handlers that wait for the ends of each other's sources. Rule 2.7.

use std::future::IntoFuture;
use std::task::Poll;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use watershed::channels::{SourceEnd, SourceHandle, live};
use watershed::group::Group;
use watershed::{BoxError, Letter, OnFailure, StepContext, fan_in};

use crate::support::{Hand, yields};

type Numbers = BoxStream<'static, usize>;

/// So many sources with their number each, and their drain behind that.
fn ring(
    count: usize,
) -> (Vec<SourceHandle<Numbers>>, watershed::channels::IncomingSources<Numbers>) {
    let (sources, incoming) = live();
    let add = |number| sources.add(stream::iter([number]).boxed()).ok().unwrap();
    ((0..count).map(add).collect(), incoming)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Ended,
    Remove,
    InAGroup,
}

/// Waits for the end of a source.
async fn wait(how: How, handle: &SourceHandle<Numbers>, step: &StepContext) {
    match how {
        How::Ended => drop(handle.ended().await),
        How::Remove => drop(handle.remove().await),
        How::InAGroup => {
            let (handle, group) = (handle.clone(), Group::new(step));
            let added = group.go("wait", async move |_| {
                handle.ended().await;
                Ok::<_, BoxError>(())
            });
            assert!(added.is_ok());
            group.wait().await.unwrap();
        }
    }
}

#[test]
fn handlers_that_wait_for_each_others_sources_in_a_circle_are_told() {
    for how in [How::Ended, How::Remove, How::InAGroup] {
        for count in [2, 3, 7] {
            let (handles, incoming) = ring(count);
            let context = StepContext::new("t");
            let drain = fan_in(&context, [], async |number: usize, step| {
                yields(1).await;
                wait(how, &handles[(number + 1) % count], &step).await;
                Ok::<_, BoxError>(())
            });
            let drain = drain.incoming(incoming).concurrency(count);
            let report = Hand::new(drain.into_future()).run();
            let Poll::Ready(Ok(report)) = report else { panic!("{how:?} of {count} hangs") };
            assert_eq!(report.handled(), count as u64);
        }
    }
}

#[test]
fn a_chain_of_them_is_no_circle() {
    let (handles, incoming) = ring(5);
    let context = StepContext::new("t");
    let drain = fan_in(&context, [], async |number: usize, _| {
        yields(1).await;
        if let Some(next) = handles.get(number + 1) {
            assert_eq!(next.ended().await, SourceEnd::Drained);
        }
        Ok::<_, BoxError>(())
    });
    let drain = drain.incoming(incoming).concurrency(5);
    assert!(matches!(Hand::new(drain.into_future()).run(), Poll::Ready(Ok(_))));
}

#[test]
fn a_wait_that_was_given_up_closes_no_circle() {
    let (handles, incoming) = ring(2);
    let context = StepContext::new("t");
    let drain = fan_in(&context, [], async |number: usize, _| {
        if number == 0 {
            let mut ended = handles[1].ended();
            assert!(futures::poll!(&mut ended).is_pending());
            drop(ended);
            yields(3).await;
        } else {
            yields(1).await;
            assert_eq!(handles[0].ended().await, SourceEnd::Drained);
        }
        Ok::<_, BoxError>(())
    });
    let drain = drain.incoming(incoming).concurrency(2);
    assert!(matches!(Hand::new(drain.into_future()).run(), Poll::Ready(Ok(_))));
}

#[test]
fn so_are_undos_and_dead_letters_that_wait_for_each_others_sources() {
    let (handles, incoming) = ring(2);
    let context = StepContext::new("t");
    let drain = fan_in(&context, [], async |number: usize, step: StepContext| {
        let other = handles[1 - number].clone();
        step.register_compensation(move || {
            let other = other.clone();
            async move {
                yields(1).await;
                drop(other.remove().await);
            }
        });
        yields(1).await;
        Err::<(), _>("it fails")
    });
    let letters = async |letter: Letter<usize>| {
        if let Some(&number) = letter.message() {
            handles[1 - number].ended().await;
        }
    };
    let drain = drain.incoming(incoming).concurrency(2).on_failure(OnFailure::Continue);
    let report = Hand::new(drain.dead_letters(letters).into_future()).run();
    let Poll::Ready(Ok(report)) = report else { panic!("it hangs") };
    assert_eq!(report.failed(), 2);
}

#[test]
fn so_are_handlers_of_two_drains() {
    let (first, first_incoming) = ring(1);
    let (second, second_incoming) = ring(1);
    let context = StepContext::new("t");
    let drain = |own, other: &SourceHandle<Numbers>| {
        let other = other.clone();
        let drain = fan_in(&context, [], move |_: usize, _| {
            let other = other.clone();
            async move {
                yields(1).await;
                drop(other.remove().await);
                Ok::<_, BoxError>(())
            }
        });
        drain.incoming(own).into_future()
    };
    let mut both = [
        Hand::new(drain(first_incoming, &second[0])),
        Hand::new(drain(second_incoming, &first[0])),
    ];
    drop((first, second));
    let mut ended = [false, false];
    for _ in 0..10 {
        for (drain, ended) in both.iter_mut().zip(&mut ended) {
            *ended = *ended || drain.run().is_ready();
        }
    }
    assert_eq!(ended, [true, true]);
}
