//! What happens to a transport without being asked for.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use crate::error::{Error, ErrorCode};
use crate::lock::Lock;
use crate::panics;
use crate::settlement::Assignment;

/// What an adapter [tells](Notices::tell) the drain of its transport.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// There may be messages. A hint: a source asks by itself [as well](super::Able::asks_every).
    Ready,
    /// A partition is ours from now on, and is a source of [`Link::assigned`](super::Link::assigned).
    Assigned(Assignment),
    /// A partition is to be given up, and whoever asks waits for the answer.
    Revoked(Revocation),
    /// A partition was taken away: nothing of this generation, or of an earlier one, is settled any
    /// more.
    Lost(Assignment, Error),
    /// Something failed for a reason that passes, where no call is there to say so: joining a group, say.
    /// It is counted and told like the failure of a call; nothing else becomes of it, and where no drain
    /// listens it is forgotten.
    Trouble(Error),
    /// Something does not pass that a settlement or a renewal has found: the drain ends with it, and
    /// receipts stay what they are.
    Fault(Error),
    /// The connection is gone for good, and all its receipts with it. The drain ends with the error.
    Gone(Error),
}

/// A partition that is to be given up: a question, which is answered in any case. Dropping it answers
/// as well.
pub struct Revocation {
    pub(super) assignment: Assignment,
    pub(super) within: Option<Duration>,
    answer: Option<Box<dyn FnOnce(usize) + Send>>,
}

impl Revocation {
    /// `answer` is called once, when nothing of the partition is open any more or the time is up, with
    /// the number of its messages that were not settled. It is called while the drain is polled, and
    /// where no drain runs by whoever [tells](Notices::tell) of the revocation.
    pub fn new(assignment: Assignment, answer: impl FnOnce(usize) + Send + 'static) -> Self {
        Self { assignment, within: None, answer: Some(Box::new(answer)) }
    }

    /// How long whoever asks will wait. [`Link::revoke_within`](super::Link::revoke_within) may be
    /// shorter. Default: as long as it takes.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = Some(within);
        self
    }

    pub(super) fn answer(mut self, unsettled: usize) {
        if let Some(answer) = self.answer.take() {
            panics::drop_contained(|| answer(unsettled));
        }
    }
}

impl Drop for Revocation {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            panics::drop_contained(|| answer(0));
        }
    }
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocation")
            .field("assignment", &self.assignment)
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}

/// Where an adapter leaves what happens without being asked for: from any thread, without waiting.
/// Clones are the same place.
///
/// ```
/// use watershed::transport::{Event, Notices};
///
/// let notices = Notices::new();
/// let told_by_the_client = notices.clone();
/// told_by_the_client.tell(Event::Ready);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<Lock<NoticeInbox>>);

/// A failure that lasts is told of again and again.
const MOST_TROUBLES: usize = 16;

#[derive(Debug, Default)]
struct NoticeInbox {
    events: VecDeque<Event>,
    /// There may be messages: a hint is one however often it comes.
    ready: bool,
    /// Whether a drain listens.
    attached: bool,
    waker: Option<Waker>,
}

impl NoticeInbox {
    /// What is told of a partition that is gone is forgotten. A loss is that of earlier generations as
    /// well.
    fn forget(&mut self, gone: Assignment) {
        let is_about = |event: &Event| match event {
            Event::Assigned(given) => *given == gone,
            Event::Lost(given, _) => {
                given.partition == gone.partition && given.generation <= gone.generation
            }
            _ => false,
        };
        self.events.retain(|event| !is_about(event));
    }

    /// How many troubles a drain that is slow to hear of them finds here at most.
    fn has_room_for_trouble(&self) -> bool {
        let troubles = self.events.iter().filter(|event| matches!(event, Event::Trouble(_)));
        self.attached && troubles.count() < MOST_TROUBLES
    }

    /// A partition is given up before a drain has heard of it: whoever has a source of it has to know.
    fn give_up(&mut self, gone: Assignment) {
        self.forget(gone);
        let text = "the partition was given up while no drain ran";
        let lost = Event::Lost(gone, Error::new(ErrorCode::Source, text));
        // Before it is given again.
        self.events.push_front(lost);
    }
}

impl Notices {
    /// A place for what happens to one transport.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves an event for the drain that drives the transport, or for the next one. A revocation
    /// that no drain can hear of is answered at once.
    pub fn tell(&self, event: Event) {
        let mut inbox = self.0.lock();
        let (mut unheard, mut forgotten) = (None, None);
        match event {
            event @ Event::Trouble(_) if !inbox.has_room_for_trouble() => forgotten = Some(event),
            Event::Revoked(revocation) if !inbox.attached => {
                inbox.give_up(revocation.assignment);
                unheard = Some(revocation);
            }
            Event::Lost(gone, error) if !inbox.attached => {
                inbox.forget(gone);
                inbox.events.push_back(Event::Lost(gone, error));
            }
            Event::Ready => inbox.ready = true,
            event => inbox.events.push_back(event),
        }
        let waker = inbox.waker.take();
        drop(inbox);
        // All of it is somebody else's code.
        panics::drop_each(forgotten);
        drop(unheard);
        panics::wake_each(waker);
    }

    /// A drain begins to listen; `false` where another one does.
    pub(super) fn attach(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().attached, true)
    }

    pub(super) fn is_attached(&self) -> bool {
        self.0.lock().attached
    }

    /// The drain is gone: what it has not heard of and is a question is answered.
    pub(super) fn detach(&self) {
        let mut inbox = self.0.lock();
        inbox.attached = false;
        let waker = inbox.waker.take();
        let (unheard, rest): (VecDeque<_>, _) =
            inbox.events.drain(..).partition(|event| matches!(event, Event::Revoked(_)));
        inbox.events = rest;
        for event in &unheard {
            if let Event::Revoked(revocation) = event {
                inbox.give_up(revocation.assignment);
            }
        }
        drop(inbox);
        panics::drop_each(unheard);
        drop(waker);
    }

    /// The next event; where there is none, whoever asks is woken by it.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Option<Event> {
        let waker = cx.waker().clone();
        let mut inbox = self.0.lock();
        let hint = std::mem::take(&mut inbox.ready).then_some(Event::Ready);
        let event = hint.or_else(|| inbox.events.pop_front());
        let old = match event {
            None => inbox.waker.replace(waker),
            Some(_) => Some(waker),
        };
        drop(inbox);
        drop(old);
        event
    }
}
