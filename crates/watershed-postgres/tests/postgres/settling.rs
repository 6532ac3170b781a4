//! What becomes of a row, and what is said of it.

use std::time::Duration;

use watershed::transport::{Renewed, Settled, Transport, Trouble, Verdict, Want};
use watershed_postgres::NewRow;

use crate::server::{
    BACK, bodies, fetch, letters, on_server, pool_of, put, put_many, reject, settle, try_fetch,
};

#[test]
fn each_verdict_does_what_it_says_and_an_old_receipt_does_nothing() {
    on_server(async |server| {
        let queue = server.queue();
        queue.create().await.unwrap();
        put_many(&queue, &server, 5).await;
        let rows = fetch(&queue, 5).await;
        let verdicts = [Verdict::Accept, BACK, reject("broken"), Verdict::Accept, reject("late")];
        let batch = rows.iter().map(|row| row.lease.clone()).zip(verdicts).collect();
        // Two of them are somebody else's by now.
        let stolen = "update orders set token = token + 1 where id > 3 returning ''";
        server.texts(stolen).await;
        assert_eq!(letters(&queue.settle(batch).await), "CCCLL");
        let left = "select convert_from(body, 'UTF8') from orders order by id";
        assert_eq!(server.texts(left).await, ["1", "3", "4"]);
        assert_eq!(server.texts("select error from orders_dead").await, ["broken"]);
        for verdict in [Verdict::Accept, BACK, reject("late")] {
            assert_eq!(letters(&settle(&queue, &rows, verdict).await), "LLLLL");
        }
        let leases = rows.iter().map(|row| row.lease.clone()).collect();
        let renewed = queue.renew(leases).await;
        assert!(renewed.iter().all(|renewed| matches!(renewed, Renewed::Lost(_))), "{renewed:?}");
        assert_eq!(server.texts(left).await, ["1", "3", "4"]);
        assert_eq!(bodies(&fetch(&queue, 5).await), ["1"]);
    });
}

#[test]
fn a_release_comes_again_after_its_delay_and_takes_back_what_was_not_begun() {
    on_server(async |server| {
        let queue = server.queue();
        queue.create().await.unwrap();
        put_many(&queue, &server, 1).await;
        for (begun, deliveries) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
            let rows = fetch(&queue, 1).await;
            assert_eq!(rows[0].facts.deliveries, Some(deliveries));
            let back = Verdict::Release { after: None, begun };
            assert_eq!(letters(&settle(&queue, &rows, back).await), "C");
        }
        let rows = fetch(&queue, 1).await;
        let back = Verdict::Release { after: Some(Duration::from_secs(90)), begun: true };
        settle(&queue, &rows, back).await;
        let delay =
            "select (not_before - clock_timestamp() between '80 s' and '90 s')::text from orders";
        assert_eq!(server.text(delay).await, "true");
        assert!(fetch(&queue, 1).await.is_empty());
    });
}

#[test]
fn a_release_may_be_delayed_for_ever() {
    on_server(async |server| {
        let queue = server.queue().lease(Duration::MAX);
        queue.create().await.unwrap();
        put_many(&queue, &server, 1).await;
        let rows = fetch(&queue, 1).await;
        let back = Verdict::Release { after: Some(Duration::MAX), begun: true };
        assert_eq!(letters(&settle(&queue, &rows, back).await), "C");
        assert!(fetch(&queue, 1).await.is_empty());
    });
}

#[test]
fn a_renewal_goes_by_the_token_and_by_the_servers_clock() {
    on_server(async |server| {
        let queue = server.queue().lease(Duration::from_mins(1));
        queue.create().await.unwrap();
        put_many(&queue, &server, 2).await;
        let rows = fetch(&queue, 2).await;
        server.texts("update orders set not_before = 'epoch' returning ''").await;
        let leases: Vec<_> = rows.iter().map(|row| row.lease.clone()).collect();
        for renewed in queue.renew(leases).await {
            assert!(matches!(renewed, Renewed::For(term) if term == Duration::from_mins(1)));
        }
        let left =
            "select (not_before - clock_timestamp() between '50 s' and '60 s')::text from orders";
        assert_eq!(server.texts(left).await, ["true", "true"]);
        // It is the same lease, and no delivery.
        assert_eq!(letters(&settle(&queue, &rows, Verdict::Accept).await), "CC");
    });
}

#[test]
fn a_rejected_row_is_moved_with_its_body_its_key_and_a_reason_of_bounded_length() {
    on_server(async |server| {
        let queue = server.queue().key_column("customer").dead_letters_in(server.table("bad"));
        queue.create().await.unwrap();
        put(&queue, &server, &[NewRow::new(&[0, 255, 13, 10]).key("a"), NewRow::new("b").key("b")])
            .await;
        let rows = queue.fetch(Want::new(1)).await.unwrap().unwrap();
        let first = rows.into_iter().map(|row| (row.into_parts().1, reject("a\0b"))).collect();
        assert_eq!(letters(&queue.settle(first).await), "C");
        let long = Verdict::Reject { error: watershed::Error::validation("ä".repeat(10_000)) };
        let second = fetch(&queue, 1).await;
        assert_eq!(letters(&settle(&queue, &second, long).await), "C");

        let bad = server.table("bad");
        let kept = format!(
            "select concat_ws(' ', id, key, encode(body, 'hex'), deliveries, left(error, 4),
                octet_length(error)) from {bad} order by id"
        );
        assert_eq!(
            server.texts(&kept).await,
            ["1 a 00ff0d0a 1 a\u{fffd}b 5", "2 b 62 1 ääää 8192"]
        );
        assert!(server.texts("select '' from orders").await.is_empty());
    });
}

#[test]
fn a_reject_that_cannot_be_kept_is_refused_and_holds_up_no_accept() {
    on_server(async |server| {
        let queue = server.queue();
        queue.create().await.unwrap();
        put_many(&queue, &server, 2).await;
        let rows = fetch(&queue, 2).await;
        server.execute(&format!("drop table {}", server.table("orders_dead"))).await;
        let verdicts = [Verdict::Accept, reject("broken")];
        let batch: Vec<_> = rows.iter().map(|row| row.lease.clone()).zip(verdicts).collect();
        assert_eq!(letters(&queue.settle(batch.clone()).await), "CR");
        assert_eq!(server.texts("select id::text from orders").await, ["2"]);
        queue.create().await.unwrap();
        assert_eq!(letters(&queue.settle(batch).await), "LC");
    });
}

#[test]
fn a_row_that_somebody_has_locked_is_refused_and_nobody_waits_for_it() {
    on_server(async |server| {
        let queue = server.queue();
        queue.create().await.unwrap();
        put_many(&queue, &server, 3).await;
        let mut rows = fetch(&queue, 3).await;
        let mut other = server.pool.begin().await.unwrap();
        let lock = format!("select id from {} where id = 2 for update", server.table("orders"));
        sqlx::query(sqlx::AssertSqlSafe(lock)).fetch_one(&mut *other).await.unwrap();
        // In no order of their ids: nobody who locks them in that order is waited for.
        rows.reverse();
        let leases: Vec<_> = rows.iter().map(|row| row.lease.clone()).collect();
        let renewed = queue.renew(leases).await;
        assert!(matches!(renewed[..], [Renewed::For(_), Renewed::Failed(_), Renewed::For(_)]));
        assert_eq!(letters(&settle(&queue, &rows, Verdict::Accept).await), "CRC");
        // What is locked is not leased either, whatever it says.
        server_runs_out(&mut other, &server.table("orders")).await;
        assert!(fetch(&queue, 3).await.is_empty());
        other.rollback().await.unwrap();
        assert_eq!(letters(&settle(&queue, &rows, Verdict::Accept).await), "LCL");
    });
}

async fn server_runs_out(connection: &mut sqlx::PgConnection, table: &str) {
    let sql = format!("update {table} set not_before = 'epoch'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(connection).await.unwrap();
}

/// What a settlement of three rows comes to while a trigger raises this.
async fn settled_with(server: &crate::server::Server, kind: &str, code: &str) {
    let queue = server.queue();
    queue.create().await.unwrap();
    put_many(&queue, server, 3).await;
    let rows = fetch(&queue, 3).await;
    let raise = format!("if old.id = 2 then raise 'no' using errcode = '{code}'; end if;");
    server.trigger("after delete on", kind, &raise).await;
    let before = server.sessions("true").await;
    let outcomes = settle(&queue, &rows, Verdict::Accept).await;
    assert_eq!(letters(&outcomes), "RRR", "{code}");
    assert!(matches!(&outcomes[0], Settled::Refused(error) if format!("{error:#}").contains("no")));
    assert_eq!(server.texts("select '' from orders").await.len(), 3);
    server.drop_trigger().await;
    assert_eq!(letters(&settle(&queue, &rows, Verdict::Accept).await), "CCC", "{code}");
    if code == "25006" {
        // The session that said it is gone.
        server.wait_for_sessions(&format!("pid in ({})", before.join(",")), 0..=1).await;
    } else {
        assert_eq!(server.sessions("true").await, before, "the connection is good");
    }
}

#[test]
fn a_serialization_failure_of_the_statement_is_refused_for_every_receipt() {
    on_server(async |server| settled_with(&server, "trigger", "40001").await);
}

#[test]
fn a_deadlock_at_the_commit_is_refused_for_every_receipt() {
    on_server(async |server| settled_with(&server, "constraint trigger", "40P01").await);
}

#[test]
fn a_server_that_only_reads_refuses_and_its_connection_is_closed() {
    on_server(async |server| settled_with(&server, "trigger", "25006").await);
}

#[test]
fn statements_run_read_committed_whatever_the_session_does_by_default() {
    on_server(async |server| {
        let serial = [("default_transaction_isolation", "serializable")];
        let queue = server.queue_on(pool_of(5, server.options().options(serial)));
        queue.create().await.unwrap();
        let levels = server.table("levels");
        server.execute(&format!("create table {levels} (what text, level text)")).await;
        let note = format!(
            "insert into {levels} values (tg_op, current_setting('transaction_isolation'));"
        );
        put_many(&queue, &server, 2).await;
        server.trigger("before update or delete on", "trigger", &note).await;
        let rows = fetch(&queue, 2).await;
        queue.renew(rows.iter().map(|row| row.lease.clone()).collect()).await;
        settle(&queue, &rows[..1], BACK).await;
        settle(&queue, &rows[1..], Verdict::Accept).await;
        let noted = format!(
            "select concat_ws(' ', what, level, count(*)) from {levels}
            group by what, level order by what"
        );
        let noted = server.texts(&noted).await;
        assert_eq!(noted, ["DELETE read committed 1", "UPDATE read committed 5"]);
    });
}

#[test]
fn a_fault_that_somebody_has_to_mend_ends_the_drain_and_another_one_does_not() {
    on_server(async |server| {
        let queue = server.queue();
        let missing = try_fetch(&queue, Want::new(1)).await.unwrap_err();
        assert!(
            matches!(&missing, Trouble::Lasts(error) if format!("{error:#}").contains("orders"))
        );

        queue.create().await.unwrap();
        put_many(&queue, &server, 1).await;
        let raise = "raise 'full' using errcode = '53100';";
        server.trigger("before update on", "trigger", raise).await;
        assert!(matches!(try_fetch(&queue, Want::new(1)).await, Err(Trouble::Passes(_))));
        server.drop_trigger().await;
        assert_eq!(fetch(&queue, 1).await.len(), 1);
    });
}
