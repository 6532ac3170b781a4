//! Kills workers at random moments, and starts them again, until everything is done.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use watershed::BoxError;

use crate::{audit, database};

/// Orders of a round, and how long it may take.
const ORDERS: u32 = 600;
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
        let folder = std::env::temp_dir().join(format!("two-workers-{}", std::process::id()));
        let (killed, found) = one_round(&folder, &program, round, ORDERS)?;
        fs::remove_dir_all(&folder)?;
        round += 1;
        kills += killed;
        println!("round {round}: {killed} kills; {found}");
        if let Some(file) = progress {
            fs::write(file, format!("{round} rounds, {kills} kills, each audited\n"))?;
        }
    }
    println!("{round} rounds, {kills} kills: everything was done once");
    Ok(())
}

/// One round: returns how often a worker was killed, and what the audit found.
fn one_round(
    folder: &Path,
    program: &Path,
    seed: u64,
    orders: u32,
) -> Result<(u32, audit::Found), BoxError> {
    database::fill(folder, orders)?;
    let mut random = Rng::with_seed(seed);
    let start = || -> io::Result<Child> {
        Command::new(program).arg("work").arg(folder).stdout(Stdio::null()).spawn()
    };
    let (mut workers, mut kills) = ([start()?, start()?], 0);
    let began = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(random.u64(10..400)));
        let mut running = 0;
        for worker in &mut workers {
            match worker.try_wait()? {
                Some(status) if !status.success() => {
                    return Err(format!("a worker has failed ({status}); seed {seed}").into());
                }
                Some(_) => {}
                None => running += 1,
            }
        }
        if running == 0 {
            break;
        }
        if began.elapsed() > ROUND {
            workers.iter_mut().try_for_each(Child::kill)?;
            return Err(format!("not done after {ROUND:?}; seed {seed}").into());
        }
        let victim = &mut workers[random.usize(0..2)];
        if kills < KILLS && victim.try_wait()?.is_none() {
            // SIGKILL: nothing of it runs any more.
            victim.kill()?;
            victim.wait()?;
            kills += 1;
            *victim = start()?;
        }
    }
    Ok((kills, audit::audit(folder)?))
}
