//! Sources that come and go while a drain runs.
//!
//! Every source that is added is wrapped. The wrapper and the handle share what the owner wishes
//! (`control`): the wrapper looks at it before anything of the source is started, and its drop, at
//! whatever end, tells the handle how the source ended and gives back what is left of it. A list
//! (`registry`) has the sources that are there, by their ids, and no others.

mod circles;
mod control;
mod handle;
#[cfg(all(test, watershed_loom))]
mod proof;
mod refusal;
mod registry;
mod wrapper;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_channel::{Receiver, Sender};
use futures::Stream;
use pin_project_lite::pin_project;

pub use handle::{Ended, SourceHandle};
pub use wrapper::LiveSource;

use super::{Receipt, Source};
use crate::error::{Error, ErrorCode};
use crate::origin::SourceId;
use crate::panics::{self, ContainedWaker};
use crate::sync::Arc;
use control::Control;
pub(crate) use refusal::Refusal;
use registry::Registry;

/// A way to add sources to a drain while it runs, and the stream to hand to
/// [`FanIn::incoming`](crate::FanIn::incoming). The drain goes on until every [`LiveSources`] is
/// gone and every source has ended.
///
/// A source that is removed, or whose drain ends, is handed back through its handle, with what is
/// left in it.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::{BoxError, StepContext, channels, fan_in};
///
/// let context = StepContext::new("connections");
/// let (live, incoming) = channels::live();
/// live.add(stream::iter(0..2)).unwrap();
/// let handle = live.add(stream::iter(2..3)).unwrap();
/// drop(live); // no further source
///
/// let report = fan_in(&context, [], async |_, _| Ok::<_, BoxError>(()))
///     .incoming(incoming)
///     .await?;
/// assert_eq!(report.handled(), 3);
/// assert_eq!(handle.ended().await, channels::SourceEnd::Drained);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn live<S: Source>() -> (LiveSources<S>, IncomingSources<S>) {
    let (sender, receiver) = async_channel::unbounded();
    let incoming = IncomingSources { receiver, waker: None };
    (LiveSources { sender, registry: Arc::default(), refusal: std::sync::Arc::default() }, incoming)
}

/// Adds sources to a drain that runs, see [`live`]. Clones add to the same drain.
///
/// ```
/// use futures::stream;
/// let (live, incoming) = watershed::channels::live();
/// live.add(stream::iter([1])).unwrap();
/// drop(incoming);
/// assert!(live.add(stream::iter([2])).is_err(), "no drain takes it");
/// ```
pub struct LiveSources<S> {
    sender: Sender<LiveSource<S>>,
    registry: Arc<Registry<S>>,
    refusal: std::sync::Arc<Refusal>,
}

impl<S: Source> LiveSources<S> {
    /// Adds a source. Keep the handle of one that is to come back: what is left of a source that
    /// nobody has a handle to is dropped at its end.
    ///
    /// # Errors
    ///
    /// The source itself, and why: [`ErrorCode::ChannelCompleted`](crate::ErrorCode::ChannelCompleted)
    /// when the drain has ended or was asked to, [`ErrorCode::Validation`](crate::ErrorCode::Validation)
    /// when it settles with a transport and the drain cannot, because it has another
    /// [`Commit`](crate::Commit) than one for each message. The drain says so when it takes the first
    /// such source; that one comes back by its handle, as [`SourceEnd::Refused`], and without a handle it is
    /// a fault of the drain.
    ///
    /// ```
    /// let (live, _incoming) = watershed::channels::live();
    /// let handle = live.add(futures::stream::iter([1])).unwrap();
    /// assert!(!handle.is_paused());
    /// ```
    pub fn add(&self, source: S) -> Result<SourceHandle<S>, (Pin<Box<S>>, Error)> {
        let source = Box::pin(source);
        let settles = S::Receipt::SETTLES && !source.profile().desks.is_empty();
        let refusal = settles.then(|| std::sync::Arc::clone(&self.refusal));
        if let Some(error) = refusal.as_ref().and_then(|refusal| refusal.error()) {
            return Err((source, error));
        }
        let control = Arc::new(Control::new(SourceId::next()));
        // Before it is sent: it may be drained, and leave the list, at once.
        self.registry.insert(&control);
        let live = LiveSource::new(source, &control, &self.registry, refusal);
        let handle = SourceHandle::new(control);
        match self.sender.try_send(live) {
            Ok(()) => Ok(handle),
            Err(refused) => match refused.into_inner().into_source() {
                Some(source) => {
                    Err((source, Error::new(ErrorCode::ChannelCompleted, "the drain has ended")))
                }
                None => Ok(handle),
            },
        }
    }

    /// The handle of a source that was added here and has not ended.
    ///
    /// ```
    /// let (live, incoming) = watershed::channels::live();
    /// let id = live.add(futures::stream::iter([1])).unwrap().id();
    /// assert!(live.handle(id).unwrap().pause());
    /// drop(incoming);
    /// assert!(live.handle(id).is_none(), "it is gone");
    /// ```
    #[must_use]
    pub fn handle(&self, id: SourceId) -> Option<SourceHandle<S>> {
        self.registry.get(id).map(SourceHandle::new)
    }
}

impl<S> Clone for LiveSources<S> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            registry: Arc::clone(&self.registry),
            refusal: std::sync::Arc::clone(&self.refusal),
        }
    }
}

impl<S> fmt::Debug for LiveSources<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSources")
            .field("there", &self.registry.len())
            .field("waiting", &self.sender.len())
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The sources that were added and that the drain has not taken yet, see [`live`].
    ///
    /// # Cancel safety
    ///
    /// Dropping a wait for the next source loses nothing. Dropping the stream gives the sources in
    /// it back to their handles, as [`SourceEnd::Abandoned`].
    ///
    /// ```
    /// use futures::stream::{self, StreamExt};
    /// let (live, incoming) = watershed::channels::live();
    /// live.add(stream::iter([1])).unwrap();
    /// assert!(futures::executor::block_on(Box::pin(incoming).next()).is_some());
    /// ```
    #[must_use = "sources are drained by a drain"]
    pub struct IncomingSources<S> {
        #[pin]
        receiver: Receiver<LiveSource<S>>,
        // What the channel wakes, on the thread that adds a source.
        waker: Option<std::sync::Arc<ContainedWaker>>,
    }

    impl<S> PinnedDrop for IncomingSources<S> {
        fn drop(this: Pin<&mut Self>) {
            // Whoever adds a source from now on has it back at once, and those that wait here as well.
            this.receiver.close();
            panics::drop_each(std::iter::from_fn(|| this.receiver.try_recv().ok()));
        }
    }
}

impl<S> Stream for IncomingSources<S> {
    type Item = LiveSource<S>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<LiveSource<S>>> {
        let this = self.project();
        panics::poll_contained(cx, this.waker, |cx| this.receiver.poll_next(cx))
    }
}

impl<S> fmt::Debug for IncomingSources<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingSources")
            .field("waiting", &self.receiver.len())
            .finish_non_exhaustive()
    }
}

/// How a live source ended.
///
/// ```
/// use watershed::channels::{SourceEnd, live};
/// let (live, incoming) = live();
/// let handle = live.add(futures::stream::iter([1])).unwrap();
/// drop(incoming);
/// assert_eq!(futures::executor::block_on(handle.ended()), SourceEnd::Abandoned);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceEnd {
    /// It had no further message.
    Drained,
    /// It was removed.
    Removed,
    /// Its drain ended, or never began.
    Abandoned,
    /// It settles with a transport, and its drain does not commit each message by itself.
    Refused,
    /// It has not ended: the one that waits is a handler of this very source, which ends only when
    /// that handler has.
    NotYet,
}
