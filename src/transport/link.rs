//! A transport that is connected.

use std::fmt;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::stream::{self, Stream};

use super::Transport;
use super::hub::Hub;
use super::options::LinkOptions;
use super::source::TransportSource;
use crate::retry::RetryPolicy;
use crate::settlement::Assignment;

/// A transport that is connected: it makes sources of it, and outlives them, so that one drain after
/// another can use it, if the transport [can be used](Transport::open) again.
///
/// | option | default |
/// | --- | --- |
/// | [`settle_within`](Link::settle_within) | 30 seconds |
/// | [`max_unsettled`](Link::max_unsettled) | 1,024 verdicts |
/// | [`max_ahead`](Link::max_ahead) | 1,024 messages |
/// | [`max_deliveries`](Link::max_deliveries) | no limit |
/// | [`revoke_within`](Link::revoke_within) | as long as whoever asks waits |
/// | [`unreachable_for`](Link::unreachable_for) | for ever |
/// | [`slow_down_after`](Link::slow_down_after) | 10 failures, 100 ms doubled up to 30 s |
///
/// An option of 0 is [`ErrorCode::Validation`](crate::ErrorCode::Validation) before anything is
/// fetched, but for `revoke_within`: a partition is given up at once.
pub struct Link<T: Transport> {
    hub: Arc<Hub<T>>,
}

impl<T: Transport> Link<T> {
    /// Connects a transport to whichever drain has its sources.
    ///
    /// # Panics
    ///
    /// Where [`Transport::able`] or [`Transport::notices`] does.
    pub fn new(transport: T) -> Self {
        Self { hub: Hub::new(transport) }
    }

    /// The transport itself.
    #[must_use]
    pub fn transport(&self) -> &T {
        self.hub.transport()
    }

    /// A source of a transport without partitions. Several are several fetches at once. Where the
    /// transport [assigns](super::Able::assigns) partitions, its drain ends with
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation).
    pub fn source(&self) -> TransportSource<T> {
        self.hub.source()
    }

    /// A source of one partition that this process has by itself.
    pub fn partition(&self, assignment: Assignment) -> TransportSource<T> {
        TransportSource::open(&self.hub, assignment)
    }

    /// The partitions as they are [assigned](super::Event::Assigned), for
    /// [`FanIn::incoming`](crate::FanIn::incoming); the first source of it stands for the transport
    /// itself, so that it is driven before there is a partition, and brings no message. Where the
    /// transport [assigns](super::Able::assigns) none, its drain ends with
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation).
    pub fn assigned(&self) -> impl Stream<Item = TransportSource<T>> + Send + use<T> {
        let (keeper, assigned) = self.hub.assigned();
        stream::select(stream::iter([keeper]), assigned)
    }

    /// How long a settlement, a renewal and the closing may take. One without an answer by then is
    /// [unknown](super::Settled::Unknown), a renewal is tried again, and so long a settlement that is
    /// [refused](super::Settled::Refused) is sent again.
    #[must_use]
    pub fn settle_within(self, within: Duration) -> Self {
        self.with(|options| options.settle_within = within)
    }

    /// How many verdicts may be without an outcome; then no message is taken.
    #[must_use]
    pub fn max_unsettled(self, verdicts: usize) -> Self {
        self.with(|options| options.max_unsettled = verdicts)
    }

    /// In prefix order: how many messages of a partition may be taken behind one that is not done.
    #[must_use]
    pub fn max_ahead(self, messages: usize) -> Self {
        self.with(|options| options.max_ahead = messages)
    }

    /// A message that was delivered more often goes to the dead letters without its handler being
    /// called, where the transport [counts](super::Able::counts). One at the limit is handled while
    /// nothing else of its source is: others may have ended the process each time. (Not where its
    /// messages are gathered in windows, nor with a limit of 1.)
    #[must_use]
    pub fn max_deliveries(self, deliveries: u32) -> Self {
        self.with(|options| options.max_deliveries = Some(deliveries))
    }

    /// How long messages of a partition that is to be given up may take.
    #[must_use]
    pub fn revoke_within(self, within: Duration) -> Self {
        self.with(|options| options.revoke_within = Some(within))
    }

    /// How long the transport may be in [trouble that passes](super::Trouble::Passes), before the drain
    /// ends with it.
    #[must_use]
    pub fn unreachable_for(self, time: Duration) -> Self {
        self.with(|options| options.unreachable_for = Some(time))
    }

    /// After so many messages of one source in a row have failed, the next one is taken only when
    /// `policy` says so, and so on until one is handled: a dependency that is broken does not turn a
    /// queue into a storm of redeliveries.
    #[must_use]
    pub fn slow_down_after(self, failures: u32, policy: RetryPolicy) -> Self {
        self.with(|options| options.slow_down = (failures, policy))
    }

    fn with(self, change: impl FnOnce(&mut LinkOptions)) -> Self {
        self.hub.set(change);
        self
    }
}

impl<T: Transport> fmt::Debug for Link<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl<T: Transport> Hub<T> {
    /// A source of a transport that assigns no partitions.
    fn source(self: &Arc<Self>) -> TransportSource<T> {
        if self.able().assigns {
            let text = "partitions of this transport are assigned: `.incoming(link.assigned())`";
            self.change(|state| state.misused = Some(text));
        }
        TransportSource::open(self, Assignment::default())
    }

    /// The source that stands for the transport, and the partitions that are assigned to it.
    fn assigned(
        self: &Arc<Self>,
    ) -> (TransportSource<T>, impl Stream<Item = TransportSource<T>> + Send + use<T>) {
        let (keeper, number) = self.change(|state| {
            let keeper = state.add_keeper();
            if !state.able.assigns {
                let text = "this transport assigns no partitions: its sources are `link.source()`";
                state.misused = Some(text);
            }
            state.assign_again();
            (keeper, state.add_source(keeper))
        });
        let keeper = TransportSource::new(self, keeper, number);
        let hub = Arc::clone(self);
        let assigned = futures::stream::poll_fn(move |cx| hub.poll_assigned(cx.waker()));
        (keeper, assigned)
    }

    fn poll_assigned(self: &Arc<Self>, waker: &Waker) -> Poll<Option<TransportSource<T>>> {
        let waker = waker.clone();
        let part = self.change(|state| match state.next_assigned() {
            Some(part) => Poll::Ready(Some((part, state.add_source(part)))),
            None if state.stopped => Poll::Ready(None),
            None => {
                state.aside.old_wakers.extend(state.assigned_waker.replace(waker));
                Poll::Pending
            }
        });
        part.map(|part| part.map(|(part, number)| TransportSource::new(self, part, number)))
    }
}
