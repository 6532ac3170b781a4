//! Options that can have no effect on a drain.

use std::borrow::Cow;

use super::letters::DeadLetters;
use super::order::Order;
use super::put_back::PutBack;
use super::report::Warning;
use super::settings::Settings;
use super::types::Drains;
use crate::source::{Profile, Receipt, Source};

/// What of the settings can have no effect, with these sources, and perhaps more to come.
pub(super) fn of<C: Drains>(
    settings: &Settings,
    given: &[C::Source],
    more_may_come: bool,
) -> Vec<Warning> {
    let sources = given.len();
    let by_group = |profile: &Profile| profile.groups && !profile.gathers;
    let serial = <C::Order as Order<C::Message>>::SERIAL
        && !(C::Receipt::SETTLES && given.iter().any(|source| by_group(&source.profile())));
    let ordered = !<C::Order as Order<C::Message>>::SERIAL;
    let mut warnings = Vec::new();
    let mut warn = |applies: bool, option, reason: Cow<'static, str>| {
        if applies {
            warnings.push(no_effect(option, reason));
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
    warn(
        !serial && settings.per_source.is_some_and(|most| most >= settings.concurrency),
        "per_source_concurrency",
        "no more handlers than these may run at once over all sources".into(),
    );
    let undoes = settings.undoes_messages();
    warn(
        ordered && settings.concurrency == 1 && settings.retry.is_none(),
        if <C::Order as Order<C::Message>>::KEYED { "ordered_by" } else { "unordered" },
        "one handler runs at a time".into(),
    );
    warn(
        settings.quantum != Settings::default().quantum && sources == 1 && !more_may_come,
        "quantum",
        "there is no other source to take turns with".into(),
    );
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
        C::Letters::GIVEN && !settings.goes_on(),
        "dead_letters",
        "`on_failure(OnFailure::Abort)` ends the drain with the first failure".into(),
    );
    let keyed = <C::Order as Order<C::Message>>::KEYED && settings.concurrency > 1;
    let may_hold = keyed || settings.retry.is_some() || C::Letters::GIVEN || more_may_come;
    warn(
        C::PutBack::GIVEN && !may_hold && !given.iter().any(|source| source.profile().gathers),
        "put_back",
        "nothing is held: there is no window, no `retry`, no `dead_letters` and no busy key".into(),
    );
    if !more_may_come {
        warnings.extend(of_sources(given));
    }
    warnings
}

/// What the sources were given and is nothing without others beside them.
fn of_sources<S: Source>(sources: &[S]) -> Vec<Warning> {
    let Some(first) = sources.first().map(Source::profile) else { return Vec::new() };
    let alike = |profile: &Profile| profile.priority == first.priority;
    let mut warnings = Vec::new();
    if first.priority != Profile::default().priority
        && sources.iter().all(|source| alike(&source.profile()))
    {
        warnings.push(no_effect("prioritized", "no source has another priority".into()));
    }
    if sources.len() == 1 && first.weight != 1 {
        warnings.push(no_effect("weighted", "there is no other source to share with".into()));
    }
    warnings
}

fn no_effect(option: &'static str, reason: Cow<'static, str>) -> Warning {
    Warning { option, what: "has no effect", reason }
}

/// What whoever watches is told while that is so.
pub(super) fn all_permits_are_kept() -> Warning {
    let reason = "so many messages wait for their next attempt that failed ones keep every permit, \
                  and no message is taken until one is due";
    Warning { option: "max_waiting", what: "is reached", reason: reason.into() }
}
