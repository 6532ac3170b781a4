//! Windows: one message with many receipts.

use watershed::channels::Window;
use watershed::testing::{QueueReceipt, RenewalAnswer, SettleAnswer as Says};
use watershed::{
    BoxError, CancellationSource, CompensationPolicy, ErrorCode, Letter, OnFailure, RetryPolicy,
    Source, fan_in, timers,
};

use crate::shop::{MINUTE, SECOND, Shop, able, assert_sum, run, stage};

/// Rules 7.6 and 7.20: one verdict for all, each counted by its own outcome.
#[test]
fn a_window_is_settled_with_one_verdict_and_counted_by_receipt() {
    let (simulation, shop, context) = stage(5);
    let (link, windows) = (shop.link(), &mut Vec::new());
    let window = Window::new(&context, link.source()).count(2).every(SECOND);
    let drain = fan_in(&context, [window], |window: Vec<u32>, step| {
        assert_eq!(step.deliveries().len(), window.len());
        assert_eq!(shop.work(&step).len(), window.len());
        windows.push(window);
        async { Ok::<_, BoxError>(()) }
    });
    let report = run(&simulation, drain).unwrap();
    assert_sum(&report);
    assert_eq!((report.handled(), report.accepted()), (3, 5));
    assert_eq!(*windows, [vec![0, 1], vec![2, 3], vec![4]]);
    shop.check_all(5);
}

/// Rule 7.20: undone only if every accept was refused.
#[test]
fn a_window_is_undone_only_if_every_accept_was_refused() {
    for (answers, undone) in [
        (vec![Says::Refused; 12], true),
        // One is accepted, the other refused to the end.
        ([vec![Says::Usual], vec![Says::Refused; 6]].concat(), false),
        ([vec![Says::Unknown], vec![Says::Refused; 6]].concat(), false),
        ([vec![Says::Lost], vec![Says::Refused; 6]].concat(), false),
        ([vec![Says::Refused, Says::Usual], vec![Says::Refused; 6]].concat(), false),
    ] {
        let (simulation, shop, context) = stage(2);
        shop.queue.settles(answers.clone());
        let link = shop.link().settle_within(SECOND);
        let stop = CancellationSource::new();
        let window = Window::new(&context, link.source()).count(2).every(10 * SECOND);
        let drain = fan_in(&context, [window], async |_, step| {
            shop.work(&step);
            stop.cancel();
            Ok::<_, BoxError>(())
        });
        let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
        assert_sum(&report);
        assert_eq!(shop.book().undone.len(), if undone { 2 } else { 0 }, "{answers:?}");
        assert_eq!(report.released(), if undone { 2 } else { 0 }, "{answers:?}");
        shop.check_all(2);
    }
}

/// Rule 7.20: a drain that is dropped between the accepts of one window keeps what the window did.
#[test]
fn a_window_of_which_one_is_accepted_is_not_undone_when_its_drain_is_dropped() {
    watershed::testing::for_every_poll(|point| {
        let (simulation, shop, context) = stage(2);
        let shop = shop.slow(SECOND).with_able(able().batches_of(1));
        let link = shop.link();
        let window = Window::new(&context, link.source()).count(2).every(10 * SECOND);
        let drain = fan_in(&context, [window], async |_, step| {
            shop.work(&step);
            Ok::<_, BoxError>(())
        });
        run(&simulation, point.cut(drain));
        let rollback = context.roll_back(&CompensationPolicy::sequential_reverse());
        run(&simulation, rollback).unwrap();
        shop.check_all(2);
    });
}

/// Rule 7.20: lost while the handler runs, all is undone, and the others are released.
#[test]
fn a_receipt_that_is_lost_cancels_its_window() {
    let (simulation, shop, context) = stage(3);
    shop.queue.renews([RenewalAnswer::Usual, RenewalAnswer::Lost, RenewalAnswer::Usual]);
    let link = shop.link();
    let (mut calls, stop) = (0, CancellationSource::new());
    let window = Window::new(&context, link.source()).count(3).every(SECOND);
    let drain = fan_in(&context, [window], |window: Vec<u32>, step| {
        calls += 1;
        let (first, shop, stop) = (calls == 1, &shop, &stop);
        if first {
            assert_eq!(window.len(), 3);
        }
        async move {
            shop.work(&step);
            if first {
                timers::delay(&step, MINUTE).await?;
            } else {
                stop.cancel();
            }
            Ok::<_, BoxError>(())
        }
    });
    let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
    assert_sum(&report);
    assert_eq!((report.lost(), report.released() >= 2), (1, true), "{report:?}");
    assert_eq!(shop.book().undone.len(), 3);
    shop.check_all(3);
}

/// Rule 7.20: what is lost in an open window leaves it.
#[test]
fn what_is_lost_in_an_open_window_leaves_it() {
    let (simulation, shop, context) = stage(2);
    let shop = shop.endless();
    shop.queue.renews([RenewalAnswer::Lost]);
    let link = shop.link();
    let (mut seen, stop) = (Vec::new(), CancellationSource::new());
    let window = Window::new(&context, link.source()).count(10).every(20 * SECOND);
    // Lost after 10 seconds, the first one comes again and is in the window once more, or in the next.
    let drain = fan_in(&context, [window], |window: Vec<u32>, step| {
        let receipts = shop.work(&step);
        assert_eq!(receipts.len(), window.len(), "each of them is ours");
        seen.push(receipts);
        stop.cancel();
        async { Ok::<_, BoxError>(()) }
    });
    let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
    assert_sum(&report);
    assert_eq!((report.handled(), report.lost()), (1, 1));
    assert!(shop.book().undone.is_empty(), "nothing was done for it");
    let first: Vec<_> = seen[0].iter().map(|it: &QueueReceipt| (it.number, it.token)).collect();
    assert!(first.contains(&(1, 1)), "the other one stays: {first:?}");
    assert!(!first.contains(&(0, 1)), "{first:?}");
    shop.check_all(2);
}

/// Rule 7.20: a window of which all is lost is none.
#[test]
fn a_window_of_which_all_is_lost_is_no_window() {
    let (simulation, shop, context) = stage(1);
    let shop = shop.endless();
    shop.queue.renews([RenewalAnswer::Lost]);
    let link = shop.link();
    let window = Window::new(&context, link.source()).count(10).every(15 * SECOND);
    let stop = CancellationSource::new();
    let drain = fan_in(&context, [window], |window: Vec<u32>, step| {
        assert_eq!(window, [0]);
        assert!(shop.work(&step)[0].token > 1);
        stop.cancel();
        async { Ok::<_, BoxError>(()) }
    });
    let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
    assert_sum(&report);
    assert_eq!((report.handled(), report.accepted(), report.lost()), (1, 1, 1));
    shop.check_all(1);
}

/// Rules 7.20 and 2.1: an open window is released receipt by receipt.
#[test]
fn an_open_window_is_released_at_the_end() {
    let (simulation, shop, context) = stage(2);
    let shop = shop.endless();
    let link = shop.link();
    let window = Window::new(&context, link.source()).count(10).every(MINUTE);
    let drain = fan_in(&context, [window], async |_, _| Ok::<_, BoxError>(()));
    let report = run(&simulation, drain.timeout(5 * SECOND)).unwrap_err().report().clone();
    assert_sum(&report);
    assert_eq!((report.fetched(), report.released()), (2, 2));
    assert_eq!(shop.queue.deliveries(0), 0, "nobody had begun it");
    shop.check_all(2);
}

/// Rule 7.20
#[test]
fn a_window_that_can_never_be_full_needs_an_interval() {
    for which in 0..2 {
        let (simulation, shop, context) = stage(9);
        let shop = if which == 0 {
            shop.with_able(able().prefetches(4))
        } else {
            shop.with_able(able().prefetches(16))
        };
        let link = match which {
            0 => shop.link(),
            _ => shop.link().max_unsettled(4),
        };
        let window = Window::new(&context, link.source()).count(5);
        let drain = fan_in(&context, [window], async |_, _| Ok::<_, BoxError>(()));
        let failure = run(&simulation, drain).unwrap_err();
        assert_eq!(failure.error().code(), ErrorCode::Validation, "{which}");
        assert_eq!(failure.report().fetched(), 0);

        let window = Window::new(&context, link.source()).count(5).every(SECOND);
        let drain =
            fan_in(&context, [window], async |_, step| Ok::<_, BoxError>(drop(shop.work(&step))));
        let report = run(&simulation, drain).unwrap();
        assert_eq!(report.accepted(), 9, "{which}");
    }
}

/// Rules 7.4 and 7.20: a window that fails has one letter, with the facts of each.
#[test]
fn a_window_that_fails_has_one_letter_and_a_reject_for_each() {
    let (simulation, shop, context) = stage(4);
    let link = shop.link();
    let window = Window::new(&context, link.source()).count(2);
    let (mut letters, mut attempts) = (0, 0);
    let drain = fan_in(&context, [window], |window: Vec<u32>, step| {
        attempts += 1;
        shop.work(&step);
        let bad = window[0] == 0;
        async move { if bad { Err("declined") } else { Ok(()) } }
    });
    let drain =
        drain.retry(RetryPolicy::fixed(2, SECOND)).dead_letters(|letter: Letter<Vec<u32>>| {
            letters += 1;
            assert_eq!(letter.deliveries().len(), 2);
            shop.letter(&letter);
            async {}
        });
    let report = run(&simulation, drain).unwrap();
    assert_sum(&report);
    assert_eq!((report.accepted(), report.rejected()), (2, 2));
    assert_eq!((letters, attempts), (1, 3));
    shop.check_all(4);
}
