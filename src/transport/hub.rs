//! A transport as its drain sees it.
//!
//! What is data is under one lock; the futures of the transport are in the driver, which is taken out
//! while it is polled, so that no code of the transport runs under a lock.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;

use super::Transport;
use super::accepts::Accepts;
use super::aside::Aside;
use super::driver::TransportDriver;
use super::ends::End;
use super::entries::{MessagePhase, OpenReceipt};
use super::events::Notices;
use super::options::LinkOptions;
use super::part::Part;
use super::state::{TransportState, no_answer};
use crate::clock::{Alarm, Clock, SystemClock};
use crate::diagnostics::trace;
use crate::error::{Error, ErrorCode};
use crate::lock::Lock;
use crate::panics;
use crate::settlement::{
    Able, BellPull, Desk, DeskBell, Facts, Given, Key, News, Settled, Settlements, Tag, Verdict,
};
use crate::sync::MutexGuard;

pub(super) struct Hub<T: Transport> {
    transport: Arc<T>,
    pub(super) notices: Notices,
    able: Able,
    state: Lock<TransportState<T>>,
    /// How many handlers have settled by themselves, of whom the drain has not heard: nearly always
    /// none, so that nobody takes the lock to ask.
    hands: AtomicUsize,
    accepts: Accepts,
    bell: BellPull,
    /// Out while it is polled.
    driver: Lock<Option<Box<TransportDriver<T>>>>,
    /// That of the drain's context.
    clock: Lock<Arc<dyn Clock>>,
}

impl<T: Transport> Hub<T> {
    pub(super) fn new(transport: T) -> Arc<Self> {
        let (able, notices) = (transport.able(), transport.notices());
        Arc::new(Self {
            transport: Arc::new(transport),
            notices,
            able,
            state: Lock::new(TransportState::new(able)),
            hands: AtomicUsize::new(0),
            accepts: Accepts::default(),
            bell: BellPull::default(),
            driver: Lock::new(Some(Box::default())),
            clock: Lock::new(Arc::new(SystemClock::new())),
        })
    }

    pub(super) fn transport(&self) -> &Arc<T> {
        &self.transport
    }

    pub(super) fn able(&self) -> &Able {
        &self.able
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock.lock())
    }

    /// The state, with all that was accepted so far.
    #[inline]
    fn lock(&self) -> MutexGuard<'_, TransportState<T>> {
        let mut state = self.state.lock();
        self.accepts.take_each(|number| state.accept(number));
        state
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut LinkOptions)) {
        change(&mut self.lock().options);
    }

    /// Changes what handlers have settled by themselves, and counts them.
    fn change_by_hand<R>(&self, change: impl FnOnce(&mut TransportState<T>) -> R) -> R {
        self.change(|state| {
            let result = change(state);
            self.hands.store(state.by_hand.len(), Ordering::Release);
            result
        })
    }

    fn any_by_hand(&self) -> bool {
        self.hands.load(Ordering::Acquire) > 0
    }

    /// Looks at the state under its lock.
    pub(super) fn look<R>(&self, look: impl FnOnce(&TransportState<T>) -> R) -> R {
        look(&self.lock())
    }

    /// Changes the state under its lock, and does afterwards what is somebody else's code.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut TransportState<T>) -> R) -> R {
        self.change_in_turn(|state| {
            let result = change(state);
            self.bell.pull();
            result
        })
    }

    /// The same for the driver, which sees what it has changed by itself.
    pub(super) fn change_in_turn<R>(&self, change: impl FnOnce(&mut TransportState<T>) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state);
        if state.aside.is_empty() {
            return result;
        }
        let aside = std::mem::take(&mut state.aside);
        drop(state);
        Self::put_away(aside);
        result
    }

    #[inline(never)]
    fn put_away(aside: Aside<T>) {
        let Aside { wakers, old_wakers, messages, receipts, parts, errors } = aside;
        panics::drop_each(old_wakers);
        panics::drop_each(messages);
        panics::drop_each(receipts);
        panics::drop_each(parts);
        errors.iter().for_each(trace::trouble);
        panics::drop_each(errors);
        panics::wake_each(wakers);
    }

    /// The adapter's code has panicked, and the drain ends with it.
    pub(super) fn blame(&self, what: &str, text: &str) {
        let fault = News::Fault(Error::panic(what, text));
        self.change(|state| {
            state.news.push_back(fault);
            state.wake_driver();
        });
    }

    async fn within<R>(&self, within: Duration, future: impl Future<Output = R>) -> Option<R> {
        let clock = self.clock();
        let mut alarm = Alarm::at(&clock, clock.now() + within);
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => alarm.poll(cx).map(|()| None),
        })
        .await
    }
}

impl<T: Transport> Desk for Hub<T> {
    fn able(&self) -> Able {
        self.able
    }

    fn attach(
        &self,
        bell: &Arc<DeskBell>,
        clock: &Arc<dyn Clock>,
        message_timeout: Option<Duration>,
        budget: Duration,
    ) -> Result<(), Error> {
        self.lock().options.check()?;
        clock.check()?;
        if self.able.leases && !self.able.renews && message_timeout.is_none() {
            let text = "a transport whose leases cannot be renewed needs a `message_timeout`";
            return Err(Error::validation(text));
        }
        if let Some(text) = self.look(|state| state.misused) {
            return Err(Error::validation(text));
        }
        panics::contain(|| self.transport.open())
            .unwrap_or_else(|text| Err(Error::panic("the transport", &text)))?;
        if !self.notices.attach() {
            return Err(Error::validation("the transport is used by another drain"));
        }
        let earlier = std::mem::replace(&mut *self.clock.lock(), Arc::clone(clock));
        panics::drop_each([earlier]);
        self.bell.hang(Some(Arc::clone(bell)));
        self.change(|state| {
            (state.stopped, state.detached) = (false, false);
            state.news.clear();
            state.counts = Settlements { desks: 1, ..Settlements::default() };
            state.gathers = false;
            state.budget = budget;
            state.least_lease = message_timeout.unwrap_or(Duration::ZERO);
            state.failing = 0;
            state.parts.values_mut().for_each(Part::begin);
        });
        Ok(())
    }

    fn detach(&self) -> Vec<(Key, Option<Tag>)> {
        self.notices.detach();
        self.bell.hang(None);
        let driver = self.driver.lock().replace(Box::default());
        let (not_sent, revocations) = self.change(TransportState::detach);
        panics::drop_each(driver);
        panics::drop_each(revocations);
        not_sent
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<News> {
        self.bell.is_heard();
        let Some(mut driver) = self.driver.lock().take() else { return Poll::Pending };
        let polled = driver.poll(self, cx);
        *self.driver.lock() = Some(driver);
        polled
    }

    fn stop(&self) {
        self.change(TransportState::stop);
    }

    fn is_quiet(&self) -> bool {
        self.lock().is_quiet()
    }

    fn is_idle(&self) -> bool {
        self.lock().is_idle()
    }

    fn give(&self, key: Key, verdict: Verdict, given: Given) {
        let Some((part, failures)) = self.change(|state| state.give(key, verdict, given)) else {
            return;
        };
        let (_, policy) = self.lock().options.slow_down.clone();
        match panics::contain(|| self.clock().now() + policy.delay_after(failures)) {
            Ok(until) => self.change(|state| state.slow_down(part, until)),
            Err(text) => self.blame("the retry policy", &text),
        }
        panics::drop_each([policy]);
    }

    #[inline]
    fn accept(&self, key: Key) -> bool {
        let is_left = !self.any_by_hand() && self.accepts.leave(key);
        if is_left {
            self.bell.pull();
        }
        is_left
    }

    fn by_hand(&self, key: Key, outcome: Option<Settled>) {
        panics::drop_each(self.change_by_hand(|state| state.set_by_hand(key, outcome)));
    }

    fn is_by_hand(&self, key: Key) -> bool {
        self.any_by_hand() && self.look(|state| state.by_hand.contains_key(&key))
    }

    #[inline]
    fn take_by_hand(&self, key: Key) -> Option<Settled> {
        if !self.any_by_hand() {
            return None;
        }
        self.change_by_hand(|state| state.by_hand.remove(&key))
    }

    fn settled_by_hand(&self, key: Key, outcome: &Settled) {
        self.change(|state| state.settled_by_hand(key, End::of(outcome)));
    }

    fn abandon(&self, key: Key) {
        panics::drop_each(self.take_by_hand(key));
        self.change(|state| state.abandon(key));
    }

    fn keep(&self, key: Key) {
        panics::drop_each(self.take_by_hand(key));
        self.change(|state| {
            if let Some(entry) = state.entries.get_mut(key) {
                // In prefix order whoever reads next goes on from there.
                if let Some(receipt) = if state.able.prefix { None } else { entry.share() } {
                    state.kept.insert(key, receipt);
                }
                state.abandon(key);
            }
        });
    }

    fn release_kept(self: Arc<Self>, key: Key) -> BoxFuture<'static, Settled> {
        Box::pin(async move {
            let kept = self.change(|state| {
                Some((state.kept.get(&key).cloned()?, state.options.settle_within))
            });
            let Some((receipt, within)) = kept else {
                let text = "the receipt is no longer ours";
                return Settled::Lost(Error::new(ErrorCode::Source, text));
            };
            let batch = vec![(T::Receipt::clone(&receipt), Verdict::UNDONE)];
            let settled = self.within(within, self.transport.settle(batch)).await;
            let settled = settled.and_then(|mut settled| settled.pop());
            let settled = settled.unwrap_or_else(|| Settled::Unknown(no_answer()));
            if !matches!(settled, Settled::Refused(_)) {
                self.forget_kept(key);
            }
            settled
        })
    }

    fn forget_kept(&self, key: Key) {
        let receipt = self.lock().kept.remove(&key);
        panics::drop_each(receipt);
    }

    fn gathers(&self) {
        self.lock().gathers = true;
    }

    fn largest_window(&self) -> usize {
        let options = &self.lock().options;
        let ahead = if self.able.prefix { options.max_ahead } else { usize::MAX };
        options.max_unsettled.min(ahead).min(self.able.prefetch)
    }

    fn is_asked_back(&self, key: Key) -> bool {
        self.lock().is_asked_back(key)
    }

    fn is_ours(&self, key: Key) -> bool {
        let now = self.clock().now();
        self.lock().is_ours(key, now)
    }

    fn recalls(&self) -> u64 {
        self.lock().recalls
    }

    fn may_begin(&self, key: Key) -> bool {
        let now = self.clock().now();
        self.change(|state| {
            let goes_back = state.is_asked_back(key) || state.group_goes_back(key);
            state.is_ours(key, now) && !goes_back && state.has_time(key, now)
        })
    }

    fn has_time(&self, key: Key) -> bool {
        let now = self.clock().now();
        self.change(|state| state.has_time(key, now))
    }

    fn facts(&self, key: Key) -> Facts {
        let state = self.lock();
        let lost = || state.lost_in_work.facts(key);
        state.entries.get(key).map(OpenReceipt::facts).or_else(lost).cloned().unwrap_or_default()
    }

    fn receipt(&self, key: Key) -> Option<Box<dyn Any + Send>> {
        let receipt = {
            let mut state = self.lock();
            let entry = state.entries.get_mut(key)?;
            let is_open = matches!(entry.phase, MessagePhase::Taken | MessagePhase::ByHand);
            if is_open { entry.share()? } else { return None }
        };
        Some(Box::new(T::Receipt::clone(&receipt)))
    }

    fn is_used(&self) -> bool {
        let state = self.lock();
        state.sources > 0 || !state.kept.is_empty()
    }

    fn close(self: Arc<Self>) -> BoxFuture<'static, Result<(), Error>> {
        let within = self.lock().options.settle_within;
        Box::pin(async move {
            let closed = self.within(within, self.transport.close()).await;
            closed.unwrap_or_else(|| Err(Error::timeout("closing the transport", within)))
        })
    }

    fn settlements(&self) -> Settlements {
        self.lock().counts
    }
}

impl<T: Transport> fmt::Debug for Hub<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("able", &self.able).finish_non_exhaustive()
    }
}
