//! Random programs against a small reference model.
//!
//! - `program`: what a program is, and how bytes say it
//! - `reference`: what it may do and must have done
//! - `run`: running one, with everything it does told to the model
//!
//! `WATERSHED_SEED` chooses other programs. A program that breaks the contract is printed, as short
//! as it could be made, with its bytes: put those into `FOUND`.

#[allow(dead_code, unreachable_pub, reason = "the fuzz targets use these as well")]
mod program;
#[allow(dead_code, unreachable_pub, reason = "the fuzz targets use these as well")]
mod reference;
#[allow(dead_code, unreachable_pub, reason = "the fuzz targets use these as well")]
mod run;

use std::cell::Cell;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::effort::effort;
use reference::Numbers;

/// Programs that once broke the contract, or the model.
const FOUND: &[&[u8]] = &[
    // It cancels its drain in the poll in which the deadline has passed.
    &[
        0, 0, 87, 102, 0, 21, 0, 0, 4, 40, 9, 0, 0, 0, 43, 0, 0, 0, 220, 0, 0, 0, 0, 112, 5, 242,
        25, 0, 0, 0, 54, 0, 47, 0, 1, 205, 0, 71, 192, 0, 0, 0, 0, 89, 32, 0, 0, 44, 0, 151, 0, 0,
        172, 0, 0, 1, 64, 172, 111, 2, 248, 44,
    ],
    // A rollback that joined later undoes what the other one has given up: that has not failed.
    &[
        19, 0, 109, 0, 160, 1, 47, 140, 0, 24, 1, 8, 127, 0, 0, 0, 24, 152, 0, 188, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 41, 2, 0, 13, 0, 0, 116, 0, 12, 0, 0, 0, 0, 0, 0, 53, 0, 0, 0, 0,
        0, 0, 0, 0, 32, 20,
    ],
];

fn seed() -> u64 {
    std::env::var("WATERSHED_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7)
}

/// Rules 2.1 to 2.6, 3.1 to 3.8, 4.1 to 4.10, 5.4
#[test]
fn every_random_program_does_what_the_model_says() {
    for bytes in FOUND {
        run::check(bytes).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    let programs = effort(2_000, 100_000, 1_000_000);
    let seed = seed();
    let total = Cell::new(Numbers::default());
    let config = Config { cases: programs, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(&vec(any::<u8>(), 0..400), |bytes| {
        let numbers = run::check(&bytes).map_err(TestCaseError::fail)?;
        let mut sum = total.get();
        sum += numbers;
        total.set(sum);
        Ok(())
    });
    match result {
        Ok(()) => println!("seed {seed}, each program twice: {:#?}", total.get()),
        Err(TestError::Fail(why, bytes)) => panic!("seed {seed}: {why}\n{bytes:?}"),
        Err(error) => panic!("seed {seed}: {error}"),
    }
}
