//! The settings of the peers, and what they mean for quinn.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use plimsoll::bounded::Cap;
use quinn::{TransportConfig, VarInt};

use super::redial::Redial;
use super::seed_names::{Resolve, SystemResolver};
use crate::events::Events;
use crate::names::NodeId;

/// Unidirectional streams at once: each carries one gossip message and lives for moments.
const GOSSIP_STREAMS: u32 = 16;
/// Bytes that may be on their way to this node on one stream.
const STREAM_WINDOW: u32 = 256 * 1024;

/// A place that a node stays connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// Where to dial.
    pub address: SeedAddress,
    /// The node expected there; any trusted node when `None`.
    pub node: Option<NodeId>,
}

impl Seed {
    /// Any trusted node at `address`.
    pub fn new(address: impl Into<SeedAddress>) -> Self {
        Self { address: address.into(), node: None }
    }

    /// Expects this node there: any other one is refused.
    #[must_use]
    pub fn expecting(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }
}

/// Where a seed is.
///
/// ```
/// use plimsoll_mesh::peers::SeedAddress;
///
/// assert!(matches!("10.0.0.7:4433".parse(), Ok(SeedAddress::Socket(_))));
/// assert!(matches!("node-1.example:4433".parse(), Ok(SeedAddress::Name { port: 4433, .. })));
/// assert!("node-1.example".parse::<SeedAddress>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeedAddress {
    /// One address.
    Socket(SocketAddr),
    /// A host name. It is looked up while the node runs, again and again while it does not resolve or its node is not
    /// connected; all of its addresses are dialled.
    Name {
        /// The name.
        host: String,
        /// The UDP port.
        port: u16,
    },
}

/// A text that is no address of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an address is HOST:PORT")]
pub struct InvalidSeedAddress;

impl From<SocketAddr> for SeedAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

impl FromStr for SeedAddress {
    type Err = InvalidSeedAddress;

    /// Reads `HOST:PORT` without looking the host up.
    fn from_str(text: &str) -> Result<Self, InvalidSeedAddress> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Socket(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or(InvalidSeedAddress)?;
        let port = port.parse().map_err(|_| InvalidSeedAddress)?;
        let label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if host.is_empty() || host.len() > MAX_HOST || !host.bytes().all(label) {
            return Err(InvalidSeedAddress);
        }
        Ok(Self::Name { host: host.to_owned(), port })
    }
}

impl fmt::Display for SeedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// The longest host name (RFC 1035).
const MAX_HOST: usize = 253;

/// The settings of the peers. Every limit has a default; none can be switched off.
#[derive(Clone)]
#[non_exhaustive]
pub struct PeersConfig {
    /// The realm; peers of another are refused. Default `default`.
    pub realm: String,
    /// The number of this incarnation of the node: it must rise with each start, since a later one replaces an earlier one.
    /// Default: the milliseconds since the epoch. A clock that was set back does not rise; a [`Node`](crate::node::Node)
    /// keeps the last number in its data folder.
    pub incarnation: u64,
    /// Where this node listens, as others should dial it. Default: not announced.
    pub listens: Option<SocketAddr>,
    /// What to dial at the start, and again after every loss.
    pub seeds: Vec<Seed>,
    /// Looks the host names of seeds up. Default: the resolver of the operating system.
    pub resolver: Arc<dyn Resolve>,
    /// The most connections. Default 1,000; beyond it the least recently used idle one is closed. None is closed for being
    /// idle alone: gossip goes over each, and [`PeersConfig::idle`] ends the dead ones.
    pub connections: Cap,
    /// Calls at once on a connection, each way. Default 1,024.
    pub calls: u32,
    /// The largest body. Default 1 MiB.
    pub max_body: usize,
    /// Bytes of all calls of a connection in transit, each way. Default 8 MiB.
    pub window: u32,
    /// How often a silent connection is probed. Default 500 ms.
    pub keep_alive: Duration,
    /// After how long without a packet a peer counts as gone. Default 1.5 s: three probes.
    pub idle: Duration,
    /// How long dialling, and the handshake after it, may take. Default 3 s each.
    pub patience: Duration,
    /// The most accepted connections in the handshake. Default 64; a further one is closed, and its node dials again.
    pub max_handshakes: usize,
    /// Waits between attempts.
    pub redial: Redial,
    /// The history in which peers that come up and go down are recorded. Default: one of its own.
    pub events: Events,
}

impl PeersConfig {
    /// The defaults, in `realm`.
    pub fn new(realm: impl Into<String>) -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            realm: realm.into(),
            incarnation: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
            listens: None,
            seeds: Vec::new(),
            resolver: Arc::new(SystemResolver),
            connections: Cap::of::<1_000>(),
            calls: 1_024,
            max_body: 1024 * 1024,
            window: 8 * 1024 * 1024,
            keep_alive: Duration::from_millis(500),
            idle: Duration::from_millis(1_500),
            patience: Duration::from_secs(3),
            max_handshakes: 64,
            redial: Redial::default(),
            events: Events::default(),
        }
    }

    /// The transport of a dialled connection. The idle time-out is the smaller of both sides', so that it holds for the
    /// accepting side as well, whose listener has the clients' longer one.
    pub(crate) fn transport(&self) -> Arc<TransportConfig> {
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(Some(quinn::IdleTimeout::from(millis(self.idle))))
            .keep_alive_interval(Some(self.keep_alive))
            .max_concurrent_bidi_streams(VarInt::from_u32(self.calls))
            .max_concurrent_uni_streams(VarInt::from_u32(GOSSIP_STREAMS))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(self.window))
            .send_window(self.window.into())
            .datagram_receive_buffer_size(None);
        Arc::new(transport)
    }

    /// Gives an accepted connection, which has the clients' limits, those of a peer.
    pub(crate) fn widen(&self, connection: &quinn::Connection) {
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(self.calls));
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(GOSSIP_STREAMS));
        connection.set_receive_window(VarInt::from_u32(self.window));
        connection.set_send_window(self.window.into());
    }
}

impl fmt::Debug for PeersConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeersConfig")
            .field("realm", &self.realm)
            .field("incarnation", &self.incarnation)
            .field("listens", &self.listens)
            .field("seeds", &self.seeds)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

fn millis(duration: Duration) -> VarInt {
    VarInt::from_u32(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX))
}
