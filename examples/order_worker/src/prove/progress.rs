//! The file that says which rounds there were, one line for each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

/// A line of the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// Of the program that did it.
    pub(crate) commit: String,
    pub(crate) seed: u64,
    pub(crate) faults: String,
    pub(crate) counts: Counts,
    pub(crate) seconds: f64,
    /// Whether the audit found nothing and all workers ended as they should.
    pub(crate) clean: bool,
}

/// What is counted in a round, and added up over all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Produced, over all sources.
    pub(crate) messages: u64,
    pub(crate) kills: u64,
    /// Receipts that a worker had lost when it wanted to settle, or lost while it handled.
    pub(crate) fenced: u64,
    /// Deliveries beyond the first of each message.
    pub(crate) redelivered: u64,
    /// Dead letters that are valid orders: given up since each attempt took too long, say.
    pub(crate) given_up: u64,
    /// Starts of the broker because it had left a group without a leader.
    pub(crate) cured: u64,
}

/// The file is not what it should be.
#[derive(Debug, Error)]
pub(crate) enum ProgressError {
    /// It cannot be read or written.
    #[error("cannot use {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// It has a line that says nothing of a round.
    #[error("{}, line {}: not the line of a round: {:?}", .0.display(), .1, .2)]
    Line(PathBuf, usize, String),
}

/// The file.
#[derive(Debug)]
pub(crate) struct Progress {
    /// None: nothing is kept.
    file: Option<PathBuf>,
    lines: Vec<Line>,
}

impl Progress {
    /// What the file says; a file that is missing says nothing, and neither does a last line that is
    /// not whole.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or has a line of another kind.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, ProgressError> {
        let Some(file) = file else {
            return Ok(Self { file: None, lines: Vec::new() });
        };
        let failed = |error| ProgressError::File(file.to_owned(), error);
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(error)),
        };
        // What is behind the last end of a line was being written when its writer was killed.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        if whole.len() + 1 < text.len() {
            let kept = if whole.is_empty() { String::new() } else { format!("{whole}\n") };
            fs::write(file, kept).map_err(failed)?;
        }
        let mut lines = Vec::new();
        for (n, line) in whole.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let unknown = || ProgressError::Line(file.to_owned(), n + 1, line.to_owned());
            lines.push(line.parse().map_err(|_: NotALine| unknown())?);
        }
        Ok(Self { file: Some(file.to_owned()), lines })
    }

    /// Which rounds were clean.
    pub(crate) fn done(&self) -> BTreeSet<u64> {
        self.lines.iter().filter(|line| line.clean).map(|line| line.seed).collect()
    }

    /// Adds a line, in one piece.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn add(&mut self, line: Line) -> Result<(), ProgressError> {
        if let Some(file) = &self.file {
            let failed = |error| ProgressError::File(file.clone(), error);
            let mut file =
                OpenOptions::new().append(true).create(true).open(file).map_err(failed)?;
            file.write_all(format!("{line}\n").as_bytes()).map_err(failed)?;
        }
        self.lines.push(line);
        Ok(())
    }

    /// What there was, over all rounds and by fault.
    pub(crate) fn summary(&self) -> String {
        let mut by_fault = BTreeMap::<&str, u64>::new();
        let (mut counts, mut seconds) = (Counts::default(), 0.0);
        let (mut clean, mut not_clean) = (0, Vec::new());
        for line in &self.lines {
            if line.clean {
                clean += 1;
            } else {
                not_clean.push(line.seed.to_string());
            }
            for fault in line.faults.split('+') {
                *by_fault.entry(fault).or_default() += 1;
            }
            counts += line.counts;
            seconds += line.seconds;
        }
        let Counts { messages, kills, fenced, redelivered, given_up, cured } = counts;
        let mut text = format!(
            "{clean} rounds clean, {} not: {messages} messages, {kills} kills, {fenced} fenced, \
             {redelivered} redelivered, {given_up} valid ones given up, {cured} groups cured, \
             {seconds:.0} s\n",
            not_clean.len(),
        );
        for (fault, times) in by_fault {
            let _ = writeln!(text, "  {fault}: {times}");
        }
        if !not_clean.is_empty() {
            let _ = writeln!(text, "  not clean: seeds {}", not_clean.join(", "));
        }
        text
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.kills += other.kills;
        self.fenced += other.fenced;
        self.redelivered += other.redelivered;
        self.given_up += other.given_up;
        self.cured += other.cured;
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commit, seed, faults, counts, seconds, clean } = self;
        let Counts { messages, kills, fenced, redelivered, given_up, cured } = counts;
        write!(
            f,
            "commit={commit} seed={seed} fault={faults} messages={messages} kills={kills} \
             fenced={fenced} redelivered={redelivered} given-up={given_up} cured={cured} \
             seconds={seconds:.1} {}",
            if *clean { "clean" } else { "NOT-CLEAN" },
        )
    }
}

/// It is not the line of a round.
#[derive(Debug)]
pub(crate) struct NotALine;

impl FromStr for Line {
    type Err = NotALine;

    fn from_str(line: &str) -> Result<Self, NotALine> {
        let mut words = line.split_whitespace();
        let mut value = |name: &str| {
            let word = words.next().ok_or(NotALine)?;
            word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).ok_or(NotALine)
        };
        let line = Self {
            commit: value("commit")?.to_owned(),
            seed: number(value("seed")?)?,
            faults: value("fault")?.to_owned(),
            counts: Counts {
                messages: number(value("messages")?)?,
                kills: number(value("kills")?)?,
                fenced: number(value("fenced")?)?,
                redelivered: number(value("redelivered")?)?,
                given_up: number(value("given-up")?)?,
                cured: number(value("cured")?)?,
            },
            seconds: number(value("seconds")?)?,
            clean: false,
        };
        match (words.next(), words.next()) {
            (Some("clean"), None) => Ok(Self { clean: true, ..line }),
            (Some("NOT-CLEAN"), None) => Ok(line),
            _ => Err(NotALine),
        }
    }
}

fn number<N: FromStr>(word: &str) -> Result<N, NotALine> {
    word.parse().map_err(|_| NotALine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seed: u64, clean: bool) -> Line {
        let counts =
            Counts { messages: 360, kills: 2, fenced: 3, redelivered: 11, given_up: 1, cured: 1 };
        let faults = "kill-worker+cut".to_owned();
        Line { commit: "1a2b3c4".to_owned(), seed, faults, counts, seconds: 21.5, clean }
    }

    #[test]
    fn what_is_added_is_read_again_and_only_clean_rounds_are_done() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proved.txt");
        let mut progress = Progress::read(Some(&file)).unwrap();
        for (seed, clean) in [(0, true), (1, false), (7, true)] {
            progress.add(line(seed, clean)).unwrap();
        }
        let again = Progress::read(Some(&file)).unwrap();
        assert_eq!(again.lines, progress.lines);
        assert_eq!(again.done(), BTreeSet::from([0, 7]));
        let summary = again.summary();
        for part in ["2 rounds clean, 1 not", "1080 messages", "cut: 3", "seeds 1"] {
            assert!(summary.contains(part), "{part}: {summary}");
        }
    }

    #[test]
    fn a_line_that_was_being_written_when_its_writer_was_killed_is_no_round() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proved.txt");
        let whole = line(0, true).to_string();
        fs::write(&file, format!("{whole}\n{}", &whole[..whole.len() - 1])).unwrap();
        let mut progress = Progress::read(Some(&file)).unwrap();
        progress.add(line(1, true)).unwrap();
        assert_eq!(Progress::read(Some(&file)).unwrap().done(), BTreeSet::from([0, 1]));

        fs::write(&file, &whole[..20]).unwrap();
        assert_eq!(Progress::read(Some(&file)).unwrap().lines, []);
    }

    #[test]
    fn a_file_of_another_kind_is_an_error_that_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proved.txt");
        fs::write(&file, format!("{}\n14 rounds, 230 kills\n", line(0, true))).unwrap();
        let error = Progress::read(Some(&file)).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("14 rounds"), "{error}");
    }
}
