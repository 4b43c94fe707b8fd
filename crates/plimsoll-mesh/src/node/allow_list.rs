//! The allow-list file: node ids, one a line, read again whenever it changes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

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

/// Keeps `trust` as the file says, until `stop`. The list in force survives a file that cannot be read.
pub(super) async fn follow(path: PathBuf, trust: TrustStore, stop: CancellationToken) {
    // Nothing was looked at yet: a change between the start of the node and this task's first look must not be lost.
    let mut seen = None;
    let mut look = tokio::time::interval(INTERVAL);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(look.tick()).await.is_some() {
        let stamp = stamp(&path);
        if seen == Some(stamp) {
            continue;
        }
        match read_allow_list(&path).map(|nodes| (nodes.len(), trust.replace(nodes))) {
            Ok((count, Ok(()))) => {
                info!(target: "plimsoll::mesh", path = %path.display(), nodes = count, "allow-list read");
            }
            Ok((count, Err(error))) => warn!(target: "plimsoll::mesh", nodes = count, %error, "allow-list not taken"),
            Err(error) => {
                warn!(target: "plimsoll::mesh", %error, "allow-list not taken; the one before stays in force")
            }
        }
        seen = Some(stamp);
    }
}

/// What changes when the file does: its time stamp, its size, or that it is there.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
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

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_in_force_within_two_looks_and_a_damaged_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed-nodes");
        fs::write(&path, format!("{}\n", id("a"))).unwrap();
        let trust = TrustStore::listed([]).unwrap();
        let mut changes = trust.subscribe();
        let stop = CancellationToken::new();
        let task = tokio::spawn(follow(path.clone(), trust.clone(), stop.clone()));
        changes.wait_for(|now| now.allows(&id("a"))).await.unwrap();
        fs::write(&path, format!("{}\n{}\n", id("b"), id("c"))).unwrap();
        changes.wait_for(|now| now.allows(&id("b"))).await.unwrap();
        assert!(!trust.allows(&id("a")));
        fs::write(&path, "nonsense\n").unwrap();
        tokio::time::sleep(2 * INTERVAL).await;
        assert!(trust.allows(&id("c")));
        stop.cancel();
        task.await.unwrap();
    }
}
