//! Drains, live sources, merges.

use super::*;

#[test]
fn drain_unpolled_sources() {
    let c = c();
    let d = fan_in(&c, [S(B(1), 0), S(B(2), 0)], h).into_future();
    ok(|| drop(d))
}
#[test]
fn drain_half_sources() {
    let c = c();
    half(Box::pin(fan_in(&c, [S(B(1), 1), S(B(2), 1)], h).concurrency(4).into_future()))
}
#[test]
fn drain_unpolled_handler_and_source() {
    let c = c();
    let b = B(9);
    let d = fan_in(&c, [S(B(1), 0), S(B(2), 0)], move |_, _| {
        let _ = &b;
        async { Ok::<_, BoxError>(()) }
    })
    .into_future();
    ok(|| drop(d))
}
#[test]
fn drain_half_handler_and_futures() {
    let c = c();
    let b = B(9);
    half(Box::pin(
        fan_in(&c, [S(B(1), 2), S(B(2), 2)], move |_, _| {
            let _ = &b;
            let k = B(5);
            async move {
                let _k = k;
                std::future::pending::<Result<(), BoxError>>().await
            }
        })
        .concurrency(4)
        .unordered()
        .per_source_concurrency(2)
        .into_future(),
    ))
}
#[test]
fn drain_half_all_functions() {
    let c = c();
    let (b, b2, b3) = (B(9), B(10), B(11));
    half(Box::pin(
        fan_in(&c, [S(B(1), 2), S(B(2), 2)], move |_, _| {
            let _ = &b;
            let k = B(5);
            async move {
                let _k = k;
                std::future::pending::<Result<(), BoxError>>().await
            }
        })
        .concurrency(4)
        .retry(RetryPolicy::fixed(2, Duration::ZERO))
        .put_back(move |_, _| {
            let _ = &b2;
        })
        .dead_letters(move |_| {
            let _ = &b3;
            async { Ok::<_, BoxError>(()) }
        })
        .into_future(),
    ))
}
#[test]
fn drain_unpolled_all_functions() {
    let c = c();
    let (b, b2, b3) = (B(9), B(10), B(11));
    let d = fan_in(&c, [S(B(1), 2), S(B(2), 2)], move |_, _| {
        let _ = &b;
        async move { Ok::<_, BoxError>(()) }
    })
    .concurrency(4)
    .retry(RetryPolicy::fixed(2, Duration::ZERO))
    .put_back(move |_, _| {
        let _ = &b2;
    })
    .dead_letters(move |_| {
        let _ = &b3;
        async { Ok::<_, BoxError>(()) }
    })
    .into_future();
    ok(|| drop(d))
}
#[test]
fn drain_half_window_messages() {
    let c = c();
    half(Box::pin(
        fan_in(
            &c,
            [Window::new(&c, SB(3)).count(10), Window::new(&c, SB(3)).count(10)],
            |_, _| async { Ok::<_, BoxError>(()) },
        )
        .concurrency(4)
        .into_future(),
    ))
}
#[test]
fn drain_incoming_unpolled() {
    let c = c();
    let (live, inc) = live::<S>();
    live.add(S(B(1), 0)).ok().unwrap();
    live.add(S(B(2), 0)).ok().unwrap();
    let d = fan_in(&c, Vec::<LiveSource<S>>::new(), h).incoming(inc).into_future();
    ok(|| drop(d));
    ok(|| drop(live))
}
#[test]
fn live_incoming_dropped() {
    let (live, inc) = live::<S>();
    live.add(S(B(1), 0)).ok().unwrap();
    live.add(S(B(2), 0)).ok().unwrap();
    ok(|| drop(inc));
    ok(|| drop(live))
}
#[test]
fn merge_builder() {
    let c = c();
    let m = merge(&c, [S(B(1), 0), S(B(2), 0)]);
    ok(|| drop(m))
}
#[test]
fn merge_half() {
    let c = c();
    let mut m = Box::pin(merge(&c, [S(B(1), 0), S(B(2), 0)]));
    assert!(m.next().now_or_never().is_none());
    ok(|| drop(m))
}
#[test]
fn merge_strategy_half() {
    let c = c();
    let b = B(7);
    let mut m =
        Box::pin(merge(&c, [S(B(1), 0), S(B(2), 0)]).strategy(move |s: &[SourceState]| {
            let _ = &b;
            s.iter().position(|s| s.is_ready())
        }));
    assert!(m.next().now_or_never().is_none());
    ok(|| drop(m))
}
#[test]
fn merge_cancelled() {
    let s = CancellationSource::new();
    let c = c().with_cancellation(s.token());
    let mut m = Box::pin(merge(&c, [S(B(1), 0), S(B(2), 0)]));
    assert!(m.next().now_or_never().is_none());
    s.cancel();
    ok(|| assert!(m.next().now_or_never().unwrap().unwrap().is_err()));
    ok(|| drop(m))
}
#[test]
fn merge_into_unpolled() {
    let c = c();
    let m = merge_into(&c, [S(B(1), 0), S(B(2), 0)], Dst(B(3))).into_future();
    ok(|| drop(m))
}
#[test]
fn merge_into_half() {
    let c = c();
    half(merge_into(&c, [S(B(1), 1), S(B(2), 1)], Dst(B(3))).into_future())
}
#[test]
fn broadcast_builder() {
    let c = c();
    let m = broadcast(&c, S(B(1), 0), [Dst(B(2)), Dst(B(3))]);
    ok(|| drop(m))
}
#[test]
fn broadcast_unpolled() {
    let c = c();
    let m = broadcast(&c, S(B(1), 0), [Dst(B(2)), Dst(B(3))]).into_future();
    ok(|| drop(m))
}
#[test]
fn broadcast_half() {
    let c = c();
    half(broadcast(&c, S(B(1), 1), [Dst(B(2)), Dst(B(3))]).into_future())
}
#[test]
fn broadcast_unpolled_subscribers() {
    let c = c();
    let mut m = broadcast(&c, S(B(1), 0), [Dst(B(2)), Dst(B(3))]);
    let s = m.subscribers();
    s.add(Dst(B(4))).ok().unwrap();
    s.add(Dst(B(5))).ok().unwrap();
    let m = m.into_future();
    ok(|| drop(m));
    ok(|| drop(s))
}
#[test]
fn broadcast_half_subscribers() {
    let c = c();
    let mut m = broadcast(&c, S(B(1), 1), [Dst(B(2)), Dst(B(3))]);
    let s = m.subscribers();
    let mut m = m.into_future();
    assert!((&mut m).now_or_never().is_none());
    s.add(Dst(B(4))).ok().unwrap();
    s.add(Dst(B(5))).ok().unwrap();
    s.remove(0);
    s.remove(1);
    ok(|| assert!((&mut m).now_or_never().is_none()));
    ok(|| drop(m));
    ok(|| drop(s))
}
#[test]
fn select_builder() {
    let c = c();
    let b = B(4);
    let s = Select::new(&c).pass(S(B(1), 0)).case(S(B(2), 0), move |x: u8, _| {
        let _ = &b;
        async move { Ok::<_, BoxError>(x) }
    });
    ok(|| drop(s))
}
#[test]
fn select_half() {
    let c = c();
    let mut s = Select::new(&c).pass(S(B(1), 0)).pass(S(B(2), 0));
    assert!(s.run().now_or_never().is_none());
    ok(|| drop(s))
}
#[test]
fn group_unawaited() {
    let g = Group::new(&c());
    for i in 0..3 {
        let b = B(i);
        g.go(None, move |_| async move {
            let _b = b;
            Ok::<_, BoxError>(())
        })
        .unwrap();
    }
    ok(|| drop(g))
}
#[test]
fn group_half() {
    let g = Group::new(&c());
    for i in 0..3 {
        let b = B(i);
        g.go(None, move |_| async move {
            let _b = b;
            std::future::pending::<Result<(), BoxError>>().await
        })
        .unwrap();
    }
    half(g.wait())
}
#[test]
fn group_half_limited() {
    let g = Group::new(&c()).concurrency(1);
    for i in 0..3 {
        let b = B(i);
        g.go(None, move |_| async move {
            let _b = b;
            std::future::pending::<Result<(), BoxError>>().await
        })
        .unwrap();
    }
    half(g.wait())
}
#[test]
fn group_refused() {
    let g = Group::new(&c());
    g.close();
    for i in 0..2 {
        let b = B(i);
        let g = &g;
        let _ = i;
        ok(|| {
            let _ = g.go(None, move |_| async move {
                let _b = b;
                Ok::<_, BoxError>(())
            });
        });
    }
}
#[test]
fn group_failure_into_error() {
    let g = Group::<B>::collecting(&c());
    for i in 0..2 {
        g.go(None, move |_| async move { Ok::<_, BoxError>(B(i)) }).unwrap();
    }
    g.go(None, async |_| Err::<B, BoxError>("x".into())).unwrap();
    let f = g.wait().now_or_never().unwrap().err().unwrap();
    ok(move || {
        let e = Error::from(f);
        drop(e)
    })
}
#[test]
fn group_wait_twice() {
    let g = Group::<B>::collecting(&c());
    let h = g.clone();
    for i in 0..2 {
        g.go(None, move |_| async move { Ok::<_, BoxError>(B(i)) }).unwrap();
    }
    let mut w = g.wait();
    let _ = (&mut w).now_or_never();
    let e = h.wait().now_or_never().unwrap();
    let _ = e.err().map(|f| std::mem::forget(f));
    let r = (&mut w).now_or_never();
    std::mem::forget(r);
}
