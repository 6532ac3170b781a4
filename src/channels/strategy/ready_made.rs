//! The strategies that come with the crate. None of them refuses, and each looks at every source
//! once a message.

use super::{MergeStrategy, SourceState};
use crate::error::Error;

/// Always the first source that may be ready, in the order in which the sources were given. A
/// source that is always ready starves those behind it: that is what it is for.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::{StreamExt, stream};
/// use watershed::StepContext;
/// use watershed::channels::{merge_with_strategy, priority};
///
/// let (sender, receiver) = async_channel::unbounded();
/// let sources = [stream::iter([1, 2]), stream::iter([3, 4])];
/// merge_with_strategy(&StepContext::new("merge"), sources, sender, priority()).await?;
/// assert_eq!(receiver.collect::<Vec<_>>().await, [1, 2, 3, 4]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use]
pub const fn priority() -> Priority {
    Priority(())
}

/// The strategy of [`priority`].
///
/// ```
/// use watershed::channels::{MergeStrategy, SourceState::{Pending, Ready}, priority};
/// assert_eq!(priority().pick(&[Pending, Ready, Ready]), Some(1));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Priority(());

impl MergeStrategy for Priority {
    fn pick(&mut self, sources: &[SourceState]) -> Option<usize> {
        sources.iter().position(|state| state.is_ready())
    }
}

/// One message of each source that may be ready, in turn. A source that is ready all the while
/// waits for at most one message of each other source.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::{StreamExt, stream};
/// use watershed::StepContext;
/// use watershed::channels::{merge_with_strategy, round_robin};
///
/// let (sender, receiver) = async_channel::unbounded();
/// let sources = [stream::iter([1, 2]), stream::iter([3, 4])];
/// merge_with_strategy(&StepContext::new("merge"), sources, sender, round_robin()).await?;
/// assert_eq!(receiver.collect::<Vec<_>>().await, [1, 3, 2, 4]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use]
pub const fn round_robin() -> RoundRobin {
    RoundRobin { next: 0 }
}

/// The strategy of [`round_robin`].
///
/// ```
/// use watershed::channels::{MergeStrategy, SourceState::Ready, round_robin};
/// let mut strategy = round_robin();
/// assert_eq!([0; 3].map(|_| strategy.pick(&[Ready, Ready])), [Some(0), Some(1), Some(0)]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RoundRobin {
    next: usize,
}

impl MergeStrategy for RoundRobin {
    fn pick(&mut self, sources: &[SourceState]) -> Option<usize> {
        let start = self.next.min(sources.len());
        let mut turn = (start..sources.len()).chain(0..start);
        let index = turn.find(|index| sources[*index].is_ready())?;
        self.next = index + 1;
        Some(index)
    }
}

/// A reserved share for each source: in each round, as many messages as its weight says. A round
/// ends when no source that may be ready has anything left of its share, so what a pending source
/// leaves goes to the others. Within a round the messages of a source are spread out.
///
/// A source of weight `w` that is ready all the while waits for at most `2 * (W - w)` messages of
/// the others, `W` being the sum of all weights, whatever the others do.
///
/// There is one weight for each source, and none is 0: all else is an
/// [`ErrorCode::Validation`](crate::ErrorCode::Validation) error of the merge.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::{StreamExt, stream};
/// use watershed::StepContext;
/// use watershed::channels::{merge_with_strategy, weighted};
///
/// let (sender, receiver) = async_channel::unbounded();
/// let sources = [stream::repeat("paid").take(70), stream::repeat("free").take(70)];
/// let shares = weighted([9, 1]);
/// merge_with_strategy(&StepContext::new("merge"), sources, sender, shares).await?;
/// let first: Vec<_> = receiver.take(70).collect().await;
/// assert_eq!(first.iter().filter(|message| **message == "paid").count(), 63);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn weighted(weights: impl IntoIterator<Item = u32>) -> Weighted {
    let shares = weights.into_iter().map(|weight| Share { weight, left: weight });
    Weighted { shares: shares.collect(), last: None }
}

/// The strategy of [`weighted`].
///
/// ```
/// use watershed::channels::{MergeStrategy, SourceState::Ready, weighted};
/// let mut strategy = weighted([2, 1]);
/// assert_eq!([0; 4].map(|_| strategy.pick(&[Ready; 2]).unwrap()), [0, 1, 0, 0]);
/// ```
#[derive(Clone, Debug)]
pub struct Weighted {
    shares: Vec<Share>,
    /// The source picked last.
    last: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Share {
    weight: u32,
    /// What is left of it in this round.
    left: u32,
}

impl Share {
    /// Whether a larger part of this share is left than of the other.
    fn is_behind(self, other: Self) -> bool {
        let (left, other_left) = (u64::from(self.left), u64::from(other.left));
        left * u64::from(other.weight) > other_left * u64::from(self.weight)
    }
}

impl Weighted {
    /// The ready source with the largest part of its share left; the first one of several.
    fn most_behind(&self, sources: &[SourceState]) -> Option<usize> {
        let mut found: Option<(usize, Share)> = None;
        for (index, (share, state)) in self.shares.iter().zip(sources).enumerate() {
            if !state.is_ready() || share.left == 0 {
                continue;
            }
            if found.is_none_or(|(_, best)| share.is_behind(best)) {
                found = Some((index, *share));
            }
        }
        found.map(|(index, _)| index)
    }
}

impl MergeStrategy for Weighted {
    fn pick(&mut self, sources: &[SourceState]) -> Option<usize> {
        // A pick that found no message costs nothing, unless the source was woken again since: one
        // that wakes itself must not be picked for ever.
        if let Some(last) = self
            .last
            .take()
            .filter(|last| sources.get(*last).is_some_and(|state| !state.is_ready()))
        {
            let share = &mut self.shares[last];
            share.left = share.weight.min(share.left.saturating_add(1));
        }
        let mut picked = self.most_behind(sources);
        if picked.is_none() {
            for share in &mut self.shares {
                share.left = share.weight;
            }
            picked = self.most_behind(sources);
        }
        self.shares[picked?].left -= 1;
        self.last = picked;
        picked
    }

    fn check(&self, sources: usize) -> Result<(), Error> {
        let weights = self.shares.len();
        if self.shares.iter().any(|share| share.weight == 0) {
            return Err(Error::validation("the weight of a source must not be zero"));
        }
        if weights == sources {
            return Ok(());
        }
        let message = format!("there are {weights} weights for {sources} sources");
        Err(Error::validation(message))
    }
}
