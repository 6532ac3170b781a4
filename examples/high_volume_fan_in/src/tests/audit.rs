//! What the audit finds.

use std::fs;

use super::{ALL, Folder};
use crate::schema;

#[test]
fn the_audit_finds_what_is_wrong() {
    let put = "INSERT INTO journal(act, feed, position, undo) VALUES";
    let damages = [
        ("DELETE FROM outbox WHERE token = 'ak18247005#1'", "1 half done"),
        ("DELETE FROM tokens WHERE token = 'ak18247005#1'", "1 half done"),
        ("DELETE FROM tokens WHERE token = 'ak18247005#1'", "1 effects undone after their message"),
        ("UPDATE outbox SET body = '' WHERE token = 'ak18247005#1'", "1 not as their line says"),
        ("INSERT INTO outbox VALUES ('x', 77, 0, 1, 1, '', '')", "1 of no line"),
        ("INSERT INTO tokens VALUES ('x', 0, 0, 1, 1, '')", "1 of no line"),
        ("INSERT INTO dead VALUES (0, 3, 1, 1, x'00', '')", "there, 1 not"),
        (
            "INSERT INTO dead SELECT feed, position, 1, 1, x'', '' FROM tokens LIMIT 1",
            "1 half done",
        ),
        (&format!("{put} ('token undone', 0, 0, 'x')"), "1 out of order"),
        (&format!("{put} ('event undone', 1, 0, 'x')"), "1 effects undone after their message"),
        ("UPDATE runs SET settled = settled + 1", "reported 1,708"),
        ("UPDATE runs SET settled = settled - 1", "reported 1,706"),
    ];
    let folder = Folder::new();
    assert_eq!(folder.run("").counts(), (ALL, 0, 0));
    for (damage, complaint) in damages {
        let copy = Folder::new();
        fs::copy(folder.database(), copy.database()).unwrap();
        let (from, to) = [&folder, &copy].map(|it| schema::partitions(&it.database())).into();
        fs::create_dir(&to).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        assert_eq!(copy.connect().execute(damage, []).unwrap(), 1);
        let checks = copy.run("").audit.checks;
        let found = checks.iter().any(|check| !check.holds && check.text.contains(complaint));
        assert!(found, "{damage}: {checks:#?}");
    }
}

#[test]
fn the_audit_finds_a_message_that_is_gone() {
    let folder = Folder::new();
    folder.run("--timeout 0s");
    let forget = "DELETE FROM queue WHERE queue = 0 AND number = 3";
    assert_eq!(folder.connect().execute(forget, []).unwrap(), 1);
    fs::write(folder.partition(1), "{}\n").unwrap();
    let checks = folder.run("--timeout 0s").audit.checks;
    for complaint in ["1 half done", "there, 386 not"] {
        let found = checks.iter().any(|check| !check.holds && check.text.contains(complaint));
        assert!(found, "{complaint}: {checks:#?}");
    }
}
