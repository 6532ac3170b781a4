//! One winner among streams of different types.
//!
//! A [`Select`] is a list of cases that is made once and run again and again. A run asks the cases
//! in order of priority, those of one priority in turns, and stops at the first that is ready: no
//! message is taken from any other. The message and its continuation stay with the case, so a run
//! allocates nothing but its step; and only cases that were woken are asked, so idle ones cost it
//! nothing.
//!
//! - `case`: a source and what to do with its message
//! - `tier`: the cases of one priority; `run`: the future of one run

mod case;
mod run;
mod tier;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use self::case::{Case, settling};
use self::run::{SelectRun, StartedSelect};
use self::tier::{BoxedCase, CaseTier};
use crate::cancellation::CancellationToken;
use crate::error::{BoxError, Error};
use crate::operation::{DEFAULT_GRACE, option};
use crate::origin::SourceName;
use crate::outcome::HandlerOutput;
use crate::source::{Profile, Source, Unsettled};
use crate::step::StepContext;

/// Cases over streams of different types, of which one wins each run. It is made once, and run as
/// often as is wanted; its runs give a `T`.
///
/// | option | default |
/// | --- | --- |
/// | [priority](Source::prioritized) of a case's source | 100; a lower number wins, equal ones take turns |
/// | [weight](Source::weighted) of a case's source | 1; so many turns in a row |
/// | [`default`](Select::default) | none: a run waits |
/// | [`timeout`](Select::timeout) | never |
/// | [`grace`](Select::grace) | 5 seconds |
/// | [`cancellation`](Select::cancellation) | that of the context alone |
///
/// Among `n` cases of one priority and weight, a case that is ready has its turn at the latest in the
/// `n`th run that comes to this priority; a fault is a turn as well. A case that is ready does not wait, with
/// one exception: after 256 runs that did not have to wait, one gives the thread back to the
/// executor first, so that a loop over cases that are always ready starves nobody.
///
/// A source that has ended or panicked is dropped at once. One that had a fault is asked again.
/// Everything that a case is made of must be [`Send`].
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::channels::Select;
/// use watershed::{BoxError, Source, StepContext};
///
/// let context = StepContext::new("worker");
/// let mut select = Select::new(&context)
///     .case(stream::iter([1, 2]), async |number: u32, _| {
///         Ok::<_, BoxError>(format!("number {number}"))
///     })
///     .case(stream::iter(["stop"]).prioritized(0), async |word: &str, _| {
///         Ok::<_, BoxError>(word.to_owned())
///     });
///
/// assert_eq!(select.run().await?, "stop");
/// assert_eq!(select.run().await?, "number 1");
/// assert_eq!(select.run().await?, "number 2");
/// let error = select.run().await.unwrap_err();
/// assert_eq!(error.code(), watershed::ErrorCode::SelectDrained);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a select does nothing unless it is run"]
pub struct Select<'a, T> {
    context: StepContext,
    /// In order of priority.
    tiers: Vec<CaseTier<'a, T>>,
    /// How many cases there are, ended ones included.
    cases: usize,
    default: Option<BoxedCase<'a, T>>,
    /// Why no run can begin: a source of a case has a wrong option.
    invalid: Option<Error>,
    settings: SelectSettings,
    /// Runs that have ended in their first poll, one after another.
    at_once: usize,
    /// What the last run has left for the next one.
    spare: Option<Box<StartedSelect>>,
}

struct SelectSettings {
    timeout: Option<Duration>,
    grace: Duration,
    cancellation: CancellationToken,
}

impl<T> Select<'_, T> {
    /// A select without cases.
    pub fn new(context: &StepContext) -> Self {
        Self {
            context: context.clone(),
            tiers: Vec::new(),
            cases: 0,
            default: None,
            invalid: None,
            settings: SelectSettings {
                timeout: None,
                grace: DEFAULT_GRACE,
                cancellation: CancellationToken::never(),
            },
            at_once: 0,
            spare: None,
        }
    }
}

impl<'a, T: Send + 'a> Select<'a, T> {
    /// Adds a case: when it wins, its message goes to `handler`, whose result is that of the run.
    /// What the handler registers is staged on the scope of the context.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::channels::Select;
    /// use watershed::{BoxError, StepContext};
    ///
    /// let context = StepContext::new("worker");
    /// let mut select = Select::new(&context).case(stream::iter([4]), async |number, step| {
    ///     step.register_compensation(async || {});
    ///     Ok::<_, BoxError>(number * 2)
    /// });
    /// assert_eq!((select.run().await?, context.scope().clear()), (8, 1));
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn case<S, H, F>(mut self, source: S, handler: H) -> Self
    where
        S: Source<Receipt = Unsettled> + Send + 'a,
        H: FnMut(S::Message, StepContext) -> F + Send + 'a,
        F: Future<Output: HandlerOutput<T>> + Send + 'a,
    {
        let profile = source.profile().heeded_by("a select", true).unwrap_or_else(|error| {
            self.invalid.get_or_insert(error);
            Profile::default()
        });
        let Profile { name, weight, priority, .. } = profile;
        let name = SourceName::new(name, self.cases);
        self.cases += 1;
        let place = self.tiers.partition_point(|tier| tier.priority() < priority);
        if self.tiers.get(place).is_none_or(|tier| tier.priority() != priority) {
            self.tiers.insert(place, CaseTier::new(priority));
        }
        let case = Case::new(source, handler, settling::<F::Output, T>);
        self.tiers[place].add(name, weight, Box::pin(case));
        self
    }

    /// Adds a case whose message is the result of the run.
    pub fn pass<S>(self, source: S) -> Self
    where
        S: Source<Receipt = Unsettled, Message = T> + Send + 'a,
    {
        self.case(source, |message, _| std::future::ready(Ok::<T, BoxError>(message)))
    }

    /// What a run does when no case is ready, instead of waiting; also when all cases have ended.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, channels::Select};
    ///
    /// let context = StepContext::new("worker");
    /// let mut select = Select::new(&context)
    ///     .pass(stream::pending())
    ///     .default(async |_| Ok::<_, BoxError>("nothing to do"));
    /// assert_eq!(select.run().await?, "nothing to do");
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn default<H, F>(mut self, mut handler: H) -> Self
    where
        H: FnMut(StepContext) -> F + Send + 'a,
        F: Future<Output: HandlerOutput<T>> + Send + 'a,
    {
        // A case that is always ready, and asked last.
        let handler = move |(), step| handler(step);
        let case = Case::new(futures::stream::repeat(()), handler, settling::<F::Output, T>);
        self.default = Some(Box::pin(case));
        self
    }

    option!(grace: settings.grace);

    /// One absolute deadline for each run, the continuation included, counted from its first poll
    /// by the context's clock. Default: never. Zero times out before anything is taken or called;
    /// [`Duration::MAX`] never does.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self.spare = None;
        self
    }

    /// A token that ends a run, beside that of the context. Default: that of the context alone.
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.settings.cancellation = token;
        self.spare = None;
        self
    }

    /// Waits for the first case that is ready, takes its message, and runs its continuation.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::Validation`](crate::ErrorCode::Validation), before a message is taken: a source
    ///   has an option that is wrong, or that has no effect here
    /// - the continuation's own error under [`ErrorCode::Handler`](crate::ErrorCode::Handler), or
    ///   [`ErrorCode::Panic`](crate::ErrorCode::Panic)
    /// - [`ErrorCode::Source`](crate::ErrorCode::Source): a case that was asked had a fault
    /// - [`ErrorCode::SelectDrained`](crate::ErrorCode::SelectDrained): every case has ended
    /// - [`ErrorCode::Timeout`](crate::ErrorCode::Timeout) with its `duration` as metadata, and
    ///   [`ErrorCode::Canceled`](crate::ErrorCode::Canceled); an error of the continuation, which
    ///   is told to stop and awaited for the grace, is attached
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, a run has taken no message. Dropped later, it drops the continuation
    /// where it is; what that has registered is staged on the context's scope.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{StepContext, channels::Select};
    ///
    /// let context = StepContext::new("worker");
    /// let (sender, receiver) = async_channel::unbounded();
    /// let mut select = Select::new(&context).pass(receiver);
    /// assert!(futures::poll!(select.run()).is_pending());
    /// sender.try_send(7).unwrap();
    /// assert_eq!(select.run().await?, 7);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn run(&mut self) -> impl Future<Output = Result<T, Error>> + Unpin {
        SelectRun::new(self)
    }
}

impl<T> fmt::Debug for Select<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select")
            .field("context", &self.context)
            .field("cases", &self.tiers.iter().flat_map(CaseTier::names).collect::<Vec<_>>())
            .field("timeout", &self.settings.timeout)
            .finish_non_exhaustive()
    }
}
