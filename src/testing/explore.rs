//! Looking for a seed that breaks something.

use std::fmt;

use super::simulation::Simulation;
use super::trace::Event;
use crate::error::BoxError;
use crate::panics;

/// Runs a scenario once for every seed. Returns the number of runs.
///
/// # Errors
///
/// [`Finding`], for the first seed whose run fails or panics.
///
/// ```
/// use watershed::testing::{Simulation, explore};
///
/// let scenario = |simulation: &Simulation| {
///     if simulation.world().below(20) == 0 { Err("unlucky") } else { Ok(()) }
/// };
/// let finding = explore(0..1_000, scenario).unwrap_err();
/// assert!(finding.to_string().starts_with("seed "));
/// let again = explore([finding.seed()], scenario).unwrap_err();
/// assert_eq!(again.trace(), finding.trace());
/// ```
pub fn explore<E: Into<BoxError>>(
    seeds: impl IntoIterator<Item = u64>,
    mut scenario: impl FnMut(&Simulation) -> Result<(), E>,
) -> Result<u64, Finding> {
    let mut runs = 0;
    for seed in seeds {
        let simulation = Simulation::new(seed);
        let cause = match panics::contain(|| scenario(&simulation)) {
            Ok(Ok(())) => {
                runs += 1;
                continue;
            }
            Ok(Err(error)) => error.into(),
            Err(panic) => format!("panic: {panic}").into(),
        };
        return Err(Finding { seed, cause, trace: simulation.world().trace() });
    }
    Ok(runs)
}

/// A seed that breaks a scenario, see [`explore`].
///
/// ```
/// let finding = watershed::testing::explore([7], |_| Err("it broke")).unwrap_err();
/// assert_eq!(finding.to_string(), "seed 7: it broke");
/// ```
pub struct Finding {
    seed: u64,
    cause: BoxError,
    trace: Vec<Event>,
}

impl Finding {
    /// The seed, which gives the same run again.
    ///
    /// ```
    /// let finding = watershed::testing::explore([7], |_| Err("it broke")).unwrap_err();
    /// assert_eq!(finding.seed(), 7);
    /// ```
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What happened in the run.
    ///
    /// ```
    /// let finding = watershed::testing::explore([7], |simulation| {
    ///     simulation.world().note("so far, so good");
    ///     Err("it broke")
    /// });
    /// assert_eq!(finding.unwrap_err().trace().len(), 1);
    /// ```
    #[must_use]
    pub fn trace(&self) -> &[Event] {
        &self.trace
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.cause)
    }
}

/// The seed, the cause and the trace, a line an event.
impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        self.trace.iter().try_for_each(|event| write!(f, "\n{event}"))
    }
}

impl std::error::Error for Finding {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause)
    }
}
