//! Rule 7.16: a transport that keeps order by group.

use std::cell::RefCell;
use std::sync::Mutex;
use std::time::Duration;

use watershed::channels::Window;
use watershed::testing::{ScriptedQueue, SettleAnswer as Says, Simulation};
use watershed::transport::{
    Able, Facts, Fetched, Link, Received, Settled, Transport, Verdict, Want,
};
use watershed::{BoxError, Clock, ErrorCode, OnFailure, RetryPolicy, StepContext, fan_in, timers};

use crate::shop::{MINUTE, SECOND, Shop, able, assert_sum, run};

/// A queue with the messages 0 to `messages`, in so many groups by turns.
fn stage(messages: u32, groups: u32, able: Able) -> (Simulation, Shop, StepContext) {
    let simulation = Simulation::new(7).with_most_polls(100_000);
    let queue = ScriptedQueue::new(simulation.world())
        .able(able.groups())
        .grouped_by(move |number: &u32| (number % groups).to_string())
        .with(0..messages);
    let context = simulation.world().context("shop");
    (simulation, Shop::new(queue), context)
}

/// Those of one group, in the order in which they began.
fn of_group(began: &[u32], group: u32, groups: u32) -> Vec<u32> {
    began.iter().copied().filter(|number| number % groups == group).collect()
}

#[test]
fn messages_of_a_group_are_handled_in_order_and_those_of_others_at_once() {
    let (simulation, shop, context) = stage(12, 3, able().prefetches(12));
    let (began, running, most) = (RefCell::new(Vec::new()), RefCell::new(0), RefCell::new(0));
    let drain = fan_in(&context, [shop.link().source()], async |number, step: StepContext| {
        shop.work(&step);
        began.borrow_mut().push(number);
        *running.borrow_mut() += 1;
        most.replace_with(|most| (*most).max(*running.borrow()));
        timers::delay(&step, SECOND * (1 + number % 4)).await?;
        *running.borrow_mut() -= 1;
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain.concurrency(8)).unwrap();
    assert_eq!((report.accepted(), *most.borrow()), (12, 3));
    assert!(report.warnings().is_empty(), "{:?}", report.warnings());
    for group in 0..3 {
        let wanted: Vec<_> = (0..4).map(|round| round * 3 + group).collect();
        assert_eq!(of_group(&began.borrow(), group, 3), wanted);
    }
    assert_sum(&report);
    shop.check_all(12);
}

#[test]
fn nothing_behind_a_message_that_is_tried_again_is_handled() {
    let (simulation, shop, context) = stage(6, 2, able().prefetches(6));
    let began = RefCell::new(Vec::new());
    let drain = fan_in(&context, [shop.link().source()], async |number, step: StepContext| {
        let fails = number == 0 && began.borrow().iter().filter(|it| **it == 0).count() < 2;
        began.borrow_mut().push(number);
        shop.work(&step);
        if fails { Err("declined") } else { Ok(()) }
    });
    let report = run(&simulation, drain.concurrency(4).retry(RetryPolicy::fixed(5, SECOND)));
    assert_eq!(report.unwrap().accepted(), 6);
    assert_eq!(of_group(&began.borrow(), 0, 2), [0, 0, 0, 2, 4]);
    assert_eq!(of_group(&began.borrow(), 1, 2), [1, 3, 5]);
    shop.check_all(6);
}

#[test]
fn what_is_behind_one_that_goes_back_goes_back_before_it_the_last_first() {
    let (simulation, shop, context) = stage(8, 2, able().prefetches(8).batches_of(1));
    let began = RefCell::new(Vec::new());
    let drain = fan_in(&context, [shop.link().source()], async |number, step: StepContext| {
        let fails = number == 2 && !began.borrow().contains(&2);
        began.borrow_mut().push(number);
        shop.work(&step);
        if fails { Err("declined") } else { Ok(()) }
    });
    let drain = drain.concurrency(4).on_failure(OnFailure::Continue);
    let report = run(&simulation, drain).unwrap();
    assert_eq!(of_group(&began.borrow(), 0, 2), [0, 2, 2, 4, 6]);
    assert_eq!(of_group(&began.borrow(), 1, 2), [1, 3, 5, 7]);
    let back: Vec<_> = shop.verdicts().concat().into_iter().filter(|it| it.1 != "accept").collect();
    assert_eq!(back, [(6, "untouched"), (4, "untouched"), (2, "release")]);
    assert_eq!((report.accepted(), report.released()), (8, 3));
    shop.check_all(8);
}

#[test]
fn the_next_one_does_not_wait_for_an_accept_but_for_everything_else() {
    let (simulation, shop, context) = stage(3, 1, able().prefetches(3));
    let shop = shop.slow(5 * SECOND);
    let began = RefCell::new(Vec::new());
    let drain = fan_in(&context, [shop.link().source()], async |number, step: StepContext| {
        began.borrow_mut().push((number, shop.queue.now()));
        shop.work(&step);
        Ok::<_, BoxError>(())
    });
    assert_eq!(run(&simulation, drain).unwrap().accepted(), 3);
    let at: Vec<_> = began.borrow().iter().map(|(_, at)| *at).collect();
    assert_eq!(at[0], at[2], "{at:?}");
    shop.check_all(3);
}

#[test]
fn nothing_behind_a_lost_message_is_handled_before_it_comes_again() {
    let (simulation, shop, context) = stage(4, 1, able().prefetches(4));
    let shop = shop.endless();
    let clock = simulation.world().clock().clone();
    let began = RefCell::new(Vec::new());
    let drain = fan_in(&context, [shop.link().source()], async |number, step: StepContext| {
        let first = began.borrow().is_empty();
        began.borrow_mut().push(number);
        shop.work(&step);
        if first {
            shop.queue.renews([watershed::testing::RenewalAnswer::Lost]);
            let clock = clock.clone();
            step.register_compensation(move || {
                let clock = clock.clone();
                async move { clock.sleep_until(clock.now() + MINUTE).await }
            });
            timers::delay(&step, MINUTE).await?;
        }
        Ok::<_, BoxError>(())
    });
    let drain = drain.concurrency(4).on_failure(OnFailure::Continue).until_idle();
    let report = run(&simulation, drain).unwrap();
    assert_eq!(*began.borrow(), [0, 0, 1, 2, 3]);
    assert_eq!((report.accepted(), report.lost()), (4, 1));
    assert_sum(&report);
    shop.check_all(4);
}

#[test]
fn a_refused_accept_takes_the_message_back_where_none_of_its_group_has_begun() {
    for others in [1, 4] {
        let (simulation, shop, context) = stage(others, 1, able().prefetches(4).batches_of(1));
        // At 0, 100, 300 and 700 milliseconds, of one message.
        shop.queue.settles(vec![Says::Refused; if others == 1 { 4 } else { 40 }]);
        let link = shop.link().settle_within(SECOND);
        let began = RefCell::new(Vec::new());
        let drain = fan_in(&context, [link.source()], async |number, step: StepContext| {
            began.borrow_mut().push(number);
            shop.work(&step);
            if number == 1 {
                // The accept of the one before is refused to the end meanwhile.
                timers::delay(&step, MINUTE).await?;
            }
            Ok::<_, BoxError>(())
        });
        let report = run(&simulation, drain.until_idle()).unwrap();
        if others == 1 {
            assert!(began.borrow().len() > 1, "it came again");
            assert_eq!(report.unknown(), 0);
        } else {
            assert!(report.unknown() >= 1, "{report:?}");
        }
        assert_sum(&report);
    }
}

#[test]
fn windows_of_groups_are_handled_one_after_another() {
    let (simulation, shop, context) = stage(9, 2, able().prefetches(9));
    let (began, running) = (RefCell::new(Vec::new()), RefCell::new(false));
    let window = Window::new(&context, shop.link().source()).count(3).every(SECOND);
    let drain = fan_in(&context, [window], async |numbers: Vec<u32>, step: StepContext| {
        assert!(!running.replace(true));
        began.borrow_mut().extend(numbers);
        shop.work(&step);
        timers::delay(&step, SECOND).await?;
        running.replace(false);
        Ok::<_, BoxError>(())
    });
    assert_eq!(run(&simulation, drain.concurrency(8)).unwrap().accepted(), 9);
    assert_eq!(*began.borrow(), (0..9).collect::<Vec<_>>());
    shop.check_all(9);
}

#[test]
fn a_window_that_goes_back_takes_those_behind_it_along() {
    let (simulation, shop, context) = stage(8, 2, able().prefetches(8));
    let began = RefCell::new(Vec::new());
    let window = Window::new(&context, shop.link().source()).count(2).every(SECOND);
    let drain = fan_in(&context, [window], async |numbers: Vec<u32>, step: StepContext| {
        let fails = numbers.contains(&2) && !began.borrow().contains(&2);
        began.borrow_mut().extend(numbers);
        shop.work(&step);
        timers::delay(&step, SECOND).await?;
        if fails { Err(BoxError::from("declined")) } else { Ok(()) }
    });
    let drain = drain.on_failure(OnFailure::Continue);
    let report = run(&simulation, drain).unwrap();
    assert_eq!(of_group(&began.borrow(), 0, 2), [0, 2, 2, 4, 6]);
    assert_eq!(of_group(&began.borrow(), 1, 2), [1, 3, 3, 5, 7]);
    assert_sum(&report);
    shop.check_all(8);
}

#[test]
fn it_is_not_unordered_and_its_windows_have_no_order_by_key() {
    let (simulation, shop, context) = stage(2, 1, able());
    let drain = fan_in(&context, [shop.link().source()], async |_, _| Ok::<_, BoxError>(()));
    let failure = run(&simulation, drain.unordered()).unwrap_err();
    assert_eq!(failure.error().code(), ErrorCode::Validation);
    let window = Window::new(&context, shop.link().source()).count(2).every(SECOND);
    let drain = fan_in(&context, [window], async |_, _| Ok::<_, BoxError>(()));
    let failure = run(&simulation, drain.ordered_by(|all: &Vec<u32>| all[0])).unwrap_err();
    assert_eq!(failure.error().code(), ErrorCode::Validation);
    assert_eq!(shop.queue.left(), [0, 1]);
}

#[test]
fn an_order_of_ones_own_holds_as_well() {
    let (simulation, shop, context) = stage(16, 4, able().prefetches(16));
    let (began, running) = (RefCell::new(Vec::new()), RefCell::new([0; 2]));
    let drain = fan_in(&context, [shop.link().source()], async |number, step: StepContext| {
        let own = (number / 4 % 2) as usize;
        running.borrow_mut()[own] += 1;
        assert_eq!(running.borrow()[own], 1);
        began.borrow_mut().push(number);
        shop.work(&step);
        timers::delay(&step, Duration::from_millis(100)).await?;
        running.borrow_mut()[own] -= 1;
        Ok::<_, BoxError>(())
    });
    let drain = drain.concurrency(8).ordered_by(|number: &u32| number / 4 % 2);
    assert_eq!(run(&simulation, drain).unwrap().accepted(), 16);
    for group in 0..4 {
        let wanted: Vec<_> = (0..4).map(|round| round * 4 + group).collect();
        assert_eq!(of_group(&began.borrow(), group, 4), wanted);
    }
    shop.check_all(16);
}

#[test]
fn a_queue_is_not_empty_while_what_is_behind_a_message_in_hand_is_hidden() {
    let (simulation, shop, context) = stage(3, 1, able().prefetches(1));
    let shop = shop.endless().slow(SECOND);
    let began = RefCell::new(Vec::new());
    let drain = fan_in(&context, [shop.link().source()], async |number, step: StepContext| {
        began.borrow_mut().push(number);
        shop.work(&step);
        // Fetches bring nothing meanwhile.
        timers::delay(&step, MINUTE).await?;
        Ok::<_, BoxError>(())
    });
    assert_eq!(run(&simulation, drain.until_idle()).unwrap().accepted(), 3);
    assert_eq!(*began.borrow(), [0, 1, 2]);
    shop.check_all(3);
}

/// A line of messages that are all there, in so many groups.
struct Line {
    next: Mutex<u32>,
    most: u32,
    groups: u32,
}

impl Transport for Line {
    type Message = u32;
    type Receipt = u32;

    fn able(&self) -> Able {
        able().groups().prefetches(1_000).batches_of(1_000)
    }

    async fn fetch(&self, want: Want) -> Fetched<u32, u32> {
        let mut next = self.next.lock().unwrap();
        let first = *next;
        *next = self.most.min(first + want.at_most as u32);
        let receive = |number: u32| {
            let group = Some((number % self.groups).to_string().into());
            let facts = Facts { group, id: Some(number.to_string().into()), ..Facts::default() };
            Received::new(number, number).leased_for(MINUTE).with_facts(facts)
        };
        Ok((first < self.most).then(|| (first..*next).map(receive).collect()))
    }

    async fn settle(&self, batch: Vec<(u32, Verdict)>) -> Vec<Settled> {
        batch.iter().map(|_| Settled::Confirmed).collect()
    }
}

#[test]
fn a_crowd_in_one_group_and_a_crowd_of_groups() {
    const CROWD: u32 = 100_000;
    for groups in [1, CROWD] {
        let simulation = Simulation::new(7).with_most_polls(10_000_000);
        let context = simulation.world().context("crowd");
        let link = Link::new(Line { next: Mutex::new(0), most: CROWD, groups });
        let last = RefCell::new(None);
        let drain = fan_in(&context, [link.source()], async |number, _| {
            let before = last.replace(Some(number));
            assert!(groups > 1 || before < Some(number));
            Ok::<_, BoxError>(())
        });
        let report = run(&simulation, drain.concurrency(64)).unwrap();
        assert_eq!(report.accepted(), u64::from(CROWD));
    }
}
