//! A process that is killed in the middle of its work, again and again.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use watershed::transport::Link;
use watershed::{BoxError, StepContext, fan_in};
use watershed_kafka::Consumer;

use crate::support::{PATIENCE, broker, number, unique};

const MESSAGES: u32 = 600;
const PARTITIONS: i32 = 4;

/// Topic, group and the file for what was done.
const TASK: &str = "WATERSHED_KAFKA_TASK";

/// The process that is killed: it notes each message when it is handled.
#[test]
#[ignore = "it is started by the test below"]
fn worker() -> Result<(), BoxError> {
    let (Some(broker), Ok(task)) = (broker(), std::env::var(TASK)) else { return Ok(()) };
    let mut task = task.split(',');
    let mut said = || task.next().ok_or("TOPIC,GROUP,FILE");
    let (topic, group, file) = (said()?, said()?, said()?);
    let done = OpenOptions::new().append(true).open(file)?;
    let link = Link::new(Consumer::new(broker.member(group), [topic])?);
    let context = StepContext::new("worker");
    let drain = fan_in(&context, [], async |message, _| {
        smol::Timer::after(Duration::from_millis(10)).await;
        // One write each, so that a kill leaves whole lines.
        (&done).write_all(format!("{}\n", number(&message)).as_bytes())
    });
    smol::block_on(drain.incoming(link.assigned()).concurrency(8).into_future())?;
    Ok(())
}

struct Worker(Child);

impl Worker {
    fn start(task: &str) -> Result<Self, BoxError> {
        let program = std::env::current_exe()?;
        let arguments = ["--exact", "killing::worker", "--ignored"];
        let mut command = Command::new(program);
        let command = command.args(arguments).env(TASK, task).stdout(Stdio::null());
        Ok(Self(command.spawn()?))
    }
}

/// SIGKILL: nothing of it runs any more.
impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn done(file: &Path) -> Result<BTreeSet<u32>, BoxError> {
    let text = fs::read_to_string(file)?;
    Ok(text.lines().map(str::parse).collect::<Result<_, _>>()?)
}

#[test]
fn a_process_that_is_killed_has_committed_nothing_that_it_has_not_done() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let (topic, group) = (broker.topic("killed", PARTITIONS)?, unique("shop"));
    broker.put(&topic, PARTITIONS, 0..MESSAGES)?;
    let file = std::env::temp_dir().join(unique("watershed-kafka"));
    fs::write(&file, "")?;
    let task = format!("{topic},{group},{}", file.display());
    // What is committed was done: each number is in its partition behind those that were put before.
    let audit = || -> Result<i64, BoxError> {
        let (committed, done) = (broker.committed(&group, &topic, PARTITIONS)?, done(&file)?);
        let mut all = 0;
        for (partition, committed) in (0_u32..).zip(committed) {
            let committed = committed.unwrap_or(0);
            all += committed;
            for offset in 0..u32::try_from(committed)? {
                let number = offset * u32::try_from(PARTITIONS)? + partition;
                assert!(done.contains(&number), "{number} was committed, and not done");
            }
        }
        Ok(all)
    };
    let since = Instant::now();
    let mut killed = 0;
    let mut worker = Worker::start(&task)?;
    while audit()? < i64::from(MESSAGES) {
        assert!(since.elapsed() < PATIENCE * 4, "not done, after {killed} kills");
        if done(&file)?.len() > (killed + 1) * 120 && killed < 3 {
            drop(worker);
            killed += 1;
            audit()?;
            worker = Worker::start(&task)?;
        }
        thread::sleep(Duration::from_millis(50));
    }
    drop(worker);
    assert_eq!((killed, done(&file)?.len()), (3, MESSAGES as usize));
    Ok(fs::remove_file(&file)?)
}
