//! The members of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Folders of the members, relative to the root, in order.
pub(crate) fn members() -> Vec<String> {
    let mut members = Vec::new();
    for group in ["crates", "examples"] {
        for entry in fs::read_dir(root().join(group)).expect(group) {
            let entry = entry.expect("a folder");
            if entry.path().join("Cargo.toml").is_file() {
                members.push(format!("{group}/{}", entry.file_name().to_string_lossy()));
            }
        }
    }
    members.sort();
    assert!(members.len() >= 7, "the members were not found: {members:?}");
    members
}

/// Every file below `folder` with this extension, by its path from the root, but for those whose path contains one of `but`.
pub(crate) fn files(folder: &Path, extension: &str, but: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.expect("an entry").path();
        let name = path.strip_prefix(root()).expect("below the root").display().to_string();
        if but.iter().any(|part| name.contains(part)) {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, extension, but));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push((name, fs::read_to_string(&path).expect("a text")));
        }
    }
    found.sort();
    found
}
