//! A service that answers as a test wants it to: the SDK's protocol (JSON 1.0 over HTTP), a thread for
//! each connection.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// What was called: the operation, and its input.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) operation: String,
    pub(crate) input: Value,
}

/// What comes back.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Json(Value),
    /// A status, and the code of an error with its text.
    Error(u16, &'static str, &'static str),
    /// The connection ends without a word.
    HangUp,
}

/// The service, and every call that it has heard.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) address: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Call {
    /// What one entry of the batch says under `key`, for each of them.
    pub(crate) fn each(&self, key: &str) -> Vec<String> {
        let entries = self.input["Entries"].as_array().into_iter().flatten();
        entries.map(|entry| entry[key].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The answer that says of each entry that it was done.
    pub(crate) fn done(&self) -> Answer {
        let done = self.each("Id").into_iter().map(|id| json!({"Id": id, "MessageId": id}));
        Answer::Json(json!({"Successful": done.collect::<Vec<_>>(), "Failed": []}))
    }

    /// The answer that says the same of all entries but the first, and of that one that it was not.
    pub(crate) fn done_but_first(&self, code: &str, is_our_fault: bool) -> Answer {
        let mut ids = self.each("Id").into_iter();
        let failed = json!({"Id": ids.next(), "Code": code, "SenderFault": is_our_fault});
        let done: Vec<_> = ids.map(|id| json!({"Id": id})).collect();
        Answer::Json(json!({"Successful": done, "Failed": [failed]}))
    }
}

/// A message as the service gives it: its number is its body, its id and its handle.
pub(crate) fn message(number: u32) -> Value {
    json!({
        "MessageId": format!("m-{number}"),
        "ReceiptHandle": format!("h-{number}"),
        "Body": number.to_string(),
        "Attributes": {"ApproximateReceiveCount": "1"},
    })
}

impl Service {
    /// A queue with these messages, each given once, which does everything else that it is asked to, but
    /// where `answer` says otherwise.
    pub(crate) fn queue(
        messages: impl IntoIterator<Item = Value>,
        answer: impl Fn(&Call) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let messages = Mutex::new(messages.into_iter().collect::<VecDeque<_>>());
        Self::new(move |call| {
            if let Some(answer) = answer(call) {
                return answer;
            }
            match call.operation.as_str() {
                "ReceiveMessage" => {
                    let most = call.input["MaxNumberOfMessages"].as_u64().unwrap_or(1);
                    let mut messages = messages.lock().expect("no call panics");
                    let most = messages.len().min(usize::try_from(most).unwrap_or(1));
                    let given: Vec<_> = messages.drain(..most).collect();
                    Answer::Json(json!({"Messages": given}))
                }
                "GetQueueAttributes" => Answer::Json(json!({"Attributes": {}})),
                _ => call.done(),
            }
        })
    }

    pub(crate) fn new(answer: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
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

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no call panics").clone()
    }

    /// The inputs of one operation.
    pub(crate) fn inputs(&self, operation: &str) -> Vec<Value> {
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
        let code =
            code.map_or(String::new(), |code| format!("x-amzn-query-error: {code};Sender\r\n"));
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
            "x-amz-target" => {
                value.trim().trim_start_matches("AmazonSQS.").clone_into(&mut operation);
            }
            "content-length" => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let input = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Some(Call { operation, input }))
}
