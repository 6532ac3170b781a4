//! A clock that goes on between any two looks at it: nothing that becomes due in between is missed.
//! Rules 5.4, 3.3, 3.10, 2.10, 3.9.

use std::future::{IntoFuture, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::{FutureExt, StreamExt, stream};
use watershed::{
    Answer, BoxError, CancellationSource, Clock, Failure, FanInReport, ManualClock, RetryPolicy,
    Sleep, Source, StepContext, Tick, fan_in,
};

use crate::support::ending::assert_settled;
use crate::support::{Hand, filled, yields};

const SECOND: Duration = Duration::from_secs(1);

/// A clock that goes on by so much at one look at it.
#[derive(Debug)]
struct Jumps {
    clock: ManualClock,
    looks: AtomicUsize,
    at: usize,
    by: Duration,
}

impl Clock for Jumps {
    fn now(&self) -> Tick {
        if self.looks.fetch_add(1, Ordering::SeqCst) == self.at {
            self.clock.advance(self.by);
        }
        self.clock.now()
    }

    fn sleep_until(&self, deadline: Tick) -> Sleep {
        self.clock.sleep_until(deadline)
    }
}

type Ends<'a> = LocalBoxFuture<'a, Result<FanInReport, Failure<FanInReport>>>;

/// A drain, and how many messages it handles, or `None` where it fails.
struct Scene {
    name: &'static str,
    begin: fn(&StepContext) -> Ends<'_>,
    handled: Option<u64>,
}

/// A drain in each order.
macro_rules! in_every_order {
    ($name:literal, $handled:expr, |$context:ident| $drain:expr) => {
        [
            Scene {
                name: concat!($name, ", in order"),
                begin: |$context| $drain.into_future().boxed_local(),
                handled: $handled,
            },
            Scene {
                name: concat!($name, ", in any order"),
                begin: |$context| $drain.unordered().into_future().boxed_local(),
                handled: $handled,
            },
            Scene {
                name: concat!($name, ", by key"),
                begin: |$context| $drain.ordered_by(|m| *m % 2).into_future().boxed_local(),
                handled: $handled,
            },
            Scene {
                name: concat!($name, ", by key across sources"),
                begin: |$context| {
                    $drain.ordered_across_sources_by(|m| *m % 2).into_future().boxed_local()
                },
                handled: $handled,
            },
        ]
    };
}

fn scenes() -> Vec<Scene> {
    async fn fails(attempts: u32, step: &StepContext) -> Result<(), BoxError> {
        yields(1).await;
        if step.attempt() < attempts { Err("not yet".into()) } else { Ok(()) }
    }
    let retried = in_every_order!("retried", Some(4), |context| fan_in(
        context,
        [filled([1, 2, 3]), filled([4])],
        async |_: u32, step: StepContext| fails(3, &step).await
    )
    .concurrency(3)
    .retry(RetryPolicy::fixed(3, SECOND)));
    let alone = in_every_order!("one that is retried", Some(1), |context| fan_in(
        context,
        [filled([1])],
        async |_: u32, step: StepContext| fails(2, &step).await
    )
    .retry(RetryPolicy::fixed(2, SECOND)));
    let idle = in_every_order!("until it is idle", Some(2), |context| fan_in(
        context,
        [filled([1, 2]).chain(stream::pending())],
        async |_: u32, step: StepContext| fails(2, &step).await
    )
    .retry(RetryPolicy::fixed(2, SECOND))
    .until_idle());
    let crowded = in_every_order!("few may wait", Some(6), |context| fan_in(
        context,
        [filled([1, 2, 3]), filled([4, 5, 6])],
        async |_: u32, step: StepContext| fails(3, &step).await
    )
    .concurrency(2)
    .max_waiting(1)
    .retry(RetryPolicy::fixed(3, SECOND)));
    let later = in_every_order!("later", Some(3), |context| {
        let mut came = std::collections::BTreeSet::new();
        fan_in(context, [filled([1, 2, 3])], move |message: u32, _| {
            let answer = if came.insert(message) { Answer::Later(SECOND) } else { Answer::Done };
            async move { Ok::<_, BoxError>(answer) }
        })
        .concurrency(2)
        .retry(RetryPolicy::fixed(2, SECOND))
    });
    let rates = in_every_order!("a rate", Some(5), |context| fan_in(
        context,
        [filled([1, 2, 3]), filled([4, 5])],
        async |_: u32, step: StepContext| fails(1, &step).await
    )
    .concurrency(2)
    .rate(1, SECOND));
    let own_rates = in_every_order!("a rate of each source", Some(5), |context| fan_in(
        context,
        [filled([1, 2, 3]).rate(1, SECOND), filled([4, 5]).rate(2, SECOND)],
        async |_: u32, step: StepContext| fails(2, &step).await
    )
    .concurrency(2)
    .retry(RetryPolicy::fixed(2, SECOND)));
    let timed = in_every_order!("the deadline of a message", Some(2), |context| fan_in(
        context,
        [filled([1, 2])],
        async |_: u32, step: StepContext| {
            if step.attempt() == 1 {
                pending::<()>().await;
            }
            Ok::<_, BoxError>(())
        }
    )
    .message_timeout(SECOND)
    .retry(RetryPolicy::fixed(2, SECOND)));
    let deadline = in_every_order!("the deadline", None, |context| fan_in(
        context,
        [filled([1]).chain(stream::pending())],
        async |_: u32, _| Ok::<_, BoxError>(())
    )
    .timeout(SECOND));
    let grace = in_every_order!("the grace", None, |context| fan_in(
        context,
        [filled([1])],
        async |_: u32, _| pending::<Result<(), BoxError>>().await
    )
    .timeout(SECOND));
    let shutdown = in_every_order!("a shutdown", None, |context| {
        let stop = CancellationSource::new();
        let token = stop.token();
        fan_in(context, [filled([1])], move |_: u32, _| {
            stop.cancel();
            pending::<Result<(), BoxError>>()
        })
        .shutdown(token)
        .finish_within(SECOND)
    });
    let all =
        [retried, alone, idle, crowded, later, rates, own_rates, timed, deadline, grace, shutdown];
    all.into_iter().flatten().collect()
}

// Rules 5.4, 3.3, 3.9, 3.10, 3.11, 2.10
#[test]
fn whatever_look_the_clock_goes_on_at_everything_ends_as_it_should() {
    for scene in scenes() {
        for by in [SECOND, SECOND / 2, Duration::from_nanos(1), 9 * SECOND] {
            for at in 0..60 {
                let clock = ManualClock::new();
                let jumps = Jumps { clock: clock.clone(), looks: AtomicUsize::default(), at, by };
                let context = StepContext::new("t").with_clock(Arc::new(jumps));
                let Scene { name, begin, handled } = scene;
                let ended = Hand::new(begin(&context)).finish_by(&clock);
                let report = match &ended {
                    Ok(report) => report,
                    Err(failure) => failure.report(),
                };
                assert_settled(report);
                // A deadline may come before the message.
                let handled = handled.unwrap_or(report.handled().min(1));
                assert_eq!(ended.is_ok(), scene.handled.is_some(), "{name}, at {at}: {ended:?}");
                assert_eq!(report.handled(), handled, "{name}, {by:?} at look {at}");
            }
        }
    }
}
