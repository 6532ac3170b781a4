//! An action that comes after others: it is run when nothing else is, and only once they are gone.
//!
//! What gives a message back must not run before all that was done for the message is undone, also
//! where a policy runs actions at once, and not at all where one of these has failed.

use std::panic::Location;

use super::action::{Action, BoxAttempt};
use super::column::StoredAction;
use super::columns::Columns;
use super::given_up::{Asker, Since};
use super::order;
use super::report::FailedAction;
use super::scope::CompensationScope;
use super::session::Session;
use super::undoing::Undoing;
use crate::error::{Error, ErrorCode};

struct Behind<A> {
    after: Vec<u64>,
    action: A,
}

impl<A: Action> StoredAction for Behind<A> {
    const LAST: bool = true;

    fn comes_after(&self) -> &[u64] {
        &self.after
    }

    fn attempt(&mut self, undoing: &Undoing) -> BoxAttempt {
        Box::pin(self.action.attempt(undoing))
    }

    fn label(&self) -> Option<String> {
        self.action.label().map(ToOwned::to_owned)
    }
}

/// The number of the next action.
pub(crate) fn next_order() -> u64 {
    order::draw()
}

impl CompensationScope {
    /// Stages an action with a number that was drawn before those of all that it comes after, which
    /// are here.
    #[track_caller]
    pub(crate) fn stage_behind(&self, number: u64, action: impl Action) {
        let registered_at = Location::caller();
        let wakers = self.inner.look(|state| {
            if let Some(session) = &mut state.session {
                session.given_up.take(&mut state.staged);
            }
            let after = state.staged.numbers_above(number);
            let mut one = Columns::default();
            one.push(number, registered_at, Behind { after, action });
            // Its column may have others already, whose numbers are higher.
            state.staged.append(&mut one);
            self.announced(state)
        });
        super::state::wake(wakers);
    }
}

/// What a rollback is to do about actions that come after others.
pub(super) enum WhoseTurn {
    /// Nothing is special: take so many of the last ones.
    Usual(usize),
    /// Others first, and none of those that run at once comes after anything.
    OthersFirst,
    /// The last one comes after others that are gone.
    Alone,
    /// Nothing may be started before what runs has ended.
    Wait,
}

/// Takes the last of what a rollback is to run although some have given it up, one by one: who else is
/// to. None: nothing is left, or what runs has to end before.
pub(super) fn take_again(
    session: &mut Session,
    asker: Asker,
    idle: bool,
    next: &mut Columns,
) -> Option<Since> {
    loop {
        let (since, actions) = session.given_up.again_for(asker)?;
        let behind = actions.last_of_all(false);
        let after = behind.map(|index| actions.comes_after(index).to_vec());
        if after.is_some() && !idle {
            return None;
        }
        let waits_for = after.filter(|after| session.given_up.contains_any(after));
        let (_, actions) = session.given_up.again_for(asker)?;
        let Some((index, after)) = behind.zip(waits_for) else {
            actions.take_last(1, next);
            return Some(since);
        };
        let mut failed = Columns::default();
        let failure = give_up(actions, index, &mut failed);
        session.given_up.add_behind(&after, failed);
        session.add_failures([failure]);
    }
}

/// Moves an action to what has failed.
fn give_up(from: &mut Columns, index: usize, failed: &mut Columns) -> FailedAction {
    let (number, (label, registered_at)) = (from.number(index), from.describe(index));
    let text = "what comes before it could not be undone";
    let error = Error::new(ErrorCode::Compensation, text);
    from.move_last(index, failed);
    FailedAction { number, label, registered_at, attempts: 0, error }
}

/// Whose turn it is among those that are staged. Actions whose others are still here have failed.
pub(super) fn turn(
    session: &mut Session,
    staged: &mut Columns,
    most: usize,
    at_once: bool,
    idle: bool,
) -> WhoseTurn {
    if !staged.has_last_of_all() {
        return WhoseTurn::Usual(most);
    }
    loop {
        let Some(index) = staged.last_of_all(at_once) else {
            if staged.is_empty() || !at_once {
                return WhoseTurn::Usual(staged.before_last(most).max(1));
            }
            return WhoseTurn::OthersFirst;
        };
        if !idle {
            return WhoseTurn::Wait;
        }
        let after = staged.comes_after(index).to_vec();
        let is_here = staged.contains_any(&after) || session.given_up.contains_any(&after);
        if !is_here {
            return WhoseTurn::Alone;
        }
        let mut failed = Columns::default();
        let failure = give_up(staged, index, &mut failed);
        session.given_up.add_behind(&after, failed);
        session.add_failures([failure]);
        if staged.is_empty() {
            return WhoseTurn::Usual(0);
        }
    }
}
