//! What is leased, to whom, and for how long.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::future::join_all;
use watershed::transport::{Able, Link, Transport, Verdict};
use watershed::{BoxError, CancellationSource, ErrorCode, StepContext, fan_in};
use watershed_postgres::{Lease, NewRow};

use crate::server::{BACK, bodies, fetch, letters, on_server, pool_of, put, put_many, settle};

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn a_claim_leases_exactly_what_it_returns_and_at_most_what_was_asked_for() {
    on_server(async |server| {
        // So a server plans, which takes the table to be small, to run a plain subquery for each row.
        let plans = ["hashjoin", "mergejoin", "material", "hashagg", "sort"];
        let settings = plans.map(|plan| (format!("enable_{plan}"), "off"));
        let queue = server.queue_on(pool_of(5, server.options().options(settings)));
        queue.create().await.unwrap();
        put_many(&queue, &server, 1).await;
        server.execute(&format!("analyze {}", server.table("orders"))).await;
        put_many(&queue, &server, 150).await;
        for fetched in 1..=10 {
            assert_eq!(fetch(&queue, 7).await.len(), 7);
            let leased = server.text("select count(*)::text from orders where token > 0").await;
            assert_eq!(leased, (fetched * 7).to_string());
        }
    });
}

#[test]
fn no_statement_reads_the_table_from_its_beginning_to_its_end() {
    on_server(async |server| {
        let pool = pool_of(5, server.options());
        let queue = server.queue_on(pool.clone());
        queue.create().await.unwrap();
        // Few enough for a planner to think that reading all of them is cheaper than finding a hundred.
        put_many(&queue, &server, 5_000).await;
        for _ in 0..10 {
            let rows = fetch(&queue, 100).await;
            let leases = rows.iter().map(|row| row.lease.clone()).collect();
            assert_eq!(queue.renew(leases).await.len(), 100);
            let outcomes = settle(&queue, &rows, Verdict::Accept).await;
            assert_eq!(letters(&outcomes), "C".repeat(100));
        }
        queue.close().await.unwrap();
        // A session tells what it has read when it ends.
        pool.close().await;
        let told = "select (n_tup_upd = 2000 and n_tup_del = 1000)::text from pg_stat_user_tables
            where relid = 'orders'::regclass";
        let began = Instant::now();
        while server.text(told).await != "true" {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "the leases, renewals and deletes are not told"
            );
        }
        let read = "select seq_tup_read::text from pg_stat_user_tables
            where relid = 'orders'::regclass";
        let read: u64 = server.text(read).await.parse().unwrap();
        assert!(read < 5_000, "{read} rows were read one after another");
    });
}

#[test]
fn claims_at_once_share_the_rows_and_wait_for_nobody() {
    on_server(async |server| {
        let queues: Vec<_> = (0..4).map(|_| server.queue()).collect();
        queues[0].create().await.unwrap();
        put_many(&queues[0], &server, 300).await;
        let all = join_all(queues.iter().map(async |queue| {
            let mut all = Vec::new();
            loop {
                let rows = fetch(queue, 7).await;
                assert!(rows.len() <= 7);
                if rows.is_empty() {
                    return all;
                }
                all.extend(rows.into_iter().map(|row| row.body));
            }
        }));
        let all: Vec<_> = all.await.concat();
        let different: BTreeSet<_> = all.iter().collect();
        // One that another claim had locked was skipped, and came with a later one.
        assert_eq!((all.len(), different.len()), (300, 300));
    });
}

#[test]
fn rows_are_handed_on_in_the_order_of_their_ids() {
    on_server(async |server| {
        let queue = server.queue();
        queue.create().await.unwrap();
        put_many(&queue, &server, 50).await;
        let rows = fetch(&queue, 50).await;
        assert!(rows.is_sorted_by_key(|row| row.lease.id()));
        assert_eq!(bodies(&rows)[..3], ["0", "1", "2"]);
    });
}

#[test]
fn a_row_is_leased_only_while_no_earlier_row_of_its_key_exists() {
    on_server(async |server| {
        let queue = server.queue().key_column("customer");
        queue.create().await.unwrap();
        let row = |body, key| NewRow::new(body).key(key);
        let all = [
            row("a1", "a"),
            row("a2", "a"),
            row("b1", "b"),
            row("a3", "a"),
            NewRow::new("free"),
            NewRow::new("also free"),
        ];
        put(&queue, &server, &all).await;
        let first = fetch(&queue, 100).await;
        assert_eq!(bodies(&first), ["a1", "b1", "free", "also free"]);
        assert_eq!(first[0].facts.group.as_deref(), Some("a"));
        assert_eq!(first[2].facts.group, None);
        // The earlier one is leased.
        assert!(fetch(&queue, 100).await.is_empty());
        settle(&queue, &first[..1], Verdict::Accept).await;
        let second = fetch(&queue, 100).await;
        assert_eq!(bodies(&second), ["a2"]);
        // The earlier one waits.
        let later = Verdict::Release { after: Some(Duration::from_hours(1)), begun: true };
        settle(&queue, &second, later).await;
        assert!(fetch(&queue, 100).await.is_empty());
        // It comes again as the head of its key, not behind it.
        server.texts("update orders set not_before = '-infinity' where id = 2 returning ''").await;
        assert_eq!(bodies(&fetch(&queue, 100).await), ["a2"]);
    });
}

#[test]
fn the_next_row_of_a_key_is_asked_for_as_soon_as_the_one_before_is_gone() {
    on_server(async |server| {
        for by_hand in [false, true] {
            let queue = server.queue().key_column("customer").asks_every(HOUR);
            queue.create().await.unwrap();
            let rows = ["1", "2", "3", "4", "5"].map(|body| NewRow::new(body).key("a"));
            put(&queue, &server, &rows).await;
            let link = Link::new(queue);
            let (stop, handled) = (CancellationSource::new(), Mutex::new(Vec::new()));
            let drain =
                fan_in(&StepContext::new("a"), [link.source()], async |body: Vec<u8>, step| {
                    if by_hand {
                        let lease = step.receipt::<Lease>(0).ok_or("the lease has run out")?;
                        lease.commit(server.pool.begin().await?, &step).await?;
                    }
                    handled.lock().unwrap().extend(body);
                    if handled.lock().unwrap().len() == 5 {
                        stop.cancel();
                    }
                    Ok::<_, BoxError>(())
                })
                .shutdown(stop.token())
                .timeout(Duration::from_mins(1));
            assert_eq!(drain.await.unwrap().accepted(), 5);
            assert_eq!(*handled.lock().unwrap(), b"12345");
        }
    });
}

#[test]
fn a_drain_that_wants_no_order_of_a_queue_with_keys_is_a_validation_error() {
    on_server(async |server| {
        let link = Link::new(server.queue().key_column("customer"));
        let context = StepContext::new("orders");
        let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
        let failure = drain.unordered().concurrency(2).await.unwrap_err();
        assert_eq!(failure.error().code(), ErrorCode::Validation);
    });
}

#[test]
fn a_blocked_key_hides_no_other() {
    on_server(async |server| {
        let queue = server.queue().key_column("customer");
        queue.create().await.unwrap();
        let mut rows = vec![NewRow::new("busy").key("busy"); 500];
        rows.push(NewRow::new("other").key("other"));
        put(&queue, &server, &rows).await;
        assert_eq!(bodies(&fetch(&queue, 1).await), ["busy"]);
        assert_eq!(bodies(&fetch(&queue, 1).await), ["other"]);
    });
}

#[test]
fn rows_of_a_key_are_in_the_order_in_which_their_transactions_commit() {
    on_server(async |server| {
        let queue = server.queue().key_column("customer");
        queue.create().await.unwrap();
        let mut early = server.pool.begin().await.unwrap();
        queue.enqueue(&mut early, [NewRow::new("early").key("a")]).await.unwrap();

        let pool = pool_of(2, server.options());
        let late = async {
            let mut late = pool.begin().await.unwrap();
            // One of another key waits for nobody.
            queue.enqueue(&mut late, [NewRow::new("other").key("b")]).await.unwrap();
            queue.enqueue(&mut late, [NewRow::new("late").key("a")]).await.unwrap();
            late.commit().await.unwrap();
        };
        let watch = async {
            server.wait_for_sessions("wait_event_type = 'Lock'", 1..=1).await;
            early.commit().await.unwrap();
        };
        futures::join!(late, watch);
        let sql = "select convert_from(body, 'UTF8') from orders where customer = 'a' order by id";
        assert_eq!(server.texts(sql).await, ["early", "late"]);
    });
}

#[test]
fn what_is_enqueued_is_there_when_the_transaction_commits_and_not_before_its_delay() {
    on_server(async |server| {
        let queue = server.queue();
        queue.create().await.unwrap();
        let mut transaction = server.pool.begin().await.unwrap();
        queue.enqueue(&mut transaction, [NewRow::new("undone")]).await.unwrap();
        transaction.rollback().await.unwrap();
        let mut transaction = server.pool.begin().await.unwrap();
        sqlx::raw_sql("select pg_sleep(0.2)").execute(&mut *transaction).await.unwrap();
        let late = NewRow::new("late").after(Duration::from_hours(1));
        queue.enqueue(&mut transaction, [NewRow::new(&[0, 255, 7]), late]).await.unwrap();
        assert!(fetch(&queue, 9).await.is_empty());
        // The delay counts from now, not from when the transaction began.
        let sql = "select (max(not_before) >= now() + interval '3600.2 s')::text from ";
        let sql = sqlx::AssertSqlSafe(format!("{sql}{}", server.table("orders")));
        let late: String = sqlx::query_scalar(sql).fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(late, "true");
        transaction.commit().await.unwrap();
        let want = watershed::transport::Want::new(9);
        let mut rows = queue.fetch(want).await.unwrap().unwrap();
        let (body, _, lease, _) = rows.pop().unwrap().into_parts();
        assert_eq!((rows.len(), body), (0, vec![0, 255, 7]));
        assert_eq!(lease, Some(Duration::from_secs(30)));
    });
}

#[test]
fn a_lease_that_runs_out_is_somebody_elses_and_counts_as_a_delivery() {
    on_server(async |server| {
        let queue = server.queue().lease(Duration::from_millis(20));
        queue.create().await.unwrap();
        put_many(&queue, &server, 1).await;
        let began = Instant::now();
        let old = fetch(&queue, 1).await;
        assert_eq!(old[0].facts.deliveries, Some(1));
        let new = loop {
            let rows = fetch(&queue, 1).await;
            if !rows.is_empty() {
                break rows;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "the lease does not run out");
        };
        assert!(began.elapsed() >= Duration::from_millis(20));
        assert_eq!((new[0].lease.id(), new[0].facts.deliveries), (old[0].lease.id(), Some(2)));
        assert_eq!(new[0].facts.id, old[0].facts.id);
        assert_eq!(letters(&settle(&queue, &old, Verdict::Accept).await), "L");
        assert_eq!(letters(&settle(&queue, &old, BACK).await), "L");
        assert_eq!(letters(&settle(&queue, &new, Verdict::Accept).await), "C");
    });
}

#[test]
fn the_transport_says_what_it_can() {
    on_server(async |server| {
        let queue = server.queue().batch(7).asks_every(Duration::from_secs(9));
        let able = Able::each().fences().renews().delays().counts().rejects().batches_of(7);
        let able = able.prefetches(100).asks_every(Duration::from_secs(9));
        assert_eq!(format!("{:?}", queue.able()), format!("{able:?}"));
    });
}

/// Found by whoever had a table `orders` of his own: the drain failed with a line of a query.
#[test]
fn a_table_that_is_no_queue_is_not_taken_for_one() {
    for other in ["orders", "orders_dead"] {
        on_server(async |server| {
            let table = server.table(other);
            server.execute(&format!("create table {table} (id bigint, body bytea)")).await;
            let error = server.queue().create().await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::Validation, "{error:#}");
            assert!(error.to_string().contains("orders`, or its letters"), "{error:#}");
            let schema = server.table("");
            let schema = schema.trim_end_matches('.');
            let tables = format!("select tablename from pg_tables where schemaname = '{schema}'");
            assert_eq!(server.texts(&tables).await.len(), 1, "nothing was made");
        });
    }
}

/// Its own table, of before it had keys.
#[test]
fn a_queue_without_keys_is_none_with_keys() {
    on_server(async |server| {
        server.queue().create().await.unwrap();
        let error = server.queue().key_column("customer").create().await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Validation, "{error:#}");
    });
}

#[test]
fn the_tables_are_made_so_that_leases_change_no_index() {
    on_server(async |server| {
        let queue = server.queue().key_column("customer");
        queue.create().await.unwrap();
        // It is there: nothing is made again, and nothing is lost.
        put_many(&queue, &server, 1).await;
        queue.create().await.unwrap();
        assert_eq!(fetch(&queue, 9).await.len(), 1);
        let settings =
            "select unnest(reloptions) from pg_class where oid = 'orders'::regclass order by 1";
        let settings = server.texts(settings).await.join(" ");
        assert!(settings.contains("fillfactor=50"), "{settings}");
        assert!(settings.contains("autovacuum_vacuum_threshold=2000"), "{settings}");
        let schema = server.table("");
        let indexes = format!(
            "select indexdef from pg_indexes where schemaname = '{}' order by 1",
            schema.trim_end_matches('.')
        );
        let indexes = server.texts(&indexes).await.join("\n");
        assert!(indexes.contains("(customer, id)") && !indexes.contains("not_before"), "{indexes}");
    });
}
