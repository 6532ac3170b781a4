//! Further programs of somebody who tried to break drains with nothing but the contract and the docs.
//! Each is named after what was seen.

mod one;
mod two;

use std::future::{Future, IntoFuture, pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use watershed::diagnostics::Snapshot;
use watershed::*;

use crate::support::programs::*;

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
