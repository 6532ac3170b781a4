//! A connection in between, which breaks when the client has said a certain word.

use std::io;
use std::sync::{Arc, Mutex};

use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};

/// When a connection breaks: behind which word, and whether the server hears it.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) behind: &'static str,
    pub(crate) heard: bool,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    cuts: Arc<Cuts>,
}

#[derive(Default)]
struct Cuts {
    next: Mutex<Option<Cut>>,
    /// Held while a server does what a connection that broke has told it: nobody says anything meanwhile.
    working: smol::lock::Mutex<()>,
}

impl Proxy {
    /// A port that leads to the server.
    pub(crate) async fn to(host: String, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let cuts = Arc::new(Cuts::default());
        let proxy = Self { port: listener.local_addr().unwrap().port(), cuts: Arc::clone(&cuts) };
        smol::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect((host.as_str(), port)).await.unwrap();
                let cuts = Arc::clone(&cuts);
                smol::spawn(async move {
                    let back = smol::io::copy(server.clone(), client.clone());
                    let forth = forth(client.clone(), server.clone(), &cuts);
                    // Whichever ends first ends the connection. An answer is not handed on once the
                    // word was said.
                    let forth = std::pin::pin!(forth);
                    let _ = futures::future::select(forth, std::pin::pin!(back)).await;
                    let _ = client.shutdown(std::net::Shutdown::Both);
                    let _ = server.shutdown(std::net::Shutdown::Both);
                })
                .detach();
            }
        })
        .detach();
        proxy
    }

    /// The next connection that says the word breaks.
    pub(crate) fn cut(&self, cut: Cut) {
        *self.cuts.next.lock().unwrap() = Some(cut);
    }
}

/// Hands on what the client says, until it says the word.
async fn forth(mut client: TcpStream, mut server: TcpStream, cuts: &Cuts) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = client.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let said = &buffer[..count];
        let cut = {
            let mut next = cuts.next.lock().unwrap();
            next.take_if(|cut| {
                let word = cut.behind.as_bytes();
                said.windows(word.len()).any(|window| window == word)
            })
        };
        match cut {
            None => {
                drop(cuts.working.lock().await);
                server.write_all(said).await?;
            }
            Some(Cut { heard: false, .. }) => {
                let _working = cuts.working.lock().await;
                client.shutdown(std::net::Shutdown::Both)?;
                server.shutdown(std::net::Shutdown::Write)?;
                // What it had begun is undone, and no longer locked, when it has gone.
                while server.read(&mut buffer).await? > 0 {}
                return Ok(());
            }
            Some(Cut { heard: true, .. }) => {
                let _working = cuts.working.lock().await;
                // The client's side breaks first, so that no answer gets through.
                client.shutdown(std::net::Shutdown::Both)?;
                server.write_all(said).await?;
                // It has done what it was told when it has answered.
                server.read(&mut buffer).await?;
                return Ok(());
            }
        }
    }
}
