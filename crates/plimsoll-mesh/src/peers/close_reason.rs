//! Why a connection between nodes is closed: as a QUIC error code, as text for both sides, and as what it means for
//! dialling again.

use std::fmt;
use std::time::Duration;

use quinn::{ConnectionError, VarInt};

use crate::names::NodeId;

/// Stream code of a call whose caller no longer waits.
pub(crate) const CANCELLED: VarInt = VarInt::from_u32(1);
/// Stream code of a frame that was refused.
pub(crate) const BAD_FRAME: VarInt = VarInt::from_u32(2);

/// How a connection, or the attempt to make one, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disconnect {
    pub(crate) kind: DisconnectKind,
    pub(crate) reason: String,
}

/// What a disconnect means for whether and when to dial again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DisconnectKind {
    /// The connection was lost, or could not be made: dial again.
    Lost,
    /// One side refuses the other: dial again, but rarely.
    Refused,
    /// The connection was closed to make room: dial again when a call needs it.
    Evicted,
}

impl Disconnect {
    pub(crate) fn lost(reason: impl Into<String>) -> Self {
        Self { kind: DisconnectKind::Lost, reason: reason.into() }
    }
}

/// Why there is no connection to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// The node cannot be reached.
    Unreachable(String),
    /// One of the two nodes refuses the other.
    Refused(String),
}

impl From<&Disconnect> for ConnectError {
    fn from(disconnect: &Disconnect) -> Self {
        match disconnect.kind {
            DisconnectKind::Refused => Self::Refused(disconnect.reason.clone()),
            DisconnectKind::Lost | DisconnectKind::Evicted => Self::Unreachable(disconnect.reason.clone()),
        }
    }
}

/// Why this node closes a connection. The text names both nodes, so that either side's log is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The node stops.
    Stopping { me: NodeId },
    /// There are two connections, and the other one stays.
    Duplicate,
    /// A later connection of the same node took its place.
    Replaced,
    /// The peer presented no certificate.
    Anonymous { me: NodeId },
    /// The peer is not on the allow-list.
    Untrusted { node: NodeId, me: NodeId },
    /// The peer was removed from the allow-list.
    Revoked { node: NodeId, me: NodeId },
    /// The address belongs to another node than expected.
    WrongNode { expected: NodeId, node: NodeId, me: NodeId },
    /// No packet arrived from the peer for too long.
    Silent { after: Duration },
    /// This node dialled itself.
    Myself,
    /// The peer belongs to another realm.
    Realm { theirs: String, mine: String, me: NodeId },
    /// No protocol version in common.
    Version { oldest: u16, newest: u16, me: NodeId },
    /// The first frame was not a hello, or did not arrive in time.
    HandshakeFailed { why: String },
    /// The peer sent a gossip message that would harm its receiver.
    Poison { node: NodeId, why: String },
    /// The pool is full and this connection was used least recently.
    Evicted { me: NodeId },
    /// The pool is full and no connection in it is idle.
    Full { me: NodeId },
    /// As many connections are in the handshake as there may be.
    Busy { me: NodeId },
}

impl CloseReason {
    /// The code of the QUIC close.
    pub(crate) fn code(&self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Stopping { .. } => 0x00,
            Self::Duplicate => 0x01,
            Self::Replaced => 0x02,
            Self::Evicted { .. } => EVICTED[0],
            Self::Full { .. } => EVICTED[1],
            Self::Myself => 0x05,
            Self::HandshakeFailed { .. } => 0x06,
            Self::Silent { .. } => 0x07,
            Self::Busy { .. } => 0x08,
            Self::Anonymous { .. } => REFUSED,
            Self::Untrusted { .. } => REFUSED + 1,
            Self::Revoked { .. } => REFUSED + 2,
            Self::WrongNode { .. } => REFUSED + 3,
            Self::Realm { .. } => REFUSED + 4,
            Self::Version { .. } => REFUSED + 5,
            Self::Poison { .. } => REFUSED + 6,
        })
    }

    /// The disconnect that this reason causes.
    pub(crate) fn disconnect(&self) -> Disconnect {
        Disconnect { kind: kind_of(self.code()), reason: self.to_string() }
    }

    /// Closes `connection` with this reason.
    pub(crate) fn close(&self, connection: &quinn::Connection) {
        connection.close(self.code(), self.to_string().as_bytes());
    }
}

/// Codes in this range mean that one side refuses the other.
const REFUSED: u32 = 0x10;
/// Codes of connections that were closed to make room.
const EVICTED: [u32; 2] = [0x03, 0x04];

fn kind_of(code: VarInt) -> DisconnectKind {
    match u32::try_from(code.into_inner()) {
        Ok(code) if EVICTED.contains(&code) => DisconnectKind::Evicted,
        Ok(code) if (REFUSED..REFUSED + 0x10).contains(&code) => DisconnectKind::Refused,
        _ => DisconnectKind::Lost,
    }
}

/// The disconnect that quinn reports as `error`.
pub(crate) fn disconnect_of(error: &ConnectionError) -> Disconnect {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            let reason = if reason.is_empty() { "without a reason".into() } else { reason };
            Disconnect { kind: kind_of(close.error_code), reason: format!("closed by the peer: {reason}") }
        }
        ConnectionError::TimedOut => Disconnect::lost("the peer was silent for too long"),
        ConnectionError::Reset => Disconnect::lost("the peer has restarted"),
        other => Disconnect::lost(other.to_string()),
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping { me } => write!(f, "node {me} is stopping"),
            Self::Duplicate => f.write_str("the connection dialled by the smaller node id stays"),
            Self::Replaced => f.write_str("a later connection of the same node took its place"),
            Self::Anonymous { me } => write!(f, "node {me} accepts peers by their certificate, and none was presented"),
            Self::Untrusted { node, me } => write!(f, "node {node} is not on the allow-list of node {me}"),
            Self::Revoked { node, me } => write!(f, "node {node} was removed from the allow-list of node {me}"),
            Self::WrongNode { expected, node, me } => {
                write!(f, "node {me} expected node {expected} at this address and found node {node}")
            }
            Self::Silent { after } => write!(f, "the peer was silent for {after:?}"),
            Self::Myself => f.write_str("a node does not connect to itself"),
            Self::Realm { theirs, mine, me } => {
                write!(f, "node {me} is of realm {mine:?}, not of realm {theirs:?}")
            }
            Self::Version { oldest, newest, me } => {
                write!(f, "node {me} supports protocol versions {oldest} to {newest}, and the peer offers none of them")
            }
            Self::HandshakeFailed { why } => write!(f, "handshake failed: {why}"),
            Self::Poison { node, why } => write!(f, "node {node} sent a harmful gossip message: {why}"),
            Self::Evicted { me } => write!(f, "node {me} closed its least recently used connection to make room"),
            Self::Full { me } => write!(f, "node {me} has as many connections in use as it may"),
            Self::Busy { me } => write!(f, "node {me} has as many connections in the handshake as it may"),
        }
    }
}
