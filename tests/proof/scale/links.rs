//! A hundred thousand transports of one drain.

use std::cell::Cell;

use watershed::transport::{Able, Fetched, Link, Received, Settled, Transport, Verdict, Want};
use watershed::{BoxError, fan_in};

use super::scales::finish_behind;
use crate::support::{Gate, Hand, manual};

/// What is sent to it, each answered when the gate is open.
struct Mailbox {
    letters: async_channel::Receiver<usize>,
    gate: Gate,
}

impl Transport for Mailbox {
    type Message = usize;
    type Receipt = usize;

    fn able(&self) -> Able {
        Able::each().prefetches(1)
    }

    async fn fetch(&self, _: Want) -> Fetched<usize, usize> {
        Ok(self.letters.recv().await.ok().map(|letter| vec![Received::new(letter, letter)]))
    }

    async fn settle(&self, batch: Vec<(usize, Verdict)>) -> Vec<Settled> {
        self.gate.wait().await;
        batch.iter().map(|_| Settled::Confirmed).collect()
    }
}

type Senders = Vec<async_channel::Sender<usize>>;

fn mailboxes(count: usize, gate: &Gate) -> (Senders, Vec<Link<Mailbox>>) {
    let mailbox = |_| {
        let (sender, letters) = async_channel::unbounded();
        (sender, Link::new(Mailbox { letters, gate: gate.clone() }))
    };
    (0..count).map(mailbox).unzip()
}

// Rules 7.1 and 2.9
crowds! {
    transports_with_a_message_each(size, scales) {
        let gate = Gate::default();
        let (senders, links) = mailboxes(size, &gate);
        for sender in senders {
            sender.try_send(1).expect("it is open");
        }
        let sources: Vec<_> = links.iter().map(Link::source).collect();
        let (context, _) = manual("crowd");
        let drain = fan_in(&context, sources, async |_, _| Ok::<_, BoxError>(()));
        let drain = drain.concurrency(16).into_future();
        let report = finish_behind(&gate, drain, scales).expect("nothing fails");
        assert_eq!(report.accepted(), size as u64);
    }
    transports_of_which_one_at_a_time_has_a_message(size, scales) {
        let gate = Gate::default();
        gate.open();
        let (senders, links) = mailboxes(size, &gate);
        let first = senders[0].clone();
        let senders = Cell::new(senders);
        let sources: Vec<_> = links.iter().map(Link::source).collect();
        let (context, _) = manual("crowd");
        let drain = fan_in(&context, sources, |letter: usize, _| {
            let all = senders.take();
            if letter < 2 * all.len() {
                all[letter % all.len()].try_send(letter + 1).expect("it is open");
                senders.set(all);
            }
            async { Ok::<_, BoxError>(()) }
        });
        let mut drain = Hand::new(drain.concurrency(16).into_future());
        assert!(drain.run().is_pending());
        scales.all_are_here();
        first.try_send(1).expect("it is open");
        drop(first);
        let report = drain.finish().expect("nothing fails");
        assert_eq!(report.accepted(), 2 * size as u64);
    }
}
