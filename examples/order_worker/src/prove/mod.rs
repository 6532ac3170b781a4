//! The proof: rounds of three workers on three transports and one store, in each of which something is
//! killed, frozen, cut off, stalled or locked at a random moment; and the audit has to be clean.
//!
//! - `round`: what happens in one
//! - `faults`: what is done in it, and when
//! - `servers`, `proxy`: the servers, and what is in front of them
//! - `workers`: the processes that drain
//! - `group`: a fault of the broker's own, which is cured
//! - `progress`: the file that says which rounds there were
//! - `http`, `sql`: what the driver itself asks servers and workers

mod faults;
mod group;
mod http;
mod progress;
mod proxy;
mod round;
mod servers;
mod sql;
mod workers;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::{env, thread};

use clap::Args;
use watershed::BoxError;

use faults::Plan;
use progress::{Line, Progress};
use round::Round;
use servers::{Programs, Servers};

/// After so many rounds a job starts servers anew: the emulator keeps all it ever had in memory.
const ROUNDS_PER_SERVER: u32 = 25;

/// The options of `prove`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Prove {
    /// How many rounds there are to be, with those that the file has already; 0 only sums them up
    rounds: u64,

    /// Note each round here, and go on from what is noted
    #[arg(long, value_name = "FILE")]
    progress: Option<PathBuf>,

    /// The seed of the first round; each further one has the next
    #[arg(long, value_name = "S", default_value = "0")]
    seed: u64,

    /// How many rounds are run at once, each job with servers of its own
    #[arg(long, value_name = "J", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: u8,

    /// Keep the diary and the logs of clean rounds, too
    #[arg(long)]
    keep: bool,
}

/// What the jobs share.
#[derive(Debug)]
struct Shared {
    seeds: VecDeque<u64>,
    progress: Progress,
    /// The first thing that went wrong: no round is begun after it.
    failed: Option<BoxError>,
}

/// Runs the rounds that the file does not have.
///
/// # Errors
///
/// When a round is not clean: where what is kept of it lies, and what to type to run it again.
pub(crate) fn prove(options: &Prove) -> Result<(), BoxError> {
    let progress = Progress::read(options.progress.as_deref())?;
    let done = progress.done();
    let wanted = options.seed..options.seed + options.rounds;
    let seeds = wanted.filter(|seed| !done.contains(seed)).collect::<VecDeque<_>>();
    if !seeds.is_empty() {
        let programs = Programs::find()?;
        let shared = Mutex::new(Shared { seeds, progress, failed: None });
        thread::scope(|scope| {
            for _ in 0..options.jobs {
                scope.spawn(|| {
                    if let Err(error) = job(&programs, &shared, options.keep) {
                        lock(&shared).failed.get_or_insert(error);
                    }
                });
            }
        });
        let shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        print!("{}", shared.progress.summary());
        return shared.failed.map_or(Ok(()), Err);
    }
    print!("{}", progress.summary());
    Ok(())
}

/// One round after another. The servers are this thread's: they end when it does.
fn job(programs: &Programs, shared: &Mutex<Shared>, keep: bool) -> Result<(), BoxError> {
    // The file of this program, also when another one was built in its place meanwhile.
    let program = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
    let folder = Folder::take()?;
    let mut servers = None;
    let mut rounds = 0;
    while let Some(seed) = next(shared) {
        if rounds % ROUNDS_PER_SERVER == 0 {
            drop(servers.take());
            folder.empty()?;
        }
        rounds += 1;
        let servers = match &mut servers {
            Some(servers) => servers,
            none => none.insert(Servers::start(programs, &folder.path)?),
        };
        let plan = Plan::new(seed);
        let round = folder.path.join(format!("round-{seed}"));
        fs::create_dir(&round)?;
        let began = Instant::now();
        let result = Round::new(&program, servers, &plan, &round).run();
        let line = Line {
            commit: env::var("WATERSHED_COMMIT").unwrap_or_else(|_| "unknown".to_owned()),
            seed,
            faults: plan.to_string(),
            counts: *result.as_ref().unwrap_or(&progress::Counts::default()),
            seconds: began.elapsed().as_secs_f64(),
            clean: result.is_ok(),
        };
        println!("{line}");
        lock(shared).progress.add(line)?;
        match result {
            Ok(_) if keep => println!("  kept in {}", folder.keep(&round, seed)?.display()),
            Ok(_) => fs::remove_dir_all(round)?,
            Err(error) => {
                let kept = folder.keep(&round, seed)?.display().to_string();
                return Err(format!(
                    "round {seed} is not clean: {error}\nWhat there is of it: less {kept}/diary.txt \
                     {kept}/audit.txt {kept}/worker-*.log {kept}/store.sql\n\
                     To run it again: .ci/prove 1 --seed {seed} --keep"
                )
                .into());
            }
        }
    }
    Ok(())
}

/// The seed of the next round; none where all are taken or one has failed.
fn next(shared: &Mutex<Shared>) -> Option<u64> {
    let mut shared = lock(shared);
    if shared.failed.is_some() { None } else { shared.seeds.pop_front() }
}

/// A job that panics leaves it whole.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a job's servers have their data: one of a few folders that are used again, so that a driver
/// that is killed leaves nothing that the next one does not remove.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    kept: PathBuf,
    /// Locked for as long as the folder is in use; the kernel unlocks it.
    _lock: File,
}

impl Folder {
    fn take() -> Result<Self, BoxError> {
        let home = env::temp_dir().join("order_worker-prove");
        fs::create_dir_all(&home)?;
        for number in 0..64 {
            let lock = File::create(home.join(format!("job-{number}.lock")))?;
            if lock.try_lock().is_ok() {
                let path = home.join(format!("job-{number}"));
                return Ok(Self { path, kept: home.join("kept"), _lock: lock });
            }
        }
        Err(format!("all folders in {} are in use", home.display()).into())
    }

    fn empty(&self) -> Result<(), BoxError> {
        if self.path.exists() {
            fs::remove_dir_all(&self.path)?;
        }
        fs::create_dir(&self.path)?;
        Ok(())
    }

    /// Moves what there is of a round to where it stays.
    fn keep(&self, round: &Path, seed: u64) -> Result<PathBuf, BoxError> {
        fs::create_dir_all(&self.kept)?;
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
        let kept = self.kept.join(format!("{seed}-{now}"));
        fs::rename(round, &kept)?;
        Ok(kept)
    }
}
