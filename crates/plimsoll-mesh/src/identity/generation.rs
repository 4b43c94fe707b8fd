//! The number of a node's incarnation, which rises with each one.
//!
//! Other nodes let a later incarnation replace an earlier one, so its number must not depend on the wall clock alone: a clock
//! that was set back would make a restarted node look older than its former self. The last number is kept on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::files::{corrupt, io_error, replace};
use super::{GENERATION_FILE, IdentityError};
use crate::regular_file::{self, ReadError};

/// More than the digits of any number.
const MAX_FILE: u64 = 64;
/// Numbers beyond this are not given out: no clock of these centuries reaches it, and above it there is room.
const MAX_GENERATION: u64 = 1 << 53;

/// Gives out the numbers of incarnations. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Generations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: Option<PathBuf>,
    last: Mutex<u64>,
}

impl Generations {
    /// Numbers that rise within this process, and between processes as long as the wall clock does.
    pub fn in_memory() -> Self {
        Self(Arc::new(Inner { path: None, last: Mutex::new(0) }))
    }

    /// Numbers that rise across restarts as well: the last one is kept in `folder`.
    ///
    /// Blocks on the disk; one small file.
    ///
    /// # Errors
    /// [`IdentityError::Io`] and [`IdentityError::Corrupt`] when the file cannot be read or understood.
    pub fn in_folder(folder: &Path) -> Result<Self, IdentityError> {
        let path = folder.join(GENERATION_FILE);
        let last = match regular_file::read(&path, MAX_FILE) {
            Ok(None) => 0,
            Ok(Some(file)) => {
                let text = String::from_utf8_lossy(&file.bytes);
                let number = text.trim().parse().ok().filter(|&number: &u64| number < MAX_GENERATION);
                number.ok_or_else(|| corrupt(&path, "it does not hold the number of an incarnation".to_owned()))?
            }
            Err(ReadError::Io(source)) => return Err(io_error("read", &path, source)),
            Err(error @ (ReadError::NotRegular | ReadError::TooLarge { .. })) => {
                return Err(corrupt(&path, error.to_string()));
            }
        };
        Ok(Self(Arc::new(Inner { path: Some(path), last: Mutex::new(last) })))
    }

    /// The next number: the milliseconds since the epoch, and at least one more than the last number.
    ///
    /// Blocks on the disk, until the number is stored there.
    ///
    /// # Errors
    /// [`IdentityError::Io`] when it cannot be stored; the number counts as given out all the same.
    pub fn next(&self) -> Result<u64, IdentityError> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.next_at(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn next_at(&self, now_ms: u64) -> Result<u64, IdentityError> {
        let mut last = self.0.last.lock();
        *last = now_ms.min(MAX_GENERATION).max(*last + 1);
        if let Some(path) = &self.0.path {
            replace(path, format!("{last}\n").as_bytes())?;
        }
        Ok(*last)
    }
}

impl Default for Generations {
    fn default() -> Self {
        Self::in_memory()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Issue 10, 4.4: the clock is set back by a day between two lives of a node, and again within the second.
    #[test]
    fn numbers_rise_when_the_clock_does_not() {
        let folder = tempfile::tempdir().unwrap();
        const DAY: u64 = 24 * 3600 * 1000;
        let first = Generations::in_folder(folder.path()).unwrap();
        assert_eq!(first.next_at(10 * DAY).unwrap(), 10 * DAY);
        assert_eq!(first.next_at(10 * DAY).unwrap(), 10 * DAY + 1);
        drop(first);
        let second = Generations::in_folder(folder.path()).unwrap();
        assert_eq!(second.next_at(9 * DAY).unwrap(), 10 * DAY + 2);
        assert_eq!(second.next_at(0).unwrap(), 10 * DAY + 3);
        assert_eq!(second.next_at(11 * DAY).unwrap(), 11 * DAY);
        let memory = Generations::in_memory();
        assert!(memory.next_at(5).unwrap() < memory.next_at(5).unwrap());
    }

    #[test]
    fn a_damaged_file_is_named_and_never_taken_for_the_first_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(GENERATION_FILE);
        for damage in ["", "-1", "x", "18446744073709551615"] {
            fs::write(&path, damage).unwrap();
            let error = Generations::in_folder(folder.path()).err().map(|error| error.to_string()).unwrap();
            assert!(error.contains(GENERATION_FILE) && error.contains("remove it"), "{error}");
        }
        fs::write(&path, "7\n").unwrap();
        assert_eq!(Generations::in_folder(folder.path()).unwrap().next_at(0).unwrap(), 8);
    }
}
