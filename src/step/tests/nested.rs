//! Drains on the steps of other drains' messages.

use super::*;

/// A message of an outer drain whose step is kept by an inner drain that goes on.
struct Nested {
    context: StepContext,
    outer: DrainScope,
    message: LentStep,
    inner: DrainScope,
    kept: StepContext,
}

fn nested() -> Nested {
    let context = StepContext::new("orders");
    let (mut message, outer, source) = lent(&context);
    let kept = handle(&mut message, &source, 1, |step| step);
    let inner = DrainScope::open(kept.scope());
    assert!(kept.scope().is_nested() && !context.scope().is_nested());
    let mut step = LentStep::new(&kept, &CancellationToken::never(), &inner);
    handle(&mut step, &source, 1, |step| step.register_compensation(|| async {}));
    step.keep_later();
    drop(step);
    Nested { context, outer, message, inner, kept }
}

#[test]
fn a_nested_drain_that_succeeds_while_its_message_runs_gives_it_what_it_staged() {
    let Nested { context, outer, mut message, inner, kept } = nested();
    inner.commit();
    assert_eq!(kept.scope().len(), 1);
    drop(kept);
    assert!(message.is_home());
    message.commit_later();
    message.flush();
    outer.keep();
    assert!(context.scope().is_empty());
}

#[test]
fn a_nested_drain_that_outlives_its_message_is_final_when_that_is() {
    // The message was committed by itself.
    let Nested { context, outer, message, inner, kept: _kept } = nested();
    message.let_go(true);
    inner.commit();
    outer.keep();
    assert!(context.scope().is_empty());

    // It is the outer drain's, which goes on, and succeeds or not.
    for succeeds in [true, false] {
        let Nested { context, outer, message, inner, kept: _kept } = nested();
        message.let_go(false);
        inner.commit();
        assert_eq!(outer.scope().len(), 1);
        if succeeds {
            outer.commit();
        } else {
            outer.keep();
        }
        assert_eq!(context.scope().clear(), usize::from(!succeeds));
    }

    // The outer drain has ended before.
    for succeeds in [true, false] {
        let Nested { context, outer, message, inner, kept: _kept } = nested();
        message.let_go(false);
        if succeeds {
            outer.commit();
        } else {
            outer.keep();
        }
        inner.commit();
        assert_eq!(context.scope().clear(), usize::from(!succeeds));
    }
}

#[test]
fn a_nested_drain_that_fails_loses_nothing_whenever_it_ends() {
    for ended in 0..3 {
        let Nested { context, outer, message, inner, kept: _kept } = nested();
        let mut outer = Some(outer);
        let mut message = Some(message);
        if ended > 0 {
            message.take().into_iter().for_each(|message| message.let_go(true));
        }
        if ended > 1 {
            outer.take().into_iter().for_each(DrainScope::commit);
        }
        inner.keep();
        drop(message);
        drop(outer);
        assert_eq!(context.scope().clear(), 1, "{ended}");
    }
}

#[test]
fn a_drain_three_deep_is_final_with_the_outermost_message() {
    let Nested { context, outer, message, inner, kept } = nested();
    let (mut middle, source) =
        (LentStep::new(&kept, &CancellationToken::never(), &inner), source());
    let deep_step = handle(&mut middle, &source, 1, |step| step);
    let child = crate::step::ChildStep::new(&deep_step, None, &CancellationToken::never());
    let deep = DrainScope::open(child.scope());
    let mut step = LentStep::new(child.context(), &CancellationToken::never(), &deep);
    handle(&mut step, &source, 1, |step| step.register_compensation(|| async {}));
    drop(step);
    drop(child);
    middle.let_go(false);
    inner.commit();
    deep.commit();
    assert_eq!(kept.scope().len(), 2);
    message.let_go(true);
    assert!(kept.scope().is_empty());
    outer.keep();
    assert!(context.scope().is_empty());
}

#[test]
fn a_drain_that_is_not_nested_clears_only_its_own() {
    let context = StepContext::new("orders");
    context.register_compensation(|| async {});
    let (mut one, first, source) = lent(&context);
    let (mut two, second, _) = lent(&context);
    handle(&mut one, &source, 1, |step| step.register_compensation(|| async {}));
    handle(&mut two, &source, 1, |step| step.register_compensation(|| async {}));
    drop((one, two));
    assert_eq!(context.scope().len(), 1);
    second.commit();
    drop(first);
    assert_eq!(context.scope().clear(), 2);
}
