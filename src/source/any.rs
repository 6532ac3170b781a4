//! Lists of sources of different types.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{DeliveryOf, Gate, Polled, Profile, Source, Unsettled};

type BoxedSource<'a, M> = Pin<Box<dyn Source<Message = M, Receipt = Unsettled> + Send + 'a>>;

/// Any source of messages `M`, in a box: made by [`mixed`] or [`Source::erased`].
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
pub struct AnySource<'a, M>(BoxedSource<'a, M>);

impl<'a, M> AnySource<'a, M> {
    pub(super) fn new<S>(source: S) -> Self
    where
        S: Source<Message = M, Receipt = Unsettled> + Send + 'a,
    {
        Self(Box::pin(source))
    }
}

/// A source that was handed back by [`SourceHandle::remove`](crate::channels::SourceHandle::remove),
/// to be drained again.
impl<'a, S> From<Pin<Box<S>>> for AnySource<'a, S::Message>
where
    S: Source<Receipt = Unsettled> + Send + 'a,
{
    fn from(source: Pin<Box<S>>) -> Self {
        Self(source)
    }
}

impl<M> Source for AnySource<'_, M> {
    type Message = M;
    type Receipt = Unsettled;

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

    fn is_paused(&self) -> bool {
        self.0.is_paused()
    }

    fn holds(&self) -> bool {
        self.0.holds()
    }

    fn profile(&self) -> Profile {
        self.0.profile()
    }
}

impl<M> fmt::Debug for AnySource<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnySource").field("name", &self.0.profile().name).finish_non_exhaustive()
    }
}

/// A list of sources of different types: a tuple of up to eight, see [`mixed`].
pub trait Mixed<'a, M, const N: usize> {
    #[doc(hidden)]
    fn into_list(self) -> [AnySource<'a, M>; N];
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
