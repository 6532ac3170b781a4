//! What is varied from drain to drain.

use std::time::Duration;

use watershed::Commit;

/// The order of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    InOrder,
    Unordered,
    ByKey,
    Across,
}

/// The options that change the type of a drain: one of eight, in which every two of them meet with
/// all their values.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shape {
    pub(super) order: Order,
    pub(super) letters: bool,
    pub(super) put_back: bool,
    pub(super) undos: bool,
    pub(super) incoming: bool,
}

impl Shape {
    pub(super) fn all() -> [Self; 8] {
        std::array::from_fn(|number| {
            let (order, letters) = (number / 2, number % 2 == 1);
            let (high, low) = (order / 2 == 1, order % 2 == 1);
            Self {
                order: [Order::InOrder, Order::Unordered, Order::ByKey, Order::Across][order],
                letters,
                put_back: letters ^ low,
                undos: letters ^ high,
                incoming: letters ^ low ^ high,
            }
        })
    }
}

/// A drain, and what its handlers do.
#[derive(Clone, Debug, Default)]
pub(super) struct Case {
    pub(super) shape: Shape,
    pub(super) concurrency: Option<usize>,
    pub(super) per_source: Option<usize>,
    pub(super) quantum: Option<usize>,
    pub(super) timeout: Option<Duration>,
    pub(super) message_timeout: Option<Duration>,
    pub(super) grace: Option<Duration>,
    pub(super) finish_within: Option<Duration>,
    pub(super) commit: Commit,
    pub(super) retry: Option<(u32, Duration)>,
    pub(super) max_waiting: Option<usize>,
    pub(super) continues: bool,
    pub(super) letter_timeout: Option<Duration>,
    pub(super) compensation: bool,
    pub(super) until_idle: bool,
    pub(super) rate: Option<(usize, Duration)>,
    pub(super) progress: bool,
    // The sources.
    pub(super) weights: bool,
    pub(super) priorities: bool,
    pub(super) names: bool,
    pub(super) source_rate: Option<(usize, Duration)>,
    pub(super) windows: bool,
    // At which call of the handler.
    pub(super) cancelled_at: Option<usize>,
    pub(super) shut_down_at: Option<usize>,
    pub(super) pauses_at: Option<usize>,
    pub(super) removes_at: Option<usize>,
    // What handlers do with some of the messages.
    pub(super) yields: bool,
    pub(super) fails: bool,
    pub(super) panics: bool,
    pub(super) sleeps: bool,
    pub(super) hangs: bool,
    pub(super) comes_later: bool,
    pub(super) undo_fails: bool,
    pub(super) letters_hang: bool,
    /// What else happens between two polls.
    pub(super) steered: Option<u64>,
}

impl Case {
    pub(super) fn concurrency(&self) -> usize {
        self.concurrency.unwrap_or(1)
    }

    /// How many handlers of one source may run at once.
    pub(super) fn per_source(&self) -> usize {
        match self.shape.order {
            Order::InOrder => 1,
            _ => self.per_source.unwrap_or(usize::MAX).min(self.concurrency()),
        }
    }

    /// Whether nothing in it ends the drain before its sources have ended.
    pub(super) fn must_succeed(&self) -> bool {
        let fails = self.fails || self.panics || self.hangs || self.undo_fails;
        let goes_on =
            self.shape.letters && !self.letters_hang || !self.shape.letters && self.continues;
        self.cancelled_at.is_none()
            && self.timeout.is_none_or(|timeout| timeout > Duration::from_secs(100_000))
            && (!fails || goes_on)
            && (self.message_timeout.is_none() || goes_on)
            && (!self.comes_later || self.retry.is_some() || goes_on)
            && !(self.shut_down_at.is_some() && self.finish_within.is_some())
            && self.steered.is_none()
    }
}
