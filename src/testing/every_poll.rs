//! Dropping a future after each of its polls, or cancelling its token.

use std::cell::Cell;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::cancellation::CancellationSource;

/// Runs a scenario once for every poll of a future, and drops the future after that poll: before
/// its first one, after its first, and so on, until a run in which it ended by itself. Returns the
/// number of runs.
///
/// The scenario hands its future to [`DropPoint::cut`], and checks that nothing was lost. With
/// [`DropPoint::cancel`] the future goes on after that poll, and hears that it is cancelled.
///
/// # Panics
///
/// As the scenario does; and when it awaits no future that was cut, or one that has not ended
/// after a million polls.
///
/// ```
/// use watershed::testing::{Ledger, Simulation, for_every_poll};
/// use watershed::{BoxError, CompensationPolicy, fan_in};
///
/// let runs = for_every_poll(|point| {
///     let simulation = Simulation::new(7);
///     let world = simulation.world();
///     let (context, ledger) = (world.context("orders"), Ledger::new());
///     let orders = world.script("orders").items([1, 2, 3]);
///     let drain = fan_in(&context, [orders], async |order, step| {
///         ledger.apply(&step, order);
///         world.pause().await;
///         Ok::<_, BoxError>(())
///     });
///     match simulation.run(point.cut(drain)).unwrap() {
///         Some(ended) => {
///             ended.unwrap();
///             ledger.commit_open();
///         }
///         None => {
///             let rollback = context.roll_back(&CompensationPolicy::sequential_reverse());
///             simulation.run(rollback).unwrap().unwrap();
///         }
///     }
///     ledger.check().unwrap();
/// });
/// assert!(runs > 2);
/// ```
pub fn for_every_poll(mut scenario: impl FnMut(&DropPoint)) -> u64 {
    for polls in 0..1_000_000 {
        let point = DropPoint { polls, fate: Rc::new(Cell::new(Fate::Unknown)) };
        scenario(&point);
        match point.fate.get() {
            Fate::Dropped | Fate::Cancelled => {}
            Fate::Ended => return polls + 1,
            Fate::Unknown => panic!("no future was cut after poll {polls}, or it was not awaited"),
        }
    }
    panic!("the future has not ended after a million polls")
}

/// After how many polls a future is dropped, see [`for_every_poll`].
///
/// ```
/// let runs = watershed::testing::for_every_poll(|point| {
///     let ended = futures::executor::block_on(point.cut(async { 1 }));
///     assert_eq!(ended, (point.polls() > 0).then_some(1));
/// });
/// assert_eq!(runs, 2);
/// ```
#[derive(Debug)]
pub struct DropPoint {
    polls: u64,
    fate: Rc<Cell<Fate>>,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Unknown,
    Dropped,
    Cancelled,
    Ended,
}

impl DropPoint {
    /// After how many polls the future is dropped.
    ///
    /// ```
    /// let mut polls = Vec::new();
    /// watershed::testing::for_every_poll(|point| {
    ///     polls.push(point.polls());
    ///     futures::executor::block_on(point.cut(async {}));
    /// });
    /// assert_eq!(polls, [0, 1]);
    /// ```
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.polls
    }

    /// The same future, dropped after the polls of this run: `None` if that came before its end.
    ///
    /// # Cancel safety
    ///
    /// As that of the future.
    ///
    /// ```
    /// watershed::testing::for_every_poll(|point| {
    ///     futures::executor::block_on(point.cut(async {}));
    /// });
    /// ```
    pub fn cut<F: IntoFuture>(
        &self,
        future: F,
    ) -> impl Future<Output = Option<F::Output>> + use<F> {
        let future = Some(future.into_future());
        CutFuture { future, left: self.polls, fate: Rc::clone(&self.fate) }
    }

    /// The same future, with `source` cancelled after the polls of this run, unless it has ended
    /// by then.
    ///
    /// # Cancel safety
    ///
    /// As that of the future.
    ///
    /// ```
    /// use std::time::Duration;
    /// use watershed::testing::{Simulation, for_every_poll};
    /// use watershed::{BoxError, CancellationSource, ErrorCode, fan_in};
    ///
    /// let runs = for_every_poll(|point| {
    ///     let (simulation, stop) = (Simulation::new(7), CancellationSource::new());
    ///     let context = simulation.world().context("orders");
    ///     let pause = Duration::from_millis(1);
    ///     let orders = simulation.world().script("orders").wait(pause).item(1).wait(pause);
    ///     let drain = fan_in(&context, [orders], async |_, _| Ok::<_, BoxError>(()));
    ///     let drain = point.cancel(&stop, drain.cancellation(stop.token()));
    ///     match simulation.run(drain).unwrap() {
    ///         Ok(_) => assert!(!stop.is_cancelled()),
    ///         Err(failure) => assert_eq!(failure.error().code(), ErrorCode::Canceled),
    ///     }
    /// });
    /// assert!(runs > 2);
    /// ```
    pub fn cancel<F: IntoFuture>(
        &self,
        source: &CancellationSource,
        future: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let (future, source) = (future.into_future(), Some(source.clone()));
        CancelledFuture { future, source, left: self.polls, fate: Rc::clone(&self.fate) }
    }
}

pin_project! {
    /// A future that is dropped after some polls, see [`DropPoint::cut`].
    struct CutFuture<F> {
        #[pin]
        future: Option<F>,
        left: u64,
        fate: Rc<Cell<Fate>>,
    }
}

impl<F: Future> Future for CutFuture<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(left) = this.left.checked_sub(1) {
            *this.left = left;
            if let Some(future) = this.future.as_mut().as_pin_mut() {
                if let Poll::Ready(output) = future.poll(cx) {
                    this.future.set(None);
                    this.fate.set(Fate::Ended);
                    return Poll::Ready(Some(output));
                }
            }
            if left > 0 {
                return Poll::Pending;
            }
        }
        this.future.set(None);
        this.fate.set(Fate::Dropped);
        Poll::Ready(None)
    }
}

pin_project! {
    /// A future whose token is cancelled after some polls, see [`DropPoint::cancel`].
    struct CancelledFuture<F> {
        #[pin]
        future: F,
        source: Option<CancellationSource>,
        left: u64,
        fate: Rc<Cell<Fate>>,
    }
}

impl<F: Future> Future for CancelledFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut cancel_now = |left| {
            if left == 0 {
                if let Some(source) = this.source.take() {
                    source.cancel();
                    this.fate.set(Fate::Cancelled);
                }
            }
        };
        cancel_now(*this.left);
        let poll = this.future.poll(cx);
        *this.left = this.left.saturating_sub(1);
        match poll {
            Poll::Pending => cancel_now(*this.left),
            Poll::Ready(_) if this.source.is_some() => this.fate.set(Fate::Ended),
            Poll::Ready(_) => {}
        }
        poll
    }
}
