//! What is varied from drain to drain.

use std::time::Duration;

use watershed::Commit;

/// The order of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    #[default]
    InOrder,
    Unordered,
    ByKey,
    Across,
}

/// The options that change the type of a drain: one of eight, in which every two of them meet with
/// all their values.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) order: Order,
    pub(crate) letters: bool,
    pub(crate) put_back: bool,
    pub(crate) undos: bool,
    pub(crate) incoming: bool,
}

impl Shape {
    pub(crate) fn all() -> [Self; 8] {
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
pub(crate) struct Case {
    pub(crate) shape: Shape,
    pub(crate) concurrency: Option<usize>,
    pub(crate) per_source: Option<usize>,
    pub(crate) quantum: Option<usize>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) message_timeout: Option<Duration>,
    pub(crate) grace: Option<Duration>,
    pub(crate) finish_within: Option<Duration>,
    pub(crate) commit: Commit,
    pub(crate) retry: Option<(u32, Duration)>,
    pub(crate) max_waiting: Option<usize>,
    pub(crate) continues: bool,
    pub(crate) letter_timeout: Option<Duration>,
    pub(crate) compensation: bool,
    pub(crate) until_idle: bool,
    pub(crate) rate: Option<(usize, Duration)>,
    pub(crate) progress: bool,
    // The sources.
    pub(crate) weights: bool,
    pub(crate) priorities: bool,
    pub(crate) names: bool,
    pub(crate) source_rate: Option<(usize, Duration)>,
    pub(crate) windows: bool,
    // At which call of the handler.
    pub(crate) cancelled_at: Option<usize>,
    pub(crate) shut_down_at: Option<usize>,
    pub(crate) pauses_at: Option<usize>,
    pub(crate) removes_at: Option<usize>,
    // What handlers do with some of the messages.
    pub(crate) yields: bool,
    pub(crate) fails: bool,
    pub(crate) panics: bool,
    pub(crate) sleeps: bool,
    pub(crate) hangs: bool,
    pub(crate) comes_later: bool,
    pub(crate) undo_fails: bool,
    pub(crate) reserves: bool,
    pub(crate) nests: bool,
    pub(crate) letters_hang: bool,
    /// What else happens between two polls.
    pub(crate) steered: Option<u64>,
}

impl Case {
    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency.unwrap_or(1)
    }

    /// How many handlers of one source may run at once.
    pub(crate) fn per_source(&self) -> usize {
        match self.shape.order {
            Order::InOrder => 1,
            _ => self.per_source.unwrap_or(usize::MAX).min(self.concurrency()),
        }
    }

    /// Whether nothing in it ends the drain before its sources have ended.
    pub(crate) fn must_succeed(&self) -> bool {
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
