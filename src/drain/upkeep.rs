//! The transports of a drain: driven with it, and closed at its end.
//!
//! Verdicts are sent and leases renewed whatever the handlers do: at the start of each poll, before
//! messages are taken, and behind them, at those transports that have anything to do
//! (`settlement::bell`). At the end of the drain fetching stops, what was not taken is released,
//! everything that is open is settled, and the transports of which no source is left are closed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::future::BoxFuture;

use super::order::Order;
use super::running::RunningDrain;
use super::settings::Commit;
use super::state::{DrainPhase, State};
use super::types::Drains;
use crate::clock::Alarm;
use crate::error::Error;
use crate::panics;
use crate::settlement::{
    Desk, DeskBell, DeskBells, Given, Key, News, Settlements, Tag, Ticket, Verdict,
};
use crate::source::Profile;

/// The transports of a drain.
#[derive(Default)]
pub(super) struct Desks {
    /// Each with its bell.
    all: Vec<(Arc<dyn Desk>, Arc<DeskBell>)>,
    /// Where they are in memory, and whether their messages are gathered in windows: one is attached once,
    /// however many sources it has.
    known: HashMap<usize, bool>,
    bells: Arc<DeskBells>,
    /// Those that are being looked at.
    rung: Vec<usize>,
    closing: Option<Closing>,
}

/// A drain whose messages have ended.
struct Closing {
    result: Result<(), Error>,
    /// When what is open is given up.
    budget: Option<Alarm>,
    /// Nothing is open any more, and these are being closed.
    ends: Option<Vec<BoxFuture<'static, Result<(), Error>>>>,
}

impl Desks {
    /// One that was rung, and the waker that rings it again.
    fn hear(&self, at: usize) -> Option<(Arc<dyn Desk>, Waker)> {
        let (desk, bell) = self.all.get(at)?;
        bell.is_heard();
        Some((Arc::clone(desk), Waker::from(Arc::clone(bell))))
    }

    fn each(&self) -> impl Iterator<Item = &Arc<dyn Desk>> {
        self.all.iter().map(|(desk, _)| desk)
    }
}

impl<C: Drains> RunningDrain<C> {
    /// Takes in the transports of a source.
    ///
    /// # Errors
    ///
    /// Where one of them cannot be used by this drain.
    pub(super) fn attach(&mut self, state: &mut State<C>, profile: &Profile) -> Result<(), Error> {
        for desk in &profile.desks {
            let address = Arc::as_ptr(desk).addr();
            match self.transports.known.get(&address).copied() {
                None => {
                    self.attach_one(desk, state, profile)?;
                    self.transports.known.insert(address, profile.gathers);
                }
                Some(gathers) if profile.groups && gathers != profile.gathers => {
                    let text =
                        "of a transport that keeps order by group all sources are windows, or none";
                    return Err(Error::validation(text));
                }
                Some(_) => {}
            }
            if profile.gathers {
                desk.gathers();
            }
        }
        Ok(())
    }

    fn attach_one(
        &mut self,
        desk: &Arc<dyn Desk>,
        state: &mut State<C>,
        profile: &Profile,
    ) -> Result<(), Error> {
        if !self.may_settle(state, self.sources - 1) {
            return Err(not_by_message());
        }
        state.commit = Commit::Message;
        let settings = &self.shared.settings;
        if self.shared.policy.runs_nothing() {
            let text = "a message that is settled has to be undone before it is given back";
            return Err(Error::validation(text));
        }
        if profile.groups {
            keeps_order_by_group::<C>(profile)?;
        }
        let budget = settings.finish_within.unwrap_or(settings.grace).min(settings.grace);
        let Desks { all, bells, .. } = &mut self.transports;
        let bell = DeskBell::new(all.len(), bells);
        desk.attach(&bell, self.shared.context.clock(), settings.message_timeout, budget)?;
        if let Some(progress) = &self.progress {
            progress.add_desk(desk);
        }
        all.push((Arc::clone(desk), bell));
        Ok(())
    }

    /// Whether the source has to go back to its owner, who is told: it came to a drain that commits
    /// otherwise, and goes on without it.
    pub(super) fn refuses(&self, state: &State<C>, profile: &Profile) -> bool {
        let is_late = !self.first && !self.may_settle(state, self.sources);
        let refusal = profile.refusal.as_ref().filter(|_| is_late);
        if let Some(refusal) = refusal {
            refusal.refuse(not_by_message());
        }
        refusal.is_some()
    }

    /// Whether the drain commits each message by itself, or can do so from now on: nobody has said
    /// otherwise, and none of the sources before was taken from.
    fn may_settle(&self, state: &State<C>, before: usize) -> bool {
        let is_open = self.shared.settings.commit.is_none() && (self.first || before == 0);
        is_open || state.commit == Commit::Message
    }

    /// A poll of a drain that settles its messages.
    pub(super) fn poll_settling(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if self.transports.closing.is_some() {
                return self.poll_closing(cx);
            }
            self.drive(cx)?;
            match self.poll_messages(cx) {
                Poll::Ready(result) => self.begin_to_close(result)?,
                Poll::Pending => {
                    if self.drive(cx)? {
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Whether no transport has anything to do, or may bring anything at once.
    pub(super) fn transports_are_idle(&self) -> bool {
        self.transports.each().all(|desk| desk.is_idle())
    }

    /// Lets every transport do what is due that has anything to do. Returns whether the drain has to look
    /// at itself.
    fn drive(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let mut told = false;
        self.transports.bells.listen(cx.waker());
        let mut rung = std::mem::take(&mut self.transports.rung);
        self.transports.bells.take(&mut rung);
        for at in &rung {
            let Some((desk, waker)) = self.transports.hear(*at) else { continue };
            while let Poll::Ready(news) = desk.poll(&mut Context::from_waker(&waker)) {
                told = true;
                self.hear(&desk, news)?;
            }
        }
        self.transports.rung = rung;
        Ok(told | self.poll_undoing(cx)? | !self.transports.bells.are_silent())
    }

    fn hear(&mut self, desk: &Arc<dyn Desk>, news: News) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        match &news {
            News::Hurry(keys) => return self.hurry(&keys.iter().copied().collect()),
            News::Lost(keys) => return self.lose(&keys.iter().copied().collect()),
            _ => {}
        }
        self.look(|state| match news {
            News::Concluded(tag) => state.concluded(tag),
            News::Refused { key, tag, behind, group } => {
                state.refused(key, tag, (behind, group.as_ref()), &shared);
            }
            News::Voided(key, Some(tag)) => state.take_back(key, tag, &shared),
            // Nothing of it is to be undone.
            News::Voided(key, None) => desk.give(key, Verdict::UNDONE, Given::default()),
            News::Hurry(_) | News::Lost(_) => {}
            News::Fault(error) => state.fail(error),
        })
    }

    /// Gives back what waits of a partition that is to be given up.
    fn hurry(&mut self, keys: &BTreeSet<Key>) -> Result<(), Error> {
        let mut state = self.shared.take().ok_or_else(super::running::state_is_gone)?;
        for bank in &mut self.banks {
            bank.give_back_waiting(keys, &mut state);
        }
        self.shared.tell(&state);
        self.shared.put(state);
        Ok(())
    }

    /// What waits is not begun again, and whoever handles one of them hears of it.
    fn lose(&mut self, keys: &BTreeSet<Key>) -> Result<(), Error> {
        self.hurry(keys)?;
        let in_work: Vec<_> = self.banks.iter().flat_map(|bank| bank.in_work(keys)).collect();
        if !in_work.is_empty() {
            self.banks.iter_mut().for_each(|bank| bank.notify_all());
            self.look(|state| state.settling.lost.extend(in_work))?;
        }
        Ok(())
    }

    /// All messages have ended: what is held goes back, and nothing more is fetched.
    fn begin_to_close(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        self.refuse_sources();
        let mut state = self.shared.take().ok_or_else(super::running::state_is_gone)?;
        state.phase = DrainPhase::Stopping;
        for bank in &mut self.banks {
            bank.abandon(&mut state);
        }
        self.banks.clear();
        self.shared.tell(&state);
        self.shared.put(state);
        self.stop_fetching();
        let clock = self.shared.context.clock();
        let grace = self.shared.settings.grace;
        let budget = match (&result, &self.grace, &self.finish) {
            (Err(_), Some(grace), _) => Some(grace.again()),
            (Err(_), None, _) => Some(Alarm::grace(clock, grace)),
            (Ok(()), _, Some(finish)) => Some(finish.again()),
            (Ok(()), _, None) => None,
        };
        self.transports.closing = Some(Closing { result, budget, ends: None });
        Ok(())
    }

    /// Nothing more is fetched, and what was not taken is released at once.
    pub(super) fn stop_fetching(&self) {
        for desk in self.transports.each() {
            desk.stop();
        }
    }

    /// Settles what is open, and closes the transports.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.drive(cx)?;
        let failed = self.look(|state| {
            let failures = &mut state.failures.first;
            (!failures.is_empty()).then(|| failures.remove(0))
        })?;
        let is_quiet = self.transports.each().all(|desk| desk.is_quiet())
            && self.look(|state| state.settling.is_empty())?;
        let Desks { all, closing, .. } = &mut self.transports;
        let Some(closing) = closing else { return Poll::Pending };
        closing.fail(failed);
        if is_quiet && closing.ends.is_none() {
            let unused = all.iter().map(|(desk, _)| desk).filter(|desk| !desk.is_used());
            closing.ends = Some(unused.map(|desk| Arc::clone(desk).close()).collect());
        }
        if let Some(futures) = &mut closing.ends {
            let mut failed = Vec::new();
            futures.retain_mut(|future| match panics::contain(|| future.as_mut().poll(cx)) {
                Ok(Poll::Pending) => true,
                Ok(Poll::Ready(result)) => {
                    failed.extend(result.err());
                    false
                }
                Err(text) => {
                    failed.push(Error::panic("the transport", &text));
                    false
                }
            });
            let is_closed = futures.is_empty();
            for error in failed {
                closing.fail(Some(error));
            }
            if is_closed {
                return Poll::Ready(std::mem::replace(&mut closing.result, Ok(())));
            }
        }
        let is_over = closing.budget.as_mut().is_some_and(|budget| budget.poll(cx).is_ready());
        if !is_over {
            return Poll::Pending;
        }
        Poll::Ready(std::mem::replace(&mut closing.result, Ok(())))
    }

    /// The drain has ended, or is dropped: whatever is open is as if nobody had begun to settle it.
    pub(super) fn leave_transports(&mut self, state: &mut State<C>) -> Settlements {
        let mut settlements = Settlements::default();
        let mut back = Vec::new();
        let desks = std::mem::take(&mut self.transports.all);
        for (desk, _) in &desks {
            let not_sent: Vec<(Key, Option<Tag>)> = desk.detach();
            back.extend(not_sent.into_iter().map(|(key, tag)| (Arc::clone(desk), key, tag)));
        }
        let keys = back.iter().map(|(_, key, _)| *key).collect();
        state.abandon_unsettled(&keys);
        for (desk, key, tag) in back {
            if tag.is_none() {
                let number = crate::undo::next_order();
                if let Some(release) = Ticket::new(desk, key).into_release() {
                    state.scope.scope().stage_behind(number, release);
                }
            }
        }
        for (desk, _) in &desks {
            settlements.add(&desk.settlements());
        }
        // What is left of closing, and transports that nobody else has.
        let closing = self.transports.closing.take();
        panics::drop_each(closing.and_then(|closing| closing.ends).into_iter().flatten());
        panics::drop_each(desks);
        settlements
    }
}

impl Closing {
    /// Notes a failure of the end, unless the drain has failed before.
    fn fail(&mut self, error: Option<Error>) {
        let Some(error) = error else { return };
        self.result = match std::mem::replace(&mut self.result, Ok(())) {
            Ok(()) => Err(error),
            Err(first) => Err(first.with_related([error])),
        };
    }
}

fn not_by_message() -> Error {
    Error::validation("a drain whose messages are settled commits each of them by itself")
}

/// # Errors
///
/// Where messages of a source that keeps order by group were to be handled in another order.
fn keeps_order_by_group<C: Drains>(profile: &Profile) -> Result<(), Error> {
    let (serial, keyed) =
        (<C::Order as Order<C::Message>>::SERIAL, <C::Order as Order<C::Message>>::KEYED);
    if !serial && !keyed {
        return Err(Error::validation("a transport that keeps order by group is not `unordered`"));
    }
    if profile.gathers && !serial {
        let text = "windows of a transport that keeps order by group have no order by key";
        return Err(Error::validation(text));
    }
    Ok(())
}
