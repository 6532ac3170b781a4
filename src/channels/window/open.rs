//! The window that is open: its messages, their receipts, and when it is to be closed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::clock::{Alarm, Clock};
use crate::error::Error;
use crate::panics;
use crate::settlement::{Delivered, Desk, Given, Verdict};
use crate::source::{Body, Delivery, Receipt};

pub(super) struct Open<M, R> {
    clock: Arc<dyn Clock>,
    pub(super) count: Option<usize>,
    pub(super) every: Option<Duration>,
    messages: VecDeque<M>,
    receipts: VecDeque<R>,
    /// When it is old enough. Set with the first message, or at the next look if the clock did not
    /// tell the time then.
    alarm: Option<Alarm>,
    /// It is to be closed as it is.
    at_once: bool,
    /// How many recalls of its transport are known here.
    recalls: u64,
}

impl<M, R: Receipt> Open<M, R> {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            count: None,
            every: None,
            messages: VecDeque::new(),
            receipts: VecDeque::new(),
            alarm: None,
            at_once: false,
            recalls: 0,
        }
    }

    /// Why the window cannot be closed as it was asked to be.
    pub(super) fn check(&self) -> Result<(), Error> {
        match (self.count, self.every) {
            (None, None) => Err(Error::validation("a window needs a count or an interval")),
            (Some(0), _) => Err(Error::validation("the count of a window must not be zero")),
            (_, Some(Duration::ZERO)) => {
                Err(Error::validation("the interval of a window must not be zero"))
            }
            (_, None | Some(Duration::MAX)) => Ok(()),
            (_, Some(_)) => panics::contain(|| self.clock.check())
                .unwrap_or_else(|text| Err(Error::panic("the clock", &text))),
        }
    }

    /// Why it may never be full: its messages are not settled before it is.
    pub(super) fn check_size(&self, desks: &[Arc<dyn Desk>]) -> Result<(), Error> {
        let largest = desks.iter().map(|desk| desk.largest_window()).min();
        match (self.count, largest, self.every) {
            (Some(count), Some(largest), None | Some(Duration::MAX)) if count > largest => {
                let text = "a window of more messages than its transport fetches, or may be \
                            unsettled, needs an interval";
                Err(Error::validation(text))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.count.is_some_and(|count| self.messages.len() >= count)
    }

    /// Whether it is full, once what is lost has left it.
    pub(super) fn is_full_of_ours(&mut self) -> bool {
        self.is_full() && {
            self.forget_lost();
            self.is_full()
        }
    }

    /// What is lost, or is to go back, leaves the window at once: it comes again behind that, and what is
    /// in front of it in its group waits for it.
    pub(super) fn forget_recalled(&mut self) {
        let first = self.receipts.front().and_then(Receipt::delivered);
        let recalls = first.map_or(self.recalls, Delivered::recalls);
        if std::mem::replace(&mut self.recalls, recalls) != recalls {
            self.forget_lost();
        }
    }

    /// What is no longer ours, or is to go back, leaves the window: nobody has begun it.
    fn forget_lost(&mut self) {
        if !R::SETTLES {
            return;
        }
        for at in (0..self.messages.len()).rev() {
            if self.receipts[at].delivered().is_some_and(|delivered| !delivered.may_begin()) {
                panics::drop_each(self.messages.remove(at));
                if let Some(receipt) = self.receipts.remove(at) {
                    receipt.into_ticket().give(&Verdict::UNTOUCHED, Given::default());
                }
            }
        }
    }

    pub(super) fn push(&mut self, message: M, receipt: R) {
        self.make_room();
        // Before the clock is asked, which may panic.
        self.messages.push_back(message);
        self.receipts.push_back(receipt);
        if self.messages.len() == 1 {
            self.alarm();
        }
    }

    /// Room grows with what is in it, and is not larger than a full window.
    fn make_room(&mut self) {
        const SMALL: usize = 1 << 10;
        let len = self.messages.len();
        if len < self.messages.capacity() {
            return;
        }
        let room = match len {
            0 if size_of::<M>() <= SMALL => 4,
            0 => 1,
            len => len.saturating_mul(2),
        };
        let room = room.min(self.count.unwrap_or(usize::MAX)).max(len.saturating_add(1));
        self.messages.reserve_exact(room - len);
    }

    /// The alarm of the window that is open, if it closes by time.
    fn alarm(&mut self) -> Option<&mut Alarm> {
        let Self { clock, every, alarm, .. } = self;
        let every = (*every)?;
        Some(match alarm {
            Some(alarm) => alarm,
            None => alarm.insert(Alarm::at(clock, clock.now() + every)),
        })
    }

    /// Whether the window is to be closed.
    pub(super) fn is_due(&mut self) -> bool {
        !self.messages.is_empty()
            && (self.at_once || self.is_full() || self.alarm().is_some_and(|alarm| alarm.is_due()))
    }

    /// Waits until the window is old enough.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.messages.is_empty() {
            return Poll::Pending;
        }
        self.alarm().map_or(Poll::Pending, |alarm| alarm.poll(cx))
    }

    /// Has the window closed at the next look, however little is in it.
    pub(super) fn close_at_once(&mut self) -> bool {
        self.at_once = !self.messages.is_empty();
        self.at_once
    }

    fn forget_times(&mut self) {
        self.alarm = None;
        self.at_once = false;
    }

    /// The window as one message, with a receipt for all of it. The next one is empty.
    pub(super) fn close(&mut self) -> Option<Delivery<Vec<M>, R>> {
        self.forget_times();
        self.forget_lost();
        let mut messages = Vec::from(std::mem::take(&mut self.messages));
        if messages.is_empty() {
            return None;
        }
        if messages.capacity() - messages.len() > messages.len() / 4 {
            messages.shrink_to_fit();
        }
        let mut receipt = R::default();
        self.receipts.drain(..).for_each(|one| receipt.join(one));
        Some(Delivery::message(messages, receipt))
    }

    /// The messages alone.
    pub(super) fn take(&mut self) -> Vec<M> {
        match self.close() {
            Some(Delivery { body: Body::Message(messages), .. }) => messages,
            _ => Vec::new(),
        }
    }

    /// The oldest message, by itself.
    pub(super) fn pop(&mut self) -> Option<Delivery<Vec<M>, R>> {
        let message = self.messages.pop_front()?;
        if self.messages.is_empty() {
            self.forget_times();
        }
        let receipt = self.receipts.pop_front().unwrap_or_default();
        Some(Delivery::message(vec![message], receipt))
    }
}

/// What was taken is dropped one by one.
impl<M, R> Drop for Open<M, R> {
    fn drop(&mut self) {
        panics::drop_each(self.messages.drain(..));
    }
}
