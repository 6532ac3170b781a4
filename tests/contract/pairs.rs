//! Every option with every other one, in each of the eight types that a drain can be of here.

use std::time::Duration;

use watershed::Commit;

use crate::crossing::{Case, Shape, broken_by};

type Set = fn(&mut Case);

const OPTIONS: [(&str, Set); 39] = [
    ("concurrency 3", |case| case.concurrency = Some(3)),
    ("concurrency 100", |case| case.concurrency = Some(100)),
    ("per_source_concurrency 2", |case| case.per_source = Some(2)),
    ("quantum 1", |case| case.quantum = Some(1)),
    ("quantum 256", |case| case.quantum = Some(256)),
    ("a late timeout", |case| case.timeout = Some(Duration::MAX)),
    ("an early timeout", |case| case.timeout = Some(Duration::from_millis(500))),
    ("message_timeout", |case| case.message_timeout = Some(Duration::from_millis(250))),
    ("grace 0", |case| case.grace = Some(Duration::ZERO)),
    ("finish_within", |case| case.finish_within = Some(Duration::from_millis(100))),
    ("commit per message", |case| case.commit = Commit::Message),
    ("commit never", |case| case.commit = Commit::Never),
    ("retry", |case| case.retry = Some((3, Duration::from_millis(150)))),
    ("retry at once", |case| case.retry = Some((2, Duration::ZERO))),
    ("max_waiting 1", |case| case.max_waiting = Some(1)),
    ("on_failure", |case| case.continues = true),
    ("dead_letter_timeout", |case| case.letter_timeout = Some(Duration::from_millis(200))),
    ("message_compensation", |case| case.compensation = true),
    ("until_idle", |case| case.until_idle = true),
    ("rate", |case| case.rate = Some((2, Duration::from_millis(100)))),
    ("progress", |case| case.progress = true),
    ("weighted", |case| case.weights = true),
    ("prioritized", |case| case.priorities = true),
    ("named", |case| case.names = true),
    ("rate of a source", |case| case.source_rate = Some((1, Duration::from_millis(100)))),
    ("windows", |case| case.windows = true),
    ("cancellation", |case| case.cancelled_at = Some(9)),
    ("shutdown", |case| case.shut_down_at = Some(7)),
    ("pause", |case| case.pauses_at = Some(4)),
    ("removal", |case| case.removes_at = Some(5)),
    ("handlers that wait", |case| case.yields = true),
    ("handlers that fail", |case| case.fails = true),
    ("handlers that panic", |case| case.panics = true),
    ("handlers that sleep", |case| case.sleeps = true),
    ("handlers that hang", |case| case.hangs = true),
    ("handlers that answer later", |case| case.comes_later = true),
    ("undos that fail", |case| case.undo_fails = true),
    ("handlers that reserve", |case| case.reserves = true),
    ("handlers with drains of their own", |case| case.nests = true),
];

/// Runs all of them, and tells of every pair in which something is not as it must be.
fn crossed(shape: Shape) {
    let mut broken = Vec::new();
    for (first, (one, set_one)) in OPTIONS.iter().enumerate() {
        for (other, set_other) in &OPTIONS[first..] {
            let mut case = Case { shape, ..Case::default() };
            set_one(&mut case);
            set_other(&mut case);
            if let Some(why) = broken_by(&case) {
                broken.push(format!("{one} with {other}: {why}"));
            }
        }
    }
    assert!(broken.is_empty(), "{shape:?}: {broken:#?}");
}

// Rules 2.1, 2.2, 2.10, 3.1 to 3.11, 4.1, 4.3, 6.3
macro_rules! shapes {
    ($($name:ident: $number:literal;)+) => {$(
        #[test]
        fn $name() {
            crossed(Shape::all()[$number]);
        }
    )+};
}

shapes! {
    every_option_works_with_every_other_in_order: 0;
    every_option_works_with_every_other_in_order_with_all_the_rest: 1;
    every_option_works_with_every_other_unordered_with_sources_to_come: 2;
    every_option_works_with_every_other_unordered_with_letters: 3;
    every_option_works_with_every_other_by_key_with_sources_to_come: 4;
    every_option_works_with_every_other_by_key_with_letters: 5;
    every_option_works_with_every_other_across_sources_with_local_undos: 6;
    every_option_works_with_every_other_across_sources_with_sources_to_come: 7;
}

#[test]
fn the_eight_types_have_every_two_of_their_options_together() {
    let bits = |shape: Shape| [shape.letters, shape.put_back, shape.undos, shape.incoming];
    for one in 0..4 {
        for other in (0..4).filter(|other| *other != one) {
            let mut seen: Vec<_> =
                Shape::all().map(|shape| (bits(shape)[one], bits(shape)[other])).into();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 4, "options {one} and {other}");
        }
    }
}
