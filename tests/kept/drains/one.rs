//! The first half.

use super::*;

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

pub(super) type Log = Arc<Mutex<Vec<String>>>;
pub(super) fn log(l: &Log, s: String) {
    l.lock().unwrap().push(s)
}
pub(super) fn gate_at(s: &StepContext, t: u64) -> Sleep {
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
pub(super) fn own(how: u8) {
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
