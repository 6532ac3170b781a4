//! How receipts end: each in exactly one way.

use super::Transport;
use super::entries::{MessagePhase, OpenReceipt, Said};
use super::state::TransportState;
use crate::settlement::{Key, News, Settled};

/// How a receipt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As its verdict says.
    Settled,
    Lost,
    Unknown,
    Abandoned,
}

impl End {
    /// What an outcome is. One that was refused is tried again, and is unknown where nobody will.
    pub(super) fn of(outcome: &Settled) -> Self {
        match outcome {
            Settled::Confirmed | Settled::Sent => Self::Settled,
            Settled::Lost(_) => Self::Lost,
            Settled::Refused(_) | Settled::Unknown(_) => Self::Unknown,
        }
    }
}

impl<T: Transport> TransportState<T> {
    /// The end of a receipt.
    pub(super) fn conclude(&mut self, key: Key, end: End) {
        let is_gone = matches!(end, End::Lost | End::Abandoned);
        let open = |entry: &OpenReceipt<_>| entry.in_hand || entry.phase == MessagePhase::Buffered;
        if is_gone && self.entries.get(key).is_some_and(open) {
            self.goes_back(key);
        }
        let part_id = self.entries.get(key).map_or(0, |entry| entry.part);
        let Some(part) = self.parts.get_mut(&part_id) else { return };
        let Some(mut entry) = self.entries.remove(key, &mut part.open) else { return };
        let none_is_open = part.open.is_empty();
        let counts = &mut self.counts;
        let count = match (end, &entry.verdict) {
            (End::Lost, _) => &mut counts.lost,
            (End::Unknown, _) => &mut counts.unknown,
            (End::Abandoned, _) => &mut counts.abandoned,
            (End::Settled, Said::Accept) => &mut counts.accepted,
            (End::Settled, verdict) if verdict.is_release() => &mut counts.released,
            (End::Settled, _) => &mut counts.rejected,
        };
        *count += 1;
        self.given_back += u64::from(end == End::Settled && entry.verdict.is_release());
        if matches!(entry.phase, MessagePhase::Decided | MessagePhase::Sending) {
            self.makes_room();
        }
        if let Some(tag) = entry.tag {
            self.news.push_back(News::Concluded(tag));
            self.wake_driver();
        }
        // Where each is settled by itself, one that its handler settles has its own answer.
        let is_in_work = match entry.phase {
            MessagePhase::Taken => true,
            MessagePhase::ByHand => self.able.prefix,
            _ => false,
        };
        let worked_on = end == End::Lost && is_in_work;
        if let Some(id) = entry.facts().id.as_ref().filter(|_| !worked_on) {
            self.forget_name(key, id);
        }
        if let Some(group) = &entry.facts().group {
            self.leaves_group(group, key, entry.in_hand, worked_on);
            if !is_gone && !entry.verdict.is_release() {
                self.shows_the_next(part_id);
            }
        }
        if matches!(entry.phase, MessagePhase::Taken | MessagePhase::ByHand) {
            self.has_left(part_id);
        }
        if worked_on {
            let place = self.where_undone(part_id);
            self.lost_in_work.insert(key, place, entry.take_facts());
        }
        if std::mem::needs_drop::<T::Receipt>() {
            self.aside.receipts.extend(entry.receipt);
        }
        if none_is_open {
            self.end_part(part_id);
        }
    }
}
