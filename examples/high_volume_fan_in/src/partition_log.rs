//! The second transport: a log on disk, one partition a feed, one JSON line a record. Records are
//! never changed; what has been handled is said by the offset committed for the partition.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::stream::BoxStream;
use smol::io::BufReader;

use crate::input::{Delivery, Feed, Input, Transport};
use crate::lines::{self, Bookmark};
use crate::source::SourceError;

/// The folder of the partitions that belong to a database.
pub(crate) fn folder(database: &Path) -> PathBuf {
    let mut folder = database.as_os_str().to_owned();
    folder.push(".partitions");
    folder.into()
}

/// The file of one partition.
pub(crate) fn partition(folder: &Path, feed: &Feed) -> PathBuf {
    folder.join(format!("{}.jsonl", feed.name))
}

/// Writes the partitions of all feeds that the log transports.
///
/// # Errors
///
/// When a file cannot be written.
pub(crate) fn write(folder: &Path, input: &Input) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for feed in input.feeds.iter().filter(|feed| feed.transport == Transport::Log) {
        let mut file = io::BufWriter::new(fs::File::create(partition(folder, feed))?);
        for (_, record) in feed.payloads(0) {
            file.write_all(record)?;
            file.write_all(b"\n")?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    }
    Ok(())
}

/// The records of a partition that are not done.
///
/// # Errors
///
/// When the partition cannot be opened.
pub(crate) async fn messages(
    folder: &Path,
    feed: Arc<Feed>,
    bookmark: Bookmark,
) -> io::Result<BoxStream<'static, Result<Delivery, SourceError>>> {
    // Files block; smol reads them on the threads of its `blocking` crate, under any executor.
    let file = smol::fs::File::open(partition(folder, &feed)).await?;
    let numbered = lines::read(BufReader::new(file), 0..feed.messages());
    Ok(lines::deliver(numbered, feed, bookmark))
}
