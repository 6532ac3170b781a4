//! Rule 2.7, without a drain: what a handle does, and what it is told.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use async_channel::{Receiver, Sender};
use futures::executor::block_on;
use futures::{FutureExt, Stream, StreamExt, stream};
use watershed::channels::{
    LiveSource, LiveSources, Merge, SourceEnd, SourceHandle, Window, live, merge,
};
use watershed::{ErrorCode, Source, StepContext};

fn context() -> StepContext {
    StepContext::new("t")
}

/// A live source with its handle, as a drain would have it, and whoever fills it.
fn one() -> (Sender<u32>, SourceHandle<Receiver<u32>>, LiveSource<Receiver<u32>>) {
    let (live, incoming) = live();
    let (sender, receiver) = async_channel::unbounded();
    let handle = live.add(receiver).expect("a drain may come");
    let source = block_on(Box::pin(incoming).next()).expect("it was added");
    (sender, handle, source)
}

fn reading(source: LiveSource<Receiver<u32>>) -> Merge<LiveSource<Receiver<u32>>> {
    merge(&context(), [source])
}

/// The message that can be had now.
fn next<S: Stream<Item = Result<u32, watershed::Error>> + Unpin>(stream: &mut S) -> Option<u32> {
    match stream.poll_next_unpin(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(item) => item.map(|item| item.expect("no failure")),
        Poll::Pending => None,
    }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn nothing_is_asked_of_a_source_once_pausing_it_has_returned() {
    let polls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&polls);
    let source = stream::poll_fn(move |_| Poll::Ready(Some(seen.fetch_add(1, Ordering::SeqCst))));
    let (live, incoming) = live();
    let handle = live.add(source).expect("a drain may come");
    let source = block_on(Box::pin(incoming).next()).expect("it was added");
    let mut merged = merge(&context(), [source]);
    let mut cx = Context::from_waker(Waker::noop());
    for messages in 1..10 {
        assert!(merged.poll_next_unpin(&mut cx).is_ready());
        assert!(handle.pause());
        for _ in 0..3 {
            assert!(merged.poll_next_unpin(&mut cx).is_pending());
        }
        assert_eq!(polls.load(Ordering::SeqCst), messages);
        assert!(handle.resume());
    }
}

#[test]
fn pause_and_resume_are_switches() {
    let (sender, handle, source) = one();
    let mut messages = reading(source);
    sender.try_send(1).expect("it is open");
    for _ in 0..3 {
        assert!(handle.pause() && handle.is_paused());
    }
    assert_eq!(next(&mut messages), None);
    assert!(handle.resume() && !handle.is_paused());
    assert_eq!(next(&mut messages), Some(1));
    assert!(handle.resume() && handle.resume() && handle.pause());
    sender.try_send(2).expect("it is open");
    assert_eq!(next(&mut messages), None);
}

#[test]
fn whatever_is_asked_of_a_source_that_is_gone_has_no_effect_and_says_so() {
    let ends: [fn(Sender<u32>, &SourceHandle<Receiver<u32>>, LiveSource<Receiver<u32>>); 3] = [
        |sender, _, source| {
            drop(sender);
            assert_eq!(block_on(reading(source).count()), 0);
        },
        |_sender, _, source| drop(source),
        |_sender, handle, source| {
            assert!(handle.request_removal());
            assert!(handle.request_removal(), "it is there until its drain lets go of it");
            assert!(!handle.pause() && !handle.resume(), "it is on its way");
            assert_eq!(block_on(reading(source).count()), 0);
        },
    ];
    for (end, how) in
        ends.into_iter().zip([SourceEnd::Drained, SourceEnd::Abandoned, SourceEnd::Removed])
    {
        let (sender, handle, source) = one();
        end(sender, &handle, source);
        assert!(!handle.pause() && !handle.resume() && !handle.request_removal());
        assert!(!handle.is_paused());
        assert_eq!(handle.ended().now_or_never(), Some(how));
        let left = handle.remove().now_or_never().expect("it has ended");
        assert_eq!(left.is_some(), how != SourceEnd::Drained);
        assert!(handle.remove().now_or_never().expect("it has ended").is_none(), "only once");
    }
}

#[test]
fn a_source_is_found_by_its_id_as_long_as_it_is_there_and_an_id_is_never_used_again() {
    let (live, incoming) = live();
    let mut incoming = Box::pin(incoming);
    let mut seen = Vec::new();
    for _ in 0..100 {
        let handle = live.add(stream::iter([1])).expect("a drain may come");
        let found = live.handle(handle.id()).expect("it waits for its drain");
        assert_eq!(found.id(), handle.id());
        assert!(found.pause() && handle.is_paused(), "both are of one source");
        let source = block_on(incoming.next()).expect("it was added");
        assert!(live.handle(handle.id()).is_some());
        drop(source);
        assert!(live.handle(handle.id()).is_none(), "it is gone");
        assert!(!seen.contains(&handle.id()));
        seen.push(handle.id());
    }
}

#[test]
fn a_hundred_thousand_sources_that_came_and_went_leave_nothing() {
    let (live, incoming) = live();
    let mut incoming = Box::pin(incoming);
    let alive = Arc::new(());
    for round in 0..100_000 {
        let kept = Arc::clone(&alive);
        let source = stream::iter([1]).inspect(move |_| drop(Arc::clone(&kept)));
        let handle = live.add(source).expect("a drain may come");
        let source = block_on(incoming.next()).expect("it was added");
        match round % 3 {
            0 => assert_eq!(block_on(merge(&context(), [source]).count()), 1),
            1 => drop(source),
            _ => {
                assert!(handle.request_removal());
                drop(source);
            }
        }
    }
    assert_eq!(Arc::strong_count(&alive), 1);
    let list = format!("{live:?}");
    assert!(list.contains("there: 0") && list.contains("waiting: 0"), "{list}");
}

#[test]
fn a_source_that_no_drain_takes_comes_back() {
    let (live, incoming) = live();
    let handles: Vec<_> =
        (0..3).map(|_| live.add(stream::iter([1, 2])).expect("a drain may come")).collect();
    drop(incoming);
    for handle in handles {
        assert_eq!(handle.ended().now_or_never(), Some(SourceEnd::Abandoned));
        let source = handle.remove().now_or_never().expect("at once").expect("it is whole");
        assert_eq!(block_on(source.count()), 2);
    }
    let (source, error) = live.add(stream::iter([3, 4])).expect_err("nobody takes it");
    assert_eq!(error.code(), ErrorCode::ChannelCompleted);
    assert_eq!(block_on(source.count()), 2);
}

#[test]
fn the_removal_of_a_source_waits_for_whoever_has_it_and_takes_nothing_more() {
    for paused in [false, true] {
        let (sender, handle, source) = one();
        for message in [1, 2] {
            sender.try_send(message).expect("it is open");
        }
        let mut messages = reading(source);
        assert_eq!(next(&mut messages), Some(1));
        assert!(!paused || handle.pause());
        let mut removal = Box::pin(handle.remove());
        assert!((&mut removal).now_or_never().is_none());
        assert_eq!(block_on(messages.count()), 0);
        let source = removal.now_or_never().expect("it is out").expect("it was not drained");
        assert_eq!(source.len(), 1);
    }
}

#[test]
fn dropping_a_removal_leaves_it_going_on_and_calling_again_gives_the_source() {
    let (sender, handle, source) = one();
    sender.try_send(1).expect("it is open");
    assert!(handle.remove().now_or_never().is_none());
    assert_eq!(block_on(reading(source).count()), 0);
    let source = handle.remove().now_or_never().expect("it is out").expect("it was not drained");
    assert_eq!(source.len(), 1);
}

// Rule 2.5: a waker that was left with an earlier poll is not the one that is woken.
#[test]
fn whoever_polled_last_hears_of_every_switch() {
    type Switch = fn(&SourceHandle<Receiver<u32>>) -> bool;
    let switches: [Switch; 3] =
        [SourceHandle::pause, SourceHandle::resume, SourceHandle::request_removal];
    let (_sender, handle, source) = one();
    let mut windows = Box::pin(Window::new(&context(), source).count(2).stream().expect("valid"));
    for switch in switches {
        let (old, new) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
        for wakes in [&old, &new, &new] {
            let waker = Waker::from(Arc::clone(wakes));
            assert!(windows.as_mut().poll_next(&mut Context::from_waker(&waker)).is_pending());
        }
        let before = (old.0.load(Ordering::SeqCst), new.0.load(Ordering::SeqCst));
        assert!(switch(&handle));
        let after = (old.0.load(Ordering::SeqCst), new.0.load(Ordering::SeqCst));
        assert_eq!((after.0 - before.0, after.1 - before.1), (0, 1));
    }
    assert_eq!(block_on(windows.count()), 0, "it was removed");
}

#[test]
fn everybody_who_waits_for_the_end_of_a_source_hears_of_it() {
    let (_sender, handle, source) = one();
    let wakes: Vec<_> = std::iter::repeat_with(|| Arc::new(Wakes::default())).take(3).collect();
    let mut waits: Vec<_> = wakes.iter().map(|_| handle.ended()).collect();
    for (wait, wakes) in waits.iter_mut().zip(&wakes) {
        for waker in [Waker::noop(), &Waker::from(Arc::clone(wakes))] {
            assert!(Pin::new(&mut *wait).poll(&mut Context::from_waker(waker)).is_pending());
        }
    }
    drop(waits.pop());
    drop(source);
    let woken: Vec<_> = wakes.iter().map(|wakes| wakes.0.load(Ordering::SeqCst)).collect();
    assert_eq!(woken, [1, 1, 0]);
    assert!(waits.into_iter().all(|wait| wait.now_or_never() == Some(SourceEnd::Abandoned)));
}

#[test]
fn a_switch_that_the_source_itself_moves_is_heard() {
    let own = Arc::new(Mutex::new(None::<SourceHandle<stream::BoxStream<'static, u32>>>));
    let handle = Arc::clone(&own);
    let source = stream::poll_fn(move |_| {
        let handle = handle.lock().expect("no panic");
        assert!(handle.as_ref().expect("it is there").request_removal());
        Poll::Pending
    });
    let (live, incoming) = live();
    *own.lock().expect("no panic") = live.add(source.boxed()).ok();
    let source = block_on(Box::pin(incoming).next()).expect("it was added");
    assert_eq!(block_on(merge(&context(), [source]).count()), 0);
    let ended = own.lock().expect("no panic").as_ref().expect("it is there").ended().now_or_never();
    assert_eq!(ended, Some(SourceEnd::Removed));
}

/// Uses the handle and the list when it is woken.
struct Reaches(LiveSources<stream::Pending<u32>>, SourceHandle<stream::Pending<u32>>);

impl Wake for Reaches {
    fn wake(self: Arc<Self>) {
        let Self(live, handle) = &*self;
        assert_eq!(live.handle(handle.id()).is_some(), handle.pause());
        let _ = (handle.is_paused(), handle.ended().now_or_never());
    }
}

// Rule 4.12
#[test]
fn wakers_and_destructors_may_use_the_handle() {
    let (live, incoming) = live();
    let handle = live.add(stream::pending()).expect("a drain may come");
    let again = live.handle(handle.id()).expect("it is there");
    let waker = Waker::from(Arc::new(Reaches(live.clone(), again)));
    let source = block_on(Box::pin(incoming).next()).expect("it was added");
    let mut windows = Box::pin(Window::new(&context(), source).count(2).stream().expect("valid"));
    let mut wait = handle.ended();
    let mut cx = Context::from_waker(&waker);
    assert!(windows.as_mut().poll_next(&mut cx).is_pending());
    assert!(Pin::new(&mut wait).poll(&mut cx).is_pending());
    assert!(handle.pause() && handle.resume());
    drop(windows);
    assert!(wait.now_or_never().is_some());

    /// Looks for itself when it is dropped.
    struct Looks(Option<LiveSources<Looks>>, Arc<AtomicUsize>);
    impl Stream for Looks {
        type Item = u32;
        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u32>> {
            Poll::Ready(None)
        }
    }
    impl Drop for Looks {
        fn drop(&mut self) {
            if let Some(live) = self.0.take() {
                let _ = live.add(Looks(None, Arc::clone(&self.1)));
            }
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (live, incoming) = watershed::channels::live();
    let dropped = Arc::new(AtomicUsize::new(0));
    drop(live.add(Looks(Some(live.clone()), Arc::clone(&dropped))).ok().expect("there is room"));
    let mut incoming = Box::pin(incoming);
    let source = block_on(incoming.next()).expect("it was added");
    assert_eq!(block_on(merge(&context(), [source]).count()), 0);
    drop(incoming);
    assert_eq!(dropped.load(Ordering::SeqCst), 2);
}

#[test]
fn a_live_source_that_was_given_a_name_can_be_paused_and_removed() {
    let (sender, handle, source) = one();
    sender.try_send(1).expect("it is open");
    let mut messages = merge(&context(), [source.named("orders")]);
    assert!(handle.pause());
    assert_eq!(next(&mut messages), None);
    assert!(handle.request_removal());
    assert_eq!(block_on(messages.count()), 0);
    assert_eq!(handle.ended().now_or_never(), Some(SourceEnd::Removed));
}

#[test]
fn switches_from_another_thread_lose_no_message_and_no_wake_up() {
    for seed in 0..20 {
        let (live, incoming) = live();
        let channels: Vec<_> = (0..4).map(|_| async_channel::bounded::<u32>(2)).collect();
        let handles: Vec<_> = channels
            .iter()
            .map(|(_, receiver)| live.add(receiver.clone()).expect("a drain may come"))
            .collect();
        drop(live);
        let sources: Vec<_> = block_on(Box::pin(incoming).collect());
        let senders: Vec<_> = channels.into_iter().map(|(sender, _)| sender).collect();
        let switching = std::thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..2_000 {
                let handle = &handles[random.usize(..handles.len())];
                if random.bool() {
                    handle.pause();
                } else {
                    handle.resume();
                }
            }
            handles.iter().for_each(|handle| assert!(handle.resume() || !handle.is_paused()));
        });
        let sending = std::thread::spawn(move || {
            for number in 0..400 {
                for sender in &senders {
                    sender.send_blocking(number).expect("it is open");
                }
            }
        });
        let count = block_on(merge(&context(), sources).count());
        switching.join().expect("the thread ends");
        sending.join().expect("the thread ends");
        assert_eq!(count, 1_600);
    }
}
