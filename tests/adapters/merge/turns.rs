//! Whose turn it is.

use super::*;

// Rules 2.2, 3.1; P34
#[test]
fn a_merge_delivers_every_message_in_the_order_of_its_source_and_closes() {
    let sources: Vec<_> = (0..5).map(|s| filled((0..100).map(move |m| (s, m)))).collect();
    let (sender, receiver) = async_channel::unbounded();
    let report = block_on(merge_into(&context(), sources, sender.clone())).expect("it succeeds");
    assert!(sender.is_closed());
    let mut seen = vec![Vec::new(); 5];
    for (source, message) in left_in(&receiver) {
        seen[source].push(message);
    }
    assert!(seen.iter().all(|seen| *seen == (0..100).collect::<Vec<_>>()));
    assert_eq!(report.delivered(), 500);
    assert!(report.sources().iter().all(|source| source.delivered() == 100));
}

// Rule 2.3
#[test]
fn every_ready_source_has_a_turn_between_two_turns_of_another() {
    for quantum in [1, 3, 64] {
        let sources: Vec<_> = (0..10).map(|s| stream::repeat(s).take(300)).collect();
        let (sender, receiver) = async_channel::unbounded();
        block_on(merge_into(&context(), sources, sender).quantum(quantum)).expect("it succeeds");
        let order = left_in(&receiver);
        let bound = 9 * quantum + 1;
        let mut last = [0; 10];
        for (position, source) in order[..2_000].iter().enumerate() {
            let gap = position - last[*source];
            assert!(gap <= bound, "quantum {quantum}: source {source} waited {gap} messages");
            last[*source] = position;
        }
    }
}

/// Ready at every poll, and wakes its task each time as well.
struct Eager(u32, u32);

impl Stream for Eager {
    type Item = u32;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u32>> {
        cx.waker().wake_by_ref();
        self.1 -= 1;
        Poll::Ready((self.1 > 0).then_some(self.0))
    }
}

// Rule 2.3: to be woken while it is ready gains a source nothing
#[test]
fn a_source_that_wakes_itself_has_no_more_turns_than_others() {
    let sources = [Eager(0, 100).boxed(), stream::repeat(1).take(99).boxed()];
    let merged = merge(&context(), sources).quantum(1);
    let order: Vec<_> = block_on(merged.try_collect()).expect("it succeeds");
    assert_eq!(order, [0, 1].repeat(99));
}

// Rule 2.3: what is woken during a turn comes before that source's next turn
#[test]
fn a_source_woken_during_a_turn_comes_before_the_next_turn_of_the_same_source() {
    let (sender, late) = async_channel::unbounded();
    let mut count = 0;
    let busy = stream::repeat_with(move || {
        count += 1;
        if count == 10 {
            sender.try_send(2).expect("open");
        }
        1
    });
    let merged = merge(&context(), [late.boxed(), busy.boxed()]).quantum(4);
    let order: Vec<_> = block_on(merged.take(14).try_collect()).expect("it succeeds");
    assert_eq!(order, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1]);
}

// Rule 2.4
#[test]
fn one_poll_moves_a_bounded_number_of_messages() {
    let (sender, receiver) = async_channel::unbounded();
    let sources = [stream::repeat(1), stream::repeat(2)];
    let mut merge = merge_into(&context(), sources, sender).quantum(usize::MAX).into_future();
    for polls in 1..20 {
        assert!(poll_times(&mut merge, 1).is_none());
        assert!((polls..=polls * 256).contains(&receiver.len()), "after {polls} polls");
    }
}

// Rule 2.4: the same for sources that are woken and have nothing
#[test]
fn a_source_that_only_wakes_itself_does_not_hold_the_thread() {
    let polls = Arc::new(AtomicUsize::new(0));
    let restless = stream::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::<Option<u32>>::Pending
    });
    let mut merged = merge(&context(), [Counted(restless, Arc::clone(&polls))]);
    assert!(poll_times(&mut merged.next(), 1).is_none());
    assert!(polls.load(Ordering::Relaxed) <= 256);
}

// Rule 2.4
#[test]
fn a_message_of_one_source_polls_no_idle_one() {
    let idle_polls = Arc::new(AtomicUsize::new(0));
    let busy_polls = Arc::new(AtomicUsize::new(0));
    let (sender, busy) = async_channel::unbounded();
    let mut sources = vec![Counted(busy.boxed(), Arc::clone(&busy_polls))];
    let idle = || Counted(stream::pending().boxed(), Arc::clone(&idle_polls));
    sources.extend(std::iter::repeat_with(idle).take(1_000));
    let (destination, receiver) = async_channel::unbounded();
    let mut merge = merge_into(&context(), sources, destination).into_future();
    assert!(poll_times(&mut merge, 50).is_none());
    for message in 0..100 {
        sender.try_send(message).expect("open");
        assert!(poll_times(&mut merge, 2).is_none());
    }
    assert_eq!(receiver.len(), 100);
    assert_eq!(idle_polls.load(Ordering::Relaxed), 1_000);
    assert_eq!(busy_polls.load(Ordering::Relaxed), 1 + 2 * 100);
}

// Rule 2.4
#[test]
fn a_hundred_thousand_sources_are_merged() {
    let sources: Vec<_> = (0..100_000_u32).map(|n| stream::iter([n])).collect();
    let (sender, receiver) = async_channel::unbounded();
    let report = block_on(merge_into(&context(), sources, sender)).expect("it succeeds");
    assert_eq!((report.delivered(), receiver.len()), (100_000, 100_000));
}

// Rule 2.6
#[test]
fn zero_sources_succeed_at_once_and_close_the_destination() {
    let none: [async_channel::Receiver<u32>; 0] = [];
    let (sender, receiver) = async_channel::bounded(1);
    let report = block_on(merge_into(&context(), none.clone(), sender)).expect("it succeeds");
    assert_eq!((report.delivered(), receiver.is_closed()), (0, true));
    let (sender, _) = async_channel::bounded(1);
    assert!(
        block_on(merge_into(&context(), none.clone(), sender)).is_ok(),
        "closed for nobody's loss"
    );
    assert!(block_on(merge(&context(), none).next()).is_none());
}

// Rule 2.6
#[test]
fn a_source_that_ends_is_dropped_at_once() {
    let held = Arc::new(());
    let with_held = {
        let held = Arc::clone(&held);
        stream::iter([1]).map(move |message| (message, Arc::strong_count(&held)).0)
    };
    let (sender, receiver) = async_channel::bounded(9);
    let sources = [with_held.boxed(), stream::pending().boxed()];
    let mut merge = merge_into(&context(), sources, sender).into_future();
    assert!(poll_times(&mut merge, 1).is_none());
    assert_eq!((Arc::strong_count(&held), left_in(&receiver)), (1, vec![1]));
}
