//! The scenario that is dropped, cancelled and made to fail at every point, and its accounts.
//!
//! Every message does one effect and registers its compensation behind it, reserves the
//! compensation of a second one and does that, and pauses in between. Some withdraw the
//! reservation, some heed the cancellation, and one may be declined at the end. All that happens is
//! noted in the [`Shop`], whose points can fail. [`Scenario::settle`] rolls back what is left, and
//! compares what became of every message and every effect with what the rules say.

mod shop;

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Once, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::{FutureExt, Stream, TryFutureExt};
use watershed::testing::{Fault, FaultPoints, Ledger, Script, Simulation};
use watershed::{
    BoxError, CancellationSource, CancellationToken, Clock, Commit, CompensationPolicy, Error,
    ErrorCode, Failure, FanInReport, OnFailure, RollbackReport, Source, StepContext, fan_in,
};

use crate::guarded::Guarded;
pub(crate) use shop::Shop;
use shop::{Book, Guard, InFlight, Letter};

pub(crate) type Ended = Result<FanInReport, Error>;

/// An effect: the message that did it, and which of its effects it is.
pub(crate) type Effect = (u32, u32);

/// What is varied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) handlers: usize,
    /// Messages of each source, of which there is one more than handlers.
    pub(crate) messages: u32,
    pub(crate) commit: Commit,
    pub(crate) on_failure: OnFailure,
    pub(crate) strict_wakers: bool,
    /// One message fails by itself.
    pub(crate) declines: bool,
    /// The handlers in flight have as long as they like when the drain has to end.
    pub(crate) graceful: bool,
    pub(crate) seed: u64,
}

impl Case {
    /// Every commit and failure mode with 1, 2 and 16 handlers, the rest as the seeds want it.
    pub(crate) fn all(seeds: u64) -> impl Iterator<Item = Self> {
        let handlers = [(1, 3), (2, 2), (16, 2)];
        let commits = [Commit::Pipeline, Commit::Message, Commit::Never];
        let modes = [OnFailure::Abort, OnFailure::Continue];
        let seeds = move |(handlers, messages), commit, on_failure| {
            (0..seeds).map(move |seed| Self {
                handlers,
                messages,
                commit,
                on_failure,
                strict_wakers: seed & 2 != 0,
                declines: seed & 1 == 0,
                graceful: seed & 4 == 0,
                seed,
            })
        };
        let with_mode = move |handlers, commit| {
            modes.into_iter().flat_map(move |mode| seeds(handlers, commit, mode))
        };
        let with_commit =
            move |handlers| commits.into_iter().flat_map(move |commit| with_mode(handlers, commit));
        handlers.into_iter().flat_map(with_commit)
    }
}

pub(crate) struct Message {
    number: u32,
    _guard: Option<Guard>,
}

/// What a drain keeps of a message for its letter can be dropped like anything.
impl Clone for Message {
    fn clone(&self) -> Self {
        Self { number: self.number, _guard: None }
    }
}

/// A script that may fail at each of its polls, and when it is dropped.
pub(crate) struct Fragile {
    script: Script<Message>,
    guard: Guard,
}

impl Stream for Fragile {
    type Item = Result<Message, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Err(fault) = self.guard.shop.reach(format!("poll of {}", self.guard.point)) {
            return Poll::Ready(Some(Err(fault)));
        }
        Pin::new(&mut self.script).poll_next(cx).map(|item| item.map(Ok))
    }
}

pub(crate) struct Scenario {
    pub(crate) case: Case,
    pub(crate) simulation: Simulation,
    pub(crate) context: StepContext,
    pub(crate) stop: CancellationSource,
    pub(crate) shop: Shop,
    scripts: Vec<Script<Message>>,
    count: u32,
}

impl Scenario {
    pub(crate) fn new(case: Case, faults: Option<&FaultPoints>) -> Self {
        let simulation = Simulation::new(case.seed);
        let simulation =
            if case.strict_wakers { simulation.with_strict_wakers() } else { simulation };
        let (world, cancel) = (simulation.world().clone(), CancellationSource::new());
        let context = world.context("orders");
        let context =
            if case.seed % 3 == 0 { context.with_cancellation(cancel.token()) } else { context };
        let (ledger, book, faults) = (Ledger::new(), Arc::default(), faults.cloned());
        let shop = Shop { world: world.clone(), ledger, book, faults };
        let sources = u32::try_from(case.handlers + 1).expect("few sources");
        let message = |number| {
            let guard = shop.guard(format!("message {number}"));
            Message { number, _guard: Some(guard) }
        };
        let script = |source| {
            let numbers = (0..case.messages).map(|turn| turn * sources + source);
            world.script(format!("source {source}")).scattered(numbers.map(message))
        };
        let scripts = (0..sources).map(script).collect();
        let count = sources * case.messages;
        Self { case, simulation, context, stop: cancel, shop, scripts, count }
    }

    /// What tells whether everything of this run is gone.
    pub(crate) fn canaries(&self) -> Canaries {
        let book = Arc::downgrade(&self.shop.book);
        Canaries { book, clock: Arc::downgrade(self.context.clock()) }
    }

    /// The drain, which borrows from nothing but the scenario.
    pub(crate) fn drain(&self) -> LocalBoxFuture<'_, Ended> {
        let Case { handlers, commit, on_failure, graceful, .. } = self.case;
        let fragile = |(index, script): (usize, &Script<Message>)| Fragile {
            script: script.clone(),
            guard: self.shop.guard(format!("source {index}")),
        };
        let sources: Vec<_> =
            self.scripts.iter().enumerate().map(fragile).map(Source::faults).collect();
        let drain = fan_in(&self.context, sources, |message: Message, step| {
            let number = message.number;
            let running = self.note_start(number);
            let called = self.shop.reach(format!("handler {number} called"));
            let handled = self.shop.clone().handle(message, called, self.case, step);
            let shop = &self.shop;
            let noted = async move {
                let _running = running;
                let handled = handled.await;
                let mut book = shop.book();
                let ended = if handled.is_ok() { &mut book.accepted } else { &mut book.failed };
                ended.push(number);
                handled
            };
            Guarded(noted.boxed_local(), shop.guard(format!("handler {number}")))
        });
        let drain = drain
            .dead_letters(|failed: watershed::Letter<Message>| {
                let source =
                    failed.error().source_name().and_then(|name| name.strip_prefix("source "));
                let source: u32 = source.and_then(|source| source.parse().ok()).expect("a source");
                let turn = failed.error().message_number().expect("a message") - 1;
                let sources = u32::try_from(self.scripts.len()).expect("few sources");
                let number = u32::try_from(turn).expect("few messages") * sources + source;
                if let Some(faults) = &self.shop.faults {
                    faults.reach_infallible(format!("dead letter {number}"));
                }
                self.shop.book().dead_letters.push(Letter {
                    number,
                    code: failed.error().code(),
                    told: size(failed.error()),
                    undone: failed.rollback().is_ok(),
                });
                async {}
            })
            .concurrency(handlers)
            .commit(commit)
            .on_failure(on_failure)
            .cancellation(self.stop_of_call())
            .grace(if graceful { Duration::from_secs(5) } else { Duration::ZERO });
        drain.into_future().map_err(Failure::into_error).boxed_local()
    }

    fn note_start(&self, number: u32) -> InFlight {
        let mut book = self.shop.book();
        book.started.push(number);
        book.in_flight += 1;
        book.most_in_flight = book.most_in_flight.max(book.in_flight);
        let aborts = self.case.on_failure == OnFailure::Abort;
        if self.stop.is_cancelled() || aborts && !book.failed.is_empty() {
            book.late.push(number);
        }
        InFlight(self.shop.clone())
    }

    /// The token of the context and that of the call do the same.
    fn stop_of_call(&self) -> CancellationToken {
        if self.case.seed % 3 == 0 { CancellationToken::never() } else { self.stop.token() }
    }

    /// Runs everything that is staged, in reverse.
    pub(crate) fn roll_back(&self) -> Result<RollbackReport, Error> {
        let policy = CompensationPolicy::sequential_reverse();
        let rollback = self.context.scope().roll_back(&policy);
        self.simulation.run(rollback).expect("the rollback ends").map_err(Failure::into_error)
    }

    /// Runs what is left to be undone, and looks at everything that happened: `ended` is how the
    /// drain did, or nothing if it was dropped.
    pub(crate) fn settle(&self, ended: Option<&Ended>) {
        let undone = self.shop.book().undone.len();
        self.settle_after(ended, undone, true);
    }

    /// The same where a rollback of all has undone what is noted behind `before` already, `in_order`
    /// or not.
    pub(crate) fn settle_after(&self, ended: Option<&Ended>, before: usize, in_order: bool) {
        let (mut stuck, staged) = (BTreeSet::new(), self.context.scope().len());
        let (left, most) = {
            let book = self.shop.book();
            (book.in_flight, book.most_in_flight)
        };
        assert!(left == 0 && most <= self.case.handlers, "{left} left, {most} at once");
        match self.roll_back() {
            Ok(report) => assert_eq!(report.succeeded(), staged, "{:?}", self.case),
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::Compensation);
                assert_eq!(error.related().len(), 1, "the action that was made to fail");
                stuck.extend(error.related()[0].metadata("label").map(ToOwned::to_owned));
                assert!(self.fault_is("action"), "{error}");
            }
        }
        assert_eq!(self.context.scope().len(), stuck.len(), "what failed is staged, all else gone");
        self.assert_reverse(before, in_order);
        let retried = |label: &String| {
            self.shop.book().undone.iter().any(|effect| format!("{effect:?}") == *label)
        };
        assert!(!stuck.iter().any(retried));
        self.shop.book().over = true;
        let again = self.roll_back().expect("nothing fails a second time");
        assert_eq!(again.succeeded(), stuck.len());
        assert!(self.context.scope().is_empty());
        // Only what was interrupted or has failed began once more.
        let book = self.shop.book();
        let again = book.begun.len() - book.undone.len();
        assert!(!in_order || again <= self.case.handlers + 1, "{again} began once more");
        drop(book);
        self.check_messages();
        assert_eq!(self.simulation.world().clock().sleepers(), 0, "no wait is left behind");
        self.check_effects(ended);
        if let Some(ended) = ended {
            self.check_end(ended);
        }
    }

    /// The point at which this run fails begins with this.
    pub(crate) fn fault_is(&self, point: &str) -> bool {
        self.fired().is_some_and(|fired| fired.starts_with(point))
    }

    fn panics(&self) -> bool {
        self.shop.faults.as_ref().and_then(FaultPoints::fault) == Some(Fault::Panic)
    }

    /// What was undone in the rollback of all was undone in the reverse of its registration, and
    /// so was what each message undid alone.
    fn assert_reverse(&self, before: usize, in_order: bool) {
        let book = self.shop.book();
        let in_reverse = |undone: &[Effect]| {
            let registered = book.registered.iter().rev().filter(|effect| undone.contains(effect));
            assert!(registered.eq(undone), "{undone:?} of {:?}", book.registered);
        };
        let (alone, together) = book.undone.split_at(before);
        if in_order {
            in_reverse(together);
        }
        for number in 0..self.count {
            let mine: Vec<_> = alone.iter().filter(|effect| effect.0 == number).copied().collect();
            in_reverse(&mine);
        }
    }

    /// Every message was handled or is still in its source, and no source was polled after its end.
    fn check_messages(&self) {
        let mut all = self.shop.book().started.clone();
        assert_eq!(self.shop.book().late, [], "no message is taken when the drain is to end");
        for script in &self.scripts {
            assert_eq!(script.polls_after_end(), 0);
            let rest = script.rest();
            all.extend(rest.iter().map(|message| message.number));
        }
        all.sort_unstable();
        assert_eq!(all, (0..self.count).collect::<Vec<_>>(), "{:?}", self.case);
    }

    /// Messages whose effects are there to stay.
    fn committed(&self, ended: Option<&Ended>) -> BTreeSet<u32> {
        let book = self.shop.book();
        let mut accepted: BTreeSet<u32> = book.accepted.iter().copied().collect();
        // Handlers whose destructor panicked have failed after all.
        if self.panics() {
            accepted.retain(|number| !self.fault_is_exactly(&format!("drop of handler {number}")));
        }
        match (self.case.commit, ended) {
            (Commit::Pipeline, Some(Ok(_))) | (Commit::Message, _) => accepted,
            // The destructor of an action panicked when all were dropped by the commit.
            (Commit::Pipeline, Some(Err(error))) if error.code() == ErrorCode::Panic => {
                if self.fault_is("drop of state") { accepted } else { BTreeSet::new() }
            }
            _ => BTreeSet::new(),
        }
    }

    fn fault_is_exactly(&self, point: &str) -> bool {
        self.fired().as_deref() == Some(point)
    }

    /// Every effect was undone once, or committed.
    fn check_effects(&self, ended: Option<&Ended>) {
        let committed = self.committed(ended);
        let book = self.shop.book();
        let mut expected: Vec<_> = book.registered.clone();
        expected
            .retain(|effect| !book.withdrawn.contains(effect) && !committed.contains(&effect.0));
        expected.sort_unstable();
        let mut undone = book.undone.clone();
        undone.sort_unstable();
        assert_eq!(undone, expected, "{:?}, {ended:?}", self.case);
        for effect in self.shop.ledger.open() {
            assert!(committed.contains(&effect.0), "{effect:?} is neither undone nor committed");
            self.shop.ledger.committed(effect);
        }
        self.shop.ledger.check().expect("every effect came to one end");
    }

    /// The drain ended as it should have, and every failure was told.
    fn check_end(&self, ended: &Ended) {
        let book = self.shop.book();
        let dead = book.dead_letters.len();
        for Letter { number, code, undone, .. } in &book.dead_letters {
            assert!(book.started.contains(number));
            assert!(*undone || self.fault_is("action"), "{number} was not rolled back");
            let handler = format!("handler {number} ");
            let panicked = self.panics()
                && (self.fault_is(&handler)
                    || self.fault_is_exactly(&format!("drop of message {number}"))
                    || self.fault_is_exactly(&format!("drop of handler {number}"))
                    || self.fault_is(&format!("drop of state of ({number},")));
            let declined = book.failed.contains(number);
            let expected =
                if panicked && !declined { ErrorCode::Panic } else { ErrorCode::Handler };
            assert_eq!(*code, expected, "{number} at {:?}", self.fired());
        }
        match ended {
            Ok(report) => {
                assert_eq!(book.started.len(), self.count as usize);
                assert!(self.scripts.iter().all(|script| script.rest().is_empty()));
                let handled = usize::try_from(report.handled()).expect("few");
                assert_eq!(handled + dead, book.started.len());
                assert_eq!(report.failed(), dead as u64);
                assert!(self.case.on_failure == OnFailure::Continue || dead == 0);
            }
            Err(error) => {
                let dropped = error.metadata("dropped_handlers").unwrap_or("0");
                let dropped: usize = dropped.parse().expect("a number");
                assert!(dropped == 0 || !self.case.graceful, "{dropped} dropped in spite of time");
                let handled: usize =
                    error.metadata("handled").unwrap_or("0").parse().expect("a number");
                assert!(handled <= book.accepted.len());
                assert!(handled == book.accepted.len() || self.fault_is("drop of"), "{handled}");
                drop(book);
                self.check_errors(error);
            }
        }
    }

    /// The first failure is the error, and all others are attached to it: none is lost, and none
    /// is told twice.
    fn check_errors(&self, error: &Error) {
        let book = self.shop.book();
        let what = || format!("{error:?}, at {:?} in {:?}", self.fired(), self.case);
        let cancelled =
            usize::from(self.stop.is_cancelled() && error.code() == ErrorCode::Canceled);
        // What panicked has not returned; what returned an error is among the failed.
        let in_drain =
            ["handler", "dead letter", "drop of handler", "drop of message", "drop of source"];
        let source = self.fault_is("poll of source");
        let panic = self.panics() && in_drain.iter().any(|point| self.fault_is(point));
        let expected = book.failed.len() + usize::from(source || panic) + cancelled;
        let told = size(error) + book.dead_letters.iter().map(|letter| letter.told).sum::<usize>();
        // The state of an action is dropped by a commit, where it fails, or by a rollback.
        let by_commit = usize::from(self.panics() && self.fault_is("drop of state"));
        assert!(
            (expected..=expected + by_commit).contains(&told),
            "{told} of {expected}: {}",
            what()
        );

        let code = match (self.panics(), source) {
            (true, _) if source || panic => ErrorCode::Panic,
            (false, true) => ErrorCode::Source,
            _ => ErrorCode::Handler,
        };
        let aborts = self.case.on_failure == OnFailure::Abort;
        let later = self.fault_is("drop of") || cancelled > 0;
        if aborts && book.declined_first && book.failed.contains(&2) && cancelled == 0 {
            assert_eq!(error.code(), ErrorCode::Handler, "{}", what());
        } else if self.fault_is("dead letter") && cancelled == 0 {
            // Rule 3.8: both errors, that of the message first.
            assert_eq!(error.code(), ErrorCode::Handler, "{}", what());
            assert_eq!(error.related()[0].code(), ErrorCode::Panic, "{}", what());
        } else if !later && (aborts || source) {
            assert_eq!(error.code(), code, "{}", what());
        }
    }

    fn fired(&self) -> Option<String> {
        self.shop.faults.as_ref().and_then(FaultPoints::fired)
    }
}

/// What every part of a run holds on to: handlers, messages, sources and actions the book, contexts
/// and limits the clock.
pub(crate) struct Canaries {
    book: Weak<Mutex<Book>>,
    clock: Weak<dyn Clock>,
}

impl Canaries {
    pub(crate) fn is_gone(&self) -> bool {
        self.book.strong_count() == 0 && self.clock.strong_count() == 0
    }
}

/// How many errors there are in one.
fn size(error: &Error) -> usize {
    1 + error.related().iter().map(size).sum::<usize>()
}

/// Keeps the panics that tests cause on purpose off the screen.
pub(crate) fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload().downcast_ref::<String>();
            if !text.is_some_and(|text| text.starts_with("injected at: ")) {
                usual(panic);
            }
        }));
    });
}
