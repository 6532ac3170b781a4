//! `SQLite` without blocking the executor: a thread that owns the connection and runs jobs.
//!
//! A job is a closure over the connection. All jobs that are waiting when the thread looks are run
//! in one transaction, each in a savepoint of its own, so that one that fails takes nothing of its
//! neighbours with it. The answers are sent after the commit: who has an answer may rely on it.
//! Under load the price of a commit is shared by as many handlers as run at once.
//!
//! Jobs run in the order in which they were queued, also those whose caller has gone: what undoes an
//! effect always comes behind it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use async_channel::{Receiver, Sender};
use futures::channel::oneshot;
use rusqlite::{Connection, TransactionBehavior};
use watershed::{Error, ErrorCode};

/// The most jobs that one transaction takes.
const BATCH: usize = 256;

/// Sends jobs to the thread that owns the database. Clones send to the same thread.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    jobs: Sender<Job>,
}

/// The thread that owns the database; it ends when it is joined.
#[derive(Debug)]
pub(crate) struct DatabaseThread {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

/// Why the database did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("SQLite: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    #[error("the thread of the database has ended")]
    Closed,
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl From<DatabaseError> for Error {
    fn from(error: DatabaseError) -> Self {
        Error::from_error(ErrorCode::Source, error)
    }
}

/// Runs on the database, or is told that there is no transaction to run in.
type Job = Box<dyn FnOnce(Result<&Connection, DatabaseError>) -> Answer + Send>;

/// Tells whoever sent the job what became of it and of its transaction.
type Answer = Box<dyn FnOnce(Result<(), DatabaseError>)>;

impl Database {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub(crate) fn start(connection: Connection) -> io::Result<(Self, DatabaseThread)> {
        let (jobs, queue) = async_channel::unbounded();
        let builder = thread::Builder::new().name("database".to_owned());
        let thread = builder.spawn(move || serve(connection, &queue))?;
        Ok((Self { jobs: jobs.clone() }, DatabaseThread { jobs, thread }))
    }

    /// Queues `work` at once, and returns a future of its result.
    ///
    /// # Cancel safety
    ///
    /// The work is done also when the future is dropped.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, DatabaseError> + Send + 'static,
    ) -> impl Future<Output = Result<T, DatabaseError>> + Send + 'static {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection.and_then(|connection| in_savepoint(connection, work));
            Box::new(move |committed| {
                // Nobody waits any more if the caller was dropped.
                let _ = reply.send(committed.and(result));
            })
        });
        let queued = self.jobs.try_send(job);
        async move {
            queued.map_err(|_| DatabaseError::Closed)?;
            answer.await.map_err(|oneshot::Canceled| DatabaseError::Closed)?
        }
    }
}

impl DatabaseThread {
    /// Lets the thread finish what is queued, and closes the database.
    ///
    /// # Errors
    ///
    /// When the thread panicked.
    pub(crate) fn join(self) -> Result<(), DatabaseError> {
        self.jobs.close();
        self.thread.join().map_err(|_| DatabaseError::Closed)
    }
}

fn serve(mut connection: Connection, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv_blocking() {
        let jobs = std::iter::once(first).chain(std::iter::from_fn(|| queue.try_recv().ok()));
        let (answers, committed) = run_batch(&mut connection, jobs.take(BATCH));
        for answer in answers {
            answer(committed.clone());
        }
    }
}

fn run_batch(
    connection: &mut Connection,
    jobs: impl Iterator<Item = Job>,
) -> (Vec<Answer>, Result<(), DatabaseError>) {
    match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => {
            let answers = jobs.map(|job| job(Ok(&transaction))).collect();
            (answers, transaction.commit().map_err(DatabaseError::from))
        }
        Err(error) => {
            let error = DatabaseError::from(error);
            let answers = jobs.map(|job| job(Err(error.clone()))).collect();
            (answers, Err(error))
        }
    }
}

fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, DatabaseError>,
) -> Result<T, DatabaseError> {
    let statement = |sql| connection.prepare_cached(sql).and_then(|mut sql| sql.execute([]));
    statement("SAVEPOINT job")?;
    let result = work(connection);
    if result.is_err() {
        statement("ROLLBACK TO job")?;
    }
    statement("RELEASE job")?;
    result
}
