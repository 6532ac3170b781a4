//! Order by key within one source, and concurrency between its keys.
//!
//! A drain has as many handles on one source as messages of it may be handled at once. Whichever
//! handle is free takes the next message. When its key belongs to a message that is still being
//! handled, it waits here, before all others, and nothing more is taken from the source: so the
//! order within a key is that of the source. A handle that asks for a message again has done with
//! its last one, and frees its key.
//!
//! The source knows the waker of one handle, the one that asked last. When that one gets a message
//! it wakes another, which asks in its place.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::source::Source;
use crate::error::Error;
use crate::lock::Lock;
use crate::panics;
use crate::waiters::Waiters;

/// A source whose messages are handled in order by key, see
/// [`FanIn::ordered_by`](crate::FanIn::ordered_by).
///
/// ```
/// # futures::executor::block_on(async {
/// use std::num::NonZeroUsize;
/// use futures::stream;
/// use watershed::{BoxError, StepContext, fan_in};
///
/// let context = StepContext::new("payments");
/// let payments = stream::iter([("ann", 1), ("bob", 2), ("ann", 3)]);
/// let report = fan_in(&context, [payments], |_, _| async { Ok::<_, BoxError>(()) })
///     .concurrency(NonZeroUsize::new(8).unwrap())
///     .ordered_by(|(account, _)| *account)
///     .await?;
/// assert_eq!(report.handled(), 3);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a source does nothing unless it is drained"]
pub struct Ordered<S: Source, K, F> {
    shared: Arc<Shared<S, K, F>>,
    /// The key of the message that this handle has yielded last.
    key: Option<Arc<K>>,
    number: u64,
    waiter: Option<u64>,
}

struct Shared<S: Source, K, F> {
    name: Option<Arc<str>>,
    weight: NonZeroU32,
    priority: u32,
    /// Taken out by the handle that works at it: no user code runs under the lock.
    desk: Lock<Option<Box<Desk<S, K, F>>>>,
    waiters: Lock<Waiters>,
}

struct Desk<S: Source, K, F> {
    source: Option<Pin<Box<S>>>,
    key_of: F,
    /// The keys of the messages that are being handled.
    busy: HashSet<Arc<K>>,
    held: Option<Held<S::Message, K>>,
    taken: u64,
    put_back: Option<PutBack<S::Message>>,
}

/// Whom to give a message that was taken and not handled.
pub(super) type PutBack<M> = Box<dyn FnMut(M) + Send>;

/// A message that waits for its key.
struct Held<M, K> {
    message: M,
    key: Arc<K>,
    number: u64,
}

impl<S, K, F> Ordered<S, K, F>
where
    S: Source,
    K: Eq + Hash,
    F: FnMut(&S::Message) -> K,
{
    pub(super) fn new(source: S, key_of: F) -> Self {
        let shared = Shared {
            name: source.name(),
            weight: source.weight(),
            priority: source.priority(),
            waiters: Lock::default(),
            desk: Lock::new(Some(Box::new(Desk {
                source: Some(Box::pin(source)),
                key_of,
                busy: HashSet::new(),
                held: None,
                taken: 0,
                put_back: None,
            }))),
        };
        Self { shared: Arc::new(shared), key: None, number: 0, waiter: None }
    }

    pub(super) fn set_put_back(&self, put_back: PutBack<S::Message>) {
        if let Some(desk) = self.shared.desk.lock().as_mut() {
            desk.put_back = Some(put_back);
        }
    }

    fn ask(&mut self, desk: &mut Desk<S, K, F>, cx: &mut Context<'_>) -> Poll<Asked<S::Message>> {
        if let Some(key) = self.key.take() {
            desk.busy.remove(&key);
        }
        if desk.held.is_none() {
            let Some(source) = &mut desk.source else { return Poll::Ready(None) };
            match source.as_mut().poll_message(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    desk.taken += 1;
                    let key = match panics::contain(|| (desk.key_of)(&message)) {
                        Ok(key) => Arc::new(key),
                        Err(text) => {
                            desk.put_back(message);
                            return Poll::Ready(Some(Err(Error::panic("the key", &text))));
                        }
                    };
                    desk.held = Some(Held { message, key, number: desk.taken });
                }
                Poll::Ready(Some(Err(fault))) => return Poll::Ready(Some(Err(fault))),
                Poll::Ready(None) => {
                    desk.source = None;
                    return Poll::Ready(None);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        match desk.held.take_if(|held| desk.busy.insert(Arc::clone(&held.key))) {
            Some(Held { message, key, number }) => {
                self.key = Some(key);
                self.number = number;
                Poll::Ready(Some(Ok(message)))
            }
            None => Poll::Pending,
        }
    }
}

type Asked<M> = Option<Result<M, Error>>;

impl<S, K, F> Source for Ordered<S, K, F>
where
    S: Source,
    K: Eq + Hash,
    F: FnMut(&S::Message) -> K,
{
    type Message = S::Message;

    fn poll_message(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<S::Message, Error>>> {
        let this = self.get_mut();
        let Some(mut desk) = this.shared.desk.lock().take() else { return Poll::Pending };
        let asked = panics::contain(|| this.ask(&mut desk, cx));
        *this.shared.desk.lock() = Some(desk);
        match asked {
            Ok(Poll::Pending) => {
                // The handles of a drain ask one after another: nothing has changed since.
                let waker = cx.waker().clone();
                let old = this.shared.waiters.lock().wait(&mut this.waiter, waker);
                drop(old);
                Poll::Pending
            }
            Ok(Poll::Ready(Some(asked))) => {
                this.forget_waiter();
                // Another handle asks in the place of this one.
                let next = this.shared.waiters.lock().take_first();
                panics::wake_each(next);
                Poll::Ready(Some(asked))
            }
            // The others hear of the end when this handle goes away.
            Ok(Poll::Ready(None)) => Poll::Ready(None),
            Err(message) => Poll::Ready(Some(Err(Error::panic("the source or a key", &message)))),
        }
    }

    fn name(&self) -> Option<Arc<str>> {
        self.shared.name.clone()
    }

    fn weight(&self) -> NonZeroU32 {
        self.shared.weight
    }

    fn priority(&self) -> u32 {
        self.shared.priority
    }

    fn number(&self) -> Option<u64> {
        Some(self.number)
    }

    fn another_handle(&self) -> Option<Self> {
        Some(Self { shared: Arc::clone(&self.shared), key: None, number: 0, waiter: None })
    }
}

impl<S: Source, K, F> Ordered<S, K, F> {
    fn forget_waiter(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            let old = self.shared.waiters.lock().remove(waiter);
            drop(old);
        }
    }
}

/// The others ask in the place of a handle that goes away: its source has ended, most likely.
impl<S: Source, K, F> Drop for Ordered<S, K, F> {
    fn drop(&mut self) {
        self.forget_waiter();
        let woken = self.shared.waiters.lock().take();
        panics::wake_each(woken.into_values());
    }
}

/// The message that waits when the last handle goes away was taken and not handled.
impl<S: Source, K, F> Drop for Desk<S, K, F> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.put_back(held.message);
        }
    }
}

impl<S: Source, K, F> Desk<S, K, F> {
    /// Hands a message out that will not be handled.
    fn put_back(&mut self, message: S::Message) {
        panics::drop_contained(|| match &mut self.put_back {
            Some(put_back) => put_back(message),
            None => drop(message),
        });
    }
}

impl<S: Source, K, F> fmt::Debug for Ordered<S, K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ordered").field("name", &self.shared.name).finish_non_exhaustive()
    }
}
