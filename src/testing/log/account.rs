//! What was done about the records of a partition, and what is held against whoever commits them.

use std::collections::BTreeSet;

/// What a handler did about a record.
#[derive(Debug)]
pub(super) struct RecordWork {
    offset: u64,
    generation: u64,
    undone: bool,
    committed: bool,
}

impl RecordWork {
    pub(super) fn new(offset: u64, generation: u64) -> Self {
        Self { offset, generation, undone: false, committed: false }
    }

    fn stands(&self, offset: u64, generation: u64) -> bool {
        self.offset == offset && self.generation == generation && !self.undone
    }
}

#[derive(Debug, Default)]
pub(super) struct LogAccount {
    pub(super) committed: u64,
    pub(super) commits: Vec<u64>,
    pub(super) seeks: Vec<u64>,
    works: Vec<RecordWork>,
    passed: BTreeSet<u64>,
}

impl LogAccount {
    /// The number of the work, and what is wrong with it.
    pub(super) fn apply(&mut self, work: RecordWork) -> (usize, Option<String>) {
        let (offset, generation) = (work.offset, work.generation);
        let twice = self.works.iter().any(|other| other.stands(offset, generation));
        let mistake =
            twice.then(|| format!("{offset} was worked on twice, and not undone between"));
        self.works.push(work);
        (self.works.len() - 1, mistake)
    }

    pub(super) fn undo(&mut self, number: usize) -> Option<String> {
        let work = self.works.get_mut(number)?;
        let twice = std::mem::replace(&mut work.undone, true);
        let offset = work.offset;
        if work.committed {
            return Some(format!("{offset} was undone after it was committed"));
        }
        twice.then(|| format!("{offset} was undone twice"))
    }

    pub(super) fn pass(&mut self, offset: u64) {
        self.passed.insert(offset);
    }

    pub(super) fn handled(&self, offset: u64) -> u64 {
        self.works.iter().filter(|work| work.offset == offset).count() as u64
    }

    /// The offset of the first record that is not committed any more.
    pub(super) fn commit(&mut self, offset: u64, generation: u64) -> Option<String> {
        if offset < self.committed {
            return Some(format!("a commit goes back from {} to {offset}", self.committed));
        }
        let covered = self.committed..offset;
        let open = covered.clone().find(|offset| {
            !self.passed.contains(offset)
                && !self.works.iter().any(|work| work.stands(*offset, generation))
        });
        for work in &mut self.works {
            work.committed |= covered.contains(&work.offset) && work.generation == generation;
        }
        self.committed = offset;
        self.commits.push(offset);
        open.map(|open| format!("the commit to {offset} passes {open}, which is not done"))
    }

    /// What is wrong with a seek that is sent.
    pub(super) fn seek(&mut self, offset: u64, generation: u64) -> Option<String> {
        self.seeks.push(offset);
        if offset < self.committed {
            return Some(format!("a seek to {offset}, and {} is committed", self.committed));
        }
        let standing = self
            .works
            .iter()
            .find(|work| work.offset >= offset && work.generation == generation && !work.undone);
        standing.map(|work| format!("a seek to {offset}, and {} is not undone", work.offset))
    }
}
