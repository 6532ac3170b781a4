//! The input: feeds of lines, each feed carried by one of two transports.
//!
//! Lines are loaded as they are, valid or not: decoding is the handler's work, and a line that
//! cannot be decoded must reach it like any other. Empty lines are passed over.

use std::fmt;
use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use crate::transports::Record;

/// The earthquakes that are built into the program.
macro_rules! embedded {
    ($($file:literal),* $(,)?) => {
        [$(($file, include_bytes!(concat!("../earthquakes/", $file)).as_slice())),*]
    };
}

const EMBEDDED: [(&str, &[u8]); 12] = embedded![
    "ak.jsonl", "ci.jsonl", "hv.jsonl", "mb.jsonl", "nc.jsonl", "nm.jsonl", "nn.jsonl", "pr.jsonl",
    "se.jsonl", "us.jsonl", "uu.jsonl", "uw.jsonl",
];

/// How the messages of a feed reach the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Rows of a table, each taken with a lease.
    LeaseQueue,
    /// A partition of a log, read from a committed offset on.
    Log,
}

impl Transport {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::LeaseQueue => "lease queue",
            Self::Log => "log",
        }
    }
}

/// One source of messages: the lines of one file, delivered `repeat` times.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    /// Its place in the order of the file names.
    pub(crate) id: u32,
    /// The file's name without `.jsonl`.
    pub(crate) name: Arc<str>,
    lines: Vec<Line>,
    repeat: NonZeroU32,
}

#[derive(Clone, Debug)]
struct Line {
    /// 1 is the first line of the file.
    number: u32,
    bytes: Vec<u8>,
}

impl Feed {
    fn new(id: u32, file: &str, bytes: &[u8], repeat: NonZeroU32) -> Self {
        let lines = (1..).zip(bytes.split(|byte| *byte == b'\n'));
        let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
        let lines = lines.map(|(number, bytes)| Line { number, bytes: bytes.to_vec() }).collect();
        let name = file.strip_suffix(".jsonl").unwrap_or(file).into();
        Self { id, name, lines, repeat }
    }

    /// The feeds take turns.
    pub(crate) fn transport(&self) -> Transport {
        if self.id % 2 == 0 { Transport::LeaseQueue } else { Transport::Log }
    }

    /// How many messages the feed delivers in all.
    pub(crate) fn messages(&self) -> u32 {
        u32::try_from(self.lines.len()).unwrap_or(u32::MAX).saturating_mul(self.repeat.get())
    }

    /// The lines in the order of delivery.
    pub(crate) fn payloads(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0..self.messages()).map(|position| (position, self.payload(position)))
    }

    pub(crate) fn payload(&self, position: u32) -> &[u8] {
        &self.lines[position as usize % self.lines.len()].bytes
    }

    /// Where the message at `position` comes from.
    pub(crate) fn origin(&self, position: u32) -> Origin {
        let index = position as usize;
        let line = self.lines[index % self.lines.len()].number;
        Origin { feed: Arc::clone(&self.name), line, copy: index / self.lines.len() + 1 }
    }
}

/// The file and the line that a message comes from, for error messages and for tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) feed: Arc<str>,
    pub(crate) line: u32,
    /// Which of the `--repeat` deliveries of the line it is; 1 is the first.
    pub(crate) copy: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.jsonl:{}", self.feed, self.line)?;
        if self.copy > 1 { write!(f, " (copy {})", self.copy) } else { Ok(()) }
    }
}

/// A message of a feed. Clones share what they carry.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) feed: Arc<Feed>,
    pub(crate) position: u32,
    pub(crate) payload: Arc<[u8]>,
}

impl Message {
    pub(crate) fn origin(&self) -> Origin {
        self.feed.origin(self.position)
    }
}

/// All feeds of a run.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// In the order of their file names.
    pub(crate) feeds: Vec<Arc<Feed>>,
    /// Changes with the names, the contents and the number of repetitions.
    pub(crate) fingerprint: String,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot read {0}")]
    Unreadable(String, #[source] io::Error),
    #[error("{0} has no .jsonl files")]
    NoFiles(String),
    #[error("{0} messages in one feed: 4294967295 are the most")]
    TooMany(String),
    #[error("there is no feed of the number {0}")]
    NoFeed(u32),
}

impl Input {
    /// Loads the files of `folder`, or those built into the program.
    ///
    /// # Errors
    ///
    /// When the folder or one of its files cannot be read, or there are no `.jsonl` files in it.
    pub(crate) fn load(folder: Option<&Path>, repeat: NonZeroU32) -> Result<Self, InputError> {
        let files = match folder {
            Some(folder) => read_folder(folder)?,
            None => EMBEDDED.map(|(file, bytes)| (file.to_owned(), bytes.to_vec())).to_vec(),
        };
        let mut hash = Fnv::new();
        hash.update(&repeat.get().to_le_bytes());
        let mut feeds = Vec::with_capacity(files.len());
        for (id, (file, bytes)) in (0..).zip(&files) {
            hash.update(file.as_bytes());
            hash.update(&bytes.len().to_le_bytes());
            hash.update(bytes);
            let feed = Feed::new(id, file, bytes, repeat);
            if feed.lines.len() as u64 * u64::from(repeat.get()) > u64::from(u32::MAX) {
                return Err(InputError::TooMany(file.clone()));
            }
            feeds.push(Arc::new(feed));
        }
        Ok(Self { feeds, fingerprint: format!("{:016x}", hash.0) })
    }

    /// How many messages all feeds deliver.
    pub(crate) fn messages(&self) -> u64 {
        self.feeds.iter().map(|feed| u64::from(feed.messages())).sum()
    }

    /// The feeds that one of the transports carries.
    pub(crate) fn feeds_of(&self, transport: Transport) -> impl Iterator<Item = &Arc<Feed>> {
        self.feeds.iter().filter(move |feed| feed.transport() == transport)
    }

    /// The message that a transport has handed over as a record.
    pub(crate) fn message(&self, record: Record) -> Result<Message, InputError> {
        let Record { place, number, body } = record;
        let feed = self.feeds.get(place as usize).ok_or(InputError::NoFeed(place))?;
        Ok(Message { feed: Arc::clone(feed), position: number, payload: body.into() })
    }
}

fn read_folder(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, InputError> {
    let unreadable = |path: &Path| {
        let path = path.display().to_string();
        move |error| InputError::Unreadable(path, error)
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable(folder))? {
        let path = entry.map_err(unreadable(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "jsonl") && path.is_file() {
            let bytes = fs::read(&path).map_err(unreadable(&path))?;
            files.push((name, bytes));
        }
    }
    if files.is_empty() {
        return Err(InputError::NoFiles(folder.display().to_string()));
    }
    files.sort();
    Ok(files)
}

/// FNV-1a, because the standard library's hashes may change between two versions of Rust and the
/// fingerprint is kept in the database.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
