//! Which partitions are ours, and which sources bring them.

use std::collections::BTreeSet;

use crate::settlement::Assignment;

#[derive(Debug, Default)]
pub(super) struct Partitions {
    /// Assigned, and not given up since.
    ours: BTreeSet<Assignment>,
    /// Sources, but for those that have lost theirs.
    sources: BTreeSet<(Assignment, u64)>,
}

/// All of a partition up to this generation.
fn up_to(last: Assignment) -> std::ops::RangeInclusive<Assignment> {
    Assignment { generation: 0, ..last }..=last
}

impl Partitions {
    pub(super) fn any_ours(&self) -> bool {
        !self.ours.is_empty()
    }

    pub(super) fn ours(&self) -> Vec<Assignment> {
        self.ours.iter().copied().collect()
    }

    /// Those of ours that are of the same partition, and not of a later generation.
    pub(super) fn ours_up_to(&self, last: Assignment) -> Vec<Assignment> {
        self.ours.range(up_to(last)).copied().collect()
    }

    /// It is ours from now on, in this generation alone.
    pub(super) fn assign(&mut self, assignment: Assignment) {
        for earlier in self.ours_up_to(Assignment { generation: u64::MAX, ..assignment }) {
            self.ours.remove(&earlier);
        }
        self.ours.insert(assignment);
    }

    pub(super) fn forget(&mut self, assignment: Assignment) {
        self.ours.remove(&assignment);
    }

    pub(super) fn add_source(&mut self, assignment: Assignment, id: u64) {
        self.sources.insert((assignment, id));
    }

    pub(super) fn remove_source(&mut self, assignment: Assignment, id: u64) {
        self.sources.remove(&(assignment, id));
    }

    /// The first source of it.
    pub(super) fn source_of(&self, assignment: Assignment) -> Option<u64> {
        let mut all = self.sources.range((assignment, 0)..=(assignment, u64::MAX));
        all.next().map(|(_, id)| *id)
    }

    /// Sources of the same partition, but for later generations.
    pub(super) fn sources_up_to(&self, last: Assignment) -> Vec<u64> {
        let (first, last) = up_to(last).into_inner();
        self.sources.range((first, 0)..=(last, u64::MAX)).map(|(_, id)| *id).collect()
    }

    /// Sources of a partition, in any generation.
    pub(super) fn sources_of(&self, partition: u32) -> Vec<u64> {
        self.sources_up_to(Assignment { partition, generation: u64::MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(partition: u32, generation: u64) -> Assignment {
        Assignment { partition, generation }
    }

    #[test]
    fn a_partition_is_ours_in_one_generation() {
        let mut all = Partitions::default();
        for assignment in [at(1, 1), at(2, 3), at(3, 1), at(2, 2)] {
            all.assign(assignment);
        }
        assert_eq!(all.ours(), [at(1, 1), at(2, 2), at(3, 1)]);
        assert_eq!(all.ours_up_to(at(2, 1)), []);
        assert_eq!(all.ours_up_to(at(2, 9)), [at(2, 2)]);
        all.forget(at(2, 2));
        assert_eq!(all.ours(), [at(1, 1), at(3, 1)]);
    }

    #[test]
    fn sources_are_found_by_partition_and_generation() {
        let mut all = Partitions::default();
        for (assignment, id) in [(at(1, 9), 1), (at(2, 1), 2), (at(2, 2), 3), (at(2, 2), 4)] {
            all.add_source(assignment, id);
        }
        assert_eq!((all.source_of(at(2, 2)), all.source_of(at(2, 3))), (Some(3), None));
        assert_eq!((all.sources_up_to(at(2, 1)), all.sources_of(2)), (vec![2], vec![2, 3, 4]));
        all.remove_source(at(2, 2), 3);
        assert_eq!((all.source_of(at(2, 2)), all.sources_of(1)), (Some(4), vec![1]));
    }
}
