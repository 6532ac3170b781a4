//! The place in a drain that an error, a step or a report belongs to.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Which source something belongs to: a number of the whole process that is never used again.
///
/// ```
/// use futures::stream;
/// use watershed::channels;
///
/// let (live, _incoming) = channels::live();
/// let (first, second) = (live.add(stream::iter([1])).unwrap(), live.add(stream::iter([2])).unwrap());
/// assert!(first.id() < second.id());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(u64);

/// The number that was given out last.
static LAST_SOURCE: AtomicU64 = AtomicU64::new(0);

impl SourceId {
    /// Below every other.
    pub(crate) const FIRST: Self = Self(0);

    pub(crate) fn next() -> Self {
        Self(LAST_SOURCE.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A source as an error, a report or a step knows it.
#[derive(Clone, Debug)]
pub(crate) struct SourceRef {
    pub(crate) id: SourceId,
    pub(crate) name: SourceName,
}

/// A message of a source.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) source: SourceName,
    /// The number of the message, the first one being 1; 0 where no message was taken.
    pub(crate) message: u64,
}

/// How a source is called: by the name it was given, or else by its position, in words that are
/// not made before somebody asks for them.
#[derive(Clone, Debug)]
pub(crate) struct SourceName {
    name: OnceLock<Arc<str>>,
    index: usize,
}

impl SourceName {
    pub(crate) fn new(given: Option<Arc<str>>, index: usize) -> Self {
        Self { name: given.map_or_else(OnceLock::new, OnceLock::from), index }
    }

    /// The position of the source in the list that the drain was given.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn as_str(&self) -> &str {
        self.name.get_or_init(|| format!("source {}", self.index).into())
    }
}
