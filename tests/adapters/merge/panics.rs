//! Panics, streams, and threads.

use super::*;
use crate::support::neighbours::Bomb;

// Rule 3.7
#[test]
fn a_panic_in_a_source_is_an_error_with_its_name() {
    let sources = [
        filled([1]).boxed().named("good"),
        stream::iter([2, 3])
            .map(|m| if m == 3 { panic!("bad cable") } else { m })
            .boxed()
            .named("bad"),
    ];
    let (sender, receiver) = async_channel::bounded(9);
    let error = block_on(merge_into(&context(), sources, sender)).expect_err("a panic");
    assert_eq!((error.code(), error.source_name()), (ErrorCode::Panic, Some("bad")));
    assert!(error.to_string().contains("bad cable"), "{error}");
    assert_eq!((left_in(&receiver), receiver.is_closed()), (vec![1, 2], true));
}

/// Panics in one of its methods.
struct Touchy(&'static str, Vec<u32>);

impl Destination for Touchy {
    type Message = u32;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        assert!(self.0 != "ready", "touchy");
        Poll::Ready(Ok(()))
    }

    fn try_send(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        message: u32,
    ) -> Result<(), Refused<u32>> {
        assert!(self.0 != "send", "touchy");
        self.1.push(message);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        assert!(self.0 != "close", "touchy");
        Poll::Ready(Ok(()))
    }
}

// Rule 3.7
#[test]
fn a_panic_in_the_destination_is_an_error() {
    for method in ["ready", "send", "close"] {
        let source = filled([1, 2]);
        let mut touchy = Touchy(method, Vec::new());
        let error = block_on(merge_into(&context(), [source.clone()], &mut touchy));
        let error = error.expect_err("a panic");
        assert_eq!(error.code(), ErrorCode::Panic, "{method}");
        assert!(error.to_string().contains("the destination panicked"), "{error}");
        assert_eq!(touchy.1.len(), if method == "close" { 2 } else { 0 });
        assert_eq!(
            source.len(),
            match method {
                "ready" => 2,
                "send" => 1,
                _ => 0,
            }
        );
    }
}

// Rules 3.7, 4.12
#[test]
fn a_panic_in_the_callback_and_in_destructors_is_contained() {
    let stop = CancellationSource::new();
    for by_drop in [true, false] {
        let (sender, receiver) = async_channel::bounded(1);
        let source = {
            let bomb = Bomb;
            stream::iter([1, 2, 3]).map(move |message| (message, &bomb).0)
        };
        let merge = merge_into(&context(), [source], sender).cancellation(stop.token());
        let merge = merge.undelivered(|message| panic!("{:?}", message.into_message().ok()));
        let mut merge = merge.into_future();
        if by_drop {
            assert!(poll_times(&mut merge, 2).is_none());
            drop(merge);
        } else {
            assert!(poll_times(&mut merge, 2).is_none());
            stop.cancel();
            let error = poll_times(&mut merge, 1).expect("it is over").expect_err("cancelled");
            assert_eq!(error.code(), ErrorCode::Canceled);
            assert_eq!(error.related()[0].code(), ErrorCode::Panic);
        }
        assert!(receiver.is_closed());
    }
}

// Rule 3.7
#[test]
fn the_destructor_of_a_source_that_ended_fails_the_merge() {
    let bomb = Bomb;
    let source = stream::iter([1]).map(move |message| (message, &bomb).0);
    let (sender, receiver) = async_channel::bounded(9);
    let error = block_on(merge_into(&context(), [source], sender)).expect_err("a panic");
    assert_eq!((error.code(), left_in(&receiver)), (ErrorCode::Panic, vec![1]));
}

#[test]
fn a_merge_that_has_ended_says_so_when_it_is_polled_again() {
    let (sender, _receiver) = async_channel::bounded(9);
    let mut merge = merge_into(&context(), [filled([1])], sender).into_future();
    assert!(poll_times(&mut merge, 1).expect("it is over").is_ok());
    let error = poll_times(&mut merge, 1).expect("it is over").expect_err("no more");
    assert_eq!(error.code(), ErrorCode::Unspecified);
}

// Rule 5.4
#[test]
fn the_same_input_gives_the_same_order() {
    let run = || {
        let sources: Vec<_> = (0..7).map(|s| filled((0..s * 3).map(move |m| (s, m)))).collect();
        let merged = merge(&on(&ManualClock::new()), sources).quantum(2);
        block_on(merged.try_collect::<Vec<_>>()).expect("it succeeds")
    };
    assert_eq!(run(), run());
}

// Rule 2.1
#[test]
fn a_merged_stream_dropped_after_any_item_leaves_the_rest_in_the_sources() {
    for k in 0..=8 {
        let sources = [filled([1, 2, 3]), filled([4, 5]), filled([6, 7, 8])];
        let mut merged = merge(&context(), sources.clone()).quantum(2);
        let mut all = Vec::new();
        for _ in 0..k {
            all.push(block_on(merged.next()).expect("there is one").expect("no error"));
        }
        drop(merged);
        all.extend(sources.iter().flat_map(left_in));
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4, 5, 6, 7, 8], "after {k}");
    }
}

// Rules 3.2, 3.3, 3.5
#[test]
fn a_merged_stream_ends_with_its_error_as_the_last_item() {
    let clock = ManualClock::new();
    let stop = CancellationSource::new();
    let ends: [(ErrorCode, &dyn Fn()); 2] =
        [(ErrorCode::Timeout, &|| clock.advance(SECOND)), (ErrorCode::Canceled, &|| stop.cancel())];
    for (code, end) in ends {
        let (feed, source) = async_channel::unbounded();
        feed.try_send(1).expect("open");
        let mut merged =
            merge(&on(&clock), [source.clone()]).timeout(SECOND).cancellation(stop.token());
        assert_eq!(poll_times(&mut merged.next(), 1).expect("ready").expect("one").ok(), Some(1));
        assert!(poll_times(&mut merged.next(), 3).is_none());
        end();
        feed.try_send(2).expect("open");
        let error = poll_times(&mut merged.next(), 1).expect("ready").expect("an item");
        assert_eq!(error.expect_err("the end").code(), code);
        assert!(merged.is_terminated());
        assert!(poll_times(&mut merged.next(), 1).expect("ready").is_none());
        assert_eq!(left_in(&source), [2]);
    }
    let sources = [stream::iter([Ok(1), Err("lost"), Ok(2)]).faults().named("feed")];
    let items: Vec<_> = block_on(merge(&context(), sources).collect());
    assert_eq!((items.len(), items[0].as_ref().ok()), (2, Some(&1)));
    assert_eq!(items[1].as_ref().expect_err("a fault").source_name(), Some("feed"));
}

// Rule 3.7
#[test]
fn a_merged_stream_contains_the_panic_of_a_source() {
    let source = stream::iter([1]).map(|message: u32| if message == 1 { panic!("no") } else { 2 });
    let items: Vec<_> = block_on(merge(&context(), [source]).collect());
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].as_ref().expect_err("a panic").code(), ErrorCode::Panic);
}

// Rule 2.4
#[test]
fn a_merged_stream_gives_the_thread_back_regularly() {
    let merged = merge(&context(), [stream::repeat(1)]).quantum(usize::MAX);
    let sum = merged.fold(0, |sum, item| async move { sum + item.expect("no error") });
    assert!(poll_times(&mut Box::pin(sum), 100).is_none());
}

// Rule 4.12: a task's waker that panics is contained where a source wakes it
#[test]
fn a_panicking_waker_does_not_reach_the_producer() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("waker");
        }
    }
    let waker = Waker::from(Arc::new(Panics));
    let (feed, source) = async_channel::unbounded();
    let mut merged = merge(&context(), [source]);
    assert!(Pin::new(&mut merged).poll_next(&mut Context::from_waker(&waker)).is_pending());
    feed.try_send(1).expect("open");
    assert_eq!(poll_times(&mut merged.next(), 1).expect("ready").expect("one").ok(), Some(1));
}

// Rule 5.3
#[test]
fn merges_are_send_when_their_parts_are() {
    fn send<T: Send>(_: &T) {}
    let (sender, _receiver) = async_channel::bounded(9);
    let merging = merge_into(&context(), [filled([1])], sender).undelivered(|_| {});
    send(&merging);
    send(&merging.into_future());
    send(&merge(&context(), [filled([1])]));
}

// Rules 3.1, 5.2
async fn all_messages_arrive() {
    let (sender, receiver) = async_channel::bounded(2);
    let sources = [filled(0..50), filled(50..100)];
    let merge = merge_into(&context(), sources, sender).into_future();
    let (report, mut all) = futures::join!(merge, receiver.collect::<Vec<_>>());
    all.sort_unstable();
    assert_eq!(report.expect("it succeeds").delivered(), 100);
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}

// Rules 2.2, 5.2
async fn live_producers_and_a_consumer_on_other_threads() {
    let (left, from_left) = async_channel::bounded(2);
    let (right, from_right) = async_channel::bounded(2);
    let producers = [left, right].map(|sender| {
        std::thread::spawn(move || (0..500_u32).all(|n| sender.send_blocking(n).is_ok()))
    });
    let (sender, receiver) = async_channel::bounded(2);
    let consumer = std::thread::spawn(move || {
        std::iter::from_fn(|| receiver.recv_blocking().ok()).sum::<u32>()
    });
    let report =
        merge_into(&context(), [from_left, from_right], sender).await.expect("it succeeds");
    assert_eq!(report.delivered(), 1000);
    assert_eq!(consumer.join().expect("the thread ends"), 2 * (0..500).sum::<u32>());
    assert!(producers.map(|producer| producer.join().expect("the thread ends")) == [true; 2]);
}

// Rules 3.5, 5.2
async fn cancellation_from_another_thread_ends_a_merge_in_front_of_a_full_channel() {
    let stop = CancellationSource::new();
    let (sender, _receiver) = async_channel::bounded(1);
    let left = Arc::new(Mutex::new(Vec::new()));
    let got = Arc::clone(&left);
    let merge = merge_into(&context(), [filled([1, 2, 3])], sender).cancellation(stop.token());
    let merge = merge.undelivered(move |message| {
        got.lock().expect("no panic").extend(message.into_message().ok());
    });
    let canceller = std::thread::spawn(move || stop.cancel());
    let error = merge.await.expect_err("cancelled");
    assert_eq!(error.code(), ErrorCode::Canceled);
    assert!(left.lock().expect("no panic").len() <= 1);
    canceller.join().expect("the thread ends");
}

// Rules 3.3, 5.2
async fn a_timeout_ends_an_idle_stream() {
    let (_feed, source) = async_channel::unbounded::<u32>();
    let mut merged = merge(&context(), [source]).timeout(Duration::from_millis(5));
    let error = merged.next().await.expect("an item").expect_err("the end");
    assert_eq!(error.code(), ErrorCode::Timeout);
}

on_every_executor! {
    all_messages_arrive,
    live_producers_and_a_consumer_on_other_threads,
    cancellation_from_another_thread_ends_a_merge_in_front_of_a_full_channel,
    a_timeout_ends_an_idle_stream,
}
