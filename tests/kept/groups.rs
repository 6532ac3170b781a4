//! Programs of somebody who tried to break groups and broadcasts, with nothing but the contract and the
//! docs. Each is named after what was seen.

use futures::FutureExt;
use watershed::channels::broadcast;
use watershed::{group::Group, *};

// 3.7 ("What the library drops it drops one by one, each contained")
struct V(#[allow(dead_code)] u8);
impl Drop for V {
    fn drop(&mut self) {
        panic!("destructor of a value")
    }
}
fn in_rollback(values: u8) -> impl Unpin + Send + std::future::Future {
    let g = Group::<V>::collecting(&StepContext::new("g"))
        .roll_back(CompensationPolicy::sequential_reverse());
    for i in 0..values {
        g.go(None, move |_| async move { Ok::<_, BoxError>(V(i)) }).unwrap();
    }
    g.go(None, async |step| {
        step.register_compensation(|| std::future::pending::<()>());
        Err::<V, BoxError>("failed".into())
    })
    .unwrap();
    let mut w = g.wait();
    assert!((&mut w).now_or_never().is_none(), "it rolls back");
    w
}
#[test]
fn one_panicking_value_crosses_the_drop_of_a_group_that_rolls_back() {
    let w = in_rollback(1);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(w))).is_ok());
}
#[test]
fn two_panicking_values_abort_the_process_when_a_group_that_rolls_back_is_dropped() {
    let w = in_rollback(2);
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(w)));
}

// Subscribers::add. Seen: what was taken while only a removed destination was there goes to the next one. The docs
// did not say so; an item is not lost because nobody is there.
#[test]
fn an_item_that_has_nobody_left_goes_to_the_destination_that_comes_next() {
    for poll_between in [false, true] {
        let (news, source) = async_channel::unbounded();
        let (a, from_a) = async_channel::bounded(1);
        let (b, from_b) = async_channel::bounded(8);
        let mut broadcast = broadcast(&StepContext::new("b"), source, [a]);
        let subscribers = broadcast.subscribers();
        let mut running = broadcast.into_future();
        news.try_send(1).unwrap();
        news.try_send(2).unwrap();
        assert!((&mut running).now_or_never().is_none());
        assert_eq!((from_a.len(), news.len()), (1, 0));
        assert!(subscribers.remove(0));
        if poll_between {
            assert!((&mut running).now_or_never().is_none());
        }
        subscribers.add(b).unwrap();
        assert!((&mut running).now_or_never().is_none());
        news.try_send(3).unwrap();
        assert!((&mut running).now_or_never().is_none());
        assert_eq!((from_b.try_recv(), from_b.try_recv()), (Ok(2), Ok(3)));
    }
}

// Route ("both are closed together"), merge_into ("However it ends, it closes the destination")
#[test]
fn a_route_leaves_its_right_side_open_when_nobody_receives_on_the_left() {
    for panics in [false, true] {
        let (even, from_even) = async_channel::bounded::<u32>(4);
        let (odd, from_odd) = async_channel::bounded::<u32>(4);
        let route = channels::Route::new(
            |n: &u32| if panics { panic!("undecided") } else { n % 2 == 0 },
            even.clone(),
            odd.clone(),
        );
        if !panics {
            from_even.close();
        }
        let (source, mut left) = (futures::stream::iter([1, 3]), None);
        let merge = channels::merge_into(&StepContext::new("m"), [source], route)
            .undelivered(|message| left = message.into_message().ok());
        let error = merge.into_future().now_or_never().unwrap().unwrap_err();
        let code = if panics { ErrorCode::Panic } else { ErrorCode::ChannelCompleted };
        assert_eq!(error.code(), code, "{error:#}");
        assert!(from_even.is_closed() && from_odd.is_closed());
        assert_eq!(left, panics.then_some(1), "it is with nobody");
    }
}

#[derive(Debug)]
struct Broken(bool);
impl Clock for Broken {
    fn now(&self) -> Tick {
        panic!("clock")
    }
    fn sleep_until(&self, _: Tick) -> Sleep {
        panic!("clock")
    }
    fn check(&self) -> Result<(), Error> {
        if self.0 { Ok(()) } else { Err(Error::new(ErrorCode::Clock, "no clock")) }
    }
}

// GroupReport::outstanding ("after the wait, those left on their executor when the grace was over"), GroupReport::dropped
#[test]
fn in_place_tasks_are_outstanding_after_the_wait() {
    let second = std::time::Duration::from_secs(1);
    let on = |clock| Group::new(&StepContext::new("g").with_clock(std::sync::Arc::new(clock)));
    let late = Group::new(&StepContext::new("g"));
    late.go("first", |_| std::future::pending::<Result<(), BoxError>>()).unwrap();
    let groups = [
        on(Broken(true)).timeout(second),
        on(Broken(false)).timeout(second),
        Group::new(&StepContext::new("g")).timeout(std::time::Duration::ZERO),
        late.roll_back(CompensationPolicy::default()),
    ];
    for group in groups {
        for _ in 0..2 {
            group.go("t", async |_| Ok::<_, BoxError>(())).ok();
        }
        let handle = group.clone();
        handle.close();
        let failure = group.wait().now_or_never().unwrap().unwrap_err();
        assert_eq!(failure.report().outstanding(), 0, "{}: {:?}", failure.error(), handle.report());
        assert_eq!(failure.report().dropped(), handle.report().dropped());
    }
}
