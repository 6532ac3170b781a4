//! Orders from Kafka, SQS, PostgreSQL and files at once, in one worker that may be killed.
//!
//! Read `worker` first: it has the handler. Then `effect` (what is done and undone), `store` (why an undo
//! is not overtaken), `sources` and `drain`. `produce` feeds, `audit` proves, `prove` breaks.

mod audit;
mod cli;
mod config;
mod drain;
mod effect;
mod letters;
mod logs;
mod message;
mod metrics;
mod order;
mod produce;
mod prove;
mod signals;
mod sources;
mod store;
mod work;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use watershed::BoxError;

use cli::{Command, Options};
use config::Config;
use signals::Stop;
use work::Ended;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", sources::error_text(&*error));
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, BoxError> {
    if let Command::Prove(it) = &options.command {
        return prove::prove(it).map(|()| ExitCode::SUCCESS);
    }
    logs::start(&options.log)?;
    smol::block_on(async {
        match &options.command {
            Command::Work(it) => {
                let config = Config::read(&it.config)?;
                let stop = Stop::by_signals()?;
                Ok(match work::work(&config, &stop).await? {
                    Ended::AsAsked => ExitCode::SUCCESS,
                    Ended::Failed => ExitCode::from(1),
                    Ended::Undone => ExitCode::from(3),
                })
            }
            Command::Produce(it) => {
                let config = Config::read(&it.config)?;
                let prefix = it.prefix.as_deref();
                let sent = produce::produce(&config, it.count, it.poison, prefix).await?;
                println!("{sent} orders sent");
                Ok(ExitCode::SUCCESS)
            }
            Command::Audit(it) => {
                let audit = audit::audit(&Config::read(&it.config)?).await?;
                println!("{audit}");
                Ok(if audit.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) })
            }
            Command::Prove(it) => prove::prove(it).map(|()| ExitCode::SUCCESS),
        }
    })
}
