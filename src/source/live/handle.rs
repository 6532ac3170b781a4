//! What the owner of a live source can do with it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::SourceEnd;
use super::circles::EndWait;
use super::control::{Control, Wish, Within};
use crate::origin::SourceId;
use crate::step::handled;
use crate::sync::Arc;

/// What its owner can do with a source that is being drained. Dropping the handle changes nothing
/// but that what is left of the source does not come back, if it was the last one.
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

impl<S> Clone for SourceHandle<S> {
    /// Another handle of the same source.
    fn clone(&self) -> Self {
        Self { control: Arc::clone(&self.control) }
    }
}

impl<S> SourceHandle<S> {
    pub(super) fn new(control: Arc<Control<S>>) -> Self {
        Self { control }
    }

    /// Which source this is, in reports, letters and steps.
    #[must_use]
    pub fn id(&self) -> SourceId {
        self.control.id
    }

    /// Starts nothing of the source until [`resume`](SourceHandle::resume): when this returns, no
    /// further message of it is taken, and what waits for its next attempt, for its key, or in an
    /// open window waits on. What is running is finished. The time of what waits goes on. A drain that
    /// is taking a message of it on another thread at this very moment may still begin that one:
    /// nobody is made to wait for it.
    ///
    /// It is a switch: pausing twice is pausing once. A drain does not end while a source is
    /// paused: resume or remove it.
    ///
    /// Says whether the source is there: one that has ended or is being removed is not paused.
    ///
    /// ```
    /// let (live, incoming) = watershed::channels::live();
    /// let handle = live.add(futures::stream::iter([1])).unwrap();
    /// assert!(handle.pause() && handle.is_paused());
    /// drop(incoming);
    /// assert!(!handle.pause() && !handle.is_paused());
    /// ```
    #[allow(clippy::must_use_candidate, reason = "most callers know that the source is there")]
    pub fn pause(&self) -> bool {
        self.control.wish(Wish::Pause)
    }

    /// Goes on after [`pause`](SourceHandle::pause), however often that was called.
    ///
    /// Says whether the source is there, as `pause` does.
    ///
    /// ```
    /// let (live, _incoming) = watershed::channels::live();
    /// let handle = live.add(futures::stream::iter([1])).unwrap();
    /// handle.pause();
    /// assert!(handle.resume() && !handle.is_paused());
    /// ```
    #[allow(clippy::must_use_candidate, reason = "most callers know that the source is there")]
    pub fn resume(&self) -> bool {
        self.control.wish(Wish::Run)
    }

    /// Whether the source is there and paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.control.is_paused()
    }

    /// Takes the source out of the drain without waiting for it: no further message is taken, what
    /// runs is finished, and what the source holds goes where it goes when the drain ends. A
    /// removal is final. Afterwards [`remove`](SourceHandle::remove) gives the source back.
    ///
    /// Says whether the source is there still; one that has ended is not.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let (live, incoming) = watershed::channels::live();
    /// let handle = live.add(futures::stream::iter([1])).unwrap();
    /// assert!(handle.request_removal());
    /// drop(incoming);
    /// assert_eq!(handle.ended().await, watershed::channels::SourceEnd::Removed);
    /// assert!(!handle.request_removal());
    /// # });
    /// ```
    #[allow(clippy::must_use_candidate, reason = "most callers know that the source is there")]
    pub fn request_removal(&self) -> bool {
        self.control.wish(Wish::Remove)
    }

    /// Takes the source out of the drain as [`request_removal`](SourceHandle::request_removal)
    /// does, waits until what runs of it is finished, and hands it back with what is left in it.
    /// `None` when it had ended by itself, or was handed back before.
    ///
    /// A handler of the same source cannot wait for that, because it would wait for itself, nor can
    /// what undoes its message or puts it aside, nor a drain in any of these: to them this is `None` at
    /// once, and the source can be had by calling this again elsewhere. So it is to whoever would close a
    /// circle of handlers that wait for each other's sources, and to every handler when the drain is asked
    /// to end, which waits for its handlers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future after its first poll leaves the removal going on; the source can be had
    /// by calling this again.
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
        self.request_removal();
        match self.ended().await {
            SourceEnd::NotYet => None,
            _ => self.control.take_source(),
        }
    }

    /// Waits until the source has ended, in whatever way. [`SourceEnd::NotYet`] is told to whoever would
    /// wait for itself: a handler of the same source, [and the others](SourceHandle::remove) that cannot wait
    /// for it.
    ///
    /// A handler waits, for this matter, as long as a future of this is there that it has polled. It keeps its
    /// permit meanwhile: with a [`concurrency`](crate::FanIn::concurrency) of 1, say, no source ends whose
    /// messages wait for that.
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
        Ended { control: Arc::clone(&self.control), waiter: None, wait: None }
    }
}

impl<S> fmt::Debug for SourceHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceHandle")
            .field("id", &self.control.id)
            .field("wish", &self.control.wished())
            .finish_non_exhaustive()
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
    /// A handler waits.
    wait: Option<EndWait>,
}

impl<S> Future for Ended<S> {
    type Output = SourceEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SourceEnd> {
        let within = self.within();
        let Self { control, waiter, wait } = &mut *self;
        let polled = control.poll_end(waiter, cx, within);
        if polled.is_ready() {
            *wait = None;
        }
        polled
    }
}

impl<S> Ended<S> {
    /// Where it is polled. A handler that would close a circle of waits would wait for itself as well.
    fn within(&mut self) -> Within {
        let (handled, source) = (handled(), self.control.id);
        // One that has ended says so wherever it is asked.
        if handled.is_empty() || handled.contains(&source) || self.control.has_ended() {
            self.wait = None;
            return if handled.is_empty() { Within::Nothing } else { Within::OwnHandler };
        }
        if !self.wait.as_ref().is_some_and(|wait| wait.is_of(&handled)) {
            self.wait = None;
            self.wait = EndWait::begin(handled, source);
        }
        if self.wait.is_some() { Within::Handler } else { Within::OwnHandler }
    }
}

impl<S> Drop for Ended<S> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.control.forget(waiter);
        }
    }
}

impl<S> fmt::Debug for Ended<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended").field("source", &self.control.id).finish_non_exhaustive()
    }
}
