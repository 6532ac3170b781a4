//! The chapter about the .NET original: each behaviour that its tests assert, and each of its
//! shortcomings, names a test that is there.

use std::collections::BTreeSet;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of all functions of the tests, and of the examples with tests.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![root().join("tests"), root().join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = std::fs::read_to_string(path).expect("it is text");
                let heads = text.split("fn ").skip(1);
                names.extend(heads.filter_map(|head| Some(head.split_once('(')?.0.to_owned())));
            }
        }
    }
    names
}

/// The rows of the chapter's tables: what it is about, and the test.
fn rows() -> Vec<(String, String)> {
    let chapter = std::fs::read_to_string(root().join("src/guide/parity.rs")).expect("it is there");
    let rows = chapter.lines().filter_map(|line| line.strip_prefix("//! | "));
    let cells = rows.map(|row| row.trim_end_matches(" |").split(" | ").collect::<Vec<_>>());
    let named = cells.filter_map(|cells| {
        let test = cells.last()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((cells.first()?.to_string(), test.to_owned()))
    });
    named.collect()
}

#[test]
fn each_behaviour_of_the_original_is_in_the_chapter_and_names_a_test_that_is_there() {
    let (rows, tests) = (rows(), tests());
    let numbers = (1..=56).map(|number| format!("P{number}"));
    let numbers: Vec<_> = numbers.chain((1..=18).map(|number| format!("B{number}"))).collect();
    let told: Vec<_> = rows.iter().map(|(number, _)| number.clone()).collect();
    assert_eq!(told, numbers);
    let missing: Vec<_> = rows.iter().filter(|(_, test)| !tests.contains(test)).collect();
    assert!(missing.is_empty(), "no such test: {missing:?}");
}
