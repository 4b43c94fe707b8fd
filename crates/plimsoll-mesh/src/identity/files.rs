//! The identity on disk.
//!
//! A file is written under a name of its own, synced, and linked to its final name, which fails when that exists: so it
//! appears whole or not at all, and of two processes that start at once the second finds the first one's key.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::proof::{certificate_for, generate_key, key_from_der, node_id_of_certificate};
use super::{CERTIFICATE_FILE, Identity, IdentityError, KEY_FILE};
use crate::regular_file::{self, ReadError};

/// Far more than a P-256 key or certificate takes; what is larger is not one of ours and is not read.
const MAX_FILE: u64 = 16 * 1024;

const FRESH: &str = ".new";

pub(super) fn load_or_create(folder: &Path) -> Result<Identity, IdentityError> {
    make_folder(folder)?;
    let key_path = folder.join(KEY_FILE);
    if read(&key_path)?.is_none() {
        place(&key_path, generate_key()?.serialize_pem().as_bytes())?;
    }
    let text = read(&key_path)?.ok_or_else(|| io_error("read", &key_path, ErrorKind::NotFound.into()))?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|error| corrupt(&key_path, error.to_string()))?;
    let key = key_from_der(&key).map_err(|error| corrupt(&key_path, error.to_string()))?;

    let certificate_path = folder.join(CERTIFICATE_FILE);
    if read(&certificate_path)?.is_none() {
        place(&certificate_path, certificate_for(&key)?.pem().as_bytes())?;
    }
    let text =
        read(&certificate_path)?.ok_or_else(|| io_error("read", &certificate_path, ErrorKind::NotFound.into()))?;
    let certificate =
        CertificateDer::from_pem_slice(&text).map_err(|error| corrupt(&certificate_path, error.to_string()))?;
    let shown = node_id_of_certificate(&certificate).map_err(|error| corrupt(&certificate_path, error.to_string()))?;
    remove_leftovers(folder);

    let identity = Identity::from_parts(&key, certificate)?;
    if shown != identity.node_id() {
        return Err(IdentityError::Mismatch { path: certificate_path });
    }
    Ok(identity)
}

fn make_folder(folder: &Path) -> Result<(), IdentityError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| io_error("create the data folder", folder, source))?;
    let metadata = fs::metadata(folder).map_err(|source| io_error("read", folder, source))?;
    closed_to_others(folder, metadata.mode(), 0o700)
}

fn closed_to_others(path: &Path, mode: u32, wanted: u32) -> Result<(), IdentityError> {
    let mode = mode & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(IdentityError::Exposed { path: path.into(), mode, wanted }) }
}

/// The file's bytes, or `None` when there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    match regular_file::read(path, MAX_FILE) {
        Ok(None) => Ok(None),
        Ok(Some(file)) => closed_to_others(path, file.mode, 0o600).map(|()| Some(file.bytes)),
        Err(ReadError::Io(source)) => Err(io_error("read", path, source)),
        Err(error @ ReadError::NotRegular) => Err(io_error("read", path, io::Error::other(error))),
        Err(error @ ReadError::TooLarge { .. }) => Err(corrupt(path, error.to_string())),
    }
}

/// Replaces a file, so that after a crash it has its former or its new content.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let fresh = path.with_added_extension(format!("{:016x}{FRESH}", rand::random::<u64>()));
    if let Err(source) = write_synced(&fresh, bytes).and_then(|()| fs::rename(&fresh, path)) {
        let _ = fs::remove_file(&fresh);
        return Err(io_error("write", path, source));
    }
    sync_folder(path)
}

/// Puts a file in its place unless one is there already.
fn place(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let fresh = path.with_added_extension(format!("{:016x}{FRESH}", rand::random::<u64>()));
    let written = write_synced(&fresh, bytes).and_then(|()| fs::hard_link(&fresh, path));
    let _ = fs::remove_file(&fresh);
    match written {
        Ok(()) => {}
        // Another process was first, and may have swept our file away with the leftovers.
        Err(_) if path.exists() => return Ok(()),
        Err(source) => return Err(io_error("write", path, source)),
    }
    sync_folder(path)
}

fn sync_folder(path: &Path) -> Result<(), IdentityError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| io_error("sync", folder, source))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Once key and certificate are in place, whatever a crash left half done can never be used.
fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with("identity.") || name.starts_with(super::GENERATION_FILE);
        if ours && name.ends_with(FRESH) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io { action, path: path.into(), source }
}

pub(super) fn corrupt(path: &Path, what: String) -> IdentityError {
    let remedy = if path.ends_with(KEY_FILE) {
        format!("restore it from a backup, or remove it and {CERTIFICATE_FILE} to make this a new node with another id")
    } else {
        "remove it to have it made again".to_owned()
    };
    IdentityError::Corrupt { path: path.into(), what, remedy }
}
