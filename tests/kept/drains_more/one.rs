//! The first half.

use super::*;

#[test]
fn a_sleep_that_rings_early_keeps_the_thread_within_one_poll() {
    within(60, || {
        let mut bad = vec![];
        let (c, _, n) = odd(false, true);
        early(
            "timeout",
            Box::pin(
                fan_in(&c, [stream::pending::<u32>()], async |_, _| Ok::<_, BoxError>(()))
                    .timeout(SEC)
                    .into_future(),
            ),
            &n,
            &mut bad,
        );
        let (c, _, n) = odd(false, true);
        early(
            "message_timeout",
            Box::pin(
                fan_in(&c, [stream::iter([1])], async |_, _| {
                    pending::<Result<(), BoxError>>().await
                })
                .message_timeout(SEC)
                .into_future(),
            ),
            &n,
            &mut bad,
        );
        let (c, _, n) = odd(false, true);
        early(
            "retry",
            Box::pin(
                fan_in(
                    &c,
                    [stream::iter([1])],
                    async |_, s: StepContext| if s.attempt() == 1 { Err("x") } else { Ok(()) },
                )
                .retry(RetryPolicy::fixed(2, SEC))
                .into_future(),
            ),
            &n,
            &mut bad,
        );
        let (c, _, n) = odd(false, true);
        let first = AtomicBool::new(true);
        early(
            "later",
            Box::pin(
                fan_in(&c, [stream::iter([1])], async |_, _| {
                    Ok::<_, BoxError>(if first.swap(false, SeqCst) {
                        Answer::Later(SEC)
                    } else {
                        Answer::Done
                    })
                })
                .retry(RetryPolicy::none())
                .into_future(),
            ),
            &n,
            &mut bad,
        );
        let (c, _, n) = odd(false, true);
        early(
            "rate",
            Box::pin(
                fan_in(&c, [stream::iter([1, 2])], async |_, _| Ok::<_, BoxError>(()))
                    .rate(1, SEC)
                    .into_future(),
            ),
            &n,
            &mut bad,
        );
        let (c, _, n) = odd(false, true);
        early(
            "rate of a source",
            Box::pin(
                fan_in(&c, [stream::iter([1, 2]).rate(1, SEC)], async |_, _| Ok::<_, BoxError>(()))
                    .into_future(),
            ),
            &n,
            &mut bad,
        );
        let (c, _, n) = odd(false, true);
        early(
            "window",
            Box::pin(
                fan_in(
                    &c,
                    [channels::Window::new(&c, stream::iter([1]).chain(stream::pending()))
                        .every(SEC)],
                    async |_: Vec<u32>, _| Ok::<_, BoxError>(()),
                )
                .into_future(),
            ),
            &n,
            &mut bad,
        );
        let (c, _, n) = odd(false, true);
        early(
            "window stream",
            channels::Window::new(&c, stream::iter([1]).chain(stream::pending()))
                .every(SEC)
                .stream()
                .unwrap()
                .into_future(),
            &n,
            &mut bad,
        );
        let (c, _, n) = odd(false, true);
        c.register_compensation(|| pending::<()>());
        early("attempt_timeout", c.roll_back(&seq().attempt_timeout(SEC)), &n, &mut bad);
        let (c, _, n) = odd(false, true);
        let f = AtomicBool::new(true);
        let f2 = Arc::new(f);
        c.register_compensation(move || {
            let a = f2.swap(false, SeqCst);
            async move { if a { Err("x") } else { Ok(()) } }
        });
        early(
            "rollback retry",
            c.roll_back(&seq().retry(RetryPolicy::fixed(2, SEC))),
            &n,
            &mut bad,
        );
        assert!(bad.is_empty(), "{bad:#?}");
    })
}

/// 5.6
#[test]
fn operations_that_may_wait_begin_although_the_clock_cannot() {
    within(20, || {
        let mut bad = vec![];
        let mut say = |what: &str, taken: u32, r: Result<(), Error>| {
            let r = r.map_err(|e| (e.code(), format!("{e:#}")));
            println!("{what}: taken {taken}, {r:?}");
            if taken > 0 && r.is_err() || !matches!(r, Ok(()) | Err((ErrorCode::Clock, _))) {
                bad.push(format!("{what}: taken {taken}, {r:?}"))
            }
        };
        let run = |f: Pin<Box<dyn Future<Output = Result<(), Error>>>>, c: &ManualClock| {
            let mut f = f;
            for _ in 0..50 {
                if let Poll::Ready(r) = poll1(&mut f) {
                    return r;
                }
                c.advance(Duration::from_secs(5))
            }
            Err(Error::validation("never ends"))
        };
        let t = std::rc::Rc::new(std::cell::Cell::new(0));
        let src = |n: u32| {
            t.set(0);
            let t = t.clone();
            stream::iter(0..n).inspect(move |_| t.set(t.get() + 1))
        };
        fn yields() -> impl Future<Output = ()> {
            let mut y = false;
            poll_fn(move |_| {
                if y {
                    Poll::Ready(())
                } else {
                    y = true;
                    Poll::Pending
                }
            })
        }
        {
            let (c, k, _) = odd(true, false);
            let (a, _b) = async_channel::bounded(1);
            let s = src(3);
            let c2 = c.clone();
            let r = run(
                Box::pin(async move {
                    Ok(channels::broadcast(&c2, s, [a]).item_timeout(SEC).await.map(drop)?)
                }),
                &k,
            );
            say("broadcast item_timeout", t.get(), r);
        }
        {
            let (c, k, _) = odd(true, false);
            let (a, _b) = async_channel::bounded(1);
            let s = src(3);
            let r = run(
                Box::pin(async move {
                    Ok(channels::broadcast(&c, s, [a]).timeout(SEC).await.map(drop)?)
                }),
                &k,
            );
            say("broadcast timeout", t.get(), r);
        }
        {
            let (c, k, _) = odd(true, false);
            let s = src(1);
            let r = run(
                Box::pin(async move {
                    fan_in(&c, [s], async |_, _| Err::<(), _>("x"))
                        .dead_letters(|_| yields())
                        .await?;
                    Ok(())
                }),
                &k,
            );
            say("dead_letters", t.get(), r);
        }
        {
            let (c, k, _) = odd(true, false);
            let s = src(1);
            let r = run(
                Box::pin(async move {
                    fan_in(&c, [s], async |_, s: StepContext| {
                        s.register_compensation(async || pending::<()>().await);
                        Err::<(), _>("x")
                    })
                    .on_failure(OnFailure::Continue)
                    .message_compensation(seq().attempt_timeout(SEC))
                    .await?;
                    Ok(())
                }),
                &k,
            );
            say("message_compensation attempt_timeout", t.get(), r);
        }
        {
            let (c, k, _) = odd(true, false);
            let s = src(1);
            let r = run(
                Box::pin(async move {
                    let r = fan_in(&c, [s], async |_, _| {
                        yields().await;
                        Ok::<_, BoxError>(())
                    })
                    .finish_within(SEC)
                    .shutdown(CancellationToken::never())
                    .await?;
                    println!("{:?}", r.warnings());
                    Ok(())
                }),
                &k,
            );
            say("finish_within", t.get(), r);
        }
        {
            let (c, k, _) = odd(true, false);
            let s = src(2);
            let r = run(
                Box::pin(async move {
                    fan_in(&c, [s], async |m, _| {
                        if m == 0 {
                            pending::<()>().await
                        }
                        Err::<(), _>("x")
                    })
                    .unordered()
                    .concurrency(2)
                    .await?;
                    Ok(())
                }),
                &k,
            );
            println!(
                "grace: {:?}",
                r.map_err(|e| (
                    format!("{e:#}"),
                    e.related().iter().map(|r| r.to_string()).collect::<Vec<_>>()
                ))
            );
        }
        {
            let (c, k, _) = odd(true, false);
            let s = src(1);
            let r = run(
                Box::pin(async move {
                    let mut sel = channels::Select::new(&c)
                        .pass(s.map(|x| x).collect::<Vec<_>>().into_stream().boxed_local_dummy())
                        .timeout(SEC);
                    sel.run().await.map(drop)
                }),
                &k,
            );
            say("select timeout", 0, r);
        }
        assert!(bad.is_empty(), "{bad:#?}");
    })
}

trait Dummy {
    fn boxed_local_dummy(self) -> stream::Pending<u32>;
}
impl<S: futures::Stream> Dummy for S {
    fn boxed_local_dummy(self) -> stream::Pending<u32> {
        stream::pending()
    }
}

/// 6.3: "attempts at a message that was tried before and had failed"
#[test]
fn a_retry_that_was_never_made_is_counted_as_made() {
    let name = "a_retry_that_was_never_made_is_counted_as_made";
    crate::support::alone::alone(module_path!(), name, || {
        let (b, stop) = (Snapshot::now(), CancellationSource::new());
        let ctx = StepContext::new("x");
        let r = block_on(
            fan_in(&ctx, [stream::iter([1])], async |_, _| {
                stop.cancel();
                Err::<(), _>("x")
            })
            .retry(RetryPolicy::fixed(2, Duration::from_secs(9)))
            .shutdown(stop.token())
            .put_back(|_, _| ()),
        )
        .unwrap();
        assert_eq!((r.attempts(), Snapshot::now().since(&b).messages_retried), (1, 0));
    });
}

/// 3.7, 2.1
#[test]
fn a_panic_of_put_back_is_told_nowhere() {
    let ctx = StepContext::new("x");
    let k = ManualClock::new();
    let ctx = ctx.with_clock(Arc::new(k.clone()));
    let mut d = Box::pin(
        fan_in(&ctx, [stream::iter([1, 2])], async |_, _| Err::<(), _>("h"))
            .unordered()
            .retry(RetryPolicy::fixed(3, Duration::from_secs(100)))
            .timeout(SEC)
            .put_back(|_, m| {
                if m == 1 {
                    panic!("no room for {m}")
                }
            })
            .into_future(),
    );
    assert!(poll1(&mut d).is_pending());
    k.advance(SEC);
    let Poll::Ready(r) = poll1(&mut d) else { panic!() };
    let f = r.unwrap_err();
    let told = format!(
        "{:#} {:?}",
        f,
        f.error().related().iter().map(|e| e.to_string()).collect::<Vec<_>>()
    );
    println!("{told}; put back {} unfinished {}", f.report().put_back(), f.report().unfinished());
    assert!(told.contains("no room for 1"), "{told}; counted put_back {}", f.report().put_back());
}
