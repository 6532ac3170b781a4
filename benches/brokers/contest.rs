//! Contenders that do the same work in turns, and a table in markdown of what came out.
//!
//! What the examples `beside_the_client` of the adapters share; each includes it by its path.

use std::time::Duration;

use watershed::BoxError;

/// What a contender promises, beside the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// The drain itself: each settled behind its handler and confirmed, with everything else turned on.
    Ours,
    /// Each settled behind its handler, and confirmed.
    Same,
    /// Not one of those, and why: mostly that it promises less, and what that costs.
    Apart(&'static str),
}

/// Handles so many messages, and says how long that took from the first one to the last confirmed
/// settlement.
type Run<'a> = Box<dyn Fn(u32) -> Result<Duration, BoxError> + 'a>;

pub(crate) struct Contender<'a> {
    name: &'static str,
    promise: Promise,
    run: Run<'a>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(
        name: &'static str,
        promise: Promise,
        run: impl Fn(u32) -> Result<Duration, BoxError> + 'a,
    ) -> Self {
        Self { name, promise, run: Box::new(run) }
    }
}

/// How much is measured, as the arguments say.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How many times as many messages as the example has by itself.
    pub(crate) times: f64,
    pub(crate) rounds: usize,
    /// Only contenders whose names have this in them.
    pub(crate) only: Option<String>,
}

impl Settings {
    /// `[ROUNDS [TIMES [ONLY]]]`
    pub(crate) fn of(mut arguments: impl Iterator<Item = String>) -> Result<Self, BoxError> {
        let rounds = arguments.next().map_or(Ok(7), |it| it.parse());
        let times = arguments.next().map_or(Ok(1.0), |it| it.parse());
        Ok(Self {
            rounds: rounds.map_err(|_| "how many rounds? A number is expected")?,
            times: times.map_err(|_| "how many times the messages? A number is expected")?,
            only: arguments.next(),
        })
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand")]
    fn messages(&self, usual: u32) -> u32 {
        (f64::from(usual) * self.times).max(1.0) as u32
    }
}

/// Lets the contenders take turns, each round beginning with another one, and prints a row of each. A
/// ratio is that of the medians, ours to theirs; above 1, ours is faster.
pub(crate) fn contest(
    title: &str,
    messages: u32,
    settings: &Settings,
    mut contenders: Vec<Contender<'_>>,
) -> Result<(), BoxError> {
    if let Some(only) = &settings.only {
        contenders.retain(|it| it.name.contains(only.as_str()));
    }
    if contenders.is_empty() {
        return Ok(());
    }
    let messages = settings.messages(messages);
    let mut rates = vec![Vec::new(); contenders.len()];
    // The first round does not count.
    for round in 0..=settings.rounds {
        for turn in 0..contenders.len() {
            let turn = (round + turn) % contenders.len();
            let Contender { name, run, .. } = &contenders[turn];
            let took = run(messages).map_err(|error| format!("{title}, {name}: {error}"))?;
            if round > 0 || settings.rounds == 0 {
                rates[turn].push(f64::from(messages) / took.as_secs_f64());
            }
        }
    }
    let medians: Vec<_> = rates.iter_mut().map(|rates| median(rates)).collect();
    let of = |promise| {
        let all = contenders.iter().zip(&medians);
        let all = all.filter(move |(it, _)| it.promise == promise).map(|(_, median)| *median);
        all.fold(0.0, f64::max)
    };
    println!("| {title} | messages/s | slowest to fastest | ours to theirs |");
    println!("| --- | ---: | ---: | ---: |");
    for ((it, rates), median) in contenders.iter().zip(&rates).zip(&medians) {
        let (least, most) = (rates[0], rates[rates.len() - 1]);
        let ratio = match it.promise {
            Promise::Ours => String::new(),
            _ => format!("{:.2}", of(Promise::Ours) / median),
        };
        let name = match it.promise {
            Promise::Ours => format!("**{}**", it.name),
            Promise::Same => it.name.to_owned(),
            Promise::Apart(price) => format!("*{}*: {price}", it.name),
        };
        let [median, least, most] = [*median, least, most].map(grouped);
        println!("| {name} | {median} | {least} to {most} | {ratio} |");
    }
    let (ours, best) = (of(Promise::Ours), of(Promise::Same));
    if ours > 0.0 && best > 0.0 {
        println!(
            "\nOurs to the best with the same promise: {:.2} ({messages} messages, {} rounds)",
            ours / best,
            settings.rounds
        );
    }
    println!();
    Ok(())
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// With its thousands set apart.
fn grouped(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
