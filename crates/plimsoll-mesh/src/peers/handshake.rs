//! The handshake of two peers: each side sends a hello with its realm, versions, incarnation and listening address.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, SendStream};

use crate::names::NodeId;

use super::close_reason::{CloseReason, Disconnect, disconnect_of};
use super::config::PeersConfig;
use super::frames::{self, ReceiveError};
use super::wire::{self, Expected, Hello, Kind};

/// The protocol versions supported.
const OLDEST: u16 = 1;
const NEWEST: u16 = 1;

const EXPECTED: Expected = Expected { kind: Kind::Hello, max_body: 0 };

/// Why a handshake failed: this node rejects the peer, or the connection ended.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    Rejected(CloseReason),
    Disconnected(Disconnect),
}

/// The dialling side: sends a hello and receives the reply.
pub(crate) async fn initiate(
    connection: &Connection,
    me: NodeId,
    config: &PeersConfig,
) -> Result<Hello, HandshakeError> {
    in_time(config.patience, async {
        let (mut send, mut recv) = connection.open_bi().await.map_err(lost)?;
        write(&mut send, connection, config).await?;
        let frame = frames::receive(&mut recv, EXPECTED).await.map_err(|error| unread(connection, error))?;
        check(&frame.head, me, config)
    })
    .await
}

/// The accepting side: receives the hello. The reply is sent by [`reply`], once the connection is judged.
pub(crate) async fn receive(
    connection: &Connection,
    me: NodeId,
    config: &PeersConfig,
) -> Result<(Hello, SendStream), HandshakeError> {
    in_time(config.patience, async {
        let (send, mut recv) = connection.accept_bi().await.map_err(lost)?;
        let frame = frames::receive(&mut recv, EXPECTED).await.map_err(|error| unread(connection, error))?;
        Ok((check(&frame.head, me, config)?, send))
    })
    .await
}

/// Replies to a hello.
pub(crate) async fn reply(
    mut send: SendStream,
    connection: &Connection,
    config: &PeersConfig,
) -> Result<(), HandshakeError> {
    in_time(config.patience, write(&mut send, connection, config)).await
}

async fn write(send: &mut SendStream, connection: &Connection, config: &PeersConfig) -> Result<(), HandshakeError> {
    let hello = Hello {
        realm: config.realm.clone(),
        oldest: OLDEST,
        newest: NEWEST,
        incarnation: config.incarnation,
        listens: config.listens,
    };
    let frame = wire::encode(Kind::Hello, &hello, 0).map_err(|error| handshake_failed(error.to_string()))?;
    let sent = frames::send(send, frame, Bytes::new()).await;
    sent.map_err(|error| match connection.close_reason() {
        Some(closed) => HandshakeError::Disconnected(disconnect_of(&closed)),
        None => handshake_failed(error.to_string()),
    })
}

fn check(head: &[u8], me: NodeId, config: &PeersConfig) -> Result<Hello, HandshakeError> {
    let hello = Hello::decode(head).map_err(|error| handshake_failed(error.to_string()))?;
    if hello.newest < OLDEST || hello.oldest > NEWEST {
        return Err(HandshakeError::Rejected(CloseReason::Version { oldest: OLDEST, newest: NEWEST, me }));
    }
    if hello.realm != config.realm {
        let (theirs, mine) = (hello.realm, config.realm.clone());
        return Err(HandshakeError::Rejected(CloseReason::Realm { theirs, mine, me }));
    }
    Ok(hello)
}

/// Where a peer can be dialled: the address in its hello; if that is unspecified, its port at the address of the connection.
pub(crate) fn reachable(listens: Option<SocketAddr>, seen: SocketAddr) -> Option<SocketAddr> {
    let listens = listens.filter(|address| address.port() != 0)?;
    Some(if listens.ip().is_unspecified() { SocketAddr::new(seen.ip(), listens.port()) } else { listens })
}

async fn in_time<T>(
    patience: Duration,
    exchange: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    let late = |_| Err(handshake_failed(format!("nothing in {patience:?}")));
    tokio::time::timeout(patience, exchange).await.unwrap_or_else(late)
}

fn lost(error: ConnectionError) -> HandshakeError {
    HandshakeError::Disconnected(disconnect_of(&error))
}

fn unread(connection: &Connection, error: ReceiveError) -> HandshakeError {
    match (connection.close_reason(), error) {
        (Some(closed), _) => lost(closed),
        (None, error) => handshake_failed(error.to_string()),
    }
}

fn handshake_failed(why: String) -> HandshakeError {
    HandshakeError::Rejected(CloseReason::HandshakeFailed { why })
}
