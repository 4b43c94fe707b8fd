//! Why a connection between nodes is closed, as a number and in words for both sides.

use std::fmt;
use std::time::Duration;

use quinn::{ConnectionError, VarInt};

use crate::names::NodeId;

use super::book::{Ended, How};

/// Stream code of a call whose caller no longer waits.
pub(crate) const CANCELLED: VarInt = VarInt::from_u32(1);
/// Stream code of a frame that was refused.
pub(crate) const BAD_FRAME: VarInt = VarInt::from_u32(2);

/// Why a connection is closed. The words name both nodes, so that either side's log tells the whole story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The node stops.
    Stopping { me: NodeId },
    /// There are two connections, and the other one stays.
    Duplicate,
    /// A later connection of the same node took its place.
    Replaced,
    /// The peer showed no certificate.
    Anonymous { me: NodeId },
    /// The peer is not on the allow-list.
    Untrusted { node: NodeId, me: NodeId },
    /// The peer was taken off the allow-list.
    Revoked { node: NodeId, me: NodeId },
    /// Another node answers at the address than was expected there.
    WrongNode { expected: NodeId, node: NodeId, me: NodeId },
    /// Nothing came from the peer for too long.
    Silent { after: Duration },
    /// A node dialled itself.
    Myself,
    /// The peer belongs to another realm.
    Realm { theirs: String, mine: String, me: NodeId },
    /// No protocol version in common.
    Version { oldest: u16, newest: u16, me: NodeId },
    /// What came first was not a greeting, or did not come in time.
    NoGreeting { why: String },
    /// The peer gossips what would harm whoever takes it.
    Poison { node: NodeId, why: String },
    /// The pool is full and this one was idle the longest.
    Evicted { me: NodeId },
    /// The pool is full and nothing in it is idle.
    Full { me: NodeId },
}

impl CloseReason {
    /// The code of the QUIC close.
    pub(crate) fn code(&self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Stopping { .. } => 0x00,
            Self::Duplicate => 0x01,
            Self::Replaced => 0x02,
            Self::Evicted { .. } => MADE_ROOM[0],
            Self::Full { .. } => MADE_ROOM[1],
            Self::Myself => 0x05,
            Self::NoGreeting { .. } => 0x06,
            Self::Silent { .. } => 0x07,
            Self::Anonymous { .. } => REFUSED,
            Self::Untrusted { .. } => REFUSED + 1,
            Self::Revoked { .. } => REFUSED + 2,
            Self::WrongNode { .. } => REFUSED + 3,
            Self::Realm { .. } => REFUSED + 4,
            Self::Version { .. } => REFUSED + 5,
            Self::Poison { .. } => REFUSED + 6,
        })
    }

    /// The same as this node remembers it.
    pub(crate) fn ended(&self) -> Ended {
        Ended { how: how(self.code()), reason: self.to_string() }
    }

    /// Closes `connection` with it.
    pub(crate) fn close(&self, connection: &quinn::Connection) {
        connection.close(self.code(), self.to_string().as_bytes());
    }
}

/// Codes from here on mean that one side does not want the other.
const REFUSED: u32 = 0x10;
/// Codes that mean that a connection made room for others.
const MADE_ROOM: [u32; 2] = [0x03, 0x04];

fn how(code: VarInt) -> How {
    match u32::try_from(code.into_inner()) {
        Ok(code) if MADE_ROOM.contains(&code) => How::MadeRoom,
        Ok(code) if (REFUSED..REFUSED + 0x10).contains(&code) => How::Refused,
        _ => How::Lost,
    }
}

/// How a connection ended, as told by quinn.
pub(crate) fn ended_by(error: &ConnectionError) -> Ended {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let words = String::from_utf8_lossy(&close.reason);
            let words = if words.is_empty() { "without a reason".into() } else { words };
            Ended { how: how(close.error_code), reason: format!("closed by the peer: {words}") }
        }
        ConnectionError::TimedOut => Ended { how: How::Lost, reason: "the peer fell silent".into() },
        ConnectionError::Reset => Ended { how: How::Lost, reason: "the peer has restarted".into() },
        other => Ended { how: How::Lost, reason: other.to_string() },
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping { me } => write!(f, "node {me} is stopping"),
            Self::Duplicate => f.write_str("the connection dialled by the smaller node id stays"),
            Self::Replaced => f.write_str("a later connection of the same node took its place"),
            Self::Anonymous { me } => write!(f, "node {me} takes peers by their certificate, and none was shown"),
            Self::Untrusted { node, me } => write!(f, "node {node} is not on the allow-list of node {me}"),
            Self::Revoked { node, me } => write!(f, "node {node} was removed from the allow-list of node {me}"),
            Self::WrongNode { expected, node, me } => {
                write!(f, "node {me} expected node {expected} here and found node {node}")
            }
            Self::Silent { after } => write!(f, "the peer was silent for {after:?}"),
            Self::Myself => f.write_str("a node does not connect to itself"),
            Self::Realm { theirs, mine, me } => {
                write!(f, "node {me} is of realm {mine:?}, not of realm {theirs:?}")
            }
            Self::Version { oldest, newest, me } => {
                write!(f, "node {me} speaks protocol versions {oldest} to {newest}, and none of them is offered")
            }
            Self::NoGreeting { why } => write!(f, "no greeting: {why}"),
            Self::Poison { node, why } => write!(f, "node {node} sent gossip that is refused: {why}"),
            Self::Evicted { me } => write!(f, "node {me} closed its least recently used connection to make room"),
            Self::Full { me } => write!(f, "node {me} has as many connections in use as it may"),
        }
    }
}
