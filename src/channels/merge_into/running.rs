//! A merge between its first poll and its result.
//!
//! It asks the destination for room, takes one message, and sends it. What ends it leaves at most
//! one message in between: that is tried once more, and then handed to the callback.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::super::destination::{Destination, Ending, Settings, Undelivered, closed};
use super::super::merge::{Intake, SourceState};
use super::MergeInto;
use super::report::{MergeReport, MergedSource};
use crate::cancellation::CancellationToken;
use crate::clock::{Clock, Tick};
use crate::error::Error;
use crate::operation::Limits;
use crate::panics::{self, Held};
use crate::source::{Source, Unsettled};

#[expect(missing_debug_implementations, reason = "nobody can name it")]
pub struct RunningMerge<S, D, P, U>
where
    D: Destination,
    U: FnMut(Undelivered<D::Message>),
{
    /// There unless the merge could not start.
    intake: Option<Intake<S, P>>,
    destination: Pin<Box<D>>,
    /// The source of the message that is being sent, and the message while it is in nobody's hand
    /// but ours.
    sending: Option<usize>,
    hand: Option<D::Message>,
    undelivered: Option<Held<U>>,
    settings: Settings,
    limits: Limits,
    clock: Arc<dyn Clock>,
    started: Tick,
    sources: Vec<MergedSource>,
    /// A message was taken and not delivered.
    lost_one: bool,
    ending: Option<Ending>,
    doing: MergeDoing,
}

/// Whose code is running.
#[derive(Clone, Copy, Debug)]
enum MergeDoing {
    Own,
    Taking,
    Destination,
}

/// Why no more messages are moved.
enum Stop {
    Drained,
    Error(Error),
    /// An error of the destination, which is not asked again.
    Destination(Error),
}

impl<S, D, P, U> Unpin for RunningMerge<S, D, P, U>
where
    D: Destination,
    U: FnMut(Undelivered<D::Message>),
{
}

impl<S, D, P, U> RunningMerge<S, D, P, U>
where
    S: Source<Receipt = Unsettled, Message = D::Message>,
    D: Destination,
    P: FnMut(&[SourceState]) -> Option<usize>,
    U: FnMut(Undelivered<D::Message>),
{
    pub(super) fn start(merge: MergeInto<S, D, P, U>) -> Self {
        let MergeInto { context, sources, destination, choice, undelivered, settings } = merge;
        let clock = Arc::clone(context.clock());
        let tokens = [context.cancellation().clone(), settings.cancellation.clone()];
        let token = CancellationToken::linked(tokens);
        let started = panics::contain(|| {
            Ok((clock.now(), Limits::new(&clock, token.clone(), settings.timeout)?))
        });
        let intake = panics::contain(|| choice.start(sources.take()));
        let blame = |whose, message: String| Error::panic(whose, &message);
        let mut error = None;
        let started = started.unwrap_or_else(|message| Err(blame("the clock", message)));
        let (started, limits) = started.unwrap_or_else(|clock| {
            error = Some(clock);
            (Tick::ZERO, Limits::by_token(token))
        });
        let intake = intake.unwrap_or_else(|message| Err(blame("a source", message)));
        let intake = match intake {
            Ok(intake) => Some(intake),
            Err(first) => {
                error = Some(first);
                None
            }
        };
        let names = intake.iter().flat_map(Intake::names);
        let sources = names.map(|name| MergedSource { name, delivered: 0 }).collect();
        let mut running = Self {
            intake,
            destination: Box::pin(destination),
            sending: None,
            hand: None,
            undelivered,
            settings,
            limits,
            clock,
            started,
            sources,
            lost_one: false,
            ending: None,
            doing: MergeDoing::Own,
        };
        if let Some(error) = error {
            running.stop(Stop::Error(error));
        } else if running.sources.is_empty() {
            running.stop(Stop::Drained);
        }
        running
    }

    /// Ready when the merge has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        panics::poll_blaming(self, |this| this.advance(cx), Self::blame)
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ending.is_none() {
            let stop = match self.move_messages(cx) {
                Poll::Ready(stop) => stop,
                Poll::Pending => {
                    self.doing = MergeDoing::Own;
                    match self.limits.poll_exceeded(cx) {
                        Poll::Ready(exceeded) => Stop::Error(exceeded.into_error("the merge")),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            };
            self.stop(stop);
        }
        let Self { ending, destination, settings, limits, clock, .. } = self;
        let Some(ending) = ending else { return Poll::Pending };
        ending.poll(cx, "the merge", clock, settings.grace, limits, |cx| {
            if settings.keep_open {
                destination.as_mut().poll_flush(cx)
            } else {
                destination.as_mut().poll_close(cx)
            }
        })
    }

    fn move_messages(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        let Some(intake) = &mut self.intake else { return Poll::Ready(Stop::Drained) };
        let mut resumed = true;
        loop {
            if std::mem::take(&mut resumed) || intake.begins_turn() {
                self.doing = MergeDoing::Own;
                if let Some(exceeded) = self.limits.exceeded() {
                    return Poll::Ready(Stop::Error(exceeded.into_error("the merge")));
                }
            }
            self.doing = MergeDoing::Destination;
            if let Some(source) = self.sending {
                match self.destination.as_mut().poll_send(cx, &mut self.hand) {
                    Poll::Ready(Ok(())) => {
                        self.sending = None;
                        self.sources[source].delivered += 1;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Stop::Destination(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            match self.destination.as_mut().poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Stop::Destination(error)),
                Poll::Pending => return Poll::Pending,
            }
            self.doing = MergeDoing::Taking;
            match intake.poll_take(cx) {
                Poll::Ready(Some((source, Ok(message)))) => {
                    self.sending = Some(source);
                    self.hand = Some(message);
                }
                Poll::Ready(Some((_, Err(fault)))) => return Poll::Ready(Stop::Error(fault)),
                Poll::Ready(None) => return Poll::Ready(Stop::Drained),
                Poll::Pending => {
                    self.doing = MergeDoing::Destination;
                    if let Poll::Ready(Err(error)) = self.destination.as_mut().poll_flush(cx) {
                        return Poll::Ready(Stop::Destination(error));
                    }
                    let closes = self.destination.as_mut().poll_closed(cx);
                    return closes.map(|()| Stop::Destination(closed()));
                }
            }
        }
    }

    fn blame(&mut self, message: &str) {
        let doing = std::mem::replace(&mut self.doing, MergeDoing::Own);
        let error = match (doing, &self.intake) {
            (MergeDoing::Taking, Some(intake)) => intake.blame(message),
            (MergeDoing::Destination, _) => Error::panic("the destination", message),
            _ => Error::panic("the clock", message),
        };
        match &mut self.ending {
            Some(ending) => {
                ending.add(error);
                ending.give_up();
            }
            None if matches!(doing, MergeDoing::Destination) => self.stop(Stop::Destination(error)),
            None => self.stop(Stop::Error(error)),
        }
    }
}

impl<S, D, P, U> RunningMerge<S, D, P, U>
where
    D: Destination,
    U: FnMut(Undelivered<D::Message>),
{
    /// Takes nothing any more, and gives the message in between to whoever wants it: to the
    /// destination if it takes it now, or else to the callback.
    fn stop(&mut self, stop: Stop) {
        let (error, failed) = match stop {
            Stop::Drained => (None, false),
            Stop::Error(error) => (Some(error), false),
            Stop::Destination(error) => (Some(error), true),
        };
        let mut ending = Ending::new(error, failed);
        if let Some(source) = self.sending.take() {
            let Self { destination, hand, settings, .. } = self;
            let sent = panics::contain(|| {
                let mut cx = Context::from_waker(Waker::noop());
                if failed {
                    return Poll::Pending;
                }
                let sent = destination.as_mut().poll_send(&mut cx, hand);
                if sent.is_pending() && !settings.keep_open {
                    // A closed destination gives back what waits in front of it.
                    let _ = destination.as_mut().poll_close(&mut cx);
                }
                sent
            });
            if let Ok(Poll::Ready(Ok(()))) = sent {
                self.sources[source].delivered += 1;
            } else {
                self.lost_one = true;
                // One that has failed or panicked is not asked again.
                if !matches!(sent, Ok(Poll::Pending)) {
                    ending.give_up();
                }
                if let Err(message) = sent {
                    ending.add(Error::panic("the destination", &message));
                }
                if let Err(message) = panics::contain(|| self.hand_over()) {
                    let whose = "the callback for undelivered messages";
                    ending.add(Error::panic(whose, &message));
                }
            }
        }
        self.ending = Some(ending);
    }

    /// Without a callback, a message that waits in front of its destination stays there.
    fn hand_over(&mut self) {
        let callback = self.undelivered.as_mut().and_then(Held::get_mut);
        let Some(callback) = callback else { return self.hand = None };
        let in_hand = self.hand.take().map(Undelivered::message);
        if let Some(message) = in_hand.or_else(|| self.destination.as_mut().take_back()) {
            callback(message);
        }
    }

    pub(super) fn finish(&mut self) -> Result<MergeReport, Error> {
        let elapsed = panics::contain(|| self.clock.now().since(self.started));
        let sources = std::mem::take(&mut self.sources);
        let report = MergeReport { elapsed: elapsed.unwrap_or_default(), sources };
        let Some(mut error) = self.ending.take().and_then(Ending::into_error) else {
            self.ending = Some(Ending::new(None, true));
            return Ok(report);
        };
        self.ending = Some(Ending::new(None, true));
        error = error.with_metadata("delivered", report.delivered());
        if self.lost_one {
            error = error.with_metadata("undelivered", 1);
        }
        Err(error)
    }
}

/// A merge that is dropped midway ends like one that is cancelled, as far as it can without
/// waiting.
impl<S, D, P, U> Drop for RunningMerge<S, D, P, U>
where
    D: Destination,
    U: FnMut(Undelivered<D::Message>),
{
    fn drop(&mut self) {
        if self.ending.is_none() {
            self.stop(Stop::Error(Error::canceled()));
            if !self.settings.keep_open && self.ending.as_ref().is_none_or(|it| !it.is_over()) {
                let mut cx = Context::from_waker(Waker::noop());
                panics::drop_contained(|| {
                    let _ = self.destination.as_mut().poll_close(&mut cx);
                });
            }
        }
        let hand = self.hand.take();
        panics::drop_contained(|| drop(hand));
        let callback = self.undelivered.take();
        panics::drop_contained(|| drop(callback));
        let intake = self.intake.take();
        panics::drop_contained(|| drop(intake));
    }
}
