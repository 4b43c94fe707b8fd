//! `docs/semantics.md` promises nothing without a test: every test that it names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Every source file below `folder`.
fn read_all(folder: &Path, tests: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            tests.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_row_of_the_semantics_names_a_test_that_exists() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(package.join("../../docs/semantics.md")).unwrap();
    let mut tests = String::new();
    read_all(&package.join("tests"), &mut tests);
    let mut named = BTreeSet::new();
    let (mut tested, mut rows) = (false, 0);
    for line in text.lines() {
        if !line.starts_with('|') {
            tested = false;
        } else if line.trim_end().ends_with("| test |") {
            tested = true;
        } else if tested && !line.starts_with("|---") {
            rows += 1;
            let last = line.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap_or_default();
            let name = last.trim().trim_matches('`');
            assert!(tests.contains(&format!("fn {name}(")), "no test `{name}` for the row {line}");
            named.insert(name.to_owned());
        }
    }
    assert!(rows > 50, "only {rows} rows were found");
    assert!(named.len() > 50);
}
