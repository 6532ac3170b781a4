//! How a broadcast ends: what becomes of the item in between, and of the destinations.

use super::super::destination::{Destination, Ending, Undelivered};
use super::leg::{ItemStanding, Leg, poll_end};
use super::report::BroadcastReport;
use super::running::RunningBroadcast;
use crate::error::{Error, Failure};
use crate::panics::{self, Held};
use crate::source::{Source, Unsettled};

impl<S, D, U> RunningBroadcast<S, D, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination,
    U: FnMut(Undelivered<D::Message>),
{
    /// Takes nothing any more. An item in between is delivered where that can be done at once, and
    /// then goes to the callback.
    pub(super) fn stop(&mut self, error: Option<Error>) {
        let mut ending = Ending::new(None, false);
        let mut related = Vec::new();
        // Who came last is closed like the others.
        let arrivals = self.door.as_ref().map(|door| door.end()).unwrap_or_default();
        self.admit(arrivals);
        let kept = std::mem::take(&mut self.kept);
        if std::mem::take(&mut self.delivering) || kept {
            for leg in &mut self.legs {
                match panics::contain(|| leg.settle()) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        leg.detach();
                        related.push(error);
                    }
                    Err(message) => {
                        leg.detach();
                        related.push(Error::panic("the destination", &message));
                    }
                }
            }
            let delivered_to = self.standing(|standing| standing == ItemStanding::Delivered);
            let missed_by = self.standing(|standing| standing == ItemStanding::Missed);
            if error.is_some() {
                self.delivered_to.clone_from(&delivered_to);
                self.missed_by.clone_from(&missed_by);
            }
            let item = self.item.take();
            let callback = self.undelivered.as_mut().and_then(Held::get_mut);
            let given = panics::contain(|| match (item, callback) {
                (Some(item), Some(callback)) if kept || !missed_by.is_empty() => {
                    callback(Undelivered::message(item).of(delivered_to, missed_by));
                }
                (item, _) => drop(item),
            });
            if let Err(message) = given {
                related.push(Error::panic("the callback for undelivered items", &message));
            }
        }
        for error in error.into_iter().chain(related) {
            ending.add(error);
        }
        self.ending = Some(ending);
    }

    fn standing(&self, is: impl Fn(ItemStanding) -> bool) -> Vec<usize> {
        let legs = self.legs.iter().filter(|leg| is(leg.standing));
        legs.map(|leg| leg.position).collect()
    }

    pub(super) fn finish(&mut self) -> Result<BroadcastReport, Failure<BroadcastReport>> {
        self.forget_departed();
        let elapsed = panics::contain(|| self.clock.now().since(self.started)).unwrap_or_default();
        let destinations: Vec<_> = self.legs.iter().map(|leg| leg.report).collect();
        let ending = self.ending.replace(Ending::new(None, true));
        let report = BroadcastReport {
            elapsed,
            items: self.items,
            destinations,
            departed: self.departed,
            departed_total: self.departed_total,
            delivered_to: std::mem::take(&mut self.delivered_to),
            missed_by: std::mem::take(&mut self.missed_by),
        };
        match ending.and_then(Ending::into_error) {
            None => Ok(report),
            Some(error) => Err(Failure::new(error, report)),
        }
    }
}

/// A broadcast that is dropped midway ends like one that is cancelled, as far as it can without
/// waiting.
impl<S, D, U> Drop for RunningBroadcast<S, D, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination,
    U: FnMut(Undelivered<D::Message>),
{
    fn drop(&mut self) {
        if self.ending.is_none() {
            self.stop(Some(Error::canceled()));
            if !self.options.settings.keep_open {
                let _ = poll_end(&mut self.legs, false, &mut self.closing);
            }
        }
        let source = self.source.take();
        panics::drop_contained(|| drop(source));
        let callback = self.undelivered.take();
        panics::drop_contained(|| drop(callback));
        self.legs.iter_mut().for_each(Leg::detach);
    }
}
