//! One destination of a broadcast, and what it did with the item in hand.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::AtomicWaker;

use super::super::destination::{Destination, Refused, closed};
use super::doorbell::{LegWaits, WaitsFor};
use super::report::DestinationReport;
use super::settings::Overflow;
use crate::error::{Error, ErrorCode};
use crate::panics;

pub(super) struct Leg<D: Destination> {
    /// Its number, in the order in which the broadcast was given its destinations.
    pub(super) position: usize,
    /// It came while the broadcast ran.
    pub(super) came_later: bool,
    /// It is being closed because it was removed.
    leaving: bool,
    /// There until it is closed or has failed.
    destination: Option<Pin<Box<D>>>,
    /// A copy of the item that the destination has not taken yet.
    hand: Option<D::Message>,
    pub(super) standing: ItemStanding,
    pub(super) report: DestinationReport,
    waits: LegWaits,
}

/// What became of the item in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemStanding {
    /// It was not offered yet.
    Unsent,
    /// The destination waits for room with it.
    Sending,
    Delivered,
    /// It was dropped for want of room, as the caller chose.
    Dropped,
    /// The destination does not have it, and does not get it.
    Missed,
    /// It is none of the destination's: it came behind it, or was removed before it.
    Apart,
}

impl ItemStanding {
    pub(super) fn is_settled(self) -> bool {
        !matches!(self, Self::Unsent | Self::Sending)
    }
}

impl<D: Destination> Leg<D> {
    pub(super) fn new(
        position: usize,
        came_later: bool,
        destination: D,
        task: &Arc<AtomicWaker>,
    ) -> Self {
        let report = DestinationReport { position, ..DestinationReport::default() };
        Self {
            position,
            came_later,
            leaving: false,
            destination: Some(Box::pin(destination)),
            hand: None,
            standing: ItemStanding::Apart,
            report,
            waits: LegWaits::new(task),
        }
    }

    /// Whether it gets items.
    pub(super) fn is_attached(&self) -> bool {
        self.destination.is_some() && !self.leaving
    }

    /// Whether it was removed, and is not closed yet.
    pub(super) fn is_leaving(&self) -> bool {
        self.destination.is_some() && self.leaving
    }

    /// Whether nothing is left of it but its report, which is one of very many.
    pub(super) fn has_departed(&self) -> bool {
        let gone = self.report.removed || self.report.detached;
        self.came_later && gone && self.destination.is_none()
    }

    /// Hears whether the destination has anything to say.
    pub(super) fn hear(&mut self) {
        self.waits.hear();
    }

    /// An item was taken.
    pub(super) fn begin(&mut self) {
        (self.waits.on.send, self.waits.on.has_room) = (false, false);
        self.standing = if self.is_attached() {
            ItemStanding::Unsent
        } else if self.report.removed {
            ItemStanding::Apart
        } else {
            ItemStanding::Missed
        };
    }

    /// It is removed: the item in hand is delivered now or not at all.
    pub(super) fn leave(&mut self) -> Result<(), Error> {
        let result = if self.standing.is_settled() { Ok(()) } else { self.settle() };
        self.report.removed = true;
        self.leaving = true;
        result
    }

    /// It does not get the item in hand.
    fn miss(&mut self) {
        self.standing = ItemStanding::Missed;
        self.report.missed += 1;
    }

    pub(super) fn makes_room(&self) -> bool {
        self.destination.as_ref().is_some_and(|destination| destination.makes_room())
    }

    /// Whether an item that is not taken comes back.
    pub(super) fn gives_back(&self) -> bool {
        self.destination.as_ref().is_some_and(|destination| destination.gives_back())
    }

    /// Is not asked again: what waits in it and is not taken back goes with it.
    pub(super) fn detach(&mut self) {
        let destination = self.destination.take();
        panics::drop_contained(|| drop(destination));
        let hand = self.hand.take();
        panics::drop_contained(|| drop(hand));
        if !self.standing.is_settled() {
            self.miss();
        }
    }

    pub(super) fn poll_ready(&mut self) -> Poll<Result<(), Error>> {
        if self.waits.on.has_room {
            return Poll::Ready(Ok(()));
        }
        let polled = self.ask(|on| &mut on.ready, Poll::Ready(Ok(())), D::poll_ready);
        self.waits.on.has_room = matches!(polled, Poll::Ready(Ok(())));
        polled
    }

    /// Asks the destination, if it gets items and has not been asked since it rang. `without`: the
    /// answer where it gets none.
    fn ask<T>(
        &mut self,
        what: impl Fn(&mut WaitsFor) -> &mut bool,
        without: Poll<T>,
        poll: impl FnOnce(Pin<&mut D>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let Some(destination) = self.destination.as_mut().filter(|_| !self.leaving) else {
            return without;
        };
        if *what(&mut self.waits.on) {
            return Poll::Pending;
        }
        let polled = poll(destination.as_mut(), &mut Context::from_waker(&self.waits.waker));
        *what(&mut self.waits.on) = polled.is_pending();
        polled
    }

    /// Offers the item, or a copy of it, without waiting.
    pub(super) fn offer(
        &mut self,
        overflow: Overflow,
        item: D::Message,
    ) -> Result<(), LegOffer<D::Message>> {
        let Some(destination) = &mut self.destination else {
            self.miss();
            return Err(LegOffer::Refused(item));
        };
        let cx = &mut Context::from_waker(&self.waits.waker);
        let refused = if overflow == Overflow::DropOldest {
            match destination.as_mut().force_send(cx, item) {
                Ok(oldest) => {
                    self.report.dropped += u64::from(oldest.is_some());
                    self.deliver();
                    panics::drop_contained(|| drop(oldest));
                    return Ok(());
                }
                Err(refused) => refused,
            }
        } else {
            match destination.as_mut().try_send(cx, item) {
                Ok(()) => {
                    self.deliver();
                    return Ok(());
                }
                Err(refused) => refused,
            }
        };
        match refused {
            Refused::Full(item) => match overflow {
                Overflow::Wait => Err(LegOffer::Full(item)),
                Overflow::DropNewest | Overflow::DropOldest => {
                    self.report.dropped += 1;
                    self.standing = ItemStanding::Dropped;
                    Err(LegOffer::Refused(item))
                }
                Overflow::Fail => {
                    self.miss();
                    Err(LegOffer::NoRoom(item))
                }
            },
            Refused::Closed(item) => Err(LegOffer::Failed(closed(), Some(item))),
            Refused::Failed(error, item) => Err(LegOffer::Failed(error, item)),
        }
    }

    fn deliver(&mut self) {
        self.standing = ItemStanding::Delivered;
        self.report.delivered += 1;
        // There is something to be flushed, and less room.
        (self.waits.on.ready, self.waits.on.flush, self.waits.on.flushed) = (false, false, false);
    }

    /// Waits for room with a copy of the item.
    pub(super) fn wait_with(&mut self, copy: D::Message) {
        self.hand = Some(copy);
        self.waits.on.flushed = false;
        self.standing = ItemStanding::Sending;
    }

    /// Goes on with the copy that waits.
    pub(super) fn poll_send(&mut self) -> Poll<Result<(), Error>> {
        let Some(destination) = &mut self.destination else { return Poll::Ready(Ok(())) };
        if self.standing != ItemStanding::Sending {
            return Poll::Ready(Ok(()));
        }
        if self.waits.on.send {
            return Poll::Pending;
        }
        let cx = &mut Context::from_waker(&self.waits.waker);
        let poll = destination.as_mut().poll_send(cx, &mut self.hand);
        self.waits.on.send = poll.is_pending();
        self.waits.on.flushed &= poll.is_ready();
        if matches!(poll, Poll::Ready(Ok(()))) {
            self.deliver();
        }
        poll
    }

    /// The copy that waits is delivered now or not at all.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        self.waits.on.send = false;
        let result = match self.poll_send() {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        };
        if !self.standing.is_settled() {
            self.miss();
            self.hand = None;
            if let Some(destination) = &mut self.destination {
                drop(destination.as_mut().take_back());
            }
        }
        result
    }

    pub(super) fn poll_flush(&mut self) -> Poll<Result<(), Error>> {
        if self.waits.on.flushed {
            return Poll::Ready(Ok(()));
        }
        let polled = self.ask(|on| &mut on.flush, Poll::Ready(Ok(())), D::poll_flush);
        self.waits.on.flushed = matches!(polled, Poll::Ready(Ok(())));
        polled
    }

    /// Ready when nobody receives any more.
    pub(super) fn poll_closed(&mut self) -> Poll<()> {
        self.ask(|on| &mut on.closed, Poll::Pending, D::poll_closed)
    }

    /// Closes or flushes for the last time; it is not asked again when that is done.
    pub(super) fn poll_end(&mut self, keep_open: bool) -> Poll<Result<(), Error>> {
        let Some(destination) = &mut self.destination else { return Poll::Ready(Ok(())) };
        if self.waits.on.end {
            return Poll::Pending;
        }
        let cx = &mut Context::from_waker(&self.waits.waker);
        let polled = panics::contain(|| {
            if keep_open {
                destination.as_mut().poll_flush(cx)
            } else {
                destination.as_mut().poll_close(cx)
            }
        });
        let polled = polled
            .unwrap_or_else(|message| Poll::Ready(Err(Error::panic("the destination", &message))));
        self.waits.on.end = polled.is_pending();
        if polled.is_ready() {
            self.detach();
        }
        polled
    }
}

/// What came of an offer that was not taken.
pub(super) enum LegOffer<M> {
    /// The destination is to wait for room.
    Full(M),
    /// It does not get the item, and that is settled.
    Refused(M),
    /// It does not get the item, and that ends the broadcast.
    NoRoom(M),
    /// It is closed or has failed, perhaps with the item.
    Failed(Error, Option<M>),
}

/// Whether the error says that nobody receives any more.
pub(super) fn is_closed(error: &Error) -> bool {
    error.code() == ErrorCode::ChannelCompleted
}

/// Closes or flushes every destination that is still there.
pub(super) fn poll_end<D: Destination>(
    legs: &mut [Leg<D>],
    keep_open: bool,
    failed: &mut Option<Error>,
) -> Poll<Result<(), Error>> {
    let mut pending = false;
    for leg in legs {
        leg.hear();
        match leg.poll_end(keep_open) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => {
                leg.report.failed = true;
                let error = error.with_metadata("destination", leg.position);
                *failed = Some(match failed.take() {
                    Some(first) => first.with_related([error]),
                    None => error,
                });
            }
            Poll::Pending => pending = true,
        }
    }
    if pending {
        return Poll::Pending;
    }
    Poll::Ready(failed.take().map_or(Ok(()), Err))
}
