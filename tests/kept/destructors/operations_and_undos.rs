//! Selects, groups, combinators, scopes.

use super::*;

#[test]
fn all_builder() {
    let c = c();
    let m = when_all(
        &c,
        (0..3u8)
            .map(|i| {
                let b = B(i);
                move |_: StepContext| async move {
                    let _b = b;
                    Ok::<u8, BoxError>(1)
                }
            })
            .collect::<Vec<_>>(),
    );
    ok(|| drop(m))
}
#[test]
fn all_unpolled() {
    let c = c();
    let m = when_all(
        &c,
        (0..3u8)
            .map(|i| {
                let b = B(i);
                move |_: StepContext| async move {
                    let _b = b;
                    Ok::<u8, BoxError>(1)
                }
            })
            .collect::<Vec<_>>(),
    )
    .into_future();
    ok(|| drop(m))
}
#[test]
fn all_half_limited() {
    let c = c();
    half(
        when_all(
            &c,
            (0..4u8)
                .map(|i| {
                    let b = B(i);
                    move |_: StepContext| async move {
                        let _b = b;
                        std::future::pending::<Result<u8, BoxError>>().await
                    }
                })
                .collect::<Vec<_>>(),
        )
        .concurrency(2)
        .into_future(),
    )
}
#[test]
fn any_builder() {
    let c = c();
    let m = when_any(
        &c,
        (0..3u8)
            .map(|i| {
                let b = B(i);
                move |_: StepContext| async move {
                    let _b = b;
                    Ok::<u8, BoxError>(1)
                }
            })
            .collect::<Vec<_>>(),
    );
    ok(|| drop(m))
}
#[test]
fn any_half() {
    let c = c();
    half(
        when_any(
            &c,
            (0..3u8)
                .map(|i| {
                    let b = B(i);
                    move |_: StepContext| async move {
                        let _b = b;
                        std::future::pending::<Result<u8, BoxError>>().await
                    }
                })
                .collect::<Vec<_>>(),
        )
        .into_future(),
    )
}
#[test]
fn fallback_builder() {
    let c = c();
    let mut f = Fallback::new(&c);
    for i in 0..3 {
        let b = B(i);
        f = f.tier("t").strategy("s", move |_| async move {
            let _b = b;
            Ok::<u8, BoxError>(1)
        });
    }
    ok(|| drop(f))
}
#[test]
fn fallback_half() {
    let c = c();
    let mut f = Fallback::new(&c);
    for i in 0..4 {
        let b = B(i);
        if i % 2 == 0 {
            f = f.tier("t");
        }
        f = f.strategy("s", move |_| async move {
            let _b = b;
            std::future::pending::<Result<u8, BoxError>>().await
        });
    }
    half(f.into_future())
}
#[test]
fn fallback_won_leaves_others() {
    let c = c();
    let mut f = Fallback::new(&c).tier("a").strategy("s", async |_| Ok::<u8, BoxError>(1));
    for i in 0..4 {
        let b = B(i);
        f = f.tier("t").strategy("s", move |_| async move {
            let _b = b;
            Ok::<u8, BoxError>(1)
        });
    }
    let mut f = f.into_future();
    ok(|| assert_eq!((&mut f).now_or_never().unwrap().unwrap().into_value(), 1));
    ok(|| drop(f))
}
#[test]
fn retry_half() {
    let c = c();
    let b0 = B(7);
    half(
        retry(&c, RetryPolicy::none(), move |_| {
            let _ = &b0;
            let b = B(1);
            async move {
                let _b = b;
                std::future::pending::<Result<u8, BoxError>>().await
            }
        })
        .into_future(),
    )
}
#[test]
fn retry_unpolled_policy_and_op() {
    struct P;
    let c = c();
    let (b0, b1, b2) = (B(7), B(8), B(9));
    let _ = P;
    let f = retry(
        &c,
        RetryPolicy::custom(move |_| {
            let _ = &b1;
            None
        })
        .only_if(move |_| {
            let _ = &b2;
            true
        }),
        move |_| {
            let _ = &b0;
            async move { Ok::<u8, BoxError>(1) }
        },
    )
    .into_future();
    ok(|| drop(f))
}
#[test]
fn retry_policy_alone() {
    let (b1, b2) = (B(8), B(9));
    let p = RetryPolicy::custom(move |_| {
        let _ = &b1;
        None
    })
    .only_if(move |_| {
        let _ = &b2;
        true
    });
    ok(|| drop(p))
}
#[test]
fn scope_lost() {
    let s = CompensationScope::new();
    for i in 0..3 {
        let b = B(i);
        s.register_compensation(move || {
            let _ = &b;
            async {}
        });
    }
    ok(|| drop(s))
}
#[test]
fn undos_lost() {
    let (s, u) = (CompensationScope::new(), LocalUndos::new());
    for i in 0..3 {
        let b = B(i);
        u.register(&s, move || {
            let _ = &b;
            async {}
        });
    }
    ok(|| drop(u));
    ok(|| drop(s))
}
#[test]
fn rollback_dropped_parallel() {
    let s = CompensationScope::new();
    for i in 0..3 {
        s.register_compensation(move || {
            let b = B(i);
            async move {
                let _b = b;
                std::future::pending::<()>().await
            }
        });
    }
    half(s.roll_back(&CompensationPolicy::parallel()))
}
#[test]
fn rollback_local_dropped_parallel() {
    let (s, u) = (CompensationScope::new(), LocalUndos::new());
    for i in 0..3 {
        u.register(&s, move || {
            let b = B(i);
            async move {
                let _b = b;
                std::future::pending::<()>().await
            }
        });
    }
    half(s.roll_back(&CompensationPolicy::parallel()).local(&u).into_future())
}
#[test]
fn ended_polls() {
    let c = c();
    let mut f = fan_in(&c, [futures::stream::iter([1u8])], |_, _| async { Ok::<_, BoxError>(()) })
        .into_future();
    assert!((&mut f).now_or_never().unwrap().is_ok());
    for _ in 0..3 {
        assert!((&mut f).now_or_never().expect("pending").is_err());
    }
    let mut f = retry(&c, RetryPolicy::none(), async |_| Ok::<_, BoxError>(1)).into_future();
    assert!((&mut f).now_or_never().unwrap().is_ok());
    for _ in 0..3 {
        assert!((&mut f).now_or_never().expect("pending").is_err());
    }
    let mut f = when_all(&c, [async |_: StepContext| Ok::<_, BoxError>(1)]).into_future();
    assert!((&mut f).now_or_never().unwrap().is_ok());
    for _ in 0..3 {
        assert!((&mut f).now_or_never().expect("pending").is_err());
    }
    let mut f = Fallback::new(&c).strategy("a", async |_| Ok::<_, BoxError>(1)).into_future();
    assert!((&mut f).now_or_never().unwrap().is_ok());
    for _ in 0..3 {
        assert!((&mut f).now_or_never().expect("pending").is_err());
    }
    let mut f = Group::new(&c).wait();
    assert!((&mut f).now_or_never().unwrap().is_ok());
    for _ in 0..3 {
        assert!(
            catch_unwind(AssertUnwindSafe(|| (&mut f).now_or_never())).is_ok(),
            "group wait panics after its end"
        );
    }
    let mut f = c.roll_back(&CompensationPolicy::default());
    assert!((&mut f).now_or_never().unwrap().is_ok());
    for _ in 0..3 {
        assert!(
            catch_unwind(AssertUnwindSafe(|| (&mut f).now_or_never())).is_ok(),
            "rollback panics after its end"
        );
    }
    let mut f = timers::with_timeout(&c, Duration::from_secs(1), async |_| Ok::<_, BoxError>(1))
        .into_future();
    assert!((&mut f).now_or_never().unwrap().is_ok());
    for _ in 0..3 {
        assert!((&mut f).now_or_never().expect("pending").is_err());
    }
    let mut f = timers::delay(&c, Duration::ZERO);
    assert!((&mut f).now_or_never().unwrap().is_ok());
    for _ in 0..3 {
        let _ = catch_unwind(AssertUnwindSafe(|| (&mut f).now_or_never())).expect("delay panics");
    }
    let (tx, rx) = async_channel::bounded(2);
    tx.try_send(1).unwrap();
    tx.close();
    let (a, _ra) = async_channel::bounded(3);
    let mut f = broadcast(&c, rx, [a]).into_future();
    assert!((&mut f).now_or_never().unwrap().is_ok());
    for _ in 0..3 {
        assert!((&mut f).now_or_never().expect("pending").is_err());
    }
    let mut m = Box::pin(merge(&c, [futures::stream::iter([1])]));
    assert!(m.next().now_or_never().unwrap().is_some());
    for _ in 0..3 {
        assert!(m.next().now_or_never().unwrap().is_none());
    }
}
