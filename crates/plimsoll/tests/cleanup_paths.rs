//! Every cleanup path of calls and mailboxes, and the test that fails without it: `cleanup_paths.json`.
//!
//! The list cannot rot: what would be switched off stands in the sources exactly once, and the test exists. That each of
//! these tests does fail is shown by `just mutants-call`, which switches the paths off one by one in a copy of the
//! sources.

use std::fs;
use std::path::Path;

const LIST: &str = include_str!("cleanup_paths.json");

/// A test program's only file, or all files of its folder.
fn sources_of(program: &Path) -> String {
    if !program.is_dir() {
        return fs::read_to_string(program.with_extension("rs")).unwrap();
    }
    let files = fs::read_dir(program).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn every_cleanup_path_can_be_switched_off_and_names_the_test_that_notices() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list: Vec<serde_json::Value> = serde_json::from_str(LIST).unwrap();
    assert!(list.len() >= 28, "a path was taken off the list");
    for entry in &list {
        let text = |name: &str| entry[name].as_str().unwrap_or_else(|| panic!("{name} of {entry}"));
        let source = fs::read_to_string(package.join(text("file"))).unwrap();
        let times = source.matches(text("replace")).count();
        assert_eq!(times, 1, "{}: what is switched off stands {times} times in {}", text("path"), text("file"));
        let (program, test) = text("test").split_once("::").unwrap();
        let tests = match program {
            "lib" => fs::read_to_string(package.join("src/call/call_table.rs")).unwrap(),
            program => sources_of(&package.join("tests").join(program)),
        };
        assert!(tests.contains(&format!("fn {test}(")), "{}: there is no test {test}", text("path"));
    }
}
