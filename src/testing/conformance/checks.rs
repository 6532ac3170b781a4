//! The checks of the suite, one by one.

use std::collections::BTreeSet;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use super::{Broker, Checked, Seen, Suite, account};
use crate::cancellation::CancellationSource;
use crate::drain::{Letter, fan_in};
use crate::error::BoxError;
use crate::lock::Lock;
use crate::step::StepContext;
use crate::transport::Transport;
use crate::undo::CompensationPolicy;

impl<B: Broker> Suite<'_, B> {
    pub(super) async fn once(&mut self) -> Checked {
        let numbers = self.put().await?;
        let mut seen = self.all_of(numbers.clone()).await?;
        seen.sort_unstable();
        same(&seen, numbers)?;
        self.nothing_is_left().await
    }

    pub(super) async fn again(&mut self) -> Checked {
        let numbers = self.put().await?;
        let (seen, failed) = (Seen::default(), Lock::new(BTreeSet::new()));
        for _ in 0..4 {
            self.drain(1, |number, _| {
                // Not all in a row: a source whose handlers fail again and again is slowed down.
                let first = number % 2 == 0 && failed.lock().insert(number);
                if !first {
                    seen.lock().push(number);
                }
                async move { if first { Err("the first time".into()) } else { Ok(()) } }
            })
            .await?;
            if seen.lock().len() >= numbers.len() {
                break;
            }
        }
        let mut seen = std::mem::take(&mut *seen.lock());
        seen.sort_unstable();
        same(&seen, numbers)?;
        self.nothing_is_left().await
    }

    pub(super) async fn dead(&mut self) -> Checked {
        let numbers = self.put().await?;
        let link = self.broker.connect().await?;
        let (sources, incoming) = Self::sources(&link);
        let letters = Seen::default();
        let (quiet, began) = (CancellationSource::new(), AtomicU64::new(0));
        let drain = fan_in(self.context, sources, async |message, _| {
            began.fetch_add(1, Ordering::Relaxed);
            if self.broker.number(&message) % 2 == 0 { Err("never") } else { Ok(()) }
        })
        .incoming(incoming)
        .dead_letters(async |letter: Letter<<B::Transport as Transport>::Message>| {
            letters.lock().extend(letter.message().map(|message| self.broker.number(message)));
        })
        .shutdown(quiet.token())
        .timeout(self.patience());
        let drain = if Self::assigns(&link) { drain } else { drain.until_idle() };
        let report = self.until_quiet(drain.into_future(), &quiet, &began).await?;
        account(&report)?;
        let mut letters = std::mem::take(&mut *letters.lock());
        letters.sort_unstable();
        let even: Vec<_> = numbers.filter(|number| number % 2 == 0).collect();
        if letters != even {
            return Err(format!("{letters:?} instead of {even:?}").into());
        }
        self.nothing_is_left().await
    }

    /// Drains until a handler has begun, and drops everything there; what was staged is on `context`.
    /// Returns whether partitions are assigned.
    async fn drop_in_the_middle(&self, context: &StepContext) -> Result<bool, BoxError> {
        let link = self.broker.connect().await?;
        let assigns = Self::assigns(&link);
        let (sources, incoming) = Self::sources(&link);
        let begun = CancellationSource::new();
        let (token, mine) = (begun.token(), context.clone());
        let mut drain = fan_in(&mine, sources, |_, _| {
            begun.cancel();
            std::future::pending::<Result<(), BoxError>>()
        })
        .incoming(incoming)
        .timeout(self.patience())
        .into_future();
        let mut begun = pin!(token.cancelled());
        std::future::poll_fn(|cx| {
            let ended = Pin::new(&mut drain).poll(cx).map(|result| {
                Err(BoxError::from(format!("the drain ended: {:?}", result.map(|it| it.taken()))))
            });
            if ended.is_ready() { ended } else { begun.as_mut().poll(cx).map(|()| Ok(())) }
        })
        .await?;
        drop(drain);
        Ok(assigns)
    }

    pub(super) async fn dropped(&mut self) -> Checked {
        let numbers = self.put().await?;
        let context = self.context.clone();
        self.drop_in_the_middle(&context).await?;
        // Nobody undoes it: it comes again by itself.
        context.scope().clear();
        self.wait_until_it_comes_again().await;
        let mut seen = self.all_of(numbers.clone()).await?;
        seen.sort_unstable();
        same(&seen, numbers)?;
        self.nothing_is_left().await
    }

    pub(super) async fn late(&mut self) -> Checked {
        let numbers = self.put().await?;
        let context = self.context.clone();
        let assigns = self.drop_in_the_middle(&context).await?;
        self.wait_until_it_comes_again().await;
        // The release of the drain that was dropped comes when somebody else has accepted; where
        // partitions are assigned, they are with the first one until it is gone.
        let seen = if assigns { Ok(Vec::new()) } else { self.all_of(numbers.clone()).await };
        context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
        let mut seen = seen?;
        if assigns {
            seen = self.all_of(numbers.clone()).await?;
        }
        seen.sort_unstable();
        same(&seen, numbers)?;
        self.nothing_is_left().await
    }

    pub(super) async fn shut_down(&mut self) -> Checked {
        let numbers = self.put().await?;
        let link = self.broker.connect().await?;
        let (sources, incoming) = Self::sources(&link);
        let (stop, handled) = (CancellationSource::new(), Seen::default());
        let report = fan_in(self.context, sources, |message, _| {
            stop.cancel();
            handled.lock().push(self.broker.number(&message));
            async { Ok::<_, BoxError>(()) }
        })
        .incoming(incoming)
        .shutdown(stop.token())
        .timeout(self.patience())
        .await?;
        account(&report)?;
        let mut seen = std::mem::take(&mut *handled.lock());
        let rest: Vec<_> = numbers.clone().filter(|number| !seen.contains(number)).collect();
        seen.extend(self.all_of(rest).await?);
        seen.sort_unstable();
        same(&seen, numbers)?;
        self.nothing_is_left().await
    }

    pub(super) async fn crowd(&mut self) -> Checked {
        let (first, second, third) = (self.put().await?, self.put().await?, self.put().await?);
        let numbers = first.start..third.end;
        debug_assert_eq!(second.start, first.end);
        let seen = Seen::default();
        self.drain(16, |number, _| {
            seen.lock().push(number);
            yield_once()
        })
        .await?;
        let mut seen = std::mem::take(&mut *seen.lock());
        seen.sort_unstable();
        same(&seen, numbers)?;
        self.nothing_is_left().await
    }
}

/// A handler that waits once.
async fn yield_once() -> Result<(), BoxError> {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    Ok(())
}

fn same(seen: &[u32], numbers: Range<u32>) -> Checked {
    if seen.iter().copied().eq(numbers.clone()) {
        return Ok(());
    }
    Err(format!("{seen:?} instead of {numbers:?}").into())
}
