//! A log on disk: a file a partition, a line a record, and committed positions in the database.
//!
//! The workers share the partitions by leases: a thread of each renews those that it has, takes what is
//! free up to its share, and gives one up when it has more than that. Each assignment has a generation,
//! which every commit shows: one of an older generation finds no row.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use futures::channel::oneshot;
use futures::executor::block_on;
use futures::future::join_all;
use rusqlite::{Connection, params};
use watershed::transport::{
    Able, Assignment, Event, Facts, Fetched, Notices, Received, Revocation, Settled, Transport,
    Trouble, Verdict, Want,
};
use watershed::{Error, ErrorCode};

use super::{LEASE, NOW, Record, millis};
use crate::database::{Database, DatabaseError};

/// How often the partitions' leases are renewed.
const BEAT: Duration = Duration::from_millis(100);

/// How long messages of a partition that is given up may take.
const GIVE_UP_WITHIN: Duration = Duration::from_millis(500);

/// The file of one partition.
pub(crate) fn partition(folder: &Path, partition: u32) -> PathBuf {
    folder.join(format!("{partition}.jsonl"))
}

#[derive(Debug)]
pub(crate) struct PartitionLog {
    shared: Arc<Shared>,
    folder: PathBuf,
    records: Mutex<HashMap<u32, Records>>,
    beating: thread::Thread,
    /// Answered when the thread has given back what was ours.
    left: Mutex<Option<oneshot::Receiver<()>>>,
}

/// The lines of one partition. Nobody changes them: a log only grows.
type Records = Arc<[Vec<u8>]>;

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
    assigned: BTreeMap<u32, (u64, u32)>,
    revoking: Vec<Assignment>,
    given_up: Vec<Assignment>,
    stopped: bool,
}

/// A record of a partition, by the assignment under which it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offset {
    assignment: Assignment,
    number: u32,
}

impl PartitionLog {
    /// Joins those who read the log in `folder`. `owner` is a name that nobody else has.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub(crate) fn open(database: Database, folder: PathBuf, owner: String) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { database, owner, notices: Notices::new(), state: Mutex::default() });
        let member = Arc::clone(&shared);
        let (leaving, left) = oneshot::channel();
        let thread = thread::Builder::new().name("partitions".to_owned()).spawn(move || {
            while !member.state().stopped {
                // A database that is busy may be there at the next beat, and so for the leaving: what
                // is not given back is free when its lease runs out.
                let _ = member.beat();
                thread::park_timeout(BEAT);
            }
            let _ = member.leave();
            let _ = leaving.send(());
        })?;
        let (beating, left) = (thread.thread().clone(), Mutex::new(Some(left)));
        Ok(Self { shared, folder, records: Mutex::default(), beating, left })
    }

    /// The records of a partition, which are read once.
    async fn records(&self, partition: u32) -> Result<Records, Trouble> {
        if let Some(records) = lock(&self.records).get(&partition) {
            return Ok(Arc::clone(records));
        }
        let count = self.shared.database.call(move |database| {
            let sql = "SELECT records FROM partitions WHERE partition = ?1";
            Ok(database.query_row(sql, [partition], |row| row.get::<_, usize>(0))?)
        });
        let count = count.await.map_err(|error| Trouble::Passes(error.into()))?;
        // Files block: smol reads them on threads for that, under any executor.
        let path = self::partition(&self.folder, partition);
        let text = smol::fs::read(&path).await;
        let text =
            text.map_err(|error| Trouble::Lasts(Error::from_error(ErrorCode::Source, error)))?;
        let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.pop(); // what is behind the last end of a line is no record yet
        if lines.len() < count {
            let (path, found) = (path.display(), lines.len());
            let text = format!("{path} has {found} records, and was written with {count}");
            return Err(Trouble::Lasts(Error::new(ErrorCode::Source, text)));
        }
        let records = Records::from(lines);
        lock(&self.records).insert(partition, Arc::clone(&records));
        Ok(records)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Renews what is ours, takes what is free, and gives up what is more than our share.
    fn beat(self: &Arc<Self>) -> Result<(), DatabaseError> {
        let given_up = std::mem::take(&mut self.state().given_up);
        let known: Vec<_> = self.state().assigned.keys().copied().collect();
        let owner = self.owner.clone();
        let beaten = self.database.call(move |database| {
            for assignment in given_up {
                give_up(database, &owner, assignment)?;
            }
            join(database, &owner)
        });
        let Beat { ours, taken, share } = block_on(beaten)?;
        self.tell(&known, &ours, taken, share);
        Ok(())
    }

    /// Gives back what is still ours.
    fn leave(&self) -> Result<(), DatabaseError> {
        let owner = self.owner.clone();
        block_on(self.database.call(move |database| {
            let sql = "UPDATE partitions SET owner = NULL, expires = 0 WHERE owner = ?1";
            database.execute(sql, [&owner])?;
            database.execute("DELETE FROM members WHERE owner = ?1", [&owner])?;
            Ok(())
        }))
    }

    /// Tells the drain what has changed.
    fn tell(
        self: &Arc<Self>,
        known: &[u32],
        ours: &BTreeMap<u32, u64>,
        taken: Vec<(Assignment, u32)>,
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

/// How the partitions stand after a beat.
struct Beat {
    /// By partition: the generation.
    ours: BTreeMap<u32, u64>,
    /// Those that are new, and how far each is committed.
    taken: Vec<(Assignment, u32)>,
    /// How many partitions each member should have at most.
    share: usize,
}

fn join(database: &Connection, owner: &str) -> Result<Beat, DatabaseError> {
    let term = millis(LEASE);
    let member = format!(
        "INSERT INTO members VALUES (?1, {NOW} + ?2)
            ON CONFLICT DO UPDATE SET expires = excluded.expires"
    );
    database.prepare_cached(&member)?.execute(params![owner, term])?;
    let gone = format!("DELETE FROM members WHERE expires <= {NOW}");
    database.prepare_cached(&gone)?.execute([])?;
    let count = |table| {
        let sql = format!("SELECT count(*) FROM {table}");
        database.prepare_cached(&sql)?.query_row([], |row| row.get::<_, usize>(0))
    };
    let share = count("partitions")?.div_ceil(count("members")?.max(1));

    let mut renew = database.prepare_cached(&format!(
        "UPDATE partitions SET expires = {NOW} + ?2 WHERE owner = ?1 AND expires > {NOW}
            RETURNING partition, generation"
    ))?;
    let ours = renew.query_map(params![owner, term], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let ours: BTreeMap<u32, u64> = ours.collect::<Result<_, _>>()?;
    let mut take = database.prepare_cached(&format!(
        "UPDATE partitions SET owner = ?1, generation = generation + 1, expires = {NOW} + ?2
            WHERE partition IN (SELECT partition FROM partitions
                WHERE owner IS NULL OR expires <= {NOW} LIMIT ?3)
            RETURNING partition, generation, committed"
    ))?;
    let room = share.saturating_sub(ours.len());
    let taken = take.query_map(params![owner, term, room], |row| {
        let assignment = Assignment { partition: row.get(0)?, generation: row.get(1)? };
        Ok((assignment, row.get(2)?))
    })?;
    Ok(Beat { ours, taken: taken.collect::<Result<_, _>>()?, share })
}

fn give_up(database: &Connection, owner: &str, it: Assignment) -> rusqlite::Result<()> {
    let sql = "UPDATE partitions SET owner = NULL, expires = 0
        WHERE partition = ?1 AND generation = ?2 AND owner = ?3";
    database.execute(sql, params![it.partition, it.generation, owner]).map(drop)
}

fn lost() -> Error {
    Error::new(ErrorCode::Source, "the partition is somebody else's by now")
}

impl Transport for PartitionLog {
    type Message = Record;
    type Receipt = Offset;

    fn able(&self) -> Able {
        Able::prefix()
            .assigns()
            .fences()
            .batches_of(100)
            .prefetches(20)
            .asks_every(Duration::from_millis(100))
    }

    fn notices(&self) -> Notices {
        self.shared.notices.clone()
    }

    async fn fetch(&self, want: Want) -> Fetched<Record, Offset> {
        let assignment = want.assignment;
        let records = self.records(assignment.partition).await?;
        // No waiting from here on: a fetch that is dropped has not moved the position.
        let mut state = self.shared.state();
        let ours = state.assigned.get_mut(&assignment.partition);
        let Some((_, next)) = ours.filter(|(now, _)| *now == assignment.generation) else {
            return Ok(Some(Vec::new()));
        };
        let rest = (*next..).zip(records.iter().skip(*next as usize));
        let received: Vec<_> = rest
            .take(want.at_most)
            .map(|(number, body)| {
                let place = assignment.partition;
                let facts = Facts {
                    id: Some(format!("{place}:{number}").into()),
                    assignment,
                    ..Facts::default()
                };
                let record = Record { place, number, body: body.clone() };
                Received::new(record, Offset { assignment, number }).with_facts(facts)
            })
            .collect();
        *next += u32::try_from(received.len()).unwrap_or(u32::MAX);
        Ok(Some(received))
    }

    async fn settle(&self, batch: Vec<(Offset, Verdict)>) -> Vec<Settled> {
        let settled = batch.into_iter().map(async |(offset, verdict)| match verdict {
            Verdict::Release { .. } => self.shared.seek(offset),
            // Behind a reject there is a dead letter: the log goes on behind both.
            _ => self.shared.commit(offset).await,
        });
        join_all(settled).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.shared.state().stopped = true;
        self.beating.unpark();
        let left = lock(&self.left).take();
        if let Some(left) = left {
            // A thread that panicked gives nothing back; the leases run out.
            let _ = left.await;
        }
        Ok(())
    }
}

impl Shared {
    /// The next fetch begins there again; what is committed stays.
    fn seek(&self, Offset { assignment, number }: Offset) -> Settled {
        let mut state = self.state();
        let ours = state.assigned.get_mut(&assignment.partition);
        match ours.filter(|(now, _)| *now == assignment.generation) {
            Some((_, next)) => {
                *next = number;
                Settled::Confirmed
            }
            None => Settled::Lost(lost()),
        }
    }

    async fn commit(&self, Offset { assignment, number }: Offset) -> Settled {
        let owner = self.owner.clone();
        let committed = self.database.call(move |database| {
            let mut commit = database.prepare_cached(&format!(
                "UPDATE partitions SET committed = ?4 WHERE partition = ?1 AND generation = ?2
                    AND owner = ?3 AND expires > {NOW} AND committed <= ?4"
            ))?;
            let Assignment { partition, generation } = assignment;
            Ok(commit.execute(params![partition, generation, owner, number + 1])?)
        });
        match committed.await {
            Ok(1) => Settled::Confirmed,
            Ok(_) => Settled::Lost(lost()),
            Err(error) => Settled::Refused(error.into()),
        }
    }
}

/// A drain that never ran closes nothing: the thread is told to end all the same.
impl Drop for PartitionLog {
    fn drop(&mut self) {
        self.shared.state().stopped = true;
        self.beating.unpark();
    }
}
