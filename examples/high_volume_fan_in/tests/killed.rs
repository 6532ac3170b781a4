//! Real processes, killed.

use std::process::Command;

/// What a worker did that was killed in the middle is finished or undone by the next delivery.
#[test]
fn workers_that_are_killed_leave_nothing_half_done() {
    let proved =
        Command::new(env!("CARGO_BIN_EXE_high_volume_fan_in")).args(["prove", "2"]).output();
    let proved = proved.expect("the program can be started");
    let (out, err) =
        (String::from_utf8_lossy(&proved.stdout), String::from_utf8_lossy(&proved.stderr));
    assert!(proved.status.success(), "{out}{err}");
    assert!(out.contains("every message took effect once"), "{out}");
}
