//! Identities on disk and in TLS.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use plimsoll_mesh::identity::{self, CERTIFICATE_FILE, Identity, IdentityError, KEY_FILE};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, ServerConnection, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

type TestResult = Result<(), Box<dyn Error>>;

fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o7777)
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn private_folder() -> io::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    set_mode(folder.path(), 0o700)?;
    Ok(folder)
}

#[test]
fn first_start_makes_an_identity_that_only_its_owner_reads() -> TestResult {
    let outer = tempfile::tempdir()?;
    let folder = outer.path().join("data").join("node-1");
    let made = Identity::load_or_create(&folder)?;

    assert_eq!(mode(&folder)?, 0o700);
    assert_eq!(mode(&folder.join(KEY_FILE))?, 0o600);
    assert_eq!(mode(&folder.join(CERTIFICATE_FILE))?, 0o600);
    let mut names: Vec<_> = fs::read_dir(&folder)?.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, [CERTIFICATE_FILE, KEY_FILE], "nothing else is left behind");

    let again = Identity::load_or_create(&folder)?;
    assert_eq!(again.node_id(), made.node_id());
    assert_eq!(again.certificate(), made.certificate());
    Ok(())
}

#[test]
fn a_crash_between_key_and_certificate_keeps_the_node_who_it_is() -> TestResult {
    let folder = private_folder()?;
    let before = Identity::load_or_create(folder.path())?.node_id();
    fs::remove_file(folder.path().join(CERTIFICATE_FILE))?;
    fs::write(folder.path().join("identity.key.4242.new"), "half a k")?;
    set_mode(&folder.path().join("identity.key.4242.new"), 0o600)?;

    assert_eq!(Identity::load_or_create(folder.path())?.node_id(), before);
    assert!(!folder.path().join("identity.key.4242.new").exists(), "the leftover is swept");
    Ok(())
}

#[test]
fn starts_at_once_in_one_folder_agree() -> TestResult {
    let folder = private_folder()?;
    let ids = std::thread::scope(|scope| {
        let starts: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Identity::load_or_create(folder.path()).map(|it| it.node_id()))).collect();
        starts.into_iter().map(|start| start.join()).collect::<Vec<_>>()
    });
    let mut agreed = None;
    for id in ids {
        let id = id.map_err(|_| "a start panicked")??;
        assert_eq!(*agreed.get_or_insert(id), id);
    }
    Ok(())
}

#[test]
fn a_folder_or_key_open_to_others_is_refused() -> TestResult {
    let outer = tempfile::tempdir()?;
    let folder = outer.path().join("data");
    fs::DirBuilder::new().mode(0o755).create(&folder)?;
    set_mode(&folder, 0o755)?;
    let refused = Identity::load_or_create(&folder);
    assert!(matches!(refused, Err(IdentityError::Exposed { mode: 0o755, wanted: 0o700, .. })), "{refused:?}");
    assert!(!folder.join(KEY_FILE).exists(), "no key is put where others can get at it");

    set_mode(&folder, 0o700)?;
    Identity::load_or_create(&folder)?;
    set_mode(&folder.join(KEY_FILE), 0o640)?;
    let refused = Identity::load_or_create(&folder);
    assert!(matches!(refused, Err(IdentityError::Exposed { mode: 0o640, wanted: 0o600, .. })), "{refused:?}");
    let words = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(words.contains("chmod 0600"), "{words}");
    Ok(())
}

#[test]
fn damaged_or_foreign_files_are_refused_and_never_replaced() -> TestResult {
    for damage in ["", "not a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        let folder = private_folder()?;
        Identity::load_or_create(folder.path())?;
        let key = folder.path().join(KEY_FILE);
        fs::write(&key, damage)?;
        let refused = Identity::load_or_create(folder.path());
        assert!(matches!(refused, Err(IdentityError::Corrupt { .. })), "{damage:?}: {refused:?}");
        assert_eq!(fs::read_to_string(&key)?, damage);
    }

    let (ours, theirs) = (private_folder()?, private_folder()?);
    Identity::load_or_create(ours.path())?;
    Identity::load_or_create(theirs.path())?;
    fs::copy(theirs.path().join(CERTIFICATE_FILE), ours.path().join(CERTIFICATE_FILE))?;
    let refused = Identity::load_or_create(ours.path());
    assert!(matches!(refused, Err(IdentityError::Mismatch { .. })), "{refused:?}");

    fs::write(ours.path().join(CERTIFICATE_FILE), vec![b'x'; 1 << 20])?;
    let refused = Identity::load_or_create(ours.path());
    assert!(matches!(refused, Err(IdentityError::Corrupt { .. })), "{refused:?}");
    Ok(())
}

#[test]
fn what_cannot_be_read_or_made_is_said_with_its_path() -> TestResult {
    let folder = private_folder()?;
    let key = folder.path().join(KEY_FILE);
    fs::DirBuilder::new().mode(0o700).create(&key)?;
    let refused = Identity::load_or_create(folder.path());
    assert!(matches!(&refused, Err(IdentityError::Io { path, .. }) if *path == key), "{refused:?}");

    let file = folder.path().join("file");
    fs::write(&file, "")?;
    let refused = Identity::load_or_create(&file);
    assert!(matches!(&refused, Err(IdentityError::Io { path, .. }) if *path == file), "{refused:?}");
    Ok(())
}

#[test]
fn a_signature_fits_its_message_and_its_key_only() -> TestResult {
    let (node, other) = (Identity::generate()?, Identity::generate()?);
    let signature = node.sign(b"echo")?;
    assert_eq!(node.public_key().node_id(), node.node_id());
    assert!(node.public_key().verify(b"echo", &signature).is_ok());
    assert!(node.public_key().verify(b"ech0", &signature).is_err());
    assert!(other.public_key().verify(b"echo", &signature).is_err());
    Ok(())
}

/// A client that takes any server and would resume if it could.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn shake_hands(client: &mut ClientConnection, server: &mut ServerConnection) -> TestResult {
    let mut wire = Vec::new();
    for _ in 0..6 {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire)?;
        }
        server.read_tls(&mut wire.as_slice())?;
        server.process_new_packets()?;
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire)?;
        }
        client.read_tls(&mut wire.as_slice())?;
        client.process_new_packets()?;
    }
    Ok(())
}

/// The control is a server of the same TLS library with its defaults: there the second handshake is a resumption.
#[test]
fn a_server_gives_nothing_to_resume_with() -> TestResult {
    let identity = Identity::generate()?;
    let ours = Arc::new(identity::tls_server_config(&identity, &[b"h3"])?);
    let mut resuming = rustls::ServerConfig::clone(&ours);
    resuming.send_tls13_tickets = 2;
    resuming.session_storage = rustls::server::ServerSessionMemoryCache::new(32);
    for (server_config, second) in [(ours, HandshakeKind::Full), (Arc::new(resuming), HandshakeKind::Resumed)] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h3".to_vec()];
        let config = Arc::new(config);
        for expected in [HandshakeKind::Full, second] {
            let mut client = ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?;
            let mut server = ServerConnection::new(server_config.clone())?;
            shake_hands(&mut client, &mut server)?;
            assert_eq!(client.handshake_kind(), Some(expected));
            assert_eq!(client.tls13_tickets_received() > 0, second == HandshakeKind::Resumed);
        }
    }
    Ok(())
}
