//! Kills workers at random moments, and starts them again, until everything is settled.

use std::fs;
use std::io;
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

/// How often a worker is killed in one round, at most.
const KILLS: u32 = 20;

/// As many rounds as that, each with a seed of its own. `progress` says how many there were already.
pub(crate) fn prove(rounds: u64, progress: Option<&Path>) -> Result<(), BoxError> {
    let program = std::env::current_exe()?;
    let done = |file: &Path| -> Result<(u64, u32), BoxError> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
            Err(error) => return Err(error.into()),
        };
        let mut numbers = text.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        let (rounds, kills) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Ok((rounds, u32::try_from(kills)?))
    };
    let (mut round, mut kills) = progress.map_or(Ok((0, 0)), done)?;
    while round < rounds {
        let ended = one_round(&program, round);
        let (killed, found) = ended.map_err(|error| format!("seed {round}: {error}"))?;
        round += 1;
        kills += killed;
        println!(
            "round {round}: {killed} kills; {} took effect once, {} dead letters, {} undone",
            grouped(found.done),
            grouped(found.dead),
            grouped(found.undone),
        );
        if let Some(file) = progress {
            fs::write(file, format!("{round} rounds, {kills} kills, each audited\n"))?;
        }
    }
    println!("{round} rounds, {kills} kills: every message took effect once");
    Ok(())
}

/// One round: returns how often a worker was killed, and what the audit found.
fn one_round(program: &Path, seed: u64) -> Result<(u32, Found), BoxError> {
    let folder = tempfile::tempdir()?;
    let database = folder.path().join("earthquakes.db");
    let start = || {
        let mut worker = Command::new(program);
        worker.args(WORK.split(' ')).arg("--repeat").arg(REPEAT.to_string());
        worker.arg("--database").arg(&database).stdout(Stdio::null()).spawn()
    };
    let mut workers = Workers([start()?, start()?]);
    let kills = workers.kill_until_done(start, &mut Rng::with_seed(seed))?;
    let input = Input::load(None, REPEAT)?;
    let audit = audit::audit(&database, &input)?;
    let found = audit.found();
    if !audit.holds() || found.done + found.dead < input.messages() {
        return Err(format!("not as it should be: {audit:#?}").into());
    }
    Ok((kills, found))
}

/// Two processes; what still runs of them is killed when this is dropped.
struct Workers([Child; 2]);

impl Workers {
    fn kill_until_done(
        &mut self,
        start: impl Fn() -> io::Result<Child>,
        random: &mut Rng,
    ) -> Result<u32, BoxError> {
        let (began, mut kills) = (Instant::now(), 0);
        while self.are_running()? {
            if began.elapsed() > ROUND {
                return Err(format!("not done after {ROUND:?}").into());
            }
            thread::sleep(Duration::from_millis(random.u64(10..400)));
            let victim = &mut self.0[random.usize(0..2)];
            if kills < KILLS && victim.try_wait()?.is_none() {
                // SIGKILL: nothing of it runs any more.
                victim.kill()?;
                victim.wait()?;
                kills += 1;
                *victim = start()?;
            }
        }
        Ok(kills)
    }

    fn are_running(&mut self) -> Result<bool, BoxError> {
        let mut running = false;
        for worker in &mut self.0 {
            match worker.try_wait()? {
                Some(status) if !status.success() => {
                    return Err(format!("a worker has failed ({status})").into());
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
