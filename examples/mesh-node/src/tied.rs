//! `serve --tied`: a node that ends with the process that started it, and takes its files along.
//!
//! Only files of the demonstration are removed: a folder counts as one of its folders if it holds the marker file, which is
//! written into a folder that was made for it or is empty.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::Failure;

/// The name of the marker file.
const MARKER: &str = ".mesh-node-demo";

const EXPLANATION: &str = "made by `mesh-node demo`, which removes this folder with all that is in it\n";

/// How often the removal of a folder is tried, and the pause between two tries.
const REMOVALS: u32 = 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(10);

/// Marks `folder` as one to be removed at the end, and makes it if it is not there. One that is marked already stays so.
///
/// # Errors
/// Exit code 2: the folder holds files and no marker. 1: as the system says.
pub(crate) fn mark(folder: &Path) -> Result<(), Failure> {
    if is_marked(folder) {
        return Ok(());
    }
    let failed = |error: io::Error| Failure::because(format!("cannot mark {}: {error}", folder.display()));
    // The node rejects a folder that others can read.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    if fs::read_dir(folder).map_err(failed)?.next().is_some() {
        return Err(Failure::Usage(anyhow::anyhow!(
            "{} holds files that were not made by the demonstration; --tied removes its data folder",
            folder.display()
        )));
    }
    let mut marker = fs::OpenOptions::new().write(true).create_new(true).open(folder.join(MARKER)).map_err(failed)?;
    marker.write_all(EXPLANATION.as_bytes()).map_err(failed)
}

fn is_marked(folder: &Path) -> bool {
    fs::symlink_metadata(folder.join(MARKER)).is_ok_and(|found| found.is_file())
}

/// Ends this process when stdin does, and removes its data folder.
///
/// The folder above it goes with the last of its nodes, if it is marked and nothing but logs of nodes is left in it. A thread
/// of its own, so that not even a blocked runtime keeps the process alive.
///
/// # Errors
/// As the system says.
pub(crate) fn end_with_stdin(data: PathBuf) -> io::Result<()> {
    let wait = move || {
        let mut sink = [0; 64];
        while io::stdin().read(&mut sink).is_ok_and(|read| read > 0) {}
        remove(&data);
        std::process::exit(1);
    };
    std::thread::Builder::new().name("tied".into()).spawn(wait).map(drop)
}

fn remove(data: &Path) {
    if !is_marked(data) {
        return;
    }
    // The node still runs and may write a file meanwhile, which makes the removal fail.
    for _ in 0..REMOVALS {
        if fs::remove_dir_all(data).is_ok() || !data.exists() {
            break;
        }
        std::thread::sleep(REMOVAL_PAUSE);
    }
    let Some(above) = data.parent().filter(|above| is_marked(above)) else { return };
    let _ = fs::remove_file(data.with_extension("log"));
    let others = fs::read_dir(above).into_iter().flatten().flatten().any(|entry| entry.file_name() != MARKER);
    if !others {
        let _ = fs::remove_dir_all(above);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_with_the_marker_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let (ours, theirs) = (home.path().join("ours"), home.path().join("theirs"));
        fs::create_dir(&theirs).unwrap();
        fs::write(theirs.join("precious"), "").unwrap();
        fs::write(home.path().join("ours.log"), "theirs too").unwrap();
        mark(&ours).unwrap();
        mark(&ours).unwrap();
        assert!(matches!(mark(&theirs), Err(Failure::Usage(_))));
        remove(&ours);
        remove(&theirs);
        assert!(!ours.exists() && theirs.join("precious").exists());
        assert!(home.path().join("ours.log").exists(), "the folder above is not marked");
    }

    #[test]
    fn a_marked_folder_above_goes_with_the_last_node() {
        let home = tempfile::tempdir().unwrap();
        let demo = home.path().join("demo");
        mark(&demo).unwrap();
        for name in ["a", "b"] {
            mark(&demo.join(name)).unwrap();
            fs::write(demo.join(name).with_extension("log"), "").unwrap();
        }
        remove(&demo.join("a"));
        assert!(demo.join("b.log").exists() && !demo.join("a.log").exists());
        remove(&demo.join("b"));
        assert!(!demo.exists());
    }
}
