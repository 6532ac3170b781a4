//! The suite for transports, and other executors.

use std::ops::Range;
use std::time::Duration;

use sqlx::postgres::PgPool;
use watershed::testing::{Broker, conformance};
use watershed::transport::Link;
use watershed::{BoxError, StepContext, fan_in};
use watershed_postgres::{LeasedRows, NewRow};

use crate::server::{Server, on_server, pool_of, put_many};

const LEASE: Duration = Duration::from_secs(1);

struct Queue<'a> {
    server: &'a Server,
    pool: PgPool,
    change: fn(LeasedRows) -> LeasedRows,
}

impl Queue<'_> {
    fn queue(&self) -> LeasedRows {
        let queue = self.server.queue_on(self.pool.clone()).prefetch(8).lease(LEASE);
        (self.change)(queue.asks_every(Duration::from_millis(50)))
    }
}

impl Broker for Queue<'_> {
    type Transport = LeasedRows;

    async fn connect(&self) -> Result<Link<LeasedRows>, BoxError> {
        Ok(Link::new(self.queue()))
    }

    async fn put(&self, numbers: Range<u32>) -> Result<(), BoxError> {
        let queue = self.queue();
        let mut transaction = self.pool.begin().await?;
        for number in numbers {
            let (body, key) = (number.to_string(), (number % 5).to_string());
            let row = NewRow::new(&body);
            let is_keyed = queue.schema()?.contains("customer");
            let row = if is_keyed { row.key(&key) } else { row };
            queue.enqueue(&mut transaction, [row]).await?;
        }
        Ok(transaction.commit().await?)
    }

    fn number(&self, message: &Vec<u8>) -> u32 {
        std::str::from_utf8(message).unwrap().parse().unwrap()
    }

    fn comes_again_after(&self) -> Duration {
        LEASE + Duration::from_millis(200)
    }
}

fn passes(change: fn(LeasedRows) -> LeasedRows) {
    on_server(async |server| {
        let queue = Queue { pool: pool_of(12, server.options()), server: &server, change };
        queue.queue().create().await.unwrap();
        let result = conformance(&StepContext::new("suite"), &queue).await;
        if let Err(error) = result {
            let all: Vec<_> = error.related().iter().map(|one| format!("{one:#}")).collect();
            panic!("{error}: {all:#?}");
        }
    });
}

#[test]
fn a_queue_passes_the_suite() {
    passes(|queue| queue);
}

#[test]
fn a_queue_with_keys_passes_the_suite() {
    passes(|queue| queue.key_column("customer"));
}

#[test]
fn a_queue_that_listens_passes_the_suite() {
    passes(LeasedRows::listen);
}

#[test]
fn a_drain_that_tokio_polls_works_as_well() {
    on_server(async |server| {
        let queue = server.queue().asks_every(Duration::from_millis(20));
        queue.create().await.unwrap();
        put_many(&queue, &server, 50).await;
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async move {
                let link = Link::new(queue);
                let context = StepContext::new("orders");
                fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()))
                    .until_idle()
                    .await
            })
        });
        let report = smol::unblock(|| thread.join().unwrap()).await.unwrap();
        assert_eq!((report.fetched(), report.accepted()), (50, 50));
    });
}
