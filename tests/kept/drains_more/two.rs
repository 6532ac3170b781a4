//! The second half.

use super::*;

#[test]
fn a_panic_of_put_back_at_a_shutdown_is_told_nowhere() {
    let stop = CancellationSource::new();
    let ctx = StepContext::new("x");
    let r = block_on(
        fan_in(&ctx, [stream::iter([1])], async |_, _| {
            stop.cancel();
            Err::<(), _>("x")
        })
        .retry(RetryPolicy::fixed(2, Duration::from_secs(9)))
        .shutdown(stop.token())
        .put_back(|_, _| panic!("no room")),
    );
    let r = r.map(|r| (r.put_back(), r.unfinished())).map_err(|f| format!("{f:#}"));
    assert!(r.is_err(), "succeeded: (put_back, unfinished) = {r:?}");
}

/// 6.1
#[test]
fn a_dead_letter_that_fails_is_called_a_compensation() {
    let ctx = StepContext::new("x");
    let f = block_on(
        fan_in(&ctx, [stream::iter([1])], async |_, _| Err::<(), _>("h"))
            .dead_letters(async |_| Err::<(), _>("no disk")),
    )
    .unwrap_err();
    let t = format!("{:#}", f.error().related()[0]);
    assert!(
        !t.contains("compensation") && t.contains("letter"),
        "{t}; of {:?}",
        f.error().related()[0].source_name()
    );
}

/// 6.1: becomes an Error by `?` and prints like it; the code is lost where the user's own error type is BoxError
#[test]
fn a_failure_within_a_box_error_loses_its_code() {
    let ctx = StepContext::new("x");
    let code = |f: Failure<FanInReport>| (f.error().code(), format!("{f:#}"));
    let a = block_on(fan_in(
        &ctx,
        [stream::iter([1])],
        async |_, s: StepContext| -> Result<(), Error> {
            fan_in(&s, [stream::pending::<u8>()], async |_, _| Ok::<_, BoxError>(()))
                .timeout(Duration::ZERO)
                .await?;
            Ok(())
        },
    ))
    .unwrap_err();
    let b = block_on(fan_in(
        &ctx,
        [stream::iter([1])],
        async |_, s: StepContext| -> Result<(), BoxError> {
            fan_in(&s, [stream::pending::<u8>()], async |_, _| Ok::<_, BoxError>(()))
                .timeout(Duration::ZERO)
                .await?;
            Ok(())
        },
    ))
    .unwrap_err();
    assert_eq!(code(a), code(b));
}

/// 5.6, docs of fan_in ("before anything is taken")
#[test]
fn a_drain_whose_undo_needs_a_clock_begins_without_one() {
    let (ctx, _, _) = odd(true, false);
    let n = Arc::new(AtomicU32::new(0));
    let n2 = n.clone();
    let r = block_on(
        fan_in(&ctx, [stream::iter([1])], async |_, s: StepContext| {
            let n = n2.clone();
            s.register_compensation(move || {
                n.fetch_add(1, SeqCst);
                async {}
            });
            Err::<(), _>("x")
        })
        .on_failure(OnFailure::Continue)
        .message_compensation(seq().attempt_timeout(SEC)),
    );
    let staged = ctx.scope().clear();
    let seen =
        r.map(|r| (r.taken(), r.failed())).map_err(|f| (f.error().code(), f.report().taken()));
    assert_eq!(seen, Err((ErrorCode::Clock, 0)), "undone {} staged {staged}", n.load(SeqCst));
}

/// 6.3: a watcher on another thread; by key, with retries and letters
#[test]
fn the_progress_of_an_ordered_drain_goes_back() {
    within(30, || {
        let (prog, stop) = (Progress::new(), Arc::new(AtomicBool::new(false)));
        let (p, st) = (prog.clone(), stop.clone());
        let watcher = std::thread::spawn(move || {
            let mut t = 0;
            let mut bad = vec![];
            let mut h = 0;
            while !st.load(SeqCst) && bad.len() < 4 {
                let r = p.report();
                if r.taken() < t {
                    bad.push(format!(
                        "taken {t} -> {}, handled {h} -> {}, held {}",
                        r.taken(),
                        r.handled(),
                        r.held()
                    ))
                }
                (t, h) = (r.taken(), r.handled());
                let s: u64 = r.sources().iter().map(|s| s.taken() + s.held()).sum();
                std::hint::black_box(s);
            }
            bad
        });
        let ctx = StepContext::new("x");
        let n = AtomicU32::new(0);
        block_on(
            fan_in(
                &ctx,
                (0..5).map(|s| stream::iter((0..3_000u32).map(move |i| i * 5 + s))),
                async |m: u32, s: StepContext| {
                    let k = n.fetch_add(1, SeqCst);
                    let mut y = k % 3;
                    poll_fn(|cx| {
                        if y == 0 {
                            Poll::Ready(())
                        } else {
                            y -= 1;
                            cx.waker().wake_by_ref();
                            Poll::Pending
                        }
                    })
                    .await;
                    s.register_compensation(async || {});
                    if m % 7 == 0 {
                        Err("x")
                    } else if m % 11 == 0 && s.attempt() == 1 && k % 2 == 0 {
                        Ok(Answer::Later(Duration::ZERO))
                    } else {
                        Ok(Answer::Done)
                    }
                },
            )
            .concurrency(16)
            .retry(RetryPolicy::fixed(2, Duration::from_micros(1)))
            .max_waiting(7)
            .dead_letters(async |_| ())
            .put_back(|_, _| ())
            .progress(&prog)
            .ordered_by(|m| m % 13),
        )
        .unwrap();
        stop.store(true, SeqCst);
        let bad = watcher.join().unwrap();
        assert!(bad.is_empty(), "{bad:#?}");
    })
}

/// 6.3: two rows held in an open window are one message once it is closed
#[test]
fn taken_counts_rows_first_and_windows_later() {
    let (k, d) = manual();
    let ctx = StepContext::new("x").with_clock(d);
    let prog = Progress::new();
    let src = channels::Window::new(&ctx, stream::iter([1, 2]).chain(stream::pending()))
        .count(9)
        .every(SEC);
    let mut f = Box::pin(
        fan_in(&ctx, [src], async |_: Vec<u32>, _| pending::<Result<(), BoxError>>().await)
            .progress(&prog)
            .into_future(),
    );
    let _ = drive(&mut f);
    let a = (prog.report().taken(), prog.report().held());
    k.advance(SEC);
    let _ = drive(&mut f);
    let b = (prog.report().taken(), prog.report().held(), prog.report().in_flight());
    assert!(b.0 >= a.0, "(taken, held) {a:?}, then (taken, held, in flight) {b:?}");
}

/// 3.7: what the library drops it drops one by one, each contained
#[test]
fn a_panicking_destructor_of_a_users_function_crosses_the_drain() {
    within(10, || {
        let mut bad = vec![];
        let mut try_ = |what: &str, f: &mut dyn FnMut()| {
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err() {
                bad.push(what.to_string())
            }
        };
        type E = Result<(), BoxError>;
        try_("handler", &mut || {
            let (c, b) = (StepContext::new("x"), Bomb("f"));
            let _ = block_on(fan_in(&c, [stream::iter([1])], move |_, _| {
                let _ = &b;
                async { E::Ok(()) }
            }));
        });
        try_("handler, failed", &mut || {
            let (c, b) = (StepContext::new("x"), Bomb("f"));
            let _ = block_on(fan_in(&c, [stream::iter([1])], move |_, _| {
                let _ = &b;
                async { E::Err("x".into()) }
            }));
        });
        try_("handler, dropped midway", &mut || {
            let (c, b) = (StepContext::new("x"), Bomb("f"));
            let mut f = Box::pin(
                fan_in(&c, [stream::pending::<u8>()], move |_, _| {
                    let _ = &b;
                    async { E::Ok(()) }
                })
                .into_future(),
            );
            let _ = poll1(&mut f);
            drop(f)
        });
        try_("dead_letters", &mut || {
            let (c, b) = (StepContext::new("x"), Bomb("f"));
            let _ = block_on(fan_in(&c, [stream::iter([1])], async |_, _| E::Ok(())).dead_letters(
                move |_| {
                    let _ = &b;
                    async {}
                },
            ));
        });
        try_("key", &mut || {
            let (c, b) = (StepContext::new("x"), Bomb("f"));
            let _ = block_on(fan_in(&c, [stream::iter([1])], async |_, _| E::Ok(())).ordered_by(
                move |m| {
                    let _ = &b;
                    *m
                },
            ));
        });
        try_("put_back", &mut || {
            let (c, b) = (StepContext::new("x"), Bomb("f"));
            let _ = block_on(fan_in(&c, [stream::iter([1])], async |_, _| E::Ok(())).put_back(
                move |_, _| {
                    let _ = &b;
                },
            ));
        });
        try_("source", &mut || {
            let (c, b) = (StepContext::new("x"), Bomb("f"));
            let _ = block_on(fan_in(
                &c,
                [stream::iter([1]).inspect(move |_| {
                    let _ = &b;
                })],
                async |_, _| E::Ok(()),
            ));
        });
        try_("incoming", &mut || {
            let (c, b) = (StepContext::new("x"), Bomb("f"));
            let _ = block_on(fan_in(&c, [], async |_, _| E::Ok(())).incoming(
                stream::iter([stream::iter([1])]).inspect(move |_| {
                    let _ = &b;
                }),
            ));
        });
        assert!(bad.is_empty(), "crossed from: {bad:?}");
    })
}

/// 2.10, 2.4: a retry that is due while its source waits for its rate spins for ever within one poll
fn rated(mode: u32, by_source: bool, later: bool) -> String {
    let r = std::panic::catch_unwind(move || {
        within(3, move || {
            let (k, d) = manual();
            let ctx = StepContext::new("x").with_clock(d);
            let per = SEC;
            type E = Result<Answer, BoxError>;
            let h = async |_: u32, s: StepContext| -> E {
                if later {
                    if s.clock().now() < Tick::from_nanos(1_000_000) {
                        return Ok(Answer::Later(Duration::from_millis(1)));
                    }
                } else if s.attempt() == 1 {
                    return Err("x".into());
                }
                Ok(Answer::Done)
            };
            let src = stream::iter([1u32, 2]).rate(if by_source { 1 } else { 1_000_000 }, per);
            let d = fan_in(&ctx, [src], h).retry(RetryPolicy::fixed(2, Duration::from_millis(1)));
            let d = if by_source { d } else { d.rate(1, per) };
            let mut f: Pin<Box<dyn Future<Output = Result<FanInReport, Failure<FanInReport>>>>> =
                match mode {
                    0 => Box::pin(d.into_future()),
                    1 => Box::pin(d.unordered().into_future()),
                    2 => Box::pin(d.unordered().concurrency(4).into_future()),
                    _ => Box::pin(d.ordered_by(|m| *m).concurrency(4).into_future()),
                };
            for _ in 0..100 {
                match drive(&mut f) {
                    Ok(r) => {
                        return format!(
                            "{:?} at {:?}",
                            r.map(|r| (r.handled(), r.attempts())).map_err(|f| format!("{f:#}")),
                            k.now()
                        );
                    }
                    Err(e) if e.contains("still") => {
                        std::mem::forget(f);
                        return e;
                    }
                    _ => {
                        k.advance_to_next();
                    }
                }
            }
            std::mem::forget(f);
            "never ends".into()
        })
    });
    r.unwrap_or_else(|p| p.downcast_ref::<String>().cloned().unwrap_or_default())
}

#[test]
fn a_due_retry_of_a_source_that_waits_for_its_rate_spins_within_one_poll() {
    let mut bad = vec![];
    for by_source in [true, false] {
        for mode in 0..4 {
            for later in [false, true] {
                let r = rated(mode, by_source, later);
                let what = format!(
                    "{} {} {}: {r}",
                    if by_source { "source's rate" } else { "drain's rate" },
                    ["in order", "unordered", "unordered, 4 at once", "by key"][mode as usize],
                    if later { "later" } else { "retry" }
                );
                println!("{what}");
                if !r.starts_with("Ok((2, 4))") && !r.starts_with("Ok((2, 3))") {
                    bad.push(what)
                }
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}
