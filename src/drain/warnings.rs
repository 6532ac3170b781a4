//! Options that can have no effect on a drain.

use std::borrow::Cow;

use super::letters::DeadLetters;
use super::order::Order;
use super::report::Warning;
use super::settings::{OnFailure, Settings};
use super::types::Drains;

/// What of the settings can have no effect, with so many sources, and perhaps more to come.
pub(super) fn of<C: Drains>(
    settings: &Settings,
    sources: usize,
    more_may_come: bool,
) -> Vec<Warning> {
    let serial = <C::Order as Order<C::Message>>::SERIAL;
    let mut warnings = Vec::new();
    let mut warn = |applies: bool, option, reason: Cow<'static, str>| {
        if applies {
            warnings.push(Warning { option, reason });
        }
    };
    let most = if serial {
        sources
    } else {
        sources.saturating_mul(settings.per_source.unwrap_or(usize::MAX))
    };
    let unused = settings.concurrency > 1 && settings.concurrency > most && !more_may_come;
    let reason = if serial {
        format!(
            "{} handlers may run at once, and {sources} sources have one message in work each; \
             `unordered` or `ordered_by` lets messages of one source run at once",
            settings.concurrency
        )
    } else {
        format!("{} handlers may run at once, and the sources allow {most}", settings.concurrency)
    };
    warn(unused, "concurrency", reason.into());
    warn(
        serial && settings.per_source.is_some_and(|most| most > 1),
        "per_source_concurrency",
        "messages of one source are handled one after another without `unordered` or `ordered_by`"
            .into(),
    );
    let undoes = settings.undoes_messages();
    warn(
        settings.policy.is_some() && !undoes,
        "message_compensation",
        "a message that fails ends the drain, and is not undone alone".into(),
    );
    warn(
        settings.max_waiting.is_some() && settings.retry.is_none(),
        "max_waiting",
        "no message has another attempt without `retry`".into(),
    );
    warn(
        settings.finish_within.is_some() && settings.shutdown.is_none(),
        "finish_within",
        "there is no `shutdown`".into(),
    );
    warn(
        settings.letter_timeout.is_some() && !C::Letters::GIVEN,
        "dead_letter_timeout",
        "there are no `dead_letters`".into(),
    );
    warn(
        C::Letters::GIVEN && settings.on_failure == OnFailure::Abort,
        "dead_letters",
        "`on_failure(OnFailure::Abort)` ends the drain with the first failure".into(),
    );
    warnings
}
