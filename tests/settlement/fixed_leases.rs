//! Leases that cannot be renewed: a message is handled within what is left of its own, or goes back.

use watershed::channels::Window;
use watershed::transport::Able;
use watershed::{BoxError, ErrorCode, OnFailure, Source, fan_in, timers};

use crate::shop::{SECOND, assert_sum, run, stage};

/// A queue that renews nothing.
fn fixed() -> Able {
    Able::each().fences().leases().counts().delays().prefetches(4)
}

/// Rule 7.11
#[test]
fn a_lease_that_cannot_be_renewed_needs_a_message_timeout() {
    let (simulation, shop, context) = stage(3);
    let shop = shop.with_able(fixed()).leased_for(10 * SECOND);
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
    let failure = run(&simulation, drain).unwrap_err();
    assert_eq!(failure.error().code(), ErrorCode::Validation);
    assert!(shop.queue.calls().is_empty());

    // One with less left than that is released, others go on, and it is told.
    let drain = fan_in(&context, [link.source()], async |_, step| {
        shop.work(&step);
        timers::delay(&step, 4 * SECOND).await?;
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain.message_timeout(5 * SECOND)).unwrap();
    assert_sum(&report);
    assert_eq!((report.accepted(), report.lost(), report.released() > 0), (3, 0, true));
    assert_eq!(report.troubles(), report.released(), "{report:?}");
    assert!(shop.verdicts().concat().iter().any(|(_, word)| *word == "untouched"));
    shop.check_all(3);
}

/// Rule 7.11: with a timeout that is longer than any lease no message could ever be handled. It is
/// given back, and whoever waits for it is told at once.
#[test]
fn a_message_timeout_that_no_lease_is_long_enough_for_is_refused() {
    for windows in [false, true] {
        let (simulation, shop, context) = stage(3);
        let shop = shop.with_able(fixed()).leased_for(2 * SECOND).endless();
        let link = shop.link();
        let source = if windows {
            Window::new(&context, link.source()).count(2).every(SECOND).erased()
        } else {
            link.source().picked(|it| Some(vec![it])).erased()
        };
        let drain = fan_in(&context, [source], async |_, _| Ok::<_, BoxError>(()));
        let drain = drain.on_failure(OnFailure::Continue).message_timeout(5 * SECOND);
        let failure = run(&simulation, drain).unwrap_err();
        assert_eq!(failure.error().code(), ErrorCode::Validation, "{failure}");
        let text = failure.error().to_string();
        assert!(text.contains("message_timeout") && text.contains("2s"), "{text}");
        let report = failure.report();
        assert_sum(report);
        assert_eq!((report.handled(), report.released()), (0, report.fetched()));
    }
}
