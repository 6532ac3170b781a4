//! The suite for transports, on transports that do what they should, and on some that do not.

use std::ops::Range;
use std::time::Duration;

use watershed::testing::{Broker, ScriptedQueue, Simulation, conformance};
use watershed::transport::{
    Able, Fetched, Link, Received, Renewed, Settled, Transport, Verdict, Want,
};
use watershed::{BoxError, Error};

const LEASE: Duration = Duration::from_secs(30);

/// A queue whose adapter does something wrong.
#[derive(Clone)]
struct Wrong {
    queue: ScriptedQueue<u32>,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Right,
    /// It says that it has accepted, and has not.
    ForgetsToAccept,
    /// It accepts what is to be released.
    AcceptsReleases,
    /// It releases what is rejected.
    ReleasesRejects,
}

impl Transport for Wrong {
    type Message = u32;
    type Receipt = <ScriptedQueue<u32> as Transport>::Receipt;

    fn able(&self) -> Able {
        Transport::able(&self.queue)
    }

    async fn fetch(&self, want: Want) -> Fetched<u32, Self::Receipt> {
        let fetched = self.queue.fetch(want).await?;
        Ok(fetched.map(|all| all.into_iter().collect::<Vec<Received<_, _>>>()))
    }

    async fn settle(&self, batch: Vec<(Self::Receipt, Verdict)>) -> Vec<Settled> {
        let mut settled = Vec::new();
        for (receipt, verdict) in batch {
            let verdict = match (self.how, verdict) {
                (How::ForgetsToAccept, Verdict::Accept) => {
                    settled.push(Settled::Confirmed);
                    continue;
                }
                (How::AcceptsReleases, Verdict::Release { .. }) => Verdict::Accept,
                (_, verdict) => verdict,
            };
            if self.how == How::ReleasesRejects && matches!(verdict, Verdict::Reject { .. }) {
                // Its lease runs out, and it comes again.
                settled.push(Settled::Confirmed);
                continue;
            }
            settled.extend(self.queue.settle(vec![(receipt, verdict)]).await);
        }
        settled
    }

    async fn renew(&self, batch: Vec<Self::Receipt>) -> Vec<Renewed> {
        self.queue.renew(batch).await
    }
}

impl Broker for Wrong {
    type Transport = Wrong;

    async fn connect(&self) -> Result<Link<Wrong>, BoxError> {
        Ok(Link::new(self.clone()))
    }

    async fn put(&self, numbers: Range<u32>) -> Result<(), BoxError> {
        numbers.for_each(|number| {
            self.queue.push(number);
        });
        Ok(())
    }

    fn number(&self, message: &u32) -> u32 {
        *message
    }

    fn comes_again_after(&self) -> Duration {
        LEASE
    }
}

fn suite(how: How) -> Result<usize, Error> {
    let simulation = Simulation::new(7);
    let queue = ScriptedQueue::new(simulation.world()).leased_for(LEASE).endless();
    let context = simulation.world().context("conformance");
    simulation.run(conformance(&context, &Wrong { queue, how })).expect("it ends")
}

#[test]
fn a_transport_that_does_what_it_should_passes() {
    match suite(How::Right) {
        Ok(checks) => assert_eq!(checks, 7),
        Err(error) => {
            let all: Vec<_> = error.related().iter().map(|one| format!("{one:#}")).collect();
            panic!("{error}: {all:#?}");
        }
    }
}

#[test]
fn a_transport_that_does_something_wrong_hears_what_it_is() {
    for (how, what) in [
        (How::ForgetsToAccept, "does not come again"),
        (How::AcceptsReleases, "comes again"),
        (How::ReleasesRejects, "is rejected"),
    ] {
        let error = suite(how).expect_err("something is wrong");
        assert!(!error.related().is_empty(), "{how:?}");
        let said = error.related().iter().any(|one| one.to_string().contains(what));
        assert!(said, "{how:?}: {:?}", error.related());
    }
}
