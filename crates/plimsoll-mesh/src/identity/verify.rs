//! Certificates between nodes: only the key in a certificate counts.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring as provider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, PeerMisbehaved,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::proof::node_id_of_certificate;
use crate::names::NodeId;

/// Node keys are P-256; no other signature is taken as proof.
const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

/// Proof of possession, the same for either side: both of rustls's verifiers ask for these.
macro_rules! proof_of_possession {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            proof: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            if proof.scheme != SCHEME {
                return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
            }
            verify_tls13_signature(message, certificate, proof, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SCHEME]
        }
    };
}

/// Takes any certificate whose key the client proves.
#[derive(Debug)]
pub(super) struct AnyKey {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyKey {
    pub(super) fn new() -> Self {
        Self { algorithms: algorithms() }
    }
}

impl ClientCertVerifier for AnyKey {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        node_id_of_certificate(end_entity).map(|_| ClientCertVerified::assertion())
    }

    proof_of_possession!();
}

/// Takes a server by its key alone: the expected one, or any.
#[derive(Debug)]
pub(super) struct PinnedKey {
    expected: Option<NodeId>,
    /// Who showed itself in place of the expected one.
    stranger: Arc<OnceLock<NodeId>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedKey {
    pub(super) fn new(expected: Option<NodeId>, stranger: Arc<OnceLock<NodeId>>) -> Self {
        Self { expected, stranger, algorithms: algorithms() }
    }
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = node_id_of_certificate(end_entity)?;
        match self.expected {
            Some(expected) if expected != shown => {
                self.stranger.get_or_init(|| shown);
                Err(wrong_node(expected, shown))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    proof_of_possession!();
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider::default_provider().signature_verification_algorithms
}

fn wrong_node(expected: NodeId, shown: NodeId) -> Error {
    let said = format!("expected node {expected}, found node {shown}");
    CertificateError::Other(rustls::OtherError(Arc::new(WrongNode(said)))).into()
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongNode(String);
