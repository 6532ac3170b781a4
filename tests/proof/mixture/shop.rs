//! What the handlers do, and everything that happened there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};
use watershed::testing::{Ledger, World};
use watershed::{Action, BoxError, StepContext, labelled};

use super::{Faults, PER_SOURCE};
use crate::guarded::Guarded;

/// An effect: the message that did it, and which of its effects it is.
pub(super) type Effect = (u32, u32);
/// What the handlers talk to. Clones are the same shop.
#[derive(Clone)]
pub(super) struct Shop {
    pub(super) world: World,
    pub(super) ledger: Ledger<Effect>,
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) faults: Faults,
    pub(super) calm: bool,
    pub(super) shift: u32,
}

/// What happened, in order.
#[derive(Default)]
pub(super) struct Book {
    pub(super) started: Vec<u32>,
    pub(super) in_flight: BTreeSet<u32>,
    pub(super) most_in_flight: usize,
    pub(super) accepted: BTreeSet<u32>,
    pub(super) failed: BTreeSet<u32>,
    /// Messages that waited for their key when the drain ended.
    pub(super) put_back: Vec<u32>,
    pub(super) registered: Vec<Effect>,
    pub(super) withdrawn: BTreeSet<Effect>,
    pub(super) attempts: BTreeMap<Effect, u32>,
    pub(super) undone: Vec<Effect>,
    /// Actions that were dropped.
    pub(super) gone: BTreeSet<Effect>,
    /// Failures that were handed to the dead-letter callback.
    pub(super) letters: Vec<(u32, Vec<String>)>,
    /// What must not happen: an assertion in a handler would be one more panic of a handler.
    pub(super) mistakes: Vec<String>,
    pub(super) over: bool,
}

impl Shop {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic under the lock")
    }

    pub(super) fn reach(&self, point: &str) -> Handled {
        self.faults.pass(point, true)
    }

    /// What becomes of a message is decided by this.
    fn kind(&self, number: u32) -> u32 {
        (number / PER_SOURCE + number % PER_SOURCE + self.shift) % 11
    }

    pub(super) fn guard(&self, part: Part) -> Guard {
        Guard { shop: self.clone(), part }
    }

    fn undoing(&self, effect: Effect) -> impl Action + use<> {
        let (shop, state) = (self.clone(), self.guard(Part::State(effect)));
        let action = move || {
            let shop = shop.clone();
            let attempt = {
                let mut book = state.shop.book();
                let attempts = book.attempts.entry(effect).or_default();
                *attempts += 1;
                *attempts
            };
            let called = shop.reach(&format!("<action {effect:?} called>"));
            let (pause, guard) = (shop.world.pause(), shop.guard(Part::Attempt(effect)));
            let future = async move {
                called?;
                pause.await;
                shop.reach(&format!("<action {effect:?} polled>"))?;
                let kind = shop.kind(effect.0) + effect.1;
                let fails = kind % 4 == 3 || kind % 3 == 0 && attempt == 1;
                if fails && !shop.calm && !shop.book().over {
                    return Err(BoxError::from("broken"));
                }
                shop.book().undone.push(effect);
                if shop.ledger.open().contains(&effect) {
                    shop.ledger.undone(effect);
                }
                Ok(())
            };
            Guarded(future.boxed(), guard)
        };
        labelled(format!("{effect:?}"), action)
    }

    pub(super) async fn handle(
        self,
        message: Message,
        called: Handled,
        step: StepContext,
    ) -> Handled {
        let number = message.number;
        called?;
        self.pause(number, &step).await?;
        self.ledger.done((number, 0));
        self.book().registered.push((number, 0));
        step.register_compensation(self.undoing((number, 0)));
        self.pause(number, &step).await?;
        self.reach(&format!("<handler {number} behind its effect>"))?;
        self.book().registered.push((number, 1));
        let reservation = step.reserve(self.undoing((number, 1)));
        self.pause(number, &step).await?;
        self.reach(&format!("<handler {number} with a reservation>"))?;
        if number % 3 == 0 {
            self.book().withdrawn.insert((number, 1));
            if !reservation.disarm() {
                self.book().mistakes.push(format!("{number} could not withdraw"));
            }
        } else {
            self.ledger.done((number, 1));
            drop(reservation);
        }
        if !self.calm {
            match self.kind(number) {
                3 | 8 => return Err("declined".into()),
                6 => {
                    let hour = step.clock().now() + Duration::from_secs(3_600);
                    step.clock().sleep_until(hour).await;
                }
                _ => self.pause(number, &step).await?,
            }
        }
        self.reach(&format!("<handler {number} at its end>"))?;
        drop(message);
        Ok(())
    }

    /// Waits as the seed wants it; every other message gives up when it is told to stop.
    async fn pause(&self, number: u32, step: &StepContext) -> Handled {
        let pause = self.world.pause();
        if number % 2 == 0 {
            pause.await;
            return Ok(());
        }
        match select(pause, step.cancellation().cancelled()).await {
            Either::Left(_) => Ok(()),
            Either::Right(_) => Err("told to stop".into()),
        }
    }
}

pub(super) type Handled = Result<(), BoxError>;

#[derive(Clone, Copy)]
pub(super) enum Part {
    Handler(u32),
    Message(u32),
    Source(usize),
    State(Effect),
    Attempt(Effect),
}

/// Notes that a part is dropped, and comes to a point then.
pub(super) struct Guard {
    pub(super) shop: Shop,
    pub(super) part: Part,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let point = match self.part {
            Part::Handler(number) => {
                self.shop.book().in_flight.remove(&number);
                format!("<drop of handler {number}>")
            }
            Part::Message(number) => format!("<drop of message {number}>"),
            Part::Source(index) => format!("<drop of source {index}>"),
            Part::State(effect) => {
                if !self.shop.book().gone.insert(effect) {
                    self.shop.book().mistakes.push(format!("{effect:?} was dropped twice"));
                }
                format!("<drop of state {effect:?}>")
            }
            Part::Attempt(effect) => format!("<drop of attempt {effect:?}>"),
        };
        // A second panic while the first one unwinds would end the process.
        if !std::thread::panicking() {
            let never = self.shop.faults.pass(&point, false);
            debug_assert!(never.is_ok(), "no error is tried here");
        }
    }
}

pub(super) struct Message {
    pub(super) number: u32,
    #[expect(dead_code, reason = "it is there to be dropped")]
    pub(super) guard: Option<Guard>,
}

/// What a drain keeps of a message for its letter can be dropped like anything.
impl Clone for Message {
    fn clone(&self) -> Self {
        Self { number: self.number, guard: None }
    }
}
