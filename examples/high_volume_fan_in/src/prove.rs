//! Kills workers at random moments and starts them again, or freezes them for longer than their leases
//! last, until everything is settled; and audits.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use watershed::BoxError;

use crate::audit::{self, Found};
use crate::input::Input;
use crate::report::grouped;

/// What a worker does: it fails now and then, and goes on.
const WORK: &str = "--on-failure dead-letter --fail-one-in 20 --fail-at 50";

/// So that there is something to do between two kills.
const REPEAT: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// How long a round may take.
const ROUND: Duration = Duration::from_secs(120);

/// How often a worker is killed or frozen in one round, at most.
const DISTURBANCES: u32 = 20;

/// Longer than a lease.
const FREEZE: Duration = Duration::from_millis(1_500);

/// What was done to workers.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    rounds: u64,
    kills: u64,
    freezes: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, kills, freezes } = self;
        write!(f, "{rounds} rounds, {kills} kills, {freezes} freezes")
    }
}

impl Done {
    /// What an earlier call has noted; nothing where there is no such file.
    fn read(file: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
        let mut next = || numbers.next().unwrap_or(0);
        Ok(Self { rounds: next(), kills: next(), freezes: next() })
    }
}

/// As many rounds as that, each with a seed of its own. `progress` says how many there were already.
///
/// # Errors
///
/// When a worker fails or the audit does not hold, with the seed.
pub(crate) fn prove(rounds: u64, progress: Option<&Path>) -> Result<(), BoxError> {
    let program = std::env::current_exe()?;
    let mut done = progress.map_or_else(|| Ok(Done::default()), Done::read)?;
    while done.rounds < rounds {
        let seed = done.rounds;
        let found = one_round(&program, seed, &mut done);
        let found = found.map_err(|error| format!("seed {seed}: {error}"))?;
        done.rounds += 1;
        println!(
            "{done}; in this one {} took effect once, {} are dead letters, {} were undone",
            grouped(found.done),
            grouped(found.dead),
            grouped(found.undone),
        );
        if let Some(file) = progress {
            fs::write(file, format!("{done}, each audited\n"))?;
        }
    }
    println!("{done}: every message took effect once");
    Ok(())
}

/// One round: returns what the audit found.
fn one_round(program: &Path, seed: u64, done: &mut Done) -> Result<Found, BoxError> {
    let folder = tempfile::tempdir()?;
    let database = folder.path().join("earthquakes.db");
    let start = || {
        let mut worker = Command::new(program);
        worker.args(WORK.split(' ')).arg("--repeat").arg(REPEAT.to_string());
        worker.arg("--database").arg(&database).stdout(Stdio::piped()).spawn()
    };
    let mut workers = Workers([start()?, start()?]);
    workers.disturb_until_done(start, &mut Rng::with_seed(seed), done)?;
    let input = Input::load(None, REPEAT)?;
    let audit = audit::audit(&database, &input)?;
    let found = audit.found();
    if !audit.holds() || found.done + found.dead < input.messages() {
        return Err(format!("not as it should be: {audit:#?}").into());
    }
    Ok(found)
}

/// Two processes; what still runs of them is killed when this is dropped.
struct Workers([Child; 2]);

impl Workers {
    fn disturb_until_done(
        &mut self,
        start: impl Fn() -> io::Result<Child>,
        random: &mut Rng,
        done: &mut Done,
    ) -> Result<(), BoxError> {
        let (began, mut times) = (Instant::now(), 0);
        while self.are_running()? {
            if began.elapsed() > ROUND {
                return Err(format!("not done after {ROUND:?}").into());
            }
            thread::sleep(Duration::from_millis(random.u64(10..400)));
            let victim = &mut self.0[random.usize(0..2)];
            if times == DISTURBANCES || victim.try_wait()?.is_some() {
                continue;
            }
            times += 1;
            if random.u32(0..5) == 0 {
                // Its leases run out, its messages go to the other one, and then it goes on with them.
                signal(victim, "-STOP")?;
                thread::sleep(FREEZE);
                signal(victim, "-CONT")?;
                done.freezes += 1;
            } else {
                // SIGKILL: nothing of it runs any more.
                victim.kill()?;
                victim.wait()?;
                *victim = start()?;
                done.kills += 1;
            }
        }
        Ok(())
    }

    fn are_running(&mut self) -> Result<bool, BoxError> {
        let mut running = false;
        for worker in &mut self.0 {
            match worker.try_wait()? {
                Some(status) if !status.success() => {
                    let mut said = String::new();
                    if let Some(mut stdout) = worker.stdout.take() {
                        stdout.read_to_string(&mut said)?;
                    }
                    return Err(format!("a worker has failed ({status}):\n{said}").into());
                }
                status => running |= status.is_none(),
            }
        }
        Ok(running)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.0 {
            // One that has ended cannot be killed.
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

fn signal(worker: &Child, signal: &str) -> Result<(), BoxError> {
    let sent = Command::new("kill").arg(signal).arg(worker.id().to_string()).status()?;
    if sent.success() { Ok(()) } else { Err(format!("kill {signal}: {sent}").into()) }
}
