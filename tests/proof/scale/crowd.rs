//! A hundred thousand of each thing that the library can hold, but for what is settled.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::{StreamExt, stream};
use watershed::channels::{Select, Window, broadcast, live, merge_into};
use watershed::group::Group;
use watershed::{
    BoxError, CancellationSource, CancellationToken, Clock, Commit, CompensationPolicy,
    CompensationScope, LocalUndos, OnFailure, RetryPolicy, Source, StepContext, fan_in,
};

use super::scales::finish_behind;
use crate::support::{Gate, Hand, manual};

fn ok() -> Result<(), BoxError> {
    Ok(())
}

/// Is there, and never has anything.
fn idle(number: u64) -> stream::BoxStream<'static, u64> {
    stream::iter([number]).chain(stream::pending()).boxed()
}

// Rules 2.8, 2.9, 4.13 and those of each thing
crowds! {
    sources(size, scales) {
        let context = StepContext::new("crowd");
        let sources = (0..size as u64).map(idle);
        let mut drain = Hand::new(fan_in(&context, sources, async |_, _| ok()).into_future());
        assert!(drain.run().is_pending());
        scales.all_are_here();
    }
    live_sources_that_are_paused_resumed_and_removed(size, scales) {
        let (context, (live, incoming)) = (StepContext::new("crowd"), live());
        let drain = fan_in(&context, [], async |_, _| ok()).incoming(incoming);
        let mut drain = Hand::new(drain.into_future());
        let handles: Vec<_> =
            (0..size as u64).filter_map(|number| live.add(idle(number)).ok()).collect();
        assert!(drain.run().is_pending());
        assert!(handles.iter().all(|handle| live.handle(handle.id()).is_some()));
        assert!(handles.iter().all(|handle| handle.pause()));
        assert!(drain.run().is_pending());
        assert!(handles.iter().all(|handle| handle.resume()));
        assert!(drain.run().is_pending());
        scales.all_are_here();
        // Every second one first, so that what is left has holes.
        for half in [0, 1] {
            for handle in handles.iter().skip(half).step_by(2) {
                assert!(handle.request_removal());
            }
            assert!(drain.run().is_pending());
        }
        for handle in &handles {
            assert!(handle.remove().now_or_never().flatten().is_some(), "it comes back");
        }
        drop(live);
        assert_eq!(drain.finish().expect("it succeeds").handled(), size as u64);
    }
    those_who_wait_for_the_end_of_a_live_source(size, scales) {
        let (context, (live, incoming)) = (StepContext::new("crowd"), live());
        let drain = fan_in(&context, [], async |_, _| ok()).incoming(incoming);
        let mut drain = Hand::new(drain.into_future());
        let handle = live.add(idle(0)).unwrap_or_else(|_| panic!("it runs"));
        assert!(drain.run().is_pending());
        let mut waits: Vec<_> = (0..size).map(|_| Hand::new(handle.ended())).collect();
        assert!(waits.iter_mut().all(|wait| wait.run().is_pending()));
        scales.all_are_here();
        drop(waits.split_off(size / 2));
        handle.request_removal();
        assert!(drain.run().is_pending());
        for mut wait in waits {
            assert!(wait.wakes() == 1 && wait.run().is_ready());
        }
    }
    handlers_in_flight(size, scales) {
        let (context, gate) = (StepContext::new("crowd"), Gate::default());
        let drain = fan_in(&context, [stream::iter(0..size)], async |_, step: StepContext| {
            step.register_compensation(|| async {});
            gate.wait().await;
            ok()
        });
        let drain = drain.unordered().concurrency(size);
        let ended = finish_behind(&gate, drain.into_future(), scales);
        assert_eq!(ended.expect("it succeeds").handled(), size as u64);
    }
    handlers_with_drains_of_their_own(size, scales) {
        let (context, gate) = (StepContext::new("crowd"), Gate::default());
        let drain = fan_in(&context, [stream::iter(0..size)], async |_, step: StepContext| {
            let inner = fan_in(&step, [stream::iter([1])], async |_, step: StepContext| {
                step.register_compensation(|| async {});
                gate.wait().await;
                ok()
            });
            inner.await.map(drop)
        });
        let drain = drain.unordered().concurrency(size);
        let ended = finish_behind(&gate, drain.into_future(), scales);
        assert_eq!(ended.expect("it succeeds").handled(), size as u64);
    }
    keys_that_are_busy(size, scales) {
        let (context, gate) = (StepContext::new("crowd"), Gate::default());
        let drain = fan_in(&context, [stream::iter(0..size)], async |_, _| {
            gate.wait().await;
            ok()
        });
        let drain = drain.concurrency(size).ordered_by(|key| *key);
        let ended = finish_behind(&gate, drain.into_future(), scales);
        assert_eq!(ended.expect("it succeeds").handled(), size as u64);
    }
    sources_that_wait_for_one_key(size, scales) {
        let (context, gate) = (StepContext::new("crowd"), Gate::default());
        let sources = (0..size).map(|number| stream::iter([number]));
        let drain = fan_in(&context, sources, async |_, _| {
            gate.wait().await;
            ok()
        });
        let drain = drain.concurrency(size).ordered_across_sources_by(|_| 0);
        let ended = finish_behind(&gate, drain.into_future(), scales);
        assert_eq!(ended.expect("it succeeds").handled(), size as u64);
    }
    sources_that_wait_for_a_slot(size, scales) {
        let (context, gate) = (StepContext::new("crowd"), Gate::default());
        let sources = (0..size).map(|number| stream::iter([number, number]));
        let drain = fan_in(&context, sources, async |_, _| {
            gate.wait().await;
            ok()
        });
        let ended = finish_behind(&gate, drain.concurrency(3).into_future(), scales);
        assert_eq!(ended.expect("it succeeds").handled(), 2 * size as u64);
    }
    retries_that_wait(size, scales) {
        let (context, clock) = manual("crowd");
        let drain = fan_in(&context, [stream::iter(0..size)], async |_, step: StepContext| {
            if step.attempt() == 1 { Err("once") } else { Ok(()) }
        });
        let drain = drain
            .unordered()
            .concurrency(16)
            .max_waiting(size)
            .retry(RetryPolicy::fixed(2, Duration::from_secs(1)));
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        scales.all_are_here();
        assert_eq!(drain.finish_by(&clock).expect("it succeeds").handled(), size as u64);
    }
    retries_that_keep_their_slots(size, scales) {
        let (context, clock) = manual("crowd");
        let drain = fan_in(&context, [stream::iter(0..size)], async |_, step: StepContext| {
            if step.attempt() == 1 { Err("once") } else { Ok(()) }
        });
        let drain = drain
            .unordered()
            .concurrency(size)
            .max_waiting(1)
            .retry(RetryPolicy::fixed(2, Duration::from_secs(1)));
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        scales.all_are_here();
        assert_eq!(drain.finish_by(&clock).expect("it succeeds").handled(), size as u64);
    }
    dead_letters_on_their_way(size, scales) {
        let (context, gate) = (StepContext::new("crowd"), Gate::default());
        let failing = async |_, step: StepContext| {
            step.register_compensation(|| async {});
            Err::<(), _>("no")
        };
        let drain = fan_in(&context, [stream::iter(0..size)], failing);
        let drain = drain.unordered().concurrency(size).dead_letters(async |_| gate.wait().await);
        let ended = finish_behind(&gate, drain.into_future(), scales);
        assert_eq!(ended.expect("it succeeds").failed(), size as u64);
    }
    messages_of_an_open_window(size, scales) {
        let (context, stop) = (StepContext::new("crowd"), CancellationSource::new());
        let messages = stream::iter(0..size).chain(stream::pending());
        let back = Cell::new(0);
        let windows = Window::new(&context, messages).count(2 * size);
        let drain = fan_in(&context, [windows], async |_, _| ok());
        let drain = drain.shutdown(stop.token()).put_back(|_, _| back.set(back.get() + 1));
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        scales.all_are_here();
        stop.cancel();
        assert_eq!(drain.finish().expect("it succeeds").put_back(), size as u64);
        assert_eq!(back.get(), size);
    }
    compensations(size, scales) {
        let (scope, undone) = (CompensationScope::new(), Arc::new(()));
        let stage = |count: usize| {
            for _ in 0..count {
                scope.register_compensation_with(Arc::clone(&undone), |_| async {});
            }
        };
        let policies = [
            CompensationPolicy::sequential_reverse(),
            CompensationPolicy::parallel(),
            CompensationPolicy::parallel_limited(16),
        ];
        for policy in policies {
            stage(size);
            scales.all_are_here();
            let report = Hand::new(scope.roll_back(&policy)).finish();
            assert_eq!(report.expect("all succeed").succeeded(), size);
        }
        assert_eq!(Arc::strong_count(&undone), 1);
    }
    compensations_that_fail(size, scales) {
        let scope = CompensationScope::new();
        for _ in 0..size {
            scope.register_compensation(|| async { Err::<(), _>("no") });
        }
        for policy in [CompensationPolicy::sequential_reverse(), CompensationPolicy::parallel()] {
            let failure = Hand::new(scope.roll_back(&policy)).finish().expect_err("all fail");
            assert_eq!(failure.report().failures().len(), size);
            assert_eq!(scope.len(), size);
            scales.all_are_here();
        }
        assert_eq!(scope.clear(), size);
    }
    reservations_that_are_withdrawn(size, scales) {
        let scope = CompensationScope::new();
        let mut reserved: VecDeque<_> = (0..size).map(|_| scope.reserve(|| async {})).collect();
        scales.all_are_here();
        // From both ends and from the middle.
        let middle = reserved.split_off(size / 2);
        for reservation in middle {
            assert!(reservation.disarm());
        }
        while let Some(reservation) = reserved.pop_back() {
            assert!(reservation.disarm());
            assert!(reserved.pop_front().is_none_or(|reservation| reservation.disarm()));
        }
        assert!(scope.is_empty());
    }
    scopes_that_another_absorbs(size, scales) {
        let outer = CompensationScope::new();
        let scopes: Vec<_> = (0..size).map(|_| CompensationScope::new()).collect();
        let reserved: Vec<_> = scopes.iter().map(|scope| scope.reserve(|| async {})).collect();
        for scope in &scopes {
            outer.absorb(scope);
        }
        scales.all_are_here();
        assert_eq!(outer.len(), size);
        for reservation in reserved {
            assert!(reservation.disarm());
        }
        assert!(outer.is_empty());
    }
    steps_that_are_kept(size, scales) {
        let (context, kept) = (StepContext::new("crowd"), Cell::new(Vec::new()));
        let keep = async |_, step: StepContext| {
            let mut steps = kept.take();
            steps.push(step);
            kept.set(steps);
            ok()
        };
        let drain = fan_in(&context, [stream::iter(0..size)], keep).commit(Commit::Message);
        Hand::new(drain.into_future()).finish().expect("it succeeds");
        let steps = kept.take();
        for step in &steps {
            step.register_compensation(|| async {});
        }
        assert_eq!(context.scope().len(), size);
        scales.all_are_here();
        assert_eq!(context.scope().clear(), size);
    }
    local_undos(size, scales) {
        let (scope, undos) = (CompensationScope::new(), LocalUndos::new());
        for _ in 0..size {
            undos.register(&scope, || async {});
        }
        scales.all_are_here();
        let policy = CompensationPolicy::sequential_reverse();
        let rollback = scope.roll_back(&policy).local(&undos);
        assert_eq!(Hand::new(rollback).finish().expect("all succeed").succeeded(), size);
        assert!(undos.is_empty());
    }
    rollbacks_that_wait_for_another(size, scales) {
        let (scope, gate) = (CompensationScope::new(), Gate::default());
        let waits = gate.clone();
        scope.register_compensation(move || {
            let gate = waits.clone();
            async move { gate.wait().await }
        });
        let policy = CompensationPolicy::sequential_reverse();
        let mut rollbacks: Vec<_> =
            (0..size).map(|_| Hand::new(scope.roll_back(&policy))).collect();
        assert!(rollbacks.iter_mut().all(|rollback| rollback.poll().is_pending()));
        scales.all_are_here();
        gate.open();
        assert!(rollbacks.iter_mut().all(|rollback| rollback.poll().is_ready()));
    }
    drains_of_one_scope(size, scales) {
        let (context, gate) = (StepContext::new("crowd"), Gate::default());
        let mut drains: Vec<_> = (0..size)
            .map(|_| {
                let drain = fan_in(&context, [stream::iter([1])], async |_, step: StepContext| {
                    step.register_compensation(|| async {});
                    gate.wait().await;
                    ok()
                });
                Hand::new(drain.into_future())
            })
            .collect();
        assert!(drains.iter_mut().all(|drain| drain.run().is_pending()));
        scales.all_are_here();
        gate.open();
        drop(drains.split_off(size / 2));
        assert_eq!(context.scope().clear(), size - size / 2);
        assert!(drains.iter_mut().all(|drain| drain.run().is_ready()));
    }
    those_who_wait_for_a_token(size, scales) {
        let stop = CancellationSource::new();
        let mut waits: Vec<_> = (0..size).map(|_| Hand::new(stop.token().cancelled())).collect();
        assert!(waits.iter_mut().all(|wait| wait.run().is_pending()));
        scales.all_are_here();
        drop(waits.split_off(size / 2));
        stop.cancel();
        assert!(waits.iter_mut().all(|wait| wait.wakes() == 1 && wait.run().is_ready()));
    }
    tokens_that_are_linked(size, scales) {
        let (one, other) = (CancellationSource::new(), CancellationSource::new());
        let linked: Vec<_> = (0..size)
            .map(|_| CancellationToken::linked([one.token(), other.token()]))
            .collect();
        let mut waits: Vec<_> = linked.iter().map(|token| Hand::new(token.cancelled())).collect();
        assert!(waits.iter_mut().all(|wait| wait.run().is_pending()));
        scales.all_are_here();
        other.cancel();
        assert!(waits.iter_mut().all(|wait| wait.run().is_ready()));
        assert!(linked.iter().all(CancellationToken::is_cancelled));
    }
    sleepers_of_a_clock(size, scales) {
        let (_, clock) = manual("crowd");
        let due = |number: usize| clock.now() + Duration::from_millis(number as u64 * 7919 % 5_000);
        let sleeps = (0..size).map(|number| Hand::new(clock.sleep_until(due(1 + number))));
        let mut sleeps: Vec<_> = sleeps.collect();
        let waiting = sleeps.iter_mut().filter_map(|sleep| sleep.run().is_pending().then_some(()));
        assert_eq!(waiting.count(), clock.sleepers());
        scales.all_are_here();
        drop(sleeps.split_off(size / 2));
        while clock.advance_to_next() {}
        assert!(sleeps.iter_mut().all(|sleep| sleep.run().is_ready()));
        assert_eq!(clock.sleepers(), 0);
    }
    tasks_of_a_wait_group(size, scales) {
        let (context, gate) = (StepContext::new("crowd"), Gate::default());
        let group = Group::new(&context).on_failure(OnFailure::Continue);
        for _ in 0..size {
            let gate = gate.clone();
            let task = |step: StepContext| async move {
                step.register_compensation(|| async {});
                gate.wait().await;
                ok()
            };
            group.go(None, task).expect("it goes on");
        }
        let ended = finish_behind(&gate, group.wait(), scales);
        assert_eq!(ended.expect("all succeed").succeeded(), size as u64);
        assert_eq!(context.scope().clear(), size);
    }
    tasks_of_a_group_that_fails(size, scales) {
        let (context, gate) = (StepContext::new("crowd"), Gate::default());
        let group = Group::new(&context).roll_back(CompensationPolicy::sequential_reverse());
        for number in 0..size {
            let gate = gate.clone();
            let task = move |step: StepContext| async move {
                step.register_compensation(|| async {});
                gate.wait().await;
                if number == 0 { Err("no") } else { Ok(()) }
            };
            group.go(None, task).expect("it goes on");
        }
        let ended = finish_behind(&gate, group.wait(), scales);
        assert!(ended.is_err());
        assert!(context.scope().is_empty());
    }
    destinations_of_a_broadcast(size, scales) {
        let context = StepContext::new("crowd");
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..size).map(|_| async_channel::bounded(1)).unzip();
        let news = stream::iter(0..3_u32);
        let mut cast = Hand::new(broadcast(&context, news, senders).into_future());
        assert!(cast.run().is_pending(), "they have no room for a second item");
        scales.all_are_here();
        for turn in 0..3 {
            assert!(receivers.iter().all(|receiver| receiver.try_recv() == Ok(turn)));
            assert_eq!(cast.run().is_ready(), turn >= 1);
            if turn == 1 {
                break;
            }
        }
    }
    sources_of_a_merge(size, scales) {
        let context = StepContext::new("crowd");
        let (sender, receiver) = async_channel::unbounded();
        let sources = (0..size as u64).map(idle);
        let mut merging = Hand::new(merge_into(&context, sources, sender).into_future());
        assert!(merging.run().is_pending());
        scales.all_are_here();
        assert_eq!(receiver.len(), size);
    }
    cases_of_a_select(size, scales) {
        let context = StepContext::new("crowd");
        let mut cases = Select::new(&context);
        for number in 0..size as u32 {
            let source = stream::iter([number]).chain(stream::pending()).boxed();
            cases = cases.case(source.prioritized(number % 3), async |_, _| ok());
        }
        for _ in 0..size {
            Hand::new(cases.run()).finish().expect("one is ready");
        }
        scales.all_are_here();
        assert!(Hand::new(cases.run()).run().is_pending());
    }
}
