//! `docs/dependencies.md` has a row for each dependency of the workspace, and none for anything else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)).expect(file)
}

/// Names in `[workspace.dependencies]`, our own crates left out.
fn declared(manifest: &str) -> BTreeSet<String> {
    manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().to_owned())
        .filter(|name| name != "plimsoll" && !name.starts_with("plimsoll-"))
        .collect()
}

/// First cells of the tables of crates: `name version`, above the section about tools.
fn explained(document: &str) -> Vec<String> {
    document
        .lines()
        .take_while(|line| *line != "## Tools")
        .filter_map(|line| line.strip_prefix("| "))
        .filter(|row| !row.starts_with("crate "))
        .map(|row| row.split(' ').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn every_dependency_is_explained_once() {
    let declared = declared(&read("Cargo.toml"));
    let rows = explained(&read("docs/dependencies.md"));
    let explained: BTreeSet<String> = rows.iter().cloned().collect();

    assert!(declared.contains("tokio"), "the manifest was not understood: {declared:?}");
    let missing: Vec<_> = declared.difference(&explained).collect();
    let gone: Vec<_> = explained.difference(&declared).collect();
    assert!(missing.is_empty() && gone.is_empty(), "without a row: {missing:?}; row without a dependency: {gone:?}");
    assert_eq!(rows.len(), explained.len(), "a crate has two rows");
}

#[test]
fn no_member_names_a_version_of_its_own() {
    let members = ["plimsoll", "plimsoll-sync", "plimsoll-mesh", "plimsoll-console", "plimsoll-testkit"]
        .map(|name| format!("crates/{name}/Cargo.toml"));
    for file in members.iter().map(String::as_str).chain(["examples/mesh-node/Cargo.toml"]) {
        let mut section = String::new();
        for line in read(file).lines() {
            if line.starts_with('[') {
                section = line.to_owned();
            } else if section.ends_with("dependencies]") && line.contains('=') {
                assert!(line.contains("workspace = true"), "{file}: `{line}` is not taken from the workspace");
            }
        }
    }
}
