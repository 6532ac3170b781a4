//! What the fuzzer has found, run over again by a stable compiler.

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::path::Path;

/// Runs a target over the files of its corpus, and fails if there are none.
#[test]
fn every_target_holds_over_its_corpus() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::ALL {
        let files = std::fs::read_dir(corpora.join(name)).expect("every target has a corpus");
        let mut count = 0;
        for file in files {
            let path = file.expect("the folder can be read").path();
            let bytes = std::fs::read(&path).expect("the file can be read");
            println!("{}", path.display());
            target(&bytes);
            count += 1;
        }
        assert!(count > 0, "the corpus of {name} is empty");
    }
}
