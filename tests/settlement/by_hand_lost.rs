//! Messages that are lost while their handlers settle them, and whose settlement is refused: "as if not
//! tried", so they are lost like any other.

use std::future::IntoFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use watershed::transport::{
    Able, Assignment, Event, Fetched, Link, Notices, Received, Renewed, Revocation, Settled,
    Transport, Verdict, Want,
};
use watershed::{
    BoxError, CancellationSource, Error, OnFailure, RetryPolicy, StepContext, fan_in, timers,
};

use crate::support::{Hand, manual};

const SECOND: Duration = Duration::from_secs(1);

/// How a message is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Renewal,
    Partition,
    Revocation,
}

/// One message, and what is said of it.
#[derive(Clone)]
struct One {
    how: How,
    prefix: bool,
    left: Arc<AtomicUsize>,
    notices: Notices,
    verdicts: Arc<Mutex<Vec<Verdict>>>,
}

fn lost() -> Error {
    Error::validation("lost")
}

impl Transport for One {
    type Message = u32;
    type Receipt = u32;

    /// It does not fence: a stale accept would settle what is somebody else's by now.
    fn able(&self) -> Able {
        let able = if self.prefix { Able::prefix() } else { Able::each().renews() };
        if self.how == How::Renewal { able } else { able.assigns() }
    }

    fn notices(&self) -> Notices {
        self.notices.clone()
    }

    async fn fetch(&self, _: Want) -> Fetched<u32, u32> {
        let left =
            self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1));
        let one = left.map(|_| Received::new(7, 7)).into_iter();
        let leased = one.map(|it| if self.prefix { it } else { it.leased_for(3 * SECOND) });
        Ok(Some(leased.collect()))
    }

    async fn renew(&self, batch: Vec<u32>) -> Vec<Renewed> {
        let renewed = |_: &u32| match self.how {
            How::Renewal => Renewed::Lost(lost()),
            _ => Renewed::For(3 * SECOND),
        };
        batch.iter().map(renewed).collect()
    }

    async fn settle(&self, batch: Vec<(u32, Verdict)>) -> Vec<Settled> {
        let verdicts = batch.iter().map(|(_, verdict)| verdict.clone());
        self.verdicts.lock().unwrap().extend(verdicts);
        batch.iter().map(|_| Settled::Confirmed).collect()
    }
}

// Rules 7.1, 7.5, 7.18; 3.9: the drain ends
#[test]
fn a_loss_that_came_while_a_handler_settled_counts_when_that_is_refused() {
    for (how, prefix) in [
        (How::Renewal, false),
        (How::Partition, false),
        (How::Partition, true),
        (How::Revocation, false),
        (How::Revocation, true),
    ] {
        for (nap, fails) in [(0, false), (0, true), (1, false), (1, true)] {
            let case = format!("{how:?}, prefix {prefix}, naps {nap}, fails {fails}");
            let ((context, clock), stop) = (manual("orders"), CancellationSource::new());
            let one = One {
                how,
                prefix,
                left: Arc::new(AtomicUsize::new(1)),
                notices: Notices::new(),
                verdicts: Arc::default(),
            };
            let (link, undone) = (Link::new(one.clone()), Arc::new(AtomicUsize::new(0)));
            let begun = AtomicUsize::new(0);
            let handler = async |_: u32, step: StepContext| {
                begun.fetch_add(1, Ordering::SeqCst);
                step.register_compensation_with(
                    Arc::clone(&undone),
                    async |undone: Arc<AtomicUsize>| {
                        undone.fetch_add(1, Ordering::SeqCst);
                    },
                );
                let settling = step.settling()?;
                timers::delay(&step, 2 * SECOND).await?;
                settling.ended(Settled::Refused(Error::validation("rolled back")));
                timers::delay(&step, nap * SECOND / 5).await?;
                if fails { Err(BoxError::from("no")) } else { Ok(()) }
            };
            let drain = fan_in(&context, [], handler).on_failure(OnFailure::Continue);
            let drain = drain.retry(RetryPolicy::fixed(2, SECOND / 100)).shutdown(stop.token());
            let at = Assignment { partition: 0, generation: 1 };
            let drain = if how == How::Renewal {
                drain.incoming(futures::stream::iter([link.source()])).into_future().boxed_local()
            } else {
                one.notices.tell(Event::Assigned(at));
                drain.incoming(link.assigned()).into_future().boxed_local()
            };
            let mut drain = Hand::new(drain);
            for tenth in 0..80 {
                assert!(drain.run().is_pending(), "{case}");
                if tenth == 12 {
                    match how {
                        How::Renewal => {}
                        How::Partition => one.notices.tell(Event::Lost(at, lost())),
                        How::Revocation => {
                            let asked = Revocation::new(at, |_| {}).within(SECOND / 5);
                            one.notices.tell(Event::Revoked(asked));
                        }
                    }
                }
                clock.advance(SECOND / 10);
            }
            stop.cancel();
            let report = drain.finish_by(&clock).unwrap();
            assert_eq!((report.lost(), report.accepted(), report.released()), (1, 0, 0), "{case}");
            assert_eq!(begun.load(Ordering::SeqCst), 1, "{case}: it is not handled again");
            // One that has ended well before anybody heard of the loss keeps what it did (7.2).
            let stays = nap == 0 && !fails;
            assert_eq!(undone.load(Ordering::SeqCst), usize::from(!stays), "{case}");
            assert!(one.verdicts.lock().unwrap().is_empty(), "{case}: a verdict behind a loss");
        }
    }
}
