//! A hundred thousand of each thing that a transport and its drain can hold.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use watershed::channels::Window;
use watershed::transport::{
    Able, Assignment, Event, Facts, Fetched, Link, Notices, Received, Renewed, Revocation, Settled,
    Transport, Verdict, Want,
};
use watershed::{
    BoxError, CancellationSource, Clock, CompensationPolicy, Error, ErrorCode, FanInReport,
    ManualClock, OnFailure, RetryPolicy, StepContext, fan_in,
};

use super::scales::{Scales, finish_after};
use crate::support::{Gate, Hand, manual, rests};

type Receipt = (Assignment, usize);

/// So many messages of each partition, and answers as they are told.
#[derive(Clone)]
struct Yard {
    able: Able,
    each: usize,
    lease: Option<Duration>,
    /// Of so many groups.
    groups: usize,
    notices: Notices,
    /// Calls wait for it.
    gate: Gate,
    state: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    next: BTreeMap<Assignment, usize>,
    back: VecDeque<Receipt>,
    accepted: BTreeSet<Receipt>,
    /// What is said to accepts, and to renewals, instead of yes.
    accepts: Option<Settled>,
    renewals: Option<Renewed>,
}

fn yard(able: Able, each: usize) -> Yard {
    let gate = Gate::default();
    gate.open();
    Yard {
        able: able.batches_of(100).asks_every(Duration::from_secs(1)),
        each,
        lease: None,
        groups: 0,
        notices: Notices::new(),
        gate,
        state: Arc::default(),
    }
}

impl Yard {
    fn state(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accepted(&self) -> usize {
        self.state().accepted.len()
    }
}

fn not_ours() -> Error {
    Error::new(ErrorCode::Source, "not ours")
}

impl Transport for Yard {
    type Message = usize;
    type Receipt = Receipt;

    fn able(&self) -> Able {
        self.able
    }

    fn notices(&self) -> Notices {
        self.notices.clone()
    }

    async fn fetch(&self, want: Want) -> Fetched<usize, Receipt> {
        let mut state = self.state();
        let mut taken: Vec<_> = Vec::new();
        while taken.len() < want.at_most {
            let Some(back) = state.back.pop_front() else { break };
            taken.push(back);
        }
        let next = state.next.entry(want.assignment).or_default();
        let last = self.each.min(*next + want.at_most - taken.len());
        taken.extend((*next..last).map(|number| (want.assignment, number)));
        *next = last;
        let received = taken.into_iter().map(|receipt| {
            let received = Received::new(receipt.1, receipt);
            let group = receipt.1.checked_rem(self.groups).map(|group| group.to_string().into());
            let id = Some(format!("{receipt:?}").into());
            let received = received.with_facts(Facts { id, group, ..Facts::default() });
            self.lease.into_iter().fold(received, Received::leased_for)
        });
        Ok(Some(received.collect()))
    }

    async fn settle(&self, batch: Vec<(Receipt, Verdict)>) -> Vec<Settled> {
        self.gate.wait().await;
        let mut state = self.state();
        let mut outcomes = Vec::with_capacity(batch.len());
        for (receipt, verdict) in batch {
            let is_accept = matches!(verdict, Verdict::Accept);
            let outcome = state.accepts.clone().filter(|_| is_accept);
            if outcome.is_none() && is_accept {
                state.accepted.insert(receipt);
            } else if self.groups > 0 {
                // Others are behind it.
                state.back.push_front(receipt);
            }
            outcomes.push(outcome.unwrap_or(Settled::Confirmed));
        }
        outcomes
    }

    async fn renew(&self, batch: Vec<Receipt>) -> Vec<Renewed> {
        let told = self.state().renewals.clone();
        let renewed = told.unwrap_or(Renewed::For(self.lease.unwrap_or_default()));
        batch.iter().map(|_| renewed.clone()).collect()
    }
}

/// An effect, and its undo.
fn staged(step: &StepContext) {
    step.register_compensation(|| async {});
}

#[allow(clippy::unnecessary_wraps, reason = "what a handler gives")]
fn ok() -> Result<(), BoxError> {
    Ok(())
}

/// The report of a drain that waits, with all of its crowd, for the gate to open, and is told to end then.
fn shut_down_behind<E: std::fmt::Debug>(
    gate: &Gate,
    stop: &CancellationSource,
    drain: impl IntoFuture<Output = Result<FanInReport, E>>,
    scales: &Scales,
) -> FanInReport {
    let goes_on = || {
        gate.open();
        stop.cancel();
    };
    finish_after(goes_on, drain.into_future(), scales).expect("it succeeds")
}

/// Moves the clock on, and has the drain run, until that is over.
fn pass<F: Future>(hand: &mut Hand<F>, clock: &ManualClock, time: Duration) {
    let until = clock.now() + time;
    while clock.now() < until {
        clock.advance(Duration::from_millis(500));
        assert!(hand.run().is_pending());
    }
}

// Section 7
crowds! {
    messages_without_an_answer(size, scales) {
        let mut yard = yard(Able::each().prefetches(256), size);
        yard.gate = Gate::default();
        let link = Link::new(yard.clone()).max_unsettled(size);
        let (context, stop) = (StepContext::new("crowd"), CancellationSource::new());
        let drain = fan_in(&context, [link.source()], async |_, step| {
            staged(&step);
            ok()
        });
        let drain = drain.unordered().concurrency(16).shutdown(stop.token());
        let report = shut_down_behind(&yard.gate, &stop, drain, scales);
        assert_eq!((report.accepted(), yard.accepted()), (size as u64, size));
    }
    messages_of_a_dropped_drain_without_an_answer(size, scales) {
        let mut yard = yard(Able::each().prefetches(256), size);
        yard.gate = Gate::default();
        let link = Link::new(yard.clone()).max_unsettled(size);
        let context = StepContext::new("crowd");
        let drain = fan_in(&context, [link.source()], async |_, step| {
            staged(&step);
            ok()
        });
        let drain = drain.unordered().concurrency(16);
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        scales.all_are_here();
        drop(drain);
        assert_eq!(yard.accepted(), 0);
        // Those that were with the transport have an unknown outcome, and stay.
        let policy = CompensationPolicy::sequential_reverse();
        Hand::new(context.roll_back(&policy)).finish().expect("all succeed");
    }
    messages_in_work_of_a_dropped_drain(size, scales) {
        let yard = yard(Able::each().prefetches(256), size);
        let link = Link::new(yard.clone());
        let (context, gate) = (StepContext::new("crowd"), Gate::default());
        let drain = fan_in(&context, [link.source()], async |_, step| {
            staged(&step);
            gate.wait().await;
            ok()
        });
        let mut drain = Hand::new(drain.unordered().concurrency(size).into_future());
        assert!(drain.run().is_pending());
        scales.all_are_here();
        drop(drain);
        let policy = CompensationPolicy::sequential_reverse();
        let report = Hand::new(context.roll_back(&policy)).finish().expect("all succeed");
        assert_eq!(report.succeeded(), 2 * size, "its undo and its release each");
    }
    messages_that_are_fetched_ahead(size, scales) {
        let yard = yard(Able::each().renews().prefetches(size), size);
        let yard = Yard { lease: Some(Duration::from_secs(9)), ..yard };
        let (context, clock) = manual("crowd");
        let (link, gate) = (Link::new(yard.clone()), Gate::default());
        let drain = fan_in(&context, [link.source()], async |_, _| {
            gate.wait().await;
            ok()
        });
        let stop = CancellationSource::new();
        let mut drain = Hand::new(drain.shutdown(stop.token()).into_future());
        pass(&mut drain, &clock, Duration::from_secs(20));
        scales.all_are_here();
        stop.cancel();
        assert!(drain.run().is_pending());
        gate.open();
        let report = drain.finish_by(&clock).expect("it succeeds");
        assert_eq!((report.accepted(), report.released()), (1, size as u64 - 1));
    }
    messages_in_work_that_are_lost(size, scales) {
        let yard = yard(Able::each().renews().prefetches(256), size);
        let yard = Yard { lease: Some(Duration::from_secs(9)), ..yard };
        let (context, clock) = manual("crowd");
        let (link, gate) = (Link::new(yard.clone()), Gate::default());
        let (undos, stop) = (Gate::default(), CancellationSource::new());
        let drain = fan_in(&context, [link.source()], async |_, step: StepContext| {
            step.register_compensation_with(undos.clone(), async |undos: Gate| undos.wait().await);
            gate.wait().await;
            ok()
        });
        let drain = drain.unordered().concurrency(size).shutdown(stop.token());
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        yard.state().renewals = Some(Renewed::Lost(not_ours()));
        pass(&mut drain, &clock, Duration::from_secs(4));
        scales.all_are_here();
        stop.cancel();
        undos.open();
        let report = drain.finish_by(&clock).expect("it succeeds");
        assert_eq!((report.lost(), yard.accepted()), (size as u64, 0));
    }
    accepts_that_are_refused(size, scales) {
        let yard = yard(Able::each().prefetches(256), size);
        let (context, clock) = manual("crowd");
        let link = Link::new(yard.clone()).max_unsettled(size).settle_within(Duration::from_secs(2));
        let stop = CancellationSource::new();
        yard.state().accepts = Some(Settled::Refused(not_ours()));
        let drain = fan_in(&context, [link.source()], async |_, step| {
            staged(&step);
            ok()
        });
        let drain = drain.ordered_by(|number| *number).concurrency(16).shutdown(stop.token());
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        scales.all_are_here();
        pass(&mut drain, &clock, Duration::from_secs(5));
        stop.cancel();
        let report = drain.finish_by(&clock).expect("it succeeds");
        assert_eq!((report.released(), report.accepted()), (size as u64, 0));
    }
    messages_that_fail(size, scales) {
        let yard = yard(Able::each().prefetches(256), size);
        let (context, clock) = manual("crowd");
        let slow = RetryPolicy::fixed(2, Duration::from_millis(1));
        let link = Link::new(yard.clone()).slow_down_after(1_000_000, slow);
        let (gate, stop) = (Gate::default(), CancellationSource::new());
        let drain = fan_in(&context, [link.source()], async |_, step| {
            staged(&step);
            gate.wait().await;
            Err::<(), _>("no")
        });
        let drain = drain.unordered().concurrency(size).on_failure(OnFailure::Continue);
        let mut drain = Hand::new(drain.shutdown(stop.token()).into_future());
        assert!(drain.run().is_pending());
        scales.all_are_here();
        gate.open();
        assert!(drain.run().is_pending());
        stop.cancel();
        let report = drain.finish_by(&clock).expect("it goes on");
        assert_eq!((report.released(), report.failed()), (size as u64, size as u64));
    }
    messages_that_are_settled_by_their_handlers(size, scales) {
        let yard = yard(Able::each().prefetches(256), size);
        let link = Link::new(yard.clone());
        let (context, stop) = (StepContext::new("crowd"), CancellationSource::new());
        let gate = Gate::default();
        let drain = fan_in(&context, [link.source()], async |_, step: StepContext| {
            staged(&step);
            let settling = step.settling()?;
            gate.wait().await;
            settling.ended(Settled::Confirmed);
            ok()
        });
        let drain = drain.unordered().concurrency(size).shutdown(stop.token());
        let report = shut_down_behind(&gate, &stop, drain, scales);
        assert_eq!((report.accepted(), yard.accepted()), (size as u64, 0));
    }
    messages_of_one_window(size, scales) {
        let yard = yard(Able::each().prefetches(size), size);
        let link = Link::new(yard.clone()).max_unsettled(size);
        let (context, gate) = (StepContext::new("crowd"), Gate::default());
        let stop = CancellationSource::new();
        let windows = Window::new(&context, link.source()).count(size);
        let drain = fan_in(&context, [windows], async |_, step: StepContext| {
            staged(&step);
            assert_eq!(step.deliveries().len(), size);
            gate.wait().await;
            ok()
        });
        let report = shut_down_behind(&gate, &stop, drain.shutdown(stop.token()), scales);
        assert_eq!((report.accepted(), yard.accepted()), (size as u64, size));
    }
    groups(size, scales) {
        let yard = yard(Able::each().groups().prefetches(size), size);
        let yard = Yard { groups: size, ..yard };
        let (link, gate) = (Link::new(yard.clone()), Gate::default());
        let (context, stop) = (StepContext::new("crowd"), CancellationSource::new());
        let drain = fan_in(&context, [link.source()], async |_, step| {
            staged(&step);
            gate.wait().await;
            ok()
        });
        let drain = drain.ordered_by(|number| *number).concurrency(size).shutdown(stop.token());
        let report = shut_down_behind(&gate, &stop, drain, scales);
        assert_eq!((report.accepted(), yard.accepted()), (size as u64, size));
    }
    messages_of_one_group(size, scales) {
        let yard = yard(Able::each().groups().prefetches(16), size);
        let yard = Yard { groups: 1, ..yard };
        let link = Link::new(yard.clone()).max_ahead(size);
        let (context, clock) = manual("crowd");
        let (gate, stop) = (Gate::default(), CancellationSource::new());
        let (failed, handled) = (Cell::new(false), RefCell::new(Vec::new()));
        let drain = fan_in(&context, [link.source()], async |number, step| {
            staged(&step);
            gate.wait().await;
            if number == size / 2 && !failed.replace(true) {
                return Err("once");
            }
            handled.borrow_mut().push(number);
            Ok(())
        });
        let drain = drain.on_failure(OnFailure::Continue).shutdown(stop.token());
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        scales.all_are_here();
        gate.open();
        pass(&mut drain, &clock, Duration::from_secs(3));
        stop.cancel();
        let report = drain.finish_by(&clock).expect("it goes on");
        assert_eq!((report.accepted(), yard.accepted()), (size as u64, size));
        let handled = handled.borrow();
        let wrong = handled.iter().enumerate().find(|(place, number)| place != *number);
        assert_eq!((handled.len(), wrong), (size, None));
    }
    sources_of_one_transport(size, scales) {
        let yard = yard(Able::each().prefetches(1), size);
        let (link, gate) = (Link::new(yard.clone()), Gate::default());
        let (context, stop) = (StepContext::new("crowd"), CancellationSource::new());
        let sources = (0..size).map(|_| link.source());
        let drain = fan_in(&context, sources, async |_, _| {
            gate.wait().await;
            ok()
        });
        let drain = drain.concurrency(size).shutdown(stop.token());
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        scales.all_are_here();
        gate.open();
        assert!(drain.run().is_pending());
        stop.cancel();
        let report = drain.finish().expect("it succeeds");
        assert_eq!(report.accepted() + report.released(), size as u64);
    }
    partitions_that_come_and_are_given_up(size, scales) {
        let yard = yard(Able::prefix().assigns().prefetches(1), 1);
        let (link, gate) = (Link::new(yard.clone()), Gate::default());
        let (context, clock) = manual("crowd");
        let stop = CancellationSource::new();
        let drain = fan_in(&context, [], async |_, step| {
            staged(&step);
            gate.wait().await;
            ok()
        });
        let drain = drain.incoming(link.assigned()).concurrency(size).shutdown(stop.token());
        let mut drain = Hand::new(drain.into_future());
        let all = 0..u32::try_from(size).expect("few");
        let given_up = Arc::new(Mutex::new(0));
        for generation in 1..=2 {
            let at = |partition| Assignment { partition, generation };
            for partition in all.clone() {
                yard.notices.tell(Event::Assigned(at(partition)));
            }
            assert!(drain.run().is_pending());
            scales.all_are_here();
            for partition in all.clone() {
                let given_up = Arc::clone(&given_up);
                let answer = move |_| *given_up.lock().expect("no panic") += 1;
                yard.notices.tell(Event::Revoked(Revocation::new(at(partition), answer)));
            }
            gate.open();
            assert!(drain.run().is_pending());
        }
        stop.cancel();
        let report = drain.finish_by(&clock).expect("it succeeds");
        assert_eq!((report.accepted(), *given_up.lock().expect("no panic")), (2 * size as u64, 2 * size));
    }
    partitions_that_are_lost_in_work(size, scales) {
        let yard = yard(Able::prefix().assigns().prefetches(1), 1);
        let (link, gate) = (Link::new(yard.clone()), Gate::default());
        let (context, stop) = (StepContext::new("crowd"), CancellationSource::new());
        let drain = fan_in(&context, [], async |_, step: StepContext| {
            step.register_compensation(|| rests(1));
            gate.wait().await;
            ok()
        });
        let drain = drain.incoming(link.assigned()).concurrency(size).shutdown(stop.token());
        let mut drain = Hand::new(drain.into_future());
        let all = 0..u32::try_from(size).expect("few");
        let at = |partition| Assignment { partition, generation: 1 };
        for partition in all.clone() {
            yard.notices.tell(Event::Assigned(at(partition)));
        }
        assert!(drain.run().is_pending());
        scales.all_are_here();
        for partition in all {
            yard.notices.tell(Event::Lost(at(partition), not_ours()));
            // They come in crowds: who has them is looked for once for each.
            if (partition as usize).is_multiple_of(size / 10) {
                assert!(drain.run().is_pending());
            }
        }
        assert!(drain.run().is_pending());
        crate::support::poll_times(&mut drain.future, 3);
        stop.cancel();
        let report = drain.finish().expect("it succeeds");
        assert_eq!((report.lost(), yard.accepted()), (size as u64, 0));
    }
    messages_behind_one_that_goes_back(size, scales) {
        let yard = yard(Able::prefix().assigns().prefetches(256), size);
        let link = Link::new(yard.clone()).max_ahead(size).max_unsettled(size);
        let (context, gate) = (StepContext::new("crowd"), Gate::default());
        let stop = CancellationSource::new();
        let drain = fan_in(&context, [], async |number, step| {
            staged(&step);
            if number == 0 {
                gate.wait().await;
                return Err("no");
            }
            Ok(())
        });
        let drain = drain.incoming(link.assigned()).unordered().concurrency(2);
        let drain = drain.on_failure(OnFailure::Continue).shutdown(stop.token());
        let mut drain = Hand::new(drain.into_future());
        yard.notices.tell(Event::Assigned(Assignment { partition: 1, generation: 1 }));
        assert!(drain.run().is_pending());
        scales.all_are_here();
        gate.open();
        stop.cancel();
        let report = drain.finish().expect("it goes on");
        assert_eq!((report.released(), yard.accepted()), (size as u64, 0));
    }
}
