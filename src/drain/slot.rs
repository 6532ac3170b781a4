//! The room in which one handler runs, and the life of its message.
//!
//! A message begins with the call of its handler. When that has failed, what it did is undone
//! (`after`), and the message has another attempt, goes to the dead letters, or ends the drain. A
//! slot is used again for the next message, in place.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::after::After;
use super::lane::WaitingMessage;
use super::settings::Commit;
use super::state::{Info, Shared, State};
use super::types::{DrainTypes, Drains};
use crate::cancellation::CancellationSource;
use crate::clock::Tick;
use crate::diagnostics::COUNTERS;
use crate::diagnostics::trace::MessageSpan;
use crate::error::Error;
use crate::outcome::HandlerOutput;
use crate::panics;
use crate::source::{Raw, Receipt};
use crate::step::LentStep;

pin_project! {
    pub(super) struct Slot<C: DrainTypes> {
        // Gone as soon as it has ended.
        #[pin]
        pub(super) handler: Option<C::Future>,
        // What is lent to one handler after another; none once somebody kept it.
        pub(super) step: Option<LentStep>,
        pub(super) job: Option<Job<C>>,
        // The message has failed, and this is what becomes of it.
        pub(super) after: Option<Box<After<C>>>,
        // When the attempt, or the dead letter, has to be done.
        pub(super) deadline: Tick,
        // Whether the message is booked as being in flight.
        pub(super) booked: bool,
        // What tells this attempt alone to stop.
        pub(super) stop: Option<CancellationSource>,
        // What a message was that could not be decoded.
        pub(super) raw: Option<Raw>,
        pub(super) span: MessageSpan,
    }
}

pub(super) type SlotBox<C> = Pin<Box<Slot<C>>>;

/// What a slot works with while its lane has its turn.
pub(super) struct Work<'a, 'w, C: DrainTypes> {
    /// The lane's.
    pub(super) info: &'a mut Info,
    pub(super) state: &'a mut State<C>,
    pub(super) shared: &'a Shared<C>,
    /// Wakes the slot.
    pub(super) cx: &'a mut Context<'w>,
}

/// A message between two attempts, and while it has one.
pub(super) struct Job<C: DrainTypes> {
    /// Kept for another attempt or a dead letter, where there can be any.
    pub(super) message: Option<C::Message>,
    pub(super) number: u64,
    /// Attempts that have begun, and those of them that have failed.
    pub(super) begun: u32,
    pub(super) failed: u32,
    /// It is booked as being in flight: it comes from somewhere else.
    pub(super) booked: bool,
    /// What it is settled by.
    pub(super) receipt: C::Receipt,
}

impl<C: Drains> Job<C> {
    pub(super) fn new(number: u64) -> Self {
        Self {
            message: None,
            number,
            begun: 0,
            failed: 0,
            booked: false,
            receipt: C::Receipt::default(),
        }
    }
}

/// What became of the message of a slot.
pub(super) enum SlotEnded<C: DrainTypes> {
    /// It was handled without ever waiting, and is not booked.
    Handled,
    /// It is booked: handled, failed, or handed back.
    Booked,
    /// It has another attempt, and does not need the slot until then.
    Waits(Box<WaitingMessage<C>>),
}

impl<C: Drains> Slot<C> {
    pub(super) fn new() -> SlotBox<C> {
        Box::pin(Self {
            handler: None,
            step: None,
            job: None,
            after: None,
            deadline: Tick::MAX,
            booked: false,
            stop: None,
            raw: None,
            span: MessageSpan::none(),
        })
    }

    /// Whether a message is in it.
    #[inline]
    pub(super) fn is_busy(&self) -> bool {
        self.job.is_some()
    }

    /// When it has to be polled, whether it is woken or not.
    #[inline]
    pub(super) fn alarm(&self) -> Tick {
        self.deadline
    }

    /// Calls the handler with a message, and polls it.
    #[inline]
    pub(super) fn begin(
        mut self: Pin<&mut Self>,
        mut job: Job<C>,
        message: C::Message,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        // An answer of later costs no attempt.
        let (number, attempt, again) = (job.number, job.failed + 1, job.failed > 0);
        let booked = std::mem::take(&mut job.booked);
        job.begun += 1;
        // Put in first, and the message kept in there: a job that waits for that is built in memory.
        let this = self.as_mut().project();
        *this.job = Some(job);
        if let Some(clone) = work.shared.clone {
            if let Err(error) = keep(this.job, clone, &message) {
                panics::drop_each([message]);
                let Some(job) = this.job.take() else { return Poll::Pending };
                let job = Job { begun: job.begun - 1, booked, ..job };
                return self.refuse(job, error, None, work);
            }
        }
        if C::Receipt::SETTLES && booked {
            if let Some(ended) = self.as_mut().waited_in_vain(work) {
                panics::drop_each([message]);
                return ended;
            }
        }
        let this = self.as_mut().project();
        if again {
            COUNTERS.messages_retried.add(1);
        }
        *this.booked = booked;
        if booked {
            work.state.accounts.change(work.info.row, |n| n.attempts += 1);
        }
        if work.state.accounts.is_watched() {
            book(this.booked, work.info, work.state);
        }
        let lent = match this.step {
            Some(lent) => lent,
            None => this.step.insert(new_step(work.state, work.shared)),
        };
        let timeout = work.shared.settings.message_timeout;
        // One for each attempt that may be late; where messages are lost, until one is.
        if timeout.is_some() || C::Receipt::SETTLES && this.stop.is_none() {
            let stop = CancellationSource::new();
            lent.set_token(work.shared.token.and(&stop));
            *this.stop = Some(stop);
        }
        if let Some(timeout) = timeout {
            *this.deadline = work.shared.now() + timeout;
        }
        if C::Receipt::SETTLES {
            match this.job.as_mut().and_then(|job| job.receipt.delivered_mut()) {
                Some(delivered) => delivered.begin(lent),
                None => lent.set_delivery(None),
            }
        }
        let step = lent.begin(&work.info.origin, number, attempt);
        lent.arm();
        *this.span = MessageSpan::new(&work.info.origin.name, number);
        let handler = &mut work.state.handler;
        let future = this.span.in_scope(|| handler(message, step));
        let mut this = self.as_mut().project();
        this.handler.set(Some(future));
        self.poll_armed(work)
    }

    /// Takes in a message that has failed before a handler could be called.
    #[cold]
    pub(super) fn refuse(
        mut self: Pin<&mut Self>,
        job: Job<C>,
        error: Error,
        raw: Option<Raw>,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        let this = self.as_mut().project();
        *this.booked = true;
        *this.raw = raw;
        if !job.booked {
            work.state.accounts.change(work.info.row, |n| n.in_flight += 1);
        }
        *this.job = Some(job);
        this.step.get_or_insert_with(|| new_step(work.state, work.shared));
        self.fail(error, work)
    }

    /// Goes on with the message that waits.
    #[inline]
    pub(super) fn poll(self: Pin<&mut Self>, work: &mut Work<'_, '_, C>) -> Poll<SlotEnded<C>> {
        if self.after.is_some() {
            return self.poll_after(work);
        }
        if C::Receipt::SETTLES && work.state.settling.has_lost(self.job.as_ref()) {
            return self.lost(work);
        }
        let Some(lent) = &self.step else { return Poll::Pending };
        lent.arm();
        self.poll_armed(work)
    }

    /// Within its callers, where it is 10 of the 475 instructions of a ready message less.
    #[expect(clippy::inline_always, reason = "measured: peers, `ready`")]
    #[inline(always)]
    fn poll_armed(mut self: Pin<&mut Self>, work: &mut Work<'_, '_, C>) -> Poll<SlotEnded<C>> {
        let mut this = self.as_mut().project();
        let (Some(handler), Some(lent)) = (this.handler.as_mut().as_pin_mut(), this.step.as_mut())
        else {
            return Poll::Pending;
        };
        let Poll::Ready(output) = this.span.in_scope(|| handler.poll(work.cx)) else {
            lent.disarm();
            return self.waits(work);
        };
        // What the output brings is staged whatever the destructor of the handler does.
        match output.settle(|| lent.scope()) {
            Ok(answer) => {
                // Gone before its success counts: a destructor that panics fails the message.
                this.handler.set(None);
                lent.disarm();
                match answer {
                    ControlFlow::Continue(()) => Poll::Ready(self.succeed(work)),
                    ControlFlow::Break(wait) => self.come_later(wait, work),
                }
            }
            Err(error) => {
                lent.disarm();
                self.drop_handler_and_fail(error, work)
            }
        }
    }

    /// The handler has to wait.
    #[inline]
    fn waits(mut self: Pin<&mut Self>, work: &mut Work<'_, '_, C>) -> Poll<SlotEnded<C>> {
        // What earlier messages of this turn left.
        self.as_mut().flush();
        let this = self.as_mut().project();
        book(this.booked, work.info, work.state);
        if *this.deadline == Tick::MAX || work.shared.now() < *this.deadline {
            return Poll::Pending;
        }
        self.timed_out(work)
    }

    /// The message was handled.
    #[inline]
    pub(super) fn succeed(mut self: Pin<&mut Self>, work: &mut Work<'_, '_, C>) -> SlotEnded<C> {
        if C::Receipt::SETTLES {
            self.as_mut().accept(work.info, work.state);
        }
        let this = self.as_mut().project();
        // What was kept for another attempt is the user's, and the message has been handled.
        if let Some(message) = this.job.take().and_then(|job| job.message) {
            panics::drop_contained(|| drop(message));
        }
        *this.deadline = Tick::MAX;
        if work.shared.settings.message_timeout.is_some() {
            *this.stop = None;
        }
        this.span.end(Ok(()));
        let committed = work.state.commit == Commit::Message;
        if let Some(lent) = this.step {
            if !lent.is_home() {
                self.as_mut().let_go(committed);
            } else if committed {
                lent.commit_later();
            } else {
                lent.keep_later();
            }
        }
        let this = self.project();
        if std::mem::take(this.booked) {
            work.state.accounts.change(work.info.row, |n| {
                n.in_flight -= 1;
                n.handled += 1;
            });
            return SlotEnded::Booked;
        }
        SlotEnded::Handled
    }

    /// Somebody has kept the step of a message that has ended.
    #[cold]
    pub(super) fn let_go(self: Pin<&mut Self>, committed: bool) {
        let this = self.project();
        *this.stop = None;
        if let Some(lent) = this.step.take() {
            lent.let_go(committed);
        }
    }

    /// At the end of a turn: what its messages staged is dropped, or goes to the drain.
    #[inline]
    pub(super) fn flush(self: Pin<&mut Self>) {
        if self.step.as_ref().is_some_and(LentStep::is_touched) {
            self.flush_touched();
        }
    }

    #[inline(never)]
    fn flush_touched(self: Pin<&mut Self>) {
        if let Some(lent) = self.project().step {
            lent.flush();
        }
    }
}

/// Keeps the message of a job for another attempt.
#[cold]
fn keep<C: Drains>(
    job: &mut Option<Job<C>>,
    clone: fn(&C::Message) -> C::Message,
    message: &C::Message,
) -> Result<(), Error> {
    let kept = panics::contain(|| clone(message))
        .map_err(|text| Error::panic("the clone of a message", &text))?;
    if let Some(job) = job {
        job.message = Some(kept);
    }
    Ok(())
}

/// Books a message as being in flight.
#[inline]
pub(super) fn book<C: Drains>(booked: &mut bool, info: &mut Info, state: &mut State<C>) {
    if !std::mem::replace(booked, true) {
        state.accounts.change(info.row, |n| {
            n.in_flight += 1;
            n.attempts += 1;
        });
    }
}

#[cold]
fn new_step<C: Drains>(state: &mut State<C>, shared: &Shared<C>) -> LentStep {
    if let Some(lent) = state.settling.spare.pop() {
        return lent;
    }
    let lent = LentStep::new(&shared.context, &shared.token, &state.scope);
    if state.accounts.is_watched() {
        state.accounts.add_scope(lent.scope());
    }
    lent
}
