//! Drains with random options that are steered at random, from inside and from outside: each must
//! end, with exact accounts.
//!
//! The same seed makes the same drain, and a seed that breaks something is printed with it.
//! `WATERSHED_RUNS` says how many are tried, and `WATERSHED_SEED` which is the first.

use std::time::Duration;

use watershed::Commit;

use crate::crossing::{Case, Shape, broken_by, run};
use crate::effort::effort;
use crate::scenario::quiet;

/// The tests that share the seeds, so that every core has some.
const PARTS: usize = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn runs() -> u64 {
    number("WATERSHED_RUNS").unwrap_or(effort(1_000, 20_000, 100_000))
}

fn random(seed: u64) -> Case {
    let mut chance = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed);
    let mut maybe = |of: u8| chance.u8(..of) == 0;
    let mut case = Case {
        continues: maybe(2),
        compensation: maybe(5),
        until_idle: maybe(4),
        progress: maybe(4),
        weights: maybe(3),
        priorities: maybe(3),
        names: maybe(4),
        windows: maybe(4),
        yields: !maybe(4),
        fails: maybe(2),
        panics: maybe(8),
        sleeps: maybe(3),
        hangs: maybe(8),
        comes_later: maybe(4),
        undo_fails: maybe(8),
        letters_hang: maybe(12),
        reserves: maybe(3),
        nests: maybe(4),
        ..Case::default()
    };
    case.steered = Some(chance.u64(..));
    case.shape = Shape::all()[chance.usize(..8)];
    case.commit = [Commit::Pipeline, Commit::Message, Commit::Never][chance.usize(..3)];
    case.concurrency = [None, Some(2), Some(3), Some(5), Some(100)][chance.usize(..5)];
    case.per_source = [None, None, Some(1), Some(2)][chance.usize(..4)];
    // Each from 1 to 256 has its turn; the small ones, which change the most, more often.
    let any = 1 + usize::try_from(seed % 256).unwrap_or_default();
    case.quantum = [None, Some(1), Some(2), Some(3), Some(any), Some(any)][chance.usize(..6)];
    let mut millis = |of: u8, most: u64| {
        (chance.u8(..of) == 0).then(|| Duration::from_millis(chance.u64(..most)))
    };
    case.timeout = millis(5, 5_000);
    case.message_timeout = millis(5, 500);
    case.grace = millis(3, 300);
    case.finish_within = millis(3, 500);
    case.letter_timeout = millis(4, 500);
    let wait = millis(2, 400);
    let rate = millis(8, 100).map(|per| per + Duration::from_millis(1));
    let source_rate = millis(8, 100).map(|per| per + Duration::from_millis(1));
    case.retry = wait.map(|wait| (1 + chance.u32(..4), wait));
    case.rate = rate.map(|per| (1 + chance.usize(..4), per));
    case.source_rate = source_rate.map(|per| (1 + chance.usize(..4), per));
    case.max_waiting = [None, None, Some(1), Some(3)][chance.usize(..4)];
    let mut at = |of: u8| (chance.u8(..of) == 0).then(|| chance.usize(..40));
    case.cancelled_at = at(8);
    case.shut_down_at = at(8);
    case.pauses_at = at(3);
    case.removes_at = at(4);
    case
}

/// Tries a part of the seeds, and tells of the first few by which something is not as it must be.
fn steered(part: u64) {
    quiet();
    let first = number("WATERSHED_SEED").unwrap_or(0);
    let mut broken = Vec::new();
    let mut tried = 0;
    for seed in (first + part..first + runs()).step_by(PARTS) {
        if let Some(why) = broken_by(&random(seed)) {
            broken.push((seed, why));
        }
        tried += 1;
        if broken.len() == 10 {
            break;
        }
    }
    assert!(broken.is_empty(), "by these seeds: {broken:#?}");
    println!("{tried} drains that were steered at random, each ended with exact accounts");
}

// Rules 2.1, 2.2, 2.5, 2.7, 3.1 to 3.11, 4.1 to 4.3, 4.9, 6.3
macro_rules! parts {
    ($($name:ident: $part:literal;)+) => {$(
        #[test]
        fn $name() {
            steered($part);
        }
    )+};
}

parts! {
    a_drain_that_is_steered_at_random_ends_and_its_accounts_are_exact_1: 0;
    a_drain_that_is_steered_at_random_ends_and_its_accounts_are_exact_2: 1;
    a_drain_that_is_steered_at_random_ends_and_its_accounts_are_exact_3: 2;
    a_drain_that_is_steered_at_random_ends_and_its_accounts_are_exact_4: 3;
}

/// One seed, to look at closely: `WATERSHED_SEED=17 cargo test … one_seed -- --ignored`.
#[test]
#[ignore = "for one seed that was found to break something"]
fn one_seed() {
    let seed = number("WATERSHED_SEED").expect("which one");
    println!("{:#?}", random(seed));
    run(&random(seed));
}
