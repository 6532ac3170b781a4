//! A broadcast between its first poll and its result: it takes an item, has it delivered
//! (`delivery`), and ends (`end`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;

use super::super::destination::{Destination, Ending, Undelivered};
use super::super::merge::POLLS_AT_ONCE;
use super::leg::{Leg, poll_end};
use super::report::DestinationReport;
use super::settings::Overflow;
use super::subscribers::Entrance;
use super::{Broadcast, BroadcastOptions};
use crate::cancellation::CancellationToken;
use crate::clock::{Alarm, Clock, Tick};
use crate::error::Error;
use crate::operation::Limits;
use crate::origin::{Origin, SourceName};
use crate::panics::{self, Held};
use crate::source::{Source, Unsettled, poll_message};

#[expect(missing_debug_implementations, reason = "nobody can name it")]
pub struct RunningBroadcast<S, D, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination,
    U: FnMut(Undelivered<D::Message>),
{
    pub(super) source: Option<Pin<Box<S>>>,
    pub(super) name: SourceName,
    pub(super) legs: Vec<Leg<D>>,
    /// Whom they wake.
    pub(super) task: Arc<AtomicWaker>,
    /// Where destinations come and go.
    pub(super) door: Option<Entrance<D>>,
    /// Destinations that were removed are being closed.
    pub(super) closes_some: bool,
    /// Those that came later and are gone.
    pub(super) departed: u64,
    pub(super) departed_total: DestinationReport,
    /// An item is being delivered; it is in hand until all have it, or it is the last one's.
    pub(super) delivering: bool,
    pub(super) item: Option<D::Message>,
    /// The item in hand waits for somebody to deliver it to.
    pub(super) kept: bool,
    pub(super) deadline: Option<Tick>,
    pub(super) sleep: Option<Alarm>,
    pub(super) items: u64,
    /// Who had the item that was in between at the end, and who had not.
    pub(super) delivered_to: Vec<usize>,
    pub(super) missed_by: Vec<usize>,
    pub(super) options: BroadcastOptions,
    pub(super) undelivered: Option<Held<U>>,
    pub(super) limits: Limits,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) started: Tick,
    /// Offers before the executor has its thread back.
    pub(super) offers: usize,
    pub(super) ending: Option<Ending>,
    /// What went wrong while the destinations were closed.
    pub(super) closing: Option<Error>,
    pub(super) doing: BroadcastDoing,
}

/// Whose code is running.
#[derive(Clone, Copy, Debug)]
pub(super) enum BroadcastDoing {
    Own,
    Source,
    /// The clone or the destructor of an item.
    Item,
    Destination(usize),
}

impl<S, D, U> Unpin for RunningBroadcast<S, D, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination,
    U: FnMut(Undelivered<D::Message>),
{
}

impl<S, D, U> RunningBroadcast<S, D, U>
where
    S: Source<Receipt = Unsettled, Message = D::Message>,
    D: Destination<Message: Clone>,
    U: FnMut(Undelivered<D::Message>),
{
    pub(super) fn start(broadcast: Broadcast<S, D, U>) -> Self {
        let Broadcast { context, source, destinations, options, undelivered, door } = broadcast;
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
        let profile = panics::contain(|| source.get().map(Source::profile).unwrap_or_default());
        let legs = destinations.take().into_iter().enumerate();
        let task = Arc::default();
        let mut legs: Vec<_> = legs.map(|(index, to)| Leg::new(index, false, to, &task)).collect();
        let mut can_come = false;
        if let Some(door) = &door {
            if options.overflow == Overflow::DropOldest {
                door.demand_room();
            }
            can_come = door.is_open();
            let early = door.take_arrivals().into_iter();
            legs.extend(early.map(|(position, to)| Leg::new(position, true, to, &task)));
        }
        let mut error = options.invalid.clone();
        error = error.or_else(|| Self::check(&legs, can_come, options.overflow).err());
        let name = match profile {
            Ok(profile) => profile.heeded_by("a broadcast", false).map(|profile| profile.name),
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
            source: source.take().map(Box::pin),
            name: SourceName::new(name, 0),
            legs,
            task,
            door,
            closes_some: false,
            departed: 0,
            departed_total: DestinationReport::default(),
            delivering: false,
            item: None,
            kept: false,
            deadline: None,
            sleep: None,
            items: 0,
            delivered_to: Vec::new(),
            missed_by: Vec::new(),
            options,
            undelivered,
            limits,
            clock,
            started,
            offers: POLLS_AT_ONCE,
            ending: None,
            closing: None,
            doing: BroadcastDoing::Own,
        };
        if error.is_some() {
            running.stop(error);
        }
        running
    }

    fn check(legs: &[Leg<D>], can_come: bool, overflow: Overflow) -> Result<(), Error> {
        if legs.is_empty() && !can_come {
            return Err(Error::validation("a broadcast has at least one destination"));
        }
        if overflow != Overflow::DropOldest {
            return Ok(());
        }
        let makes_room = panics::contain(|| legs.iter().position(|leg| !leg.makes_room()));
        match makes_room {
            Ok(None) => Ok(()),
            Ok(Some(index)) => Err(Error::validation(format!(
                "destination {} cannot drop its oldest item for a new one",
                legs[index].position
            ))),
            Err(message) => Err(Error::panic("the destination", &message)),
        }
    }

    /// Ready when the broadcast has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        panics::poll_blaming(self, |this| this.advance(cx), Self::blame)
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // First the waker, so that nobody rings in between.
        self.task.register(cx.waker());
        self.legs.iter_mut().for_each(Leg::hear);
        if self.ending.is_none() {
            let error = match self.move_items(cx) {
                Poll::Ready(result) => result.err(),
                Poll::Pending => {
                    self.doing = BroadcastDoing::Own;
                    self.wait_for_news(cx);
                    match self.limits.poll_exceeded(cx) {
                        Poll::Ready(exceeded) => Some(exceeded.into_error("the broadcast")),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            };
            self.stop(error);
        }
        self.doing = BroadcastDoing::Own;
        let Self { ending, legs, options, limits, clock, closing, .. } = self;
        let Some(ending) = ending else { return Poll::Pending };
        let settings = &options.settings;
        ending.poll(cx, "the broadcast", clock, settings.grace, limits, |_| {
            poll_end(legs, settings.keep_open, closing)
        })
    }

    /// Ready when the source has ended, or with why the broadcast ends.
    fn move_items(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            self.heed()?;
            if self.delivering {
                if self.deliver()?.is_pending() {
                    if let Poll::Ready(error) = self.poll_flush() {
                        return Poll::Ready(Err(error));
                    }
                    return self.poll_deadline(cx);
                }
                self.delivering = false;
                self.sleep = None;
                self.kept = self.is_kept();
                if !self.kept {
                    self.doing = BroadcastDoing::Item;
                    self.item = None;
                }
            }
            self.doing = BroadcastDoing::Own;
            if let Some(exceeded) = self.limits.exceeded() {
                return Poll::Ready(Err(exceeded.into_error("the broadcast")));
            }
            if self.offers < self.legs.len() && self.offers < POLLS_AT_ONCE {
                self.offers = POLLS_AT_ONCE;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.door.is_some() && !self.legs.iter().any(Leg::is_attached) {
                return self.poll_alone(cx);
            }
            if self.kept {
                self.begin_again();
                continue;
            }
            if self.poll_ready()?.is_pending() {
                return self.poll_flush().map(Err);
            }
            self.doing = BroadcastDoing::Source;
            let Some(source) = &mut self.source else { return Poll::Ready(Ok(())) };
            match poll_message(source.as_mut(), cx, &mut self.offers) {
                Poll::Ready(Some(Ok(item))) => {
                    // Behind the item: whoever came before it entered its source gets it.
                    self.let_in();
                    self.begin(item);
                }
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
                    if let Poll::Ready(error) = self.poll_flush() {
                        return Poll::Ready(Err(error));
                    }
                    return self.poll_closed().map(Err);
                }
            }
        }
    }

    fn blame(&mut self, message: &str) {
        let doing = std::mem::replace(&mut self.doing, BroadcastDoing::Own);
        let error = match doing {
            BroadcastDoing::Own => Error::panic("the clock", message),
            BroadcastDoing::Item => Error::panic("an item", message),
            BroadcastDoing::Source => {
                let origin = Origin { source: self.name.clone(), message: self.items };
                Error::panic("the source", message).with_origin(origin)
            }
            BroadcastDoing::Destination(index) => {
                let leg = &mut self.legs[index];
                leg.detach();
                leg.report.failed = true;
                let error = Error::panic("the destination", message);
                error.with_metadata("destination", leg.position)
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
