//! Where every message and every effect is at the end, the order, and who was told of what.

use std::collections::BTreeSet;
use std::time::Duration;

use watershed::{Commit, CompensationPolicy, Error, ErrorCode, OnFailure, RollbackReport};

use super::shop::Effect;
use super::{Ended, Feeding, Run};

impl Run {
    /// Undoes what is left, and checks where everything is. What is noted behind `before` was undone
    /// by a rollback of all, `in_order` or not.
    pub(crate) fn settle(&self, ended: Option<&Ended>, before: usize, in_order: bool) {
        let what = || format!("{:?}, {ended:?}, faults {:?}", self.case, self.shop.faults.fired());
        let over = |over| {
            self.shop.faults.set_over(over);
            self.shop.book().over = over;
        };
        over(true);
        assert_eq!(self.shop.book().in_flight.len(), 0, "no handler is left: {}", what());
        let cleared = self.cleared();
        let staged = self.context.scope().len();
        let policy = CompensationPolicy::sequential_reverse();
        let last = self.context.roll_back(&policy);
        let report: RollbackReport =
            self.simulation.run(last).expect("it ends").expect("nothing fails now");
        assert_eq!(report.succeeded(), staged, "{}", what());
        assert!(self.context.scope().is_empty());

        let book = self.shop.book();
        assert_eq!(book.mistakes, [""; 0], "{}", what());
        assert!(book.most_in_flight <= self.case.handlers, "{}", what());
        drop(book);
        self.check_messages(&what);
        assert_eq!(self.simulation.world().clock().sleepers(), 0, "a wait is left: {}", what());
        self.check_order(before, in_order, &what);
        self.check_effects(ended, &cleared, &what);
        if let Some(ended) = ended {
            self.check_end(ended, &what);
            self.check_told(ended, &what);
        }
    }

    /// Effects whose action was dropped though it was neither run to its end nor withdrawn.
    fn cleared(&self) -> BTreeSet<Effect> {
        let book = self.shop.book();
        let kept =
            |effect: &&Effect| !book.undone.contains(effect) && !book.withdrawn.contains(effect);
        book.gone.iter().filter(kept).copied().collect()
    }

    /// Every message was handled, was put back, or is still in its source.
    fn check_messages(&self, what: &dyn Fn() -> String) {
        let book = self.shop.book();
        let mut all = book.started.clone();
        // One whose letter could not be stored was handled, and goes back all the same.
        let refused = |number: &u32| {
            let letter = format!("<dead letter {number}>");
            book.started.contains(number) && self.shop.faults.is_fired(&letter)
        };
        all.extend(book.put_back.iter().filter(|number| !refused(number)));
        for script in &self.scripts {
            assert_eq!(script.polls_after_end(), 0, "{}", what());
            all.extend(script.rest().iter().map(|message| message.number));
        }
        all.sort_unstable();
        assert_eq!(all, self.numbers, "{}", what());
    }

    /// Each message, and each rollback of all, was undone in the reverse of the registration.
    fn check_order(&self, before: usize, in_order: bool, what: &dyn Fn() -> String) {
        let book = self.shop.book();
        let in_reverse = |undone: &[Effect]| {
            let registered = book.registered.iter().rev().filter(|effect| undone.contains(effect));
            assert!(registered.eq(undone), "{undone:?} of {:?}: {}", book.registered, what());
        };
        let (alone, together) = book.undone.split_at(before);
        if in_order {
            in_reverse(together);
        }
        if self.case.seed / 2 % 3 == 0 {
            for number in &self.numbers {
                let mine: Vec<_> =
                    alone.iter().filter(|effect| effect.0 == *number).copied().collect();
                in_reverse(&mine);
            }
        }
    }

    /// Every effect was undone once or is committed, as the drain ended and its handler did.
    fn check_effects(
        &self,
        ended: Option<&Ended>,
        cleared: &BTreeSet<Effect>,
        what: &dyn Fn() -> String,
    ) {
        let book = self.shop.book();
        let spoiled = |number: &u32| {
            let handler = format!("<drop of handler {number}>");
            self.shop.faults.is_fired(&handler)
        };
        let accepted = |effect: &&Effect| book.accepted.contains(&effect.0) && !spoiled(&effect.0);
        let kept = |effect: &&Effect| !book.withdrawn.contains(effect);
        let accepted: BTreeSet<Effect> =
            book.registered.iter().filter(accepted).filter(kept).copied().collect();
        let none = BTreeSet::new();
        let states = book.registered.iter().map(|effect| format!("<drop of state {effect:?}>"));
        let state_fired = states.into_iter().any(|point| self.shop.faults.is_fired(&point));
        match (self.case.commit, ended) {
            (Commit::Message, _) | (Commit::Pipeline, Some(Ok(_))) => {
                assert_eq!(*cleared, accepted, "{}", what());
            }
            // A destructor of an action panicked when the commit dropped it: all are gone.
            (Commit::Pipeline, Some(Err(error)))
                if state_fired && error.code() == ErrorCode::Panic =>
            {
                assert!(*cleared == none || *cleared == accepted, "{}", what());
            }
            (Commit::Pipeline | Commit::Never, _) => assert_eq!(*cleared, none, "{}", what()),
        }
        for effect in self.shop.ledger.open() {
            assert!(cleared.contains(&effect), "{effect:?} is not undone: {}", what());
            self.shop.ledger.committed(effect);
        }
        let checked = self.shop.ledger.check();
        assert!(checked.is_ok(), "{checked:?}: {}", what());
        let mut undone = book.undone.clone();
        undone.sort_unstable();
        undone.dedup();
        assert_eq!(undone.len(), book.undone.len(), "undone twice: {}", what());
        assert_eq!(book.gone.len(), book.registered.len(), "an action is kept: {}", what());
    }

    fn check_end(&self, ended: &Ended, what: &dyn Fn() -> String) {
        let book = self.shop.book();
        let letters: BTreeSet<u32> = book.letters.iter().map(|(number, _)| *number).collect();
        assert_eq!(letters.len(), book.letters.len(), "one message, one letter: {}", what());
        assert!(letters.iter().all(|number| book.started.contains(number)), "{}", what());
        let aborts = self.case.on_failure == OnFailure::Abort;
        assert!(letters.is_empty() || !aborts, "{}", what());
        match ended {
            Ok(report) => {
                assert!(!self.stop.is_cancelled(), "{}", what());
                let handled = usize::try_from(report.handled()).expect("few");
                assert_eq!(handled + letters.len(), book.started.len(), "{}", what());
                assert_eq!(report.failed(), letters.len() as u64, "{}", what());
                assert_eq!(book.put_back, [0; 0], "{}", what());
                // One of the live sources was removed.
                let all = self.case.feeding != Feeding::Live;
                assert!(!all || book.started.len() == self.numbers.len(), "{}", what());
            }
            Err(error) => {
                let possible = match error.code() {
                    ErrorCode::Canceled => self.stop.is_cancelled(),
                    // Of the drain, or of a message.
                    ErrorCode::Timeout => {
                        let of_message = error.message_number().is_some();
                        if of_message {
                            self.case.message_timeout().is_some()
                        } else {
                            self.case.timeout().is_some()
                        }
                    }
                    ErrorCode::Handler => !book.failed.is_empty(),
                    _ => !self.shop.faults.fired().is_empty(),
                };
                assert!(possible, "{}", what());
                let dropped = error.metadata("dropped_handlers").unwrap_or("0");
                let dropped: usize = dropped.parse().expect("a number");
                let patient = self.case.grace() > Duration::from_secs(3_600);
                assert!(dropped == 0 || !patient, "dropped in spite of time: {}", what());
            }
        }
    }

    /// Every fault in the drain was told, in its error or in a dead letter, and only once.
    fn check_told(&self, ended: &Ended, what: &dyn Fn() -> String) {
        let mut told: Vec<String> = ended.as_ref().err().into_iter().flat_map(texts).collect();
        let book = self.shop.book();
        told.extend(book.letters.iter().flat_map(|(_, told)| told.iter().cloned()));
        for point in self.shop.faults.fired() {
            let times = told.iter().filter(|text| text.contains(&point)).count();
            // Nobody is told of a destructor of what has done its work.
            let silent = ["<drop of state", "<drop of attempt"]
                .iter()
                .any(|silent| point.starts_with(silent));
            // An action that fails in the rollback of all is none of the drain.
            let other = point.starts_with("<action");
            // The handler's own destructors panicked on its way out with the error.
            let number = point.strip_prefix("<handler ").and_then(|rest| rest.split_once(' '));
            let replaced = number.is_some_and(|(number, _)| {
                self.shop.faults.is_fired(&format!("<drop of message {number}>"))
            });
            let least = usize::from(!silent && !other && !replaced);
            assert!((least..=1).contains(&times), "{point} told {times} times: {}", what());
        }
    }
}

/// By error of a tree: what it says, and its causes.
pub(super) fn texts(error: &Error) -> Vec<String> {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let own = std::iter::once(error.to_string()).chain(causes.map(ToString::to_string));
    let own = own.collect::<Vec<_>>().join("; ");
    std::iter::once(own).chain(error.related().iter().flat_map(texts)).collect()
}
