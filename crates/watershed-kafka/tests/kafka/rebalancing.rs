//! Members that come and go while messages are in flight.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use watershed::transport::{Link, Settled, Transport as _, Verdict};
use watershed::{BoxError, CancellationSource, FanInReport, StepContext, fan_in};
use watershed_kafka::rdkafka::ClientConfig;
use watershed_kafka::{Consumer, Receipt};

use crate::support::{PATIENCE, broker, number, unique, until_empty};

const MESSAGES: u32 = 3_000;

/// How often each message was handled, and by whom first.
type Seen = Mutex<BTreeMap<u32, Vec<&'static str>>>;

/// Handles messages until it is told to stop, each for a while.
fn work(
    (name, config, topic): (&'static str, ClientConfig, &str),
    seen: &Seen,
    stop: &CancellationSource,
    enough: impl Fn(u32) -> bool,
) -> Result<FanInReport, BoxError> {
    let link = Link::new(Consumer::new(config, [topic])?);
    let context = StepContext::new(name);
    let drain = fan_in(&context, [], async |message, _| {
        smol::Timer::after(Duration::from_millis(20)).await;
        let mut seen = seen.lock().map_err(|_| "a handler has panicked")?;
        seen.entry(number(&message)).or_default().push(name);
        if enough(u32::try_from(seen.len())?) {
            stop.cancel();
        }
        Ok::<_, BoxError>(())
    });
    let drain = drain.incoming(link.assigned()).concurrency(4);
    let drain = drain.shutdown(stop.token()).timeout(PATIENCE * 2);
    Ok(smol::block_on(drain.into_future())?)
}

/// One member works; another comes in the middle; then the first one goes. Each message is handled once.
fn comes_and_goes(strategy: &str) -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let (topic, group) = (broker.topic(strategy, 4)?, unique(strategy));
    broker.put(&topic, 4, 0..MESSAGES)?;
    let (seen, first, second) =
        (Seen::default(), CancellationSource::new(), CancellationSource::new());
    let config = || {
        let mut config = broker.member(&group);
        config.set("partition.assignment.strategy", strategy);
        config
    };
    let by_second = AtomicU32::new(0);
    let reports = thread::scope(|scope| {
        let one =
            scope.spawn(|| work(("first", config(), &topic), &seen, &first, |all| all == MESSAGES));
        while seen.lock().is_ok_and(|seen| seen.len() < 10) && !one.is_finished() {
            thread::yield_now();
        }
        let two = scope.spawn(|| {
            work(("second", config(), &topic), &seen, &second, |all| {
                if by_second.fetch_add(1, Ordering::Relaxed) == 50 {
                    first.cancel();
                }
                all == MESSAGES
            })
        });
        let one = one.join().map_err(|_| "the first one panicked")??;
        let two = two.join().map_err(|_| "the second one panicked")??;
        Ok::<_, BoxError>([one, two])
    })?;
    let seen = seen.into_inner()?;
    let twice: Vec<_> = seen.iter().filter(|(_, by)| by.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(seen.keys().copied().eq(0..MESSAGES));
    let [one, two] = reports;
    assert_eq!(one.accepted() + two.accepted(), u64::from(MESSAGES));
    // The second one has also taken over what the first one has left.
    assert!(one.accepted() > 0 && two.sources().len() > 3, "{two:?}");
    assert_eq!((one.lost(), two.lost(), one.unknown(), two.unknown()), (0, 0, 0, 0));
    let committed = broker.committed(&group, &topic, 4)?;
    assert_eq!(committed.into_iter().flatten().sum::<i64>(), i64::from(MESSAGES));
    Ok(())
}

#[test]
fn a_cooperative_rebalance_loses_and_repeats_nothing() -> Result<(), BoxError> {
    comes_and_goes("cooperative-sticky")
}

#[test]
fn an_eager_rebalance_loses_and_repeats_nothing() -> Result<(), BoxError> {
    comes_and_goes("range")
}

#[test]
fn a_handler_that_is_slow_keeps_its_place_in_the_group() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let topic = broker.topic("slow", 1)?;
    broker.put(&topic, 1, 0..1)?;
    let mut config = broker.member(&unique("shop"));
    config.set("max.poll.interval.ms", "6000");
    let link = Link::new(Consumer::new(config, [topic])?);
    let (stop, context) = (CancellationSource::new(), StepContext::new("orders"));
    let drain = fan_in(&context, [], async |_, _| {
        smol::Timer::after(Duration::from_secs(8)).await;
        stop.cancel();
        Ok::<_, BoxError>(())
    });
    let drain = drain.incoming(link.assigned()).shutdown(stop.token()).timeout(PATIENCE);
    let report = smol::block_on(drain.into_future())?;
    assert_eq!((report.fetched(), report.accepted(), report.lost()), (1, 1, 0));
    Ok(())
}

#[test]
fn what_was_revoked_settles_nothing() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let (topic, group) = (broker.topic("revoked", 2)?, unique("shop"));
    broker.put(&topic, 2, 0..6)?;
    let config = || {
        let mut config = broker.member(&group);
        config.set("partition.assignment.strategy", "cooperative-sticky");
        config
    };
    let link =
        Link::new(Consumer::new(config(), [&topic])?).revoke_within(Duration::from_millis(500));
    let (first, second) = (CancellationSource::new(), CancellationSource::new());
    let receipts = Mutex::new(Vec::<Receipt>::new());
    let has_both = CancellationSource::new();
    let (report, taken) = thread::scope(|scope| {
        let one = scope.spawn(|| {
            let context = StepContext::new("first");
            // It has the first message of each partition in work until the end.
            let drain = fan_in(&context, [], async |_, step| {
                let receipt = step.receipt::<Receipt>(0).ok_or("there is no receipt")?;
                let is_both = {
                    let mut receipts = receipts.lock().map_err(|_| "a handler has panicked")?;
                    receipts.push(receipt);
                    [0, 1].iter().all(|of| receipts.iter().any(|it| it.partition() == *of))
                };
                if is_both {
                    has_both.cancel();
                }
                first.token().cancelled().await;
                Ok::<_, BoxError>(())
            });
            let drain = drain.incoming(link.assigned()).concurrency(8).shutdown(first.token());
            smol::block_on(drain.timeout(PATIENCE).into_future())
        });
        smol::block_on(has_both.token().cancelled());
        let consumer = Consumer::new(config(), [&topic])?;
        let other = Link::new(consumer);
        let context = StepContext::new("second");
        let taken = Mutex::new(Vec::new());
        let drain = fan_in(&context, [], async |_, step| {
            let receipt = step.receipt::<Receipt>(0).ok_or("there is no receipt")?;
            let mut taken = taken.lock().map_err(|_| "a handler has panicked")?;
            taken.push((receipt.partition(), receipt.offset()));
            if taken.len() == 3 {
                second.cancel();
            }
            Ok::<_, BoxError>(())
        });
        let drain = drain.incoming(other.assigned()).shutdown(second.token()).timeout(PATIENCE);
        smol::block_on(drain.into_future())?;
        let taken = taken.into_inner()?;
        let partition = taken.first().ok_or("nothing was taken over")?.0;
        // What the first one has of it is stale: the broker would take it.
        let stale = receipts.lock().map_err(|_| "a handler has panicked")?.clone();
        let stale = stale.into_iter().find(|it| it.partition() == partition && it.offset() == 0);
        let batch = vec![(stale.ok_or("the first one has not had it")?, Verdict::Accept)];
        let settled = smol::block_on(link.transport().settle(batch));
        assert!(matches!(settled[..], [Settled::Lost(_)]), "{settled:?}");
        let committed = broker.committed(&group, &topic, 2)?;
        let at = usize::try_from(partition)?;
        assert_eq!(committed[at], Some(3), "{committed:?}");
        first.cancel();
        let report = one.join().map_err(|_| "the first one panicked")??;
        Ok::<_, BoxError>((report, taken))
    })?;
    let partition = taken[0].0;
    assert_eq!(taken, [(partition, 0), (partition, 1), (partition, 2)]);
    assert!(report.lost() > 0 && report.accepted() > 0, "{report:?}");
    Ok(())
}

#[test]
fn a_consumer_that_is_dropped_with_a_question_open_leaves_its_group() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let (topic, group) = (broker.topic("dropped", 2)?, unique("shop"));
    broker.put(&topic, 2, 0..2)?;
    let link = Link::new(Consumer::new(broker.member(&group), [&topic])?);
    let context = StepContext::new("first");
    let begun = CancellationSource::new();
    let drain = fan_in(&context, [], async |_, _| {
        begun.cancel();
        std::future::pending::<Result<(), BoxError>>().await
    });
    let drain = drain.incoming(link.assigned()).concurrency(2).into_future();
    let other = Link::new(Consumer::new(broker.member(&group), [&topic])?);
    let (stop, seen) = (CancellationSource::new(), Mutex::new(Vec::new()));
    let after = StepContext::new("second");
    let second = fan_in(&after, [], async |message, _| {
        let mut seen = seen.lock().map_err(|_| "a handler has panicked")?;
        seen.push(number(&message));
        if seen.len() == 2 {
            stop.cancel();
        }
        Ok::<_, BoxError>(())
    });
    let second = second.incoming(other.assigned()).shutdown(stop.token()).timeout(PATIENCE);
    smol::block_on(async {
        // Both are in the group, and the first one is asked for a partition that it does not give up.
        smol::future::or(
            async {
                let ended = drain.await;
                Err::<(), BoxError>(format!("the first one has ended: {ended:?}").into())
            },
            async {
                begun.token().cancelled().await;
                smol::Timer::after(Duration::from_secs(5)).await;
                Ok(())
            },
        )
        .await?;
        context.scope().clear();
        drop(link);
        second.await?;
        Ok::<_, BoxError>(())
    })?;
    let mut seen = seen.into_inner()?;
    seen.sort_unstable();
    assert_eq!(seen, [0, 1]);
    Ok(())
}

#[test]
fn a_member_without_a_partition_has_not_caught_up_before_it_has_looked() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let (topic, group) = (broker.topic("spare", 1)?, unique("shop"));
    broker.put(&topic, 1, 0..5)?;
    let config = || {
        let mut config = broker.member(&group);
        config.set("partition.assignment.strategy", "cooperative-sticky");
        config
    };
    let (start, stop) = (CancellationSource::new(), CancellationSource::new());
    thread::scope(|scope| {
        let one = scope.spawn(|| {
            let link = Link::new(Consumer::new(config(), [&topic])?);
            let context = StepContext::new("first");
            // It ends after the first message, when the other one is there and has nothing.
            let drain = fan_in(&context, [], async |_, _| {
                start.cancel();
                smol::Timer::after(Duration::from_secs(6)).await;
                stop.cancel();
                Ok::<_, BoxError>(())
            });
            let drain = drain.incoming(link.assigned()).shutdown(stop.token()).timeout(PATIENCE);
            Ok::<_, BoxError>(smol::block_on(drain.into_future())?.accepted())
        });
        smol::block_on(start.token().cancelled());
        let (report, _) = until_empty(Consumer::new(config(), [&topic])?)?;
        let first = one.join().map_err(|_| "the first one panicked")??;
        assert_eq!((first, report.accepted()), (1, 4));
        Ok(())
    })
}
