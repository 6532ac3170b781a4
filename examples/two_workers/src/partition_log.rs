//! A log on disk: a file a partition, a line a record, and committed positions in the database.
//!
//! The workers share the partitions by leases: a thread of each renews those that it has, takes what is
//! free up to its share, and gives one up when it has more than that. Each assignment has a generation,
//! which every commit shows: one of an older generation finds no row.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Transaction;
use watershed::transport::{
    Able, Assignment, Event, Fetched, Notices, Received, Revocation, Settled, Transport, Trouble,
    Verdict, Want,
};
use watershed::{BoxError, Error, ErrorCode};

use crate::database::{self, Database, NOW, PARTITIONS, millis};

/// For how long a partition is ours, and how often that is renewed.
const LEASE: Duration = Duration::from_secs(1);
const BEAT: Duration = Duration::from_millis(100);

/// How long messages of a partition that is given up may take.
const GIVE_UP_WITHIN: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct PartitionLog {
    shared: Arc<Shared>,
    folder: PathBuf,
    records: Mutex<HashMap<u32, Arc<[String]>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    owner: String,
    notices: Notices,
    state: Mutex<State>,
}

/// What this worker has of the log.
#[derive(Debug, Default)]
struct State {
    /// By partition: the generation, and the next record to be read.
    assigned: BTreeMap<u32, (u64, usize)>,
    revoking: Vec<Assignment>,
    given_up: Vec<Assignment>,
    stopped: bool,
}

/// A record of a partition, by the assignment under which it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offset {
    assignment: Assignment,
    record: usize,
}

impl PartitionLog {
    pub(crate) fn open(folder: &Path, owner: String) -> Result<Self, BoxError> {
        let shared = Arc::new(Shared {
            database: Database::open(folder)?,
            owner,
            notices: Notices::new(),
            state: Mutex::default(),
        });
        let beating = Arc::clone(&shared);
        let thread = thread::Builder::new().name("partitions".to_owned()).spawn(move || {
            while !beating.state().stopped {
                // A database that is busy may be there at the next beat.
                let _ = beating.beat();
                thread::sleep(BEAT);
            }
        })?;
        let (folder, thread) = (folder.to_owned(), Mutex::new(Some(thread)));
        Ok(Self { shared, folder, records: Mutex::default(), thread })
    }

    fn records(&self, partition: u32) -> std::io::Result<Arc<[String]>> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(records) = records.get(&partition) {
            return Ok(Arc::clone(records));
        }
        let text = fs::read_to_string(database::partition(&self.folder, partition))?;
        let lines: Arc<[String]> = text.lines().map(str::to_owned).collect();
        records.insert(partition, Arc::clone(&lines));
        Ok(lines)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews what is ours, takes what is free, and gives up what is more than our share.
    fn beat(self: &Arc<Self>) -> Result<(), Error> {
        let given_up = std::mem::take(&mut self.state().given_up);
        let known: Vec<_> = self.state().assigned.keys().copied().collect();
        let (ours, taken, share) = self.database.run_blocking(|database| {
            for assignment in &given_up {
                give_up(database, &self.owner, *assignment)?;
            }
            let term = millis(LEASE);
            let member = format!(
                "INSERT INTO members VALUES (?1, {NOW} + ?2)
                    ON CONFLICT DO UPDATE SET expires = excluded.expires"
            );
            database.execute(&member, (&self.owner, term))?;
            database.execute(&format!("DELETE FROM members WHERE expires <= {NOW}"), ())?;
            let members: u32 =
                database.query_row("SELECT count(*) FROM members", (), |row| row.get(0))?;
            let share = PARTITIONS.div_ceil(members.max(1));
            let renew = format!(
                "UPDATE partitions SET expires = {NOW} + ?2 WHERE owner = ?1 AND expires > {NOW}
                    RETURNING partition, generation"
            );
            let mut renew = database.prepare_cached(&renew)?;
            let ours =
                renew.query_map((&self.owner, term), |row| Ok((row.get(0)?, row.get(1)?)))?;
            let ours: BTreeMap<u32, u64> = ours.collect::<Result<_, _>>()?;
            let take = format!(
                "UPDATE partitions SET owner = ?1, generation = generation + 1, expires = {NOW} + ?2
                    WHERE partition IN (SELECT partition FROM partitions
                        WHERE owner IS NULL OR expires <= {NOW} LIMIT ?3)
                    RETURNING partition, generation, committed"
            );
            let room = share.saturating_sub(u32::try_from(ours.len()).unwrap_or(share));
            let mut take = database.prepare_cached(&take)?;
            let taken = take.query_map((&self.owner, term, room), |row| {
                let assignment = Assignment { partition: row.get(0)?, generation: row.get(1)? };
                Ok((assignment, row.get::<_, usize>(2)?))
            })?;
            let taken: Vec<_> = taken.collect::<Result<_, _>>()?;
            Ok((ours, taken, share as usize))
        })?;
        self.tell(&known, &ours, taken, share);
        Ok(())
    }

    /// Tells the drain what has changed.
    fn tell(
        self: &Arc<Self>,
        known: &[u32],
        ours: &BTreeMap<u32, u64>,
        taken: Vec<(Assignment, usize)>,
        share: usize,
    ) {
        let mut events = Vec::new();
        let mut state = self.state();
        for partition in known {
            let Some((generation, _)) = state.assigned.get(partition).copied() else { continue };
            if ours.get(partition) != Some(&generation) {
                state.assigned.remove(partition);
                let assignment = Assignment { partition: *partition, generation };
                events.push(Event::Lost(assignment, lost()));
            }
        }
        for (assignment, committed) in taken {
            let Assignment { partition, generation } = assignment;
            state.assigned.insert(partition, (generation, committed));
            events.push(Event::Assigned(assignment));
        }
        let kept = state.assigned.len().saturating_sub(state.revoking.len());
        let last = state.assigned.last_key_value();
        let last = last.map(|(partition, (generation, _))| (*partition, *generation));
        if let Some((partition, generation)) = last.filter(|_| kept > share) {
            let assignment = Assignment { partition, generation };
            if !state.revoking.contains(&assignment) {
                state.revoking.push(assignment);
                let shared = Arc::clone(self);
                let revocation = Revocation::new(assignment, move |_| shared.gave_up(assignment));
                events.push(Event::Revoked(revocation.within(GIVE_UP_WITHIN)));
            }
        }
        drop(state);
        for event in events {
            self.notices.tell(event);
        }
    }

    /// No further beat. Returns what is still ours.
    fn stop(&self) -> BTreeMap<u32, (u64, usize)> {
        let mut state = self.state();
        state.stopped = true;
        std::mem::take(&mut state.assigned)
    }

    /// Nothing of the partition is in work here any more: the next beat says so.
    fn gave_up(&self, assignment: Assignment) {
        let mut state = self.state();
        state.revoking.retain(|other| *other != assignment);
        state.given_up.push(assignment);
        let generation = assignment.generation;
        if state.assigned.get(&assignment.partition).is_some_and(|(now, _)| *now == generation) {
            state.assigned.remove(&assignment.partition);
        }
    }
}

fn give_up(database: &Transaction<'_>, owner: &str, it: Assignment) -> rusqlite::Result<()> {
    let sql = "UPDATE partitions SET owner = NULL, expires = 0
        WHERE partition = ?1 AND generation = ?2 AND owner = ?3";
    database.execute(sql, (it.partition, it.generation, owner)).map(drop)
}

fn lost() -> Error {
    Error::new(ErrorCode::Source, "the partition is somebody else's by now")
}

impl Transport for PartitionLog {
    type Message = String;
    type Receipt = Offset;

    fn able(&self) -> Able {
        Able::prefix()
            .fences()
            .batches_of(PARTITIONS as usize)
            .prefetches(20)
            .asks_every(Duration::from_millis(100))
    }

    fn notices(&self) -> Notices {
        self.shared.notices.clone()
    }

    async fn fetch(&self, want: Want) -> Fetched<String, Offset> {
        let assignment = want.assignment;
        let records = self.records(assignment.partition);
        let records =
            records.map_err(|error| Trouble::Lasts(Error::from_error(ErrorCode::Source, error)))?;
        let mut state = self.shared.state();
        let Some((generation, next)) = state.assigned.get_mut(&assignment.partition) else {
            return Ok(Some(Vec::new()));
        };
        if *generation != assignment.generation {
            return Ok(Some(Vec::new()));
        }
        let from = (*next).min(records.len());
        let to = (from + want.at_most).min(records.len());
        *next = to;
        let received = (from..to)
            .map(|record| Received::new(records[record].clone(), Offset { assignment, record }));
        Ok(Some(received.collect()))
    }

    async fn settle(&self, batch: Vec<(Offset, Verdict)>) -> Vec<Settled> {
        let mut settled = Vec::new();
        for (Offset { assignment, record }, verdict) in batch {
            let Assignment { partition, generation } = assignment;
            if let Verdict::Release { .. } = verdict {
                // The position moves back; what is committed stays.
                let mut state = self.shared.state();
                let ours = state.assigned.get_mut(&partition).filter(|(now, _)| *now == generation);
                settled.push(match ours {
                    Some((_, next)) => {
                        *next = record;
                        Settled::Confirmed
                    }
                    None => Settled::Lost(lost()),
                });
                continue;
            }
            let owner = self.shared.owner.clone();
            let committed = self.shared.database.run(move |database| {
                let sql = format!(
                    "UPDATE partitions SET committed = ?4 WHERE partition = ?1 AND generation = ?2
                        AND owner = ?3 AND expires > {NOW} AND committed <= ?4"
                );
                let mut commit = database.prepare_cached(&sql)?;
                commit.execute((partition, generation, owner, record + 1))
            });
            settled.push(match committed.await {
                Ok(1) => Settled::Confirmed,
                Ok(_) => Settled::Lost(lost()),
                Err(error) => Settled::Refused(error),
            });
        }
        settled
    }

    async fn close(&self) -> Result<(), Error> {
        let ours = self.shared.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let owner = self.shared.owner.clone();
        let database = self.shared.database.clone();
        let left = blocking::unblock(move || {
            thread.map(JoinHandle::join);
            database.run_blocking(|database| {
                for (partition, (generation, _)) in ours {
                    give_up(database, &owner, Assignment { partition, generation })?;
                }
                database.execute("DELETE FROM members WHERE owner = ?1", [&owner])
            })
        });
        left.await.map(drop)
    }
}

/// A drain that never ran closes nothing: the thread is told to end all the same.
impl Drop for PartitionLog {
    fn drop(&mut self) {
        self.shared.state().stopped = true;
    }
}
