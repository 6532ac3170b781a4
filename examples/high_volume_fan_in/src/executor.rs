//! What polls the drain: three executors off the shelf, and one that is written here.
//!
//! The drain does not know which one it runs on. Its future is `Send`, so those that have worker
//! threads run it there.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use clap::ValueEnum;

/// One of the executors that the drain can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Executor {
    /// `futures::executor::block_on`
    Futures,
    /// A task of smol's global executor
    Smol,
    /// A task of tokio's multi-thread runtime
    Tokio,
    /// Forty lines, written in this example
    Custom,
}

/// As the command line spells it.
impl fmt::Display for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl Executor {
    /// Runs `future` to its end on this executor.
    ///
    /// # Errors
    ///
    /// When tokio cannot start its threads, or its task panicked.
    pub(crate) fn block_on<F>(self, future: F) -> io::Result<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match self {
            Self::Futures => Ok(futures::executor::block_on(future)),
            Self::Smol => Ok(smol::block_on(smol::spawn(future))),
            Self::Tokio => {
                let runtime = tokio::runtime::Runtime::new()?;
                runtime.block_on(runtime.spawn(future)).map_err(io::Error::other)
            }
            Self::Custom => Ok(block_on(future)),
        }
    }
}

/// Polls `future` on this thread, which sleeps while there is nothing to do.
fn block_on<F: Future>(future: F) -> F::Output {
    let alarm = Arc::new(Alarm { rung: AtomicBool::new(false), sleeper: thread::current() });
    let waker = Waker::from(Arc::clone(&alarm));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        // The flag, because the future may have parked this thread itself and taken the token
        // that an unpark left behind.
        while !alarm.rung.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

/// Wakes the thread that polls.
struct Alarm {
    rung: AtomicBool,
    sleeper: Thread,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.sleeper.unpark();
    }
}
