//! What an action may know of the rollback that runs it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use super::CompensationScope;
use super::local_attempt::LocalDesk;
use crate::cancellation::CancellationToken;
use crate::clock::{Clock, SystemClock};

/// The rollback that an attempt of an action belongs to: its name, clock, token and scope.
///
/// Closures need none of it; an [`Action`](crate::Action) of your own is handed it at each attempt,
/// and [`with_step`](crate::with_step) makes a step of it.
///
/// ```
/// use watershed::{Action, CompensationPolicy, CompensationScope, Error, Undoing};
///
/// /// Frees a seat, unless the rollback is to stop.
/// struct FreeSeat(u32);
///
/// impl Action for FreeSeat {
///     fn attempt(&mut self, undoing: &Undoing) -> impl Future<Output = Result<(), Error>> + Send + 'static {
///         let (seat, token) = (self.0, undoing.token().clone());
///         async move {
///             if token.is_cancelled() { Err(Error::validation(format!("seat {seat} is kept"))) } else { Ok(()) }
///         }
///     }
/// }
///
/// let scope = CompensationScope::new();
/// scope.register_compensation(FreeSeat(17));
/// let report = futures::executor::block_on(scope.roll_back(&CompensationPolicy::default())).unwrap();
/// assert_eq!(report.succeeded(), 1);
/// ```
#[derive(Clone)]
pub struct Undoing {
    pub(super) name: Arc<str>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) token: CancellationToken,
    pub(super) scope: CompensationScope,
    /// Where the actions that are not `Send` are run, if the rollback was given them.
    pub(super) desk: Option<Arc<LocalDesk>>,
}

impl Undoing {
    /// A rollback of `scope` by the system clock that nobody cancels.
    pub(super) fn of(scope: &CompensationScope) -> Self {
        static NAME: LazyLock<Arc<str>> = LazyLock::new(|| "rollback".into());
        static CLOCK: LazyLock<Arc<dyn Clock>> = LazyLock::new(|| Arc::new(SystemClock::new()));
        Self {
            name: Arc::clone(&NAME),
            clock: Arc::clone(&CLOCK),
            token: CancellationToken::never(),
            scope: scope.clone(),
            desk: None,
        }
    }

    /// The name of the step that is rolled back; `rollback` where a scope is.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The clock that the rollback goes by.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The token that stops the rollback: not that of the work which is undone.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// The scope that is rolled back.
    #[must_use]
    pub fn scope(&self) -> &CompensationScope {
        &self.scope
    }

    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.name
    }
}

impl fmt::Debug for Undoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undoing")
            .field("name", &self.name)
            .field("clock", &self.clock)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
