//! Both transports, by the suite for transports and in one process.

use std::fs::OpenOptions;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use watershed::testing::{Broker, conformance};
use watershed::transport::Link;
use watershed::{BoxError, Error, StepContext};

use crate::database::{self, Database, PARTITIONS};
use crate::lease_queue::LeaseQueue;
use crate::partition_log::PartitionLog;
use crate::{audit, worker};

#[test]
fn two_workers_in_one_process_do_everything_once() {
    let folder = tempfile::tempdir().unwrap();
    database::fill(folder.path(), 400).unwrap();
    thread::scope(|scope| {
        let workers = [(); 2].map(|()| scope.spawn(|| worker::work(folder.path()).unwrap()));
        for worker in workers {
            worker.join().unwrap();
        }
    });
    assert_eq!(audit::audit(folder.path()).unwrap().orders, 400);
}

fn passes(result: Result<usize, Error>) {
    if let Err(error) = result {
        let all: Vec<_> = error.related().iter().map(|one| format!("{one:#}")).collect();
        panic!("{error}: {all:#?}");
    }
}

struct Queue<'a>(&'a Path);

impl Broker for Queue<'_> {
    type Transport = LeaseQueue;

    async fn connect(&self) -> Result<Link<LeaseQueue>, BoxError> {
        Ok(Link::new(LeaseQueue(Database::open(self.0)?)))
    }

    async fn put(&self, numbers: Range<u32>) -> Result<(), BoxError> {
        let database = Database::open(self.0)?;
        let put = database.run(move |database| {
            for number in numbers {
                database.execute("INSERT INTO queue(body) VALUES (?1)", [number.to_string()])?;
            }
            Ok(())
        });
        Ok(put.await?)
    }

    fn number(&self, message: &String) -> u32 {
        message.parse().unwrap()
    }

    fn comes_again_after(&self) -> Duration {
        Duration::from_millis(1_100)
    }
}

#[test]
fn the_lease_queue_passes_the_suite() {
    let folder = tempfile::tempdir().unwrap();
    database::fill(folder.path(), 0).unwrap();
    let context = StepContext::new("suite");
    passes(futures::executor::block_on(conformance(&context, &Queue(folder.path()))));
}

struct Log<'a> {
    folder: &'a Path,
    owners: AtomicU32,
}

impl Broker for Log<'_> {
    type Transport = PartitionLog;
    const ASSIGNED: bool = true;

    async fn connect(&self) -> Result<Link<PartitionLog>, BoxError> {
        let owner = self.owners.fetch_add(1, Ordering::Relaxed);
        Ok(Link::new(PartitionLog::open(self.folder, owner.to_string())?))
    }

    async fn put(&self, numbers: Range<u32>) -> Result<(), BoxError> {
        let folder = self.folder.to_owned();
        let database = Database::open(self.folder)?;
        let put = database.run(move |database| {
            for number in numbers {
                let partition = number % PARTITIONS;
                let path = database::partition(&folder, partition);
                let file = OpenOptions::new().append(true).open(path);
                file.and_then(|mut file| writeln!(file, "{number}"))
                    .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                let sql = "UPDATE partitions SET records = records + 1 WHERE partition = ?1";
                database.execute(sql, [partition])?;
            }
            Ok(())
        });
        Ok(put.await?)
    }

    fn number(&self, message: &String) -> u32 {
        message.parse().unwrap()
    }

    fn comes_again_after(&self) -> Duration {
        Duration::from_millis(1_300)
    }
}

#[test]
fn the_partitioned_log_passes_the_suite() {
    let folder = tempfile::tempdir().unwrap();
    database::fill(folder.path(), 0).unwrap();
    let log = Log { folder: folder.path(), owners: AtomicU32::new(0) };
    let context = StepContext::new("suite");
    passes(futures::executor::block_on(conformance(&context, &log)));
}
