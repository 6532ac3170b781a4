//! The second half.

use super::one::*;
use super::*;

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
    let report = crate::support::ending::report(&r).clone();
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
    let report = crate::support::ending::report(&r).clone();
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
    let report = crate::support::ending::report(&r).clone();
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
