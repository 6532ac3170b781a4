//! One source of a transport: what it has fetched, and what it waits for.

use std::collections::VecDeque;
use std::task::Waker;

use super::entries::Members;
use super::events::Revocation;
use super::prefix::Prefix;
use crate::cancellation::CancellationSource;
use crate::clock::Tick;
use crate::settlement::{Assignment, Key};

#[allow(clippy::struct_excessive_bools, reason = "each says one thing")]
pub(super) struct Part<M> {
    pub(super) assignment: Assignment,
    pub(super) buffer: VecDeque<(M, Key)>,
    /// What it has fetched that waits for its group.
    pub(super) held: usize,
    /// Where an accept covers what was taken before.
    pub(super) prefix: Option<Prefix>,
    /// Messages that were taken so far.
    pub(super) taken: u64,
    /// Receipts that are open, buffered ones included.
    pub(super) open: Members,
    /// It waits for a verdict to have its outcome, because too many have none: its ticket.
    pub(super) waits_for_room: Option<u64>,
    /// When it came before its turn in that line.
    pub(super) let_others_go: Option<u64>,
    /// Who asks for messages.
    pub(super) waker: Option<Waker>,
    /// Nothing more is fetched. The source ends when what is buffered is taken.
    pub(super) ended: bool,
    /// Sources of it that somebody has, and the one of them that a drain has: an earlier one may be kept, and
    /// dropped late.
    pub(super) sources: usize,
    pub(super) drained: Option<u64>,
    /// Its last source was dropped.
    pub(super) left: bool,
    /// It is not ours any more.
    pub(super) lost: bool,
    /// It brings no messages, and stands for the transport.
    pub(super) keeper: bool,
    pub(super) fetch: Fetch,
    /// Handlers that have failed one after another.
    pub(super) failures: u32,
    /// Nothing is taken before this moment.
    pub(super) slow_until: Option<Tick>,
    /// One of its messages is handled with nothing else of it in work, or waits for that.
    pub(super) alone: bool,
    /// Nothing of it is to be started for now.
    pub(super) paused: bool,
    pub(super) revoking: Option<Revoking>,
}

/// How far a source is with fetching.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "each says one thing")]
pub(super) struct Fetch {
    /// Somebody wants messages.
    pub(super) wanted: bool,
    /// It waits in line to fetch.
    pub(super) in_line: bool,
    /// Stops the fetch that is with the transport.
    pub(super) stop: Option<CancellationSource>,
    /// Not before.
    pub(super) not_before: Option<Tick>,
    /// How often it has failed in a row, and since when.
    pub(super) failed: u32,
    pub(super) failing_since: Option<Tick>,
    /// How much had been given back when the one that is on its way was sent.
    pub(super) sent_behind: u64,
    /// The last one brought nothing, and there was nothing to be brought: so much had been given back
    /// before it.
    pub(super) dry: Option<u64>,
    /// When it was sent, messages were open that hide those behind them in their groups.
    pub(super) hidden: bool,
    /// What is on its way now is not to be handled.
    pub(super) stale: bool,
    /// There may be messages that the one on its way was too early for.
    pub(super) hinted: bool,
}

/// A partition that is to be given up.
#[derive(Default)]
pub(super) struct Revoking {
    /// Whoever asks, and may ask again.
    pub(super) questions: Vec<Revocation>,
    pub(super) deadline: Option<Tick>,
}

impl<M> Part<M> {
    pub(super) fn new(assignment: Assignment, in_prefix_order: bool) -> Self {
        Self {
            assignment,
            buffer: VecDeque::new(),
            held: 0,
            prefix: in_prefix_order.then(Prefix::default),
            taken: 0,
            open: Members::default(),
            waits_for_room: None,
            let_others_go: None,
            waker: None,
            ended: false,
            sources: 0,
            drained: None,
            left: false,
            lost: false,
            keeper: false,
            fetch: Fetch::default(),
            failures: 0,
            slow_until: None,
            alone: false,
            paused: false,
            revoking: None,
        }
    }

    /// A drain begins to take from it.
    pub(super) fn begin(&mut self) {
        self.failures = 0;
        if !self.left {
            (self.ended, self.alone, self.slow_until) = (false, false, None);
            self.fetch.dry = None;
        }
    }

    /// Whether a message may be taken, with at most so many behind one that is not done.
    pub(super) fn may_take(&self, max_ahead: usize) -> bool {
        let in_order = self
            .prefix
            .as_ref()
            .is_none_or(|prefix| prefix.may_go_on() && prefix.len() <= max_ahead);
        in_order && self.slow_until.is_none() && self.revoking.is_none()
    }

    /// Whether messages may be fetched.
    pub(super) fn may_fetch(&self) -> bool {
        let goes_on = self.prefix.as_ref().is_none_or(Prefix::may_go_on);
        goes_on
            && self.fetch.stop.is_none()
            && !self.ended
            && !self.left
            && !self.keeper
            && !self.paused
            && self.revoking.is_none()
    }

    /// Nothing more is fetched, and what is on its way is not handled.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.stop_fetch();
    }

    pub(super) fn stop_fetch(&mut self) {
        if let Some(stop) = &self.fetch.stop {
            self.fetch.stale = true;
            stop.cancel();
        }
    }
}
