//! The actions that rollbacks of a scope have given up, while these are there.
//!
//! No rollback runs an action again which was there when it failed; one that joins later does. So what
//! has failed is kept with who is still to run it. An action that is not `Send` fails as well where a
//! rollback was not given the value it lives in: those that were given it have not given it up.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::column::LinkId;
use super::columns::Columns;

#[derive(Default)]
pub(super) struct GivenUp {
    /// By all that are there.
    pub(super) by_all: Columns,
    again: BTreeMap<Since, Columns>,
}

/// Who is still to run actions that some have given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Since {
    /// This rollback and later ones.
    id: u64,
    /// Those that were given the value which the others lacked.
    elsewhere: Option<Elsewhere>,
}

/// Where actions live that a rollback could not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Elsewhere {
    link: LinkId,
    /// The first rollback of this session that may still run them if it was given the value.
    from: u64,
}

/// A rollback that asks what it is to run.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    pub(super) id: u64,
    /// The actions that are not `Send` which it was given.
    pub(super) link: Option<LinkId>,
}

impl Elsewhere {
    /// `since`: who was still to run them before this rollback could not.
    pub(super) fn new(link: LinkId, since: Option<Since>) -> Self {
        let from = since.map_or(0, |since| since.elsewhere.map_or(since.id, |before| before.from));
        Self { link, from }
    }

    /// The same for the rollbacks of another session.
    pub(super) fn for_others(self) -> Self {
        Self { from: 0, ..self }
    }
}

impl Since {
    fn is_for(&self, asker: Asker) -> bool {
        let lives_there = |at: Elsewhere| Some(at.link) == asker.link && at.from <= asker.id;
        self.id <= asker.id || self.elsewhere.is_some_and(lives_there)
    }
}

impl GivenUp {
    pub(super) fn len(&self) -> usize {
        self.by_all.len() + self.again.values().map(Columns::len).sum::<usize>()
    }

    /// Takes everything out.
    pub(super) fn take(&mut self, actions: &mut Columns) {
        for mut again in std::mem::take(&mut self.again).into_values() {
            actions.append(&mut again);
        }
        actions.append(&mut self.by_all);
    }

    /// A rollback joins, which is to run what has failed so far.
    pub(super) fn join(&mut self, id: u64) {
        if !self.by_all.is_empty() {
            let failed = std::mem::take(&mut self.by_all);
            self.add(Since { id, elsewhere: None }, failed);
        }
    }

    /// Takes in what a rollback could not run, of which `last_id` is the one that joined last.
    pub(super) fn add_elsewhere(&mut self, last_id: u64, at: Elsewhere, actions: Columns) {
        self.add(Since { id: last_id + 1, elsewhere: Some(at) }, actions);
    }

    /// Puts an action back that was stopped.
    pub(super) fn add(&mut self, since: Since, mut actions: Columns) {
        if !self.again.contains_key(&since) {
            self.again.retain(|_, actions| !actions.is_empty());
        }
        self.again.entry(since).or_default().append(&mut actions);
    }

    /// Takes in an action that comes after others, which are still here: whoever runs these runs it.
    pub(super) fn add_behind(&mut self, others: &[u64], mut action: Columns) {
        let here = self.again.iter().filter(|(_, actions)| actions.contains_any(others));
        let here: SmallVec<[Since; 1]> = here.map(|(since, _)| *since).collect();
        match *here {
            [since] if !self.by_all.contains_any(others) => self.add(since, action),
            _ => self.by_all.append(&mut action),
        }
    }

    /// What this rollback is to run although some have given it up: where the last one of that is.
    pub(super) fn again_for(&mut self, asker: Asker) -> Option<(Since, &mut Columns)> {
        let own = self.again.iter_mut().filter(|(since, _)| since.is_for(asker));
        let last = own.filter_map(|(since, actions)| Some((actions.highest()?, *since))).max();
        let (_, since) = last?;
        self.again.get_mut(&since).map(|actions| (since, actions))
    }

    /// Whether any of these is here.
    pub(super) fn contains_any(&self, numbers: &[u64]) -> bool {
        self.by_all.contains_any(numbers)
            || self.again.values().any(|actions| actions.contains_any(numbers))
    }

    pub(super) fn withdraw(&mut self, number: u64) -> Option<Box<dyn Send>> {
        let mut again = self.again.values_mut();
        let withdrawn = self.by_all.withdraw(number);
        withdrawn.or_else(|| again.find_map(|actions| actions.withdraw(number)))
    }
}
