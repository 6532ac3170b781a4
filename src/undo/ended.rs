//! What has become of the actions of a run.

use super::column::Withdrawn;
use super::columns::Columns;
use super::given_up::{Elsewhere, Since};
use super::report::FailedAction;
use super::single::ActionEnd;

/// What has ended since the session was last told.
#[derive(Default)]
pub(super) struct EndedActions {
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

impl EndedActions {
    #[inline]
    pub(super) fn add(&mut self, result: Result<(), Box<ActionEnd>>) {
        match result {
            Ok(()) => self.succeeded += 1,
            Err(ended) => self.add_ended(*ended),
        }
    }

    #[cold]
    pub(super) fn add_ended(&mut self, ended: ActionEnd) {
        match ended {
            ActionEnd::Failed { mut action, failure, elsewhere } => {
                match elsewhere {
                    Some(elsewhere) => self.elsewhere.push((elsewhere, action)),
                    None => self.failed.append(&mut action),
                }
                self.failures.push(failure);
            }
            ActionEnd::Stopped { mut action, again: None } => self.stopped.append(&mut action),
            ActionEnd::Stopped { action, again: Some(since) } => {
                self.again.push((since, action));
            }
            ActionEnd::Undone(number) => {
                self.succeeded += 1;
                self.undone.push(number);
            }
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.succeeded + self.failures.len() + self.stopped.len() + self.again.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes out those that were disarmed, or have succeeded, while they were out of reach.
    pub(super) fn withdraw_over(&mut self, withdrawn: &mut Withdrawn) {
        self.failed.withdraw_over(withdrawn);
        let again = self.again.iter_mut().map(|(_, action)| action);
        let elsewhere = self.elsewhere.iter_mut().map(|(_, action)| action);
        again.chain(elsewhere).for_each(|action| action.withdraw_over(withdrawn));
    }
}
