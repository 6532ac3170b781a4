//! The future that hands each item to every destination.
//!
//! An item is offered to the destinations in their order. Those that wait for room do so together,
//! each with a copy, while the item itself stays in hand: whatever ends the broadcast, it is known
//! who has the item, and the item is still there for the others.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::super::destination::{Destination, Ending, closed, full};
use super::super::merge::POLLS_AT_ONCE;
use super::leg::{Leg, Offer, Standing, is_closed};
use super::report::{BroadcastReport, Missed};
use super::settings::{OnClosed, Overflow};
use super::{Broadcast, Options};
use crate::cancellation::CancellationToken;
use crate::clock::{Alarm, Clock, Tick};
use crate::diagnostics::COUNTERS;
use crate::error::{Error, ErrorCode};
use crate::limits::Limits;
use crate::origin::{Origin, SourceName};
use crate::panics;
use crate::source::{Source, Unsettled, poll_message};

/// The future of a broadcast, see [`broadcast`](crate::channels::broadcast). It is `Send` when its
/// source, its items, its destinations and its callback are, and `Unpin` whatever they are.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::future::IntoFuture;
/// use futures::stream;
/// use watershed::StepContext;
/// use watershed::channels::broadcast;
///
/// let (sender, _receiver) = async_channel::bounded(4);
/// let broadcast = broadcast(&StepContext::new("news"), stream::iter([1]), [sender]);
/// let mut future = broadcast.into_future();
/// assert_eq!((&mut future).await?.items(), 1);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a broadcast does nothing unless it is awaited"]
pub struct BroadcastFuture<S, D, U = fn(Missed<<S as Source>::Message>)>
where
    S: Source<Receipt = Unsettled, Message: Clone>,
    D: Destination<Message = S::Message>,
    U: FnMut(Missed<S::Message>),
{
    waiting: Option<Box<Broadcast<S, D, U>>>,
    running: Option<Box<Running<S, D, U>>>,
}

/// A broadcast between its first poll and its result.
struct Running<S, D, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination,
    U: FnMut(Missed<D::Message>),
{
    source: Option<Pin<Box<S>>>,
    name: SourceName,
    legs: Vec<Leg<D>>,
    /// An item is being delivered; it is in hand until the last destination is given it.
    delivering: bool,
    item: Option<D::Message>,
    deadline: Option<Tick>,
    sleep: Option<Alarm>,
    items: u64,
    options: Options,
    undelivered: Option<U>,
    limits: Limits,
    clock: Arc<dyn Clock>,
    started: Tick,
    /// Offers before the executor has its thread back.
    offers: usize,
    ending: Option<Ending>,
    /// What went wrong while the destinations were closed.
    closing: Option<Error>,
    doing: Doing,
}

/// Whose code is running.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Own,
    Source,
    /// The clone or the destructor of an item.
    Item,
    Destination(usize),
}

impl<S, D, U> BroadcastFuture<S, D, U>
where
    S: Source<Receipt = Unsettled, Message: Clone>,
    D: Destination<Message = S::Message>,
    U: FnMut(Missed<S::Message>),
{
    pub(super) fn new(broadcast: Broadcast<S, D, U>) -> Self {
        Self { waiting: Some(Box::new(broadcast)), running: None }
    }
}

impl<S, D, U> Future for BroadcastFuture<S, D, U>
where
    S: Source<Receipt = Unsettled, Message: Clone>,
    D: Destination<Message = S::Message>,
    U: FnMut(Missed<S::Message>),
{
    type Output = Result<BroadcastReport, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(broadcast) = this.waiting.take() {
            this.running = Some(Box::new(Running::start(*broadcast)));
        }
        let Some(running) = &mut this.running else {
            let error = Error::new(ErrorCode::Unspecified, "the broadcast had ended already");
            return Poll::Ready(Err(error));
        };
        if running.poll(cx).is_pending() {
            return Poll::Pending;
        }
        let result = running.finish();
        COUNTERS.count_operation(&result);
        this.running = None;
        Poll::Ready(result)
    }
}

impl<S, D, U> Running<S, D, U>
where
    S: Source<Receipt = Unsettled, Message = D::Message>,
    D: Destination<Message: Clone>,
    U: FnMut(Missed<D::Message>),
{
    fn start(broadcast: Broadcast<S, D, U>) -> Self {
        let Broadcast { context, source, destinations, options, undelivered } = broadcast;
        let clock = Arc::clone(context.clock());
        let tokens = [context.cancellation().clone(), options.settings.cancellation.clone()];
        let token = CancellationToken::linked(tokens);
        let timeout = options.settings.timeout;
        let waits = options.item_timeout.is_some_and(|it| !it.is_zero() && it != Duration::MAX);
        let timed = panics::contain(|| {
            if waits {
                clock.check()?;
            }
            Ok((clock.now(), Limits::new(&clock, token.clone(), timeout)?))
        });
        let profile = panics::contain(|| source.profile());
        let legs: Vec<_> = destinations.into_iter().map(Leg::new).collect();
        let mut error =
            options.invalid.clone().or_else(|| Self::check(&legs, options.overflow).err());
        let name = match profile {
            Ok(profile) => profile.plain_name("a broadcast"),
            Err(message) => Err(Error::panic("the source", &message)),
        };
        let name = name.unwrap_or_else(|wrong| {
            error.get_or_insert(wrong);
            None
        });
        let timed = timed.unwrap_or_else(|message| Err(Error::panic("the clock", &message)));
        let (started, limits) = timed.unwrap_or_else(|clock| {
            error.get_or_insert(clock);
            (Tick::ZERO, Limits::by_token(token))
        });
        let mut running = Self {
            source: Some(Box::pin(source)),
            name: SourceName::new(name, 0),
            legs,
            delivering: false,
            item: None,
            deadline: None,
            sleep: None,
            items: 0,
            options,
            undelivered,
            limits,
            clock,
            started,
            offers: POLLS_AT_ONCE,
            ending: None,
            closing: None,
            doing: Doing::Own,
        };
        if error.is_some() {
            running.stop(error);
        }
        running
    }

    fn check(legs: &[Leg<D>], overflow: Overflow) -> Result<(), Error> {
        if legs.is_empty() {
            return Err(Error::validation("a broadcast has at least one destination"));
        }
        if overflow != Overflow::DropOldest {
            return Ok(());
        }
        let makes_room = panics::contain(|| legs.iter().position(|leg| !leg.makes_room()));
        match makes_room {
            Ok(None) => Ok(()),
            Ok(Some(index)) => Err(Error::validation(format!(
                "destination {index} cannot drop its oldest item for a new one"
            ))),
            Err(message) => Err(Error::panic("the destination", &message)),
        }
    }

    /// Ready when the broadcast has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match panics::contain(|| self.advance(cx)) {
                Ok(poll) => return poll,
                Err(message) => self.blame(&message),
            }
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ending.is_none() {
            let error = match self.move_items(cx) {
                Poll::Ready(result) => result.err(),
                Poll::Pending => {
                    self.doing = Doing::Own;
                    match self.limits.poll_exceeded(cx) {
                        Poll::Ready(exceeded) => Some(exceeded.into_error("the broadcast")),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            };
            self.stop(error);
        }
        self.doing = Doing::Own;
        let Self { ending, legs, options, limits, clock, closing, .. } = self;
        let Some(ending) = ending else { return Poll::Pending };
        let settings = &options.settings;
        ending.poll(cx, "the broadcast", clock, settings.grace, limits, |cx| {
            poll_end(legs, cx, settings.keep_open, closing)
        })
    }

    /// Ready when the source has ended, or with why the broadcast ends.
    fn move_items(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if self.delivering {
                if self.deliver(cx)?.is_pending() {
                    if let Poll::Ready(error) = self.poll_flush(cx) {
                        return Poll::Ready(Err(error));
                    }
                    return self.poll_deadline(cx);
                }
                self.delivering = false;
                self.sleep = None;
                self.doing = Doing::Item;
                self.item = None;
            }
            self.doing = Doing::Own;
            if let Some(exceeded) = self.limits.exceeded() {
                return Poll::Ready(Err(exceeded.into_error("the broadcast")));
            }
            if self.offers < self.legs.len() && self.offers < POLLS_AT_ONCE {
                self.offers = POLLS_AT_ONCE;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.poll_ready(cx)?.is_pending() {
                return self.poll_flush(cx).map(Err);
            }
            self.doing = Doing::Source;
            let Some(source) = &mut self.source else { return Poll::Ready(Ok(())) };
            match poll_message(source.as_mut(), cx) {
                Poll::Ready(Some(Ok(item))) => self.begin(item),
                Poll::Ready(Some(Err(fault))) => {
                    let origin = Origin { source: self.name.clone(), message: 0 };
                    return Poll::Ready(Err(fault.with_origin(origin)));
                }
                Poll::Ready(None) => {
                    self.source = None;
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {
                    self.offers = POLLS_AT_ONCE;
                    if let Poll::Ready(error) = self.poll_flush(cx) {
                        return Poll::Ready(Err(error));
                    }
                    return self.poll_closed(cx).map(Err);
                }
            }
        }
    }

    /// Ready when an item may be taken. One whose delivery is limited in time is taken first, so
    /// that there is something to limit; so is one that is not waited for.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let waits = self.options.overflow == Overflow::Wait && self.options.item_timeout.is_none();
        let mut poll = Poll::Ready(Ok(()));
        for index in 0..self.legs.len() {
            self.doing = Doing::Destination(index);
            match self.legs[index].poll_ready(cx) {
                Poll::Ready(Err(error)) => self.lose(index, error)?,
                Poll::Pending if waits => poll = Poll::Pending,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        poll
    }

    fn begin(&mut self, item: D::Message) {
        self.doing = Doing::Own;
        self.item = Some(item);
        self.delivering = true;
        self.items += 1;
        for leg in &mut self.legs {
            leg.standing = if leg.is_attached() { Standing::Unsent } else { Standing::Missed };
        }
        let clock = &self.clock;
        self.deadline = self.options.item_timeout.map(|timeout| clock.now() + timeout);
    }

    /// Offers the item where it was not yet, and goes on where it waits for room.
    fn deliver(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut poll = Poll::Ready(Ok(()));
        let mut open = self.legs.iter().filter(|leg| !leg.standing.is_settled()).count();
        for index in 0..self.legs.len() {
            let was_open = !self.legs[index].standing.is_settled();
            if self.legs[index].standing == Standing::Unsent {
                self.offers = self.offers.saturating_sub(1);
                self.offer(index, open == 1, cx)?;
            }
            self.doing = Doing::Destination(index);
            match self.legs[index].poll_send(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.lose(index, error)?,
                Poll::Pending => poll = Poll::Pending,
            }
            open -= usize::from(was_open && self.legs[index].standing.is_settled());
        }
        poll
    }

    /// Offers the item to one destination: the item itself if nobody else waits for it.
    fn offer(&mut self, index: usize, is_last: bool, cx: &mut Context<'_>) -> Result<(), Error> {
        self.doing = Doing::Item;
        let offered = if is_last { self.item.take() } else { self.item.clone() };
        let Some(offered) = offered else { return Ok(()) };
        self.doing = Doing::Destination(index);
        let Err(offer) = self.legs[index].offer(cx, self.options.overflow, offered) else {
            return Ok(());
        };
        self.doing = Doing::Item;
        let (left, result) = match offer {
            Offer::Full(item) => {
                let copy = if is_last { self.item.insert(item).clone() } else { item };
                self.legs[index].wait_with(copy);
                return Ok(());
            }
            Offer::Refused(item) => (Some(item), Ok(())),
            Offer::NoRoom(item) => (Some(item), Err(full().with_metadata("destination", index))),
            Offer::Failed(error, item) => (item, self.lose(index, error)),
        };
        if is_last {
            self.item = left;
        }
        result
    }

    /// Goes on without a destination, or says why not.
    fn lose(&mut self, index: usize, error: Error) -> Result<(), Error> {
        let leg = &mut self.legs[index];
        leg.detach();
        if self.options.on_closed == OnClosed::Detach && is_closed(&error) {
            leg.report.detached = true;
            if self.legs.iter().any(Leg::is_attached) {
                return Ok(());
            }
        }
        Err(error.with_metadata("destination", index))
    }

    /// Waits for the end of the item's time, if it has one.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.doing = Doing::Own;
        self.offers = POLLS_AT_ONCE;
        let Some(deadline) = self.deadline.filter(|deadline| *deadline != Tick::MAX) else {
            return Poll::Pending;
        };
        let clock = &self.clock;
        let sleep = self.sleep.get_or_insert_with(|| Alarm::at(clock, deadline));
        let timeout = self.options.item_timeout.unwrap_or(Duration::MAX);
        sleep.poll(cx).map(|()| Err(Error::timeout("the delivery of an item", timeout)))
    }

    /// Lets buffered items go on, whoever else has to wait; ready only with an error.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        for index in 0..self.legs.len() {
            self.doing = Doing::Destination(index);
            if let Poll::Ready(Err(error)) = self.legs[index].poll_flush(cx) {
                if let Err(error) = self.lose(index, error) {
                    return Poll::Ready(error);
                }
            }
        }
        Poll::Pending
    }

    /// Hears of destinations that nobody receives from any more; ready only with an error.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        for index in 0..self.legs.len() {
            self.doing = Doing::Destination(index);
            if self.legs[index].poll_closed(cx).is_ready() {
                if let Err(error) = self.lose(index, closed()) {
                    return Poll::Ready(error);
                }
            }
        }
        Poll::Pending
    }

    fn blame(&mut self, message: &str) {
        let doing = std::mem::replace(&mut self.doing, Doing::Own);
        let error = match doing {
            Doing::Own => Error::panic("the clock", message),
            Doing::Item => Error::panic("an item", message),
            Doing::Source => {
                let origin = Origin { source: self.name.clone(), message: self.items };
                Error::panic("the source", message).with_origin(origin)
            }
            Doing::Destination(index) => {
                self.legs[index].detach();
                Error::panic("the destination", message).with_metadata("destination", index)
            }
        };
        match &mut self.ending {
            Some(ending) => {
                ending.add(error);
                ending.give_up();
            }
            None => self.stop(Some(error)),
        }
    }
}

impl<S, D, U> Running<S, D, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination,
    U: FnMut(Missed<D::Message>),
{
    /// Takes nothing any more. An item in between is delivered where that can be done at once, and
    /// then goes to the callback.
    fn stop(&mut self, error: Option<Error>) {
        let mut ending = Ending::new(None, false);
        let mut related = Vec::new();
        let mut error = error;
        if std::mem::take(&mut self.delivering) {
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
            let delivered_to = self.standing(|standing| standing == Standing::Delivered);
            let missed_by = self.standing(|standing| standing == Standing::Missed);
            error = error.map(|error| {
                error
                    .with_metadata("item", self.items)
                    .with_metadata("delivered_to", list(&delivered_to))
                    .with_metadata("missed_by", list(&missed_by))
            });
            let item = self.item.take();
            let given = panics::contain(|| match (item, &mut self.undelivered) {
                (Some(item), Some(callback)) if !missed_by.is_empty() => {
                    callback(Missed { item, delivered_to, others: missed_by });
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

    fn standing(&self, is: impl Fn(Standing) -> bool) -> Vec<usize> {
        let legs = self.legs.iter().enumerate();
        legs.filter(|(_, leg)| is(leg.standing)).map(|(index, _)| index).collect()
    }

    fn finish(&mut self) -> Result<BroadcastReport, Error> {
        let elapsed = panics::contain(|| self.clock.now().since(self.started)).unwrap_or_default();
        let destinations: Vec<_> = self.legs.iter().map(|leg| leg.report).collect();
        let ending = self.ending.replace(Ending::new(None, true));
        let Some(error) = ending.and_then(Ending::into_error) else {
            return Ok(BroadcastReport { elapsed, items: self.items, destinations });
        };
        let delivered: Vec<_> = destinations.iter().map(|leg| leg.delivered).collect();
        let dropped: Vec<_> = destinations.iter().map(|leg| leg.dropped).collect();
        Err(error
            .with_metadata("items", self.items)
            .with_metadata("delivered", list(&delivered))
            .with_metadata("dropped", list(&dropped)))
    }
}

/// Closes or flushes every destination that is still there.
fn poll_end<D: Destination>(
    legs: &mut [Leg<D>],
    cx: &mut Context<'_>,
    keep_open: bool,
    failed: &mut Option<Error>,
) -> Poll<Result<(), Error>> {
    let mut pending = false;
    for (index, leg) in legs.iter_mut().enumerate() {
        match leg.poll_end(cx, keep_open) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => {
                let error = error.with_metadata("destination", index);
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

fn list<T: fmt::Display>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// A broadcast that is dropped midway ends like one that is cancelled, as far as it can without
/// waiting.
impl<S, D, U> Drop for Running<S, D, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination,
    U: FnMut(Missed<D::Message>),
{
    fn drop(&mut self) {
        if self.ending.is_none() {
            self.stop(Some(Error::canceled()));
            if !self.options.settings.keep_open {
                let mut cx = Context::from_waker(Waker::noop());
                let _ = poll_end(&mut self.legs, &mut cx, false, &mut self.closing);
            }
        }
        let source = self.source.take();
        panics::drop_contained(|| drop(source));
        let callback = self.undelivered.take();
        panics::drop_contained(|| drop(callback));
        self.legs.iter_mut().for_each(Leg::detach);
    }
}

impl<S, D, U> fmt::Debug for BroadcastFuture<S, D, U>
where
    S: Source<Receipt = Unsettled, Message: Clone>,
    D: Destination<Message = S::Message>,
    U: FnMut(Missed<S::Message>),
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastFuture")
            .field("started", &self.waiting.is_none())
            .field("ended", &(self.waiting.is_none() && self.running.is_none()))
            .finish()
    }
}
