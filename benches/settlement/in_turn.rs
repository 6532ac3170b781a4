//! Many transports, of which one at a time has a message.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use async_channel::{Receiver, Sender, unbounded};
use futures::executor::block_on;
use futures::stream::{FuturesUnordered, StreamExt};
use watershed::transport::{Able, Fetched, Link, Received, Settled, Transport, Verdict, Want};
use watershed::{BoxError, StepContext, fan_in};

use crate::support::channels::Load;
use crate::support::measure::timing;
use crate::support::section::{Column, Contender, Role, Section};

pub(crate) const IN_TURN: Section = Section {
    name: "in_turn",
    title: "one message at a time, each from the next transport",
    figures: &["ns a message"],
    columns: &[
        Column::new("1 transport", 1, 100_000),
        Column::new("64 transports", 64, 100_000),
        Column::new("1,024 transports", 1_024, 100_000),
        Column::new("16,384 transports", 16_384, 100_000),
    ],
    contenders: &[
        Contender { name: "settled", role: Role::Ours, once: settled },
        Contender { name: "a loop each", role: Role::PeerOf("settled"), once: loops },
    ],
    marks: &[],
    countable: true,
    note: "A loop each: they are in one `FuturesUnordered`, and accept each message behind its handler.",
};

/// Where the handler of a message sends the next one, until all are sent.
struct Ring {
    senders: RefCell<Vec<Sender<u32>>>,
    messages: u32,
    done: Cell<u32>,
}

impl Ring {
    fn new(load: Load) -> (Rc<Self>, Vec<Receiver<u32>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..load.size).map(|_| unbounded()).unzip();
        let senders = RefCell::new(senders);
        let ring = Self { senders, messages: load.messages, done: Cell::new(0) };
        ring.send(0);
        (Rc::new(ring), receivers)
    }

    fn send(&self, number: u32) {
        let senders = self.senders.borrow();
        senders[number as usize % senders.len()].try_send(number).expect("it is open");
    }

    #[allow(clippy::unused_async, reason = "handlers are async")]
    async fn handle(&self, number: u32) -> Result<(), BoxError> {
        self.done.set(self.done.get() + 1);
        if number + 1 < self.messages {
            self.send(number + 1);
        } else {
            self.senders.borrow_mut().clear();
        }
        Ok(())
    }
}

/// A transport that has what it is sent.
struct Mailbox(Receiver<u32>);

impl Transport for Mailbox {
    type Message = u32;
    type Receipt = u32;

    fn able(&self) -> Able {
        Able::each().prefetches(1)
    }

    async fn fetch(&self, _: Want) -> Fetched<u32, u32> {
        Ok(self.0.recv().await.ok().map(|number| vec![Received::new(number, number)]))
    }

    async fn settle(&self, batch: Vec<(u32, Verdict)>) -> Vec<Settled> {
        batch.iter().map(|_| Settled::Confirmed).collect()
    }
}

fn settled(load: Load) -> Vec<f64> {
    let (ring, receivers) = Ring::new(load);
    let links: Vec<_> = receivers.into_iter().map(|it| Link::new(Mailbox(it))).collect();
    let sources: Vec<_> = links.iter().map(Link::source).collect();
    let (report, took) = timing(|| {
        let drain = fan_in(&StepContext::new("settled"), sources, |number, _| {
            let ring = Rc::clone(&ring);
            async move { ring.handle(number).await }
        });
        block_on(drain.into_future()).expect("nothing fails")
    });
    assert_eq!(report.accepted(), u64::from(load.messages));
    each(load, took)
}

fn loops(load: Load) -> Vec<f64> {
    let (ring, receivers) = Ring::new(load);
    let ((), took) = timing(|| {
        let loops = receivers.into_iter().map(|receiver| {
            let ring = Rc::clone(&ring);
            let mailbox = Mailbox(receiver);
            async move {
                while let Ok(number) = mailbox.0.recv().await {
                    ring.handle(number).await.expect("nothing fails");
                    std::hint::black_box(mailbox.settle(vec![(number, Verdict::Accept)]).await);
                }
            }
        });
        block_on(loops.collect::<FuturesUnordered<_>>().for_each(|()| async {}));
    });
    assert_eq!(ring.done.get(), load.messages);
    each(load, took)
}

fn each(load: Load, took: Duration) -> Vec<f64> {
    vec![took.as_secs_f64() * 1e9 / f64::from(load.messages)]
}
