//! The allow-list file: node ids, one a line, read again whenever it changes.

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

/// How often the file's time stamp is looked at: one `stat` a second.
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
        /// What the system said.
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
    /// More ids than a list may have, or a file far too large for one.
    #[error("{} holds more than {MAX_TRUSTED} nodes", .0.display())]
    TooLong(PathBuf),
}

/// Reads the list; a file that does not exist is an empty one.
///
/// # Errors
/// See [`AllowListError`].
pub fn read_allow_list(path: &Path) -> Result<BTreeSet<NodeId>, AllowListError> {
    let refuse = |source| AllowListError::Io { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(found) if found.len() > MAX_FILE => return Err(AllowListError::TooLong(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(refuse(error)),
        Ok(_) => {}
    }
    parse(path, &fs::read_to_string(path).map_err(refuse)?)
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

/// Keeps `trust` as the file says, until `stop`.
pub(super) async fn follow(path: PathBuf, trust: TrustStore, stop: CancellationToken) {
    let mut file = Followed::new(path, trust);
    let mut looks = tokio::time::interval(INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        file.look();
    }
}

/// The file, as it was looked at last. The list in force survives a file that cannot be read.
struct Followed {
    path: PathBuf,
    trust: TrustStore,
    /// `None` before the first look: a change since the start of the node must not be lost.
    seen: Option<Option<Stamp>>,
}

/// What a look at the file led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Unchanged,
    Taken,
    NotTaken,
}

impl Followed {
    fn new(path: PathBuf, trust: TrustStore) -> Self {
        Self { path, trust, seen: None }
    }

    fn look(&mut self) -> Look {
        let stamp = Some(stamp(&self.path));
        if self.seen == stamp {
            return Look::Unchanged;
        }
        self.seen = stamp;
        match read_allow_list(&self.path).map(|nodes| (nodes.len(), self.trust.replace(nodes))) {
            Ok((count, Ok(()))) => {
                info!(target: "plimsoll::mesh", path = %self.path.display(), nodes = count, "allow-list read");
                return Look::Taken;
            }
            Ok((count, Err(error))) => warn!(target: "plimsoll::mesh", nodes = count, %error, "allow-list not taken"),
            Err(error) => {
                warn!(target: "plimsoll::mesh", %error, "allow-list not taken; the one before stays in force")
            }
        }
        Look::NotTaken
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
    fn a_changed_file_is_in_force_at_the_next_look_and_a_damaged_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed-nodes");
        fs::write(&path, format!("{}\n", id("a"))).unwrap();
        let trust = TrustStore::listed([]).unwrap();
        let mut file = Followed::new(path.clone(), trust.clone());
        assert_eq!(file.look(), Look::Taken);
        assert_eq!(file.look(), Look::Unchanged);
        assert!(trust.allows(&id("a")));
        fs::write(&path, format!("{}\n{}\n", id("b"), id("c"))).unwrap();
        assert_eq!(file.look(), Look::Taken);
        assert!(trust.allows(&id("b")) && !trust.allows(&id("a")));
        fs::write(&path, "nonsense\n").unwrap();
        assert_eq!(file.look(), Look::NotTaken);
        assert!(trust.allows(&id("c")));
        fs::remove_file(&path).unwrap();
        assert_eq!(file.look(), Look::Taken);
        assert!(!trust.allows(&id("c")), "no file is an empty list");
    }

    #[test]
    fn a_list_put_in_place_is_taken_also_with_the_length_and_time_stamp_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("allowed-nodes"), folder.path().join("prepared"));
        fs::write(&path, format!("{}\n", id("a"))).unwrap();
        let trust = TrustStore::listed([]).unwrap();
        let mut file = Followed::new(path.clone(), trust.clone());
        assert_eq!(file.look(), Look::Taken);
        fs::write(&other, format!("{}\n", id("b"))).unwrap();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        fs::File::options().write(true).open(&other).unwrap().set_modified(before).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(file.look(), Look::Taken);
        assert!(trust.allows(&id("b")) && !trust.allows(&id("a")));
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
