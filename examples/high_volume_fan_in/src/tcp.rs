//! The third transport: lines over a loopback connection.
//!
//! The sender is a thread of its own. A receiver connects, says which feed it wants and which
//! lines of it, one line of request, and is sent those, one line each. It keeps its own record of
//! what it has handled and asks for the rest when it connects again: a line that was on its way
//! when a connection went down is sent again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use futures::stream::BoxStream;
use smol::LocalExecutor;
use smol::future;
use smol::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, BufWriter};
use smol::net::{TcpListener, TcpStream};

use crate::input::{Delivery, Feed};
use crate::lines::{self, Bookmark};
use crate::source::SourceError;

/// The sending end; it stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Sender {
    address: SocketAddr,
    stop: async_channel::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Sender {
    /// Listens on a free port of the loopback interface.
    ///
    /// # Errors
    ///
    /// When there is no port or no thread to be had.
    pub(crate) fn start(feeds: Vec<Arc<Feed>>) -> io::Result<Self> {
        let listener = smol::block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = async_channel::bounded::<()>(1);
        let thread = thread::Builder::new().name("sender".to_owned()).spawn(move || {
            let connections = LocalExecutor::new();
            let serve = async {
                while let Ok((connection, _)) = listener.accept().await {
                    // A receiver that goes away in the middle is its own business.
                    connections.spawn(send_lines(connection, feeds.clone())).detach();
                }
            };
            let stopped = async {
                let _ = stopped.recv().await;
            };
            smol::block_on(connections.run(future::or(serve, stopped)));
        })?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.close();
        if let Some(thread) = self.thread.take() {
            // It can only have panicked, which has been printed.
            let _ = thread.join();
        }
    }
}

/// Answers one request.
async fn send_lines(connection: TcpStream, feeds: Vec<Arc<Feed>>) -> io::Result<()> {
    let mut request = String::new();
    BufReader::new(connection.clone()).read_line(&mut request).await?;
    let (feed, bookmark) = parse_request(&request).ok_or(io::ErrorKind::InvalidData)?;
    let feed = feeds.iter().find(|known| known.id == feed).ok_or(io::ErrorKind::NotFound)?;

    let mut connection = BufWriter::new(connection);
    for position in bookmark.positions(feed.messages()) {
        connection.write_all(feed.payload(position)).await?;
        connection.write_all(b"\n").await?;
    }
    connection.flush().await
}

/// `FEED NEXT [PARKED…]`, all of them numbers.
fn request(feed: u32, bookmark: &Bookmark) -> String {
    let parked = bookmark.parked.iter().map(|position| format!(" {position}"));
    format!("{feed} {}{}\n", bookmark.next, parked.collect::<String>())
}

fn parse_request(request: &str) -> Option<(u32, Bookmark)> {
    let numbers: Result<Vec<u32>, _> = request.split_whitespace().map(str::parse).collect();
    match numbers.ok()?.as_slice() {
        [feed, next, parked @ ..] => {
            let parked = parked.iter().copied().collect();
            Some((*feed, Bookmark { parked, next: *next }))
        }
        _ => None,
    }
}

/// The lines of `feed` that are not done, received from the sender at `address`.
///
/// # Errors
///
/// When there is no connection to be had.
pub(crate) async fn messages(
    address: SocketAddr,
    feed: Arc<Feed>,
    bookmark: Bookmark,
) -> io::Result<BoxStream<'static, Result<Delivery, SourceError>>> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(request(feed.id, &bookmark).as_bytes()).await?;
    let positions: Vec<u32> = bookmark.positions(feed.messages()).collect();
    let numbered = lines::read(BufReader::new(connection), positions);
    Ok(lines::deliver(numbered, feed, bookmark))
}
