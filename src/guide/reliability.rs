//! What is promised, how each promise is tested, and what is not promised.
//!
//! | promise | tested by |
//! | --- | --- |
//! | A message is handled once, in the order of its source, or is still in its source. | the model; drains that are steered at random; a drain cut at every poll; the fuzz targets `fan_in`, `live_sources` and `select` |
//! | What was staged is undone exactly once and in reverse order, or cleared, or still staged. | the model; all subsets of failing actions; an error and a panic at every point |
//! | This holds when the drain or the rollback is dropped or cancelled, at any await. | dropped and cancelled after each of its polls, in every mode, alone and beside faults |
//! | A panic of a handler, a source, an action, a waker or a destructor is an error, and costs no neighbour. | a panic at every point that is the user's code |
//! | Each message taken is in one count: handled, failed, in flight, waiting, held, put back, unfinished. | the sums of every report, and of the progress while a drain runs |
//! | No error is lost. | every fault is looked for in the error that comes out, and must have fired |
//! | No source starves, and the executor gets its thread back. | the largest gap of any ready source, and the messages a poll, against their bounds |
//! | No wake-up is lost, and nothing idle is polled. | random wake-ups, wake-ups from eight threads, `loom` |
//! | Two rollbacks, or two drains, may share a scope, from any threads. | `loom`, `shuttle`, the model |
//! | Cost is linear, memory flat, the stack shallow; what has ended holds nothing. | crowds of everything that the library holds; millions of messages in any order, by key, retried, dead-lettered and incoming; counts of references |
//! | Each receipt of a transport has one end: accepted, released, rejected, lost, unknown, abandoned. Nothing is accepted after an undo, undone after an accept that may have been applied, released before its undo; no position passes a message that is not done. | each outcome at each settlement; drains dropped, cancelled and shut down at every poll; random programs over a queue and a log whose answers go by seed; two processes on one queue and one log, killed with SIGKILL and frozen with SIGSTOP |
//! | The same input gives the same trace, under any executor. | every program of the model runs twice; one suite under six executors |
//!
//! # How to run it
//!
//! | | |
//! | --- | --- |
//! | `cargo test --all-features` | every rule of the contract, the proof with small counts, what the fuzzers found |
//! | `cargo test --release --all-features --test proof -- --nocapture` | the proof; each test prints what it went through. `WATERSHED_PROOF=long` multiplies the counts, `short` is what a debug build runs, `WATERSHED_SEED=n` chooses other programs for the model |
//! | `.ci/threads` | the library's own code under `loom` (every schedule of small scenes) and under `shuttle` (random ones and such with few forced switches, of larger scenes); `.ci/threads long` for more |
//! | `cargo test --release --features testing --test settlement --test settlement_log` | settlement; `PROGRAMS=n` and `SETTLEMENT_PROGRAMS=n` set how many random programs of each |
//! | `cargo run --release -p high_volume_fan_in -- prove 14` | two workers on one database are killed, or frozen for longer than their leases last, until all is settled, and audited: 230 kills and 50 freezes in 14 rounds, each audit clean (`examples/high_volume_fan_in/proved.txt`) |
//! | `.ci/mutants/run` | breaks the library in one place at a time, and checks that the tests notice |
//! | `.ci/flakes` | the tests, 200 times in a row, and those that start threads 1,000 times |
//! | `cargo +nightly fuzz run fan_in` | one of the fuzzers, whose corpora `cargo test` runs as well |
//!
//! The first three are part of the gate that every change goes through. What a test went through is
//! what it prints.
//!
//! # What it found
//!
//! Defects that were found by these means, each mended with its test, among others:
//! a second rollback took the signals of the first; a clear lost the action that was running when
//! its rollback was dropped afterwards; a panicking destructor hid the failure before it; a context
//! that its handler dropped while it waited was leaked; a source that was removed waited for the
//! handlers of others; a message whose key function panics was gone; a handler that cancelled its
//! drain in the poll in which the deadline had passed was told as a timeout.
//!
//! And by people who had the contract and the docs, and had not seen the code; their programs are the
//! tests `broken_…`: a retry that became due between two looks at the clock was never begun; a
//! reservation that was withdrawn on another thread while its action moved was looked for for ever; a
//! handler that waited for the removal of another source held up a shutdown.
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
//!   The loss is counted, and told as a `tracing` event where that feature is on.
//! - *A panic that aborts* (`panic = "abort"`, or a second one while unwinding) is out of reach.
//! - *Memory that runs out* aborts, as everywhere in Rust's collections.
//! - Not under the model checkers of threads: the queues of `futures` and `async-channel`, the
//!   selects, broadcasts and combinators. These are polled by one task, and tested by seed.
