//! The end of a drain: what is left is dropped or put back, what was staged is committed or kept,
//! and the errors are gathered.

use super::accounts::Accounts;
use super::order::BusyKeys;
use super::report::FanInReport;
use super::running::RunningDrain;
use super::settings::Commit;
use super::state::{DrainPhase, Failures, State};
use super::types::{DrainTypes, Drains};
use crate::diagnostics::COUNTERS;
use crate::error::{Error, ErrorCode, Failure};
use crate::panics;
use crate::undo::DrainScope;

type Finished = Result<FanInReport, Failure<FanInReport>>;

impl<C: Drains> RunningDrain<C> {
    /// Drops what is left, commits or gathers the errors, and counts the result.
    pub(super) fn finish(mut self: Box<Self>, mut result: Result<(), Error>) -> Finished {
        self.handlers_hear(&result);
        let mut report = self.open_report();
        let (mut related, mut more) = (Vec::new(), 0);
        if let Some(mut state) = self.close() {
            report.settlements = self.leave_transports(&mut state);
            let commit = state.commit;
            let StateParts { mut accounts, failures, scope, drop_users } = take_apart(*state);
            related = failures.first;
            related.extend(drop_users().iter().map(|text| Error::panic("a destructor", text)));
            more = failures.more;
            accounts.close(&mut report);
            report.late = scope.late();
            if result.is_ok() && related.is_empty() && commit == Commit::Pipeline {
                scope.commit();
            } else {
                scope.keep();
            }
        }
        if result.is_ok() && !related.is_empty() {
            result = Err(related.remove(0));
        }
        COUNTERS.drain_time.record(report.elapsed);
        self.span.end(result.as_ref().copied());
        if let Some(progress) = &self.progress {
            progress.finish(&report);
        }
        let Err(error) = result else {
            COUNTERS.drains_succeeded.add(1);
            return Ok(report);
        };
        match error.code() {
            ErrorCode::Timeout if error.origin().is_none() => COUNTERS.drains_timed_out.add(1),
            ErrorCode::Canceled if error.origin().is_none() => COUNTERS.drains_cancelled.add(1),
            _ => COUNTERS.drains_failed.add(1),
        }
        Err(Failure::new(describe(error, &report, related, more), report))
    }

    /// The report of a drain that has ended, before its accounts are closed.
    fn open_report(&mut self) -> FanInReport {
        let warnings = std::mem::take(&mut self.warnings);
        let elapsed = panics::contain(|| self.shared.now().since(self.started));
        FanInReport { warnings, elapsed: elapsed.unwrap_or_default(), ..FanInReport::default() }
    }

    /// Whoever still works for a handler hears that the drain is gone.
    fn handlers_hear(&self, result: &Result<(), Error>) {
        if result.is_err() {
            self.handlers.cancel();
        }
    }

    /// Drops what is in flight, puts back what is held, and takes everything apart.
    fn close(&mut self) -> Option<Box<State<C>>> {
        self.refuse_sources();
        let mut state = self.shared.take()?;
        state.phase = DrainPhase::Stopping;
        for bank in &mut self.banks {
            bank.abandon(&mut state);
        }
        state.slots.clear();
        panics::drop_each(state.keys.take_all());
        self.banks.clear();
        panics::drop_each(self.grace.take());
        panics::drop_each(self.finish.take());
        panics::drop_each(self.pace.take());
        Some(state)
    }

    /// Nobody waits for the result.
    pub(super) fn end_dropped(mut self: Box<Self>) {
        self.handlers.cancel();
        let mut report = self.open_report();
        if let Some(mut state) = self.close() {
            report.settlements = self.leave_transports(&mut state);
            let StateParts { mut accounts, scope, drop_users, .. } = take_apart(*state);
            accounts.close(&mut report);
            report.late = scope.late();
            scope.keep();
            if let Some(progress) = &self.progress {
                progress.finish(&report);
            }
            COUNTERS.contained_panics.add(drop_users().len() as u64);
        }
        COUNTERS.drains_dropped.add(1);
    }
}

/// A drain's state in parts.
struct StateParts<D> {
    accounts: Accounts,
    failures: Failures,
    scope: DrainScope,
    /// Drops the user's functions, each however the others end; returns their panics.
    drop_users: D,
}

fn take_apart<C: Drains>(state: State<C>) -> StateParts<impl FnOnce() -> Vec<String>> {
    let State { accounts, failures, scope, handler, letters, put_back, order, undos, .. } = state;
    let drop_users = move || drop_functions::<C>(handler, letters, put_back, order, undos);
    StateParts { accounts, failures, scope, drop_users }
}

/// Drops the user's functions, each however the others end; returns their panics.
pub(super) fn drop_functions<C: DrainTypes>(
    handler: C::Handler,
    letters: C::Letters,
    put_back: C::PutBack,
    order: C::Order,
    undos: C::Undos,
) -> Vec<String> {
    let dropped = [
        panics::contain(|| drop(handler)),
        panics::contain(|| drop(letters)),
        panics::contain(|| drop(put_back)),
        panics::contain(|| drop(order)),
        panics::contain(|| drop(undos)),
    ];
    dropped.into_iter().filter_map(Result::err).collect()
}

/// The error of a drain, with what came beside its cause.
fn describe(error: Error, report: &FanInReport, mut related: Vec<Error>, more: u64) -> Error {
    related
        .sort_by_key(|error| error.origin().map(|origin| (origin.source.index(), origin.message)));
    let mut error = error.with_metadata("handled", report.handled());
    let counts = [
        ("dropped_handlers", report.dropped.handlers),
        ("dropped_rollbacks", report.dropped.rollbacks),
        ("dropped_letters", report.dropped.letters),
        ("unfinished", report.unfinished()),
    ];
    for (key, count) in counts {
        // A nested drain may have said how many were dropped there.
        error = error.without_metadata(key);
        if count > 0 {
            error = error.with_metadata(key, count);
        }
    }
    error.with_related(related).with_more_related(more)
}
