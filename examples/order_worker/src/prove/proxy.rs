//! A proxy in front of a server: what goes through it can be delayed, stalled and cut off.
//!
//! Each connection has two threads, one for each direction, which read a piece, wait for as long as the
//! proxy says, and write it. They end when either side does, or when the proxy is dropped.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// Listens on a port of its own until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    /// How long each piece takes on its way.
    delay: Duration,
    state: Mutex<State>,
    /// Told of each change of `stalled`.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stalled: bool,
    closed: bool,
    connections: Vec<Weak<TcpStream>>,
}

impl Proxy {
    /// In front of that server, which need not run yet. Each piece of a connection is `delay` late.
    ///
    /// # Errors
    ///
    /// When there is no port, or no thread.
    pub(crate) fn start(server: SocketAddr, delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared =
            Arc::new(Shared { server, delay, state: Mutex::default(), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            for client in listener.incoming() {
                if accepting.state().closed {
                    break;
                }
                // A server that is away closes the connection: that is what its client sees, too.
                let _ = client.and_then(|client| accepting.connect(client));
            }
        })?;
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection there is.
    pub(crate) fn cut(&self) {
        self.shared.state().cut();
    }

    /// Holds back all that comes from now on, on new connections too, until [`go_on`](Self::go_on).
    pub(crate) fn stall(&self) {
        self.shared.state().stalled = true;
    }

    /// Lets go what was held back.
    pub(crate) fn go_on(&self) {
        self.shared.state().stalled = false;
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        (state.closed, state.stalled) = (true, false);
        state.cut();
        drop(state);
        self.shared.changed.notify_all();
        // The listener waits for a connection, and looks then.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn cut(&mut self) {
        for connection in self.connections.drain(..).filter_map(|one| one.upgrade()) {
            // One that has ended already cannot be shut down.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    fn keep(&mut self, connection: &Arc<TcpStream>) {
        self.connections.retain(|one| one.strong_count() > 0);
        self.connections.push(Arc::downgrade(connection));
    }
}

impl Shared {
    /// A thread that panics leaves the state whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(self.server)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (client, server) = (Arc::new(client), Arc::new(server));
        let mut state = self.state();
        if state.closed {
            return Ok(());
        }
        state.keep(&client);
        state.keep(&server);
        drop(state);
        for (from, to) in [(Arc::clone(&client), Arc::clone(&server)), (server, client)] {
            let shared = Arc::clone(self);
            thread::Builder::new().name("proxied".to_owned()).spawn(move || {
                let _ = shared.copy(&from, &to);
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
            })?;
        }
        Ok(())
    }

    fn copy(&self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        loop {
            let length = match from.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            thread::sleep(self.delay);
            let state = self.state();
            let state = self.changed.wait_while(state, |state| state.stalled);
            drop(state.unwrap_or_else(PoisonError::into_inner));
            to.write_all(&piece[..length])?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets, and a proxy in front of it.
    fn echo() -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                thread::spawn(move || {
                    let client = client.unwrap();
                    io::copy(&mut &client, &mut &client)
                });
            }
        });
        Proxy::start(server, Duration::ZERO).unwrap()
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let client = TcpStream::connect(proxy.address()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    }

    fn ask(mut client: &TcpStream, word: [u8; 4]) -> io::Result<[u8; 4]> {
        client.write_all(&word)?;
        let mut answer = [0; 4];
        client.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn what_goes_through_arrives_unchanged() {
        let proxy = echo();
        let client = connect(&proxy);
        for word in [*b"ping", *b"pong"] {
            assert_eq!(ask(&client, word).unwrap(), word);
        }
    }

    #[test]
    fn a_connection_that_is_cut_ends_and_the_next_one_works() {
        let proxy = echo();
        let client = connect(&proxy);
        ask(&client, *b"ping").unwrap();
        proxy.cut();
        assert_ne!(ask(&client, *b"ping").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(&ask(&connect(&proxy), *b"ping").unwrap(), b"ping");
    }

    #[test]
    fn what_is_stalled_arrives_when_it_goes_on() {
        let proxy = echo();
        let client = connect(&proxy);
        ask(&client, *b"ping").unwrap();
        proxy.stall();
        let later = connect(&proxy);
        for client in [&client, &later] {
            client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let held = ask(client, *b"held").unwrap_err().kind();
            assert!(matches!(held, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{held}");
        }
        proxy.go_on();
        for mut client in [&client, &later] {
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut answer = [0; 4];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"held");
        }
    }

    #[test]
    fn nothing_listens_when_it_is_dropped() {
        let proxy = echo();
        let client = connect(&proxy);
        ask(&client, *b"ping").unwrap();
        let address = proxy.address();
        drop(proxy);
        assert_ne!(ask(&client, *b"ping").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // The thread of the listener has been woken, and ends.
        while TcpStream::connect(address).is_ok() {
            thread::yield_now();
        }
    }
}
