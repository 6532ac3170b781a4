//! Sources whose turns go round, in the order in which they became ready.
//!
//! A turn is at most a quantum of messages, times the weight of the source; while a more urgent
//! source is known to be ready it is one message.

use std::task::{Context, Poll};

use super::ready::ReadyQueue;
use super::sources::{POLLS_AT_ONCE, Sources, Taken};
use crate::source::{Source, Unsettled, Urgency};

const DEFAULT_QUANTUM: usize = 64;

pub(in super::super) struct Turns<S> {
    pub(super) sources: Sources<S>,
    ready: ReadyQueue,
    urgency: Urgency,
    quantum: usize,
    /// Whose turn it is, and how many messages are left of it.
    turn: Option<usize>,
    left: usize,
    /// Polls before the executor has its thread back.
    polls: usize,
}

impl<S: Source<Receipt = Unsettled>> Turns<S> {
    pub(super) fn new(mut sources: Sources<S>, quantum: Option<usize>) -> Self {
        let mut urgency = Urgency::default();
        for index in 0..sources.len() {
            urgency.enter(sources.share(index).priority);
        }
        Self {
            ready: ReadyQueue::new(sources.len()),
            sources,
            urgency,
            quantum: quantum.unwrap_or(DEFAULT_QUANTUM),
            turn: None,
            left: 0,
            polls: POLLS_AT_ONCE,
        }
    }

    #[inline]
    pub(super) fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Taken<S::Message>>> {
        loop {
            if self.polls == 0 {
                self.polls = POLLS_AT_ONCE;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let index = match self.turn.or_else(|| self.ready.pop()) {
                Some(index) => index,
                None if self.sources.open() == 0 => return Poll::Ready(None),
                None if self.ready.wait(cx.waker()) => {
                    self.polls = POLLS_AT_ONCE;
                    return Poll::Pending;
                }
                None => continue,
            };
            if self.turn.is_none() {
                self.turn = Some(index);
                self.left = self.length(index);
            }
            self.polls -= 1;
            let polled = self.sources.poll(index, self.ready.waker(index), &mut self.polls);
            let share = self.sources.share(index);
            let ready = matches!(polled, Poll::Ready(Some(_)));
            self.urgency.set_ready(share.priority, &mut share.ready, ready);
            match polled {
                Poll::Ready(Some(item)) => {
                    self.left -= 1;
                    if self.left == 0 {
                        self.turn = None;
                        self.ready.requeue(index);
                    }
                    return Poll::Ready(Some((index, item)));
                }
                Poll::Ready(None) => {
                    self.urgency.leave(share.priority, &mut share.ready);
                    self.turn = None;
                }
                Poll::Pending => self.turn = None,
            }
        }
    }

    /// How many messages a turn that begins may have.
    #[inline]
    fn length(&mut self, index: usize) -> usize {
        let share = self.sources.share(index);
        if self.urgency.is_outranked(share.priority) {
            1
        } else {
            self.quantum.saturating_mul(share.weight)
        }
    }

    #[inline]
    pub(super) fn begins_turn(&self) -> bool {
        self.turn.is_none()
    }
}
