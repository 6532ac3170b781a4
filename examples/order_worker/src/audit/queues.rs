//! What SQS, PostgreSQL and files have: what is left in the queue, and the dead letters.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;
use watershed::BoxError;
use watershed_sqs::aws_sdk_sqs::Client;
use watershed_sqs::aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, QueueAttributeName,
};

use super::Held;
use crate::config::{FilesSource, PostgresSource, SqsSource};
use crate::produce::PATIENCE;
use crate::sources::{error_text, files, sqs};
use crate::store::reach;

/// How long a letter is away while the others are read.
const LOOK: i32 = 30;

/// How long to wait before a queue is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// Reads a queue of SQS, and its dead letters, which are all visible again behind that.
///
/// # Errors
///
/// When the service does not answer, or there is no such queue.
pub(super) async fn read_sqs(source: &SqsSource) -> Result<Held, BoxError> {
    let client = sqs::client(source)?;
    let [visible, in_flight, delayed] = counts(&client, &source.url).await?;
    let what = [("wait", visible), ("are in flight", in_flight), ("are delayed", delayed)];
    let open = what.iter().filter(|(_, count)| *count > 0);
    let open = open.map(|(what, count)| format!("{count} messages {what} in the queue")).collect();
    let letters = letters(&client, &source.dead_letter_url).await?;
    Ok(Held { letters, log: None, open })
}

/// How many messages of a queue are visible, in flight and delayed.
async fn counts(client: &Client, url: &str) -> Result<[u64; 3], BoxError> {
    let which = [
        QueueAttributeName::ApproximateNumberOfMessages,
        QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        QueueAttributeName::ApproximateNumberOfMessagesDelayed,
    ];
    let call = client.get_queue_attributes().queue_url(url);
    let answer = call.set_attribute_names(Some(which.to_vec())).send().await;
    let answer = answer.map_err(|error| format!("reading {url}: {}", error_text(&error)))?;
    let attributes = answer.attributes.unwrap_or_default();
    let mut counts = [0; 3];
    for (count, which) in counts.iter_mut().zip(&which) {
        let text =
            attributes.get(which).ok_or_else(|| format!("{url} does not say its {which}"))?;
        *count = text.parse()?;
    }
    Ok(counts)
}

/// Reads a queue without taking anything from it.
async fn letters(client: &Client, url: &str) -> Result<Vec<Vec<u8>>, BoxError> {
    let mut letters = HashMap::new();
    let mut handles = HashMap::new();
    let began = Instant::now();
    loop {
        let call = client.receive_message().queue_url(url).max_number_of_messages(10);
        let answer = call.visibility_timeout(LOOK).wait_time_seconds(0).send().await;
        let answer = answer.map_err(|error| format!("reading {url}: {}", error_text(&error)))?;
        let messages = answer.messages.unwrap_or_default();
        let is_empty = messages.is_empty();
        for message in messages {
            let id = message.message_id.unwrap_or_default();
            letters.insert(id.clone(), message.body.unwrap_or_default().into_bytes());
            handles.insert(id, message.receipt_handle.unwrap_or_default());
        }
        if !is_empty {
            continue;
        }
        let all: u64 = counts(client, url).await?.iter().sum();
        if letters.len() as u64 >= all {
            break;
        }
        // Somebody else reads it as well: what they have comes back.
        if began.elapsed() > PATIENCE {
            let count = letters.len();
            return Err(format!("{url} has {all} messages, and gave {count} of them").into());
        }
        smol::Timer::after(AGAIN).await;
    }
    let handles: Vec<_> = handles.into_values().collect();
    for handles in handles.chunks(10) {
        let entries = (0..).zip(handles).map(|(at, handle): (usize, _)| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(at.to_string());
            entry.receipt_handle(handle).visibility_timeout(0).build()
        });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let call = client.change_message_visibility_batch().queue_url(url);
        let answer = call.set_entries(Some(entries)).send().await;
        answer.map_err(|error| format!("giving back to {url}: {}", error_text(&error)))?;
    }
    Ok(letters.into_values().collect())
}

/// Reads a table, and that of its dead letters.
///
/// # Errors
///
/// When the database does not answer, or there is no such table.
pub(super) async fn read_postgres(source: &PostgresSource) -> Result<Held, BoxError> {
    reach(&source.url).await?;
    let pool = source.pool(PATIENCE)?;
    let sql = format!("select count(*) from {}", quoted(&source.table));
    let left: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&pool).await?;
    let sql = format!("select body from {}", quoted(&source.dead_table()));
    let letters = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&pool).await?;
    pool.close().await;
    let open = (left > 0).then(|| format!("{left} rows are left in {}", source.table));
    Ok(Held { letters, log: None, open: open.into_iter().collect() })
}

/// The name of a table as the adapter has it: what is before the first dot is its schema.
fn quoted(table: &str) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    match table.split_once('.') {
        Some((schema, table)) => format!("{}.{}", quoted(schema), quoted(table)),
        None => quoted(table),
    }
}

/// Reads a folder of files, how far each is done, and the dead letters.
///
/// # Errors
///
/// When a file cannot be read.
pub(super) fn read_files(source: &FilesSource) -> io::Result<Held> {
    let (mut log, mut open) = (Vec::new(), Vec::new());
    for file in files::files(&source.folder)? {
        log.extend(lines(&file)?);
        let (end, position) = (fs::metadata(&file)?.len(), files::position(&file)?);
        if position != end {
            open.push(format!("{} has {end} bytes, of which {position} are done", file.display()));
        }
    }
    let letters = match lines(&files::dead_letters(&source.folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        letters => letters?,
    };
    Ok(Held { letters, log: Some(log), open })
}

fn lines(file: &Path) -> io::Result<Vec<Vec<u8>>> {
    let text = fs::read(file)?;
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    Ok(lines.map(|line| line.strip_suffix(b"\n").unwrap_or(line).to_vec()).collect())
}
