//! TLS for quinn and for TCP: ring only, TLS 1.3 only, nothing that resumes.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionId, ConnectionIdGenerator};
use ring::digest::{Context, SHA256};
use ring::hmac;
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ConfigBuilder, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::proof::node_id_of_certificate;
use super::verify::{AnyKey, PinnedKey};
use super::{Identity, IdentityError};
use crate::names::NodeId;

/// ALPN of HTTP/3 (RFC 9114).
pub const ALPN_H3: &[u8] = b"h3";
/// ALPN of the protocol between nodes, version 1.
pub const ALPN_PEER: &[u8] = b"plimsoll-peer/1";

/// What a finished handshake established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// The protocol agreed on.
    pub protocol: Protocol,
    /// The node whose key the other side proved, if it showed a certificate.
    pub node: Option<NodeId>,
}

/// The protocols of a node's UDP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// A client's HTTP/3.
    Http3,
    /// Another node's `plimsoll-peer/1`.
    Peer,
}

/// Reads ALPN and certificate of a connection. `None` before the handshake is finished, and for a protocol that this
/// version does not know.
pub fn handshake(connection: &quinn::Connection) -> Option<Handshake> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    let protocol = match data.protocol.as_deref() {
        Some(ALPN_H3) => Protocol::Http3,
        Some(ALPN_PEER) => Protocol::Peer,
        _ => return None,
    };
    let chain =
        connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let node = chain.and_then(|chain| node_id_of_certificate(chain.first()?).ok());
    Some(Handshake { protocol, node })
}

/// The QUIC server of a node's one UDP port: `h3` and `plimsoll-peer/1`.
///
/// A certificate is asked for and not required. A client that presents one proves its key, no more: a connection under
/// `plimsoll-peer/1` must still be checked against the trust store, and is refused with a reason there.
///
/// # Errors
/// [`IdentityError::Crypto`] when the key does not suit TLS.
pub fn server_config(
    identity: &Identity,
    transport: Arc<quinn::TransportConfig>,
) -> Result<quinn::ServerConfig, IdentityError> {
    let tls = tls_server_config(identity, &[ALPN_H3, ALPN_PEER])?;
    let quic = QuicServerConfig::try_from(tls).map_err(crypto)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(quic));
    config.transport_config(transport);
    config.migration(false);
    Ok(config)
}

/// TLS for a server on TCP or QUIC with these protocols, by preference.
///
/// # Errors
/// [`IdentityError::Crypto`] when the key does not suit TLS.
pub fn tls_server_config(identity: &Identity, alpn: &[&[u8]]) -> Result<ServerConfig, IdentityError> {
    let (certificate, key) = credentials(identity);
    let mut tls = ServerConfig::builder_with_provider(ring_only())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(crypto)?
        .with_client_cert_verifier(Arc::new(AnyKey::new()))
        .with_single_cert(vec![certificate], key)
        .map_err(crypto)?;
    tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // A ticket or stored session would let a node back in after its trust was withdrawn.
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    Ok(tls)
}

/// The client side between nodes: shows this node's certificate, and takes any node that proves its key. Who answered is
/// checked after the [handshake], so that a refusal can name both.
///
/// # Errors
/// [`IdentityError::Crypto`] when the key does not suit TLS.
pub fn peer_client_config(
    identity: &Identity,
    transport: Arc<quinn::TransportConfig>,
) -> Result<quinn::ClientConfig, IdentityError> {
    let (certificate, key) = credentials(identity);
    let tls = client_builder(None, Arc::default())?.with_client_auth_cert(vec![certificate], key).map_err(crypto)?;
    quic_client(tls, ALPN_PEER, transport)
}

/// A client of a node's HTTP/3 that shows no certificate and takes only the node `pin`.
///
/// # Errors
/// [`IdentityError::Crypto`] when the TLS library refuses its own settings.
pub fn client_config(
    pin: NodeId,
    transport: Arc<quinn::TransportConfig>,
) -> Result<quinn::ClientConfig, IdentityError> {
    Ok(pinned_client_config(pin, transport)?.0)
}

/// As [`client_config`], for one connection, with the place where the node is noted that showed itself instead of `pin`:
/// quinn keeps a refusal only as text for programmers.
pub(crate) fn pinned_client_config(
    pin: NodeId,
    transport: Arc<quinn::TransportConfig>,
) -> Result<(quinn::ClientConfig, Arc<OnceLock<NodeId>>), IdentityError> {
    let stranger = Arc::default();
    let tls = client_builder(Some(pin), Arc::clone(&stranger))?.with_no_client_auth();
    Ok((quic_client(tls, ALPN_H3, transport)?, stranger))
}

/// The endpoint's settings: stateless resets are keyed from the node's key, so that a node that restarts on its port
/// ends the connections of its former life at once instead of leaving them to time out.
pub fn endpoint_config(identity: &Identity) -> quinn::EndpointConfig {
    let mut context = Context::new(&SHA256);
    context.update(b"plimsoll stateless reset 1");
    context.update(identity.0.key.secret_pkcs8_der());
    let key = hmac::Key::new(hmac::HMAC_SHA256, context.finish().as_ref());
    let mut config = quinn::EndpointConfig::new(Arc::new(key));
    config.cid_generator(|| Box::new(RandomIds));
    // Default 20 ms: a node that restarts with a thousand connections would need 20 s to end them.
    config.min_reset_interval(Duration::from_millis(1));
    config
}

/// Random connection ids. quinn's default ids carry a mark of their endpoint, and one that was restarted ignores packets
/// with an earlier mark: it would never send the reset that they need.
#[derive(Debug)]
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; ID]>())
    }

    fn cid_len(&self) -> usize {
        ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Length of a connection id, as quinn's own.
const ID: usize = 8;

fn quic_client(
    mut tls: ClientConfig,
    alpn: &[u8],
    transport: Arc<quinn::TransportConfig>,
) -> Result<quinn::ClientConfig, IdentityError> {
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.resumption = Resumption::disabled();
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(crypto)?));
    config.transport_config(transport);
    Ok(config)
}

fn client_builder(
    expected: Option<NodeId>,
    stranger: Arc<OnceLock<NodeId>>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, IdentityError> {
    Ok(ClientConfig::builder_with_provider(ring_only())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(crypto)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedKey::new(expected, stranger))))
}

fn credentials(identity: &Identity) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    (identity.0.certificate.clone(), PrivateKeyDer::Pkcs8(identity.0.key.clone_key()))
}

fn ring_only() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

fn crypto(error: impl fmt::Display) -> IdentityError {
    IdentityError::Crypto(error.to_string())
}
