//! One round: orders are produced, three workers drain them, something is done to these or to the
//! servers, and the audit has to be clean before the round's time is over, and once more when the
//! workers are gone.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use watershed::BoxError;

use super::faults::{Action, Line, Plan};
use super::group::Group;
use super::progress::Counts;
use super::servers::{Servers, database_at, dying_with_us};
use super::sql::{self, Lock};
use super::workers::Workers;

/// How long a round may take until its audit is clean.
const ROUND: Duration = Duration::from_secs(45);

/// How much longer where the broker had to be started anew, through no fault of the workers.
const CURE: Duration = Duration::from_secs(30);

/// How many orders each of the two fast sources gets.
const ORDERS: u32 = 150;

/// How many the emulator of SQS gets, which is slow.
const ORDERS_SQS: u32 = 60;

/// A round that is being run.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    program: &'a Path,
    servers: &'a mut Servers,
    plan: &'a Plan,
    /// What is kept of a round that fails.
    folder: &'a Path,
    began: Instant,
    /// What happened, and when.
    diary: String,
    lock: Option<Lock>,
}

impl<'a> Round<'a> {
    pub(crate) fn new(
        program: &'a Path,
        servers: &'a mut Servers,
        plan: &'a Plan,
        folder: &'a Path,
    ) -> Self {
        let (began, diary) = (Instant::now(), String::new());
        Self { program, servers, plan, folder, began, diary, lock: None }
    }

    /// Runs it; its folder says what happened.
    ///
    /// # Errors
    ///
    /// When it is not clean, or something does not work.
    pub(crate) fn run(mut self) -> Result<Counts, BoxError> {
        self.note(&format!("seed {}: {}, {:?}", self.plan.seed, self.plan, self.plan.actions));
        let result = self.produce_and_drain();
        self.note(&match &result {
            Ok(counts) => format!("clean: {counts:?}"),
            Err(error) => format!("NOT CLEAN: {error}"),
        });
        self.lock = None;
        let database = self.database();
        if result.is_err() {
            self.servers.repair()?;
            self.servers.dump(&database, &self.folder.join("store.sql"))?;
            for log in self.servers.logs() {
                if let Some(name) = log.file_name() {
                    fs::copy(log, self.folder.join(name))?;
                }
            }
        }
        fs::write(self.folder.join("diary.txt"), &self.diary)?;
        let drop = format!("drop database if exists {database} with (force)");
        sql::execute(&self.servers.database("postgres"), &drop)?;
        result
    }

    fn produce_and_drain(&mut self) -> Result<Counts, BoxError> {
        let create = format!("create database {}", self.database());
        sql::execute(&self.servers.database("postgres"), &create)?;
        // The delay on the way to the store is for the workers alone.
        let store = self.servers.database(&self.database());
        let fast = self.configure("fast.toml", &store, &[KAFKA, POSTGRES])?;
        let sqs = self.configure("sqs.toml", &store, &[SQS])?;
        let audited = self.configure("audit.toml", &store, &[KAFKA, POSTGRES, SQS])?;
        let store = self.servers.proxy(Line::Store).address();
        let store = database_at(store, &self.database());
        let all = self.configure("work.toml", &store, &[KAFKA, POSTGRES, SQS])?;
        // The workers need what `produce` makes: topics, queues and tables.
        self.produce(&fast, ORDERS)?;
        self.produce(&sqs, ORDERS_SQS)?;
        self.note("produced");
        let mut workers = Workers::start(self.program, &all, self.folder)?;
        self.inflict(&mut workers)?;
        self.note("all inflicted");
        let broker = self.servers.proxy(Line::Kafka).address().to_string();
        let mut group = Group::new(&broker, &self.database())?;
        let mut cured = 0;
        loop {
            workers.check()?;
            if let Some(said) = group.news() {
                self.note(&said);
            }
            if group.is_stuck() {
                self.note("the group has no leader: the broker is started anew");
                self.servers.kill_kafka()?;
                self.servers.start_kafka()?;
                group.cured();
                cured += 1;
            }
            match self.audit(&audited) {
                Ok(_) => break,
                Err(findings) if self.began.elapsed() > ROUND + CURE * cured => {
                    return Err(findings);
                }
                Err(_) => thread::sleep(Duration::from_millis(300)),
            }
        }
        self.note("the audit is clean");
        workers.end_all()?;
        self.note("the workers have ended");
        let given_up = self.audit(&audited)?;
        let tally = workers.tally();
        let messages = u64::from(2 * ORDERS + ORDERS_SQS);
        Ok(Counts {
            messages,
            kills: tally.kills,
            fenced: tally.lost,
            redelivered: tally.fetched.saturating_sub(messages),
            given_up,
            cured: u64::from(cured),
        })
    }

    /// Carries out the plan, as soon as something of the orders has been done.
    fn inflict(&mut self, workers: &mut Workers) -> Result<(), BoxError> {
        let store = self.servers.database(&self.database());
        while !sql::finds(&store, "select 1 from tokens limit 1") {
            workers.check()?;
            if self.began.elapsed() > ROUND {
                return Err("no worker has handled anything".into());
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.note("messages flow");
        let flowing = Instant::now();
        for &(moment, action) in &self.plan.actions {
            loop {
                workers.check()?;
                let left = moment.saturating_sub(flowing.elapsed());
                if left.is_zero() {
                    break;
                }
                thread::sleep(left.min(Duration::from_millis(20)));
            }
            self.note(&format!("{action:?}"));
            self.act(action, workers).map_err(|error| format!("{action:?}: {error}"))?;
        }
        Ok(())
    }

    fn act(&mut self, action: Action, workers: &mut Workers) -> Result<(), BoxError> {
        match action {
            Action::Kill(worker) => workers.kill(worker)?,
            Action::Freeze(worker) => workers.freeze(worker)?,
            Action::Thaw(worker) => workers.thaw(worker)?,
            Action::End { worker, twice } => workers.end(worker, twice)?,
            Action::RestartPostgres => self.servers.restart_postgres()?,
            Action::KillKafka => self.servers.kill_kafka()?,
            Action::StartKafka => self.servers.start_kafka()?,
            Action::FreezeSqs => self.servers.freeze_sqs()?,
            Action::ThawSqs => self.servers.thaw_sqs()?,
            Action::Cut(line) => self.servers.proxy(line).cut(),
            Action::Stall(line) => self.servers.proxy(line).stall(),
            Action::GoOn(line) => self.servers.proxy(line).go_on(),
            Action::Lock(table) => {
                let store = self.servers.database(&self.database());
                self.lock = Some(Lock::take(&store, table)?);
            }
            Action::Unlock => self.lock = None,
        }
        Ok(())
    }

    /// Each round has a database of its own, and a topic, a queue and tables of that name.
    fn database(&self) -> String {
        format!("round_{}", self.plan.seed)
    }

    fn configure(&self, file: &str, store: &str, sources: &[&str]) -> Result<PathBuf, BoxError> {
        let name = self.database();
        let address = |line| self.servers.proxy(line).address().to_string();
        let text = format!("{WORKER}\n{}", sources.join("\n"))
            .replace("STORE", store)
            .replace("ROWS", &database_at(self.servers.proxy(Line::Rows).address(), &name))
            .replace("BROKER", &address(Line::Kafka))
            .replace("SQS", &address(Line::Sqs))
            .replace("NAME", &name);
        let path = self.folder.join(file);
        fs::write(&path, text)?;
        Ok(path)
    }

    fn produce(&self, config: &Path, count: u32) -> Result<(), BoxError> {
        let mut command = dying_with_us(self.program, None);
        command.args(["--log", "warn,rdkafka=off", "produce", "--config"]).arg(config);
        command.args(["--count", &count.to_string(), "--poison", &self.plan.poison.to_string()]);
        command.args(["--prefix", &format!("round{}", self.plan.seed)]);
        let log = self.folder.join("produce.log");
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let status = command.status()?;
        if status.success() {
            return Ok(());
        }
        Err(format!("produce: {status}; see {}", log.display()).into())
    }

    /// Asks the store and the servers. Returns how many of the dead letters are valid orders.
    ///
    /// # Errors
    ///
    /// What the audit says, if it is not clean.
    fn audit(&self, config: &Path) -> Result<u64, BoxError> {
        let mut command = dying_with_us(self.program, None);
        command.args(["--log", "warn,rdkafka=off", "audit", "--config"]).arg(config);
        let output = command.stdin(Stdio::null()).output()?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        let valid = text.lines().filter_map(|line| line.strip_suffix(" are valid orders"));
        let valid = valid.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
        text += &String::from_utf8_lossy(&output.stderr);
        let _ = writeln!(text, "{}", output.status);
        fs::write(self.folder.join("audit.txt"), &text)?;
        if output.status.success() { Ok(valid) } else { Err(format!("audit:\n{text}").into()) }
    }

    fn note(&mut self, what: &str) {
        let _ = writeln!(self.diary, "{:7.3} s  {what}", self.began.elapsed().as_secs_f64());
    }
}

const WORKER: &str = r#"
[store]
url = "STORE"

[worker]
concurrency = 4
message_timeout = "3s"
retries = 2
store_retry = "500ms"
max_deliveries = 50
settle_within = "10s"
finish_within = "10s"
metrics = "127.0.0.1:0"
"#;

/// Letters are not stored idempotently: where this broker is killed while it stores one, it may say afterwards
/// that it has it, and has not.
const KAFKA: &str = r#"
[[source]]
kind = "kafka"
brokers = "BROKER"
topic = "NAME"
group = "NAME"
dead_topic = "NAME.dead"
partitions = 6

[source.client]
"session.timeout.ms" = 6000
"heartbeat.interval.ms" = 1000
"reconnect.backoff.max.ms" = 1000
"enable.idempotence" = false
"#;

const POSTGRES: &str = r#"
[[source]]
kind = "postgres"
url = "ROWS"
table = "queued"
lease = "6s"
"#;

const SQS: &str = r#"
[[source]]
kind = "sqs"
url = "http://SQS/123456789012/NAME"
dead_letter_url = "http://SQS/123456789012/NAME_dead"
endpoint = "http://SQS"
region = "eu-central-1"
visibility = "6s"
"#;
