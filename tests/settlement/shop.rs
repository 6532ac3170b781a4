//! A queue whose every verdict is compared with what the handlers have done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use watershed::testing::{QueueCall, QueueReceipt, ScriptedQueue, Simulation, World};
use watershed::transport::{
    Able, Fetched, Link, Received, Renewed, Settled, Transport, Verdict, Want,
};
use watershed::{BoxError, FanInReport, Letter, StepContext, Tick};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);

/// A queue, and the effects of those who handle its messages.
#[derive(Clone)]
pub struct Shop {
    pub queue: ScriptedQueue<u32>,
    pub book: Arc<Mutex<Book>>,
}

#[derive(Default)]
pub struct Book {
    /// Effects of each delivery that are not undone.
    pub live: BTreeMap<QueueReceipt, i32>,
    pub undone: Vec<QueueReceipt>,
    /// Deliveries with an undo that fails for good.
    pub stuck: BTreeSet<QueueReceipt>,
    /// Deliveries that their handler has settled.
    pub by_hand: BTreeSet<QueueReceipt>,
    /// Messages that no handler sees.
    pub skipped: BTreeSet<u64>,
    /// Messages that were begun, and whose last handler has not said `Ok`.
    pub unfinished: BTreeSet<u64>,
    /// Messages of which a reject was sent.
    pub sent_away: BTreeSet<u64>,
    /// Messages with a letter.
    pub letters: BTreeSet<u64>,
    pub keeps_rejects: bool,
    pub redrives: bool,
    pub fences: bool,
    pub faults: Vec<String>,
}

impl Shop {
    pub fn new(queue: ScriptedQueue<u32>) -> Self {
        let book = Book { fences: true, ..Book::default() };
        Self { queue, book: Arc::new(Mutex::new(book)) }
    }

    /// A queue with the messages 0 to `messages`, in the world of a simulation.
    pub fn with(world: &World, messages: u32) -> Self {
        Self::new(ScriptedQueue::new(world).with(0..messages))
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    pub fn link(&self) -> Link<Self> {
        Link::new(self.clone())
    }

    pub fn receipts(step: &StepContext) -> Vec<QueueReceipt> {
        (0..step.deliveries().len()).filter_map(|at| step.receipt::<QueueReceipt>(at)).collect()
    }

    /// What a handler does: an effect for each delivery of its message, and how it is undone.
    pub fn work(&self, step: &StepContext) -> Vec<QueueReceipt> {
        let receipts = Self::receipts(step);
        if std::env::var("SEED").is_ok() {
            println!("work on {receipts:?} at {:?}", self.queue.now());
        }
        for receipt in &receipts {
            self.work_on(*receipt, step);
        }
        receipts
    }

    fn work_on(&self, receipt: QueueReceipt, step: &StepContext) {
        *self.book().live.entry(receipt).or_default() += 1;
        let shop = self.clone();
        step.register_compensation(move || {
            shop.undo(receipt);
            async {}
        });
    }

    pub fn undo(&self, receipt: QueueReceipt) {
        let accepted = self.queue.accepted().contains(&receipt);
        let mut book = self.book();
        *book.live.entry(receipt).or_default() -= 1;
        book.undone.push(receipt);
        if std::env::var("SEED").is_ok() {
            println!(
                "undo of {receipt:?} at {:?}, calls {}",
                self.queue.now(),
                self.queue.calls().len()
            );
        }
        if accepted && book.fences {
            book.faults.push(format!("{receipt:?} undone after its accept"));
        }
        if book.by_hand.contains(&receipt) {
            book.faults.push(format!("{receipt:?} undone after its handler settled it"));
        }
    }

    /// Rule 7.16, with so many groups: whatever is before these in their groups is done.
    pub fn begin_in_order(&self, numbers: &[u32], groups: u32) {
        let left = self.queue.left();
        let mut book = self.book();
        if std::env::var("SEED").is_ok() {
            println!("begin {numbers:?} of {groups} groups at {:?}", self.queue.now());
        }
        for number in numbers {
            let before = (number % groups..*number).step_by(groups as usize);
            for earlier in before.filter(|it| !numbers.contains(it)).map(u64::from) {
                let live = book.live.iter().filter(|(it, _)| it.number == earlier);
                let is_done = live.map(|(_, live)| *live).sum::<i32>() > 0
                    && !book.unfinished.contains(&earlier);
                let is_away = book.skipped.contains(&earlier)
                    || book.letters.contains(&earlier)
                    || book.sent_away.contains(&earlier)
                    || book.by_hand.iter().any(|it| it.number == earlier);
                if left.contains(&earlier) && !is_done && !is_away {
                    book.faults.push(format!("{number} is begun before {earlier} is done"));
                }
            }
        }
        book.unfinished.extend(numbers.iter().copied().map(u64::from));
    }

    /// Their handler has said `Ok`.
    pub fn finish(&self, numbers: &[u32]) {
        self.book().unfinished.retain(|it| !numbers.iter().any(|number| u64::from(*number) == *it));
    }

    fn check(&self, batch: &[(QueueReceipt, Verdict)]) {
        let mut book = self.book();
        for (receipt, verdict) in batch {
            let live = book.live.get(receipt).copied().unwrap_or(0);
            if matches!(verdict, Verdict::Reject { .. }) {
                book.sent_away.insert(receipt.number);
            }
            let (stuck, skipped) =
                (book.stuck.contains(receipt), book.skipped.contains(&receipt.number));
            let wrong = match verdict {
                Verdict::Accept if skipped => live != 0,
                Verdict::Accept => live != 1,
                Verdict::Release { .. } => live != 0 && !(stuck && book.redrives),
                _ => {
                    live != 0 && !stuck
                        || !(book.letters.contains(&receipt.number) || book.keeps_rejects)
                }
            };
            if wrong || book.by_hand.contains(receipt) {
                book.faults.push(format!("{verdict:?} of {receipt:?} with {live} live effects"));
            }
        }
    }

    /// Each message is in exactly one place, and each effect there at most once.
    pub fn check_all(&self, messages: u64) {
        let (left, rejected, redriven) =
            (self.queue.left(), self.queue.rejected(), self.queue.redriven());
        let accepted: Vec<_> = self.queue.accepted().iter().map(|it| it.number).collect();
        let book = self.book();
        assert!(book.faults.is_empty(), "{:#?}", book.faults);
        for number in 0..messages {
            let places = [&left, &rejected, &redriven, &accepted];
            let times = places.map(|place| place.iter().filter(|it| **it == number).count());
            if book.fences {
                assert_eq!(times.iter().sum::<usize>(), 1, "message {number} is in {times:?}");
            } else {
                assert!(times.iter().sum::<usize>() >= 1, "message {number} is in {times:?}");
            }
        }
        for (receipt, live) in &book.live {
            assert!((0..=1).contains(live), "{live} effects of {receipt:?}");
        }
        for receipt in self.queue.accepted() {
            let live = book.live.get(&receipt).copied().unwrap_or(0);
            let wanted = i32::from(!book.skipped.contains(&receipt.number));
            assert_eq!(live, wanted, "effects of the accepted {receipt:?}");
        }
    }

    /// The effects that are not undone, by message.
    pub fn live(&self) -> Vec<u64> {
        let book = self.book();
        book.live.iter().filter(|(_, live)| **live > 0).map(|(it, _)| it.number).collect()
    }

    /// The batches of verdicts, in the order in which they came.
    pub fn verdicts(&self) -> Vec<Vec<(u64, &'static str)>> {
        let word = |verdict: &Verdict| match verdict {
            Verdict::Accept => "accept",
            Verdict::Release { begun: false, .. } => "untouched",
            Verdict::Release { .. } => "release",
            _ => "reject",
        };
        let batch = |call: QueueCall| match call {
            QueueCall::Settle { batch, .. } => {
                Some(batch.iter().map(|(it, verdict)| (it.number, word(verdict))).collect())
            }
            _ => None,
        };
        self.queue.calls().into_iter().filter_map(batch).collect()
    }
}

impl Transport for Shop {
    type Message = u32;
    type Receipt = QueueReceipt;

    fn able(&self) -> Able {
        Transport::able(&self.queue)
    }

    async fn fetch(&self, want: Want) -> Fetched<u32, QueueReceipt> {
        let fetched: Option<Vec<Received<u32, QueueReceipt>>> = self.queue.fetch(want).await?;
        Ok(fetched)
    }

    async fn settle(&self, batch: Vec<(QueueReceipt, Verdict)>) -> Vec<Settled> {
        self.check(&batch);
        self.queue.settle(batch).await
    }

    async fn renew(&self, batch: Vec<QueueReceipt>) -> Vec<Renewed> {
        self.queue.renew(batch).await
    }

    async fn close(&self) -> Result<(), watershed::Error> {
        self.queue.close().await
    }
}

impl Shop {
    /// The same shop with another queue's abilities.
    pub fn with_able(self, able: Able) -> Self {
        Self { queue: self.queue.able(able), ..self }
    }

    /// Each call of the queue takes so long.
    pub fn slow(self, latency: Duration) -> Self {
        Self { queue: self.queue.latency(latency), ..self }
    }

    pub fn leased_for(self, term: Duration) -> Self {
        Self { queue: self.queue.leased_for(term), ..self }
    }

    pub fn endless(self) -> Self {
        Self { queue: self.queue.endless(), ..self }
    }

    /// When verdicts came.
    pub fn times(&self) -> Vec<Tick> {
        let at = |call| if let QueueCall::Settle { at, .. } = call { Some(at) } else { None };
        self.queue.calls().into_iter().filter_map(at).collect()
    }

    /// A letter is stored.
    pub fn letter<M>(&self, letter: &Letter<M>) {
        let ids = letter.deliveries().iter().filter_map(|it| it.id.clone());
        self.book().letters.extend(ids.map(|id| id.parse::<u64>().unwrap()));
    }
}

/// What a queue can do where nothing else is said.
pub fn able() -> Able {
    Able::each().fences().renews().delays().counts().batches_of(10).prefetches(4)
}

/// A simulation, a shop with messages, and a context.
pub fn stage(messages: u32) -> (Simulation, Shop, StepContext) {
    let simulation = Simulation::new(7).with_most_polls(100_000);
    let shop = Shop::with(simulation.world(), messages);
    let context = simulation.world().context("shop");
    (simulation, shop, context)
}

/// Runs a drain to its end.
pub fn run<F: IntoFuture>(simulation: &Simulation, drain: F) -> F::Output {
    simulation.run(drain).unwrap_or_else(|stopped| panic!("{stopped}"))
}

/// What 7.6 says of every report.
pub fn assert_sum(report: &FanInReport) {
    let sum = report.accepted()
        + report.released()
        + report.rejected()
        + report.lost()
        + report.unknown()
        + report.abandoned();
    assert_eq!(report.fetched(), sum, "{report:?}");
}

pub fn fine() -> Result<(), BoxError> {
    Ok(())
}
