//! Destinations that come and go while a broadcast runs.
//!
//! Whoever has a handle leaves a destination, or the wish to be rid of one, at a *door*, from any
//! thread; the broadcast looks there between two items, and for those that go while one is being
//! delivered as well. A flag tells it whether there is anything, so that an item costs no lock.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use super::super::destination::{Destination, IntoDestination, Refused};
use crate::error::Error;
use crate::lock::Lock;
use crate::panics;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Adds destinations to a broadcast that runs, and takes them away, made by
/// [`Broadcast::subscribers`](crate::channels::Broadcast::subscribers).
///
/// Clones are handles of one broadcast. While there is one, a broadcast that has no destination takes
/// nothing, and waits for one; it does not hear then that its source has ended.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::future::IntoFuture;
/// use futures::join;
/// use watershed::StepContext;
/// use watershed::channels::broadcast;
///
/// let (news, source) = async_channel::bounded(4);
/// let (first, from_first) = async_channel::bounded(4);
/// let (second, from_second) = async_channel::bounded(4);
/// let mut broadcast = broadcast(&StepContext::new("news"), source, [first]);
/// let subscribers = broadcast.subscribers();
/// let (report, ()) = join!(broadcast.into_future(), async {
///     news.send("for one").await.unwrap();
///     assert_eq!(from_first.recv().await, Ok("for one"));
///     let position = subscribers.add(second).unwrap();
///     news.send("for both").await.unwrap();
///     assert_eq!(from_second.recv().await, Ok("for both"));
///     assert!(subscribers.remove(position));
///     assert!(from_second.recv().await.is_err(), "it is closed");
///     news.close();
/// });
/// assert_eq!((report?.departed(), from_first.recv().await), (1, Ok("for both")));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub struct Subscribers<D> {
    door: Arc<Door<D>>,
}

impl<D> Subscribers<D> {
    pub(super) fn new(door: &Arc<Door<D>>) -> Self {
        door.state.lock().handles += 1;
        Self { door: Arc::clone(door) }
    }

    /// Adds a destination, which gets every item that enters the source after this has returned, and
    /// none that was taken before, but an item that has nobody left: where the last destination
    /// was removed while an item waited for room at it, the next one gets that. Returns its position: those that the broadcast was given have the
    /// first ones, from 0, and none is given twice.
    ///
    /// # Errors
    ///
    /// The destination, as [`Refused::Closed`] when the broadcast has ended, and as
    /// [`Refused::Failed`] when it runs and the destination cannot do what
    /// [`overflow`](crate::channels::Broadcast::overflow) says. (One that was added before the first
    /// poll is looked at there.)
    pub fn add<I>(&self, destination: I) -> Result<usize, Refused<D>>
    where
        I: IntoDestination<Destination = D>,
        D: Destination,
    {
        let destination = destination.into_destination();
        let makes_room = panics::contain(|| destination.makes_room());
        let (position, waker) = {
            let mut state = self.door.state.lock();
            if state.ended {
                drop(state);
                return Err(Refused::Closed(destination));
            }
            if state.drops_oldest && makes_room != Ok(true) {
                drop(state);
                let error = makes_room.err().map_or_else(
                    || Error::validation("it cannot drop its oldest item for a new one"),
                    |message| Error::panic("the destination", &message),
                );
                return Err(Refused::Failed(error, Some(destination)));
            }
            let position = state.next;
            state.next += 1;
            state.here.insert(position);
            state.arrivals.push((position, destination));
            self.door.news.store(true, Ordering::Release);
            (position, state.waker.take())
        };
        panics::wake_each(waker);
        Ok(position)
    }

    /// Takes a destination away, and says whether it was there. It gets no item that is taken after
    /// this has returned. One that it waits for room with goes to it where that can be done at once,
    /// and is otherwise counted as [missed](crate::channels::DestinationReport::missed). Then it is
    /// closed, or only flushed where the broadcast
    /// [keeps its destinations open](crate::channels::Broadcast::keep_open), while the others go on; if
    /// that fails, it is a failure of the broadcast.
    #[allow(clippy::must_use_candidate, reason = "it is called for what it does")]
    pub fn remove(&self, position: usize) -> bool {
        let waker = {
            let mut state = self.door.state.lock();
            if !state.here.remove(&position) {
                return false;
            }
            state.leaving.push(position);
            self.door.news.store(true, Ordering::Release);
            state.waker.take()
        };
        panics::wake_each(waker);
        true
    }

    /// How many destinations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.door.state.lock().here.len()
    }

    /// Whether there is no destination.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Another handle of the same broadcast.
impl<D> Clone for Subscribers<D> {
    fn clone(&self) -> Self {
        Self::new(&self.door)
    }
}

/// A broadcast without destinations hears of its last handle.
impl<D> Drop for Subscribers<D> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.door.state.lock();
            state.handles -= 1;
            if state.handles == 0 { state.waker.take() } else { None }
        };
        panics::wake_each(waker);
    }
}

impl<D> fmt::Debug for Subscribers<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribers").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The broadcast's side of the door, which ends with it.
pub(super) struct Entrance<D>(Arc<Door<D>>);

impl<D> std::ops::Deref for Entrance<D> {
    type Target = Arc<Door<D>>;

    fn deref(&self) -> &Arc<Door<D>> {
        &self.0
    }
}

impl<D> Drop for Entrance<D> {
    fn drop(&mut self) {
        panics::drop_each(self.end());
    }
}

/// What handles and the broadcast share.
pub(super) struct Door<D> {
    /// Somebody has come, or is to go.
    news: AtomicBool,
    state: Lock<SubscribersState<D>>,
}

struct SubscribersState<D> {
    /// The position of the next destination.
    next: usize,
    /// Those that are neither removed nor lost.
    here: BTreeSet<usize>,
    arrivals: Vec<(usize, D)>,
    leaving: Vec<usize>,
    handles: usize,
    /// Set when the broadcast begins.
    drops_oldest: bool,
    ended: bool,
    /// Of the broadcast.
    waker: Option<Waker>,
}

impl<D> Entrance<D> {
    /// Of a broadcast with so many destinations.
    pub(super) fn new(destinations: usize) -> Self {
        let state = SubscribersState {
            next: destinations,
            here: (0..destinations).collect(),
            arrivals: Vec::new(),
            leaving: Vec::new(),
            handles: 0,
            drops_oldest: false,
            ended: false,
            waker: None,
        };
        Self(Arc::new(Door { news: AtomicBool::new(false), state: Lock::new(state) }))
    }
}

impl<D> Door<D> {
    pub(super) fn has_news(&self) -> bool {
        self.news.load(Ordering::Acquire)
    }

    /// Who has come, in the order of their positions.
    pub(super) fn take_arrivals(&self) -> Vec<(usize, D)> {
        let mut state = self.state.lock();
        self.news.store(!state.leaving.is_empty(), Ordering::Relaxed);
        std::mem::take(&mut state.arrivals)
    }

    /// Who has come, and who is to go, perhaps of these.
    pub(super) fn take_news(&self) -> (Vec<(usize, D)>, Vec<usize>) {
        let mut state = self.state.lock();
        self.news.store(false, Ordering::Relaxed);
        (std::mem::take(&mut state.arrivals), std::mem::take(&mut state.leaving))
    }

    /// A destination was lost: it cannot be removed any more. Whether it had been already.
    pub(super) fn lose(&self, position: usize) -> bool {
        !self.state.lock().here.remove(&position)
    }

    /// Whether destinations can still come.
    pub(super) fn is_open(&self) -> bool {
        let state = self.state.lock();
        state.handles > 0 || !state.arrivals.is_empty()
    }

    /// From now on, one that cannot make room is refused.
    pub(super) fn demand_room(&self) {
        self.state.lock().drops_oldest = true;
    }

    /// Whoever comes or goes wakes `waker`. Whether somebody has by now.
    pub(super) fn wait(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let (old, news) = {
            let mut state = self.state.lock();
            let news = !state.arrivals.is_empty() || !state.leaving.is_empty();
            (state.waker.replace(waker), news)
        };
        panics::drop_each(old);
        news
    }

    /// Nobody is let in any more. Who has come, and was not taken over.
    pub(super) fn end(&self) -> Vec<(usize, D)> {
        let (arrivals, waker) = {
            let mut state = self.state.lock();
            state.ended = true;
            state.here.clear();
            (std::mem::take(&mut state.arrivals), state.waker.take())
        };
        panics::drop_each(waker);
        arrivals
    }
}
