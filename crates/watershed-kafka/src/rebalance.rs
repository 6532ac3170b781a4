//! Partitions that come and go: what the group asks is answered when the drain has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use watershed::transport::{Assignment, Event, Revocation, Trouble};
use watershed::{Error, ErrorCode};

use crate::errors::{error, is_out_of_step, not_ours};
use crate::group::{Change, Client, Place, give, take_away};
use crate::member::{Command, Member};
use crate::partition::Partition;

/// A question of the group's that is not answered yet.
#[derive(Debug)]
pub(crate) enum Pending {
    /// Where they start is asked again then. So often in a row the group was out of step with us.
    Assign { places: Vec<Place>, again: Instant, out_of_step: u32 },
    /// These are still with the drain.
    Revoke { places: Vec<Place>, open: BTreeSet<Assignment> },
}

/// Partitions that the client was told nothing of: the group has them for this member, and does not ask
/// again. Where they start is asked until it is known.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    places: Vec<Place>,
    again: Option<Instant>,
}

const AGAIN: Duration = Duration::from_millis(500);

/// A single such answer may be about a rebalance that has just ended.
const MOST_OUT_OF_STEP: u32 = 3;

const ASSIGNING: &str = "assigning partitions";
const GIVING_UP: &str = "giving partitions up";

impl Pending {
    fn asked(places: Vec<Place>) -> Self {
        Self::Assign { places, again: Instant::now(), out_of_step: 0 }
    }
}

impl Owed {
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The group asks about these, whatever it has said before.
    fn forget(&mut self, places: &[Place]) {
        self.places.retain(|place| !places.contains(place));
    }
}

impl Member {
    /// Goes on with what the group asks.
    pub(crate) fn rebalance(&mut self, client: &Arc<Client>) -> Result<(), Error> {
        loop {
            let pending = match self.pending.take() {
                Some(pending) => pending,
                None => match client.context().next() {
                    Some(Change::Assign(places)) => {
                        self.owed.forget(&places);
                        Pending::asked(places)
                    }
                    Some(Change::Revoke(places)) => {
                        self.owed.forget(&places);
                        self.revoke(client, places)
                    }
                    None => return self.start_owed(client),
                },
            };
            self.pending = self.answer(client, pending)?;
            if self.pending.is_some() {
                return Ok(());
            }
        }
    }

    /// Answers, where that is possible yet.
    fn answer(&mut self, client: &Arc<Client>, pending: Pending) -> Result<Option<Pending>, Error> {
        match pending {
            Pending::Assign { again, .. } if Instant::now() < again => Ok(Some(pending)),
            Pending::Assign { places, out_of_step, .. } => self.start(client, places, out_of_step),
            Pending::Revoke { places, mut open } => {
                if !open.is_empty() && client.assignment_lost() {
                    // It came too late; nothing more can be committed.
                    self.lose(&places);
                    open.clear();
                }
                if !open.is_empty() {
                    return Ok(Some(Pending::Revoke { places, open }));
                }
                // What is on its way was ours when it was sent.
                let given_up = self.shared.ours().give_up(&places);
                let Some(given_up) = given_up else {
                    return Ok(Some(Pending::Revoke { places, open }));
                };
                self.take_away(client, &places, given_up).map(|()| None)
            }
        }
    }

    /// Takes partitions, if it is known where they start.
    fn start(
        &mut self,
        client: &Arc<Client>,
        places: Vec<Place>,
        out_of_step: u32,
    ) -> Result<Option<Pending>, Error> {
        let error = match self.start_positions(client, &places) {
            Ok(positions) => return self.assign(client, positions).map(|()| None),
            Err(Trouble::Lasts(error)) => return Err(error),
            Err(Trouble::Passes(error)) => error,
        };
        let out_of_step = if is_out_of_step(&error) { out_of_step + 1 } else { 0 };
        self.shared.notices.tell(Event::Trouble(error));
        if out_of_step < MOST_OUT_OF_STEP {
            return Ok(Some(Pending::Assign {
                places,
                again: Instant::now() + AGAIN,
                out_of_step,
            }));
        }
        // The group has gone on without this member, and says so each time until it joins again. The
        // client does that as soon as it has its answer: it takes none of them now.
        let none = give(client, &TopicPartitionList::new());
        none.map_err(|cause| self::error(ASSIGNING, cause))?;
        self.owed.places.extend(places);
        self.owed.again = Some(Instant::now() + AGAIN);
        Ok(None)
    }

    /// Takes what it could not take when the group asked, if it is known where that starts.
    fn start_owed(&mut self, client: &Arc<Client>) -> Result<(), Error> {
        let is_early = self.owed.again.is_some_and(|again| Instant::now() < again);
        if self.owed.is_empty() || is_early {
            return Ok(());
        }
        match self.start_positions(client, &self.owed.places) {
            Ok(positions) => {
                self.owed = Owed::default();
                self.assign(client, positions)
            }
            Err(Trouble::Lasts(error)) => Err(error),
            Err(Trouble::Passes(error)) => {
                self.shared.notices.tell(Event::Trouble(error));
                self.owed.again = Some(Instant::now() + AGAIN);
                Ok(())
            }
        }
    }

    fn assign(&mut self, client: &Arc<Client>, positions: Vec<(Place, i64)>) -> Result<(), Error> {
        let mut tpl = TopicPartitionList::with_capacity(positions.len());
        let mut assigned = Vec::new();
        for ((topic, partition), position) in positions {
            let offset = rdkafka::Offset::Offset(position);
            let added = tpl.add_partition_offset(&topic, partition, offset);
            added.map_err(|cause| error(ASSIGNING, cause))?;
            self.generation += 1;
            let number = self.number(&topic, partition)?;
            let assignment = Assignment { partition: number, generation: self.generation };
            let (topic, bytes) = (topic.into(), self.setup.bytes_at_once(self.partitions));
            let opened = Partition::open(client, (&topic, partition), assignment, position, bytes);
            let Some(partition) = opened else {
                let text = format!("partition {partition} of `{topic}` cannot be read by itself");
                return Err(Error::new(ErrorCode::Source, text));
            };
            self.shared.partitions().insert(assignment, Arc::clone(&partition));
            self.shared.ours().add(partition, position);
            assigned.push(assignment);
        }
        give(client, &tpl).map_err(|cause| error(ASSIGNING, cause))?;
        for assignment in assigned {
            self.shared.notices.tell(Event::Assigned(assignment));
        }
        Ok(())
    }

    /// The number that the library has for a partition: Kafka's own where there is one topic.
    fn number(&self, topic: &str, partition: i32) -> Result<u32, Error> {
        let topics = &self.setup.topics;
        let at = topics.iter().position(|known| known == topic).map(u16::try_from);
        let (Some(Ok(at)), Ok(partition)) = (at, u16::try_from(partition)) else {
            let text = format!("partition {partition} of `{topic}` was not asked for");
            return Err(Error::new(ErrorCode::Source, text));
        };
        Ok(u32::from(at) << 16 | u32::from(partition))
    }

    /// Asks the drain to give partitions up; what was lost is told to it.
    fn revoke(&mut self, client: &Client, places: Vec<Place>) -> Pending {
        let mut open = BTreeSet::new();
        if client.assignment_lost() {
            self.lose(&places);
            return Pending::Revoke { places, open };
        }
        open.extend(self.shared.ours().assignments_of(&places));
        for assignment in &open {
            let (commands, assignment) = (self.shared.commands.clone(), *assignment);
            let revocation = Revocation::new(assignment, move |_| {
                // A thread that is gone has answered for itself.
                let _ = commands.send(Command::GivenUp(assignment));
            });
            let revocation = revocation.within(self.setup.revoke_within());
            self.shared.notices.tell(Event::Revoked(revocation));
        }
        Pending::Revoke { places, open }
    }

    pub(crate) fn given_up(&mut self, assignment: Assignment) {
        if let Some(Pending::Revoke { open, .. }) = &mut self.pending {
            open.remove(&assignment);
        }
    }

    fn lose(&self, places: &[Place]) {
        let lost = self.shared.ours().assignments_of(places);
        for assignment in lost {
            self.shared.notices.tell(Event::Lost(assignment, not_ours()));
        }
    }

    fn take_away(
        &self,
        client: &Client,
        places: &[Place],
        given_up: Vec<Arc<Partition>>,
    ) -> Result<(), Error> {
        for partition in given_up {
            self.shared.partitions().remove(&partition.assignment);
            partition.close();
        }
        // Of what it was never given the client would refuse all: see `is_out_of_step`.
        let given = client.assignment().map_err(|cause| error(GIVING_UP, cause))?;
        let is_given =
            |(topic, partition): &&Place| given.find_partition(topic, *partition).is_some();
        let places: Vec<_> = places.iter().filter(is_given).cloned().collect();
        take_away(client, &list(&places)).map_err(|cause| error(GIVING_UP, cause))
    }

    /// The consumer leaves: what the group still waits for is given to it at once.
    pub(crate) fn answer_for_good(&mut self, client: &Client) {
        let mut asked: Vec<_> = self.pending.take().into_iter().collect();
        while let Some(change) = client.context().next() {
            asked.push(match change {
                Change::Assign(places) => Pending::asked(places),
                Change::Revoke(places) => Pending::Revoke { places, open: BTreeSet::new() },
            });
        }
        for pending in asked {
            // Refused only where the client is past it.
            let _ = match pending {
                Pending::Assign { places, .. } => give(client, &list(&places)),
                Pending::Revoke { places, .. } => take_away(client, &list(&places)),
            };
        }
    }
}

fn list(places: &[Place]) -> TopicPartitionList {
    let mut tpl = TopicPartitionList::with_capacity(places.len());
    for (topic, partition) in places {
        tpl.add_partition(topic, *partition);
    }
    tpl
}
