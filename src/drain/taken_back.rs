//! Messages that were handled, and are undone and given back all the same.
//!
//! One is whose accept was certainly not applied, as long as nothing behind it has begun; another one that
//! is done behind one that goes back. Where it cannot be undone it goes to the dead letters, as any other
//! message does that is neither done nor undone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::StreamExt;

use super::letters::Letter;
use super::running::RunningDrain;
use super::settling::put_aside;
use super::state::{Shared, State};
use super::storing::Storing;
use super::types::{DrainTypes, Drains};
use super::undos::{UndoWith, Undone};
use super::unsettled::{Record, UnsettledMessages};
use crate::clock::Alarm;
use crate::error::{Error, Failure};
use crate::origin::SourceId;
use crate::panics;
use crate::settlement::{Given, Key, Settled, Tag, Verdict};
use crate::step::{LentStep, Polls};
use crate::undo::RollbackReport;

/// How far a message is that is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakenBack {
    Undoing,
    /// It could not be undone.
    Storing,
}

/// A message that is taken back. It is polled when it was woken, however many others are.
pub(super) struct TakingBack<C: DrainTypes> {
    tag: Tag,
    /// Whose message it is.
    source: Option<SourceId>,
    /// There until it has ended.
    underway: Option<Underway<C>>,
}

enum Underway<C: DrainTypes> {
    Undoing(C::Rollback),
    /// `until`: when that has to be done, and what it has failed with then.
    Storing {
        letter: Storing<C>,
        until: Alarm,
        late: Error,
    },
}

/// What has become of one meanwhile.
pub(super) enum Came {
    Undone(Undone),
    /// What it was given up for, and whether its letter is stored.
    Stored(Error, Result<(), Error>),
}

/// Nothing in it is pinned.
impl<C: DrainTypes> Unpin for TakingBack<C> {}

impl<C: Drains> Future for TakingBack<C> {
    type Output = (Tag, Came);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(Tag, Came)> {
        let tag = self.tag;
        let _polls = self.source.map(Polls::of);
        let came = match &mut self.underway {
            None => return Poll::Pending,
            Some(Underway::Undoing(rollback)) => {
                Came::Undone(match panics::contain(|| Pin::new(rollback).poll(cx)) {
                    Ok(Poll::Pending) => return Poll::Pending,
                    Ok(Poll::Ready(undone)) => undone,
                    Err(text) => {
                        let error = Error::panic("a compensation", &text);
                        Err(Failure::new(error, RollbackReport::default()))
                    }
                })
            }
            Some(Underway::Storing { letter, until, late }) => {
                let stored = match letter.poll(cx) {
                    Poll::Ready(stored) => stored,
                    Poll::Pending if until.poll(cx).is_ready() => Err(late.clone()),
                    Poll::Pending => return Poll::Pending,
                };
                Came::Stored(letter.error().clone(), stored)
            }
        };
        panics::drop_each(self.underway.take());
        Poll::Ready((tag, came))
    }
}

/// One that is dropped before its end is the user's code as well.
impl<C: DrainTypes> Drop for TakingBack<C> {
    fn drop(&mut self) {
        panics::drop_each(self.underway.take());
    }
}

impl<C: Drains> RunningDrain<C> {
    /// Goes on with those messages. Returns whether one of them has gone on.
    pub(super) fn poll_undoing(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let shared = Arc::clone(&self.shared);
        let mut any = false;
        while let Some(mut all) = self.look(|state| state.settling.undoing.take())? {
            let polled = all.poll_next_unpin(cx);
            self.look(|state| state.settling.undoing = (!all.is_empty()).then_some(all))?;
            let Poll::Ready(Some((tag, came))) = polled else { break };
            any = true;
            self.look(|state| match came {
                Came::Undone(undone) => state.undone_behind(tag, undone, &shared),
                Came::Stored(error, stored) => state.stored_behind(tag, error, stored, &shared),
            })?;
        }
        Ok(any)
    }
}

impl<C: Drains> State<C> {
    /// An accept was refused to the end. `behind`: how many of its source were taken since, or of its
    /// group.
    pub(super) fn refused(
        &mut self,
        key: Key,
        tag: Tag,
        (behind, group): (u64, Option<&Arc<str>>),
        shared: &Shared<C>,
    ) {
        let Some(record) = self.settling.get(tag) else { return };
        // The others of its own window are no others.
        let own = record.delivered.receipts().iter().rev().take_while(|(_, it)| *it != key);
        let own =
            own.filter(|(desk, it)| group.is_none() || desk.facts(*it).group.as_ref() == group);
        let is_behind = behind > own.count() as u64;
        let has_followers = match record.key {
            Some(_) => record.has_followers || group.is_some() && is_behind,
            None => is_behind,
        };
        if !has_followers {
            return self.take_back(key, tag, shared);
        }
        let text = "the accept was refused, and others behind it have begun";
        let unknown = Settled::Unknown(Error::validation(text));
        let delivered = record.delivered.clone();
        for (desk, _) in delivered.receipts().iter().filter(|(_, other)| *other == key) {
            desk.settled_by_hand(key, &unknown);
        }
        self.concluded(tag);
    }

    /// A message that was handled is to be undone, and released: its accept was refused to the end, or
    /// one before it goes back.
    pub(super) fn take_back(&mut self, key: Key, tag: Tag, shared: &Shared<C>) {
        let Some(record) = self.settling.get(tag) else { return };
        record.refused.push(key);
        self.look_at_refusals(tag);
        self.begin_to_undo(tag, shared);
    }

    /// Of a window some were accepted: the others are not undone alone.
    pub(super) fn look_at_refusals(&mut self, tag: Tag) {
        let Some(record) = self.settling.get(tag) else { return };
        if record.left < record.delivered.receipts().len() && !record.refused.is_empty() {
            let refused = std::mem::take(&mut record.refused);
            record.left -= refused.len();
            let unknown = Settled::Unknown(Error::validation("others of its window were accepted"));
            let delivered = record.delivered.clone();
            for (desk, key) in delivered.receipts().iter().filter(|(_, key)| refused.contains(key))
            {
                desk.settled_by_hand(*key, &unknown);
            }
            if record.left == 0 {
                if let Some(step) = self.settling.remove(tag).and_then(|record| record.step) {
                    step.let_go(true);
                }
            }
        }
    }

    fn begin_to_undo(&mut self, tag: Tag, shared: &Shared<C>) {
        let Self { settling, undos, .. } = self;
        let Some(record) = settling.get(tag) else { return };
        if record.back.is_none() && record.refused.len() == record.left {
            let Some(step) = &record.step else {
                return self.is_back(tag, Some(&Verdict::UNDONE));
            };
            let clock = shared.context.clock();
            let rollback = undos.roll_back(step.scope(), &shared.policy, clock);
            settling.begin_back(tag, TakenBack::Undoing, Underway::Undoing(rollback));
        }
    }

    /// It has been undone, as far as it could be.
    fn undone_behind(&mut self, tag: Tag, undone: Undone, shared: &Shared<C>) {
        let Err(failure) = undone else { return self.is_back(tag, Some(&Verdict::UNDONE)) };
        let Some(record) = self.settling.get(tag) else { return };
        // It is neither done nor undone: what is left stays staged, whatever becomes of the drain.
        if let Some(step) = &mut record.step {
            step.hand_over_to_context();
        }
        let error = failure.error().clone();
        let Some(letter) = record.letter(failure) else {
            let verdict = put_aside(&record.delivered, &error, None);
            self.is_back(tag, verdict.as_ref());
            // Nobody but the drain can tell.
            return self.fail(error);
        };
        match Storing::begin(&mut self.letters, letter) {
            Ok(letter) => {
                let until = shared.now() + shared.settings.letter_timeout();
                let until = Alarm::at(shared.context.clock(), until);
                let storing =
                    Underway::Storing { letter, until, late: shared.settings.late_letter() };
                self.settling.begin_back(tag, TakenBack::Storing, storing);
            }
            Err(error) => {
                self.is_back(tag, None);
                self.fail(error);
            }
        }
    }

    /// Its letter is stored, or is not.
    fn stored_behind(
        &mut self,
        tag: Tag,
        error: Error,
        stored: Result<(), Error>,
        shared: &Shared<C>,
    ) {
        match stored {
            Ok(()) => {
                if !shared.settings.goes_on() {
                    self.fail(error.clone());
                }
                self.is_back(tag, Some(&Verdict::Reject { error }));
            }
            Err(failed) => {
                self.is_back(tag, None);
                self.fail(error.with_related([failed]));
            }
        }
    }

    /// Nothing more is to be done but to settle it; without a verdict nobody will.
    fn is_back(&mut self, tag: Tag, verdict: Option<&Verdict>) {
        let Some(record) = self.settling.remove(tag) else { return };
        for (desk, key) in record.delivered.receipts() {
            self.settling.lost.remove(key);
            match verdict {
                Some(verdict) => desk.give(*key, verdict.clone(), Given::default()),
                None => desk.abandon(*key),
            }
        }
        if let Some(step) = record.step {
            step.let_go(false);
        }
    }
}

impl<C: Drains> UnsettledMessages<C> {
    fn begin_back(&mut self, tag: Tag, back: TakenBack, underway: Underway<C>) {
        let Some(record) = self.get(tag) else { return };
        record.back = Some(back);
        let source = record.step.as_ref().and_then(LentStep::source);
        let back = TakingBack { tag, source, underway: Some(underway) };
        self.undoing.get_or_insert_default().push(back);
    }
}

impl<C: Drains> Record<C> {
    /// The letter of a message that was given up, where there are dead letters.
    fn letter(&mut self, rollback: Failure<RollbackReport>) -> Option<Letter<C::Message>> {
        let kept = *self.kept.take()?;
        Some(Letter {
            message: Some(kept.message),
            raw: None,
            deliveries: self.delivered.facts(),
            error: rollback.error().clone(),
            source: kept.source,
            number: kept.number,
            attempts: kept.attempts,
            rollback: Err(rollback),
        })
    }
}
