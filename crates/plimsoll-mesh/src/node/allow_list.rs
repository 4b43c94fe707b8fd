//! The allow-list file: node ids, one a line. It is read again whenever it changes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::identity::{MAX_TRUSTED, TrustStore};
use crate::names::NodeId;
use crate::regular_file::{self, ReadError};

/// How often the file is checked for a change: one `stat` a second.
const INTERVAL: Duration = Duration::from_secs(1);

/// The largest file that is read: the longest list with a comment on each line.
const MAX_FILE: u64 = 160 * MAX_TRUSTED as u64;

/// Why an allow-list cannot be used. A list that was read before stays in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AllowListError {
    /// The file is there and cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// A line that is no node id.
    #[error("{}, line {line}: a node id is 64 hexadecimal digits, comments begin with #", path.display())]
    NotAnId {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A folder, a FIFO or a device.
    #[error("{} is not a regular file; put the node ids into one, or set another path", .0.display())]
    NotRegular(PathBuf),
    /// More ids than a list may have, or a file far too large for one.
    #[error("{} holds more than {MAX_TRUSTED} nodes", .0.display())]
    TooLong(PathBuf),
}

/// Reads the list; a file that does not exist is an empty one.
///
/// Blocks on the disk, and on nothing else: only a regular file of a sensible size is read.
///
/// # Errors
/// See [`AllowListError`].
pub fn read_allow_list(path: &Path) -> Result<BTreeSet<NodeId>, AllowListError> {
    let refuse = |source| AllowListError::Io { path: path.to_owned(), source };
    let bytes = match regular_file::read(path, MAX_FILE) {
        Ok(None) => return Ok(BTreeSet::new()),
        Ok(Some(file)) => file.bytes,
        Err(ReadError::Io(source)) => return Err(refuse(source)),
        Err(ReadError::NotRegular) => return Err(AllowListError::NotRegular(path.to_owned())),
        Err(ReadError::TooLarge { .. }) => return Err(AllowListError::TooLong(path.to_owned())),
    };
    let text = String::from_utf8(bytes).map_err(|error| refuse(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<BTreeSet<NodeId>, AllowListError> {
    let mut nodes = BTreeSet::new();
    for (index, line) in text.lines().enumerate() {
        let id = line.split('#').next().unwrap_or_default().trim();
        if id.is_empty() {
            continue;
        }
        nodes.insert(id.parse().map_err(|_| AllowListError::NotAnId { path: path.to_owned(), line: index + 1 })?);
        if nodes.len() > MAX_TRUSTED {
            return Err(AllowListError::TooLong(path.to_owned()));
        }
    }
    Ok(nodes)
}

/// Applies the file to `trust` whenever it changes, until `stop`.
pub(super) async fn follow(path: PathBuf, trust: TrustStore, stop: CancellationToken) {
    let mut file = AllowListFile::new(path, trust);
    let mut checks = tokio::time::interval(INTERVAL);
    checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(checks.tick()).await.is_some() {
        file.check();
    }
}

/// The file, as it was checked last. The list in force survives a file that cannot be read.
struct AllowListFile {
    path: PathBuf,
    trust: TrustStore,
    /// `None` before the first check: a change since the start of the node must not be lost.
    seen: Option<Option<Stamp>>,
}

/// The result of a check of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reload {
    Unchanged,
    Applied,
    Rejected,
}

impl AllowListFile {
    fn new(path: PathBuf, trust: TrustStore) -> Self {
        Self { path, trust, seen: None }
    }

    fn check(&mut self) -> Reload {
        let stamp = Some(stamp(&self.path));
        if self.seen == stamp {
            return Reload::Unchanged;
        }
        self.seen = stamp;
        match read_allow_list(&self.path).map(|nodes| (nodes.len(), self.trust.replace(nodes))) {
            Ok((count, Ok(()))) => {
                info!(target: "plimsoll::mesh", path = %self.path.display(), nodes = count, "allow-list read");
                return Reload::Applied;
            }
            Ok((count, Err(error))) => warn!(target: "plimsoll::mesh", nodes = count, %error, "allow-list rejected"),
            Err(error) => {
                warn!(target: "plimsoll::mesh", %error, "allow-list rejected; the former one stays in force")
            }
        }
        Reload::Rejected
    }
}

/// What changes when the file does. A list of the same length may be put in its place with an earlier time stamp, from a
/// backup or another machine: then it is another file, or its change of state is later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The stamp of the file now; `None` when it is not there.
fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some(Stamp {
        file: (found.dev(), found.ino()),
        length: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: &str) -> NodeId {
        digit.repeat(64).parse().unwrap()
    }

    #[test]
    fn comments_and_blank_lines_are_passed_over_and_a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed-nodes");
        assert!(read_allow_list(&path).unwrap().is_empty(), "no file is an empty list");
        fs::write(&path, format!("# ours\n{}\n\n{} # the other\n", id("a"), id("b"))).unwrap();
        assert_eq!(read_allow_list(&path).unwrap(), BTreeSet::from([id("a"), id("b")]));
        fs::write(&path, format!("{}\nabc\n", id("a"))).unwrap();
        assert!(matches!(read_allow_list(&path), Err(AllowListError::NotAnId { line: 2, .. })));
    }

    #[test]
    fn a_changed_file_is_in_force_at_the_next_check_and_a_damaged_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed-nodes");
        fs::write(&path, format!("{}\n", id("a"))).unwrap();
        let trust = TrustStore::listed([]).unwrap();
        let mut file = AllowListFile::new(path.clone(), trust.clone());
        assert_eq!(file.check(), Reload::Applied);
        assert_eq!(file.check(), Reload::Unchanged);
        assert!(trust.allows(&id("a")));
        fs::write(&path, format!("{}\n{}\n", id("b"), id("c"))).unwrap();
        assert_eq!(file.check(), Reload::Applied);
        assert!(trust.allows(&id("b")) && !trust.allows(&id("a")));
        fs::write(&path, "nonsense\n").unwrap();
        assert_eq!(file.check(), Reload::Rejected);
        assert!(trust.allows(&id("c")));
        fs::remove_file(&path).unwrap();
        assert_eq!(file.check(), Reload::Applied);
        assert!(!trust.allows(&id("c")), "no file is an empty list");
    }

    #[test]
    fn a_list_put_in_place_is_applied_also_with_the_length_and_time_stamp_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("allowed-nodes"), folder.path().join("prepared"));
        fs::write(&path, format!("{}\n", id("a"))).unwrap();
        let trust = TrustStore::listed([]).unwrap();
        let mut file = AllowListFile::new(path.clone(), trust.clone());
        assert_eq!(file.check(), Reload::Applied);
        fs::write(&other, format!("{}\n", id("b"))).unwrap();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        fs::File::options().write(true).open(&other).unwrap().set_modified(before).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(file.check(), Reload::Applied);
        assert!(trust.allows(&id("b")) && !trust.allows(&id("a")));
    }

    /// Issue 10, 4.8: the name may be anything's. Neither the start of a node nor a reload may wait for it.
    #[test]
    fn what_is_not_a_regular_file_is_rejected_and_the_list_in_force_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed-nodes");
        assert!(matches!(read_allow_list(Path::new("/dev/zero")), Err(AllowListError::NotRegular(_))));
        assert!(matches!(read_allow_list(folder.path()), Err(AllowListError::NotRegular(_))));
        fs::write(&path, format!("{}\n", id("a"))).unwrap();
        let trust = TrustStore::listed([]).unwrap();
        let mut file = AllowListFile::new(path.clone(), trust.clone());
        assert_eq!(file.check(), Reload::Applied);
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(file.check(), Reload::Rejected);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert_eq!(file.check(), Reload::Rejected);
        assert!(trust.allows(&id("a")));
        fs::remove_file(&path).unwrap();
        fs::File::create(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(matches!(read_allow_list(&path), Err(AllowListError::TooLong(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_followed_until_the_stop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed-nodes");
        let trust = TrustStore::listed([]).unwrap();
        let mut changes = trust.subscribe();
        let stop = CancellationToken::new();
        let task = tokio::spawn(follow(path.clone(), trust.clone(), stop.clone()));
        fs::write(&path, format!("{}\n", id("a"))).unwrap();
        changes.wait_for(|now| now.allows(&id("a"))).await.unwrap();
        stop.cancel();
        task.await.unwrap();
    }
}
