//! The points of one run that can fail, and those that are to: several in one run.

use std::sync::{Arc, Mutex, MutexGuard};

use watershed::BoxError;
use watershed::testing::Fault;

/// The points of one run that can fail, and those that are to.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Mutex<Points>>);

#[derive(Default)]
struct Points {
    targets: Vec<(usize, Fault)>,
    /// The points so far, and whether they can return an error.
    reached: Vec<(String, bool)>,
    fired: Vec<String>,
    over: bool,
}

impl Faults {
    pub(crate) fn at(targets: impl IntoIterator<Item = (usize, Fault)>) -> Self {
        let targets = targets.into_iter().collect();
        Self(Arc::new(Mutex::new(Points { targets, ..Points::default() })))
    }

    fn points(&self) -> MutexGuard<'_, Points> {
        self.0.lock().expect("no panic under the lock")
    }

    pub(crate) fn reached(&self) -> Vec<(String, bool)> {
        self.points().reached.clone()
    }

    pub(crate) fn fired(&self) -> Vec<String> {
        self.points().fired.clone()
    }

    /// Ends the faults of this run, or begins them again.
    pub(super) fn set_over(&self, over: bool) {
        self.points().over = over;
    }

    pub(super) fn is_fired(&self, point: &str) -> bool {
        self.points().fired.iter().any(|fired| fired == point)
    }

    pub(super) fn pass(&self, point: &str, fallible: bool) -> Result<(), BoxError> {
        let mut points = self.points();
        if points.over {
            return Ok(());
        }
        let index = points.reached.len();
        points.reached.push((point.to_owned(), fallible));
        let target = points.targets.iter().find(|(target, _)| *target == index);
        let Some(fault) = target.map(|(_, fault)| *fault) else { return Ok(()) };
        points.fired.push(point.to_owned());
        drop(points);
        match fault {
            Fault::Error => Err(format!("injected at: {point}").into()),
            Fault::Panic => std::panic::panic_any(format!("injected at: {point}")),
        }
    }
}
