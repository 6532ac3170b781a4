//! Both transports, by the suite for transports.

use std::fs::OpenOptions;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::executor::block_on;
use rusqlite::params;
use tempfile::TempDir;
use watershed::testing::{Broker, conformance};
use watershed::transport::Link;
use watershed::{BoxError, Error, StepContext};

use super::Record;
use super::lease_queue::LeaseQueue;
use super::partition_log::{self, PartitionLog};
use crate::database::Database;
use crate::input::Input;
use crate::schema;

/// A database of four partitions and no messages.
struct Folder {
    folder: TempDir,
    members: AtomicU32,
}

const PARTITIONS: u32 = 4;

impl Folder {
    fn new() -> Self {
        let folder = Self { folder: tempfile::tempdir().unwrap(), members: AtomicU32::new(0) };
        let connection = folder.open().unwrap();
        for partition in 0..PARTITIONS {
            let sql = "INSERT INTO partitions(partition, records) VALUES (?1, 0)";
            connection.execute(sql, [partition]).unwrap();
            std::fs::File::create(partition_log::partition(folder.path(), partition)).unwrap();
        }
        folder
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self) -> Result<rusqlite::Connection, schema::OpenError> {
        let input = Input { feeds: Vec::new(), fingerprint: String::new() };
        schema::open(&self.path().join("test.db"), &input)
    }

    fn connect(&self) -> Result<Database, BoxError> {
        let (database, _) = Database::start(self.open()?)?;
        Ok(database)
    }
}

/// Each of them makes the file, its tables and its journal, if it is the first.
#[test]
fn many_can_open_a_database_that_is_not_there_yet() {
    for _ in 0..100 {
        let folder = Folder { folder: tempfile::tempdir().unwrap(), members: AtomicU32::new(0) };
        let begin = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    begin.wait();
                    folder.open().unwrap();
                });
            }
        });
    }
}

fn passes(result: Result<usize, Error>) {
    if let Err(error) = result {
        let all: Vec<_> = error.related().iter().map(|one| format!("{one:#}")).collect();
        panic!("{error}: {all:#?}");
    }
}

fn number(record: &Record) -> u32 {
    std::str::from_utf8(&record.body).unwrap().parse().unwrap()
}

struct Queue(Folder);

impl Broker for Queue {
    type Transport = LeaseQueue;

    async fn connect(&self) -> Result<Link<LeaseQueue>, BoxError> {
        Ok(Link::new(LeaseQueue(self.0.connect()?)))
    }

    async fn put(&self, numbers: Range<u32>) -> Result<(), BoxError> {
        let put = self.0.connect()?.call(move |database| {
            for number in numbers {
                let sql = "INSERT INTO queue(queue, number, body) VALUES (0, ?1, ?2)";
                database.execute(sql, params![number, number.to_string().into_bytes()])?;
            }
            Ok(())
        });
        Ok(put.await?)
    }

    fn number(&self, record: &Record) -> u32 {
        number(record)
    }

    fn comes_again_after(&self) -> Duration {
        Duration::from_millis(1_100)
    }
}

#[test]
fn the_lease_queue_passes_the_suite() {
    let context = StepContext::new("suite");
    passes(block_on(conformance(&context, &Queue(Folder::new()))));
}

struct Log(Folder);

impl Broker for Log {
    type Transport = PartitionLog;

    async fn connect(&self) -> Result<Link<PartitionLog>, BoxError> {
        let member = self.0.members.fetch_add(1, Ordering::Relaxed).to_string();
        let folder = self.0.path().to_owned();
        Ok(Link::new(PartitionLog::open(self.0.connect()?, folder, member)?))
    }

    async fn put(&self, numbers: Range<u32>) -> Result<(), BoxError> {
        for number in numbers {
            let partition = number % PARTITIONS;
            let path = partition_log::partition(self.0.path(), partition);
            writeln!(OpenOptions::new().append(true).open(path)?, "{number}")?;
            let put = self.0.connect()?.call(move |database| {
                let sql = "UPDATE partitions SET records = records + 1 WHERE partition = ?1";
                Ok(database.execute(sql, [partition])?)
            });
            put.await?;
        }
        Ok(())
    }

    fn number(&self, record: &Record) -> u32 {
        number(record)
    }

    fn comes_again_after(&self) -> Duration {
        Duration::from_millis(1_300)
    }
}

#[test]
fn the_partitioned_log_passes_the_suite() {
    let context = StepContext::new("suite");
    passes(block_on(conformance(&context, &Log(Folder::new()))));
}
