//! Wake-ups that a transport gives unasked.

use std::sync::Mutex;

use watershed::testing::Simulation;
use watershed::transport::{
    Able, Event, Fetched, Link, Notices, Received, Settled, Transport, Verdict, Want,
};
use watershed::{BoxError, Clock, Tick, fan_in};

use crate::shop::{MINUTE, SECOND, run};

/// A queue whose fetches take two seconds, and bring what there was when they were sent.
struct Slow<C> {
    clock: C,
    rows: Mutex<Vec<u32>>,
    fetched_at: Mutex<Vec<Tick>>,
    notices: Notices,
}

impl<C: Clock + Clone + 'static> Transport for Slow<C> {
    type Message = u32;
    type Receipt = u32;

    fn able(&self) -> Able {
        Able::each().asks_every(MINUTE)
    }

    fn notices(&self) -> Notices {
        self.notices.clone()
    }

    async fn fetch(&self, _: Want) -> Fetched<u32, u32> {
        self.fetched_at.lock().unwrap().push(self.clock.now());
        let rows = std::mem::take(&mut *self.rows.lock().unwrap());
        if rows.is_empty() && self.fetched_at.lock().unwrap().len() == 1 {
            self.clock.sleep_until(self.clock.now() + SECOND).await;
            // Too late for the one that is on its way.
            self.rows.lock().unwrap().push(7);
            self.notices.tell(Event::Ready);
        }
        self.clock.sleep_until(self.clock.now() + SECOND).await;
        Ok(Some(rows.into_iter().map(|row| Received::new(row, row)).collect()))
    }

    async fn settle(&self, batch: Vec<(u32, Verdict)>) -> Vec<Settled> {
        batch.iter().map(|_| Settled::Confirmed).collect()
    }
}

/// Rule 7.12: what is on its way may have looked before there was something.
#[test]
fn a_wake_up_while_a_fetch_is_on_its_way_is_a_reason_for_another_one() {
    for until_idle in [false, true] {
        let simulation = Simulation::new(7);
        let context = simulation.world().context("waking");
        let link = Link::new(Slow {
            clock: simulation.world().clock().clone(),
            rows: Mutex::default(),
            fetched_at: Mutex::default(),
            notices: Notices::new(),
        });
        let stop = watershed::CancellationSource::new();
        let drain = fan_in(&context, [link.source()], async |row, _| {
            assert_eq!(row, 7);
            if !until_idle {
                stop.cancel();
            }
            Ok::<_, BoxError>(())
        })
        .shutdown(stop.token());
        let drain = if until_idle { drain.until_idle() } else { drain };
        assert_eq!(run(&simulation, drain).unwrap().accepted(), 1);
        let fetched_at = link.transport().fetched_at.lock().unwrap();
        // Not a minute later, and not never.
        assert_eq!(fetched_at[..2], [Tick::ZERO, Tick::ZERO + 2 * SECOND]);
    }
}
