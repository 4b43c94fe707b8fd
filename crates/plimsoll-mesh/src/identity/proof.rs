//! Keys, certificates and signatures of P-256.

use std::fmt;

use rcgen::{CertificateParams, DnType, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_FIXED, EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::IdentityError;
use crate::names::NodeId;

/// The SPKI of an uncompressed P-256 point up to the point itself (RFC 5480): so an id can be computed from a point.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The server name that nodes use among themselves. It selects nothing: a node is known by its key.
pub const SERVER_NAME: &str = "node.plimsoll.internal";

/// A P-256 public key, as its uncompressed point.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 65]);

/// An ECDSA signature over P-256 and SHA-256, 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

/// A key or signature of the wrong form, or one that does not fit the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not fit the message and the key")]
pub struct InvalidSignature;

impl PublicKey {
    /// A key from its uncompressed point, 65 bytes. The point itself is checked when a signature is.
    ///
    /// # Errors
    /// [`InvalidSignature`] when it has another length or form.
    pub fn from_point(point: &[u8]) -> Result<Self, InvalidSignature> {
        match <[u8; 65]>::try_from(point) {
            Ok(point) if point[0] == 4 => Ok(Self(point)),
            _ => Err(InvalidSignature),
        }
    }

    pub(super) fn of(signing: &EcdsaKeyPair) -> Self {
        let mut point = [4; 65];
        let raw = signing.public_key().as_ref();
        debug_assert_eq!(raw.len(), point.len());
        point.copy_from_slice(raw);
        Self(point)
    }

    /// The point.
    pub fn as_bytes(&self) -> &[u8; 65] {
        &self.0
    }

    /// The id of the node that holds the private key.
    pub fn node_id(&self) -> NodeId {
        let mut spki = [0; 91];
        spki[..26].copy_from_slice(&SPKI_PREFIX);
        spki[26..].copy_from_slice(&self.0);
        node_id_of_spki(&spki)
    }

    /// Checks that the key's holder signed `message`.
    ///
    /// # Errors
    /// [`InvalidSignature`].
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), InvalidSignature> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0)
            .verify(message, &signature.0)
            .map_err(|_| InvalidSignature)
    }
}

impl Signature {
    /// A signature from its 64 bytes.
    ///
    /// # Errors
    /// [`InvalidSignature`] when there are more or fewer.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidSignature> {
        bytes.try_into().map(Self).map_err(|_| InvalidSignature)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey(of {})", self.node_id().short())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({}..)", hex::encode(&self.0[..4]))
    }
}

pub(super) fn node_id_of_spki(spki: &[u8]) -> NodeId {
    let mut id = [0; 32];
    id.copy_from_slice(digest(&SHA256, spki).as_ref());
    NodeId::from_digest(id)
}

/// The id that a certificate proves. The same parser that checks TLS signatures reads the key, so that the two cannot
/// disagree about which key it is.
pub(super) fn node_id_of_certificate(certificate: &CertificateDer<'_>) -> Result<NodeId, rustls::Error> {
    let parsed = rustls::server::ParsedCertificate::try_from(certificate)?;
    Ok(node_id_of_spki(&parsed.subject_public_key_info()))
}

pub(super) fn generate_key() -> Result<rcgen::KeyPair, IdentityError> {
    rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto)
}

pub(super) fn key_from_der(key: &PrivatePkcs8KeyDer<'_>) -> Result<rcgen::KeyPair, rcgen::Error> {
    rcgen::KeyPair::from_pkcs8_der_and_sign_algo(key, &PKCS_ECDSA_P256_SHA256)
}

/// A self-signed certificate for `key`. It outlives any node: what can be revoked is the trust in its key.
pub(super) fn certificate_for(key: &rcgen::KeyPair) -> Result<rcgen::Certificate, IdentityError> {
    let names = [SERVER_NAME, "localhost", "127.0.0.1", "::1"].map(String::from);
    let mut parameters = CertificateParams::new(names).map_err(crypto)?;
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(2120, 1, 1);
    parameters.distinguished_name.remove(DnType::CommonName);
    parameters.distinguished_name.push(DnType::CommonName, "plimsoll node");
    parameters.self_signed(key).map_err(crypto)
}

fn crypto(error: rcgen::Error) -> IdentityError {
    IdentityError::Crypto(error.to_string())
}
