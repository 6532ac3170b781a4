//! Calls that are with the transport, each with the moment at which it is given up.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable, BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;

use crate::clock::Tick;
use crate::panics;

/// How a call has ended.
pub(super) enum Ended<R> {
    Answered(R),
    /// There was no answer in time.
    Late,
    Panicked(String),
}

/// One call: whatever becomes of it, what it is about is told.
struct Call<A, R> {
    key: (Tick, u64),
    about: Option<A>,
    /// There until it has ended.
    future: Option<Abortable<BoxFuture<'static, R>>>,
}

impl<A: Unpin, R> Future for Call<A, R> {
    type Output = ((Tick, u64), Option<A>, Ended<R>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { key, about, future } = &mut *self;
        let polled = panics::contain(|| match future {
            Some(future) => Pin::new(future).poll(cx),
            None => Poll::Pending,
        });
        let ended = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(answer))) => Ended::Answered(answer),
            Ok(Poll::Ready(Err(_))) => Ended::Late,
            Err(text) => Ended::Panicked(text),
        };
        panics::drop_each(future.take());
        Poll::Ready((*key, about.take(), ended))
    }
}

/// A call that is dropped in flight is the transport's code as well.
impl<A, R> Drop for Call<A, R> {
    fn drop(&mut self) {
        panics::drop_each(self.future.take());
    }
}

/// Calls, each about something: only those that were woken are polled.
pub(super) struct InFlight<A, R> {
    calls: FuturesUnordered<Call<A, R>>,
    /// Those that were answered at once.
    ended: VecDeque<(A, Ended<R>)>,
    deadlines: BTreeMap<(Tick, u64), AbortHandle>,
    made: u64,
}

impl<A, R> Default for InFlight<A, R> {
    fn default() -> Self {
        Self {
            calls: FuturesUnordered::new(),
            ended: VecDeque::new(),
            deadlines: BTreeMap::new(),
            made: 0,
        }
    }
}

impl<A: Unpin, R> InFlight<A, R> {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.ended.is_empty()
    }

    /// When the first of them is given up.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.deadlines.first_key_value().map(|((at, _), _)| *at)
    }

    /// Begins a call. One that is answered at once is not kept: that is half of its price where each
    /// message is a call.
    pub(super) fn push(
        &mut self,
        about: A,
        deadline: Tick,
        call: impl Future<Output = R> + Send + 'static,
        cx: &mut Context<'_>,
    ) {
        let mut call = call.boxed();
        let ended = match panics::contain(|| call.as_mut().poll(cx)) {
            Ok(Poll::Pending) => return self.keep(about, deadline, call),
            Ok(Poll::Ready(answer)) => Ended::Answered(answer),
            Err(text) => Ended::Panicked(text),
        };
        panics::drop_each([call]);
        self.ended.push_back((about, ended));
    }

    fn keep(&mut self, about: A, deadline: Tick, call: BoxFuture<'static, R>) {
        self.made += 1;
        let key = (deadline, self.made);
        let (handle, registration) = AbortHandle::new_pair();
        self.deadlines.insert(key, handle);
        let future = Some(Abortable::new(call, registration));
        self.calls.push(Call { key, about: Some(about), future });
    }

    /// The next one that has ended.
    pub(super) fn poll(&mut self, now: Tick, cx: &mut Context<'_>) -> Option<(A, Ended<R>)> {
        if let Some(ended) = self.ended.pop_front() {
            return Some(ended);
        }
        while let Some(first) = self.deadlines.first_entry().filter(|first| first.key().0 <= now) {
            first.remove().abort();
        }
        let Poll::Ready(Some((key, about, ended))) = self.calls.poll_next_unpin(cx) else {
            return None;
        };
        self.deadlines.remove(&key);
        Some((about?, ended))
    }
}
