//! Drains with random options that are steered at random, from inside and from outside. The same
//! seed makes the same drain; `WATERSHED_RUNS` says how many there are.

use std::time::Duration;

use watershed::Commit;

use super::case::{Case, Shape};
use super::drain::{broken_by, run};

fn runs() -> u64 {
    let given = std::env::var("WATERSHED_RUNS").ok();
    given.and_then(|runs| runs.parse().ok()).unwrap_or(3_000)
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
        ..Case::default()
    };
    case.steered = Some(chance.u64(..));
    case.shape = Shape::all()[chance.usize(..8)];
    case.commit = [Commit::Pipeline, Commit::Message, Commit::Never][chance.usize(..3)];
    case.concurrency = [None, Some(2), Some(3), Some(5), Some(100)][chance.usize(..5)];
    case.per_source = [None, None, Some(1), Some(2)][chance.usize(..4)];
    case.quantum = [None, Some(1), Some(2), Some(3), Some(256)][chance.usize(..5)];
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

/// Tries a part of the seeds, and tells of the first few on which something is not as it must be.
fn steered(part: u64) {
    let mut broken = Vec::new();
    for seed in (part..runs()).step_by(4) {
        if let Some(why) = broken_by(&random(seed)) {
            broken.push((seed, why));
        }
        if broken.len() == 10 {
            break;
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

// Rules 2.5, 2.7, 3.1 to 3.11, 4.1, 4.3, 6.3; fault d1
#[test]
fn a_drain_that_is_steered_at_random_ends_and_its_accounts_are_exact_1() {
    steered(0);
}

#[test]
fn a_drain_that_is_steered_at_random_ends_and_its_accounts_are_exact_2() {
    steered(1);
}

#[test]
fn a_drain_that_is_steered_at_random_ends_and_its_accounts_are_exact_3() {
    steered(2);
}

#[test]
fn a_drain_that_is_steered_at_random_ends_and_its_accounts_are_exact_4() {
    steered(3);
}

/// One seed, to look at closely: `WATERSHED_SEED=17 cargo test … one_seed -- --ignored`.
#[test]
#[ignore = "for one seed that was found to break something"]
fn one_seed() {
    let seed = std::env::var("WATERSHED_SEED").expect("which one").parse().expect("a number");
    println!("{:#?}", random(seed));
    run(&random(seed));
}
