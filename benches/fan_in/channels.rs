//! The sources: channels that are full and closed.

use async_channel::Receiver;
use clap::ValueEnum;

/// How many messages lie in how many channels, and of which kind these are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    pub(crate) sources: u32,
    pub(crate) messages: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// As long as the share of messages: taking one frees nothing.
    Bounded,
    /// A list of blocks: taking the last message of a block frees it.
    Unbounded,
}

impl Load {
    /// The channels, with the numbers below `messages` spread evenly over them and no sender left:
    /// whoever has taken everything sees them end.
    pub(crate) fn channels(self) -> Vec<Receiver<u64>> {
        let mut numbers = 0..u64::from(self.messages);
        (0..self.sources)
            .map(|source| {
                let longer = source < self.messages % self.sources;
                let length = (self.messages / self.sources + u32::from(longer)) as usize;
                let (sender, receiver) = match self.kind {
                    Kind::Bounded => async_channel::bounded(length.max(1)),
                    Kind::Unbounded => async_channel::unbounded(),
                };
                for number in numbers.by_ref().take(length) {
                    sender.try_send(number).expect("the channel is as long as its share");
                }
                receiver
            })
            .collect()
    }

    /// What the messages add up to.
    pub(crate) fn sum(self) -> u64 {
        (0..u64::from(self.messages)).sum()
    }
}
