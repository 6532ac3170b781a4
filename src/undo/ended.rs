//! What has become of the actions of a run.

use super::columns::Columns;
use super::given_up::{Elsewhere, Since};
use super::report::FailedAction;
use super::single::Outcome;

/// What has ended since the session was last told.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) succeeded: usize,
    pub(super) failed: Columns,
    /// Those that have failed because they live where the rollback was not given anything.
    pub(super) elsewhere: Vec<(Elsewhere, Columns)>,
    pub(super) failures: Vec<FailedAction>,
    /// Actions that were stopped, to be staged again.
    pub(super) stopped: Columns,
    /// Those of them that some have given up.
    pub(super) again: Vec<(Since, Columns)>,
    /// What succeeded although some had given it up.
    pub(super) undone: Vec<u64>,
}

impl Ended {
    #[inline]
    pub(super) fn add(&mut self, result: Result<(), Box<Outcome>>) {
        match result {
            Ok(()) => self.succeeded += 1,
            Err(ended) => self.add_ended(*ended),
        }
    }

    #[cold]
    pub(super) fn add_ended(&mut self, ended: Outcome) {
        match ended {
            Outcome::Failed { mut action, failure, elsewhere } => {
                match elsewhere {
                    Some(elsewhere) => self.elsewhere.push((elsewhere, action)),
                    None => self.failed.append(&mut action),
                }
                self.failures.push(failure);
            }
            Outcome::Stopped { mut action, again: None } => self.stopped.append(&mut action),
            Outcome::Stopped { action, again: Some(since) } => {
                self.again.push((since, action));
            }
            Outcome::Undone(number) => {
                self.succeeded += 1;
                self.undone.push(number);
            }
        }
    }

    /// How many are to be staged again.
    pub(super) fn to_stage(&self) -> usize {
        self.stopped.len() + self.again.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.succeeded == 0 && self.failures.is_empty() && self.to_stage() == 0
    }
}
