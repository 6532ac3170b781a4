//! Programs of somebody who tried to break drains with nothing but the contract and the docs. Each is
//! named after what was seen.

#![allow(dead_code, unused_imports, clippy::all, clippy::pedantic, reason = "kept as they came")]
#[macro_use]
mod support;

use futures::{FutureExt, Stream, StreamExt, stream};
use std::future::*;
use std::pin::Pin;
use std::sync::atomic::*;
use std::sync::{Arc, Mutex};
use std::task::*;
use std::time::Duration;
use watershed::channels::{self, SourceEnd};
use watershed::*;

use support::programs::within;

const fn ns(n: u64) -> Duration {
    Duration::from_nanos(n)
}
struct Flag(AtomicBool);
impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst)
    }
}
/// Polls while woken; at most `max` times.
fn settle<F: Future + Unpin>(f: &mut F, flag: &Arc<Flag>, max: usize) -> Poll<F::Output> {
    let w = Waker::from(flag.clone());
    for _ in 0..max {
        if !flag.0.swap(false, Ordering::SeqCst) {
            return Poll::Pending;
        }
        if let Poll::Ready(x) = f.poll_unpin(&mut Context::from_waker(&w)) {
            return Poll::Ready(x);
        }
    }
    panic!("woken {max} times without an end");
}
fn flag() -> Arc<Flag> {
    Arc::new(Flag(AtomicBool::new(true)))
}

/// 2.4, 3.10
#[test]
fn due_retry_of_a_source_at_its_per_source_concurrency_hangs_the_poll() {
    within(5, || {
        let clock = ManualClock::new();
        let context = StepContext::new("x").with_clock(Arc::new(clock.clone()));
        let mut drain = fan_in(&context, [stream::iter([1, 2])], async |m: u32, s: StepContext| {
            if m == 1 && s.attempt() == 1 {
                return Err::<(), BoxError>("no".into());
            }
            if m == 2 {
                s.clock().sleep_until(Tick::from_nanos(20)).await;
            }
            Ok(())
        })
        .unordered()
        .concurrency(2)
        .per_source_concurrency(1)
        .retry(RetryPolicy::fixed(2, ns(5)))
        .into_future();
        let f = flag();
        assert!(settle(&mut drain, &f, 100).is_pending());
        clock.advance(ns(6)); // the retry of 1 is due, 2 runs
        f.0.store(true, Ordering::SeqCst);
        assert!(settle(&mut drain, &f, 100).is_pending());
        clock.advance(ns(20));
        assert!(settle(&mut drain, &f, 100).is_ready());
    });
}

/// 2.10, 3.10
#[test]
fn due_retry_of_an_unordered_source_that_waits_for_its_rate_hangs_the_poll() {
    within(5, || {
        let clock = ManualClock::new();
        let context = StepContext::new("x").with_clock(Arc::new(clock.clone()));
        let mut drain =
            fan_in(&context, [stream::iter([1]).rate(1, ns(10))], async |_, s: StepContext| {
                if s.attempt() == 1 {
                    return Err::<(), BoxError>("no".into());
                }
                Ok(())
            })
            .unordered()
            .retry(RetryPolicy::fixed(2, ns(5)))
            .into_future();
        let f = flag();
        assert!(settle(&mut drain, &f, 100).is_pending());
        clock.advance(ns(6)); // the retry is due, the rate has no room
        f.0.store(true, Ordering::SeqCst);
        assert!(settle(&mut drain, &f, 100).is_pending());
        clock.advance(ns(4));
        assert!(settle(&mut drain, &f, 100).is_pending());
        clock.advance(ns(10));
        assert!(settle(&mut drain, &f, 100).is_ready());
    });
}

fn rate_of_drain(keyed: bool) {
    within(5, move || {
        let clock = ManualClock::new();
        let context = StepContext::new("x").with_clock(Arc::new(clock.clone()));
        let h = async |_: u32, s: StepContext| {
            if s.attempt() == 1 {
                return Err::<(), BoxError>("no".into());
            }
            Ok(())
        };
        let d = fan_in(&context, [stream::iter([1])], h)
            .rate(1, ns(10))
            .retry(RetryPolicy::fixed(2, ns(5)));
        let mut drain: Pin<Box<dyn Future<Output = _>>> = if keyed {
            Box::pin(d.ordered_by(|m: &u32| *m).into_future())
        } else {
            Box::pin(d.unordered().into_future())
        };
        let f = flag();
        assert!(settle(&mut drain, &f, 100).is_pending());
        clock.advance(ns(6)); // the retry is due, the rate has no room
        f.0.store(true, Ordering::SeqCst);
        assert!(settle(&mut drain, &f, 100).is_pending());
        clock.advance(ns(4));
        assert!(settle(&mut drain, &f, 100).is_pending());
        clock.advance(ns(10));
        assert!(settle(&mut drain, &f, 100).is_ready());
    });
}
/// 2.10, 3.10
#[test]
fn due_retry_of_an_unordered_drain_that_waits_for_the_rate_hangs_the_poll() {
    rate_of_drain(false)
}
/// 2.10, 3.10
#[test]
fn due_retry_of_a_keyed_drain_that_waits_for_the_rate_hangs_the_poll() {
    rate_of_drain(true)
}

fn paused(keyed: bool) {
    within(5, move || {
        let clock = ManualClock::new();
        let context = StepContext::new("x").with_clock(Arc::new(clock.clone()));
        let h = async |_: u32, s: StepContext| {
            if s.attempt() == 1 {
                return Err::<(), BoxError>("no".into());
            }
            Ok(())
        };
        let (live, incoming) = channels::live();
        let handle = live.add(stream::iter([1]).chain(stream::pending())).unwrap();
        let d = fan_in(&context, [], h).incoming(incoming).retry(RetryPolicy::fixed(2, ns(5)));
        let mut drain: Pin<Box<dyn Future<Output = _>>> = if keyed {
            Box::pin(d.ordered_by(|m: &u32| *m).into_future())
        } else {
            Box::pin(d.unordered().into_future())
        };
        let f = flag();
        assert!(settle(&mut drain, &f, 100).is_pending());
        assert!(handle.pause());
        assert!(settle(&mut drain, &f, 100).is_pending());
        clock.advance(ns(6)); // the retry is due, its source is paused
        f.0.store(true, Ordering::SeqCst);
        assert!(settle(&mut drain, &f, 100).is_pending());
        handle.resume();
        assert!(settle(&mut drain, &f, 100).is_pending());
        handle.request_removal();
        drop(live);
        assert!(settle(&mut drain, &f, 100).is_ready());
    });
}
/// 2.7, 3.10
#[test]
fn due_retry_of_a_paused_unordered_source_hangs_the_poll() {
    paused(false)
}
/// 2.7, 3.10
#[test]
fn due_retry_of_a_paused_keyed_source_hangs_the_poll() {
    paused(true)
}

type Log = Arc<Mutex<Vec<String>>>;
fn log(l: &Log, s: String) {
    l.lock().unwrap().push(s)
}
fn gate_at(s: &StepContext, t: u64) -> Sleep {
    s.clock().sleep_until(Tick::from_nanos(t))
}

/// 2.2, 3.10
#[test]
fn failure_beyond_max_waiting_breaks_the_order_and_is_never_tried_again() {
    let l = Log::default();
    let l2 = l.clone();
    let done = within(5, move || {
        let clock = ManualClock::new();
        let context = StepContext::new("x").with_clock(Arc::new(clock.clone()));
        let l = l2.clone();
        let mut drain = fan_in(
            &context,
            [stream::iter(vec![1, 2]), stream::iter(vec![10])],
            move |m: u32, s: StepContext| {
                let l = l.clone();
                async move {
                    log(
                        &l,
                        format!("{m} attempt {} at {}", s.attempt(), s.clock().now().as_nanos()),
                    );
                    if m == 1 && s.attempt() == 1 {
                        gate_at(&s, 8).await;
                    }
                    if s.attempt() == 1 && m != 2 {
                        return Err::<(), BoxError>("no".into());
                    }
                    Ok(())
                }
            },
        )
        .concurrency(2)
        .max_waiting(1)
        .retry(RetryPolicy::fixed(2, ns(13)))
        .into_future();
        let f = flag();
        // at 0: 10 fails and waits until 13; at 8: 1 fails, beyond max_waiting
        for _ in 0..60 {
            if settle(&mut drain, &f, 100).is_ready() {
                return true;
            }
            clock.advance(ns(1));
        }
        false
    });
    let l = l.lock().unwrap().clone();
    let at = |x: &str| l.iter().position(|e| e.starts_with(x));
    assert!(at("1 attempt 2").is_some(), "1 was never tried again: {l:?}");
    assert!(at("1 attempt 2") < at("2 attempt 1"), "{l:?}");
    assert!(done, "the drain does not end");
}

/// A retry becomes due while all permits are taken.
fn permits(mode: u8, two_sources: bool, conc: usize) {
    within(5, move || {
        let clock = ManualClock::new();
        let context = StepContext::new("x").with_clock(Arc::new(clock.clone()));
        let h = async |m: u32, s: StepContext| {
            if m == 1 {
                if s.attempt() == 1 {
                    return Err::<(), BoxError>("no".into());
                }
                return Ok(());
            }
            gate_at(&s, 20).await;
            Ok(())
        };
        let sources = if two_sources {
            vec![stream::iter(vec![1]), stream::iter(vec![2, 3, 4, 5])]
        } else {
            vec![stream::iter(vec![1, 2, 3, 4, 5])]
        };
        let d = fan_in(&context, sources, h).concurrency(conc).retry(RetryPolicy::fixed(2, ns(5)));
        let mut drain: Pin<Box<dyn Future<Output = _>>> = match mode {
            0 => Box::pin(d.into_future()),
            1 => Box::pin(d.unordered().into_future()),
            2 => Box::pin(d.ordered_by(|m: &u32| *m).into_future()),
            _ => Box::pin(d.ordered_across_sources_by(|m: &u32| *m).into_future()),
        };
        let f = flag();
        for _ in 0..200 {
            if settle(&mut drain, &f, 100).is_ready() {
                return;
            }
            clock.advance(ns(1));
        }
        panic!("it does not end");
    });
}
/// 2.4, 3.10
#[test]
fn due_retry_while_all_permits_are_taken_hangs_the_poll_unordered() {
    permits(1, false, 1)
}
/// 2.4, 3.10
#[test]
fn due_retry_while_all_permits_are_taken_hangs_the_poll_keyed() {
    permits(2, false, 1)
}

/// 3.4, 3.11
#[test]
fn message_timeout_that_passes_while_a_later_message_is_undone_wakes_for_ever() {
    within(5, || {
        let clock = ManualClock::new();
        let context = StepContext::new("x").with_clock(Arc::new(clock.clone()));
        let mut drain = fan_in(&context, [stream::iter(vec![1])], async |_, s: StepContext| {
            let c = s.clock().clone();
            s.register_compensation(move || {
                let c = c.clone();
                async move { c.sleep_until(Tick::from_nanos(30)).await }
            });
            gate_at(&s, 5).await;
            if gate_at(&s, 15).now_or_never().is_none() {
                return Ok::<_, BoxError>(Answer::Later(ns(2)));
            }
            Ok(Answer::Done)
        })
        .message_timeout(ns(20))
        .retry(RetryPolicy::fixed(2, ns(1)))
        .into_future();
        let f = flag();
        for _ in 0..100 {
            if settle(&mut drain, &f, 1000).is_ready() {
                return;
            }
            clock.advance(ns(1));
        }
        panic!("it does not end");
    });
}

/// 3.9, 3.10
fn stopping(how: u8) {
    within(5, move || {
        let clock = ManualClock::new();
        let context = StepContext::new("x").with_clock(Arc::new(clock.clone()));
        let (live, incoming) = channels::live();
        let a = live.add(stream::iter(vec![1, 2]).chain(stream::pending()).boxed()).ok().unwrap();
        let (shut, cancel) = (CancellationSource::new(), CancellationSource::new());
        let mut drain = fan_in(&context, [], async |m: u32, s: StepContext| {
            if m == 1 && s.attempt() == 1 {
                return Err::<(), BoxError>("no".into());
            }
            gate_at(&s, 20).await;
            Ok(())
        })
        .incoming(incoming)
        .concurrency(2)
        .unordered()
        .shutdown(shut.token())
        .cancellation(cancel.token())
        .timeout(if how == 3 { ns(3) } else { ns(1000) })
        .grace(ns(50))
        .retry(RetryPolicy::fixed(2, ns(5)))
        .into_future();
        let f = flag();
        assert!(settle(&mut drain, &f, 100).is_pending());
        clock.advance(ns(2));
        match how {
            0 => shut.cancel(),
            1 => {
                a.request_removal();
            }
            2 => cancel.cancel(),
            _ => clock.advance(ns(2)),
        }
        drop(live);
        for _ in 0..60 {
            if settle(&mut drain, &f, 100).is_ready() {
                return;
            }
            clock.advance(ns(1));
        }
        panic!("it does not end");
    });
}
#[test]
fn retry_that_would_be_due_during_a_shutdown_hangs_the_poll() {
    stopping(0)
}
#[test]
fn retry_that_would_be_due_during_a_removal_hangs_the_poll() {
    stopping(1)
}
#[test]
fn retry_that_would_be_due_during_a_cancellation_hangs_the_poll() {
    stopping(2)
}
#[test]
fn retry_that_would_be_due_after_the_timeout_hangs_the_poll() {
    stopping(3)
}

/// 3.9, 3.10, 2.7
fn own(how: u8) {
    within(5, move || {
        let clock = ManualClock::new();
        let context = StepContext::new("x").with_clock(Arc::new(clock.clone()));
        let (live, incoming) = channels::live();
        let a = live.add(stream::iter(vec![2, 1]).chain(stream::pending()).boxed()).ok().unwrap();
        let shut = CancellationSource::new();
        let mut drain = fan_in(&context, [], async |m: u32, s: StepContext| {
            if m == 2 {
                gate_at(&s, 20).await;
                return Ok(());
            }
            if how == 0 {
                shut.cancel();
            } else {
                a.request_removal();
            }
            Err::<(), BoxError>("no".into())
        })
        .incoming(incoming)
        .unordered()
        .concurrency(2)
        .shutdown(shut.token())
        .retry(RetryPolicy::fixed(2, ns(0)))
        .on_failure(OnFailure::Continue)
        .into_future();
        drop(live);
        let f = flag();
        for _ in 0..60 {
            if settle(&mut drain, &f, 100).is_ready() {
                return;
            }
            clock.advance(ns(1));
        }
        panic!("it does not end");
    });
}
#[test]
fn handler_that_shuts_the_drain_down_and_fails_hangs_the_poll() {
    own(0)
}
#[test]
fn handler_that_removes_its_source_and_fails_hangs_the_poll() {
    own(1)
}

/// 3.3
#[test]
fn all_ended_and_ok_in_the_poll_of_the_deadline_is_a_timeout() {
    let clock = ManualClock::new();
    let context = StepContext::new("x").with_clock(Arc::new(clock.clone()));
    struct Dropped(Arc<AtomicBool>, bool);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst)
        }
    }
    impl Stream for Dropped {
        type Item = u32;
        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u32>> {
            let first = !self.1;
            self.1 = true;
            Poll::Ready(first.then_some(1))
        }
    }
    let gone = Arc::new(AtomicBool::new(false));
    let mut drain = fan_in(&context, [Dropped(gone.clone(), false)], async |_, s: StepContext| {
        gate_at(&s, 10).await;
        Ok::<_, BoxError>(())
    })
    .unordered()
    .concurrency(2)
    .timeout(ns(10))
    .into_future();
    let f = flag();
    assert!(settle(&mut drain, &f, 100).is_pending());
    assert!(gone.load(Ordering::SeqCst), "the source has ended");
    clock.advance(ns(10));
    match settle(&mut drain, &f, 100) {
        Poll::Ready(r) => {
            assert!(r.is_ok(), "{}", r.unwrap_err());
        }
        Poll::Pending => panic!("pending"),
    }
}

/// 2.1, 6.3
#[test]
fn message_whose_clone_panics_is_lost_without_a_count() {
    struct M(u32);
    impl Clone for M {
        fn clone(&self) -> M {
            if self.0 == 4 {
                panic!("clone")
            }
            M(self.0)
        }
    }
    let context = StepContext::new("x");
    let progress = Progress::new();
    let back = Mutex::new(vec![]);
    let seen = Mutex::new(vec![]);
    let popped = AtomicU64::new(0);
    let r = futures::executor::block_on(
        fan_in(
            &context,
            [stream::iter((0..10).map(M)).inspect(|_| {
                popped.fetch_add(1, Ordering::SeqCst);
            })],
            async |m: M, _| {
                seen.lock().unwrap().push(m.0);
                Ok::<_, BoxError>(())
            },
        )
        .retry(RetryPolicy::fixed(2, ns(1)))
        .on_failure(OnFailure::Continue)
        .put_back(|_, m: M| back.lock().unwrap().push(m.0))
        .progress(&progress)
        .into_future(),
    );
    let report = support::ending::report(&r).clone();
    assert_eq!(
        popped.load(Ordering::SeqCst),
        report.taken(),
        "ok: {}, handled {}, failed {}, unfinished {}, put back {:?}, seen {:?}",
        r.is_ok(),
        report.handled(),
        report.failed(),
        report.unfinished(),
        back.lock().unwrap(),
        seen.lock().unwrap()
    );
}

/// 3.7, 2.1: one poisoned key ends a drain that goes on after failures, and its message is not put back.
#[test]
fn key_whose_hash_panics_ends_a_drain_that_goes_on_after_failures() {
    #[derive(Clone, PartialEq, Eq)]
    struct K(u32);
    impl std::hash::Hash for K {
        fn hash<H: std::hash::Hasher>(&self, h: &mut H) {
            if self.0 == 4 {
                panic!("hash")
            }
            self.0.hash(h)
        }
    }
    let context = StepContext::new("x");
    let back = Mutex::new(vec![]);
    let r = futures::executor::block_on(
        fan_in(&context, [stream::iter(0..10u32)], async |_, _| Ok::<_, BoxError>(()))
            .ordered_by(|m| K(*m))
            .on_failure(OnFailure::Continue)
            .put_back(|_, m| back.lock().unwrap().push(m))
            .into_future(),
    );
    let report = support::ending::report(&r).clone();
    assert!(
        r.is_ok(),
        "{} handled {} failed {} unfinished {} put back {:?}",
        r.unwrap_err(),
        report.handled(),
        report.failed(),
        report.unfinished(),
        back.lock().unwrap()
    );
}
/// 3.7: as above, with Clone.
#[test]
fn key_whose_clone_panics_ends_a_drain_that_goes_on_after_failures() {
    #[derive(PartialEq, Eq, Hash)]
    struct K(u32);
    impl Clone for K {
        fn clone(&self) -> K {
            if self.0 == 4 {
                panic!("clone")
            }
            K(self.0)
        }
    }
    let context = StepContext::new("x");
    let back = Mutex::new(vec![]);
    let r = futures::executor::block_on(
        fan_in(&context, [stream::iter(0..10u32)], async |_, _| Ok::<_, BoxError>(()))
            .ordered_by(|m| K(*m))
            .on_failure(OnFailure::Continue)
            .put_back(|_, m| back.lock().unwrap().push(m))
            .into_future(),
    );
    let report = support::ending::report(&r).clone();
    assert!(
        r.is_ok(),
        "{} handled {} failed {} unfinished {} put back {:?}",
        r.unwrap_err(),
        report.handled(),
        report.failed(),
        report.unfinished(),
        back.lock().unwrap()
    );
}

/// 2.3: where handlers wait for permits, a turn of a source of weight 1 is one message.
#[test]
fn unordered_sources_of_one_weight_share_the_permits_unequally() {
    let clock = ManualClock::new();
    let context = StepContext::new("x").with_clock(Arc::new(clock.clone()));
    let log = Arc::new(Mutex::new(vec![]));
    let l = log.clone();
    let mut drain = fan_in(
        &context,
        [stream::repeat(0).take(400), stream::repeat(1).take(400)],
        move |m: usize, s: StepContext| {
            let l = l.clone();
            async move {
                l.lock().unwrap().push(m);
                let c = s.clock().clone();
                c.sleep_until(c.now() + ns(1)).await;
                Ok::<_, BoxError>(())
            }
        },
    )
    .quantum(2)
    .concurrency(5)
    .unordered()
    .into_future();
    let f = flag();
    while settle(&mut drain, &f, 1000).is_pending() {
        clock.advance(ns(1));
    }
    let log = log.lock().unwrap();
    let shares = [0, 1].map(|k| log[100..400].iter().filter(|m| **m == k).count());
    assert!(
        shares[0].abs_diff(shares[1]) < 30,
        "of 300 messages in the middle: {shares:?}: {:?}",
        &log[100..130]
    );
}

/// 2.7, 2.10 (docs of `pause`: "A drain does not end while a source is paused")
#[test]
fn until_idle_ends_with_a_paused_source_that_has_messages() {
    for before in [false, true] {
        let context = StepContext::new("x");
        let (live, incoming) = channels::live();
        let (sender, queue) = async_channel::unbounded();
        let other = live.add(async_channel::unbounded::<u32>().1.boxed()).ok().unwrap();
        let handle = live.add(queue.boxed()).ok().unwrap();
        if before {
            handle.pause();
        }
        let gate = Arc::new(AtomicBool::new(false));
        let g = gate.clone();
        let mut drain = fan_in(&context, [], move |m: u32, _| {
            let g = g.clone();
            poll_fn(move |_| {
                if m != 9 || g.load(Ordering::SeqCst) {
                    Poll::Ready(Ok::<_, BoxError>(()))
                } else {
                    Poll::Pending
                }
            })
        })
        .incoming(incoming)
        .until_idle()
        .into_future();
        let f = flag();
        if !before {
            sender.try_send(9).unwrap();
            assert!(settle(&mut drain, &f, 100).is_pending());
            handle.pause();
        }
        sender.try_send(1).unwrap();
        gate.store(true, Ordering::SeqCst);
        f.0.store(true, Ordering::SeqCst);
        let r = settle(&mut drain, &f, 100);
        assert!(
            r.is_pending(),
            "paused before the first poll: {before}; it ended: {:?}, with {} messages in the paused source",
            r.map(|r| r.map(|r| r.handled()).map_err(|e| e.to_string())),
            sender.len()
        );
        drop(other);
    }
}

/// 2.3: a turn that is cut by the 256 messages of a poll costs its source its next turn.
#[test]
fn source_misses_a_turn_where_its_turn_is_cut_by_the_end_of_a_poll() {
    let context = StepContext::new("x");
    let mut bad = vec![];
    for (unordered, concurrency) in [(false, 1), (true, 1), (true, 2)] {
        let log = Arc::new(Mutex::new(vec![]));
        let l = log.clone();
        let sources = [
            stream::repeat(0).take(900).weighted(3),
            stream::repeat(1).take(300).weighted(1),
            stream::repeat(2).take(300).weighted(1),
        ];
        let d = fan_in(&context, sources, move |m: u32, _| {
            l.lock().unwrap().push(m);
            async { Ok::<_, BoxError>(()) }
        })
        .quantum(1)
        .concurrency(concurrency);
        if unordered {
            futures::executor::block_on(d.unordered().into_future()).unwrap();
        } else {
            futures::executor::block_on(d.into_future()).unwrap();
        }
        let log = log.lock().unwrap();
        let mut since = 0; // turns of source 1 since the last message of source 0
        for (k, m) in log[..1200].iter().enumerate() {
            match m {
                0 => since = 0,
                1 => since += 1,
                _ => (),
            }
            if since > 1 {
                bad.push(format!(
                    "unordered {unordered}, concurrency {concurrency}, message {k}: {:?}",
                    &log[k - 12..k + 6]
                ));
                break;
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

/// 2.5, 2.2, 3.10: the handler of 2, which runs and has not failed, is dropped and called again.
#[test]
fn failure_beyond_max_waiting_drops_the_running_handler_of_the_next_message_and_calls_it_again() {
    struct OnDrop(Log, bool);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            if !self.1 {
                log(&self.0, "2 dropped".into())
            }
        }
    }
    let l = Log::default();
    let l2 = l.clone();
    within(5, move || {
        let clock = ManualClock::new();
        let context = StepContext::new("x").with_clock(Arc::new(clock.clone()));
        let (live, incoming) = channels::live();
        let _a = live.add(stream::iter(vec![1, 2]).chain(stream::pending()).boxed()).ok().unwrap();
        let b = live.add(stream::iter(vec![10]).chain(stream::pending()).boxed()).ok().unwrap();
        let l = l2.clone();
        let mut drain = fan_in(&context, [], move |m: u32, s: StepContext| {
            let l = l.clone();
            async move {
                log(&l, format!("{m} attempt {}", s.attempt()));
                if m == 2 {
                    let mut d = OnDrop(l.clone(), false);
                    gate_at(&s, 50).await;
                    d.1 = true;
                    return Ok(());
                }
                if m == 1 && s.attempt() == 1 {
                    gate_at(&s, 8).await;
                }
                if s.attempt() == 1 {
                    return Err::<(), BoxError>("no".into());
                }
                Ok(())
            }
        })
        .incoming(incoming)
        .concurrency(2)
        .max_waiting(1)
        .retry(RetryPolicy::fixed(2, ns(13)))
        .into_future();
        let f = flag();
        assert!(settle(&mut drain, &f, 100).is_pending()); // 10 fails and waits
        b.pause();
        for _ in 0..100 {
            clock.advance(ns(1));
            assert!(settle(&mut drain, &f, 100).is_pending());
        }
    });
    let l = l.lock().unwrap().clone();
    assert!(!l.contains(&"2 dropped".to_string()), "{l:?}");
    assert_eq!(l.iter().filter(|e| e.starts_with("2 attempt")).count(), 1, "{l:?}");
}
