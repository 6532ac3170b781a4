//! The workers of a round: processes of this program, three at a time.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use watershed::BoxError;

use super::http;
use super::servers::{dying_with_us, signal};

/// How many there are at a time.
pub(crate) const WORKERS: usize = 3;

/// How long one may take to end when it is asked to, beyond what it may take to finish what runs.
const END: Duration = Duration::from_secs(30);

/// Of the metrics: the messages fetched from sources, and those of them that were lost.
const FETCHED: &str = "order_worker_fetched_total";
const LOST: &str = "order_worker_settled_total{outcome=\"lost\"}";

/// The exit code of a worker that a signal has ended, and that has settled all it had.
const DONE: i32 = 0;
/// The exit code of a worker that a second signal has ended.
const CANCELLED: i32 = 3;

/// What the workers of a round say they went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) kills: u64,
    /// Messages fetched from the sources.
    pub(crate) fetched: u64,
    /// Receipts that were no longer theirs.
    pub(crate) lost: u64,
}

/// The processes.
#[derive(Debug)]
pub(crate) struct Workers {
    program: PathBuf,
    config: PathBuf,
    folder: PathBuf,
    started: usize,
    slots: Vec<Worker>,
    /// Those that were asked to end.
    ending: Vec<Ending>,
    tally: Tally,
}

#[derive(Debug)]
struct Ending {
    worker: Worker,
    since: Instant,
    twice: bool,
}

/// One of them; if it still runs when this is dropped, it is killed.
#[derive(Debug)]
struct Worker {
    child: Child,
    log: PathBuf,
    /// What it said when it was last asked.
    said: (u64, u64),
}

impl Workers {
    /// Starts all of them, with their logs in that folder.
    ///
    /// # Errors
    ///
    /// When a process cannot be started.
    pub(crate) fn start(program: &Path, config: &Path, folder: &Path) -> Result<Self, BoxError> {
        let mut workers = Self {
            program: program.to_owned(),
            config: config.to_owned(),
            folder: folder.to_owned(),
            started: 0,
            slots: Vec::new(),
            ending: Vec::new(),
            tally: Tally::default(),
        };
        for _ in 0..WORKERS {
            let worker = workers.one_more()?;
            workers.slots.push(worker);
        }
        Ok(workers)
    }

    fn one_more(&mut self) -> Result<Worker, BoxError> {
        self.started += 1;
        let log = self.folder.join(format!("worker-{}.log", self.started));
        let file = File::create(&log)?;
        let mut command = dying_with_us(&self.program, None);
        command.args(["--log", "info", "work", "--config"]).arg(&self.config);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Worker { child: command.spawn()?, log, said: (0, 0) })
    }

    /// Looks whether all of them run still, but for those that were asked to end.
    ///
    /// # Errors
    ///
    /// When one has ended by itself, or does not end, or not as it should.
    pub(crate) fn check(&mut self) -> Result<(), BoxError> {
        for mut ending in std::mem::take(&mut self.ending) {
            match ending.ended()? {
                Some(said) => self.tally.add(said),
                None => self.ending.push(ending),
            }
        }
        for worker in &mut self.slots {
            if let Some(status) = worker.child.try_wait()? {
                return Err(worker.failed(&format!("it ended by itself ({status})")));
            }
        }
        Ok(())
    }

    /// SIGKILL, and another one in its place.
    ///
    /// # Errors
    ///
    /// When there is no other one.
    pub(crate) fn kill(&mut self, place: usize) -> Result<(), BoxError> {
        let new = self.one_more()?;
        // One that is frozen says nothing: what it said before counts.
        self.slots[place].ask();
        let mut old = std::mem::replace(&mut self.slots[place], new);
        old.child.kill()?;
        old.child.wait()?;
        self.tally.kills += 1;
        self.tally.add(old.said);
        Ok(())
    }

    pub(crate) fn freeze(&self, place: usize) -> Result<(), BoxError> {
        signal(&self.slots[place].child, "STOP")
    }

    pub(crate) fn thaw(&self, place: usize) -> Result<(), BoxError> {
        signal(&self.slots[place].child, "CONT")
    }

    /// SIGTERM, in the middle of its work, and another one in its place. What else happens goes on while
    /// it ends: it may be that which keeps it from ending.
    ///
    /// # Errors
    ///
    /// When there is no other one.
    pub(crate) fn end(&mut self, place: usize, twice: bool) -> Result<(), BoxError> {
        let new = self.one_more()?;
        let old = std::mem::replace(&mut self.slots[place], new);
        // One that has only begun knows nothing of signals yet: it would just be killed.
        let began = Instant::now();
        while old.metrics().is_none() && began.elapsed() < END {
            thread::sleep(Duration::from_millis(20));
        }
        signal(&old.child, "TERM")?;
        if twice {
            thread::sleep(Duration::from_millis(100));
            signal(&old.child, "TERM")?;
        }
        self.ending.push(Ending { worker: old, since: Instant::now(), twice });
        Ok(())
    }

    /// SIGTERM to all of them, and waits for each.
    ///
    /// # Errors
    ///
    /// When one does not end, or not as it should.
    pub(crate) fn end_all(&mut self) -> Result<(), BoxError> {
        for worker in self.slots.drain(..) {
            signal(&worker.child, "TERM")?;
            self.ending.push(Ending { worker, since: Instant::now(), twice: false });
        }
        while !self.ending.is_empty() {
            self.check()?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What they said, those that have ended.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tally {
    fn add(&mut self, (fetched, lost): (u64, u64)) {
        self.fetched += fetched;
        self.lost += lost;
    }
}

impl Ending {
    /// What it said of all its time, if it has ended.
    fn ended(&mut self) -> Result<Option<(u64, u64)>, BoxError> {
        let Self { worker, since, twice } = self;
        let Some(status) = worker.child.try_wait()? else {
            if since.elapsed() > END {
                return Err(worker.failed(&format!("it did not end within {END:?}")));
            }
            return Ok(None);
        };
        match status.code() {
            Some(DONE) => {}
            Some(CANCELLED) if *twice => {}
            _ => return Err(worker.failed(&format!("it ended with {status}"))),
        }
        match worker.report() {
            Some(report) => Ok(Some(report)),
            // A server was away that it needs to begin.
            None if worker.event("working").is_none() => Ok(Some((0, 0))),
            None => Err(worker.failed("it ended without a report")),
        }
    }
}

impl Worker {
    /// Asks it for its metrics, if it answers.
    fn ask(&mut self) {
        let Some(address) = self.metrics() else { return };
        let Ok(page) = http::get(address, "/metrics") else { return };
        let value = |name: &str| {
            let rest = page.lines().find_map(|line| line.strip_prefix(name));
            rest.and_then(|rest| rest.trim().parse().ok()).unwrap_or_default()
        };
        self.said = (value(FETCHED), value(LOST));
    }

    /// Where it serves them, as its log says.
    fn metrics(&self) -> Option<SocketAddr> {
        let port = self.event("metrics")?["port"].as_u64()?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.try_into().ok()?)))
    }

    /// What it said at its end.
    fn report(&self) -> Option<(u64, u64)> {
        let report = self.event("report")?;
        Some((report["fetched"].as_u64()?, report["lost"].as_u64()?))
    }

    /// An event in its log: the first one of that name, or with that text.
    fn event(&self, name: &str) -> Option<Value> {
        let log = fs::read_to_string(&self.log).ok()?;
        let mut events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.find(|event| event["event"] == name || event["message"] == name)
    }

    fn failed(&self, how: &str) -> BoxError {
        let log = self.log.file_name().unwrap_or_default();
        format!("{}: {how}", log.display()).into()
    }
}
