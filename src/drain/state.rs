//! What the banks of one drain share.
//!
//! `select_all` hides its streams, and banks are polled one at a time, so what they change together
//! needs no lock while they run: it is taken out of its place by the bank whose turn it is, and put
//! back when the turn ends. The lock of the place is held for the moment of the exchange only,
//! never while user code runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::accounts::Accounts;
use super::banks::Banks;
use super::giving_way::GivingWay;
use super::put_back::PutBack;
use super::report::Counts;
use super::settings::{Commit, Settings};
use super::slot::{Job, SlotBox};
use super::slots::Slots;
use super::types::{CloneMessage, DrainTypes, Drains};
use super::unsettled::UnsettledMessages;
use crate::cancellation::CancellationToken;
use crate::clock::Tick;
use crate::error::Error;
use crate::lock::Lock;
use crate::origin::{Origin, SourceRef};
use crate::panics;
use crate::settlement::Verdict;
use crate::source::{Receipt, Urgency};
use crate::step::StepContext;
use crate::sync::atomic::AtomicUsize;
use crate::undo::{CompensationPolicy, DrainScope};

/// Messages and polls of handlers in one poll of a drain: then it looks at its deadline, and the
/// executor has its thread back.
pub(super) const BUDGET: usize = 256;

/// Further failures that are kept beside the first; all are counted.
const MOST_FAILURES: usize = 32;

/// What belongs to the whole drain, and does not change.
pub(super) struct Shared<C: DrainTypes> {
    pub(super) context: StepContext,
    pub(super) settings: Settings,
    /// How one message is undone.
    pub(super) policy: CompensationPolicy,
    /// What the handlers are told to stop by.
    pub(super) token: CancellationToken,
    /// What cancels the drain from outside.
    pub(super) outer: CancellationToken,
    /// Makes the message of another attempt.
    pub(super) clone: Option<CloneMessage<C::Message>>,
    /// Banks that were woken and not polled since.
    pub(super) roused: Arc<AtomicUsize>,
    /// A poll of the drain has begun, and no bank has had its turn in it.
    pub(super) fresh: AtomicBool,
    /// No message is to be taken in this poll.
    pub(super) hold: AtomicBool,
    /// What the last turn of a bank left for the drain.
    pub(super) news: AtomicU8,
    pub(super) state: Lock<Option<Box<State<C>>>>,
}

/// The budget of this poll is used up.
pub(super) const SPENT: u8 = 1;
/// A bank has begun a new round: whatever `select_all` says, there is more to do.
pub(super) const GO_ON: u8 = 2;
/// The drain is to look at its state: something has failed, or somebody said that it should end.
pub(super) const LOOK: u8 = 4;
/// No message is in flight.
pub(super) const QUIET: u8 = 8;
/// There are no sources.
pub(super) const EMPTY: u8 = 16;

impl<C: Drains> Shared<C> {
    pub(super) fn take(&self) -> Option<Box<State<C>>> {
        self.state.lock().take()
    }

    pub(super) fn put(&self, state: Box<State<C>>) {
        *self.state.lock() = Some(state);
    }

    /// The state for a turn: the first one of a poll finds a new budget.
    pub(super) fn take_for_turn(&self) -> Option<Box<State<C>>> {
        let mut state = self.take()?;
        // Banks are polled by the drain alone, on its thread: nobody comes in between.
        if self.fresh.load(Ordering::Relaxed) {
            self.fresh.store(false, Ordering::Relaxed);
            state.budget = BUDGET;
            state.hold = self.hold.load(Ordering::Relaxed);
            state.accounts.flush();
        }
        Some(state)
    }

    #[inline]
    pub(super) fn news(&self) -> u8 {
        self.news.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set_news(&self, news: u8) {
        self.news.store(news, Ordering::Relaxed);
    }

    /// Leaves for the drain what it has to know.
    #[inline]
    pub(super) fn tell(&self, state: &State<C>) {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        self.set_news(
            (self.news() & GO_ON)
                | bit(state.budget == 0, SPENT)
                | bit(state.look, LOOK)
                | bit(state.go_on, GO_ON)
                | bit(state.accounts.total.in_flight == 0, QUIET)
                | bit(state.banks.sources == 0, EMPTY),
        );
    }

    pub(super) fn now(&self) -> Tick {
        self.context.clock().now()
    }

    /// Whether no further message may be taken, for a reason outside the drain.
    #[inline]
    pub(super) fn is_told_to_end(&self) -> bool {
        self.outer.is_cancelled()
            || self.settings.shutdown.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// Whether messages are kept for another attempt, or for a letter.
    #[inline]
    pub(super) fn keeps_messages(&self) -> bool {
        self.clone.is_some()
    }
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DrainPhase {
    Running,
    /// No further message is taken; what runs is finished.
    Finishing,
    /// What runs is told to stop.
    Stopping,
}

/// What the banks change.
#[allow(clippy::struct_excessive_bools, reason = "each says one thing")]
pub(super) struct State<C: DrainTypes> {
    pub(super) handler: C::Handler,
    pub(super) letters: C::Letters,
    pub(super) put_back: C::PutBack,
    pub(super) order: C::Order,
    pub(super) undos: C::Undos,
    pub(super) scope: DrainScope,
    pub(super) slots: Slots<C>,
    /// The keys in work, where they count over all sources.
    pub(super) keys: C::Busy,
    /// What is left of this poll.
    pub(super) budget: usize,
    pub(super) phase: DrainPhase,
    /// No message is taken in this poll: the drain is about to end.
    pub(super) hold: bool,
    /// The drain is to look before the next turn.
    pub(super) look: bool,
    /// A bank has begun a new round in this turn.
    pub(super) go_on: bool,
    /// The code of a source is running: a panic is the source's own.
    pub(super) in_source: bool,
    pub(super) banks: Banks<C::Source>,
    pub(super) urgency: Urgency,
    pub(super) failures: Failures,
    pub(super) accounts: Accounts,
    /// Sources that wait for their own rate, and those that are paused.
    pub(super) paced: usize,
    pub(super) paused: usize,
    pub(super) giving_way: GivingWay,
    /// How many messages may wait for another attempt without a slot.
    pub(super) most_waiting: u64,
    /// What success does to the compensations of a message.
    pub(super) commit: Commit,
    /// Messages whose handler has ended and that are not settled.
    pub(super) settling: UnsettledMessages<C>,
}

impl<C: Drains> State<C> {
    /// Hands a message out that will not be handled any more. `leave` takes it out of the place where
    /// it was counted: whoever watches sees it there, or where it went, and always once.
    pub(super) fn give_back(&mut self, info: &Info, mut job: Job<C>, leave: impl Fn(&mut Counts)) {
        let mut went_back = false;
        if C::Receipt::SETTLES && job.receipt.delivered().is_some() {
            // It goes back to its transport.
            job.settle(&Verdict::Release { after: None, begun: job.begun > 0 });
            panics::drop_each(job.message.take());
            went_back = true;
        }
        if let Some(message) = job.message.take() {
            let put_back = &mut self.put_back;
            match panics::contain(|| put_back.take(info.origin.id, message)) {
                Ok(()) => went_back = C::PutBack::GIVEN,
                Err(text) => {
                    let what = if C::PutBack::GIVEN { "put_back" } else { "a destructor" };
                    self.fail(Error::panic(what, &text).with_origin(info.message(0)));
                }
            }
        }
        self.accounts.change(info.row, |n| {
            leave(n);
            *(if went_back { &mut n.put_back } else { &mut n.unfinished }) += 1;
        });
    }

    /// The same for a message that is booked as being in flight.
    pub(super) fn give_back_in_flight(&mut self, info: &Info, job: Job<C>) {
        self.give_back(info, job, |n| n.in_flight -= 1);
    }

    /// Whether another message may wait for its next attempt without a slot.
    pub(super) fn may_wait(&self) -> bool {
        self.accounts.total.waiting < self.most_waiting
    }

    /// A retry is due and finds no slot. Where more wait than may, it is the first to have one.
    pub(super) fn is_due(&mut self, ticket: u32) {
        self.giving_way.is_due(ticket);
        if self.accounts.total.waiting > self.most_waiting {
            self.gives_way();
        }
    }

    /// Whether a failed message leaves its slot to a retry that is due: that is the first to have one.
    #[cold]
    pub(super) fn gives_way(&mut self) -> bool {
        let due = self.giving_way.next();
        if let Some(ticket) = due {
            self.slots.queue.move_to_front(ticket);
            self.serve_first();
        }
        due.is_some()
    }

    /// Gives a slot back, and has the one polled that has waited longest.
    #[inline]
    pub(super) fn give_slot_back(&mut self, slot: SlotBox<C>) {
        if let Some(spot) = self.slots.give_back(slot) {
            self.banks.notify(spot);
        }
    }

    /// Has the one polled that has waited longest, if there is a slot for it.
    #[inline]
    pub(super) fn serve_first(&mut self) {
        if let Some(spot) = self.slots.first_served() {
            self.banks.notify(spot);
        }
    }

    /// Gives up a place in the queue for slots.
    #[inline]
    pub(super) fn leave_queue(&mut self, ticket: &mut u32) {
        if let Some(spot) = self.slots.leave(ticket) {
            self.banks.notify(spot);
        }
    }

    /// Notes that the drain has failed.
    pub(super) fn fail(&mut self, error: Error) {
        self.failures.push(error);
        self.ask_to_look();
    }

    /// Has the drain look before the next turn. One that stops has seen what it needs.
    pub(super) fn ask_to_look(&mut self) {
        self.look = self.phase != DrainPhase::Stopping;
    }

    /// Nothing is tried again: whoever keeps a slot for a message that waits gives both back.
    pub(super) fn let_kept_go(&mut self) {
        self.look = false;
        self.giving_way.let_all_go();
    }

    pub(super) fn is_running(&self) -> bool {
        self.phase == DrainPhase::Running
    }
}

/// The first failures of a drain, and how many there were.
#[derive(Default)]
pub(super) struct Failures {
    pub(super) first: Vec<Error>,
    pub(super) more: u64,
}

impl Failures {
    fn push(&mut self, error: Error) {
        if self.first.len() <= MOST_FAILURES {
            self.first.push(error);
        } else {
            self.more += 1;
            panics::drop_contained(|| drop(error));
        }
    }
}

/// What a lane's messages have in common.
pub(super) struct Info {
    pub(super) origin: SourceRef,
    pub(super) row: u32,
    /// Messages taken.
    pub(super) number: u64,
    /// Messages handled in this turn and not booked yet.
    pub(super) handled: u32,
    /// The source is being taken out: no message of it has another attempt.
    pub(super) leaving: bool,
}

impl Info {
    pub(super) fn new(origin: SourceRef, row: u32) -> Self {
        Self { origin, row, number: 0, handled: 0, leaving: false }
    }

    /// Books what the turn has done.
    #[inline]
    pub(super) fn book<C: Drains>(&mut self, state: &mut State<C>) {
        if self.handled > 0 {
            let handled = u64::from(std::mem::take(&mut self.handled));
            state.accounts.change(self.row, |n| {
                n.handled += handled;
                n.attempts += handled;
            });
        }
    }

    pub(super) fn message(&self, number: u64) -> Origin {
        Origin { source: self.origin.name.clone(), message: number }
    }
}
