//! A source that a test fills, wakes and closes by hand, and gates for handlers.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use futures::Stream;

use super::Gate;

/// A source that is filled, woken and closed by hand, and tells how it is used. Clones are the same
/// source.
#[derive(Debug)]
pub struct Fed<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
    waker: Option<Waker>,
    polls: usize,
    taken: usize,
    ended: bool,
    polls_after_end: usize,
    drops: usize,
}

impl<T> Fed<T> {
    /// One that may be given more.
    pub fn open(items: impl IntoIterator<Item = T>) -> Self {
        Self(Arc::new(Mutex::new(State {
            items: items.into_iter().collect(),
            closed: false,
            waker: None,
            polls: 0,
            taken: 0,
            ended: false,
            polls_after_end: 0,
            drops: 0,
        })))
    }

    /// One that ends behind these.
    pub fn closed(items: impl IntoIterator<Item = T>) -> Self {
        let fed = Self::open(items);
        fed.state().closed = true;
        fed
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().expect("no panic under the lock")
    }

    /// The source, for a drain.
    pub fn source(&self) -> FedSource<T> {
        FedSource(Self(Arc::clone(&self.0)))
    }

    pub fn push(&self, item: T) {
        self.state().items.push_back(item);
        self.wake();
    }

    pub fn close(&self) {
        self.state().closed = true;
        self.wake();
    }

    /// Wakes whoever polled it last, for whatever reason.
    pub fn wake(&self) {
        let waker = self.state().waker.clone();
        waker.into_iter().for_each(Waker::wake);
    }

    pub fn polls(&self) -> usize {
        self.state().polls
    }

    pub fn taken(&self) -> usize {
        self.state().taken
    }

    pub fn polls_after_end(&self) -> usize {
        self.state().polls_after_end
    }

    /// How many sources of it have been dropped.
    pub fn drops(&self) -> usize {
        self.state().drops
    }

    /// What is left, taken out.
    pub fn left(&self) -> Vec<T> {
        self.state().items.drain(..).collect()
    }
}

impl<T> Clone for Fed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What a drain is given of a [`Fed`].
#[derive(Debug)]
pub struct FedSource<T>(Fed<T>);

impl<T> Stream for FedSource<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.state();
        state.polls += 1;
        state.polls_after_end += usize::from(state.ended);
        if let Some(item) = state.items.pop_front() {
            state.taken += 1;
            return Poll::Ready(Some(item));
        }
        if state.closed {
            state.ended = true;
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for FedSource<T> {
    fn drop(&mut self) {
        if let Ok(mut state) = self.0.0.lock() {
            state.drops += 1;
        }
    }
}

/// A gate for each key.
#[derive(Debug)]
pub struct Gates<K>(Arc<Mutex<HashMap<K, Gate>>>);

impl<K> Default for Gates<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Clone for Gates<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Eq + Hash> Gates<K> {
    pub fn of(&self, key: K) -> Gate {
        self.0.lock().expect("no panic under the lock").entry(key).or_default().clone()
    }

    pub fn open(&self, key: K) {
        self.of(key).open();
    }

    pub async fn wait(&self, key: K) {
        let gate = self.of(key);
        gate.wait().await;
    }
}
