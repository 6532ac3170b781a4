//! What is promised, how each promise is tested, with which numbers, and what is not promised.
//!
//! | promise | tested by |
//! | --- | --- |
//! | A message is handled once, in the order of its source, or is still in its source. | the model; a drain cut at every poll; the fuzz targets `fan_in`, `live_sources` and `select` |
//! | What was staged is undone exactly once and in reverse order, or cleared, or still staged. | the model; all subsets of failing actions; an error and a panic at every point |
//! | This holds when the drain or the rollback is dropped or cancelled, at any await. | dropped and cancelled after each of its polls, in every mode, alone and beside faults |
//! | A panic of a handler, a source, an action, a waker or a destructor is an error, and costs no neighbour. | a panic at every point that is the user's code |
//! | No error is lost. | every fault is looked for in the error that comes out, and must have fired |
//! | No source starves, and the executor gets its thread back. | the largest gap of any ready source, and the messages a poll, against their bounds |
//! | No wake-up is lost, and nothing idle is polled. | a million random wake-ups, a million from eight threads, `loom` |
//! | Two rollbacks, or two drains, may share a scope, from any threads. | `loom`, `shuttle`, the model |
//! | Cost is linear, memory flat, the stack shallow; what has ended holds nothing. | 100,000 sources, 1,000,000 actions, 100,000,000 messages; counts of references |
//! | The same input gives the same trace, under any executor. | every program of the model runs twice; one suite under six executors |
//!
//! # How to run it
//!
//! | | |
//! | --- | --- |
//! | `cargo test --all-features` | every rule of the contract, the proof with small counts, what the fuzzers found |
//! | `cargo test --release --all-features --test proof -- --nocapture` | the proof; each test prints what it went through. `WATERSHED_PROOF=long` multiplies the counts, `short` is what a debug build runs, `WATERSHED_SEED=n` chooses other programs for the model |
//! | `.ci/threads` | the library's own code under `loom` (every schedule of small scenes) and under `shuttle` (random ones and such with few forced switches, of larger scenes); `.ci/threads long` for more |
//! | `.ci/mutants/run` | breaks the library in one place at a time, and checks that the tests notice |
//! | `.ci/flakes` | the tests, 1,000 times in a row |
//! | `cargo +nightly fuzz run fan_in` | one of the fuzzers, whose corpora `cargo test` runs as well |
//!
//! The first three are part of the gate that every change goes through.
//!
//! # Numbers
//!
//! The proof, one run in a release build on two shared cores, in less than a minute:
//!
//! | | |
//! | --- | --- |
//! | drains, dropped and cancelled after each of their polls; 1, 2 and 16 handlers at once, each commit and failure mode | 720 cases, 68,832 runs |
//! | drains that mix every kind of source and option, dropped and cancelled after each poll | 1,620 cases, 126,852 runs |
//! | rollbacks, alone, in pairs, and with retries, dropped and cancelled | 68,893 runs, and 3,499 pairs of a dropped drain and a dropped rollback |
//! | an error and a panic at every point of a drain and its rollback; each fired | 90,439 runs, up to 581 points in one |
//! | two faults at every pair of points | 166,024 runs |
//! | all subsets of up to 10 failing actions, failing once or for good | 55,269 runs, 248,859 failures |
//! | random programs against the model, each run twice | 100,000 programs: 112,509 drains, 774,658 effects, 271,077 rollbacks |
//! | the largest gap of a ready source among 1,000, in turns of 256 messages | 255,744 messages, its bound |
//! | messages in one poll of a drain; after a cancellation or a deadline | at most 510; at most 255 |
//! | wake-ups at random; by eight threads; by eight threads that wait for their answer | 1,000,008; 2,000,000; 80,000 |
//! | 100,000 sources; 1,000,000 actions, on a stack of 128 KiB | 16 times as many take 19.9 and 16.3 to 21.2 times as long |
//! | 100,000,000 messages under `Commit::Message` | resident memory grows by less than 100 KiB |
//! | drops and faults after which nothing is held | 2,238 and 11,374 |
//!
//! Threads: `loom` goes through 52 scenes with 296,477 schedules in all, most of them complete,
//! the larger ones with up to two or three forced switches; `shuttle` through 100,000 random and
//! 100,000 PCT schedules each of two drains on one scope and of concurrent rollbacks.
//!
//! Mutants: all 40 are noticed. Fuzzers: five targets, 2,980,619 runs, which found one leak. Repetitions: FLAKES.
//!
//! # What it found
//!
//! More than twenty defects were found by these means and mended, each with its test. Some of them:
//! a second rollback took the signals of the first; a clear lost the action that was running when
//! its rollback was dropped afterwards; a panicking destructor hid the failure before it; a context
//! that its handler dropped while it waited was leaked; a source that was removed waited for the
//! handlers of others; a message whose key function panics was gone.
//!
//! # What is not promised
//!
//! - *Compensations survive no crash.* They live in memory. A process that is killed leaves effects
//!   behind that nobody undoes: what must survive belongs into a database, beside the effect.
//! - *An action may run more than once.* One that was interrupted runs again in the next rollback,
//!   and one that failed may have done half of its work. Make it idempotent.
//! - *Exactly once is not delivery.* What a source hands out twice is handled twice: that is what
//!   the idempotency token is for.
//! - *A handler that blocks its thread* blocks its drain with it, and no deadline can fire.
//! - *A scope that is dropped with actions runs none of them*, because a destructor cannot await.
//!   The loss is counted and written to standard error.
//! - *A panic that aborts* (`panic = "abort"`, or a second one while unwinding) is out of reach.
//! - *Memory that runs out* aborts, as everywhere in Rust's collections.
//! - Not under the model checkers of threads: the queues of `futures` and `async-channel`, the
//!   selects, broadcasts and combinators. These are polled by one task, and tested by seed.
