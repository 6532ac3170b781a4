//! The first poll of a drain, and the sources that it is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{SelectAll, Stream};

use super::accounts::Accounts;
use super::bank::Bank;
use super::banks::{Arrival, Banks, SOURCES_PER_BANK};
use super::finish::drop_functions;
use super::giving_way::GivingWay;
use super::letters::DeadLetters;
use super::progress::Progress;
use super::rate::Rate;
use super::running::{RunningDrain, state_is_gone};
use super::settings::Settings;
use super::slots::Slots;
use super::state::{BUDGET, DrainPhase, EMPTY, Failures, QUIET, Shared, State};
use super::types::{CloneMessage, DrainTypes, Drains};
use super::unsettled::UnsettledMessages;
use super::upkeep::Desks;
use super::warnings;
use crate::cancellation::{CancellationSource, CancellationToken};
use crate::diagnostics::COUNTERS;
use crate::diagnostics::trace::{self, DrainSpan};
use crate::error::Error;
use crate::lock::Lock;
use crate::operation::Limits;
use crate::origin::{SourceId, SourceName, SourceRef};
use crate::panics;
use crate::source::{Profile, Source, Urgency};
use crate::step::StepContext;
use crate::sync::atomic::AtomicUsize;
use crate::undo::DrainScope;

/// Sources that one poll takes in before it goes on with those it has.
const SOURCES_PER_POLL: usize = 64;

/// Sources that wait for their first turn, while further ones have to wait outside.
const MOST_NEW_SOURCES: usize = 256;

/// A drain that has not been polled.
pub(super) struct Start<C: DrainTypes> {
    pub(super) sources: Vec<C::Source>,
    pub(super) incoming: Option<C::Incoming>,
    pub(super) progress: Option<Progress>,
    pub(super) parts: DrainParts<C>,
}

/// What a drain is started with.
pub(super) struct DrainParts<C: DrainTypes> {
    pub(super) context: StepContext,
    pub(super) settings: Settings,
    pub(super) clone: Option<CloneMessage<C::Message>>,
    pub(super) handler: C::Handler,
    pub(super) letters: C::Letters,
    pub(super) put_back: C::PutBack,
    pub(super) order: C::Order,
    pub(super) undos: C::Undos,
}

impl<C: DrainTypes> Start<C> {
    /// Drops it unpolled, each value of the user's whatever becomes of the others.
    pub(super) fn let_go(self) {
        let Self { sources, incoming, progress: _, parts } = self;
        let DrainParts { context, settings, clone: _, handler, letters, put_back, order, undos } =
            parts;
        panics::drop_each(sources);
        panics::drop_contained(|| drop(incoming));
        let panicked = drop_functions::<C>(handler, letters, put_back, order, undos);
        COUNTERS.contained_panics.add(panicked.len() as u64);
        panics::drop_contained(|| drop(settings));
        panics::drop_contained(|| drop(context));
    }
}

impl<C: Drains> RunningDrain<C> {
    #[allow(clippy::too_many_lines, reason = "it names every part of a drain once")]
    pub(super) fn start(start: Start<C>) -> Self {
        COUNTERS.drains_started.add(1);
        let Start { sources, incoming, progress, parts } = start;
        let DrainParts { context, mut settings, clone, handler, letters, put_back, order, undos } =
            parts;
        let clock = Arc::clone(context.clock());
        let started = clock.now();
        let handlers = CancellationSource::new();
        let outer = [context.cancellation().clone(), settings.cancellation.clone()];
        let outer = CancellationToken::linked(outer);
        let token = CancellationToken::linked([outer.clone(), handlers.token()]);
        let shutdown = settings.shutdown.as_ref().map(CancellationToken::cancelled);
        let mut invalid = settings.validate().err();
        if needs_time::<C>(&settings) && invalid.is_none() {
            invalid = clock.check().err();
        }
        let limits = Limits::new(&clock, outer.clone(), settings.timeout).unwrap_or_else(|error| {
            invalid.get_or_insert(error);
            Limits::by_token(outer.clone())
        });
        let warnings = warnings::of::<C>(&settings, &sources, incoming.is_some());
        for warning in &warnings {
            trace::without_effect(warning.option, &warning.reason);
        }
        let scope = DrainScope::open(context.scope());
        if let Some(progress) = &progress {
            progress.start(&clock, started, &scope, warnings.clone());
        }
        let mut state = Box::new(State {
            handler,
            letters,
            put_back,
            order,
            undos,
            scope,
            slots: Slots::new(
                settings.concurrency.max(1),
                settings.rate.map(|(most, per)| Rate::new(most, per)),
            ),
            keys: Default::default(),
            budget: BUDGET,
            phase: DrainPhase::Running,
            hold: false,
            look: false,
            go_on: false,
            in_source: false,
            banks: Banks::default(),
            urgency: Urgency::default(),
            failures: Failures::default(),
            accounts: Accounts::new(progress.clone(), settings.concurrency),
            paced: 0,
            paused: 0,
            giving_way: GivingWay::default(),
            most_waiting: u64::try_from(settings.max_waiting()).unwrap_or(u64::MAX),
            commit: settings.commit.unwrap_or_default(),
            settling: UnsettledMessages::default(),
        });
        let policy = settings.policy.take().unwrap_or_default();
        let shared = Arc::new(Shared {
            context,
            settings,
            policy,
            token,
            outer,
            clone,
            roused: Arc::new(AtomicUsize::new(0)),
            fresh: AtomicBool::new(true),
            hold: AtomicBool::new(false),
            news: AtomicU8::new(QUIET | EMPTY),
            state: Lock::new(None),
        });
        let mut running = Self {
            span: DrainSpan::new(shared.context.name()),
            banks: SelectAll::new(),
            incoming: incoming.map(Box::pin),
            limits,
            shutdown,
            handlers,
            started,
            cause: None,
            grace: None,
            finish: None,
            pace: None,
            crowded: false,
            sources: 0,
            warnings,
            progress,
            invalid,
            first: true,
            finishing: false,
            transports: Desks::default(),
            drop_early: Self::end_dropped,
            shared,
        };
        let mut left = sources.len();
        state.accounts.reserve(left);
        let mut sources = sources.into_iter();
        while left > 0 {
            let most = left.min(SOURCES_PER_BANK);
            let mut bank = Bank::new(&running.shared, &mut state);
            bank.reserve(most);
            for source in sources.by_ref().take(most) {
                let profile = source.profile();
                let arrival = running.arrival(&mut state, source, profile);
                bank.admit(arrival, &mut state);
            }
            running.banks.push(Box::new(bank));
            left -= most;
        }
        running.shared.tell(&state);
        running.shared.put(state);
        running
    }

    /// Sends a source to a bank that has room for it. One that has to go back to its owner is returned.
    fn add_source(&mut self, state: &mut State<C>, source: C::Source) -> Option<C::Source> {
        let profile = source.profile();
        if self.refuses(state, &profile) {
            return Some(source);
        }
        let arrival = self.arrival(state, source, profile);
        if let Some(arrival) = state.banks.send(arrival) {
            self.banks.push(Box::new(Bank::new(&self.shared, state)));
            // The new bank has room.
            let _ = state.banks.send(arrival);
        }
        None
    }

    /// Gives a source its number, its name and its row in the report.
    fn arrival(
        &mut self,
        state: &mut State<C>,
        source: C::Source,
        profile: Profile,
    ) -> Arrival<C::Source> {
        let id = profile.id.unwrap_or_else(SourceId::next);
        let origin = SourceRef { id, name: SourceName::new(profile.name.clone(), self.sources) };
        self.sources += 1;
        let mut invalid = profile.invalid.clone();
        if invalid.is_none() && self.invalid.is_none() {
            invalid = self.attach(state, &profile).err();
        }
        if profile.rate.is_some() && invalid.is_none() {
            invalid = self.shared.context.clock().check().err();
        }
        if let Some(error) = invalid {
            self.invalid.get_or_insert(error);
        }
        let row = state.accounts.add_source(&origin);
        Arrival { source, profile, origin, row }
    }

    /// How many sources may come in, to wait for their first turn.
    fn room(&self) -> Result<usize, Error> {
        self.look(|state| MOST_NEW_SOURCES.saturating_sub(state.banks.new))
    }

    /// Whether sources that had to wait outside may come in.
    pub(super) fn has_room_again(&self) -> Result<bool, Error> {
        Ok(self.crowded && self.incoming.is_some() && self.room()? > 0)
    }

    /// Takes in sources that have come since the last poll, no faster than they have their turns.
    pub(super) fn accept(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.crowded = false;
        if self.incoming.is_none() {
            return Ok(());
        }
        let room = self.room()?;
        for _ in 0..room.min(SOURCES_PER_POLL) {
            let Some(incoming) = &mut self.incoming else { return Ok(()) };
            match incoming.as_mut().poll_next(cx) {
                Poll::Ready(Some(source)) => {
                    let mut state = self.shared.take().ok_or_else(state_is_gone)?;
                    let refused = self.add_source(&mut state, source);
                    self.shared.tell(&state);
                    self.shared.put(state);
                    panics::drop_each(refused);
                }
                Poll::Ready(None) => self.incoming = None,
                Poll::Pending => return Ok(()),
            }
        }
        if room < SOURCES_PER_POLL {
            self.crowded = true;
        } else {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }
}

/// Whether a drain has to wait for anything but its sources and handlers.
fn needs_time<C: Drains>(settings: &Settings) -> bool {
    settings.timeout.is_some()
        || settings.message_timeout.is_some()
        || settings.finish_within.is_some()
        || settings.retry.is_some()
        || settings.policy.is_some()
        || settings.rate.is_some()
        || (C::Letters::GIVEN && settings.letter_timeout() != Duration::MAX)
}
