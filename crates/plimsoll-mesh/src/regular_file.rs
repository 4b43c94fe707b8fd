//! Reading a small configuration file without being held up by what else may have its name.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;

/// A file's content and mode.
#[derive(Debug)]
pub(crate) struct RegularFile {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it is larger than {max} bytes")]
    TooLarge { max: u64 },
}

/// Reads a regular file of at most `max` bytes; `None` when there is none of this name.
///
/// A FIFO is opened without waiting for its writer, and a device or a file that grows meanwhile is not read beyond `max`.
pub(crate) fn read(path: &Path, max: u64) -> Result<Option<RegularFile>, ReadError> {
    let file = match OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(ReadError::NotRegular);
    }
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(ReadError::TooLarge { max });
    }
    Ok(Some(RegularFile { bytes, mode: metadata.mode() }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_regular_files_up_to_the_cap_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        assert!(read(&path, 4).unwrap().is_none());
        fs::write(&path, "1234").unwrap();
        assert_eq!(read(&path, 4).unwrap().unwrap().bytes, b"1234");
        assert!(matches!(read(&path, 3), Err(ReadError::TooLarge { max: 3 })));
        assert!(matches!(read(folder.path(), 4), Err(ReadError::NotRegular)), "a folder");
        assert!(matches!(read(Path::new("/dev/zero"), 4), Err(ReadError::NotRegular)), "a device without an end");
    }

    /// Issue 10, 4.8: nobody writes to the FIFO, and the reader does not wait for it.
    #[test]
    fn a_fifo_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let (sender, done) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(matches!(read(&path, 4), Err(ReadError::NotRegular))));
        assert_eq!(done.recv_timeout(std::time::Duration::from_secs(10)), Ok(true));
    }
}
