//! A drain whose sources are filled, paused, resumed and removed by other threads.
//!
//! They are added before the threads begin: the channel by which they come has locks that no checker
//! sees, and a thread that is interrupted under one of those stops all others for good.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Poll, Waker};

use futures::stream::{self, Stream};

use super::super::executor::{block_on, block_on_by_changing_wakers, give_way};
use super::{draw, one_in, pct_schedules, random_schedules};
use crate::channels::{SourceEnd, SourceHandle, live};
use crate::sync::{Mutex, thread};
use crate::{BoxError, ManualClock, OnFailure, RetryPolicy, StepContext, fan_in};

const OWNERS: usize = 2;

/// What an owner does to its source.
#[derive(Clone, Copy)]
enum Switch {
    Pause,
    Resume,
    Fill,
    AskForRemoval,
}

/// Messages that an owner fills in and nobody has taken.
#[derive(Default)]
struct Queue {
    messages: VecDeque<usize>,
    closed: bool,
    waker: Option<Waker>,
}

type Shared = Arc<Mutex<Queue>>;

fn source(queue: &Shared) -> impl Stream<Item = usize> + Send + Unpin + use<> {
    let queue = Arc::clone(queue);
    stream::poll_fn(move |cx| {
        let mut queue = queue.lock().unwrap();
        match queue.messages.pop_front() {
            Some(message) => Poll::Ready(Some(message)),
            None if queue.closed => Poll::Ready(None),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    })
}

fn change(queue: &Shared, change: impl FnOnce(&mut Queue)) {
    let waker = {
        let mut queue = queue.lock().unwrap();
        change(&mut queue);
        queue.waker.take()
    };
    waker.into_iter().for_each(Waker::wake);
}

/// Moves the switches of a source, and then removes it or lets it end.
fn own<S: Stream<Item = usize> + Send + 'static>(
    handle: &SourceHandle<S>,
    queue: &Shared,
    filled: &AtomicUsize,
) {
    let mut removed = false;
    for _ in 0..draw(4) {
        match [Switch::Pause, Switch::Resume, Switch::Fill, Switch::AskForRemoval][draw(4)] {
            Switch::Pause => drop(handle.pause()),
            Switch::Resume => drop(handle.resume()),
            Switch::Fill => {
                let message = draw(2);
                filled.fetch_add(1, SeqCst);
                change(queue, |queue| queue.messages.push_back(message));
            }
            Switch::AskForRemoval if one_in(2) => removed |= handle.request_removal(),
            Switch::AskForRemoval => {}
        }
    }
    let end = if one_in(2) {
        let came_back = block_on(handle.remove()).is_some();
        let end = block_on(handle.ended());
        assert_eq!(came_back, end != SourceEnd::Drained);
        end
    } else {
        // It ends by itself, unless it is paused.
        handle.resume();
        change(queue, |queue| queue.closed = true);
        block_on(handle.ended())
    };
    assert!(end == SourceEnd::Drained || end == SourceEnd::Removed, "{end:?}");
    assert!(!removed || end == SourceEnd::Removed || end == SourceEnd::Drained);
    // What is asked of it has no effect any more.
    assert!(!handle.pause() && !handle.is_paused());
}

/// Handled, and the number of what is left.
fn sources_come_and_go() -> (usize, usize) {
    let (live, incoming) = live();
    let filled = Arc::new(AtomicUsize::new(2 * OWNERS));
    let owned = [(); OWNERS].map(|()| {
        let messages = VecDeque::from([draw(2), draw(2)]);
        let queue = Arc::new(Mutex::new(Queue { messages, ..Queue::default() }));
        (live.add(source(&queue)).ok().expect("the drain has not begun"), queue)
    });
    drop(live);
    let queues = owned.each_ref().map(|(_, queue)| Arc::clone(queue));
    let owners = owned.map(|(handle, queue)| {
        let filled = Arc::clone(&filled);
        thread::spawn(move || own(&handle, &queue, &filled))
    });
    let (order, changes_wakers, retried) = (draw(4), one_in(2), one_in(3));
    let concurrency = 1 + draw(2);
    let returned = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&returned);
    let drain = thread::spawn(move || {
        let context = StepContext::new("model").with_clock(Arc::new(ManualClock::new()));
        let handler = async |_: usize, step: StepContext| {
            for _ in 0..draw(3) {
                give_way().await;
            }
            if step.attempt() == 1 && retried && one_in(2) {
                return Err(BoxError::from("the first attempt fails"));
            }
            Ok(())
        };
        let drain = fan_in(&context, [], handler)
            .incoming(incoming)
            .concurrency(concurrency)
            .on_failure(OnFailure::Continue)
            .retry(RetryPolicy::fixed(2, Default::default()))
            .put_back(move |_, _| _ = counted.fetch_add(1, SeqCst));
        macro_rules! run {
            ($drain:expr) => {
                if changes_wakers {
                    block_on_by_changing_wakers($drain.into_future())
                } else {
                    block_on($drain.into_future())
                }
            };
        }
        match order {
            0 => run!(drain),
            1 => run!(drain.ordered_by(|key| *key)),
            2 => run!(drain.ordered_across_sources_by(|key| *key)),
            _ => run!(drain.unordered()),
        }
    });
    for owner in owners {
        owner.join().unwrap();
    }
    // A message that fails while its source is taken out has no further attempt.
    let result = drain.join().unwrap();
    let report = result.as_ref().unwrap_or_else(|failure| failure.report());
    let left: usize = queues.iter().map(|queue| queue.lock().unwrap().messages.len()).sum();
    let ended = report.handled() + report.failed() + report.put_back() + report.unfinished();
    assert_eq!(report.taken(), ended, "{report:?}");
    assert_eq!(report.put_back(), returned.load(SeqCst) as u64);
    assert_eq!(report.taken() as usize + left, filled.load(SeqCst), "{report:?}");
    (report.handled() as usize, left)
}

// Rules 2.2, 2.5 and 2.7
#[test]
fn random_owners_have_their_sources_drained_or_back() {
    random_schedules("sources that come and go", "handled", 25_000, sources_come_and_go);
}

// Rules 2.2, 2.5 and 2.7
#[test]
fn pct_owners_have_their_sources_drained_or_back() {
    pct_schedules("sources that come and go", "handled", 25_000, sources_come_and_go);
}
