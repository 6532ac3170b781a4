//! The sources: channels that are full and closed.

use std::time::Duration;

use async_channel::Receiver;
use clap::ValueEnum;

/// How much there is to do: so many messages at so great a size, which most sections take as the
/// number of channels that the messages lie in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    pub(crate) size: u32,
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
        self.channels_of(|number| number)
    }

    /// The channels with something made of each number.
    pub(crate) fn channels_of<T>(self, make: impl Fn(u64) -> T) -> Vec<Receiver<T>> {
        let mut numbers = 0..u64::from(self.messages);
        (0..self.size)
            .map(|source| {
                let longer = source < self.messages % self.size;
                let length = (self.messages / self.size + u32::from(longer)) as usize;
                let (sender, receiver) = match self.kind {
                    Kind::Bounded => async_channel::bounded(length.max(1)),
                    Kind::Unbounded => async_channel::unbounded(),
                };
                for number in numbers.by_ref().take(length) {
                    let sent = sender.try_send(make(number)).is_ok();
                    assert!(sent, "the channel is as long as its share");
                }
                receiver
            })
            .collect()
    }

    /// What the messages add up to.
    pub(crate) fn sum(self) -> u64 {
        (0..u64::from(self.messages)).sum()
    }

    /// The nanoseconds a message.
    pub(crate) fn each(self, took: Duration) -> Vec<f64> {
        vec![took.as_secs_f64() * 1e9 / f64::from(self.messages)]
    }

    /// The same in so many channels.
    pub(crate) fn in_channels(self, sources: u32) -> Self {
        Self { size: sources, ..self }
    }
}
