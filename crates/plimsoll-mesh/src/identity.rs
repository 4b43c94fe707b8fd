//! The identity of a node, and the nodes that it trusts.
//!
//! A node is its P-256 key. [`NodeId`] is the SHA-256 of the public key's SPKI; the self-signed certificate is only the
//! wrapper in which TLS carries that key. Proof of possession is TLS's; whether a proven node is trusted is decided
//! right after the handshake, so that a refusal can name the node and the reason on both sides ([`TrustStore`]).
//!
//! Nothing here resumes: no session storage, no tickets, no early data. A node that lost its trust has nothing in hand
//! that would let it back in.

mod files;
mod generation;
mod proof;
mod tls;
mod trust;
mod verify;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::names::NodeId;

pub use generation::Generations;
pub use proof::{InvalidSignature, PublicKey, SERVER_NAME, Signature};
pub(crate) use tls::pinned_client_config;
pub use tls::{
    ALPN_H3, ALPN_PEER, Handshake, Protocol, client_config, endpoint_config, handshake, peer_client_config,
    server_config, tls_server_config,
};
pub use trust::{MAX_TRUSTED, Trust, TrustFull, TrustStore};

/// Name of the private key's file in the data folder.
pub const KEY_FILE: &str = "identity.key";
/// Name of the certificate's file in the data folder.
pub const CERTIFICATE_FILE: &str = "identity.crt";

/// Name of the file in the data folder that holds the number of the last incarnation.
pub const GENERATION_FILE: &str = "generation";

/// A node's key and certificate. Cloning shares them; the key is never shown.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    id: NodeId,
    signing: EcdsaKeyPair,
    random: SystemRandom,
    key: PrivatePkcs8KeyDer<'static>,
    certificate: CertificateDer<'static>,
}

/// Why a node has no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The data folder or a file in it cannot be made, read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// Others than the owner can read or enter what holds the key.
    #[error("{} has mode {mode:04o}, so others can get at the key; run: chmod {wanted:04o} {}", path.display(), path.display())]
    Exposed {
        /// The folder or file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it must have.
        wanted: u32,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged: {what}; {remedy}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What the operator can do.
        remedy: String,
    },
    /// The certificate belongs to another key.
    #[error("{} does not belong to the key beside it; remove it to have it made again", path.display())]
    Mismatch {
        /// The certificate's file.
        path: PathBuf,
    },
    /// The system gave no randomness, or the key could not be used.
    #[error("cannot make a key: {0}")]
    Crypto(String),
}

impl Identity {
    /// Reads the identity in `folder`, or makes it there at the first start.
    ///
    /// The folder is made with mode 0700, the files with 0600. Creation is crash safe: a file appears whole or not at
    /// all, an existing key is never replaced, and two processes that start at once in one folder end with the same
    /// identity. A lost certificate is made again from the key.
    ///
    /// Blocks on the disk; one start, a few small files.
    ///
    /// # Errors
    /// See [`IdentityError`]; a folder or key that others can read is refused, as is a file that cannot be understood.
    pub fn load_or_create(folder: &Path) -> Result<Self, IdentityError> {
        files::load_or_create(folder)
    }

    /// A new identity that is kept nowhere.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`] when the system gives no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        let key = proof::generate_key()?;
        let certificate = proof::certificate_for(&key)?.der().clone();
        Self::from_parts(&key, certificate)
    }

    fn from_parts(key: &rcgen::KeyPair, certificate: CertificateDer<'static>) -> Result<Self, IdentityError> {
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let random = SystemRandom::new();
        let signing = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der(), &random)
            .map_err(|error| IdentityError::Crypto(error.to_string()))?;
        let id = PublicKey::from_point(signing.public_key().as_ref())
            .map_err(|error| IdentityError::Crypto(error.to_string()))?
            .node_id();
        Ok(Self(Arc::new(Inner { id, signing, random, key, certificate })))
    }

    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        self.0.id
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.0.certificate
    }

    /// The public key.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::of(&self.0.signing)
    }

    /// Signs `message` (ECDSA P-256, SHA-256).
    ///
    /// # Errors
    /// [`IdentityError::Crypto`] when the system gives no randomness.
    pub fn sign(&self, message: &[u8]) -> Result<Signature, IdentityError> {
        let signature =
            self.0.signing.sign(&self.0.random, message).map_err(|error| IdentityError::Crypto(error.to_string()))?;
        Signature::from_bytes(signature.as_ref()).map_err(|error| IdentityError::Crypto(error.to_string()))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("node_id", &self.0.id).finish_non_exhaustive()
    }
}
