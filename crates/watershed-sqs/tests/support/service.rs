//! A service that answers as a test wants it to: the SDK's protocol (JSON 1.0 over HTTP), a thread for
//! each connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// What was called: the operation, and its input.
#[derive(Clone, Debug)]
pub struct Call {
    pub operation: String,
    pub input: Value,
}

/// What comes back.
#[derive(Clone, Debug)]
pub enum Answer {
    Json(Value),
    /// A status, and the code of an error with its text.
    Error(u16, &'static str, &'static str),
    /// The connection ends without a word.
    HangUp,
}

/// The service, and every call that it has heard.
#[derive(Clone)]
pub struct Service {
    pub address: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Service {
    pub fn new(answer: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of this machine is free");
        let address = format!("http://{}", listener.local_addr().expect("it listens"));
        let service = Self { address, calls: Arc::default() };
        let (calls, answer) = (Arc::clone(&service.calls), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (calls, answer) = (Arc::clone(&calls), Arc::clone(&answer));
                // Whoever hangs up in the middle is not answered.
                let serve = move || stream.and_then(|stream| serve(stream, &calls, &*answer));
                thread::spawn(serve);
            }
        });
        service
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no call panics").clone()
    }

    /// The inputs of one operation.
    pub fn inputs(&self, operation: &str) -> Vec<Value> {
        let calls = self.calls().into_iter().filter(|call| call.operation == operation);
        calls.map(|call| call.input).collect()
    }
}

fn serve(
    stream: TcpStream,
    calls: &Mutex<Vec<Call>>,
    answer: &dyn Fn(&Call) -> Answer,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while let Some(call) = read(&mut reader)? {
        calls.lock().expect("no call panics").push(call.clone());
        let (status, code, body) = match answer(&call) {
            Answer::Json(value) => (200, None, value.to_string()),
            Answer::Error(status, code, message) => {
                let body = serde_json::json!({"__type": code, "message": message});
                (status, Some(code), body.to_string())
            }
            Answer::HangUp => return Ok(()),
        };
        // The code in the words of the older protocol, as the service says it.
        let code = code.map_or(String::new(), |code| format!("x-amzn-query-error: {code};Sender\r\n"));
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.0\r\n{code}\
             content-length: {length}\r\n\r\n{body}"
        )?;
    }
    Ok(())
}

/// The next call on a connection, or `None` at its end.
fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Call>> {
    let (mut operation, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "x-amz-target" => operation = value.trim().trim_start_matches("AmazonSQS.").to_owned(),
            "content-length" => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let input = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Some(Call { operation, input }))
}
