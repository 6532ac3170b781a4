//! What the handlers do, and what happened.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, select};
use futures::stream;
use watershed::channels::{AnySource, LiveSources, SourceHandle};
use watershed::timers::delay;
use watershed::{
    Answer, BoxError, CancellationSource, Clock, FanInReport, LocalUndos, ManualClock, Progress,
    SourceId, StepContext, Tick, fan_in,
};

use super::case::{Case, Order};
use crate::support::ending::assert_adds_up;
use crate::support::fed::{Fed, Gates};
use crate::support::yields;

pub(crate) type Batch = Vec<u32>;
pub(crate) type Boxed = AnySource<'static, Batch>;

/// A call of the handler.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) source: usize,
    pub(crate) batch: Batch,
    pub(crate) at: Tick,
    pub(crate) ok: bool,
    /// Its effects, in the order of their registration; the first is always there.
    pub(crate) effects: Vec<usize>,
}

/// What became of the effects.
#[derive(Debug, Default)]
pub(crate) struct Undone {
    /// Times that each effect was undone.
    pub(crate) times: HashMap<usize, usize>,
    /// The actions that were begun, in order, those of further attempts included.
    pub(crate) begun: Vec<usize>,
}

pub(crate) struct World {
    pub(crate) case: Case,
    pub(crate) context: StepContext,
    pub(crate) clock: ManualClock,
    pub(crate) stop: CancellationSource,
    pub(crate) shutdown: CancellationSource,
    pub(crate) progress: Progress,
    pub(crate) undos: LocalUndos,
    pub(crate) live: RefCell<Option<LiveSources<Boxed>>>,
    pub(crate) fed: RefCell<Vec<Fed<u32>>>,
    pub(crate) handles: RefCell<Vec<SourceHandle<Boxed>>>,
    pub(crate) calls: RefCell<Vec<Call>>,
    pub(crate) back: RefCell<Vec<(SourceId, Batch)>>,
    pub(crate) letters: Cell<u64>,
    /// Letters that were begun and never stored.
    pub(crate) hanging: Gates<()>,
    pub(crate) undone: Arc<Mutex<Undone>>,
    effects: Cell<usize>,
    /// What was taken when the progress was looked at last.
    taken: Cell<u64>,
    /// Running handlers: all, by source, and by what they have to be in order in.
    running: RefCell<(usize, HashMap<usize, usize>, HashMap<(usize, u32), u32>)>,
    /// The last message that began, by source and key.
    last: RefCell<HashMap<(usize, u32), u32>>,
    /// The number of each source.
    source_of: RefCell<HashMap<SourceId, usize>>,
}

/// Ends the entry of a handler that runs, however it ends.
struct Running<'a>(&'a World, usize, (usize, u32));

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.0.running.borrow_mut();
        running.0 -= 1;
        *running.1.entry(self.1).or_default() -= 1;
        running.2.remove(&self.2);
    }
}

impl World {
    pub(crate) fn new(case: Case) -> Rc<Self> {
        let clock = ManualClock::new();
        Rc::new(Self {
            case,
            context: StepContext::new("crossing").with_clock(Arc::new(clock.clone())),
            clock,
            stop: CancellationSource::new(),
            shutdown: CancellationSource::new(),
            progress: Progress::new(),
            undos: LocalUndos::new(),
            live: RefCell::default(),
            fed: RefCell::default(),
            handles: RefCell::default(),
            calls: RefCell::default(),
            back: RefCell::default(),
            letters: Cell::new(0),
            hanging: Gates::default(),
            undone: Arc::default(),
            effects: Cell::new(0),
            taken: Cell::new(0),
            running: RefCell::default(),
            last: RefCell::default(),
            source_of: RefCell::default(),
        })
    }

    /// What the progress says: each message is in one place, and none goes away.
    pub(crate) fn look(&self) -> FanInReport {
        let now = self.progress.report();
        assert_adds_up(&now);
        assert!(now.taken() >= self.taken.replace(now.taken()), "taken goes back: {now:?}");
        now
    }

    /// A new source is known.
    pub(crate) fn know(&self, id: SourceId, number: usize) {
        self.source_of.borrow_mut().insert(id, number);
    }

    /// The action of another effect.
    fn undo(
        &self,
        call: usize,
        fails_first: bool,
    ) -> impl FnMut() -> BoxFuture<'static, Result<(), &'static str>> + Send + use<> {
        let effect = self.effects.get();
        self.effects.set(effect + 1);
        self.calls.borrow_mut()[call].effects.push(effect);
        let undone = Arc::clone(&self.undone);
        let failed = Arc::new(Mutex::new(!fails_first));
        move || {
            let (undone, failed) = (Arc::clone(&undone), Arc::clone(&failed));
            undone.lock().expect("no panic").begun.push(effect);
            async move {
                yields(1).await;
                if !std::mem::replace(&mut *failed.lock().expect("no panic"), true) {
                    return Err("not at the first try");
                }
                *undone.lock().expect("no panic").times.entry(effect).or_default() += 1;
                Ok(())
            }
            .boxed()
        }
    }

    /// One effect, that is undone on whatever way there is.
    fn effect(&self, step: &StepContext, call: usize, local: bool, fails_first: bool) {
        let undo = self.undo(call, fails_first);
        if local {
            self.undos.register(step, undo);
        } else {
            step.register_compensation(undo);
        }
    }

    /// What may happen at the call of a handler.
    fn steer(&self, call: usize, source: usize) {
        let case = &self.case;
        if case.cancelled_at == Some(call) {
            self.stop.cancel();
        }
        if case.shut_down_at == Some(call) {
            self.shutdown.cancel();
        }
        let handles = self.handles.borrow();
        let Some(handle) = handles.get(source) else { return };
        if case.pauses_at == Some(call) {
            handle.pause();
        }
        if case.removes_at == Some(call) {
            handle.request_removal();
        }
    }

    fn begin(&self, batch: &Batch, step: &StepContext) -> (Running<'_>, usize, usize) {
        assert!(!batch.is_empty(), "an empty window");
        let id = step.source_id().expect("it is a step of a drain");
        let source = self.source_of.borrow()[&id];
        assert!(batch.iter().all(|message| *message as usize / 100 == source), "{batch:?}");
        if self.case.progress {
            assert!(self.look().in_flight() > 0, "this message is");
        }
        let key = batch[0] % 3;
        let lane = match self.case.shape.order {
            Order::InOrder => (source, 0),
            Order::Unordered => (batch[0] as usize, 0),
            Order::ByKey => (source, key),
            Order::Across => (0, key),
        };
        {
            let mut running = self.running.borrow_mut();
            running.0 += 1;
            assert!(running.0 <= self.case.concurrency(), "{} run at once", running.0);
            let of_source = running.1.entry(source).or_default();
            *of_source += 1;
            assert!(*of_source <= self.case.per_source(), "{of_source} of one source");
            let busy = running.2.insert(lane, batch[0]);
            assert_eq!(busy, None, "it runs beside {batch:?}");
        }
        if self.case.shape.order != Order::Unordered {
            let last = self.last.borrow_mut().insert((source, lane.1), batch[0]);
            assert!(last <= Some(batch[0]), "{last:?} came before {batch:?}");
        }
        let call = self.calls.borrow().len();
        let (at, batch, effects) = (self.clock.now(), batch.clone(), Vec::new());
        self.calls.borrow_mut().push(Call { source, batch, at, ok: false, effects });
        (Running(self, source, lane), call, source)
    }

    pub(crate) async fn handle(&self, batch: Batch, step: StepContext) -> Result<Answer, BoxError> {
        let (_running, call, source) = self.begin(&batch, &step);
        self.steer(call, source);
        let (case, number) = (&self.case, batch[0] % 100);
        self.effect(&step, call, false, case.undo_fails && number == 5);
        if case.yields {
            yields((batch[0] % 4) as usize).await;
        }
        if case.sleeps && number % 4 == 1 {
            let slept = delay(&step, Duration::from_millis(u64::from(number) * 70)).await;
            self.effect(&step, call, false, false);
            slept?;
        }
        if case.hangs && number == 6 {
            let (cancelled, let_go) = (step.cancellation().cancelled(), self.hanging.wait(()));
            select(cancelled, Box::pin(let_go)).await;
            return Err("hung".into());
        }
        self.effect(&step, call, case.shape.undos, false);
        if case.reserves && number % 5 == 2 {
            let reservation = step.reserve(self.undo(call, false));
            yields(1).await;
            if batch[0] % 2 == 0 {
                // It did not happen.
                assert!(reservation.disarm(), "nobody rolls back what runs");
                self.calls.borrow_mut()[call].effects.pop();
            }
        }
        if case.nests && number == 9 {
            let staged = async |_: u32, inner: StepContext| {
                self.effect(&inner, call, false, false);
                yields(1).await;
                Ok::<_, BoxError>(())
            };
            fan_in(&step, [stream::iter(0..3)], staged).await?;
        }
        if case.undo_fails && number == 5 {
            return Err("and is not undone at the first try".into());
        }
        if case.panics && number == 7 {
            std::panic::panic_any("injected at: seven".to_owned());
        }
        if case.fails && (number == 8 || number % 3 == 0 && step.attempt() == 1) {
            return Err("fails".into());
        }
        let calls = self.calls.borrow().iter().filter(|other| other.batch == batch).count();
        if case.comes_later && number == 4 && calls == 1 {
            return Ok(Answer::Later(Duration::from_millis(400)));
        }
        self.calls.borrow_mut()[call].ok = true;
        Ok(Answer::Done)
    }

    /// What there is when nothing goes on.
    pub(crate) fn tell(&self) -> String {
        let (running, _, lanes) = &*self.running.borrow();
        let calls = self.calls.borrow();
        let calls: Vec<_> = calls.iter().map(|call| (&call.batch, call.at, call.ok)).collect();
        format!("{running} handlers run ({lanes:?}) after {calls:?}")
    }

    pub(crate) async fn store(&self) {
        if self.case.letters_hang {
            self.hanging.wait(()).await;
        }
        yields(1).await;
        self.letters.set(self.letters.get() + 1);
    }
}
