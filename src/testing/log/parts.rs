//! The partitions of a log: records, positions, who holds them.

use std::collections::BTreeMap;
use std::task::Waker;

use super::LogRecord;
use super::account::{LogAccount, RecordWork};

/// Who holds a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) consumer: usize,
    pub(super) generation: u64,
}

#[derive(Default)]
pub(super) struct LogPart {
    pub(super) length: u64,
    pub(super) holder: Option<Holder>,
    /// Where the next fetch reads.
    pub(super) position: u64,
    /// Calls of the holder that are on their way.
    pub(super) fetching: u32,
    pub(super) settling: u32,
    /// A seek was sent and is not confirmed.
    pub(super) seeking: bool,
    pub(super) account: LogAccount,
    waiting: Vec<Waker>,
}

#[derive(Default)]
pub(super) struct LogParts {
    by_number: BTreeMap<u32, LogPart>,
    generation: u64,
    stale: u64,
    pub(super) closed: u64,
    mistakes: Vec<String>,
    woken: Vec<Waker>,
}

impl LogParts {
    pub(super) fn add(&mut self, partition: u32, length: u64) {
        self.by_number.insert(partition, LogPart { length, ..LogPart::default() });
    }

    pub(super) fn append(&mut self, partition: u32, records: u64) {
        self.by_number.entry(partition).or_default().length += records;
        self.wake(partition);
    }

    /// What waits for a partition looks again.
    fn wake(&mut self, partition: u32) {
        if let Some(part) = self.by_number.get_mut(&partition) {
            self.woken.append(&mut part.waiting);
        }
    }

    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.woken)
    }

    pub(super) fn wait(&mut self, partition: u32, waker: Waker) {
        if let Some(part) = self.by_number.get_mut(&partition) {
            part.waiting.push(waker);
        }
    }

    pub(super) fn get(&mut self, partition: u32) -> Option<&mut LogPart> {
        self.by_number.get_mut(&partition)
    }

    /// The partition, if this is who holds it.
    pub(super) fn held(&mut self, partition: u32, by: Holder) -> Option<&mut LogPart> {
        self.by_number.get_mut(&partition).filter(|part| part.holder == Some(by))
    }

    /// Gives a partition to a consumer, and returns the generation.
    pub(super) fn assign(&mut self, partition: u32, consumer: usize) -> u64 {
        self.generation += 1;
        let generation = self.generation;
        let part = self.by_number.entry(partition).or_default();
        part.holder = Some(Holder { consumer, generation });
        part.position = part.account.committed;
        (part.fetching, part.settling, part.seeking) = (0, 0, false);
        self.wake(partition);
        generation
    }

    /// Takes a partition from whoever holds it, if it is this one.
    pub(super) fn take(&mut self, partition: u32, from: Holder) {
        if let Some(part) = self.held(partition, from) {
            part.holder = None;
        }
        self.wake(partition);
    }

    pub(super) fn apply(&mut self, record: LogRecord, generation: u64) -> usize {
        let part = self.by_number.entry(record.partition).or_default();
        let (work, mistake) = part.account.apply(RecordWork::new(record.offset, generation));
        self.note(record.partition, mistake);
        work
    }

    pub(super) fn undo(&mut self, record: LogRecord, work: usize) {
        let part = self.by_number.entry(record.partition).or_default();
        let mistake = part.account.undo(work);
        self.note(record.partition, mistake);
    }

    pub(super) fn pass(&mut self, record: LogRecord) {
        self.by_number.entry(record.partition).or_default().account.pass(record.offset);
    }

    pub(super) fn note(&mut self, partition: u32, mistake: Option<String>) {
        self.mistakes.extend(mistake.map(|mistake| format!("partition {partition}: {mistake}")));
    }

    pub(super) fn note_stale(&mut self, partition: u32, what: &str, generation: u64) {
        self.stale += 1;
        let text = format!("{what} of generation {generation}, which is over");
        self.note(partition, Some(text));
    }

    pub(super) fn mistakes(&self) -> &[String] {
        &self.mistakes
    }

    pub(super) fn stale(&self) -> u64 {
        self.stale
    }

    pub(super) fn committed(&self, partition: u32) -> u64 {
        self.by_number.get(&partition).map_or(0, |part| part.account.committed)
    }

    pub(super) fn commits(&self, partition: u32) -> Vec<u64> {
        self.by_number.get(&partition).map(|part| part.account.commits.clone()).unwrap_or_default()
    }

    pub(super) fn seeks(&self, partition: u32) -> Vec<u64> {
        self.by_number.get(&partition).map(|part| part.account.seeks.clone()).unwrap_or_default()
    }

    pub(super) fn are_drained(&self) -> bool {
        self.by_number.values().all(|part| part.account.committed == part.length)
    }

    pub(super) fn handled(&self, record: LogRecord) -> u64 {
        self.by_number.get(&record.partition).map_or(0, |part| part.account.handled(record.offset))
    }
}
