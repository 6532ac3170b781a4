//! A configuration in a folder of its own, and the program on it.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_order_worker");

/// How long a busy machine may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// A folder with a configuration in it.
pub(crate) struct Shop(TempDir);

impl Shop {
    pub(crate) fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("worker.toml"), config).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Another one with the same files.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        copy_files(self.0.path(), copy.0.path());
        copy
    }

    fn command(&self, what: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.current_dir(&self.0).args([what, "--config", "worker.toml"]);
        command
    }

    pub(crate) fn produce(&self, arguments: &str) {
        let output = self.command("produce").args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What the audit prints, and whether it is clean.
    pub(crate) fn audit(&self) -> (bool, String) {
        let Output { status, stdout, stderr } = self.command("audit").output().unwrap();
        let errors = String::from_utf8_lossy(&stderr);
        assert!(matches!(status.code(), Some(0 | 1)), "{status}: {errors}");
        (status.success(), String::from_utf8(stdout).unwrap())
    }

    /// Asks again and again until the audit is clean, and returns what it prints.
    pub(crate) fn audit_until_clean(&self) -> String {
        let began = Instant::now();
        loop {
            let (is_clean, text) = self.audit();
            if is_clean {
                return text;
            }
            assert!(began.elapsed() < PATIENCE, "{text}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn work(&self) -> Worker {
        let mut child = self.command("work").stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Worker { child, log }
    }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            fs::create_dir(&to).unwrap();
            copy_files(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// A worker that runs; it is killed when the test ends before it does.
pub(crate) struct Worker {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Worker {
    /// Reads the log up to a line that has this text, and returns that.
    pub(crate) fn says(&mut self, text: &str) -> String {
        let line = self.log.by_ref().map(Result::unwrap).find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("it has ended and did not say {text:?}"))
    }

    pub(crate) fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Reads the log to its end, and returns how it ended and the last line.
    pub(crate) fn ends(mut self) -> (ExitStatus, String) {
        let last = self.log.by_ref().map(Result::unwrap).last().unwrap_or_default();
        (self.child.wait().unwrap(), last)
    }

    /// The port of the metrics, from the log.
    pub(crate) fn port(&mut self) -> u16 {
        let line = self.says("\"event\":\"metrics\"");
        let (_, port) = line.split_once("\"port\":").unwrap();
        port.split(|it: char| !it.is_ascii_digit()).next().unwrap().parse().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks for `/metrics` until a line is there.
pub(crate) fn metrics_say(port: u16, expected: &str) {
    let began = Instant::now();
    loop {
        let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
        server.write_all(request.as_bytes()).unwrap();
        let mut page = String::new();
        server.read_to_string(&mut page).unwrap();
        if page.lines().any(|line| line == expected) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{page}");
        thread::sleep(Duration::from_millis(20));
    }
}
