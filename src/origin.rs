//! The place in a drain that an error, a context or a report belongs to.

use std::sync::{Arc, OnceLock};

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
    given: Option<Arc<str>>,
    index: usize,
    made: OnceLock<Box<str>>,
}

impl SourceName {
    pub(crate) fn new(given: Option<Arc<str>>, index: usize) -> Self {
        Self { given, index, made: OnceLock::new() }
    }

    /// The position of the source in the list that the drain was given.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn as_str(&self) -> &str {
        match &self.given {
            Some(name) => name,
            None => self.made.get_or_init(|| format!("source {}", self.index).into()),
        }
    }
}
