//! The messages of a scripted queue.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Tick;
use crate::settlement::Verdict;

/// What a message of a [`ScriptedQueue`](super::ScriptedQueue) is settled by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct QueueReceipt {
    /// The number of the message.
    pub number: u64,
    /// Which delivery of it this is.
    pub token: u64,
}

/// A message that was taken.
pub(super) struct Out<M> {
    pub(super) message: M,
    pub(super) receipt: QueueReceipt,
    pub(super) deliveries: u32,
    pub(super) group: Option<Arc<str>>,
}

type GroupOf<M> = Box<dyn Fn(&M) -> Arc<str> + Send>;

struct QueueRow<M> {
    number: u64,
    message: M,
    group: Option<Arc<str>>,
    /// It can be fetched from this moment on.
    visible: Tick,
    token: u64,
    deliveries: u32,
}

pub(super) struct Rows<M> {
    /// In the order in which they came: what is done soonest is in front.
    all: VecDeque<QueueRow<M>>,
    next: u64,
    group_of: Option<GroupOf<M>>,
    pub(super) term: Duration,
    pub(super) redrives_after: Option<u32>,
    pub(super) accepted: Vec<QueueReceipt>,
    pub(super) rejected: Vec<u64>,
    pub(super) redriven: Vec<u64>,
}

impl<M> Rows<M> {
    pub(super) fn new() -> Self {
        Self {
            all: VecDeque::new(),
            next: 0,
            group_of: None,
            term: Duration::from_secs(30),
            redrives_after: None,
            accepted: Vec::new(),
            rejected: Vec::new(),
            redriven: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, message: M) -> u64 {
        let number = self.next;
        self.next += 1;
        let group = self.group_of.as_ref().map(|group| group(&message));
        self.all.push_back(QueueRow {
            number,
            message,
            group,
            visible: Tick::ZERO,
            token: 0,
            deliveries: 0,
        });
        number
    }

    pub(super) fn group_by(&mut self, group: GroupOf<M>) {
        for row in &mut self.all {
            row.group = Some(group(&row.message));
        }
        self.group_of = Some(group);
    }

    pub(super) fn is_grouped(&self) -> bool {
        self.group_of.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn left(&self) -> Vec<u64> {
        self.all.iter().map(|row| row.number).collect()
    }

    pub(super) fn out(&self, now: Tick) -> Vec<u64> {
        self.all.iter().filter(|row| row.visible > now).map(|row| row.number).collect()
    }

    pub(super) fn deliveries(&self, number: u64) -> u32 {
        self.all.iter().find(|row| row.number == number).map_or(0, |row| row.deliveries)
    }

    /// Takes up to so many that can be fetched: none of a group of which one is out.
    pub(super) fn take(&mut self, at_most: usize, now: Tick) -> Vec<Out<M>>
    where
        M: Clone,
    {
        if let Some(most) = self.redrives_after {
            let is_old = |row: &QueueRow<M>| row.visible <= now && row.deliveries >= most;
            self.redriven.extend(self.all.iter().filter(|row| is_old(row)).map(|row| row.number));
            self.all.retain(|row| !is_old(row));
        }
        let term = self.term;
        // Where there are no groups, a long queue is not looked through for them.
        let blocked: HashSet<_> = if self.is_grouped() {
            let out = self.all.iter().filter(|row| row.visible > now);
            out.filter_map(|row| row.group.clone()).collect()
        } else {
            HashSet::new()
        };
        let may_come = |row: &&mut QueueRow<M>| {
            row.visible <= now && row.group.as_ref().is_none_or(|group| !blocked.contains(group))
        };
        let visible = self.all.iter_mut().filter(may_come).take(at_most);
        let take = |row: &mut QueueRow<M>| {
            row.visible = now + term;
            row.token += 1;
            row.deliveries += 1;
            let receipt = QueueReceipt { number: row.number, token: row.token };
            Out {
                message: row.message.clone(),
                receipt,
                deliveries: row.deliveries,
                group: row.group.clone(),
            }
        };
        visible.map(take).collect()
    }

    /// When the next one can be fetched that is out.
    pub(super) fn next_visible(&self, now: Tick) -> Option<Tick> {
        let is_out = |row: &&QueueRow<M>| !self.is_grouped() || row.visible > now;
        self.all.iter().filter(is_out).map(|row| row.visible).min()
    }

    /// It can be fetched at once, and its receipt is an old one.
    pub(super) fn expire(&mut self, number: u64) {
        if let Some(row) = self.all.iter_mut().find(|row| row.number == number) {
            row.visible = Tick::ZERO;
        }
    }

    /// The place of a message, where its receipt is good.
    fn find(&self, receipt: QueueReceipt, fences: bool, now: Tick) -> Option<usize> {
        let is_good =
            |row: &QueueRow<M>| !fences || row.token == receipt.token && row.visible > now;
        self.all.iter().position(|row| row.number == receipt.number && is_good(row))
    }

    /// Applies a verdict; `false` where the receipt is an old one.
    pub(super) fn settle(
        &mut self,
        receipt: QueueReceipt,
        verdict: &Verdict,
        fences: bool,
        now: Tick,
    ) -> bool {
        let Some(at) = self.find(receipt, fences, now) else {
            if fences {
                return false;
            }
            if let Verdict::Accept = verdict {
                self.accepted.push(receipt);
            }
            return true;
        };
        match verdict {
            Verdict::Accept => {
                self.accepted.push(receipt);
                drop(self.all.remove(at));
            }
            Verdict::Reject { .. } => {
                self.rejected.push(receipt.number);
                drop(self.all.remove(at));
            }
            Verdict::Release { after, begun } => {
                let row = &mut self.all[at];
                row.visible = now + after.unwrap_or_default();
                row.token += 1;
                row.deliveries -= u32::from(!begun && row.deliveries > 0);
            }
        }
        true
    }

    /// Renews a lease; `false` where the receipt is an old one.
    pub(super) fn renew(&mut self, receipt: QueueReceipt, now: Tick) -> bool {
        let Some(at) = self.find(receipt, true, now) else { return false };
        self.all[at].visible = now + self.term;
        true
    }
}
