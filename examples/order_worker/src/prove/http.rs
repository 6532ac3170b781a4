//! The little HTTP that the driver itself speaks: making a bucket, and reading a worker's metrics.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a worker's answer may take: one that is frozen gives none.
const WORKER: Duration = Duration::from_millis(500);

/// How long a server's may.
const SERVER: Duration = Duration::from_secs(10);

/// A `PUT` without a body.
///
/// # Errors
///
/// When the server does not answer, or does not say that it is done.
pub(crate) fn put(server: SocketAddr, path: &str) -> io::Result<()> {
    call(server, "PUT", path, SERVER).map(drop)
}

/// The body of a page.
///
/// # Errors
///
/// When the server does not answer, or does not have it.
pub(crate) fn get(server: SocketAddr, path: &str) -> io::Result<String> {
    call(server, "GET", path, WORKER)
}

fn call(server: SocketAddr, method: &str, path: &str, wait: Duration) -> io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&server, wait)?;
    connection.set_read_timeout(Some(wait))?;
    // HTTP/1.0: the server closes the connection behind its answer, and sends it in one piece.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {server}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(request.as_bytes())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => {
            Err(io::Error::other(format!("{method} {path}: {}", head.lines().next().unwrap_or(""))))
        }
    }
}
