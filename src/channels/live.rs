//! Sources that come and go while a drain runs.
//!
//! Every source that is added is wrapped: the wrapper looks at what its handle wishes before it
//! asks the source for a message. A lane asks only when the message before has been settled, so
//! removing a source waits for its message in flight, and nothing is taken from a paused one. A
//! lane that waits for a permit asks whether its source was removed, and for nothing else.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_channel::{Receiver, Sender};
use futures::Stream;
use pin_project_lite::pin_project;

use super::source::Source;
use crate::error::Error;
use crate::lock::Lock;
use crate::panics;
use crate::sync::AtomicWaker;
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::waiters::Waiters;

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
/// let report = fan_in(&context, [], |_, _| async { Ok::<_, BoxError>(()) })
///     .incoming(incoming)
///     .await?;
/// assert_eq!(report.handled(), 3);
/// assert_eq!(handle.ended().await, channels::SourceEnd::Drained);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn live<S: Source>() -> (LiveSources<S>, IncomingSources<S>) {
    let (sender, receiver) = async_channel::unbounded();
    (LiveSources { sender }, IncomingSources { receiver })
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
}

impl<S: Source> LiveSources<S> {
    /// Adds a source.
    ///
    /// # Errors
    ///
    /// The source itself, when the drain has ended.
    ///
    /// ```
    /// let (live, _incoming) = watershed::channels::live();
    /// let handle = live.add(futures::stream::iter([1])).unwrap();
    /// assert!(!handle.is_paused());
    /// ```
    pub fn add(&self, source: S) -> Result<SourceHandle<S>, Pin<Box<S>>> {
        let control = Arc::new(Control::default());
        let live = LiveSource { source: Some(Box::pin(source)), control: Arc::clone(&control) };
        match self.sender.try_send(live) {
            Ok(()) => Ok(SourceHandle { control }),
            Err(refused) => match refused.into_inner().source.take() {
                Some(source) => Err(source),
                None => Ok(SourceHandle { control }),
            },
        }
    }
}

impl<S> Clone for LiveSources<S> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone() }
    }
}

impl<S> fmt::Debug for LiveSources<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSources").field("waiting", &self.sender.len()).finish()
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
        self.project().receiver.poll_next(cx)
    }
}

impl<S> fmt::Debug for IncomingSources<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingSources").field("waiting", &self.receiver.len()).finish()
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
    /// Its handle removed it.
    Removed,
    /// Its drain ended, or never began.
    Abandoned,
}

/// What its owner can do with a source that is being drained. Dropping the handle changes nothing.
///
/// ```
/// # futures::executor::block_on(async {
/// let (live, incoming) = watershed::channels::live();
/// let handle = live.add(futures::stream::iter([1, 2])).unwrap();
/// drop(incoming);
/// let source = handle.remove().await.expect("it has not been drained");
/// # drop(source);
/// # });
/// ```
pub struct SourceHandle<S> {
    control: Arc<Control<S>>,
}

/// What the handle and the source have in common.
struct Control<S> {
    /// One of [`RUN`], [`PAUSE`] and [`REMOVE`]; the last one is final.
    wish: AtomicU8,
    /// Who is to hear of another wish.
    lane: AtomicWaker,
    end: Lock<End<S>>,
}

const RUN: u8 = 0;
const PAUSE: u8 = 1;
const REMOVE: u8 = 2;

struct End<S> {
    how: Option<SourceEnd>,
    /// What is left of a source that was not drained.
    source: Option<Pin<Box<S>>>,
    waiters: Waiters,
}

impl<S> Default for Control<S> {
    fn default() -> Self {
        let end = End { how: None, source: None, waiters: Waiters::default() };
        Self { wish: AtomicU8::new(RUN), lane: AtomicWaker::new(), end: Lock::new(end) }
    }
}

impl<S> Control<S> {
    fn wish(&self, wish: u8) {
        let changes = |current| (current != REMOVE).then_some(wish);
        let _ = self.wish.fetch_update(Ordering::AcqRel, Ordering::Acquire, changes);
        panics::wake_each(self.lane.take());
    }

    fn wished(&self) -> u8 {
        self.wish.load(Ordering::Acquire)
    }

    /// Whoever wishes something else from now on wakes the lane; an earlier wish is seen here.
    fn listen(&self, seen: u8, cx: &Context<'_>) {
        self.lane.register(cx.waker());
        if self.wished() != seen {
            cx.waker().wake_by_ref();
        }
    }

    fn finish(&self, how: SourceEnd, source: Option<Pin<Box<S>>>) {
        let woken = {
            let mut end = self.end.lock();
            end.how = Some(how);
            end.source = source;
            end.waiters.take()
        };
        panics::wake_each(woken.into_values());
    }
}

impl<S> SourceHandle<S> {
    /// Takes no further message of the source until [`resume`](SourceHandle::resume). The message
    /// in flight is finished. A drain does not end while a source is paused: resume or remove it.
    /// Of a source that is removed or has ended, this changes nothing.
    ///
    /// ```
    /// let (live, _incoming) = watershed::channels::live();
    /// let handle = live.add(futures::stream::iter([1])).unwrap();
    /// handle.pause();
    /// assert!(handle.is_paused());
    /// ```
    pub fn pause(&self) {
        self.control.wish(PAUSE);
    }

    /// Goes on after [`pause`](SourceHandle::pause).
    ///
    /// ```
    /// let (live, _incoming) = watershed::channels::live();
    /// let handle = live.add(futures::stream::iter([1])).unwrap();
    /// handle.pause();
    /// handle.resume();
    /// assert!(!handle.is_paused());
    /// ```
    pub fn resume(&self) {
        self.control.wish(RUN);
    }

    /// Whether the source was paused last.
    ///
    /// ```
    /// let (live, _incoming) = watershed::channels::live();
    /// let handle = live.add(futures::stream::iter([1])).unwrap();
    /// assert!(!handle.is_paused());
    /// ```
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.control.wished() == PAUSE
    }

    /// Takes the source out of the drain: no further message is taken, its message in flight is
    /// settled, and the source is handed back with what is left in it. `None` when it had ended by
    /// itself, or was handed back before.
    ///
    /// It is the drain that lets go of the source, at its next poll, and it does not wait for the
    /// handlers of other sources. A removal is final, from the call's first poll on.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the removal going on; the source can be had by calling this
    /// again.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::StreamExt;
    /// let (live, incoming) = watershed::channels::live();
    /// let handle = live.add(futures::stream::iter([1, 2])).unwrap();
    /// drop(incoming);
    /// let source = handle.remove().await.unwrap();
    /// assert_eq!(source.collect::<Vec<_>>().await, [1, 2]);
    /// # });
    /// ```
    pub async fn remove(&self) -> Option<Pin<Box<S>>> {
        self.control.wish(REMOVE);
        self.ended().await;
        self.control.end.lock().source.take()
    }

    /// Waits until the source has ended, in whatever way.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the wait and nothing else.
    ///
    /// ```
    /// use watershed::channels::{SourceEnd, live};
    /// let (live, incoming) = live();
    /// let handle = live.add(futures::stream::iter([1])).unwrap();
    /// drop(incoming);
    /// assert_eq!(futures::executor::block_on(handle.ended()), SourceEnd::Abandoned);
    /// ```
    pub fn ended(&self) -> Ended<S> {
        Ended { control: Arc::clone(&self.control), waiter: None }
    }
}

impl<S> fmt::Debug for SourceHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceHandle").field("wish", &self.control.wished()).finish()
    }
}

/// The wait of [`SourceHandle::ended`].
///
/// ```
/// use futures::FutureExt;
/// let (live, _incoming) = watershed::channels::live();
/// let handle = live.add(futures::stream::iter([1])).unwrap();
/// assert!(handle.ended().now_or_never().is_none());
/// ```
#[must_use = "a future does nothing unless it is polled"]
pub struct Ended<S> {
    control: Arc<Control<S>>,
    waiter: Option<u64>,
}

impl<S> Future for Ended<S> {
    type Output = SourceEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SourceEnd> {
        let Self { control, waiter } = &mut *self;
        let waker = cx.waker().clone();
        let mut end = control.end.lock();
        if let Some(how) = end.how {
            return Poll::Ready(how);
        }
        let old = end.waiters.wait(waiter, waker);
        drop(end);
        drop(old);
        Poll::Pending
    }
}

impl<S> Drop for Ended<S> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            let old = self.control.end.lock().waiters.remove(waiter);
            drop(old);
        }
    }
}

impl<S> fmt::Debug for Ended<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended").finish_non_exhaustive()
    }
}

/// A source that was added by [`LiveSources::add`], as the drain sees it.
///
/// ```
/// use futures::stream::{self, StreamExt};
/// use watershed::Source;
/// let (live, incoming) = watershed::channels::live();
/// live.add(stream::iter([1]).named("first")).unwrap();
/// let source = futures::executor::block_on(Box::pin(incoming).next()).unwrap();
/// assert_eq!(source.name().as_deref(), Some("first"));
/// ```
#[must_use = "a source does nothing unless it is drained"]
pub struct LiveSource<S> {
    source: Option<Pin<Box<S>>>,
    control: Arc<Control<S>>,
}

impl<S: Source> Source for LiveSource<S> {
    type Message = S::Message;

    fn poll_message(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<S::Message, Error>>> {
        let Self { source, control } = &mut *self;
        let wished = control.wished();
        if wished == REMOVE {
            self.hand_back();
            return Poll::Ready(None);
        }
        if wished == RUN {
            let Some(inner) = source else { return Poll::Ready(None) };
            match inner.as_mut().poll_message(cx) {
                Poll::Ready(Some(message)) => return Poll::Ready(Some(message)),
                Poll::Ready(None) => {
                    panics::drop_each(source.take());
                    control.finish(SourceEnd::Drained, None);
                    return Poll::Ready(None);
                }
                Poll::Pending => {}
            }
        }
        control.listen(wished, cx);
        Poll::Pending
    }

    fn poll_removed(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let wished = self.control.wished();
        if wished != REMOVE {
            self.control.listen(wished, cx);
            return Poll::Pending;
        }
        self.hand_back();
        Poll::Ready(())
    }

    fn name(&self) -> Option<Arc<str>> {
        self.source.as_ref()?.name()
    }

    fn weight(&self) -> NonZeroU32 {
        self.source.as_ref().map_or(NonZeroU32::MIN, |source| source.weight())
    }

    fn priority(&self) -> u32 {
        self.source.as_ref().map_or(0, |source| source.priority())
    }

    fn number(&self) -> Option<u64> {
        self.source.as_ref()?.number()
    }
}

impl<S> LiveSource<S> {
    /// Gives the source to whoever removed it.
    fn hand_back(&mut self) {
        if let Some(source) = self.source.take() {
            self.control.finish(SourceEnd::Removed, Some(source));
        }
    }
}

/// What the drain has not drained goes back to the handle.
impl<S> Drop for LiveSource<S> {
    fn drop(&mut self) {
        if let Some(source) = self.source.take() {
            self.control.finish(SourceEnd::Abandoned, Some(source));
        }
    }
}

impl<S> fmt::Debug for LiveSource<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSource").field("wish", &self.control.wished()).finish_non_exhaustive()
    }
}
