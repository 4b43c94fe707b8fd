//! A Unix socket for one user, in place of one that a killed process left behind.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A process listens there already.
    #[error("another process listens on {}", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket has that name; it is left alone.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The path has more bytes than the address of a Unix socket.
    #[error("the socket path {} has {} bytes, and the system allows about 100; use a shorter folder", .0.display(), .0.as_os_str().len())]
    TooLong(PathBuf),
    /// The system refused.
    #[error("cannot listen on {}: {source}", path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Whether a socket can have this path, and its temporary path.
pub(crate) fn check(path: &Path) -> Result<(), BindError> {
    let fits = |path: &Path| SocketAddr::from_pathname(path).is_ok();
    if fits(path) && fits(&staging_path(path)) { Ok(()) } else { Err(BindError::TooLong(path.to_owned())) }
}

/// The folder in which the socket is made.
fn staging_folder(path: &Path) -> PathBuf {
    path.with_extension("tmp")
}

fn staging_path(path: &Path) -> PathBuf {
    staging_folder(path).join("s")
}

/// Removes the folder in which a socket was made. A folder that holds anything else is not ours, and stays.
fn remove_staging(path: &Path) {
    let socket = staging_path(path);
    if fs::symlink_metadata(&socket).is_ok_and(|found| found.file_type().is_socket()) {
        let _ = fs::remove_file(&socket);
    }
    let _ = fs::remove_dir(staging_folder(path));
}

/// Listens on `path`, with mode 0600 from the first moment on: the socket is made inside a folder of mode 0700 and then
/// moved to its place, which also replaces a stale one in a single step.
pub(crate) async fn bind(path: &Path) -> Result<UnixListener, BindError> {
    check(path)?;
    let io_error = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path).await {
            Ok(_) => return Err(BindError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(io_error(error)),
        },
    }
    // What a process that was killed here left.
    remove_staging(path);
    DirBuilder::new().mode(0o700).create(staging_folder(path)).map_err(io_error)?;
    let listener = make(path).map_err(io_error);
    remove_staging(path);
    listener
}

fn make(path: &Path) -> io::Result<UnixListener> {
    let staging = staging_path(path);
    let listener = UnixListener::bind(&staging)?;
    fs::set_permissions(&staging, Permissions::from_mode(0o600))?;
    fs::rename(&staging, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_for_its_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let _listener = bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[tokio::test]
    async fn a_path_that_no_socket_can_have_is_rejected_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        // The longest that the system takes, and longer ones up to where only the temporary name is too long.
        for length in 90..120 {
            let base = folder.path().as_os_str().len();
            let path = folder.path().join(format!("{}.s", "x".repeat(length - base - 3)));
            match check(&path) {
                Ok(()) => drop(bind(&path).await.unwrap()),
                Err(error) => {
                    assert!(error.to_string().contains(&format!("has {length} bytes")), "{error}");
                    assert!(matches!(bind(&path).await, Err(BindError::TooLong(_))));
                    assert!(!path.with_extension("tmp").exists());
                }
            }
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_an_active_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(bind(&path).await.unwrap());
        assert!(path.exists(), "dropping leaves the file, as a kill does");
        let _listener = bind(&path).await.unwrap();
        assert!(matches!(bind(&path).await, Err(BindError::InUse(_))));
    }

    #[tokio::test]
    async fn a_folder_that_is_not_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let theirs = folder.path().join("admin.tmp");
        fs::create_dir(&theirs).unwrap();
        for name in ["file", "s"] {
            fs::write(theirs.join(name), "content").unwrap();
        }
        assert!(matches!(bind(&path).await, Err(BindError::Io { .. })));
        assert_eq!(fs::read_dir(&theirs).unwrap().count(), 2);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        fs::create_dir(folder.path().join("admin.tmp")).unwrap();
        drop(UnixListener::bind(folder.path().join("admin.tmp/s")).unwrap());
        let _listener = bind(&path).await.unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        fs::write(&path, "content").unwrap();
        assert!(matches!(bind(&path).await, Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "content");
    }
}
