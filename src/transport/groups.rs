//! Order by group: of each group one message is in hand at a time, and what is behind one that goes back
//! goes back before it.
//!
//! A transport that keeps order by group (a FIFO queue, rows with a key) has its messages back with the
//! last one first, so that the one that was given back is the head of its group again. An accept lets
//! the next one go on at once. A window has several of a group, and they are handled in order all the
//! same: windows of such a source are handled one after another.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Transport;
use super::entries::MessagePhase;
use super::state::TransportState;
use crate::settlement::{Facts, Key, Verdict};

/// Messages by group, as long as any of theirs is open.
pub(super) struct Groups<M>(HashMap<Arc<str>, MessageGroup<M>>);

struct MessageGroup<M> {
    /// Those that are open, in the order in which they came.
    open: VecDeque<Key>,
    /// Of these, those that nobody may take yet, and the source they came by.
    held: VecDeque<(M, Key, u64)>,
    /// How many are in hand, and by which source.
    in_hand: usize,
    part: u64,
    /// How many were taken.
    taken: u64,
    /// Nothing more of it is handed out: it starts anew when nothing of it is open.
    goes_back: bool,
    /// How many were lost and are not undone.
    lost: usize,
}

impl<M> Default for Groups<M> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<M> Default for MessageGroup<M> {
    fn default() -> Self {
        Self {
            open: VecDeque::new(),
            held: VecDeque::new(),
            in_hand: 0,
            part: 0,
            taken: 0,
            goes_back: false,
            lost: 0,
        }
    }
}

impl<M> MessageGroup<M> {
    fn is_over(&self) -> bool {
        self.open.is_empty() && self.lost == 0
    }

    /// Whether one that came by this source may be handed out. `gathers`: into windows.
    fn may_go_on(&self, part: u64, gathers: bool) -> bool {
        !self.goes_back && (self.in_hand == 0 || gathers && self.part == part)
    }
}

impl<M> Groups<M> {
    /// One was taken. Returns its place in its group.
    #[inline]
    pub(super) fn taken(&mut self, facts: &Facts) -> Option<u64> {
        let group = self.0.get_mut(facts.group.as_ref()?)?;
        group.taken += 1;
        Some(group.taken - 1)
    }

    /// Nobody drives the transport any more. Returns what was held.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = M> + use<M> {
        let groups = std::mem::take(&mut self.0);
        groups.into_values().flat_map(|group| group.held).map(|(message, ..)| message)
    }
}

impl<T: Transport> TransportState<T> {
    fn group_of(&self, key: Key) -> Option<Arc<str>> {
        self.entries.get(key)?.facts().group.clone()
    }

    fn group(&self, key: Key) -> Option<&MessageGroup<T::Message>> {
        self.groups.0.get(self.entries.get(key)?.facts().group.as_ref()?)
    }

    /// A message was fetched.
    pub(super) fn joins_group(&mut self, key: Key) {
        if let Some(name) = self.group_of(key) {
            self.groups.0.entry(name).or_default().open.push_back(key);
        }
    }

    /// A message was fetched that may be handled: it is handed out, or waits for its group.
    pub(super) fn queue_up(&mut self, id: u64, message: T::Message, key: Key) {
        let group = self.group_of(key).and_then(|name| self.groups.0.get_mut(&name));
        let Some(group) = group else {
            self.buffer(id, message, key);
            return;
        };
        if group.held.is_empty() && group.may_go_on(id, self.gathers) {
            return self.hand_out(id, message, key);
        }
        group.held.push_back((message, key, id));
        if let Some(part) = self.parts.get_mut(&id) {
            part.held += 1;
        }
    }

    fn hand_out(&mut self, id: u64, message: T::Message, key: Key) {
        if self.buffer(id, message, key) {
            self.is_in_hand(key);
        }
    }

    fn buffer(&mut self, id: u64, message: T::Message, key: Key) -> bool {
        let Some(part) = self.parts.get_mut(&id) else {
            self.aside.messages.push(message);
            return false;
        };
        part.buffer.push_back((message, key));
        true
    }

    /// Whoever is behind it in its group waits.
    fn is_in_hand(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let group = entry.facts().group.as_ref();
        if let Some(group) = group.and_then(|name| self.groups.0.get_mut(name)) {
            if !std::mem::replace(&mut entry.in_hand, true) {
                group.in_hand += 1;
                group.part = entry.part;
            }
        }
    }

    /// How many of its group were taken after it.
    pub(super) fn behind_in_group(&self, name: &str, place: u64) -> u64 {
        let taken = self.groups.0.get(name).map_or(0, |group| group.taken);
        taken.saturating_sub(place + 1)
    }

    /// It was handled: the next one need not wait for its accept.
    pub(super) fn lets_go_on(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.in_hand) else { return };
        entry.in_hand = false;
        let Some(name) = entry.facts().group.clone() else { return };
        if let Some(group) = self.groups.0.get_mut(&name) {
            group.in_hand -= 1;
        }
        self.next_in_group(&name);
    }

    /// Hands out what may go on.
    fn next_in_group(&mut self, name: &str) {
        while let Some(group) = self.groups.0.get_mut(name) {
            let part = group.held.front().map(|(_, _, part)| *part);
            let goes_on = part.is_some_and(|part| group.may_go_on(part, self.gathers));
            let Some((message, key, id)) = goes_on.then(|| group.held.pop_front()).flatten() else {
                return;
            };
            self.let_out(id);
            self.hand_out(id, message, key);
            self.wake_part(id);
        }
    }

    fn let_out(&mut self, id: u64) {
        if let Some(part) = self.parts.get_mut(&id) {
            part.held -= 1;
        }
    }

    /// The message was accepted after all not: it is in hand again, and will go back, as those behind
    /// it.
    pub(super) fn comes_back(&mut self, key: Key) {
        self.is_in_hand(key);
        self.goes_back(key);
    }

    /// It goes back, or is lost: so does what came behind it, the last one first, and nothing more of
    /// its group is handed out before that is done.
    pub(super) fn goes_back(&mut self, key: Key) {
        let Some(name) = self.group_of(key) else { return };
        let Some(group) = self.groups.0.get_mut(&name) else { return };
        if std::mem::replace(&mut group.goes_back, true) && !self.gathers {
            return;
        }
        self.recalls += 1;
        let held = std::mem::take(&mut group.held);
        let behind: Vec<_> =
            group.open.iter().rev().copied().take_while(|other| *other != key).collect();
        for (message, key, id) in held.into_iter().rev() {
            self.aside.messages.push(message);
            self.let_out(id);
            self.sends_back(key, Verdict::UNTOUCHED);
        }
        let mut waiting = Vec::new();
        for key in behind {
            match self.entries.get(key).map(|entry| (entry.phase, entry.part)) {
                Some((MessagePhase::Buffered, id)) => {
                    self.take_from_buffer(id, key);
                    self.sends_back(key, Verdict::UNTOUCHED);
                }
                Some((MessagePhase::Taken, _)) => waiting.push(key),
                _ => {}
            }
        }
        if !waiting.is_empty() {
            for part in waiting.iter().filter_map(|key| Some(self.entries.get(*key)?.part)) {
                self.aside.wakers.extend(self.parts.get_mut(&part).and_then(|it| it.waker.take()));
            }
            self.hurry(waiting);
        }
    }

    /// What a source has fetched and may not hand out goes back with it.
    pub(super) fn release_held(&mut self, id: u64) {
        if self.parts.get(&id).is_none_or(|part| part.held == 0) {
            return;
        }
        let is_held = |group: &&MessageGroup<_>| group.held.iter().any(|(_, _, part)| *part == id);
        let held = self.groups.0.values().filter(is_held);
        let last: Vec<_> = held.filter_map(|group| group.open.back().copied()).collect();
        for key in last {
            self.goes_back(key);
        }
    }

    /// Takes a message out that nobody has taken.
    pub(super) fn take_from_buffer(&mut self, id: u64, key: Key) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        if let Some(at) = part.buffer.iter().position(|(_, other)| *other == key) {
            let message = part.buffer.remove(at).map(|(message, _)| message);
            return self.aside.messages.extend(message);
        }
        let name = self.entries.get(key).and_then(|entry| entry.facts().group.as_ref());
        let Some(group) = name.and_then(|name| self.groups.0.get_mut(name)) else { return };
        if let Some(at) = group.held.iter().position(|(_, other, _)| *other == key) {
            part.held -= 1;
            self.aside.messages.extend(group.held.remove(at).map(|(message, ..)| message));
        }
    }

    /// Whether nothing of its group is to be begun.
    pub(super) fn group_goes_back(&self, key: Key) -> bool {
        self.group(key).is_some_and(|group| group.goes_back)
    }

    /// Whether it goes back, and has to wait for those behind it in its group.
    pub(super) fn waits_for_group(&self, key: Key) -> bool {
        let Some(entry) = self.entries.get(key).filter(|entry| entry.verdict.is_release()) else {
            return false;
        };
        let group = entry.facts().group.as_ref().and_then(|name| self.groups.0.get(name));
        group.is_some_and(|group| group.goes_back && group.open.back() != Some(&key))
    }

    /// A message of a group has its end. `worked_on`: somebody works on it, and has to undo that.
    pub(super) fn leaves_group(
        &mut self,
        name: &Arc<str>,
        key: Key,
        in_hand: bool,
        worked_on: bool,
    ) {
        let Some(group) = self.groups.0.get_mut(name) else { return };
        if let Some(at) = group.open.iter().position(|other| *other == key) {
            group.open.remove(at);
        }
        group.in_hand -= usize::from(in_hand);
        group.lost += usize::from(worked_on);
        self.goes_on_in_group(name);
    }

    /// What was lost of a group is undone.
    pub(super) fn is_undone_in_group(&mut self, name: &Arc<str>) {
        if let Some(group) = self.groups.0.get_mut(name) {
            group.lost -= 1;
        }
        self.goes_on_in_group(name);
    }

    /// One of a group is gone from the transport: what that has hidden may be fetched.
    pub(super) fn shows_the_next(&mut self, id: u64) {
        if self.parts.get(&id).is_some_and(|part| part.fetch.hidden) {
            self.ask_again(id);
        }
    }

    fn goes_on_in_group(&mut self, name: &Arc<str>) {
        let Some(group) = self.groups.0.get(name) else { return };
        if group.is_over() {
            self.groups.0.remove(name);
        } else if !group.goes_back {
            self.next_in_group(name);
        } else if let Some(last) = group.open.back().copied() {
            let entry = self.entries.get(last).filter(|entry| entry.phase == MessagePhase::Decided);
            if entry.is_some_and(|entry| entry.verdict.is_release()) {
                self.outbox.push_back(last);
                self.wake_driver();
            }
        }
    }
}
