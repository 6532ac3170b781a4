//! Every schedule of the wake-ups of sources, and of the task that polls them.

use std::sync::Arc;

use super::ReadyQueue;
use crate::proof::executor::block_on;
use crate::proof::loom::every_schedule;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::thread;

/// Waits until sources which other threads fill have had so many messages in all. A look at a source
/// sees no more than the wake-up showed it.
async fn take(queue: &mut ReadyQueue, sources: &[Arc<AtomicUsize>], messages: usize) {
    let mut taken = vec![0; sources.len()];
    std::future::poll_fn(|cx| {
        loop {
            match queue.pop() {
                Some(index) => taken[index] = sources[index].load(Ordering::Relaxed),
                None if taken.iter().sum::<usize>() == messages => {
                    return std::task::Poll::Ready(());
                }
                None if queue.wait(cx.waker()) => return std::task::Poll::Pending,
                None => {}
            }
        }
    })
    .await;
}

// Rule 2.3
#[test]
fn every_message_is_taken_for_its_wake_up() {
    for (name, fed) in [
        ("two sources are filled by two threads", [[0, 0], [1, 1]]),
        ("one source is filled by two threads", [[0, 0], [0, 0]]),
    ] {
        every_schedule(name, Some(2), move || {
            let sources = [0, 1].map(|_| Arc::new(AtomicUsize::new(0)));
            let mut queue = ReadyQueue::new(sources.len());
            let threads = fed.map(|fed| {
                let feeds =
                    fed.map(|index| (Arc::clone(&sources[index]), queue.waker(index).clone()));
                thread::spawn(move || {
                    for (source, waker) in feeds {
                        source.fetch_add(1, Ordering::Relaxed);
                        waker.wake();
                    }
                })
            });
            block_on(take(&mut queue, &sources, 4));
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }
}
