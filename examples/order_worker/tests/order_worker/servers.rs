//! Kafka, SQS and PostgreSQL at once.

use std::env;
use std::process;

use crate::support::Shop;

/// The servers that are there for the tests. Without them they pass, and say so.
fn servers() -> Option<[String; 3]> {
    let names = ["WATERSHED_POSTGRES_URL", "WATERSHED_KAFKA", "WATERSHED_SQS"];
    let found = names.map(|name| env::var(name).ok());
    if let [Some(postgres), Some(kafka), Some(sqs)] = found {
        return Some([postgres, kafka, sqs]);
    }
    let text = format!(
        "{names:?} are not all set; `.ci/postgres .ci/kafka .ci/sqs COMMAND` starts the servers"
    );
    assert!(env::var("WATERSHED_SERVERS").as_deref() != Ok("required"), "{text}");
    eprintln!("not tried: {text}");
    None
}

#[test]
fn three_transports_are_drained_at_once_by_workers_that_are_killed() {
    let Some([postgres, kafka, sqs]) = servers() else { return };
    let name = format!("order-worker-{}", process::id());
    let schema = name.replace('-', "_");
    let in_schema = format!("{postgres}?options=-csearch_path%3D{schema}");
    let shop = Shop::new(&format!(
        r#"
[store]
url = "{in_schema}"

[worker]
metrics = "127.0.0.1:0"

[[source]]
kind = "kafka"
brokers = "{kafka}"
topic = "{name}"
group = "{name}"
dead_topic = "{name}.dead"
client = {{ "session.timeout.ms" = 6000, "heartbeat.interval.ms" = 500 }}

[[source]]
kind = "sqs"
url = "{sqs}/123456789012/{name}"
dead_letter_url = "{sqs}/123456789012/{name}-dead"
endpoint = "{sqs}"
region = "eu-central-1"
visibility = "6s"

[[source]]
kind = "postgres"
url = "{in_schema}"
table = "{schema}.orders"
key_column = "feed"
lease = "6s"
"#
    ));
    make_schema(&postgres, &schema);
    shop.produce("--count 60 --poison 6 --prefix test");
    // The first is killed in the middle; others go on with what it had.
    let mut first = shop.work();
    first.says("put aside");
    first.kill();
    let others = [shop.work(), shop.work()];
    let text = shop.audit_until_clean();
    for source in ["kafka   ", "sqs     ", "postgres"] {
        let row = format!("{source}        60        54         6         0         0");
        assert!(text.contains(&row), "{text}");
    }
    for worker in &others {
        worker.terminate();
    }
    for worker in others {
        let (status, last) = worker.ends();
        assert_eq!(status.code(), Some(0), "{last}");
    }
    assert!(shop.audit().0);
}

fn make_schema(url: &str, schema: &str) {
    use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
    smol::block_on(async {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let sql = format!("create schema {schema}");
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
        connection.close().await.unwrap();
    });
}
