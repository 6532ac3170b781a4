//! Failing at each point of a scenario.

use std::sync::Arc;

use crate::error::BoxError;

use crate::lock::Lock;

/// What happens at the point that fails.
///
/// ```
/// use watershed::testing::Fault;
/// assert_ne!(Fault::Error, Fault::Panic);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// [`FaultPoints::reach`] returns an error.
    Error,
    /// [`FaultPoints::reach`] panics.
    Panic,
}

/// Runs a scenario once without a fault, and then once for every point that it reaches and each
/// kind of [`Fault`], with that fault at that point. Returns the names of the points, in the order
/// in which they were reached.
///
/// # Panics
///
/// As the scenario does; and when a run does not come to the point that it should fail at, so that
/// it proves nothing.
///
/// ```
/// use watershed::testing::{Ledger, Simulation, for_every_fault};
/// use watershed::{BoxError, CompensationPolicy, fan_in};
///
/// let points = for_every_fault(|faults| {
///     let simulation = Simulation::new(7);
///     let world = simulation.world();
///     let (context, ledger) = (world.context("orders"), Ledger::new());
///     let orders = world.script("orders").items(["tea", "coffee"]);
///     let drain = fan_in(&context, [orders], async |order, step| {
///         faults.reach(format!("{order}: before the token"))?;
///         ledger.apply(&step, format!("token {order}"));
///         faults.reach(format!("{order}: after the token"))?;
///         Ok::<_, BoxError>(())
///     });
///     if simulation.run(drain).unwrap().is_ok() {
///         assert_eq!(faults.fired(), None);
///         ledger.commit_open();
///     } else {
///         assert!(faults.fired().is_some());
///         let rollback = context.roll_back(&CompensationPolicy::sequential_reverse());
///         simulation.run(rollback).unwrap().unwrap();
///     }
///     ledger.check().unwrap();
/// });
/// assert_eq!(points.len(), 4);
/// assert_eq!(points[3], "coffee: after the token");
/// ```
pub fn for_every_fault(mut scenario: impl FnMut(&FaultPoints)) -> Vec<String> {
    let clean = FaultPoints::new(None);
    scenario(&clean);
    let points = std::mem::take(&mut clean.shared.lock().reached);
    for (index, (name, kinds)) in points.iter().enumerate() {
        for &fault in *kinds {
            let faults = FaultPoints::new(Some((index, fault)));
            scenario(&faults);
            let fired = faults.fired();
            assert_eq!(fired.as_ref(), Some(name), "the fault did not fire where it should");
        }
    }
    points.into_iter().map(|(name, _)| name).collect()
}

/// The points at which a scenario can fail, see [`for_every_fault`]. Clones are the same points.
///
/// ```
/// watershed::testing::for_every_fault(|faults| {
///     let fake = std::panic::catch_unwind(|| faults.reach("the insert"));
///     assert_eq!(fake.is_ok_and(|result| result.is_ok()), faults.fired().is_none());
/// });
/// ```
#[derive(Clone, Debug)]
pub struct FaultPoints {
    target: Option<(usize, Fault)>,
    shared: Arc<FaultShared>,
}

type FaultShared = Lock<Reached>;

#[derive(Debug, Default)]
struct Reached {
    reached: Vec<(String, &'static [Fault])>,
    fired: Option<String>,
}

impl FaultPoints {
    fn new(target: Option<(usize, Fault)>) -> Self {
        Self { target, shared: Arc::default() }
    }

    /// Says that the scenario has come to a point at which it can fail.
    ///
    /// # Errors
    ///
    /// "injected at: " and the point, when this is the one that fails.
    ///
    /// # Panics
    ///
    /// When this is the point that panics.
    ///
    /// ```
    /// watershed::testing::for_every_fault(|faults| {
    ///     let outcome = std::panic::catch_unwind(|| faults.reach("the insert"));
    ///     # drop(outcome);
    /// });
    /// ```
    pub fn reach(&self, point: impl Into<String>) -> Result<(), BoxError> {
        self.pass(&point.into(), &[Fault::Error, Fault::Panic])
    }

    /// Says that the scenario has come to a point at which it can only panic: where nobody can be
    /// told of an error, as in a destructor.
    ///
    /// # Panics
    ///
    /// When this is the point that panics.
    ///
    /// ```
    /// use watershed::testing::{FaultPoints, for_every_fault};
    ///
    /// struct Lease(FaultPoints);
    ///
    /// impl Drop for Lease {
    ///     fn drop(&mut self) {
    ///         self.0.reach_infallible("the end of the lease");
    ///     }
    /// }
    ///
    /// let mut runs = 0;
    /// for_every_fault(|faults| {
    ///     let ended = std::panic::catch_unwind(|| drop(Lease(faults.clone())));
    ///     assert_eq!(ended.is_err(), faults.fired().is_some());
    ///     runs += 1;
    /// });
    /// assert_eq!(runs, 2);
    /// ```
    pub fn reach_infallible(&self, point: impl Into<String>) {
        let passed = self.pass(&point.into(), &[Fault::Panic]);
        debug_assert!(passed.is_ok(), "no error is tried here");
    }

    fn pass(&self, point: &str, kinds: &'static [Fault]) -> Result<(), BoxError> {
        let fault = {
            let mut shared = self.shared.lock();
            let fault = self.target.filter(|(index, _)| *index == shared.reached.len());
            shared.reached.push((point.to_owned(), kinds));
            if fault.is_some() {
                shared.fired = Some(point.to_owned());
            }
            fault
        };
        match fault {
            None => Ok(()),
            Some((_, Fault::Error)) => Err(format!("injected at: {point}").into()),
            Some((_, Fault::Panic)) => std::panic::panic_any(format!("injected at: {point}")),
        }
    }

    /// The point that failed in this run.
    ///
    /// ```
    /// watershed::testing::for_every_fault(|faults| assert_eq!(faults.fired(), None));
    /// ```
    #[must_use]
    pub fn fired(&self) -> Option<String> {
        self.shared.lock().fired.clone()
    }

    /// The fault of this run; none in the first.
    ///
    /// ```
    /// watershed::testing::for_every_fault(|faults| assert_eq!(faults.fault(), None));
    /// ```
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.target.map(|(_, fault)| fault)
    }
}
