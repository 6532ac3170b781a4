//! Messages that were handled, and are undone and given back all the same.
//!
//! One is whose accept was certainly not applied, as long as nothing behind it has begun; another one that
//! is done behind one that goes back. Where it cannot be undone it goes to the dead letters, as any other
//! message does that is neither done nor undone.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::letters::Letter;
use super::running::Running;
use super::settling::put_aside;
use super::state::{Shared, State};
use super::storing::Storing;
use super::types::{DrainTypes, Drains};
use super::undos::{UndoWith, Undone};
use super::unsettled::Record;
use crate::clock::Alarm;
use crate::error::{Error, Failure};
use crate::panics;
use crate::settlement::{Given, Key, Settled, Tag, Verdict};
use crate::undo::RollbackReport;

/// How far a message is that is taken back.
pub(super) enum Back<C: DrainTypes> {
    Undoing(C::Rollback),
    /// It could not be undone.
    /// `until`: when that has to be done.
    Storing {
        letter: Storing<C>,
        until: Alarm,
    },
}

/// What has become of one meanwhile.
enum Came {
    Undone(Undone),
    /// What it was given up for, and whether its letter is stored.
    Stored(Error, Result<(), Error>),
}

impl<C: Drains> Back<C> {
    /// Goes on with it, as far as that can be now.
    fn poll(self, shared: &Shared<C>, cx: &mut Context<'_>) -> ControlFlow<Came, Self> {
        match self {
            Self::Undoing(mut rollback) => {
                let undone = match panics::contain(|| Pin::new(&mut rollback).poll(cx)) {
                    Ok(Poll::Pending) => return ControlFlow::Continue(Self::Undoing(rollback)),
                    Ok(Poll::Ready(undone)) => undone,
                    Err(text) => {
                        let error = Error::panic("a compensation", &text);
                        Err(Failure::new(error, RollbackReport::default()))
                    }
                };
                panics::drop_contained(|| drop(rollback));
                ControlFlow::Break(Came::Undone(undone))
            }
            Self::Storing { mut letter, mut until } => {
                let stored = match letter.poll(cx) {
                    Poll::Ready(stored) => stored,
                    Poll::Pending if until.poll(cx).is_ready() => {
                        Err(shared.settings.late_letter())
                    }
                    Poll::Pending => return ControlFlow::Continue(Self::Storing { letter, until }),
                };
                ControlFlow::Break(Came::Stored(letter.into_error(), stored))
            }
        }
    }
}

impl<C: Drains> Running<C> {
    /// Goes on with those messages. Returns whether one of them has gone on.
    pub(super) fn poll_undoing(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let tags = self.look(|state| state.settling.undoing.clone())?;
        let shared = Arc::clone(&self.shared);
        let mut any = false;
        for tag in tags {
            let back = self.look(|state| state.settling.get(tag).and_then(|it| it.back.take()))?;
            let Some(back) = back else { continue };
            let came = back.poll(&shared, cx);
            any |= came.is_break();
            self.look(|state| match came {
                ControlFlow::Continue(back) => state.is_taken_back(tag, back),
                ControlFlow::Break(Came::Undone(undone)) => {
                    state.undone_behind(tag, undone, &shared);
                }
                ControlFlow::Break(Came::Stored(error, stored)) => {
                    state.stored_behind(tag, error, stored, &shared);
                }
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
                if let Some(record) = self.settling.remove(tag) {
                    record.step.let_go(true);
                }
            }
        }
    }

    fn begin_to_undo(&mut self, tag: Tag, shared: &Shared<C>) {
        let Self { settling, undos, .. } = self;
        let Some(record) = settling.get(tag) else { return };
        if record.back.is_none() && record.refused.len() == record.left {
            let clock = shared.context.clock();
            let rollback = undos.roll_back(record.step.scope(), &shared.policy, clock);
            record.back = Some(Back::Undoing(rollback));
            settling.undoing.push(tag);
        }
    }

    /// It has been undone, as far as it could be.
    fn undone_behind(&mut self, tag: Tag, undone: Undone, shared: &Shared<C>) {
        let Err(failure) = undone else { return self.is_back(tag, Some(&Verdict::UNDONE)) };
        let Some(record) = self.settling.get(tag) else { return };
        // It is neither done nor undone: what is left stays staged, whatever becomes of the drain.
        record.step.hand_over_to_context();
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
                self.is_taken_back(tag, Back::Storing { letter, until });
            }
            Err(error) => {
                self.is_back(tag, None);
                self.fail(error);
            }
        }
    }

    /// Goes on to be taken back.
    fn is_taken_back(&mut self, tag: Tag, back: Back<C>) {
        if let Some(record) = self.settling.get(tag) {
            record.back = Some(back);
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
        self.settling.undoing.retain(|other| *other != tag);
        let Some(record) = self.settling.remove(tag) else { return };
        for (desk, key) in record.delivered.receipts() {
            self.settling.lost.remove(key);
            match verdict {
                Some(verdict) => desk.give(*key, verdict.clone(), Given::default()),
                None => desk.abandon(*key),
            }
        }
        record.step.let_go(false);
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
