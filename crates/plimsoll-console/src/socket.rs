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

/// Whether a socket can have this path, and the one under which it is made.
pub(crate) fn check(path: &Path) -> Result<(), BindError> {
    let fits = |path: &Path| SocketAddr::from_pathname(path).is_ok();
    if fits(path) && fits(&inside(path)) { Ok(()) } else { Err(BindError::TooLong(path.to_owned())) }
}

/// The folder in which the socket is made.
fn private(path: &Path) -> PathBuf {
    path.with_extension("tmp")
}

fn inside(path: &Path) -> PathBuf {
    private(path).join("s")
}

/// Listens on `path`, with mode 0600 from the first moment on: the socket is made inside a folder of mode 0700 and then
/// moved to its place, which also replaces a stale one in a single step.
pub(crate) async fn bind(path: &Path) -> Result<UnixListener, BindError> {
    check(path)?;
    let refuse = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refuse(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path).await {
            Ok(_) => return Err(BindError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(refuse(error)),
        },
    }
    let private = private(path);
    let _ = fs::remove_dir_all(&private);
    DirBuilder::new().mode(0o700).create(&private).map_err(refuse)?;
    let made = make(path).map_err(refuse);
    let _ = fs::remove_dir_all(&private);
    made
}

fn make(path: &Path) -> io::Result<UnixListener> {
    let inside = inside(path);
    let listener = UnixListener::bind(&inside)?;
    fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
    fs::rename(&inside, path)?;
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
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(bind(&path).await.unwrap());
        assert!(path.exists(), "dropping leaves the file, as a kill does");
        let _listener = bind(&path).await.unwrap();
        assert!(matches!(bind(&path).await, Err(BindError::InUse(_))));
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path).await, Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
