//! The sources of a mixture, and its drain.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::{FutureExt, Stream, TryFutureExt};
use watershed::channels::{LiveSources, SourceHandle, live};
use watershed::testing::{Ledger, Script, Simulation};
use watershed::{
    BoxError, CancellationSource, CancellationToken, Clock, CompensationPolicy, Error, Failure,
    FanIn, FanInReport, Letter, OnFailure, Rollback, Source, StepContext, Tick, fan_in,
};

use super::accounts::texts;
use super::shop::{Book, Guard, Handled, Message, Part, Shop};
use super::{Faults, Feeding, KEYS, Mixture, PER_SOURCE};
use crate::guarded::Guarded;

pub(crate) type Ended = Result<FanInReport, Error>;

/// A script that may fail at each of its polls, and when it is dropped.
struct Fragile {
    index: usize,
    script: Script<Message>,
    guard: Guard,
}

impl Stream for Fragile {
    type Item = Result<Message, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Err(fault) = self.guard.shop.reach(&format!("<poll of source {}>", self.index)) {
            return Poll::Ready(Some(Err(fault)));
        }
        Pin::new(&mut self.script).poll_next(cx).map(|item| item.map(Ok))
    }
}

/// What a handler does with the sources of a live drain, a step at each of its first calls.
struct Conductor<S> {
    live: Option<LiveSources<S>>,
    waiting: Vec<S>,
    handles: Vec<SourceHandle<S>>,
    calls: u32,
}

impl<S: Source> Conductor<S> {
    fn step(&mut self) {
        self.calls += 1;
        match self.calls {
            1 => {
                for source in self.waiting.drain(..) {
                    let added = self.live.as_ref().and_then(|live| live.add(source).ok());
                    self.handles.extend(added);
                }
                self.handles[1].pause();
            }
            2 => drop(self.handles[1].resume()),
            3 => {
                self.live = None;
                drop(self.handles[2].remove().now_or_never());
            }
            _ => {}
        }
    }
}

type Handler<'a> = Box<dyn FnMut(Message, StepContext) -> LocalBoxFuture<'a, Handled> + 'a>;

/// One run of a mixture.
pub(crate) struct Run {
    pub(super) case: Mixture,
    pub(crate) simulation: Simulation,
    pub(crate) context: StepContext,
    pub(crate) stop: CancellationSource,
    pub(super) shop: Shop,
    pub(super) scripts: Vec<Script<Message>>,
    pub(super) numbers: Vec<u32>,
}

impl Run {
    pub(crate) fn new(case: Mixture, faults: &Faults) -> Self {
        let simulation = Simulation::new(case.seed);
        let simulation =
            if case.seed % 4 == 1 { simulation.with_strict_wakers() } else { simulation };
        let world = simulation.world().clone();
        let context = world.context("mixture");
        let shop = Shop {
            world: world.clone(),
            ledger: Ledger::new(),
            book: Arc::default(),
            faults: faults.clone(),
            calm: case.calm,
            shift: u32::try_from(case.seed % 11).expect("small"),
        };
        let (mut scripts, mut numbers) = (Vec::new(), Vec::new());
        for source in 0..if case.calm { 3 } else { 6 } {
            let count = match (case.calm, source) {
                (_, 5) => 0,
                (true, _) => 2,
                (false, _) => 4,
            };
            let own = (0..count).map(|turn| source * PER_SOURCE + turn);
            numbers.extend(own.clone());
            let message =
                |number| Message { number, guard: Some(shop.guard(Part::Message(number))) };
            let script = world.script(format!("source {source}"));
            scripts.push(match source {
                0 => script.items(own.map(message)),
                1 => script.scattered(own.map(message)),
                2 => own.fold(script, |script, number| {
                    script.wait(Duration::from_millis(2)).item(message(number))
                }),
                3 => own.fold(script, |script, number| {
                    script.stray_wakes(2).pending(1).item(message(number))
                }),
                // It ends only when its drain does.
                4 if case.timeout().is_some() => script.items(own.map(message)).never(),
                4 => script.pending(9).items(own.map(message)),
                _ => script,
            });
        }
        Self { case, simulation, context, stop: CancellationSource::new(), shop, scripts, numbers }
    }

    /// What tells whether everything of this run is gone.
    pub(crate) fn canaries(&self) -> impl Fn() -> bool + use<> {
        let (book, clock): (Weak<Mutex<Book>>, Weak<dyn Clock>) =
            (Arc::downgrade(&self.shop.book), Arc::downgrade(self.context.clock()));
        move || book.strong_count() == 0 && clock.strong_count() == 0
    }

    pub(crate) fn drain(&self) -> LocalBoxFuture<'_, Ended> {
        let source = |(index, script): (usize, &Script<Message>)| {
            let guard = self.shop.guard(Part::Source(index));
            let fragile = Fragile { index, script: script.clone(), guard };
            fragile.faults().named(format!("source {index}"))
        };
        let mut sources: Vec<_> = self.scripts.iter().enumerate().map(source).collect();
        let on_failure = self.case.on_failure;
        let letters = |letter: Letter<Message>| {
            self.note_letter(&letter);
            std::future::ready(())
        };
        let drained = match self.case.feeding {
            Feeding::Plain => {
                let drain = self.options(fan_in(&self.context, sources, self.handler(|| ())));
                drain.dead_letters(letters).on_failure(on_failure).into_future().boxed_local()
            }
            Feeding::Ordered => {
                let shop = self.shop.clone();
                let drain = self.options(fan_in(&self.context, sources, self.handler(|| ())));
                let drain = drain.ordered_by(|message: &Message| message.number % KEYS);
                let drain = drain.put_back(move |_, message: Message| {
                    shop.book().put_back.push(message.number);
                });
                drain.dead_letters(letters).on_failure(on_failure).into_future().boxed_local()
            }
            Feeding::Live => {
                let (live, incoming) = live();
                let waiting = sources.split_off(1);
                let first = sources.remove(0);
                let handles = live.add(first).into_iter().collect();
                let mut conductor = Conductor { live: Some(live), waiting, handles, calls: 0 };
                let conducted = self.handler(move || conductor.step());
                let drain = self.options(fan_in(&self.context, [], conducted)).incoming(incoming);
                drain.dead_letters(letters).on_failure(on_failure).into_future().boxed_local()
            }
        };
        drained.map_err(Failure::into_error).boxed_local()
    }

    fn handler<'a>(&'a self, mut each: impl FnMut() + 'a) -> Handler<'a> {
        Box::new(move |message, step| {
            let (shop, number) = (self.shop.clone(), message.number);
            let guard = shop.guard(Part::Handler(number));
            self.note_start(number);
            each();
            let called = shop.reach(&format!("<handler {number} called>"));
            let handled = shop.clone().handle(message, called, step);
            let noted = async move {
                let handled = handled.await;
                let mut book = shop.book();
                let ended = if handled.is_ok() { &mut book.accepted } else { &mut book.failed };
                ended.insert(number);
                handled
            };
            Guarded(noted.boxed_local(), guard).boxed_local()
        })
    }

    /// Sets every option that does not depend on how the drain is fed.
    fn options<'a, S: Source<Message = Message>>(
        &'a self,
        drain: FanIn<S, Handler<'a>>,
    ) -> FanIn<S, Handler<'a>> {
        drain
            .concurrency(self.case.handlers)
            .commit(self.case.commit)
            .message_compensation(self.case.message_policy())
            .cancellation(self.stop.token())
            .grace(self.case.grace())
            .timeout(self.case.timeout().unwrap_or(Duration::MAX))
            .message_timeout(self.case.message_timeout().unwrap_or(Duration::MAX))
    }

    fn note_start(&self, number: u32) {
        let mut book = self.shop.book();
        let aborts = self.case.on_failure == OnFailure::Abort;
        let now = self.simulation.world().clock().now();
        let timed_out = self.case.timeout().is_some_and(|timeout| now >= Tick::ZERO + timeout);
        if self.stop.is_cancelled() || timed_out || aborts && !book.failed.is_empty() {
            book.mistakes.push(format!("{number} was taken when the drain was to end"));
        }
        let ordered = self.case.feeding == Feeding::Ordered;
        let same = |other: &u32| {
            let key = !ordered || other % KEYS == number % KEYS;
            other / PER_SOURCE == number / PER_SOURCE && key
        };
        if let Some(other) = book.in_flight.iter().copied().find(same) {
            book.mistakes.push(format!("{number} runs beside {other}"));
        }
        if let Some(later) =
            book.started.iter().copied().find(|other| same(other) && *other >= number)
        {
            book.mistakes.push(format!("{number} came behind {later}"));
        }
        book.started.push(number);
        book.in_flight.insert(number);
        book.most_in_flight = book.most_in_flight.max(book.in_flight.len());
    }

    fn note_letter(&self, failed: &Letter<Message>) {
        let error = failed.error();
        let source = error.source_name().and_then(|name| name.strip_prefix("source "));
        let source: u32 = source.and_then(|source| source.parse().ok()).expect("a source");
        let turn = u32::try_from(error.message_number().expect("a message") - 1).expect("few");
        let number = source * PER_SOURCE + turn;
        let mut told = texts(error);
        // The source of such an error tells of all of them once more.
        let undoing = failed.rollback().err().map_or(&[][..], |undoing| undoing.error().related());
        told.extend(undoing.iter().flat_map(texts));
        // A panic: here nobody is told of an error.
        let never = self.shop.faults.pass(&format!("<dead letter {number}>"), false);
        debug_assert!(never.is_ok(), "no error is tried here");
        self.shop.book().letters.push((number, told));
    }

    /// How many handlers ran at once.
    pub(crate) fn most_in_flight(&self) -> usize {
        self.shop.book().most_in_flight
    }

    /// How many actions were tried again.
    pub(crate) fn retries(&self) -> u64 {
        self.shop.book().attempts.values().map(|attempts| u64::from(attempts - 1)).sum()
    }

    pub(crate) fn undone(&self) -> usize {
        self.shop.book().undone.len()
    }

    /// A rollback as the policy says, by the clock of this run.
    pub(crate) fn rollback(
        &self,
        policy: &CompensationPolicy,
        token: CancellationToken,
    ) -> Rollback {
        let clock = self.context.clock();
        self.context.scope().roll_back(policy).clock(clock).cancellation(token)
    }
}
