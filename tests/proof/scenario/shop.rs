//! What happens in the scenario, noted as it does.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::FutureExt;
use futures::future::{Either, select};
use watershed::testing::{FaultPoints, Ledger, World};
use watershed::{Action, BoxError, ErrorCode, StepContext, labelled};

use super::{Case, Effect, Message};
use crate::guarded::Guarded;

/// What the handlers talk to, and everything that happened there. Clones are the same shop.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(super) world: World,
    pub(super) ledger: Ledger<Effect>,
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) faults: Option<FaultPoints>,
}

/// What happened, in order.
#[derive(Default)]
pub(crate) struct Book {
    /// Messages whose handler was called, and whose handler returned `Ok`, or `Err`.
    pub(crate) started: Vec<u32>,
    /// Messages whose handler was called when the drain had a reason to end.
    pub(super) late: Vec<u32>,
    pub(crate) accepted: Vec<u32>,
    pub(crate) failed: Vec<u32>,
    pub(super) in_flight: usize,
    /// The most handlers that ran at once.
    pub(crate) most_in_flight: usize,
    /// Whether the declined message failed before the fault fired.
    pub(super) declined_first: bool,
    pub(super) registered: Vec<Effect>,
    pub(super) withdrawn: BTreeSet<Effect>,
    /// Compensations that began, and that came to their end.
    pub(super) begun: Vec<Effect>,
    pub(crate) undone: Vec<Effect>,
    /// Messages that were rolled back alone, and whether that went well.
    pub(super) dead_letters: Vec<Letter>,
    /// No further point fails: what comes now is the test itself.
    pub(super) over: bool,
}

/// A message that was rolled back alone.
pub(super) struct Letter {
    pub(super) number: u32,
    pub(super) code: ErrorCode,
    /// How many errors it told of.
    pub(super) told: usize,
    pub(super) undone: bool,
}

impl Shop {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic under the lock")
    }

    /// Comes to a point that may fail.
    pub(crate) fn reach(&self, point: impl Into<String>) -> Result<(), BoxError> {
        match &self.faults {
            Some(faults) if !self.book().over => faults.reach(point),
            _ => Ok(()),
        }
    }

    pub(super) fn guard(&self, point: impl Into<String>) -> Guard {
        Guard { shop: self.clone(), point: point.into() }
    }

    /// The compensation of an effect. One that was reserved may find nothing to undo.
    pub(super) fn undoing(&self, effect: Effect, reserved: bool) -> impl Action {
        let (shop, state) = (self.clone(), self.guard(format!("state of {effect:?}")));
        let action = move || {
            shop.book().begun.push(effect);
            let called = state.shop.reach(format!("action {effect:?} called"));
            let (shop, pause) = (shop.clone(), shop.world.pause());
            let future = async move {
                called?;
                pause.await;
                shop.reach(format!("action {effect:?} polled"))?;
                shop.book().undone.push(effect);
                if !reserved || shop.ledger.open().contains(&effect) {
                    shop.ledger.undone(effect);
                }
                Ok::<_, BoxError>(())
            };
            Guarded(future.boxed(), state.shop.guard(format!("attempt of {effect:?}")))
        };
        labelled(format!("{effect:?}"), action)
    }

    pub(super) async fn handle(
        self,
        message: Message,
        called: Called,
        case: Case,
        step: StepContext,
    ) -> Handled {
        let number = message.number;
        called?;
        self.pause(number, &step).await?;
        self.reach(format!("handler {number} before its effect"))?;
        self.ledger.done((number, 0));
        self.book().registered.push((number, 0));
        step.register_compensation(self.undoing((number, 0), false));
        self.pause(number, &step).await?;
        self.reach(format!("handler {number} behind its effect"))?;
        self.book().registered.push((number, 1));
        let reservation = step.reserve(self.undoing((number, 1), true));
        self.pause(number, &step).await?;
        self.reach(format!("handler {number} with a reservation"))?;
        if number % 3 == 0 {
            self.book().withdrawn.insert((number, 1));
            assert!(reservation.disarm(), "it is staged");
        } else {
            self.ledger.done((number, 1));
            drop(reservation);
        }
        self.pause(number, &step).await?;
        self.reach(format!("handler {number} at its end"))?;
        if case.declines && number == 2 {
            let mut book = self.book();
            book.declined_first =
                self.faults.as_ref().is_none_or(|faults| faults.fired().is_none());
            return Err("declined".into());
        }
        drop(message);
        Ok(())
    }

    /// Waits as the seed wants it; every other message gives up when it is told to stop.
    pub(super) async fn pause(&self, number: u32, step: &StepContext) -> Handled {
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

pub(super) type Called = Result<(), BoxError>;
pub(super) type Handled = Result<(), BoxError>;

/// Comes to a point when it is dropped.
pub(super) struct Guard {
    pub(super) shop: Shop,
    pub(super) point: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(faults) = &self.shop.faults {
            if !self.shop.book().over {
                faults.reach_infallible(format!("drop of {}", self.point));
            }
        }
    }
}

/// A handler that has not ended.
pub(super) struct InFlight(pub(super) Shop);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.book().in_flight -= 1;
    }
}
