//! The server that the tests run on, with a schema for each test.

use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Row};
use watershed::transport::{Facts, Settled, Transport, Trouble, Verdict, Want};
use watershed_postgres::{Lease, LeasedRows, NewRow};

const URL: &str = "WATERSHED_POSTGRES_URL";

/// How long a test waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A schema of one test's own.
pub(crate) struct Server {
    url: String,
    name: String,
    /// For whatever the test itself does.
    pub(crate) pool: PgPool,
}

/// Runs a test on the server, or says how to get one.
pub(crate) fn on_server<F: Future<Output = ()>>(test: impl FnOnce(Server) -> F) {
    static TESTS: AtomicU32 = AtomicU32::new(0);
    let Ok(url) = std::env::var(URL) else {
        let text = format!(
            "PostgreSQL is missing: not tested. `.ci/postgres cargo test -p watershed-postgres` starts \
             one; {URL} says where another one is."
        );
        assert_ne!(std::env::var("WATERSHED_SERVERS").as_deref(), Ok("required"), "{text}");
        return eprintln!("{text}");
    };
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
    let name = format!("test_{since}_{}", TESTS.fetch_add(1, Ordering::Relaxed));
    smol::block_on(async {
        let pool = PgPoolOptions::new().max_connections(4).connect(&url).await.unwrap();
        let server = Server { url, name: name.clone(), pool: pool.clone() };
        server.execute(&format!("create schema {name}")).await;
        test(server).await;
        let drop = format!("drop schema {name} cascade");
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&pool).await.unwrap();
    });
}

pub(crate) fn pool_of(most: u32, options: PgConnectOptions) -> PgPool {
    // One that waits in vain says so within the test.
    let pool = PgPoolOptions::new().max_connections(most);
    pool.acquire_timeout(Duration::from_secs(5)).connect_lazy_with(options)
}

impl Server {
    /// A table of the test's schema.
    pub(crate) fn table(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    /// How to connect; the sessions are found by the schema's name.
    pub(crate) fn options(&self) -> PgConnectOptions {
        self.url.parse::<PgConnectOptions>().unwrap().application_name(&self.name)
    }

    pub(crate) fn queue(&self) -> LeasedRows {
        self.queue_on(pool_of(5, self.options()))
    }

    pub(crate) fn queue_on(&self, pool: PgPool) -> LeasedRows {
        LeasedRows::new(pool, self.table("orders")).prefetch(100)
    }

    pub(crate) async fn execute(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await.unwrap();
    }

    /// The first column of what a query finds, as text. `orders` stands for the queue's table.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let sql = sql.replace("orders", &self.table("orders"));
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&self.pool).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    pub(crate) async fn text(&self, sql: &str) -> String {
        self.texts(sql).await.pop().expect("a row")
    }

    /// The sessions of the test's queues that are so.
    pub(crate) async fn sessions(&self, condition: &str) -> Vec<String> {
        let sql = format!(
            "select pid::text from pg_stat_activity where application_name = '{}' and {condition}
                order by pid",
            self.name
        );
        self.texts(&sql).await
    }

    /// Waits until there are so many sessions of that kind.
    pub(crate) async fn wait_for_sessions(&self, condition: &str, counts: RangeInclusive<usize>) {
        let began = Instant::now();
        loop {
            let found = self.sessions(condition).await;
            if counts.contains(&found.len()) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{condition}: {found:?}, not {counts:?}");
        }
    }

    /// Ends the sessions of that kind, as an administrator would.
    pub(crate) async fn terminate(&self, condition: &str) {
        let pids = self.sessions(condition).await;
        assert!(!pids.is_empty(), "no session is so: {condition}");
        self.texts(&format!(
            "select pg_terminate_backend(pid, 10000)::text from pg_stat_activity
                where application_name = '{}' and {condition}",
            self.name
        ))
        .await;
    }

    /// A trigger on the queue's table: `when` is as SQL has it, `body` is what it does.
    pub(crate) async fn trigger(&self, when: &str, kind: &str, body: &str) {
        let (name, table) = (&self.name, self.table("orders"));
        self.execute(&format!(
            "create or replace function {name}.fires() returns trigger language plpgsql as
                $$ begin {body} return coalesce(new, old); end $$;
             create {kind} fires {when} {table} {} for each row execute function {name}.fires()",
            if kind == "trigger" { "" } else { "deferrable initially deferred" }
        ))
        .await;
    }

    pub(crate) async fn drop_trigger(&self) {
        self.execute(&format!("drop trigger fires on {}", self.table("orders"))).await;
    }
}

/// A row as it was fetched.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) body: String,
    pub(crate) lease: Lease,
    pub(crate) facts: Facts,
}

pub(crate) async fn put(queue: &LeasedRows, server: &Server, rows: &[NewRow<'_>]) -> Vec<i64> {
    let mut transaction = server.pool.begin().await.unwrap();
    let ids = queue.enqueue(&mut transaction, rows.iter().cloned()).await.unwrap();
    transaction.commit().await.unwrap();
    ids
}

/// Puts so many rows, without keys.
pub(crate) async fn put_many(queue: &LeasedRows, server: &Server, count: usize) {
    let bodies: Vec<_> = (0..count).map(|number| number.to_string()).collect();
    let rows: Vec<_> = bodies.iter().map(NewRow::new).collect();
    put(queue, server, &rows).await;
}

pub(crate) async fn try_fetch(queue: &LeasedRows, want: Want) -> Result<Vec<Fetched>, Trouble> {
    let fetched = queue.fetch(want).await?.expect("a queue has no end");
    let row = |received: watershed::transport::Received<Vec<u8>, Lease>| {
        let (body, lease, _, facts) = received.into_parts();
        Fetched { body: String::from_utf8(body).unwrap(), lease, facts }
    };
    Ok(fetched.into_iter().map(row).collect())
}

pub(crate) async fn fetch(queue: &LeasedRows, at_most: usize) -> Vec<Fetched> {
    try_fetch(queue, Want::new(at_most)).await.unwrap()
}

pub(crate) fn bodies(rows: &[Fetched]) -> Vec<&str> {
    rows.iter().map(|row| row.body.as_str()).collect()
}

/// Gives every row the same verdict.
pub(crate) async fn settle(queue: &LeasedRows, rows: &[Fetched], verdict: Verdict) -> Vec<Settled> {
    let batch = rows.iter().map(|row| (row.lease.clone(), verdict.clone()));
    queue.settle(batch.collect()).await
}

pub(crate) const BACK: Verdict = Verdict::Release { after: None, begun: true };

pub(crate) fn reject(text: &'static str) -> Verdict {
    Verdict::Reject { error: watershed::Error::validation(text) }
}

/// The outcomes, each by its first letter.
pub(crate) fn letters(outcomes: &[Settled]) -> String {
    let letter = |outcome: &Settled| match outcome {
        Settled::Confirmed => 'C',
        Settled::Sent => 'S',
        Settled::Refused(_) => 'R',
        Settled::Lost(_) => 'L',
        Settled::Unknown(_) => 'U',
    };
    outcomes.iter().map(letter).collect()
}
