//! How soon a queue is asked again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use watershed::transport::{Link, Want};
use watershed::{BoxError, CancellationSource, OnFailure, StepContext, fan_in};
use watershed_postgres::{LeasedRows, NewRow};

use crate::server::{Server, bodies, fetch, on_server, put, put_many, try_fetch};

const HOUR: Duration = Duration::from_hours(1);

/// A session that listens and waits.
const LISTENS: &str = "query like 'LISTEN%' and state = 'idle'";

async fn listening(server: &Server) -> LeasedRows {
    let queue = server.queue().listen().lease(HOUR * 3).asks_every(HOUR);
    queue.create().await.unwrap();
    queue
}

fn patient() -> Want {
    let mut want = Want::new(10);
    want.wait = Duration::from_secs(20);
    want
}

#[test]
fn a_hint_wakes_long_before_the_interval() {
    on_server(async |server| {
        let queue = listening(&server).await;
        let fetch = try_fetch(&queue, patient());
        let put = async {
            server.wait_for_sessions(LISTENS, 1..=1).await;
            put(&queue, &server, &[NewRow::new("new")]).await
        };
        let began = Instant::now();
        let (rows, _) = futures::join!(fetch, put);
        assert_eq!(bodies(&rows.unwrap()), ["new"]);
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        // The second time, it listens already.
        let put = async {
            server.wait_for_sessions(LISTENS, 1..=1).await;
            put_many(&queue, &server, 3).await;
        };
        let (rows, ()) = futures::join!(try_fetch(&queue, patient()), put);
        assert_eq!(rows.unwrap().len(), 3);
    });
}

#[test]
fn a_listener_that_is_lost_is_a_reason_to_ask_again() {
    on_server(async |server| {
        let queue = listening(&server).await;
        let fetch = try_fetch(&queue, patient());
        let lose = async {
            server.wait_for_sessions(LISTENS, 1..=1).await;
            // Nobody gives a hint of this one.
            put_many(&server.queue(), &server, 1).await;
            server.terminate(LISTENS).await;
        };
        let (rows, ()) = futures::join!(fetch, lose);
        assert_eq!(rows.unwrap().len(), 1);
        // And the next one listens again.
        let put = async {
            server.wait_for_sessions(LISTENS, 1..=1).await;
            put(&queue, &server, &[NewRow::new("new")]).await
        };
        let (rows, _) = futures::join!(try_fetch(&queue, patient()), put);
        assert_eq!(bodies(&rows.unwrap()), ["new"]);
    });
}

#[test]
fn a_fetch_that_is_stopped_returns_at_once_and_one_that_waited_returns_nothing() {
    on_server(async |server| {
        let queue = listening(&server).await;
        let (stop, mut want) = (CancellationSource::new(), patient());
        want.stop = stop.token();
        let cancel = async {
            server.wait_for_sessions(LISTENS, 1..=1).await;
            stop.cancel();
        };
        let began = Instant::now();
        let (rows, ()) = futures::join!(try_fetch(&queue, want.clone()), cancel);
        assert!(rows.unwrap().is_empty());
        put_many(&queue, &server, 1).await;
        // Stopped before it began: nothing is leased.
        assert!(try_fetch(&queue, want).await.unwrap().is_empty());
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        assert_eq!(fetch(&queue, 9).await.len(), 1);
        let mut short = patient();
        short.wait = Duration::from_millis(1);
        assert!(try_fetch(&queue, short).await.unwrap().is_empty());
    });
}

#[test]
fn without_any_hint_a_drain_asks_at_its_interval() {
    on_server(async |server| {
        let queue = server.queue().asks_every(Duration::from_millis(20));
        queue.create().await.unwrap();
        let other = server.queue();
        let link = Link::new(queue);
        let (done, handled) = (CancellationSource::new(), AtomicU32::new(0));
        let context = StepContext::new("orders");
        let drain = fan_in(&context, [link.source()], async |_, _| {
            if handled.fetch_add(1, Ordering::Relaxed) == 2 {
                done.cancel();
            }
            Ok::<_, BoxError>(())
        })
        .shutdown(done.token())
        .timeout(Duration::from_mins(1));
        let puts = async {
            for _ in 0..3 {
                let before = handled.load(Ordering::Relaxed);
                // The queue is found empty first.
                let asked = server.sessions("query_start > now() - interval '1 s'").await;
                put_many(&other, &server, 1).await;
                while handled.load(Ordering::Relaxed) == before {
                    server.texts("select ''").await;
                }
                drop(asked);
            }
        };
        let (report, ()) = futures::join!(drain.into_future(), puts);
        assert_eq!(report.unwrap().accepted(), 3);
    });
}

/// It is there again as soon as it is given back: a queue with it is not idle.
#[test]
fn a_row_that_always_fails_is_a_letter_before_the_drain_is_idle() {
    on_server(async |server| {
        let queue = server.queue().asks_every(Duration::from_millis(20));
        queue.create().await.unwrap();
        put_many(&queue, &server, 4).await;
        let link = Link::new(queue).max_deliveries(3);
        let context = StepContext::new("orders");
        let failed = AtomicU32::new(0);
        let drain = fan_in(&context, [link.source()], async |body: Vec<u8>, _| {
            if body == b"2" {
                failed.fetch_add(1, Ordering::Relaxed);
                return Err("it always fails");
            }
            Ok(())
        });
        let drain = drain.on_failure(OnFailure::Continue).until_idle().timeout(HOUR);
        let report = drain.await.unwrap();
        assert_eq!((report.accepted(), report.rejected()), (3, 1));
        assert_eq!(failed.into_inner(), 3);
    });
}
