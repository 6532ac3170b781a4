//! Every schedule of an owner that moves its switches and of the task that takes messages.

use std::task::Poll;

use super::SourceEnd;
use super::control::{Control, Wish, Within};
use crate::origin::SourceId;
use crate::proof::executor::block_on;
use crate::proof::loom::every_schedule;
use crate::sync::Arc;
use crate::sync::thread;

/// Looks until the source is to be removed, with every look by a waker that is left behind.
async fn until_removed(control: &Control<()>) {
    let mut registered = None;
    std::future::poll_fn(|cx| match control.listen(&mut registered, cx) {
        Wish::Remove => Poll::Ready(()),
        Wish::Run | Wish::Pause => Poll::Pending,
    })
    .await;
}

// Rule 2.7
#[test]
fn whoever_takes_messages_hears_of_the_last_switch() {
    for (name, switches) in [
        (
            "a live source is paused, resumed and removed",
            vec![vec![Wish::Pause, Wish::Run, Wish::Remove]],
        ),
        (
            "one owner pauses a live source and one removes it",
            vec![vec![Wish::Pause, Wish::Run], vec![Wish::Remove]],
        ),
    ] {
        every_schedule(name, Some(3), move || {
            let control = Arc::new(Control::<()>::new(SourceId::next()));
            let threads: Vec<_> = switches
                .clone()
                .into_iter()
                .map(|wishes| {
                    let control = Arc::clone(&control);
                    thread::spawn(move || {
                        wishes.into_iter().for_each(|wish| {
                            control.wish(wish);
                        })
                    })
                })
                .collect();
            block_on(until_removed(&control));
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(control.wished(), Wish::Remove);
        });
    }
}

// Rule 2.7
#[test]
fn whoever_waits_for_the_end_of_a_source_is_given_it_once() {
    every_schedule("the end of a live source beside two removals", Some(3), || {
        let control = Arc::new(Control::<()>::new(SourceId::next()));
        let owners = [(); 2].map(|()| {
            let control = Arc::clone(&control);
            thread::spawn(move || {
                let mut waiter = None;
                let end =
                    std::future::poll_fn(|cx| control.poll_end(&mut waiter, cx, Within::Nothing));
                assert_eq!(block_on(end), SourceEnd::Removed);
                control.take_source().is_some()
            })
        });
        control.finish(SourceEnd::Removed, Some(Box::pin(())));
        let given = owners.map(|owner| owner.join().unwrap());
        assert!(given[0] != given[1], "one of them has it: {given:?}");
    });
}
