//! Where messages come from: any stream, perhaps with a name, a share or a rate of its own, perhaps
//! one that comes and goes.
//!
//! Whoever takes messages asks three things of a source: whether something of it may be started
//! (`poll_gate`), what it yields (`poll_delivery`), and, at the end, what it has taken and not
//! yielded (`take_held`). For a stream these are "yes", `poll_next` and "nothing", and cost
//! nothing.

mod any;
mod changed;
mod configured;
mod delivery;
mod faults;
mod live;
mod passing;
mod ticketed;
mod urgency;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, TryStream};

pub use any::{AnySource, Mixed, mixed, mixed_settling};
pub use changed::Changed;
pub use configured::Configured;
pub use delivery::Unsettled;
pub(crate) use delivery::{Body, Delivery, DeliveryOf, Gate, Hold, Polled, Profile, Raw, Receipt};
pub use faults::Faults;
pub use live::{Ended, IncomingSources, LiveSource, LiveSources, SourceEnd, SourceHandle, live};

pub(crate) use urgency::Urgency;

use crate::error::{BoxError, Error};
use changed::{Decode, Pick};

/// Messages that are passed over one after another before the executor has its thread back.
pub(crate) const PASSED_OVER_AT_ONCE: usize = 256;

/// A source of messages. Every [`Stream`] is one as it is, `&mut S` and boxed streams included, and
/// so is a [`window`](crate::channels::Window::new()).
///
/// Sources of one list have one type; those of different types are boxed, as streams or by
/// [`mixed`](crate::channels::mixed).
///
/// | option | units | default |
/// | --- | --- | --- |
/// | [`named`](Source::named) | a name for errors and reports | its position |
/// | [`weighted`](Source::weighted) | turns as many times as long | 1 |
/// | [`prioritized`](Source::prioritized) | lower is more urgent | 100 |
/// | [`rate`](Source::rate) | messages in a span | no limit |
/// | [`faults`](Source::faults) | an `Err` ends the operation | an `Err` is a message |
///
/// The trait is implemented by this crate alone.
///
/// ```
/// use futures::{StreamExt, stream};
/// use watershed::Source;
///
/// let (_sender, receiver) = async_channel::bounded::<u32>(4);
/// let sources = [receiver.boxed().named("queue"), stream::iter([1, 2]).boxed().named("fixed")];
/// # let _ = sources;
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no source: it is no `futures::Stream`",
    label = "a source of type `{Self}`",
    note = "a receiver of tokio becomes one by `tokio_stream::wrappers::ReceiverStream::new`, \
            anything with a `poll` function by `futures::stream::poll_fn`",
    note = "see `watershed::guide::compile_errors`"
)]
pub trait Source {
    /// What the source yields and the handler takes.
    type Message;

    /// What a message is settled by: [`Unsettled`](crate::channels::Unsettled) for every stream, a
    /// [`Ticket`](crate::transport::Ticket) for what comes from a [transport](crate::transport).
    type Receipt: Receipt;

    /// The next message, a fault, or the end of the source. The methods that follow have defaults: those of
    /// a plain stream.
    #[doc(hidden)]
    fn poll_delivery(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<Self>;

    /// Whether something of the source may be started: asked before each message and each of its
    /// retries. Whoever was told is woken when the answer has become another one.
    #[doc(hidden)]
    #[inline]
    fn poll_gate(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Gate> {
        Poll::Ready(Gate::Open)
    }

    /// Hands out, one after another, what was taken and not yielded. Takes nothing.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    fn take_held(self: Pin<&mut Self>) -> Option<DeliveryOf<Self>> {
        None
    }

    /// Has the next poll yield what is held, full or not; says whether there is something, and
    /// nothing of what is paused is.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    fn give_out(self: Pin<&mut Self>) -> bool {
        false
    }

    /// Tells whatever fetches ahead for the source that nothing of it is to be started, or is again.
    #[doc(hidden)]
    #[inline]
    fn hold(self: Pin<&mut Self>, _: Hold) {}

    /// Whether nothing of the source may be started for now: asked without waiting for another
    /// answer.
    #[doc(hidden)]
    #[inline]
    fn is_paused(&self) -> bool {
        false
    }

    /// Whether something was taken and not yielded: a window that is open, which is one message
    /// however much is in it.
    #[doc(hidden)]
    #[inline]
    fn holds(&self) -> bool {
        false
    }

    /// Whether it brings nothing more, unless something that was taken from it is given back: a window
    /// does not wait for that.
    #[doc(hidden)]
    fn is_exhausted(&self) -> bool {
        false
    }

    /// What an operation asks of the source before it takes a message.
    #[doc(hidden)]
    fn profile(&self) -> Profile {
        Profile::default()
    }

    /// The same source with turns that are `weight` times as long: among sources that are always
    /// ready, each has a share of the messages in proportion to its weight. Default: 1.
    ///
    /// A weight of 0 is [`ErrorCode::Validation`](crate::ErrorCode::Validation) before anything is
    /// taken, and so is a weight in an operation over one source, and beside a strategy.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{StreamExt, stream};
    /// use watershed::{BoxError, Source, StepContext, fan_in};
    ///
    /// let heavy = stream::repeat("paid").take(600).weighted(3);
    /// let light = stream::repeat("free").take(200).weighted(1);
    /// let mut first = Vec::new();
    /// fan_in(&StepContext::new("orders"), [heavy, light], |order, _| {
    ///     first.push(order);
    ///     async { Ok::<_, BoxError>(()) }
    /// })
    /// .await?;
    /// assert_eq!(first[..256].iter().filter(|order| **order == "paid").count(), 192);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    fn weighted(self, weight: u32) -> Configured<Self>
    where
        Self: Sized,
    {
        Configured::new(self).weighted(weight)
    }

    /// The same source with another priority; lower numbers are more urgent. As long as a source is
    /// known to be ready, the turns of less urgent ones are one message long: they are slow, and
    /// never starve. It is known from a message on until there is none: the first turns go by the
    /// list, so put urgent sources in front. Default: 100.
    ///
    /// In a [`Select`](crate::channels::Select) the more urgent case always wins. In an operation over
    /// one source, and beside a strategy, another priority is
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation) before anything is taken.
    fn prioritized(self, priority: u32) -> Configured<Self>
    where
        Self: Sized,
    {
        Configured::new(self).prioritized(priority)
    }

    /// The same source with a bound: in no span of `per` do more than `messages` attempts at its
    /// messages begin, retries included. Room that is not used is not saved, and while the source
    /// waits, others go on. Default: no bound.
    ///
    /// 0 messages, a span of zero, or a rate in an operation other than a drain are
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation) before anything is taken.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use futures::stream;
    /// use watershed::{BoxError, ErrorCode, Source, StepContext, fan_in};
    ///
    /// let source = stream::iter([1, 2]).rate(0, Duration::from_secs(1));
    /// let none = fan_in(&StepContext::new("mails"), [source], async |_, _| Ok::<_, BoxError>(()));
    /// assert_eq!(none.await.unwrap_err().error().code(), ErrorCode::Validation);
    /// # });
    /// ```
    fn rate(self, messages: usize, per: Duration) -> Configured<Self>
    where
        Self: Sized,
    {
        Configured::new(self).rate(messages, per)
    }

    /// The same source with a name, which errors and reports show beside the number of a message.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{Source, StepContext, channels};
    ///
    /// let (sender, _receiver) = async_channel::unbounded();
    /// let sources = [stream::iter(0..1).named("ak"), stream::iter(1..3).named("nc")];
    /// let report = channels::merge_into(&StepContext::new("merge"), sources, sender).await?;
    /// assert_eq!(report.sources()[1].name(), "nc");
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    fn named(self, name: impl Into<Arc<str>>) -> Configured<Self>
    where
        Self: Sized,
    {
        Configured::new(self).named(name)
    }

    /// The same source with its `Err` items taken as faults, which end the drain, and its `Ok`
    /// items as messages. Like a message, a fault is noticed at the source's next turn.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, ErrorCode, Source, StepContext, fan_in};
    ///
    /// let source = stream::iter([Ok(1), Err("connection lost")]).faults();
    /// let context = StepContext::new("drain");
    /// let failure = fan_in(&context, [source], async |_, _| Ok::<_, BoxError>(()))
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(failure.error().code(), ErrorCode::Source);
    /// # });
    /// ```
    fn faults(self) -> Faults<Self>
    where
        Self: Sized + TryStream<Error: Into<BoxError>>,
    {
        Faults::new(self)
    }

    /// The same source with each message made into another one, whatever it is settled by. One that
    /// cannot be is a message that has failed, with the user's error under
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation), not a fault of the source: in a drain
    /// with [`dead_letters`](crate::FanIn::dead_letters) its [letter](crate::Letter::raw) has it as it
    /// was. Messages are cloned for that.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, Letter, Source, StepContext, fan_in};
    ///
    /// let orders = stream::iter(["1", "x"]).decoded(str::parse::<u32>);
    /// let mut raw = None;
    /// let report = fan_in(&StepContext::new("orders"), [orders], async |_, _| Ok::<_, BoxError>(()))
    ///     .dead_letters(|letter: Letter<u32>| {
    ///         raw = letter.raw::<&str>().copied();
    ///         async {}
    ///     })
    ///     .await?;
    /// assert_eq!((report.handled(), report.failed(), raw), (1, 1, Some("x")));
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    fn decoded<N, E, F>(self, decode: F) -> Changed<Self, Decode<F>>
    where
        Self: Source<Message: Clone + Send + Sync + 'static> + Sized,
        E: Into<BoxError>,
        F: FnMut(Self::Message) -> Result<N, E>,
    {
        Changed::decoded(self, decode)
    }

    /// The same source with each message made into another one, or left out: what is left out is
    /// handled, and [accepted](crate::transport) where there is a transport.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, Source, StepContext, fan_in};
    ///
    /// let even = stream::iter(0..4).picked(|number| (number % 2 == 0).then_some(number / 2));
    /// let mut seen = Vec::new();
    /// let report = fan_in(&StepContext::new("numbers"), [even], |number, _| {
    ///     seen.push(number);
    ///     async { Ok::<_, BoxError>(()) }
    /// })
    /// .await?;
    /// assert_eq!((report.handled(), seen), (4, vec![0, 1]));
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    fn picked<N, F>(self, pick: F) -> Changed<Self, Pick<F>>
    where
        Self: Sized,
        F: FnMut(Self::Message) -> Option<N>,
    {
        Changed::picked(self, pick)
    }

    /// The same source in a box, so that sources of different types are of one: see
    /// [`mixed`](crate::channels::mixed).
    fn erased<'a>(self) -> AnySource<'a, Self::Message, Self::Receipt>
    where
        Self: Sized + Send + 'a,
    {
        AnySource::new(self)
    }
}

#[diagnostic::do_not_recommend]
impl<S: Stream> Source for S {
    type Message = S::Item;
    type Receipt = Unsettled;

    #[inline]
    fn poll_delivery(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<Self> {
        self.poll_next(cx).map(|item| item.map(|message| Ok(Delivery::message(message, Unsettled))))
    }
}

/// The next message, a fault, or the end of a source, for whoever has no use for the rest: what has
/// failed is a fault, what is left out is passed over, and a source that is removed ends with what
/// it holds. `left`: how much may be passed over before others have their turn.
#[inline]
pub(crate) fn poll_message<S: Source<Receipt = Unsettled>>(
    mut source: Pin<&mut S>,
    cx: &mut Context<'_>,
    left: &mut usize,
) -> Poll<Option<Result<S::Message, Error>>> {
    loop {
        let delivery = match ready!(source.as_mut().poll_gate(cx)) {
            Gate::Open => ready!(source.as_mut().poll_delivery(cx)),
            Gate::Removed => source.as_mut().take_held().map(Ok),
        };
        match delivery {
            Some(Ok(Delivery { body: Body::Message(message), .. })) => {
                return Poll::Ready(Some(Ok(message)));
            }
            Some(Ok(Delivery { body: Body::Failed(error, _), .. }) | Err(error)) => {
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(Delivery { body: Body::Skipped | Body::Held, .. })) if *left > 1 => *left -= 1,
            Some(Ok(Delivery { body: Body::Skipped | Body::Held, .. })) => {
                *left = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => return Poll::Ready(None),
        }
    }
}
