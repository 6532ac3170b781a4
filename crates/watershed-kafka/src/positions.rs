//! Where a partition starts, and what is said when the log does not hold that any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use watershed::transport::{Assignment, Trouble};
use watershed::{Error, ErrorCode};

use crate::errors::{closed, error, not_ours, trouble};
use crate::group::{Client, Place};
use crate::member::{ANSWER_WITHIN, Member};
use crate::setup::Start;

/// How many partitions the topics have together.
pub(crate) fn partitions_of<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topics: &[String],
) -> Result<usize, Trouble> {
    topics.iter().map(|topic| partitions_of_one(client, topic)).sum()
}

pub(crate) fn partitions_of_one<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
) -> Result<usize, Trouble> {
    let what = || format!("the partitions of `{topic}`");
    let metadata = client.fetch_metadata(Some(topic), ANSWER_WITHIN);
    let metadata = metadata.map_err(|cause| trouble(what(), cause))?;
    let Some(found) = metadata.topics().iter().find(|it| it.name() == topic) else {
        return Err(trouble(what(), KafkaError::MetadataFetch(Code::UnknownTopicOrPartition)));
    };
    if let Some(code) = found.error() {
        return Err(trouble(what(), KafkaError::MetadataFetch(code.into())));
    }
    Ok(found.partitions().len())
}

impl Member {
    /// Where each partition starts. What the group has no position of is decided and committed here,
    /// before the first message is handed on: a crash before the first accept starts there again.
    pub(crate) fn start_positions(
        &self,
        client: &Client,
        places: &[Place],
    ) -> Result<Vec<(Place, i64)>, Trouble> {
        let mut positions = committed(client, places)?;
        if let Some(start) = self.setup.if_gone {
            self.pass_over(client, &mut positions, start)?;
        }
        let missing = |place: &&Place| !positions.contains_key(*place);
        let topics: BTreeSet<_> =
            places.iter().filter(missing).map(|(topic, _)| topic.clone()).collect();
        for topic in topics {
            let all = partitions_of_one(client, &topic)?;
            let all = i32::try_from(all).unwrap_or(i32::MAX);
            let all: Vec<Place> = (0..all).map(|partition| (topic.clone(), partition)).collect();
            let known = committed(client, &all)?;
            let is_ours = |place: &Place| places.contains(place) && !known.contains_key(place);
            let started = if known.is_empty() && self.setup.start == Start::Latest {
                // For all of them: the other members' would look like new ones.
                commit(client, bounds(client, &all, |(_, end)| end)?)?
            } else {
                let ours: Vec<_> = all.into_iter().filter(is_ours).collect();
                commit(client, bounds(client, &ours, |(first, _)| first)?)?
            };
            positions.extend(known);
            positions.extend(started);
        }
        let position = |place: &Place| {
            let missing = || Error::new(ErrorCode::Source, "a partition is not in its topic yet");
            let position = positions.get(place).copied();
            position.map(|at| (place.clone(), at)).ok_or_else(|| Trouble::Passes(missing()))
        };
        places.iter().map(position).collect()
    }

    /// Moves the positions that the log does not hold to one of its ends.
    fn pass_over(
        &self,
        client: &Client,
        positions: &mut BTreeMap<Place, i64>,
        start: Start,
    ) -> Result<(), Trouble> {
        let mut moved = BTreeMap::new();
        for ((topic, partition), position) in positions.iter() {
            let (first, end) = bounds_of(client, topic, *partition)?;
            if !(first..=end).contains(position) {
                let to = if start == Start::Latest { end } else { first };
                moved.insert((topic.clone(), *partition), to);
            }
        }
        for (place, to) in commit(client, moved)? {
            let from = positions.insert(place, to).unwrap_or(to);
            let passed_over = u64::try_from(to - from).unwrap_or(0);
            self.shared.passed_over.fetch_add(passed_over, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Why a position cannot be read from.
    pub(crate) fn explain(&self, assignment: Assignment, cause: KafkaError) -> Trouble {
        let Some(partition) = self.shared.ours().partition(assignment) else {
            return Trouble::Passes(not_ours());
        };
        let Some(client) = &self.client else { return Trouble::Lasts(closed()) };
        let (topic, number) = (&partition.topic, partition.number);
        let (position, _) = partition.position();
        let what = format!("partition {number} of `{topic}` does not hold position {position}");
        match client.fetch_watermarks(topic, number, ANSWER_WITHIN) {
            Ok((first, end)) => {
                let text = format!("{what}: it holds {first} up to {end}");
                let error = error(text, cause).with_metadata("position", position.to_string());
                let error = error.with_metadata("first", first.to_string());
                Trouble::Lasts(error.with_metadata("end", end.to_string()))
            }
            Err(_) => Trouble::Lasts(error(what, cause)),
        }
    }
}

/// The positions that the group has, of these.
fn committed(client: &Client, places: &[Place]) -> Result<BTreeMap<Place, i64>, Trouble> {
    let what = "the positions of the group";
    let mut tpl = TopicPartitionList::with_capacity(places.len());
    for (topic, partition) in places {
        tpl.add_partition(topic, *partition);
    }
    let tpl = client.committed_offsets(tpl, ANSWER_WITHIN);
    let tpl = tpl.map_err(|cause| trouble(what, cause))?;
    let mut positions = BTreeMap::new();
    for element in tpl.elements() {
        element.error().map_err(|cause| trouble(what, cause))?;
        if let Offset::Offset(position) = element.offset() {
            positions.insert((element.topic().to_owned(), element.partition()), position);
        }
    }
    Ok(positions)
}

/// One of the two bounds of each: the first message that is held, and behind the last one.
fn bounds(
    client: &Client,
    places: &[Place],
    which: impl Fn((i64, i64)) -> i64,
) -> Result<BTreeMap<Place, i64>, Trouble> {
    let mut positions = BTreeMap::new();
    for (topic, partition) in places {
        let bounds = bounds_of(client, topic, *partition)?;
        positions.insert((topic.clone(), *partition), which(bounds));
    }
    Ok(positions)
}

fn bounds_of(client: &Client, topic: &str, partition: i32) -> Result<(i64, i64), Trouble> {
    let bounds = client.fetch_watermarks(topic, partition, ANSWER_WITHIN);
    let what = || format!("the bounds of partition {partition} of `{topic}`");
    bounds.map_err(|cause| trouble(what(), cause))
}

fn commit(
    client: &Client,
    positions: BTreeMap<Place, i64>,
) -> Result<BTreeMap<Place, i64>, Trouble> {
    let what = "committing where the group starts";
    let mut tpl = TopicPartitionList::with_capacity(positions.len());
    for ((topic, partition), position) in &positions {
        let added = tpl.add_partition_offset(topic, *partition, Offset::Offset(*position));
        added.map_err(|cause| trouble(what, cause))?;
    }
    if !positions.is_empty() {
        client.commit(&tpl, CommitMode::Sync).map_err(|cause| trouble(what, cause))?;
    }
    Ok(positions)
}
