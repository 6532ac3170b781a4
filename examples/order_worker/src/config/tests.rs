//! A configuration that cannot be used says what to type.

use std::time::Duration;

use super::{Config, Source};

const STORE: &str = "[store]\nurl = \"sqlite:orders.db\"\n";
const FILES: &str = "[[source]]\nkind = \"files\"\nfolder = \"orders\"\n";

fn error(text: &str) -> String {
    Config::parse(text, "worker.toml").unwrap_err().to_string()
}

#[test]
fn what_is_missing_is_named_with_what_to_type() {
    let cases = [
        ("", "store is missing: type [store]"),
        (STORE, "there is no source: add a [[source]] with kind = "),
        (
            &format!("{STORE}[[source]]\nfolder = \"orders\""),
            "kind is missing: type kind = \"kafka\"",
        ),
        (&format!("{STORE}[[source]]\nkind = \"files\""), "folder is missing: type folder = "),
        (
            &format!("{STORE}[[source]]\nkind = \"kafka\"\nbrokers = \"127.0.0.1:9092\""),
            "topic is missing: type topic = \"orders\"",
        ),
        (
            &format!("{STORE}[[source]]\nkind = \"sqs\"\nurl = \"http://127.0.0.1:5000/1/orders\""),
            "dead_letter_url is missing: type dead_letter_url = ",
        ),
        (
            &format!("{STORE}[[source]]\nkind = \"postgres\"\nurl = \"postgres:///shop\""),
            "table is missing: type table = \"orders\"",
        ),
    ];
    for (text, expected) in cases {
        let error = error(text);
        assert!(error.starts_with("worker.toml") && error.contains(expected), "{text}\n{error}");
    }
}

#[test]
fn what_means_nothing_here_is_no_configuration() {
    let cases = [
        (format!("{STORE}{FILES}topic = \"orders\""), "topic"),
        (
            format!("{STORE}[worker]\nconcurency = 3\n{FILES}"),
            "worker.toml:4: unknown field `concurency`",
        ),
        (format!("{STORE}[[source]]\nkind = \"amqp\""), "amqp"),
        (format!("{STORE}[worker]\nfinish_within = \"soon\"\n{FILES}"), "worker.toml:4: "),
        (format!("{STORE}[worker]\nconcurrency = 0\n{FILES}"), "concurrency = 0 does nothing"),
        (
            format!("{STORE}[worker]\nmessage_timeout = \"0s\"\n{FILES}"),
            "type message_timeout = \"20s\"",
        ),
        (format!("[store]\nurl = \"mysql://here\"\n{FILES}"), "type url = \"postgres://"),
        (format!("{STORE}{FILES}{FILES}"), "two sources have the name \"files\": type name = "),
        (
            format!(
                "{STORE}[[source]]\nkind = \"kafka\"\nbrokers = \"a\"\ntopic = \"b\"\ngroup = \"c\"\n\
                dead_topic = \"d\"\nclient = {{ \"group.id\" = \"e\" }}"
            ),
            "source \"kafka\": `client` says the group: type group = ",
        ),
        (
            format!(
                "{STORE}[[source]]\nkind = \"sqs\"\nurl = \"http://a/1/b\"\n\
                dead_letter_url = \"http://a/1/b\"\nendpoint = \"http://a\"\nregion = \"here\""
            ),
            "its dead letters would be orders again",
        ),
    ];
    for (text, expected) in cases {
        let error = error(&text);
        assert!(error.contains(expected), "{text}\n{error}");
    }
}

#[test]
fn the_client_of_kafka_takes_texts_numbers_and_switches() {
    let text = format!(
        "{STORE}[worker]\nmessage_timeout = \"1m 30s\"\n[[source]]\nkind = \"kafka\"\n\
        brokers = \"127.0.0.1:9092\"\ntopic = \"orders\"\ngroup = \"workers\"\ndead_topic = \"dead\"\n\
        client = {{ \"session.timeout.ms\" = 6000, \"socket.keepalive.enable\" = true, debug = \"cgrp\" }}"
    );
    let config = Config::parse(&text, "worker.toml").unwrap();
    assert_eq!(config.worker.message_timeout, Duration::from_secs(90));
    let [Source::Kafka(source)] = &*config.sources else { panic!("{:?}", config.sources) };
    let client: Vec<_> =
        source.client.iter().map(|(key, value)| (key.as_str(), value.text())).collect();
    let expected =
        [("debug", "cgrp"), ("session.timeout.ms", "6000"), ("socket.keepalive.enable", "true")];
    assert!(client.iter().map(|(key, value)| (*key, value.as_str())).eq(expected), "{client:?}");
}
