//! Orders from Kafka, SQS, PostgreSQL and files at once, in one worker that may be killed.

mod cli;
mod config;
mod prove;

use std::process::ExitCode;

use clap::Parser;

use cli::{Command, Options};
use config::Config;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, watershed::BoxError> {
    let file = match &options.command {
        Command::Prove(it) => return prove::prove(it).map(|()| ExitCode::SUCCESS),
        Command::Work(it) | Command::Audit(it) => &it.config,
        Command::Produce(it) => &it.config,
    };
    let _ = Config::read(file)?;
    Ok(ExitCode::SUCCESS)
}
