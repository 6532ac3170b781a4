//! The settlements that are with the transport.
//!
//! Where each message is a call of its own, whatever is done for a call is done for each message. So
//! batches are gathered under one lock until there are many, those that are answered at once are told
//! under one, and what they are gathered in is used again: a call has the vector that the transport is
//! given, the one that it returns, and no third.

use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Transport;
use super::driver::DriverLook;
use super::entries::KeptReceipt;
use super::in_flight::InFlight;
use super::seat::{Seat, seat};
use super::state::no_answer;
use crate::clock::Tick;
use crate::panics::{self, HeldEach};
use crate::settlement::{Key, Settled, Verdict};

/// What one verdict of a call is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum About {
    Message(Key),
    /// A commit or a seek of this partition.
    Partition(u64),
}

/// What is about to be said of one receipt.
pub(super) struct Spoken<R> {
    /// Nothing where a call is kept that says it.
    about: Option<About>,
    /// Back with its entry when there is an answer.
    receipt: Option<KeptReceipt<R>>,
    verdict: Option<Verdict>,
}

impl<R> Spoken<R> {
    pub(super) fn take(&mut self) -> Option<Called<R>> {
        Some((self.about.take()?, self.receipt.take()))
    }
}

/// What a call has said something of.
pub(super) type Called<R> = (About, Option<KeptReceipt<R>>);

/// Batches for the transport, one behind another.
pub(super) struct Batches<R> {
    spoken: Vec<Spoken<R>>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl<R> Default for Batches<R> {
    fn default() -> Self {
        Self { spoken: Vec::new(), ends: Vec::new() }
    }
}

impl<R> Batches<R> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many are in the one that is gathered.
    pub(super) fn open(&self) -> usize {
        self.spoken.len() - self.ends.last().copied().unwrap_or(0)
    }

    pub(super) fn push(&mut self, about: About, receipt: Option<KeptReceipt<R>>, verdict: Verdict) {
        self.spoken.push(Spoken { about: Some(about), receipt, verdict: Some(verdict) });
    }

    /// The one that is gathered is one, if there is anything in it.
    pub(super) fn close(&mut self) -> bool {
        let any = self.open() > 0;
        if any {
            self.ends.push(self.spoken.len());
        }
        any
    }

    /// Takes out what was gathered and is no batch, the last one first.
    pub(super) fn take_open(&mut self) -> impl Iterator<Item = Called<R>> + use<'_, R> {
        let from = self.spoken.len() - self.open();
        self.spoken.drain(from..).rev().filter_map(|mut it| it.take())
    }

    /// Those whose calls are not kept.
    fn called(&mut self) -> impl Iterator<Item = Called<R>> + use<'_, R> {
        self.spoken.iter_mut().filter_map(Spoken::take)
    }

    fn clear(&mut self) {
        self.ends.clear();
        panics::drop_each(self.spoken.drain(..));
    }
}

/// How often a poll gathers, before others have their turn.
const TIMES: usize = 8;

type CallBatch<T> = Vec<(<T as Transport>::Receipt, Verdict)>;

/// Where a settlement is made.
type SeatOf<T> = Seat<CallBatch<T>, Vec<Settled>>;

/// The settlements that are with the transport.
pub(super) struct Calls<T: Transport> {
    /// Receipts are the adapter's, and so is dropping them.
    in_flight: InFlight<HeldEach<Called<T::Receipt>>, SeatOf<T>>,
    /// Where the next call is made.
    seat: Option<SeatOf<T>>,
    /// What is gathered in a poll: empty between two.
    batches: Batches<T::Receipt>,
    answers: Vec<Settled>,
}

impl<T: Transport> Default for Calls<T> {
    fn default() -> Self {
        Self {
            in_flight: InFlight::default(),
            seat: None,
            batches: Batches::default(),
            answers: Vec::new(),
        }
    }
}

impl<T: Transport> Calls<T> {
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.in_flight.deadline()
    }

    pub(super) fn poll(&mut self, look: &DriverLook<'_, T>, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        for _ in 0..TIMES {
            let gathers = !self.in_flight.is_empty();
            let batches = &mut self.batches;
            let within = look.hub.change_in_turn(|state| {
                state.next_batches(gathers, batches);
                state.options.settle_within
            });
            if self.batches.is_empty() {
                break;
            }
            moved = true;
            self.call_each(look, look.now + within, cx);
        }
        while let Some((called, ended)) = self.in_flight.poll(look.now, cx) {
            moved = true;
            // Of what has no answer nobody knows what became of it.
            let answers = look.answers(ended);
            let told = &mut self.answers;
            tell(answers, called.len(), told);
            let called = called.take().into_iter();
            look.hub.change_in_turn(|state| state.answered(called, told.drain(..), look.now));
        }
        moved
    }

    /// Makes the calls that were gathered, and tells the answers of those that have one at once.
    fn call_each(&mut self, look: &DriverLook<'_, T>, deadline: Tick, cx: &mut Context<'_>) {
        let mut from = 0;
        for at in 0..self.batches.ends.len() {
            let of = from..self.batches.ends[at];
            from = of.end;
            let spoken = &mut self.batches.spoken[of.clone()];
            let copied = look.copy(|| {
                let mut batch = Vec::with_capacity(spoken.len());
                for Spoken { receipt, verdict, .. } in spoken {
                    batch.push((receipt.as_ref()?.copy(), verdict.take()?));
                }
                Some(batch)
            });
            match copied.flatten() {
                Some(batch) => self.call(look, batch, of, deadline, cx),
                None => tell(Vec::new(), of.len(), &mut self.answers),
            }
        }
        let Self { batches, answers, .. } = self;
        look.hub
            .change_in_turn(|state| state.answered(batches.called(), answers.drain(..), look.now));
        batches.clear();
    }

    /// Makes a call, and keeps one that has no answer at once.
    fn call(
        &mut self,
        look: &DriverLook<'_, T>,
        batch: CallBatch<T>,
        of: Range<usize>,
        deadline: Tick,
        cx: &mut Context<'_>,
    ) {
        let mut seat = self.seat.take().unwrap_or_else(|| {
            let transport = Arc::clone(look.hub.transport());
            seat(move |batch| {
                let transport = Arc::clone(&transport);
                async move { transport.settle(batch).await }
            })
        });
        let told = &mut self.answers;
        // Told in there: handed out, the vector would be moved from one result into the next.
        let polled = panics::contain(|| {
            seat.as_mut().begin(batch);
            seat.as_mut().poll(cx).map(|answers| tell(answers, of.len(), told))
        });
        match polled {
            Ok(Poll::Ready(())) => self.seat = Some(seat),
            Ok(Poll::Pending) => {
                let called = self.batches.spoken[of].iter_mut().filter_map(Spoken::take).collect();
                self.in_flight.keep(called, deadline, seat);
            }
            Err(text) => {
                look.hub.blame("the transport", &text);
                panics::drop_each([seat]);
                // Nobody knows what became of it.
                tell(Vec::new(), of.len(), told);
            }
        }
    }
}

/// Tells so many answers; what is missing is unknown.
fn tell(mut answers: Vec<Settled>, count: usize, told: &mut Vec<Settled>) {
    if answers.len() > count {
        panics::drop_each(answers.drain(count..));
    }
    let missing = count - answers.len();
    told.append(&mut answers);
    told.extend((0..missing).map(|_| Settled::Unknown(no_answer())));
}
