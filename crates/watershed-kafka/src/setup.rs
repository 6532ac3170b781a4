//! What of the client's configuration is the adapter's, and what the user may say.

use std::time::Duration;

use rdkafka::ClientConfig;
use watershed::Error;

/// One of the two ends of what a topic holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// The first message that is held.
    #[default]
    Earliest,
    /// Behind the last one: what comes from now on.
    Latest,
}

/// What the user has said, checked.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) config: ClientConfig,
    pub(crate) topics: Vec<String>,
    pub(crate) start: Start,
    pub(crate) if_gone: Option<Start>,
    pub(crate) until_empty: bool,
    pub(crate) ahead_bytes: usize,
}

/// What settling needs of the client, and why another value cannot be.
const OURS: [(&str, &str, &str); 5] = [
    ("enable.auto.commit", "false", "a position is committed when its messages are done"),
    ("enable.auto.offset.store", "false", "a position is stored when its messages are done"),
    ("isolation.level", "read_committed", "what a producer has aborted is not delivered"),
    ("auto.offset.reset", "error", "say `start_at`: the adapter decides where a group starts"),
    ("enable.partition.eof", "", "say `until_empty`"),
];

const AHEAD: [&str; 2] = ["queued.max.messages.kbytes", "queued.min.messages"];

/// An answer that never comes is given up after 10 s, where nothing else is said: the client's own 60 s
/// are too long for a message that waits for it.
pub(crate) fn gives_up_soon(config: &mut ClientConfig) {
    if config.get("socket.timeout.ms").is_none() {
        config.set("socket.timeout.ms", "10000");
    }
}

impl Setup {
    pub(crate) fn new(config: ClientConfig, topics: Vec<String>) -> Result<Self, Error> {
        if config.get("group.id").is_none_or(str::is_empty) {
            return Err(Error::validation("the configuration has no `group.id`"));
        }
        if topics.is_empty() {
            return Err(Error::validation("there is no topic to consume"));
        }
        for (at, topic) in topics.iter().enumerate() {
            if topic.is_empty() || topic.starts_with('^') {
                let text = format!("`{topic}` is not the name of one topic");
                return Err(Error::validation(text));
            }
            if topics[..at].contains(topic) {
                return Err(Error::validation(format!("the topic `{topic}` is there twice")));
            }
        }
        for (key, value, why) in OURS {
            if config.get(key).is_some_and(|said| said != value) {
                let text = format!("`{key}` is the adapter's: {why}");
                return Err(Error::validation(text));
            }
        }
        if let Some(key) = AHEAD.iter().find(|key| config.get(key).is_some()) {
            let text = format!("`{key}` is the adapter's: say `ahead_bytes`");
            return Err(Error::validation(text));
        }
        // Names and values that the client does not know.
        let checked = config.create_native_config();
        checked.map_err(|error| Error::validation("the configuration").with_source(error))?;
        let ahead_bytes = 64 << 20;
        let start = Start::default();
        Ok(Self { config, topics, start, if_gone: None, until_empty: false, ahead_bytes })
    }

    /// The client's configuration, where the topics have so many partitions.
    pub(crate) fn of_member(&self, partitions: usize) -> ClientConfig {
        let mut config = self.config.clone();
        for (key, value, _) in OURS {
            config.set(key, value);
        }
        // A commit waits for its answer, and whoever leaves waits for that.
        if config.get("fetch.wait.max.ms").is_none() {
            gives_up_soon(&mut config);
        }
        config.set("enable.partition.eof", self.until_empty.to_string());
        // Half waits in the client, a quarter may be on its way there, a quarter is with the drain.
        let share = self.share(partitions);
        let queued = (share / 2 / 1024).clamp(1, 2_097_151);
        config.set("queued.max.messages.kbytes", queued.to_string());
        let said = ["fetch.message.max.bytes", "max.partition.fetch.bytes"];
        let said = said.iter().find_map(|key| config.get(key)?.parse().ok());
        let fetched = (share / 4).clamp(1, said.unwrap_or(1 << 20));
        config.remove("max.partition.fetch.bytes");
        config.set("fetch.message.max.bytes", fetched.to_string());
        config
    }

    /// For asking about topics, outside of the group.
    pub(crate) fn of_outsider(&self) -> ClientConfig {
        let mut config = self.config.clone();
        for key in ["group.id", "group.instance.id", "group.protocol", "group.remote.assignor"] {
            config.remove(key);
        }
        config
    }

    /// What one fetch of the drain may bring, in bytes.
    pub(crate) fn bytes_at_once(&self, partitions: usize) -> usize {
        self.share(partitions) / 8
    }

    fn share(&self, partitions: usize) -> usize {
        self.ahead_bytes / partitions.max(1)
    }

    /// How long the group waits for the answer to a revocation, with a quarter left for the commit.
    pub(crate) fn revoke_within(&self) -> Duration {
        let said = self.config.get("max.poll.interval.ms").and_then(|said| said.parse().ok());
        Duration::from_millis(said.unwrap_or(300_000_u64)) / 4 * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(pairs: &[(&str, &str)]) -> Result<Setup, Error> {
        let mut config = ClientConfig::new();
        config.set("group.id", "shop");
        for (key, value) in pairs {
            config.set(*key, *value);
        }
        Setup::new(config, vec!["orders".to_owned()])
    }

    #[test]
    fn what_settling_decides_cannot_be_said_otherwise() -> Result<(), Error> {
        for key in ["enable.auto.commit", "enable.auto.offset.store", "enable.partition.eof"] {
            let error = setup(&[(key, "true")]).expect_err(key);
            assert!(error.to_string().contains(key), "{error}");
        }
        let reset = setup(&[("auto.offset.reset", "earliest")]).expect_err("the reset");
        assert!(reset.to_string().contains("start_at"), "{reset}");
        let ahead = setup(&[("queued.max.messages.kbytes", "1")]).expect_err("ahead");
        assert!(ahead.to_string().contains("ahead_bytes"), "{ahead}");
        let aborted = setup(&[("isolation.level", "read_uncommitted")]).expect_err("aborted");
        assert!(aborted.to_string().contains("aborted"), "{aborted}");
        let unknown = setup(&[("no.such.thing", "1")]).expect_err("unknown");
        assert!(format!("{unknown:#}").contains("no.such.thing"), "{unknown:#}");
        setup(&[("enable.auto.commit", "false")]).map(drop)
    }

    #[test]
    fn the_client_commits_nothing_by_itself_and_leaves_out_what_was_aborted() -> Result<(), Error> {
        let config = setup(&[])?.of_member(1);
        for (key, value) in [
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "false"),
        ] {
            assert_eq!(config.get(key), Some(value), "{key}");
        }
        let known = config.create_native_config().map(drop);
        known.map_err(|cause| Error::validation("the client").with_source(cause))
    }

    #[test]
    fn a_group_and_its_topics_have_names() {
        let new = |topics: &[&str]| {
            let mut config = ClientConfig::new();
            config.set("group.id", "shop");
            Setup::new(config, topics.iter().map(|&topic| topic.to_owned()).collect())
        };
        for topics in [&[][..], &[""], &["^orders.*"], &["orders", "orders"]] {
            assert!(new(topics).is_err(), "{topics:?}");
        }
        assert!(Setup::new(ClientConfig::new(), vec!["orders".to_owned()]).is_err());
    }

    #[test]
    fn what_is_read_ahead_is_bounded_over_all_partitions() -> Result<(), Error> {
        for (ahead, partitions) in [(64 << 20, 1), (64 << 20, 50), (1 << 20, 3), (1 << 20, 12)] {
            let setup = Setup { ahead_bytes: ahead, ..setup(&[])? };
            let config = setup.of_member(partitions);
            let said = |key| config.get(key).and_then(|value| value.parse::<usize>().ok());
            let queued = said("queued.max.messages.kbytes").map(|kbytes| kbytes * 1024);
            let fetched = said("fetch.message.max.bytes");
            // The drain asks again when half of what it got is left.
            let held = 2 * setup.bytes_at_once(partitions);
            let all = (queued.unwrap_or(ahead) + fetched.unwrap_or(ahead) + held) * partitions;
            assert!(all <= ahead, "{all} of {ahead} for {partitions}");
            assert!(all * 3 >= ahead || partitions == 1, "{all} of {ahead} for {partitions}");
        }
        Ok(())
    }

    /// What waits in the client, by its own statistics.
    #[derive(Default)]
    struct Waiting(std::sync::Mutex<Vec<u64>>);

    impl rdkafka::ClientContext for Waiting {
        fn stats(&self, said: rdkafka::Statistics) {
            let partitions = said.topics.values().flat_map(|topic| topic.partitions.values());
            let bytes = partitions.map(|partition| partition.fetchq_size).sum();
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(bytes);
        }
    }

    impl rdkafka::consumer::ConsumerContext for Waiting {}

    #[test]
    fn a_client_that_nobody_reads_from_holds_no_more_than_its_share()
    -> Result<(), Box<dyn std::error::Error>> {
        use rdkafka::consumer::{BaseConsumer, Consumer as _};
        use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

        const AHEAD: usize = 256 << 10;
        let cluster = rdkafka::mocking::MockCluster::new(1)?;
        cluster.create_topic("orders", 4, 1)?;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers());
        // A batch of records is read whole.
        let producer: BaseProducer = config.clone().set("batch.num.messages", "2").create()?;
        let body = vec![7; 4_000];
        for number in 0..1_000 {
            let record = BaseRecord::<(), [u8]>::to("orders").partition(number % 4).payload(&body);
            producer.send(record).map_err(|(cause, _)| cause)?;
        }
        producer.flush(Duration::from_secs(20))?;

        config.set("group.id", "shop").set("statistics.interval.ms", "100");
        let setup = Setup::new(config, vec!["orders".to_owned()])?;
        let config = Setup { ahead_bytes: AHEAD, ..setup }.of_member(4);
        let client: BaseConsumer<Waiting> = config.create_with_context(Waiting::default())?;
        let mut tpl = rdkafka::TopicPartitionList::new();
        tpl.add_partition_range("orders", 0, 3);
        tpl.set_all_offsets(rdkafka::Offset::Offset(0))?;
        let client = std::sync::Arc::new(client);
        let queues: Vec<_> =
            (0..4).filter_map(|number| client.split_partition_queue("orders", number)).collect();
        client.assign(&tpl)?;
        let said = || {
            let said = client.context().0.lock();
            said.unwrap_or_else(std::sync::PoisonError::into_inner).clone()
        };
        // Until it has said the same ten times: it fetches no more.
        let is_full = |said: &[u64]| {
            let last = &said[said.len().saturating_sub(10)..];
            last.len() == 10 && last[0] > 0 && last.iter().all(|bytes| *bytes == last[0])
        };
        while !is_full(&said()) {
            drop(client.poll(Duration::from_millis(100)));
        }
        drop(queues);
        let most = said().into_iter().max().unwrap_or(0);
        assert!(most > 0 && most <= AHEAD as u64, "{most} of {AHEAD}");
        Ok(())
    }
}
