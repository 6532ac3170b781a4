//! Further programs of somebody who tried to break drains with nothing but the contract and the docs.
//! Each is named after what was seen.

#![allow(dead_code, unused_imports, clippy::all, clippy::pedantic, reason = "kept as they came")]
#[macro_use]
mod support;

use std::future::{Future, IntoFuture, pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use watershed::diagnostics::Snapshot;
use watershed::*;

use support::programs::*;

struct Bomb(&'static str);
impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("bomb {}", self.0)
        }
    }
}

fn manual() -> (ManualClock, Arc<dyn Clock>) {
    let c = ManualClock::new();
    (c.clone(), Arc::new(c))
}

#[derive(Debug, Default)]
struct Odd {
    inner: ManualClock,
    cannot_wait: bool,
    early: bool,
    rung: Arc<AtomicU32>,
}

impl Clock for Odd {
    fn now(&self) -> Tick {
        self.inner.now()
    }
    fn sleep_until(&self, d: Tick) -> Sleep {
        if self.early {
            let (n, inner) = (self.rung.clone(), self.inner.clone());
            Box::pin(poll_fn(move |_| {
                if n.fetch_add(1, SeqCst) > 100_000 {
                    inner.set(d)
                }
                Poll::Ready(())
            }))
        } else {
            self.inner.sleep_until(d)
        }
    }
    fn check(&self) -> Result<(), Error> {
        if self.cannot_wait { Err(Error::new(ErrorCode::Clock, "no thread")) } else { Ok(()) }
    }
}

fn odd(cannot_wait: bool, early: bool) -> (StepContext, ManualClock, Arc<AtomicU32>) {
    let o = Odd { cannot_wait, early, ..Odd::default() };
    let (c, r) = (o.inner.clone(), o.rung.clone());
    (StepContext::new("x").with_clock(Arc::new(o)), c, r)
}
const SEC: Duration = Duration::from_secs(1);
/// 5.4, 2.4: a sleep that ends early is begun again; here 100,000 times within one poll
fn early<F: Future + Unpin>(name: &str, mut f: F, rung: &AtomicU32, bad: &mut Vec<String>) {
    let before = rung.load(SeqCst);
    let r = poll1(&mut f).is_ready();
    let n = rung.load(SeqCst) - before;
    println!("{name}: {n} sleeps in one poll, ready {r}");
    if n > 1_000 {
        bad.push(format!("{name}: {n} sleeps in one poll, then ready {r}"))
    }
}

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
    support::alone::alone(module_path!(), name, || {
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
