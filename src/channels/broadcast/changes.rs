//! What destinations do to a broadcast that come and go while it runs.
//!
//! One that comes gets the next item that is taken; one that goes is closed while the others go on. An
//! item that nobody has, because the last destination went with it in hand, is kept for the next one.

use std::task::{Context, Poll};

use super::super::destination::{Destination, Undelivered, closed};
use super::leg::{ItemStanding, Leg, is_closed};
use super::running::{BroadcastDoing, RunningBroadcast};
use crate::error::Error;
use crate::source::{Source, Unsettled};

impl<S, D, U> RunningBroadcast<S, D, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination,
    U: FnMut(Undelivered<D::Message>),
{
    /// Lets in who has come, and begins to close who is to go.
    pub(super) fn heed(&mut self) -> Result<(), Error> {
        self.doing = BroadcastDoing::Own;
        let Some(door) = &self.door else { return Ok(()) };
        if door.has_news() {
            let (arrivals, leaving) = door.take_news();
            self.admit(arrivals);
            for position in leaving {
                let found = self.legs.binary_search_by_key(&position, |leg| leg.position);
                let Ok(index) = found else { continue };
                self.doing = BroadcastDoing::Destination(index);
                let result = self.legs[index].leave();
                self.closes_some = true;
                self.heed_failure(index, result)?;
            }
        }
        if self.closes_some {
            self.poll_leaving()?;
        }
        if !self.delivering {
            self.forget_departed();
        }
        Ok(())
    }

    /// Lets in who has come, and no more.
    pub(super) fn let_in(&mut self) {
        if let Some(door) = self.door.as_ref().filter(|door| door.has_news()) {
            let arrivals = door.take_arrivals();
            self.admit(arrivals);
        }
    }

    pub(super) fn admit(&mut self, arrivals: Vec<(usize, D)>) {
        let legs = arrivals.into_iter();
        let task = &self.task;
        let leg = |(position, destination)| Leg::new(position, true, destination, task);
        self.legs.extend(legs.map(leg));
    }

    /// Goes on closing those that were removed.
    fn poll_leaving(&mut self) -> Result<(), Error> {
        self.closes_some = false;
        for index in 0..self.legs.len() {
            if !self.legs[index].is_leaving() {
                continue;
            }
            self.doing = BroadcastDoing::Destination(index);
            match self.legs[index].poll_end(self.options.settings.keep_open) {
                Poll::Ready(result) => self.heed_failure(index, result)?,
                Poll::Pending => self.closes_some = true,
            }
        }
        Ok(())
    }

    /// One that is removed may be closed already; any other failure of it is one.
    fn heed_failure(&mut self, index: usize, result: Result<(), Error>) -> Result<(), Error> {
        let Err(error) = result else { return Ok(()) };
        let leg = &mut self.legs[index];
        leg.detach();
        if is_closed(&error) {
            return Ok(());
        }
        leg.report.failed = true;
        Err(error.with_metadata("destination", leg.position))
    }

    /// Keeps no more than a sum of those that came later and are gone.
    pub(super) fn forget_departed(&mut self) {
        let Self { legs, departed, departed_total, .. } = self;
        legs.retain(|leg| {
            let goes = leg.has_departed();
            if goes {
                *departed += 1;
                departed_total.add(&leg.report);
            }
            !goes
        });
    }

    /// Whether nobody has the item that was delivered, though it is still there.
    pub(super) fn is_kept(&self) -> bool {
        let is_theirs =
            |leg: &Leg<D>| !matches!(leg.standing, ItemStanding::Missed | ItemStanding::Apart);
        self.door.is_some() && self.item.is_some() && !self.legs.iter().any(is_theirs)
    }

    /// Waits for a destination; ready when none can come.
    pub(super) fn poll_alone(&self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        // First the waker, so that no news comes between.
        self.wait_for_news(cx);
        match &self.door {
            Some(door) if door.is_open() => Poll::Pending,
            _ => Poll::Ready(Err(closed())),
        }
    }

    /// Whoever comes or goes wakes the broadcast.
    pub(super) fn wait_for_news(&self, cx: &Context<'_>) {
        if self.door.as_ref().is_some_and(|door| door.wait(cx.waker())) {
            cx.waker().wake_by_ref();
        }
    }
}
