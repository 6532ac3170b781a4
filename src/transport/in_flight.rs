//! Calls that are with the transport, each with the moment at which it is given up.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable};
use futures::stream::FuturesUnordered;

use crate::clock::Tick;
use crate::panics;

/// How a call has ended.
pub(super) enum EndedCall<R> {
    Answered(R),
    /// There was no answer in time.
    Late,
    Panicked(String),
}

/// One call: whatever becomes of it, what it is about is told.
struct Call<A, F> {
    key: (Tick, u64),
    about: Option<A>,
    /// There until it has ended.
    future: Option<Abortable<F>>,
}

/// What it is about is never pinned.
impl<A, F: Unpin> Unpin for Call<A, F> {}

impl<A, F: Future + Unpin> Future for Call<A, F> {
    type Output = ((Tick, u64), Option<A>, EndedCall<F::Output>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { key, about, future } = &mut *self;
        let polled = panics::contain(|| match future {
            Some(future) => Pin::new(future).poll(cx),
            None => Poll::Pending,
        });
        let ended = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(answer))) => EndedCall::Answered(answer),
            Ok(Poll::Ready(Err(_))) => EndedCall::Late,
            Err(text) => EndedCall::Panicked(text),
        };
        panics::drop_each(future.take());
        Poll::Ready((*key, about.take(), ended))
    }
}

/// A call that is dropped in flight is the transport's code as well.
impl<A, F> Drop for Call<A, F> {
    fn drop(&mut self) {
        panics::drop_each(self.future.take());
    }
}

/// Calls, each about something: only those that were woken are polled.
pub(super) struct InFlight<A, F: Future + Unpin> {
    calls: FuturesUnordered<Call<A, F>>,
    /// Those that were answered at once.
    ended: VecDeque<(A, EndedCall<F::Output>)>,
    deadlines: BTreeMap<(Tick, u64), AbortHandle>,
    made: u64,
}

impl<A, F: Future + Unpin> Default for InFlight<A, F> {
    fn default() -> Self {
        Self {
            calls: FuturesUnordered::new(),
            ended: VecDeque::new(),
            deadlines: BTreeMap::new(),
            made: 0,
        }
    }
}

/// Polls a call that has just begun. `None`: it has to wait.
fn ended_at_once<F: Future + Unpin>(
    call: &mut F,
    cx: &mut Context<'_>,
) -> Option<EndedCall<F::Output>> {
    match panics::contain(|| Pin::new(call).poll(cx)) {
        Ok(Poll::Pending) => None,
        Ok(Poll::Ready(answer)) => Some(EndedCall::Answered(answer)),
        Err(text) => Some(EndedCall::Panicked(text)),
    }
}

impl<A, F: Future + Unpin> InFlight<A, F> {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.ended.is_empty()
    }

    /// When the first of them is given up.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.deadlines.first_key_value().map(|((at, _), _)| *at)
    }

    /// Begins a call. One that is answered at once is not kept.
    pub(super) fn push(&mut self, about: A, deadline: Tick, mut call: F, cx: &mut Context<'_>) {
        let Some(ended) = ended_at_once(&mut call, cx) else {
            return self.keep(about, deadline, call);
        };
        panics::drop_each([call]);
        self.ended.push_back((about, ended));
    }

    /// Keeps a call that has to wait.
    pub(super) fn keep(&mut self, about: A, deadline: Tick, call: F) {
        self.made += 1;
        let key = (deadline, self.made);
        let (handle, registration) = AbortHandle::new_pair();
        self.deadlines.insert(key, handle);
        let future = Some(Abortable::new(call, registration));
        self.calls.push(Call { key, about: Some(about), future });
    }

    /// The next one that has ended.
    pub(super) fn poll(
        &mut self,
        now: Tick,
        cx: &mut Context<'_>,
    ) -> Option<(A, EndedCall<F::Output>)> {
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
