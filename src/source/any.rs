//! Lists of sources of different types.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::ticketed::Ticketed;
use super::{DeliveryOf, Gate, Hold, Polled, Profile, Receipt, Source, Unsettled};
use crate::settlement::Ticket;

type BoxedSource<'a, M, R> = Pin<Box<dyn Source<Message = M, Receipt = R> + Send + 'a>>;

/// Any source of messages `M` that are settled by `R`, in a box: made by [`mixed`] or
/// [`Source::erased`].
///
/// ```
/// use futures::stream;
/// use watershed::channels::AnySource;
/// use watershed::Source;
///
/// let mut sources: Vec<AnySource<'_, u32>> = vec![stream::iter([1, 2]).erased()];
/// sources.push(stream::repeat(7).named("sevens").erased());
/// # drop(sources);
/// ```
#[must_use = "a source does nothing unless it is drained"]
pub struct AnySource<'a, M, R = Unsettled>(BoxedSource<'a, M, R>);

impl<'a, M, R: Receipt> AnySource<'a, M, R> {
    pub(super) fn new<S>(source: S) -> Self
    where
        S: Source<Message = M, Receipt = R> + Send + 'a,
    {
        Self(Box::pin(source))
    }
}

/// A source that was handed back by [`SourceHandle::remove`](crate::channels::SourceHandle::remove),
/// to be drained again.
impl<'a, S> From<Pin<Box<S>>> for AnySource<'a, S::Message, S::Receipt>
where
    S: Source + Send + 'a,
{
    fn from(source: Pin<Box<S>>) -> Self {
        Self(source)
    }
}

impl<M, R: Receipt> Source for AnySource<'_, M, R> {
    type Message = M;
    type Receipt = R;

    fn poll_delivery(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<Self> {
        self.0.as_mut().poll_delivery(cx)
    }

    fn poll_gate(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Gate> {
        self.0.as_mut().poll_gate(cx)
    }

    fn take_held(mut self: Pin<&mut Self>) -> Option<DeliveryOf<Self>> {
        self.0.as_mut().take_held()
    }

    fn give_out(mut self: Pin<&mut Self>) -> bool {
        self.0.as_mut().give_out()
    }

    fn hold(mut self: Pin<&mut Self>, hold: Hold) {
        self.0.as_mut().hold(hold);
    }

    fn is_paused(&self) -> bool {
        self.0.is_paused()
    }

    fn holds(&self) -> bool {
        self.0.holds()
    }

    fn is_exhausted(&self) -> bool {
        self.0.is_exhausted()
    }

    fn profile(&self) -> Profile {
        self.0.profile()
    }
}

impl<M, R: Receipt> fmt::Debug for AnySource<'_, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnySource").field("name", &self.0.profile().name).finish_non_exhaustive()
    }
}

/// A list of sources of different types: a tuple of up to eight, see [`mixed`].
pub trait Mixed<'a, M, const N: usize, R = Unsettled> {
    #[doc(hidden)]
    fn into_list(self) -> [AnySource<'a, M, R>; N];
}

macro_rules! tuples_of {
    ($($count:literal: $($source:ident)+;)+) => {$(
        impl<'a, M, $($source),+> Mixed<'a, M, $count> for ($($source,)+)
        where
            $($source: Source<Message = M, Receipt = Unsettled> + Send + 'a,)+
        {
            fn into_list(self) -> [AnySource<'a, M>; $count] {
                #[allow(non_snake_case, reason = "a source and its type have one name")]
                let ($($source,)+) = self;
                [$($source.erased()),+]
            }
        }

        impl<'a, M, $($source),+> Mixed<'a, M, $count, Ticket> for ($($source,)+)
        where
            $($source: Source<Message = M> + Send + 'a,)+
        {
            fn into_list(self) -> [AnySource<'a, M, Ticket>; $count] {
                #[allow(non_snake_case, reason = "a source and its type have one name")]
                let ($($source,)+) = self;
                [$(AnySource::new(Ticketed::new($source))),+]
            }
        }
    )+};
}

tuples_of! {
    1: A;
    2: A B;
    3: A B C;
    4: A B C D;
    5: A B C D E;
    6: A B C D E F;
    7: A B C D E F G;
    8: A B C D E F G H;
}

/// Makes one list of sources of different types, all of the same message.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::channels::{merge_into, mixed};
/// use watershed::{Source, StepContext};
///
/// let (orders, queue) = async_channel::bounded(4);
/// orders.send(7).await?;
/// drop(orders);
/// let sources = mixed((queue, stream::iter([1, 2]).named("backlog")));
/// let (sender, _receiver) = async_channel::unbounded();
/// let report = merge_into(&StepContext::new("orders"), sources, sender).await?;
/// assert_eq!(report.delivered(), 3);
/// # Ok::<_, watershed::BoxError>(()) }).unwrap();
/// ```
pub fn mixed<'a, M, const N: usize>(sources: impl Mixed<'a, M, N>) -> [AnySource<'a, M>; N] {
    sources.into_list()
}

/// Makes one list of sources of different types for a drain, some of which settle their messages with
/// a [transport](crate::transport).
///
/// ```
/// # use watershed::transport::{Transport, Able, Fetched, Link, Settled, Verdict, Want};
/// # struct Empty;
/// # impl Transport for Empty {
/// #     type Message = u32;
/// #     type Receipt = ();
/// #     fn able(&self) -> Able { Able::each() }
/// #     async fn fetch(&self, _: Want) -> Fetched<u32, ()> { Ok(None) }
/// #     async fn settle(&self, _: Vec<((), Verdict)>) -> Vec<Settled> { Vec::new() }
/// # }
/// # let queue = Link::new(Empty);
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::{BoxError, Source, StepContext, fan_in, transport};
///
/// let sources = transport::mixed((queue.source().named("queue"), stream::iter([1, 2])));
/// let report = fan_in(&StepContext::new("orders"), sources, async |_, _| Ok::<_, BoxError>(()))
///     .await?;
/// assert_eq!(report.handled(), 2);
/// # Ok::<_, BoxError>(()) }).unwrap();
/// ```
pub fn mixed_settling<'a, M, const N: usize>(
    sources: impl Mixed<'a, M, N, Ticket>,
) -> [AnySource<'a, M, Ticket>; N] {
    sources.into_list()
}
