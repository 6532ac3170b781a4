//! What is known of messages that were lost while somebody works on them, until that is undone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::settlement::{Facts, Key};

/// Where nothing is taken before what was lost in work is undone: in prefix order in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Where {
    Source(u64),
    Partition(u32),
}

/// Messages that were lost in work, until they are undone.
#[derive(Debug, Default)]
pub(super) struct LostInWork {
    keys: HashMap<Key, (Where, Option<Box<Facts>>)>,
    count: HashMap<Where, usize>,
}

impl LostInWork {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.keys.contains_key(&key)
    }

    /// Whether there is one of there.
    pub(super) fn any(&self, place: Where) -> bool {
        self.count.contains_key(&place)
    }

    /// What is known of one of them.
    pub(super) fn facts(&self, key: Key) -> Option<&Facts> {
        self.keys.get(&key)?.1.as_deref()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (Key, &Arc<str>)> {
        self.keys.iter().filter_map(|(key, (_, facts))| Some((*key, facts.as_ref()?.id.as_ref()?)))
    }

    pub(super) fn insert(&mut self, key: Key, place: Where, facts: Option<Box<Facts>>) {
        if self.keys.insert(key, (place, facts)).is_none() {
            *self.count.entry(place).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<(Where, Option<Box<Facts>>)> {
        let (place, facts) = self.keys.remove(&key)?;
        if let Entry::Occupied(mut count) = self.count.entry(place) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some((place, facts))
    }
}
