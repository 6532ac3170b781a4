//! What a scripted queue answers.

use std::collections::VecDeque;
use std::time::Duration;

use crate::chance::Chance;

/// How a [`ScriptedQueue`](super::ScriptedQueue) answers one verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleAnswer {
    /// As the queue does: applied and confirmed, or lost where the receipt is an old one.
    Usual,
    /// Applied, and only said to be sent.
    Sent,
    /// Not applied.
    Refused,
    /// Not applied: the lease is over, and the message comes again.
    Lost,
    /// Applied, and nobody knows.
    UnknownApplied,
    /// Not applied, and nobody knows.
    Unknown,
    /// Applied, and there is no answer for it or for those behind it, which are not applied.
    Missing,
    /// The call is never answered. This one and those behind it are not applied.
    Never,
    /// As usual, and the call takes so much longer.
    Late(Duration),
}

/// How a [`ScriptedQueue`](super::ScriptedQueue) answers one renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalAnswer {
    /// As the queue does: renewed, or lost where the receipt is an old one.
    Usual,
    /// Not renewed this time.
    Failed,
    /// The lease is over, and the message comes again.
    Lost,
    /// Not renewed, and never again.
    AtMaximum,
    /// Renewed, and there is no answer for it or for those behind it, which are not renewed.
    Missing,
    /// The call is never answered, and renews nothing.
    Never,
    /// As usual, and the call takes so much longer.
    Late(Duration),
}

/// How a [`ScriptedQueue`](super::ScriptedQueue) answers a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchAnswer {
    /// As the queue does: messages when there are some, or none when the wait is over.
    Usual,
    /// Trouble that passes.
    Passes,
    /// Trouble that does not.
    Lasts,
    /// No message, at once.
    Nothing,
    /// It is never answered, and does not hear that it should return.
    Never,
    /// The messages are taken, and the answer comes so much later.
    Late(Duration),
}

/// The scripts of one queue.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) settles: VecDeque<SettleAnswer>,
    pub(super) renews: VecDeque<RenewalAnswer>,
    pub(super) fetches: VecDeque<FetchAnswer>,
    seeded: Option<(Chance, u64)>,
}

impl Answers {
    pub(super) fn seed(&mut self, seed: u64, percent: u64) {
        self.seeded = Some((Chance::new(seed), percent));
    }

    /// The number of an unusual answer, and how late it is if that is what it is.
    fn unusual(&self, kinds: u64) -> Option<(u64, Duration)> {
        let (chance, percent) = self.seeded.as_ref()?;
        if chance.below(100) >= *percent {
            return None;
        }
        Some((chance.below(kinds), Duration::from_millis(1 + chance.below(40_000))))
    }

    pub(super) fn settle(&mut self) -> SettleAnswer {
        if let Some(answer) = self.settles.pop_front() {
            return answer;
        }
        match self.unusual(8) {
            None => SettleAnswer::Usual,
            Some((0, _)) => SettleAnswer::Sent,
            Some((1, _)) => SettleAnswer::Refused,
            Some((2, _)) => SettleAnswer::Lost,
            Some((3, _)) => SettleAnswer::UnknownApplied,
            Some((4, _)) => SettleAnswer::Unknown,
            Some((5, _)) => SettleAnswer::Missing,
            Some((6, _)) => SettleAnswer::Never,
            Some((_, late)) => SettleAnswer::Late(late),
        }
    }

    pub(super) fn renew(&mut self) -> RenewalAnswer {
        if let Some(answer) = self.renews.pop_front() {
            return answer;
        }
        match self.unusual(6) {
            None => RenewalAnswer::Usual,
            Some((0, _)) => RenewalAnswer::Failed,
            Some((1, _)) => RenewalAnswer::Lost,
            Some((2, _)) => RenewalAnswer::AtMaximum,
            Some((3, _)) => RenewalAnswer::Missing,
            Some((4, _)) => RenewalAnswer::Never,
            Some((_, late)) => RenewalAnswer::Late(late),
        }
    }

    pub(super) fn fetch(&mut self) -> FetchAnswer {
        if let Some(answer) = self.fetches.pop_front() {
            return answer;
        }
        match self.unusual(4) {
            None => FetchAnswer::Usual,
            Some((0, _)) => FetchAnswer::Passes,
            Some((1, _)) => FetchAnswer::Nothing,
            Some((2, _)) => FetchAnswer::Never,
            Some((_, late)) => FetchAnswer::Late(late),
        }
    }
}
