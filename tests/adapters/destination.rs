//! Where messages go: channels, sinks, and what becomes of a message that has no room.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::support::{Hand, block_on, filled, left_in, poll_times};
use futures::channel::mpsc;
use futures::{FutureExt, Sink, SinkExt, StreamExt, stream};
use watershed::channels::{
    Destination, IntoDestination, OnClosed, Refused, Route, SenderDestination, SinkDestination,
    Undelivered, broadcast, merge_into,
};
use watershed::{CancellationSource, Error, ErrorCode, ManualClock, StepContext};

/// What is known of a [`Pipe`] from outside.
#[derive(Clone, Default)]
struct Valve(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    room: usize,
    buffered: VecDeque<u32>,
    flushed: Vec<u32>,
    closed: bool,
    stuck: bool,
    fails: bool,
    waker: Option<Waker>,
}

impl Valve {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().expect("no panic");
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        change(&mut state)
    }
}

/// A sink with so much room, which buffers until it is flushed.
struct Pipe(Valve);

impl Sink<u32> for Pipe {
    type Error = std::io::Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut state = self.0.0.lock().expect("no panic");
        if state.fails {
            return Poll::Ready(Err(std::io::Error::other("burst")));
        }
        if state.room > 0 {
            return Poll::Ready(Ok(()));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn start_send(self: Pin<&mut Self>, item: u32) -> std::io::Result<()> {
        let mut state = self.0.0.lock().expect("no panic");
        assert!(state.room > 0 && !state.closed, "asked before");
        state.room -= 1;
        state.buffered.push_back(item);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let state = &mut *self.0.0.lock().expect("no panic");
        if state.stuck {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.flushed.extend(state.buffered.drain(..));
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let poll = self.as_mut().poll_flush(cx);
        self.0.0.lock().expect("no panic").closed |= poll.is_ready();
        poll
    }
}

fn context() -> StepContext {
    StepContext::new("t")
}

// Rule 2.1
#[test]
fn a_message_is_taken_when_the_sink_is_ready_and_not_before() {
    let valve = Valve::default();
    let source = filled([1, 2, 3]);
    let mut merge =
        merge_into(&context(), [source.clone()], SinkDestination::new(Pipe(valve.clone())))
            .into_future();
    for taken in 0..3 {
        assert!(poll_times(&mut merge, 2).is_none());
        assert_eq!(source.len(), 3 - taken);
        valve.with(|state| state.room += 1);
    }
    assert!(poll_times(&mut merge, 2).is_none(), "no room to look whether there is more");
    valve.with(|state| state.room += 1);
    let report = poll_times(&mut merge, 2).expect("it is over").expect("it succeeds");
    assert_eq!(report.delivered(), 3);
    valve.with(|state| assert!(state.closed && state.flushed == [1, 2, 3]));
}

#[test]
fn a_sink_is_flushed_while_the_sources_are_idle() {
    let valve = Valve::default();
    valve.with(|state| state.room = 9);
    let (sender, source) = async_channel::unbounded();
    let mut merge =
        merge_into(&context(), [source], SinkDestination::new(Pipe(valve.clone()))).into_future();
    sender.try_send(1).expect("open");
    assert!(poll_times(&mut merge, 1).is_none());
    valve.with(|state| assert_eq!(state.flushed, [1]));
}

// Fault d19
#[test]
fn what_one_sink_has_is_flushed_while_another_one_has_no_room() {
    let (quick, slow) = (Valve::default(), Valve::default());
    quick.with(|state| state.room = 9);
    slow.with(|state| state.room = 1);
    let sinks = || [&quick, &slow].map(|valve| SinkDestination::new(Pipe(valve.clone())));
    let mut broadcast = broadcast(&context(), filled([1, 2]), sinks()).into_future();
    assert!(poll_times(&mut broadcast, 3).is_none(), "the slow one has no room for the second");
    quick.with(|state| assert_eq!(state.flushed, [1]));
    drop(broadcast);

    quick.with(|state| *state = State { room: 9, ..State::default() });
    let [left, right] = sinks();
    let routed = Route::new(|number| number % 2 == 0, left, right);
    let mut merge = merge_into(&context(), [filled([2, 1])], routed).into_future();
    slow.with(|state| *state = State { room: 1, ..State::default() });
    assert!(poll_times(&mut merge, 3).is_none(), "the other side has no room any more");
    quick.with(|state| assert_eq!(state.flushed, [2]));
}

// Fault d20
#[test]
fn an_idle_operation_hears_that_nobody_receives_any_more() {
    let quiet = || stream::pending::<u32>();
    let channels = || (async_channel::bounded(1), async_channel::bounded(1));

    let ((sender, receiver), _) = channels();
    let mut merged = Hand::new(merge_into(&context(), [quiet()], sender).into_future());
    assert!(merged.run().is_pending());
    drop(receiver);
    let error = merged.finish().expect_err("nobody receives");
    assert_eq!(error.code(), ErrorCode::ChannelCompleted);

    let ((left, from_left), (right, from_right)) = channels();
    let routed = Route::new(|_| true, left, right);
    let mut routed = Hand::new(merge_into(&context(), [quiet()], routed).into_future());
    assert!(routed.run().is_pending());
    drop(from_right);
    let error = routed.finish().expect_err("nobody receives from one side");
    assert_eq!(error.code(), ErrorCode::ChannelCompleted);
    drop(from_left);

    for on_closed in [OnClosed::Fail, OnClosed::Detach] {
        let ((left, from_left), (right, from_right)) = channels();
        let operation = broadcast(&context(), quiet(), [left, right]).on_closed(on_closed);
        let mut operation = Hand::new(operation.into_future());
        assert!(operation.run().is_pending());
        drop(from_left);
        if on_closed == OnClosed::Detach {
            assert!(operation.run().is_pending(), "the other one is still there");
            drop(from_right);
        }
        let error = operation.finish().expect_err("nobody receives").into_error();
        assert_eq!(error.code(), ErrorCode::ChannelCompleted);
    }
}

#[test]
fn keep_open_flushes_a_sink_and_does_not_close_it() {
    let valve = Valve::default();
    valve.with(|state| state.room = 9);
    let sink = SinkDestination::new(Pipe(valve.clone()));
    block_on(merge_into(&context(), [filled([1, 2])], sink).keep_open()).expect("it succeeds");
    valve.with(|state| assert!(!state.closed && state.flushed == [1, 2]));
}

// Rule 3.2: the failure of the sink is the cause, its own error is given back
#[test]
fn a_sink_that_fails_ends_the_merge_before_a_message_is_taken() {
    let valve = Valve::default();
    valve.with(|state| state.fails = true);
    let source = filled([1, 2]);
    let sink = SinkDestination::new(Pipe(valve.clone()));
    let error = block_on(merge_into(&context(), [source.clone()], sink)).expect_err("it fails");
    assert_eq!(error.code(), ErrorCode::Destination);
    assert!(error.downcast_ref::<std::io::Error>().is_some());
    assert_eq!(left_in(&source), [1, 2]);
}

#[test]
fn an_mpsc_sender_without_receiver_is_a_completed_channel() {
    let (sender, receiver) = mpsc::channel(4);
    drop(receiver);
    let source = filled([1]);
    let error = block_on(merge_into(&context(), [source.clone()], SinkDestination::new(sender)));
    assert_eq!(error.expect_err("closed").code(), ErrorCode::ChannelCompleted);
    assert_eq!(left_in(&source), [1]);
}

// Rules 3.3, 5.4: a sink that does not close holds a failed merge for the grace, and no longer
#[test]
fn a_failed_merge_waits_for_its_sink_for_the_grace() {
    let clock = ManualClock::new();
    let context = context().with_clock(Arc::new(clock.clone()));
    for relents in [true, false] {
        let valve = Valve::default();
        valve.with(|state| (state.room, state.stuck) = (9, true));
        let sources = [stream::iter([Ok(1), Err("lost")])].map(watershed::Source::faults);
        let sink = SinkDestination::new(Pipe(valve.clone()));
        let second = Duration::from_secs(1);
        let mut merge = merge_into(&context, sources, sink).grace(3 * second).into_future();
        assert!(poll_times(&mut merge, 3).is_none());
        clock.advance(2 * second);
        assert!(poll_times(&mut merge, 3).is_none());
        if relents {
            valve.with(|state| state.stuck = false);
        } else {
            clock.advance(second);
        }
        let error = poll_times(&mut merge, 1).expect("it is over").expect_err("a fault");
        assert_eq!(error.code(), ErrorCode::Source);
        assert_eq!(error.metadata("delivered"), Some("1"));
        let further: Vec<_> = error.related().iter().map(Error::code).collect();
        assert_eq!(further, if relents { vec![] } else { vec![ErrorCode::Timeout] });
        valve.with(|state| assert_eq!(state.flushed.len(), usize::from(relents)));
    }
}

// Rule 3.5
#[test]
fn a_merge_cancelled_while_its_sink_closes_ends_after_the_grace() {
    let clock = ManualClock::new();
    let stop = CancellationSource::new();
    let context = context().with_clock(Arc::new(clock.clone())).with_cancellation(stop.token());
    let valve = Valve::default();
    valve.with(|state| (state.room, state.stuck) = (9, true));
    let sink = SinkDestination::new(Pipe(valve));
    let mut merge = merge_into(&context, [filled([1])], sink).into_future();
    assert!(poll_times(&mut merge, 3).is_none());
    stop.cancel();
    assert!(poll_times(&mut merge, 3).is_none());
    clock.advance(Duration::from_secs(5));
    let error = poll_times(&mut merge, 1).expect("it is over").expect_err("cancelled");
    assert_eq!(error.code(), ErrorCode::Canceled);
}

/// A merge of 2 in front of a full channel that stays open, and what its callback got.
fn left_waiting(by_drop: bool) -> (Undelivered<u32>, async_channel::Receiver<u32>) {
    let stop = CancellationSource::new();
    let (sender, receiver) = async_channel::bounded(1);
    sender.try_send(1).expect("open");
    let mut left = None;
    let merge =
        merge_into(&context(), [filled([2])], sender).keep_open().cancellation(stop.token());
    let mut merge = merge.undelivered(|message| left = Some(message)).into_future();
    assert!(poll_times(&mut merge, 3).is_none());
    if !by_drop {
        stop.cancel();
        let error = poll_times(&mut merge, 1).expect("it is over").expect_err("cancelled");
        assert_eq!(error.metadata("undelivered"), Some("1"));
    }
    drop(merge);
    (left.expect("the callback was called"), receiver)
}

#[test]
fn a_message_in_front_of_a_full_channel_that_stays_open_can_be_delivered_late() {
    for by_drop in [true, false] {
        let (left, receiver) = left_waiting(by_drop);
        let mut left = left.into_message().expect_err("it waits");
        assert!((&mut left).now_or_never().is_none());
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!((&mut left).now_or_never(), Some(Ok(())));
        assert_eq!(receiver.try_recv(), Ok(2));
    }
}

#[test]
fn a_message_in_front_of_a_full_channel_comes_back_when_that_is_closed() {
    let (left, receiver) = left_waiting(true);
    receiver.close();
    assert_eq!(block_on(left), Err(2));
    assert_eq!(left_in(&receiver), [1]);
}

#[test]
fn without_a_callback_a_waiting_message_stays_with_a_lent_destination() {
    let (sender, receiver) = async_channel::bounded(1);
    let mut destination = SenderDestination::new(sender);
    for round in [[1, 2], [3, 4]] {
        let merge = merge_into(&context(), [filled(round)], &mut destination).keep_open();
        assert!(poll_times(&mut merge.into_future(), 3).is_none());
        assert_eq!(receiver.try_recv(), Ok(round[0] - round[0] / 2));
    }
    drop(destination);
    assert_eq!(left_in(&receiver), []);
}

/// Holds one message at a time, and uses the provided methods for the rest.
#[derive(Default)]
struct Shelf(Option<u32>, usize);

impl Destination for Shelf {
    type Message = u32;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn try_send(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        message: u32,
    ) -> Result<(), Refused<u32>> {
        if self.0.is_some() {
            return Err(Refused::Full(message));
        }
        self.0 = Some(message);
        self.1 += 1;
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_message_that_a_destination_without_room_gave_back_goes_to_the_callback() {
    let mut shelf = Shelf::default();
    let source = filled([1, 2, 3]);
    let mut left = None;
    let merge = merge_into(&context(), [source.clone()], &mut shelf);
    let mut merge = merge.undelivered(|message| left = message.into_message().ok()).into_future();
    assert!(poll_times(&mut merge, 3).is_none());
    drop(merge);
    assert_eq!((shelf.0, shelf.1, left, left_in(&source)), (Some(1), 1, Some(2), vec![3]));
}

#[test]
fn a_sender_that_waits_takes_no_second_message() {
    let (sender, receiver) = async_channel::bounded(1);
    let mut destination = pin!(sender.into_destination());
    let mut cx = Context::from_waker(Waker::noop());
    for message in [1, 2] {
        assert!(destination.as_mut().poll_ready(&mut cx).is_ready());
        let poll = destination.as_mut().poll_send(&mut cx, &mut Some(message));
        assert_eq!(poll.is_ready(), message == 1);
    }
    assert!(destination.as_mut().poll_ready(&mut cx).is_pending());
    let refused = destination.as_mut().try_send(&mut cx, 3).expect_err("2 waits");
    assert_eq!(refused.into_message(), Some(3));
    assert_eq!(receiver.try_recv(), Ok(1));
    assert!(destination.as_mut().poll_ready(&mut cx).is_ready());
    assert_eq!(receiver.try_recv(), Ok(2));

    receiver.close();
    let mut hand = Some(4);
    assert!(destination.as_mut().poll_ready(&mut cx).is_ready());
    assert!(destination.as_mut().poll_send(&mut cx, &mut hand).is_ready());
    assert_eq!(hand, Some(4), "nobody receives it");
}

#[test]
fn a_sink_of_boxed_items_is_a_destination_as_well() {
    let (sender, receiver) = mpsc::unbounded::<u32>();
    let sink =
        sender.with(|message: u32| std::future::ready(Ok::<_, mpsc::SendError>(message + 1)));
    block_on(merge_into(&context(), [filled([1, 2])], SinkDestination::new(Box::pin(sink))))
        .expect("it succeeds");
    assert_eq!(block_on(receiver.collect::<Vec<_>>()), [2, 3]);
}

// Rule 2.4: one waker is enough for a merge that waits for room
#[test]
fn a_merge_that_waits_for_room_is_woken_by_room_alone() {
    struct Count(AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut cx = Context::from_waker(&waker);
    let (sender, receiver) = async_channel::bounded(1);
    let mut merge = merge_into(&context(), [filled([1, 2, 3])], sender).into_future();
    assert!(merge.poll_unpin(&mut cx).is_pending());
    assert_eq!(count.0.load(Ordering::Relaxed), 0, "it does not spin");
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert!(merge.poll_unpin(&mut cx).is_pending());
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
}
