//! One, two and four processes on one queue: what the examples share that say how a drain grows.
//!
//! A process says on its output when it is ready, and then how many messages it has had accepted and
//! when; whoever measures fills the queue when all are ready, adds the counts up, and closes the inputs
//! of the processes when all is accepted, which shuts them down.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use watershed::{BoxError, CancellationSource, CancellationToken, Failure, FanInReport, Progress};

/// How many handlers run at once in one process.
pub(crate) const AT_ONCE: usize = 2;

/// How long a handler waits, as one does that asks somebody else.
const WAITS: Duration = Duration::from_millis(2);

/// How many messages there are for each process.
const MESSAGES: u32 = 3_000;

/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(100);

pub(crate) async fn handle() {
    smol::Timer::after(WAITS).await;
}

/// Prints how fast one, two and four are, in turns: in so many rounds as the first argument says, or 3.
pub(crate) fn measure(
    title: &str,
    mut arguments: impl Iterator<Item = String>,
    run: impl Fn(u32, u32) -> Result<Duration, BoxError>,
) -> Result<(), BoxError> {
    let rounds: usize = arguments.next().map_or(Ok(3), |rounds| rounds.parse())?;
    let counts = [1, 2, 4];
    let mut rates = counts.map(|_| Vec::new());
    for _ in 0..rounds.max(1) {
        for (rates, count) in rates.iter_mut().zip(counts) {
            let messages = MESSAGES * count;
            let took = run(count, messages).map_err(|error| format!("{count} workers: {error}"))?;
            rates.push(f64::from(messages) / took.as_secs_f64());
        }
    }
    println!(
        "| {title} | messages/s | slowest to fastest | to one |\n| --- | ---: | ---: | ---: |"
    );
    let mut one = None;
    for (mut rates, count) in rates.into_iter().zip(counts) {
        rates.sort_by(f64::total_cmp);
        let (median, least, most) = (rates[rates.len() / 2], rates[0], rates[rates.len() - 1]);
        let to_one = median / *one.get_or_insert(median);
        println!("| {count} | {median:.0} | {least:.0} to {most:.0} | {to_one:.2} |");
    }
    println!();
    Ok(())
}

/// What a process has said.
enum Said {
    Ready,
    /// The first message is in hand.
    Began(u64),
    /// So many are accepted by then.
    Accepted(usize, u32, u64),
    Gone(usize),
}

/// Lets so many processes handle so many messages. `fill`: puts the messages there.
pub(crate) fn run(
    count: u32,
    messages: u32,
    arguments: &[&str],
    fill: impl FnOnce() -> Result<(), BoxError>,
) -> Result<Duration, BoxError> {
    let (sender, said) = mpsc::channel();
    let mut started = Started(Vec::new());
    for number in 0..count as usize {
        let mut process = Command::new(std::env::current_exe()?);
        process.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process.spawn()?;
        let output = child.stdout.take().ok_or("the process has no output")?;
        started.0.push(child);
        let sender = sender.clone();
        std::thread::spawn(move || listen(number, output, &sender));
    }
    drop(sender);
    let mut ready = 0;
    while ready < count {
        match next(&said)? {
            Said::Ready => ready += 1,
            Said::Gone(number) => return Err(format!("process {number} has ended").into()),
            Said::Began(_) | Said::Accepted(..) => {}
        }
    }
    fill()?;
    let (mut accepted, mut began, mut ended) = (vec![0; count as usize], u64::MAX, 0);
    while accepted.iter().sum::<u32>() < messages {
        match next(&said)? {
            Said::Began(at) => began = began.min(at),
            Said::Accepted(number, so_many, at) => {
                accepted[number] = so_many;
                ended = ended.max(at);
            }
            Said::Gone(number) => return Err(format!("process {number} has ended").into()),
            Said::Ready => {}
        }
    }
    started.end()?;
    if let Some(idle) = accepted.iter().position(|accepted| *accepted == 0) {
        return Err(format!("process {idle} had nothing to do").into());
    }
    Ok(Duration::from_micros(ended.saturating_sub(began)))
}

/// The processes; those that are left are ended with it.
struct Started(Vec<Child>);

impl Started {
    /// Asks all to end, and waits for them.
    fn end(mut self) -> Result<(), BoxError> {
        self.0.iter_mut().for_each(|child| drop(child.stdin.take()));
        for child in &mut self.0 {
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("a process ended with {status}").into());
            }
        }
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Refused where it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn next(said: &Receiver<Said>) -> Result<Said, BoxError> {
    Ok(said.recv_timeout(PATIENCE).map_err(|_| "the processes say nothing")?)
}

fn listen(number: usize, output: impl Read, sender: &Sender<Said>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let mut words = line.split(' ');
        let mut number_of = || words.next().and_then(|word| word.parse::<u64>().ok());
        let said = match number_of() {
            None => Said::Ready,
            Some(0) => Said::Began(number_of().unwrap_or_default()),
            Some(accepted) => {
                let accepted = u32::try_from(accepted).unwrap_or(u32::MAX);
                Said::Accepted(number, accepted, number_of().unwrap_or_default())
            }
        };
        if sender.send(said).is_err() {
            return;
        }
    }
    let _ = sender.send(Said::Gone(number));
}

/// This process can be given something to do.
pub(crate) fn is_ready() {
    say("ready");
}

/// One of the processes.
pub(crate) struct Worker {
    shutdown: CancellationSource,
}

impl Worker {
    /// Shut down when its input is closed.
    pub(crate) fn new() -> Self {
        let shutdown = CancellationSource::new();
        let closed = shutdown.clone();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            closed.cancel();
        });
        Self { shutdown }
    }

    pub(crate) fn shutdown(&self) -> CancellationToken {
        self.shutdown.token()
    }

    /// The drain, while it is said how far it is.
    pub(crate) async fn watched(
        &self,
        drain: impl IntoFuture<Output = Result<FanInReport, Failure<FanInReport>>>,
        progress: &Progress,
    ) -> Result<(), BoxError> {
        let mut said = None;
        let saying = async {
            loop {
                let report = progress.report();
                if report.taken() > 0 && said.is_none() {
                    said = Some(0);
                    say(&format!("0 {}", now()));
                }
                if report.accepted() > said.unwrap_or(0) {
                    said = Some(report.accepted());
                    say(&format!("{} {}", report.accepted(), now()));
                }
                smol::Timer::after(Duration::from_millis(5)).await;
            }
        };
        let ended = smol::future::or(async { Some(drain.await) }, async {
            let _: () = saying.await;
            None
        })
        .await;
        ended.transpose()?;
        Ok(())
    }
}

fn say(words: &str) {
    let mut output = std::io::stdout().lock();
    // Whoever listened has ended: so does this process when its input is closed.
    let _ = writeln!(output, "{words}").and_then(|()| output.flush());
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or_default()
}
