//! Running a program: in a simulation, with everything it does told to the model.

mod told;

use std::cell::Cell;
use std::future::{IntoFuture, Ready};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, LocalBoxFuture, TryFutureExt, join_all};
use futures::stream::StreamExt;
use watershed::testing::{Event, Script, Simulation, World};
use watershed::timers::with_timeout;
use watershed::{
    Action, BoxError, CancellationSource, CancellationToken, Clock, Compensated, CompensationScope,
    Error, Failure as Failed, FanIn, FanInReport, Letter, Reservation, Source, StepContext, fan_in,
    labelled, with_step,
};

pub use self::told::Told;
use self::told::{Attempt, Child, Closing, Cutter, DrainTold, Handling, Operating, punctual};
use super::program::{
    Act, Bytes, Drain, End, Failure, Message, Op, Plan, Policy, Program, Rollback,
};
use super::reference::{Book, Broke, EffectId, Ended, FrameId, Numbers, ROOT};

/// The name of a rollback of the whole scope, before its number.
const ROLLBACK: &str = "rollback ";

/// A trace, an event a line.
pub fn listed(trace: &[Event]) -> String {
    trace.iter().fold(String::new(), |list, event| format!("{list}\n{event}"))
}

/// Runs the program of these bytes twice.
///
/// # Errors
///
/// What the contract does not allow.
pub fn check(bytes: &[u8]) -> Result<Numbers, String> {
    let program = Program::decode(&mut Bytes::new(bytes));
    let explain = |wrong: String, trace: &[Event]| {
        format!("{wrong}\nbytes: {bytes:?}\n{program:#?}{}", listed(trace))
    };
    let (verdict, trace) = run(&program);
    let numbers = verdict.map_err(|wrong| explain(wrong, &trace))?;
    // Rule 5.4.
    let (again, other) = run(&program);
    if again != Ok(numbers) || trace != other {
        let differs = trace.iter().zip(&other).position(|(one, other)| one != other);
        return Err(explain(format!("the second run differs at event {differs:?}"), &trace));
    }
    Ok(numbers)
}

/// Runs a program, and gives what was wrong and what happened.
pub fn run(program: &Program) -> (Result<Numbers, String>, Vec<Event>) {
    let simulation = Simulation::new(program.seed).with_most_polls(20_000);
    let simulation =
        if program.strict_wakers { simulation.with_strict_wakers() } else { simulation };
    let world = simulation.world();
    let context = world.context("program");
    let run = Interpreter::new(world, &context);
    run.run_program(&simulation, program, &context);
    let verdict = run.book.lock().verdict();
    run.root.clear();
    (verdict, world.trace())
}

/// What everything that runs knows.
#[derive(Clone)]
pub struct Interpreter {
    pub world: World,
    pub book: Book,
    pub root: CompensationScope,
    leaks: Arc<Mutex<Leaks>>,
}

#[derive(Default)]
struct Leaks {
    steps: Vec<(FrameId, StepContext, Plan)>,
    reservations: Vec<(EffectId, Reservation)>,
}

/// What the handlers of one drain know.
#[derive(Clone)]
struct Place {
    run: Interpreter,
    drain: FrameId,
    plan: Arc<Drain>,
    stop: CancellationSource,
    shutdown: CancellationSource,
}

/// A message.
#[derive(Clone, Copy, Debug)]
struct Number {
    source: usize,
    index: usize,
    act: usize,
}

#[derive(Clone, Copy, Debug)]
enum Item {
    Message(Number),
    Fault,
    Panic,
}

/// Raises a panic without the report of the hook.
fn panic_quietly() -> ! {
    std::panic::resume_unwind(Box::new("panicked as planned"))
}

impl Interpreter {
    pub fn new(world: &World, context: &StepContext) -> Self {
        let (world, root) = (world.clone(), context.scope().clone());
        Self { book: Book::new(&world), world, root, leaks: Arc::default() }
    }

    fn run_program(&self, simulation: &Simulation, program: &Program, context: &StepContext) {
        for plan in &program.before {
            self.register(ROOT, &self.root, *plan);
        }
        self.run_drains(simulation, program, context);
        self.settle_leaks();
        self.check_count("after the drains");
        for phase in &program.phases {
            for plan in &phase.before {
                self.register(ROOT, &self.root, *plan);
            }
            self.run_rollbacks(simulation, &phase.rollbacks);
            self.check_count("after rollbacks");
        }
        if program.clears {
            let count = self.root.clear();
            self.book.lock().cleared(ROOT, count);
        } else {
            self.book.lock().mild = true;
            let last = Rollback { policy: Policy::PLAIN, cut: None, cancel_after: None };
            self.run_rollbacks(simulation, &[last]);
        }
        let left = self.root.len();
        let staged = self.book.lock().staged(ROOT);
        let nothing = left == 0 && staged.is_empty();
        self.book
            .lock()
            .must(nothing, || format!("{left} actions are left in the end: {staged:?}"));
    }

    pub fn check_count(&self, when: &str) {
        let count = self.root.len();
        let mut model = self.book.lock();
        let staged = model.staged(ROOT).len();
        model.must_count(&format!("the length of the scope {when}"), count, staged);
    }

    fn run_drains(&self, simulation: &Simulation, program: &Program, context: &StepContext) {
        let mut drains = Vec::new();
        let mut watchers = Vec::new();
        for plan in &program.drains {
            let stop = CancellationSource::new();
            let number = self.open_drain(ROOT, plan, context, &stop);
            let waits = program.waits_for_ever().then_some(Duration::from_secs(3_600));
            for wait in plan.cancel_after.into_iter().chain(waits) {
                let (book, world) = (self.book.clone(), self.world.clone());
                let stop = stop.clone();
                watchers.push(simulation.spawn("stop", async move {
                    world.clock().sleep_until(world.clock().now() + wait).await;
                    book.lock().cancelled_outside(number);
                    stop.cancel();
                }));
            }
            let shutdown = CancellationSource::new();
            if let Some(wait) = plan.shut_down_after {
                let (book, world) = (self.book.clone(), self.world.clone());
                let shutdown = shutdown.clone();
                watchers.push(simulation.spawn("shutdown", async move {
                    world.clock().sleep_until(world.clock().now() + wait).await;
                    book.lock().shut_down(number);
                    shutdown.cancel();
                }));
            }
            let drain = self.drain(number, plan, context, &stop, &shutdown);
            let drain = Cutter::new(&self.world, drain, plan.cut);
            drains.push(simulation.spawn("drain", drain.map(drop)));
        }
        if let Err(stopped) = simulation.run(join_all(drains)) {
            self.book.lock().wrong(format!("a drain is {stopped}"));
        }
        drop(watchers);
    }

    fn settle_leaks(&self) {
        let leaks = std::mem::take(&mut *self.leaks.lock().expect("no panic under the lock"));
        for (frame, step, plan) in leaks.steps {
            self.register_on_step(frame, &step, plan);
        }
        for (effect, reservation) in leaks.reservations {
            let withdrawn = reservation.disarm();
            self.book.lock().disarmed(effect, withdrawn);
        }
    }

    fn run_rollbacks(&self, simulation: &Simulation, rollbacks: &[Rollback]) {
        let mut tasks = Vec::new();
        let mut watchers = Vec::new();
        for plan in rollbacks {
            let stop = CancellationSource::new();
            let told = self.roll_back(plan.policy, &stop);
            let cut = Cutter::new(&self.world, told.boxed_local(), plan.cut);
            tasks.push(simulation.spawn("rollback", cut.map(drop)));
            if let Some(wait) = plan.cancel_after {
                let sleep = self.world.clock().sleep_until(self.world.clock().now() + wait);
                watchers.push(simulation.spawn("stop", async move {
                    sleep.await;
                    stop.cancel();
                }));
            }
        }
        if let Err(stopped) = simulation.run(join_all(tasks)) {
            self.book.lock().wrong(format!("a rollback is {stopped}"));
        }
        drop(watchers);
    }

    pub fn roll_back(&self, policy: Policy, stop: &CancellationSource) -> Told {
        let (book, token) = (self.book.clone(), stop.token());
        let number = book.lock().new_rollback(policy, token.clone());
        let clock: Arc<dyn Clock> = Arc::new(self.world.clock().clone());
        // By its name an action knows who runs it: another rollback may be the one that is polled.
        let step = StepContext::new(format!("{ROLLBACK}{number}")).with_scope(self.root.clone());
        let rollback = step.roll_back(&policy.build()).clock(&clock);
        let rollback = Some(rollback.cancellation(token.clone()));
        Told { book, number, token, rollback }
    }

    // Effects and their actions.

    pub fn register(&self, frame: FrameId, scope: &CompensationScope, plan: Plan) -> EffectId {
        let (effect, action) = self.new_effect(frame, Some(scope), plan);
        scope.register_compensation(labelled(effect.to_string(), action));
        effect
    }

    fn register_on_step(&self, frame: FrameId, step: &StepContext, plan: Plan) {
        if plan.registers > 0 && plan.at_home {
            self.register(frame, step.scope(), plan);
            return;
        }
        // The usual way, on which nobody asks for the scope of the message.
        let (effect, action) = self.new_effect(frame, None, plan);
        step.register_compensation(labelled(effect.to_string(), action));
    }

    pub fn reserve(
        &self,
        frame: FrameId,
        scope: &CompensationScope,
        plan: Plan,
    ) -> (EffectId, Reservation) {
        let (effect, action) = self.new_effect(frame, Some(scope), plan);
        (effect, scope.reserve(labelled(effect.to_string(), action)))
    }

    fn new_effect(
        &self,
        frame: FrameId,
        home: Option<&CompensationScope>,
        plan: Plan,
    ) -> (EffectId, impl Action + use<>) {
        let effect = self.book.lock().register(frame, plan);
        let run = self.clone();
        let home = home.filter(|_| plan.registers > 0 && plan.at_home).cloned();
        let action = move |step: StepContext| -> BoxFuture<'static, Result<(), BoxError>> {
            let owner = step.name().strip_prefix(ROLLBACK).and_then(|number| number.parse().ok());
            let (fails, registers) = run.book.lock().begin_attempt(effect, owner);
            let child = Plan { registers: 0, ..plan };
            for _ in 0..registers {
                match &home {
                    Some(scope) => run.register(frame, scope, child),
                    None => run.register(ROOT, &run.root, child),
                };
            }
            if let Some(Failure::PanicAtCall) = fails {
                run.book.lock().end_attempt(effect, false);
                panic_quietly();
            }
            let mut attempt = Attempt { book: run.book.clone(), effect, ended: false };
            let world = run.world.clone();
            async move {
                punctual(&world, &attempt.book, plan.yields, plan.wait).await;
                attempt.ended = true;
                attempt.book.lock().end_attempt(effect, fails.is_none());
                match fails {
                    None => Ok(()),
                    Some(Failure::Error) => Err(Broke(ROOT).into()),
                    Some(_) => panic_quietly(),
                }
            }
            .boxed()
        };
        (effect, with_step(action))
    }

    // Drains.

    fn open_drain(
        &self,
        parent: FrameId,
        plan: &Arc<Drain>,
        context: &StepContext,
        stop: &CancellationSource,
    ) -> FrameId {
        let token = CancellationToken::linked([context.cancellation().clone(), stop.token()]);
        self.book.lock().open_drain(parent, plan, token)
    }

    fn drain(
        &self,
        drain: FrameId,
        plan: &Arc<Drain>,
        context: &StepContext,
        stop: &CancellationSource,
        shutdown: &CancellationSource,
    ) -> LocalBoxFuture<'static, Result<FanInReport, Error>> {
        let scripts: Vec<_> =
            (0..plan.sources.len()).map(|source| self.script(plan, source)).collect();
        let sources: Vec<_> = scripts
            .iter()
            .enumerate()
            .map(|(source, script)| self.source(drain, source, script.clone()))
            .collect();
        let (run, plan) = (self.clone(), Arc::clone(plan));
        let (stop, shutdown) = (stop.clone(), shutdown.clone());
        let place = Place { run, drain, plan: Arc::clone(&plan), stop, shutdown };
        let own = place.clone();
        let handler = move |number: Number, step: StepContext| {
            let message = own.run.book.lock().called(drain, number.source, number.index);
            handle(own.clone(), message, number, step)
        };
        let settled = place.options(fan_in(context, sources, handler));
        let letters = place.letters();
        let ended = match plan.keys {
            None => settled
                .dead_letters(letters)
                .on_failure(plan.on_failure)
                .into_future()
                .boxed_local(),
            Some(keys) => {
                let book = self.book.clone();
                let ordered = settled.ordered_by(move |number: &Number| number.index % keys);
                let ordered = ordered.put_back(move |_, number: Number| {
                    book.lock().put_back(drain, number.source);
                });
                ordered
                    .dead_letters(letters)
                    .on_failure(plan.on_failure)
                    .into_future()
                    .boxed_local()
            }
        };
        let ended = ended.map_err(Failed::into_error).boxed_local();
        DrainTold { book: self.book.clone(), drain, scripts, ended: Some(ended), begun: false }
            .boxed_local()
    }

    fn script(&self, plan: &Drain, source: usize) -> Script<Item> {
        let mut index = 0;
        let script = self.world.script::<Item>("source");
        plan.sources[source].iter().enumerate().fold(script, |script, (act, what)| match what {
            Act::Message(_) => {
                index += 1;
                script.item(Item::Message(Number { source, index: index - 1, act }))
            }
            Act::Pending(times) => script.pending(*times),
            Act::Wait(wait) => script.wait(*wait),
            Act::StrayWakes(times) => script.stray_wakes(*times),
            Act::Fault => script.item(Item::Fault),
            Act::Panic => script.item(Item::Panic),
            Act::Never => script.never(),
        })
    }

    fn source(
        &self,
        drain: FrameId,
        source: usize,
        script: Script<Item>,
    ) -> impl Source<Message = Number> + Unpin + use<> {
        let (book, end) = (self.book.clone(), self.book.clone());
        let ended = futures::stream::poll_fn(move |_| {
            end.lock().source_ended(drain, source);
            Poll::Ready(None)
        });
        script
            .map(move |item| match item {
                Item::Message(number) => {
                    book.lock().taken(drain, source, number.index);
                    Ok(number)
                }
                Item::Fault => {
                    book.lock().source_broke(drain, source, false);
                    Err(Broke(drain))
                }
                Item::Panic => {
                    book.lock().source_broke(drain, source, true);
                    panic_quietly();
                }
            })
            .chain(ended)
            .faults()
    }
}

impl Place {
    /// Sets every option of the drain that does not change its type.
    fn options<S: Source, H>(&self, mut drain: FanIn<S, H>) -> FanIn<S, H> {
        let plan = &self.plan;
        drain = drain
            .concurrency(plan.concurrency)
            .quantum(plan.quantum)
            .commit(plan.commit)
            .grace(plan.grace)
            .cancellation(self.stop.token())
            .message_compensation(plan.policy.build());
        if let Some(handlers) = plan.per_source {
            drain = drain.per_source_concurrency(handlers);
        }
        if let Some(timeout) = plan.timeout {
            drain = drain.timeout(timeout);
        }
        if plan.shut_down_after.is_some() {
            drain = drain.shutdown(self.shutdown.token());
        }
        if let Some(within) = plan.finish_within {
            drain = drain.finish_within(within);
        }
        if let Some(timeout) = plan.message_timeout {
            drain = drain.message_timeout(timeout);
        }
        drain
    }

    fn letters(&self) -> impl FnMut(Letter<Number>) -> Ready<()> + use<> {
        let (book, number) = (self.run.book.clone(), self.drain);
        let panics = self.plan.dead_letter_panics;
        move |letter| {
            book.lock().dead_letter(number, &letter, panics);
            if panics {
                panic_quietly();
            }
            std::future::ready(())
        }
    }
}

/// The handler of every drain.
async fn handle(
    place: Place,
    message: FrameId,
    number: Number,
    step: StepContext,
) -> Result<Compensated<()>, BoxError> {
    let book = place.run.book.clone();
    let mut guard = Handling { book, message, ended: false };
    let plan = Arc::clone(&place.plan);
    let Act::Message(Message { ops, end }) = &plan.sources[number.source][number.act] else {
        unreachable!("the number of a message")
    };
    perform(&place, message, &step, ops).await;
    match end {
        End::Succeed => {
            guard.end(Ended::Succeeded);
            Ok(Compensated::new(()))
        }
        End::Compensated(plan) => {
            let (effect, action) = place.run.new_effect(message, None, *plan);
            guard.end(Ended::Succeeded);
            Ok(Compensated::new(()).with_compensation(labelled(effect.to_string(), action)))
        }
        End::Fail => {
            guard.end(Ended::Failed);
            Err(Broke(message).into())
        }
        End::Panic => {
            guard.end(Ended::Panicked);
            panic_quietly();
        }
        End::Never => std::future::pending().await,
    }
}

/// Does what a handler, or an operation within one, does.
fn perform<'p>(
    place: &'p Place,
    frame: FrameId,
    step: &'p StepContext,
    ops: &'p [Op],
) -> LocalBoxFuture<'p, ()> {
    async move {
        for op in ops {
            perform_one(place, frame, step, op).await;
        }
    }
    .boxed_local()
}

async fn perform_one(place: &Place, frame: FrameId, step: &StepContext, op: &Op) {
    let Place { run, stop, .. } = place;
    match op {
        Op::Effect(plan) => run.register_on_step(frame, step, *plan),
        Op::Yield(times) => punctual(&run.world, &run.book, *times, None).await,
        Op::Wait(wait) => punctual(&run.world, &run.book, 0, Some(*wait)).await,
        Op::Reserve { plan, yields, disarm } => {
            let (effect, reservation) = run.reserve(frame, step.scope(), *plan);
            punctual(&run.world, &run.book, *yields, None).await;
            if *disarm {
                let withdrawn = reservation.disarm();
                run.book.lock().disarmed(effect, withdrawn);
            }
        }
        Op::Child { plans, yields, reserves } => {
            let child = Child { scope: CompensationScope::new(), step: step.clone() };
            for plan in plans {
                // What the actions registered there later would be lost.
                let plan = Plan { at_home: false, ..*plan };
                if *reserves {
                    let (effect, reservation) = run.reserve(frame, &child.scope, plan);
                    run.book.lock().move_out_of_reach(effect);
                    run.leak().reservations.push((effect, reservation));
                } else {
                    run.register(frame, &child.scope, plan);
                }
            }
            punctual(&run.world, &run.book, *yields, None).await;
            drop(child);
        }
        Op::Heed(plan) => {
            step.cancellation().cancelled().await;
            run.register_on_step(frame, step, *plan);
        }
        Op::Cancel => {
            run.book.lock().numbers.cancellations += 1;
            stop.cancel();
        }
        Op::Clear => {
            let count = step.scope().clear();
            run.book.lock().cleared(frame, count);
        }
        Op::LeakStep(plan) => run.leak().steps.push((frame, step.clone(), *plan)),
        Op::LeakReservation(plan) => {
            let leaked = run.reserve(frame, step.scope(), *plan);
            run.leak().reservations.push(leaked);
        }
        Op::Timeout { after, policy, ops, fails } => {
            let operation = run.book.lock().open_timeout(frame, *after, *policy);
            let _guard = Closing { book: run.book.clone(), frame: operation };
            let ended = Rc::new(Cell::new(None));
            let told = Rc::clone(&ended);
            let work = move |step: StepContext| {
                let book = run.book.clone();
                let guard = Operating { book, frame: operation, ended: told };
                async move {
                    perform(place, operation, &step, ops).await;
                    guard.ended.set(Some(!*fails));
                    let result = if *fails { Err(BoxError::from(Broke(frame))) } else { Ok(()) };
                    drop(guard);
                    result
                }
            };
            let policy = policy.build();
            let result = with_timeout(step, *after, work).compensation(policy).await;
            let cancelled = step.cancellation().is_cancelled();
            run.book.lock().operation_ended(operation, ended.get(), &result, cancelled);
        }
        Op::Nested(plan) => {
            let own_stop = CancellationSource::new();
            let drain = run.open_drain(frame, plan, step, &own_stop);
            let never = CancellationSource::new();
            let result = run.drain(drain, plan, step, &own_stop, &never).await;
            drop(result);
        }
    }
}

impl Interpreter {
    fn leak(&self) -> std::sync::MutexGuard<'_, Leaks> {
        self.leaks.lock().expect("no panic under the lock")
    }
}
