//! A folder of files as a source: an order a line. The files only grow.
//!
//! Each file `NAME.jsonl` is a partition, read from a position that is kept beside it in
//! `NAME.position`. Whoever drains a file has locked that one; the lock goes with its process, however
//! that ends, and then another worker has it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use watershed::transport::{
    Able, Assignment, Facts, Fetched, Received, Settled, Transport, Trouble, Verdict, Want,
};
use watershed::{BoxError, Error, ErrorCode};

/// How soon a file is looked at again that had nothing, or was somebody else's.
const ASKS_EVERY: Duration = Duration::from_millis(200);

/// How much of a file is read at once.
const CHUNK: u64 = 1 << 20;

/// The files of a folder.
#[derive(Debug)]
pub(crate) struct Files(Vec<Arc<Feed>>);

/// One file.
#[derive(Debug)]
struct Feed {
    path: PathBuf,
    ours: Mutex<Option<Ours>>,
}

/// A file that is locked, and how far it was read.
#[derive(Debug)]
struct Ours {
    position: Arc<File>,
    next: u64,
}

/// A line: where it begins, and where the next one does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    file: u32,
    begin: u64,
    end: u64,
}

/// The positions have as many digits, so that one overwrites the other whole.
const DIGITS: usize = 20;

/// The files of a folder, in the order of their names.
///
/// # Errors
///
/// When the folder cannot be read.
pub(crate) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|it| it == "jsonl") && path.is_file());
    files.sort();
    Ok(files)
}

/// How far a file is done.
///
/// # Errors
///
/// When that cannot be read.
pub(crate) fn position(file: &Path) -> io::Result<u64> {
    match File::open(file.with_extension("position")) {
        Ok(file) => read_position(&file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// The file that the dead letters of a folder are in.
pub(crate) fn dead_letters(folder: &Path) -> PathBuf {
    folder.join("dead").join("letters.jsonl")
}

fn read_position(mut file: &File) -> io::Result<u64> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    let text = text.trim();
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no position"));
    if text.is_empty() { Ok(0) } else { text.parse().map_err(wrong) }
}

fn write_position(mut file: &File, position: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(format!("{position:0DIGITS$}").as_bytes())?;
    file.sync_data()
}

impl Files {
    /// The files that are in the folder now.
    ///
    /// # Errors
    ///
    /// When there are none.
    pub(crate) fn open(folder: &Path) -> Result<Self, BoxError> {
        let found = files(folder)
            .map_err(|error| format!("cannot read the folder {}: {error}", folder.display()))?;
        if found.is_empty() {
            let folder = folder.display();
            return Err(
                format!("there are no .jsonl files in {folder}: `produce` makes some").into()
            );
        }
        let feed = |path| Arc::new(Feed { path, ours: Mutex::default() });
        Ok(Self(found.into_iter().map(feed).collect()))
    }

    /// The partitions that there are: one for each file.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = Assignment> + use<> {
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        (0..count).map(|partition| Assignment { partition, generation: 0 })
    }

    fn feed(&self, partition: u32) -> Option<Arc<Feed>> {
        self.0.get(partition as usize).cloned()
    }
}

impl Feed {
    fn ours(&self) -> MutexGuard<'_, Option<Ours>> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the file where nobody else has, and returns where to read on.
    fn next(&self) -> io::Result<Option<u64>> {
        if let Some(ours) = &*self.ours() {
            return Ok(Some(ours.next));
        }
        let path = self.path.with_extension("position");
        let mut options = OpenOptions::new();
        let position = options.read(true).write(true).create(true).truncate(false).open(path)?;
        match position.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        let next = read_position(&position)?;
        *self.ours() = Some(Ours { position: Arc::new(position), next });
        Ok(Some(next))
    }

    /// The lines from a position on that are whole, with where each ends.
    fn lines(&self, from: u64, most: usize) -> io::Result<Vec<(Arc<[u8]>, u64)>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut text = Vec::new();
        let mut room = CHUNK;
        // A line that is longer than what is read at once is read whole.
        while (&file).take(room).read_to_end(&mut text)? > 0 && !text.contains(&b'\n') {
            room *= 2;
        }
        let mut end = from;
        let lines = text.split_inclusive(|byte| *byte == b'\n').map_while(|line| {
            let line_without = line.strip_suffix(b"\n")?;
            end += line.len() as u64;
            Some((Arc::from(line_without), end))
        });
        Ok(lines.take(most).collect())
    }

    fn settle(&self, receipt: Receipt, verdict: &Verdict) -> Settled {
        let position = match &mut *self.ours() {
            Some(ours) if matches!(verdict, Verdict::Release { .. }) => {
                ours.next = receipt.begin;
                return Settled::Confirmed;
            }
            Some(ours) => Arc::clone(&ours.position),
            None => {
                let text = format!("{} is no longer locked by this process", self.path.display());
                return Settled::Lost(Error::new(ErrorCode::Source, text));
            }
        };
        // Behind a reject there is a dead letter: the file goes on behind both.
        match write_position(&position, receipt.end) {
            Ok(()) => Settled::Confirmed,
            Err(cause) => Settled::Refused(self.error(cause)),
        }
    }

    fn error(&self, cause: io::Error) -> Error {
        Error::new(ErrorCode::Source, format!("reading {}", self.path.display())).with_source(cause)
    }
}

impl Transport for Files {
    type Message = Arc<[u8]>;
    type Receipt = Receipt;

    fn able(&self) -> Able {
        Able::prefix().fences().batches_of(16).prefetches(50).asks_every(ASKS_EVERY)
    }

    async fn fetch(&self, want: Want) -> Fetched<Arc<[u8]>, Receipt> {
        let (file, assignment) = (want.assignment.partition, want.assignment);
        let Some(feed) = self.feed(file) else { return Ok(Some(Vec::new())) };
        let reading = Arc::clone(&feed);
        // Files block: they are read on a thread for that.
        let read = smol::unblock(move || {
            let Some(from) = reading.next()? else { return Ok(None) };
            Ok(Some((from, reading.lines(from, want.at_most)?)))
        });
        let read: io::Result<_> = read.await;
        let Some((from, lines)) = read.map_err(|it| Trouble::Passes(feed.error(it)))? else {
            return Ok(Some(Vec::new()));
        };
        // No waiting from here on: a fetch that is dropped has not moved the position.
        let mut ours = feed.ours();
        let Some(ours) = ours.as_mut().filter(|ours| ours.next == from) else {
            return Ok(Some(Vec::new()));
        };
        let received = lines.into_iter().map(|(line, end)| {
            let begin = std::mem::replace(&mut ours.next, end);
            let id = Some(format!("{}:{begin}", feed.path.display()).into());
            let facts = Facts { id, assignment, ..Facts::default() };
            Received::new(line, Receipt { file, begin, end }).with_facts(facts)
        });
        Ok(Some(received.collect()))
    }

    async fn settle(&self, batch: Vec<(Receipt, Verdict)>) -> Vec<Settled> {
        let batch: Vec<_> =
            batch.into_iter().map(|(it, verdict)| (self.feed(it.file), it, verdict)).collect();
        let settle = |(feed, receipt, verdict): (Option<Arc<Feed>>, Receipt, Verdict)| {
            let none = || Settled::Lost(Error::new(ErrorCode::Source, "there is no such file"));
            feed.map_or_else(none, |feed| feed.settle(receipt, &verdict))
        };
        smol::unblock(move || batch.into_iter().map(settle).collect()).await
    }

    async fn close(&self) -> Result<(), Error> {
        for feed in &self.0 {
            // The lock goes with the file.
            drop(feed.ours().take());
        }
        Ok(())
    }
}

/// The file for the dead letters of a folder.
#[derive(Debug)]
pub(crate) struct DeadLines(Arc<File>);

impl DeadLines {
    /// Makes it where there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let path = dead_letters(folder);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        Ok(Self(Arc::new(OpenOptions::new().append(true).create(true).open(path)?)))
    }

    /// Puts a line behind the others.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    ///
    /// # Cancel safety
    ///
    /// It may be written.
    pub(crate) async fn put(&self, line: Arc<[u8]>) -> io::Result<()> {
        let file = Arc::clone(&self.0);
        smol::unblock(move || {
            // In one piece: other workers write as well.
            (&*file).write_all(&[&line, b"\n".as_slice()].concat())?;
            file.sync_data()
        })
        .await
    }
}
