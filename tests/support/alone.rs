//! A test in a process of its own: for what is counted in the whole process.

use std::process::Command;

const CHILD: &str = "WATERSHED_TEST_ALONE";

/// Runs the test `name` of a module, which calls this, again in a process where no other runs.
pub fn alone(module: &str, name: &str, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let test = module.split_once("::").map_or(name.to_owned(), |(_, at)| format!("{at}::{name}"));
    let me = std::env::current_exe().expect("the test is a file");
    let arguments = [test.as_str(), "--exact", "--nocapture", "--test-threads=1"];
    let output = Command::new(me).args(arguments).env(CHILD, "1").output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    assert!(said.contains("1 passed"), "{test} is no test: {said}");
    print!("{said}");
}
