//! Instructions a message, by callgrind: the same program again, with one contender at one size.
//!
//! It is run with so many messages and with twice as many, and the difference is divided by the
//! messages that it had more: so what is done once a run cancels out. Filling the channels is not
//! counted, because callgrind is told to look into `timed` only.

use std::process::{Child, Command, Stdio};

use super::measure::{Measured, Series};
use super::section::{Column, Contender, Section};
use super::settings::Settings;

const FIGURE: &str = "instructions a message";

/// Messages that each source is to have at least.
const EACH: u32 = 4;
const LEAST: u32 = 20_000;

/// Whether there is a valgrind.
pub(crate) fn can_be_counted() -> bool {
    let asked = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

impl Section {
    /// The instructions of what is wanted; nothing where they cannot be counted.
    pub(crate) fn count_instructions(&self, settings: &Settings) -> Vec<Measured> {
        if !self.countable {
            return Vec::new();
        }
        let contenders = || self.contenders.iter().filter(|one| settings.wants(self, one));
        let columns = self.columns.iter().filter(|column| settings.wants_size(**column));
        let count = |&column: &Column| {
            let series = contenders().filter_map(|contender| {
                let figure = self.count(*contender, column, settings)?;
                Some(Series { contender: *contender, rounds: vec![figure] })
            });
            Measured { column, figure: FIGURE, series: series.collect() }
        };
        columns.map(count).filter(|measured| !measured.series.is_empty()).collect()
    }

    fn count(&self, contender: Contender, column: Column, settings: &Settings) -> Option<f64> {
        let messages = LEAST.max(EACH * column.size.min(LEAST));
        let [once, twice] = [messages, 2 * messages].map(|messages| {
            let mut command = Command::new("valgrind");
            command
                .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
                .arg("--toggle-collect=*measure::timed")
                .arg(std::env::current_exe().ok()?)
                .arg(self.name)
                .args(["--only", contender.name, "--size", &column.size.to_string()])
                .args(["--messages", &messages.to_string(), "--rounds", "1"])
                .args(["--channels", settings.kind_name()]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().ok()
        });
        let (once, twice) = (collected(once?)?, collected(twice?)?);
        // A contender that is given fewer messages than it is told does the same both times.
        (twice > once).then(|| (twice - once) / f64::from(messages))
    }
}

/// What callgrind says at the end.
fn collected(child: Child) -> Option<f64> {
    let output = child.wait_with_output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok()
}
