//! Programs of somebody who tried to break compensations and groups with nothing but the contract and
//! the docs. Each is named after what was seen.

use std::future::{Future, IntoFuture, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use watershed::diagnostics::Snapshot;
use watershed::*;

use crate::support::programs::*;

/// The counters are those of the process: who looks at them has one of its own.
fn counted(name: &str, f: impl FnOnce(&dyn Fn() -> Snapshot)) {
    crate::support::alone::alone(module_path!(), name, || {
        let before = Snapshot::now();
        f(&|| Snapshot::now().since(&before));
    });
}

struct Bomb;
impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("bomb")
        }
    }
}
/// An attempt that is done at once, and whose destructor panics.
struct Done(Bomb, bool);
impl Future for Done {
    type Output = Result<(), BoxError>;
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(if self.1 { Ok(()) } else { Err("no".into()) })
    }
}
struct Hangs(Bomb);
impl Future for Hangs {
    type Output = Result<(), BoxError>;
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Pending
    }
}
struct PanicWake;
impl Wake for PanicWake {
    fn wake(self: Arc<Self>) {
        panic!("waker")
    }
}

/// 3.7, 4.4, 4.12
#[test]
fn a_finished_attempt_whose_destructor_panics_never_ends_its_rollback() {
    within(10, || {
        for (p, attempts) in [
            (seq(), 1),
            (CompensationPolicy::parallel(), 1),
            (seq().retry(RetryPolicy::fixed(3, Duration::ZERO)), 3),
        ] {
            for ok in [true, false] {
                let (s, n) = (CompensationScope::new(), Arc::new(AtomicU32::new(0)));
                let n2 = n.clone();
                s.register_compensation(move || {
                    n2.fetch_add(1, SeqCst);
                    Done(Bomb, ok)
                });
                let r = drive(&mut s.roll_back(&p)).unwrap();
                assert_eq!(r.is_ok(), ok);
                assert_eq!(n.load(SeqCst), if ok { 1 } else { attempts });
                assert_eq!(s.clear(), usize::from(!ok));
            }
        }
    });
}

/// 3.7, 4.6, 4.12
#[test]
fn a_timed_out_attempt_whose_destructor_panics_never_ends_its_rollback() {
    within(10, || {
        for p in [
            seq(),
            CompensationPolicy::parallel(),
            seq().retry(RetryPolicy::fixed(2, Duration::ZERO)),
        ] {
            let c = ManualClock::new();
            let k: Arc<dyn Clock> = Arc::new(c.clone());
            let s = CompensationScope::new();
            s.register_compensation(|| Hangs(Bomb));
            let mut rb = s.roll_back(&p.attempt_timeout(Duration::from_secs(1))).clock(&k);
            let mut end = None;
            for _ in 0..20 {
                match drive(&mut rb) {
                    Ok(r) => {
                        end = Some(r);
                        break;
                    }
                    Err(_) => c.advance(Duration::from_secs(1)),
                }
            }
            let failure = end.expect("it ends").unwrap_err();
            assert_eq!(failure.report().failures()[0].error().code(), ErrorCode::Timeout);
            assert_eq!(s.clear(), 1);
        }
    });
}

/// 3.7, 4.12: the same inside a drain, in a message's rollback
#[test]
fn a_drain_hangs_on_an_attempt_whose_destructor_panics() {
    within(10, || {
        let ctx = StepContext::new("x");
        let mut d = fan_in(&ctx, [stream::iter([1, 2])], async |m, s: StepContext| {
            s.register_compensation(|| Done(Bomb, false));
            if m == 1 { Err("no") } else { Ok(()) }
        })
        .on_failure(OnFailure::Continue)
        .into_future();
        assert_eq!(drive(&mut d).unwrap().unwrap().handled(), 1);
        ctx.scope().clear();
    });
}

/// 4.12, 6.2
#[test]
fn a_panicking_waker_crosses_live_add() {
    within(10, || {
        let w = Waker::from(Arc::new(PanicWake));
        let ctx = StepContext::new("x");
        let (live, inc) = channels::live::<stream::Iter<std::vec::IntoIter<u32>>>();
        let mut d =
            fan_in(&ctx, [], async |_, _| Ok::<_, BoxError>(())).incoming(inc).into_future();
        assert!(pollw(&mut d, &w).is_pending());
        assert!(live.add(stream::iter(vec![1])).is_ok());
        drop(live);
        assert_eq!(drive(&mut d).unwrap().unwrap().handled(), 1);
    });
}

/// 4.12: the same at the drop of the drain, which aborted the process
#[test]
fn a_panicking_waker_aborts_at_the_drop_of_incoming_sources() {
    within(10, || {
        let w = Waker::from(Arc::new(PanicWake));
        let ctx = StepContext::new("x");
        let (live, inc) = channels::live::<stream::Iter<std::vec::IntoIter<u32>>>();
        let mut d =
            fan_in(&ctx, [], async |_, _| Ok::<_, BoxError>(())).incoming(inc).into_future();
        assert!(pollw(&mut d, &w).is_pending());
        drop(d);
        assert!(live.add(stream::iter(vec![1])).is_err());
        let (live, inc) = channels::live::<stream::Iter<std::vec::IntoIter<u32>>>();
        let mut inc = Box::pin(inc);
        assert!(inc.as_mut().poll_next_unpin(&mut Context::from_waker(&w)).is_pending());
        drop(live);
        assert!(inc.next().now_or_never().unwrap().is_none());
    });
}

/// 4.12: the same where a channel is the destination
#[test]
fn a_panicking_waker_crosses_the_receiver_of_a_merge() {
    within(10, || {
        let w = Waker::from(Arc::new(PanicWake));
        let ctx = StepContext::new("x");
        let (tx, rx) = async_channel::bounded(1);
        let mut merge = channels::merge_into(&ctx, [stream::iter([1, 2])], tx).into_future();
        assert!(pollw(&mut merge, &w).is_pending());
        assert_eq!(rx.try_recv(), Ok(1));
        assert!(drive(&mut merge).unwrap().is_ok());
        assert_eq!(rx.try_recv(), Ok(2));
    });
}

/// 4.1, 6.3
#[test]
fn late_registrations_are_not_in_diagnostics() {
    counted("late_registrations_are_not_in_diagnostics", |now| {
        let ctx = StepContext::new("x");
        let kept: Arc<Mutex<Option<StepContext>>> = Arc::default();
        let r = block_on(fan_in(&ctx, [stream::iter([1, 2])], async |m, s: StepContext| {
            if m == 1 {
                *kept.lock().unwrap() = Some(s)
            } else {
                kept.lock().unwrap().as_ref().unwrap().register_compensation(async || {})
            }
            Ok::<_, BoxError>(())
        }))
        .unwrap();
        assert_eq!(r.late_registrations(), 1);
        kept.lock().unwrap().take().unwrap().register_compensation(async || {});
        assert_eq!(ctx.scope().clear(), 1);
        assert_eq!(now().compensations_late, 2);
    });
}

/// 6.3
#[test]
fn late_registrations_are_not_in_the_progress_of_a_running_drain() {
    let (ctx, prog) = (StepContext::new("x"), Progress::new());
    let kept: Arc<Mutex<Option<StepContext>>> = Arc::default();
    let seen = AtomicU64::new(0);
    block_on(
        fan_in(&ctx, [stream::iter([1, 2, 3])], async |m, s: StepContext| {
            match m {
                1 => *kept.lock().unwrap() = Some(s),
                2 => kept.lock().unwrap().as_ref().unwrap().register_compensation(async || {}),
                _ => seen.store(prog.report().late_registrations(), SeqCst),
            }
            Ok::<_, BoxError>(())
        })
        .progress(&prog),
    )
    .unwrap();
    assert_eq!(prog.report().late_registrations(), 1);
    assert_eq!(seen.load(SeqCst), 1, "one message later, while it runs");
}

/// 4.11, 6.3
#[test]
fn lost_local_actions_are_counted_twice() {
    counted("lost_local_actions_are_counted_twice", |now| {
        for reserved in [false, true] {
            let before = now().compensations_lost;
            let lost = || now().compensations_lost - before;
            let (s, u) = (CompensationScope::new(), LocalUndos::new());
            u.register(&s, || async {});
            if reserved {
                drop(u.reserve(&s, || async {}));
            } else {
                u.register(&s, || async {});
            }
            s.register_compensation(async || {});
            drop(u);
            assert_eq!(lost(), 2);
            drop(s);
            assert_eq!(lost(), 3, "with the one that is the scope's own");
        }
        let before = now().compensations_lost;
        let (s, u) = (CompensationScope::new(), LocalUndos::new());
        u.register(&s, || async {});
        drop(s);
        drop(u);
        assert_eq!(now().compensations_lost - before, 1, "the other way round");
    });
}

/// A message's rollback that was begun in its handler and is kept.
type Held = Arc<Mutex<Option<Rollback>>>;

/// 4.1, 4.10
#[test]
fn a_rollback_of_the_context_answers_while_one_of_its_message_still_holds_an_action() {
    let (ctx, held) = (StepContext::new("x"), Held::default());
    let r = block_on(fan_in(&ctx, [stream::iter([1])], async |_, s: StepContext| {
        s.register_compensation(|| pending::<()>());
        let mut rb = s.roll_back(&seq());
        assert!(poll1(&mut rb).is_pending());
        *held.lock().unwrap() = Some(rb);
        Err::<(), _>("no")
    }));
    assert!(r.is_err());
    assert_eq!(ctx.scope().len(), 1);
    assert!(ctx.scope().has_actions());
    let mut c = ctx.roll_back(&seq());
    assert!(poll1(&mut c).is_pending());
    drop(held.lock().unwrap().take());
    assert_eq!(ctx.scope().len(), 1, "it came back");
    drop(c);
    assert_eq!(ctx.scope().clear(), 1);
}

/// 4.9
#[test]
fn a_withdrawn_action_stays_in_the_scope() {
    let s = CompensationScope::new();
    let r = s.reserve(|| pending::<()>());
    let mut rb = s.roll_back(&seq());
    assert!(poll1(&mut rb).is_pending());
    assert!(!r.disarm());
    drop(rb);
    assert_eq!(s.len(), 0);
    assert_eq!(block_on(s.roll_back(&seq())).unwrap().succeeded(), 0);
}

/// 4.1 with 4.11: a leaked drain cannot be told from one that is not polled; this is what shows
#[test]
fn actions_of_a_leaked_drain_are_not_counted_as_lost() {
    counted("actions_of_a_leaked_drain_are_not_counted_as_lost", |now| {
        let ctx = StepContext::new("x");
        let prog = Progress::new();
        let mut d = fan_in(
            &ctx,
            [stream::iter([1]).chain(stream::pending())],
            async |_, s: StepContext| {
                s.register_compensation(async || {});
                Ok::<_, BoxError>(())
            },
        )
        .progress(&prog)
        .into_future();
        assert!(poll1(&mut d).is_pending());
        std::mem::forget(d);
        let n = now();
        let ended = n.drains_succeeded + n.drains_failed + n.drains_timed_out;
        assert!(n.drains_started > ended + n.drains_cancelled + n.drains_dropped);
        assert_eq!(prog.report().staged(), 1);
    });
}

/// 4.2, 4.10: one that is parallel joins one that is not, and is held up by its action
#[test]
fn a_parallel_rollback_that_joins_a_sequential_one_starts_nothing() {
    for polled in [CompensationPolicy::parallel(), CompensationPolicy::parallel_limited(3)] {
        let s = CompensationScope::new();
        let log: Arc<Mutex<Vec<u32>>> = Arc::default();
        for i in 0..4 {
            let log = log.clone();
            s.register_compensation(move || {
                log.lock().unwrap().push(i);
                async move {
                    if i == 3 {
                        pending::<()>().await
                    }
                }
            });
        }
        let mut held = s.roll_back(&seq());
        assert!(poll1(&mut held).is_pending());
        assert_eq!(*log.lock().unwrap(), [3]);
        let mut b = s.roll_back(&polled);
        assert!(poll1(&mut b).is_pending());
        assert_eq!(*log.lock().unwrap(), [3, 2, 1, 0], "in their order, beside the one that waits");
        assert_eq!(s.len(), 1);
        // The attempt is that of the one that started it: it goes with it, and is begun anew.
        drop(held);
        assert!(drive(&mut b).is_err());
        assert_eq!(*log.lock().unwrap(), [3, 2, 1, 0, 3]);
        drop(b);
        assert_eq!(s.clear(), 1);
    }
}

/// 4.10: an attempt goes by the token of the rollback that started it, whichever one is polled
#[test]
fn a_token_stops_the_attempts_of_its_own_rollback_only() {
    for policy in [seq(), CompensationPolicy::parallel()] {
        let s = CompensationScope::new();
        let n = Arc::new(AtomicU32::new(0));
        let n2 = n.clone();
        s.register_compensation(move || {
            n2.fetch_add(1, SeqCst);
            pending::<()>()
        });
        let stop = CancellationSource::new();
        let mut held = s.roll_back(&policy).cancellation(stop.token());
        assert!(poll1(&mut held).is_pending());
        let mut other = s.roll_back(&policy);
        assert!(drive(&mut other).is_err());
        assert_eq!(n.load(SeqCst), 1);
        stop.cancel();
        assert!(drive(&mut other).is_err());
        assert_eq!((n.load(SeqCst), s.len()), (2, 1), "begun anew under its own");
        assert_eq!(block_on(held).unwrap_err().error().code(), ErrorCode::Canceled);
        assert!(drive(&mut other).is_err());
        assert_eq!(n.load(SeqCst), 2, "which nobody has stopped");
        drop(other);
        assert_eq!(s.clear(), 1);
    }
}

/// 4.1, 4.10: a rollback that is held past its message is driven by that of the context, and what comes
/// of it is told to both
#[test]
fn a_rollback_of_the_context_drives_that_of_its_message() {
    for fails in [false, true] {
        for nested in [false, true] {
            let (ctx, held) = (StepContext::new("x"), Held::default());
            let (tx, rx) = async_channel::bounded::<()>(1);
            let handler = async |_: i32, s: StepContext| {
                let rx = rx.clone();
                s.register_compensation(async || {});
                s.register_compensation(move || {
                    let rx = rx.clone();
                    async move {
                        rx.recv().await.unwrap();
                        if fails { Err("no") } else { Ok(()) }
                    }
                });
                let mut rb = s.roll_back(&seq());
                assert!(poll1(&mut rb).is_pending());
                *held.lock().unwrap() = Some(rb);
                Err::<(), _>("no")
            };
            let r = if nested {
                block_on(fan_in(&ctx, [stream::iter([1])], async |_, s: StepContext| {
                    fan_in(&s, [stream::iter([1])], &handler).await.map(drop)
                }))
            } else {
                block_on(fan_in(&ctx, [stream::iter([1])], &handler))
            };
            assert!(r.is_err());
            assert_eq!(ctx.scope().len(), 2);
            let mut c = ctx.roll_back(&seq());
            assert!(drive(&mut c).is_err(), "it waits for the one in other hands");
            assert_eq!(ctx.scope().len(), 2);
            tx.try_send(()).unwrap();
            let r = drive(&mut c).expect("driven, though the other one is not polled");
            assert_eq!(r.is_err(), fails);
            let succeeded = r.map(|r| r.succeeded()).unwrap_or_else(|f| f.report().succeeded());
            assert_eq!(succeeded, 2 - usize::from(fails));
            let own = drive(held.lock().unwrap().as_mut().unwrap()).unwrap();
            assert_eq!(own.map(|r| r.succeeded()).ok(), (!fails).then_some(1));
            drop(c);
            assert_eq!(ctx.scope().clear(), usize::from(fails));
        }
    }
}

/// 4.10: an action in the hands of a message's rollback that awaits the rollback of the context
#[test]
fn an_action_that_awaits_the_rollback_it_is_lent_to_gets_an_error() {
    within(10, || {
        let (ctx, held) = (StepContext::new("x"), Held::default());
        let (tx, rx) = async_channel::bounded::<()>(1);
        let r = block_on(fan_in(&ctx, [stream::iter([1])], async |_, s: StepContext| {
            let (ctx, rx) = (ctx.clone(), rx.clone());
            s.register_compensation(move || {
                let (ctx, rx) = (ctx.clone(), rx.clone());
                async move {
                    rx.recv().await.unwrap();
                    ctx.roll_back(&seq()).await.map(drop)
                }
            });
            let mut rb = s.roll_back(&seq());
            assert!(poll1(&mut rb).is_pending());
            *held.lock().unwrap() = Some(rb);
            Err::<(), _>("no")
        }));
        assert!(r.is_err());
        tx.try_send(()).unwrap();
        let failure = drive(held.lock().unwrap().as_mut().unwrap()).unwrap().unwrap_err();
        assert!(format!("{failure:#}").contains("awaited the rollback"), "{failure:#}");
        assert_eq!(ctx.scope().clear(), 1);
    });
}

/// 6.4, and docs of Group::wait: the first 31 by value
#[test]
fn a_group_keeps_30_errors_not_31() {
    let ctx = StepContext::new("x");
    let g = group::Group::new(&ctx).on_failure(OnFailure::Continue);
    for i in 0..100 {
        g.go(None, move |_| async move { Err::<(), _>(format!("{i}")) }).unwrap();
    }
    let e = block_on(g.wait()).unwrap_err().into_error();
    let g = group::Group::new(&ctx);
    for i in 0..100 {
        g.go(None, move |s| async move {
            s.cancellation().cancelled().await;
            Err::<(), _>(format!("{i}"))
        })
        .unwrap();
    }
    g.go(None, |_| async { Err::<(), _>("first") }).unwrap();
    let e2 = block_on(g.wait()).unwrap_err().into_error();
    assert_eq!((e.related().len(), e.related_total()), (31, 99));
    assert_eq!((e2.related().len(), e2.related_total()), (31, 100));
}

/// A clock that cannot wait.
#[derive(Debug, Default)]
struct CannotWait(ManualClock);
impl Clock for CannotWait {
    fn now(&self) -> Tick {
        self.0.now()
    }
    fn sleep_until(&self, at: Tick) -> Sleep {
        self.0.sleep_until(at)
    }
    fn check(&self) -> Result<(), Error> {
        Err(Error::new(ErrorCode::Clock, "no thread"))
    }
}

/// 5.6
#[test]
fn operations_that_may_wait_begin_although_the_clock_cannot() {
    const SEC: Duration = Duration::from_secs(1);
    within(10, || {
        let c = StepContext::new("x").with_clock(Arc::new(CannotWait::default()));
        let taken = AtomicU32::new(0);
        let src = || stream::iter(0..3).inspect(|_| _ = taken.fetch_add(1, SeqCst));
        let fails = async |_: i32, s: StepContext| {
            s.register_compensation(|| pending::<()>());
            Err::<(), _>("x")
        };
        let code = |r: Result<(), Error>| {
            assert_eq!(r.unwrap_err().code(), ErrorCode::Clock);
            assert_eq!(taken.load(SeqCst), 0);
        };
        let (a, _b) = async_channel::bounded(1);
        code(
            block_on(channels::broadcast(&c, src(), [a.clone()]).item_timeout(SEC))
                .map(drop)
                .map_err(Error::from),
        );
        code(
            block_on(channels::broadcast(&c, src(), [a.clone()]).timeout(SEC))
                .map(drop)
                .map_err(Error::from),
        );
        code(block_on(channels::merge_into(&c, [src()], a).timeout(SEC)).map(drop));
        code(
            block_on(fan_in(&c, [src()], fails).dead_letters(async |_| ()))
                .map(drop)
                .map_err(Error::from),
        );
        let timed = seq().attempt_timeout(SEC);
        let drain = fan_in(&c, [src()], fails).on_failure(OnFailure::Continue);
        code(block_on(drain.message_compensation(timed)).map(drop).map_err(Error::from));
        let drain =
            fan_in(&c, [src()], fails).finish_within(SEC).shutdown(CancellationToken::never());
        code(block_on(drain).map(drop).map_err(Error::from));
        let drain = fan_in(&c, [src().rate(1, SEC)], fails);
        code(block_on(drain).map(drop).map_err(Error::from));
        let mut select = channels::Select::new(&c).pass(src()).timeout(SEC);
        code(block_on(select.run()).map(drop));
        let windows = channels::Window::new(&c, src()).every(SEC).stream();
        code(windows.and_then(|mut w| block_on(w.next()).unwrap()).map(drop));
    });
}
