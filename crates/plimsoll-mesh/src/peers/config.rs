//! The settings of the peers, and what they mean for quinn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use plimsoll::bounded::Cap;
use quinn::{TransportConfig, VarInt};

use crate::events::Events;
use crate::names::NodeId;

/// Unidirectional streams at once: each carries one gossip message and lives for moments.
const GOSSIP_STREAMS: u32 = 16;
/// Bytes that may be on their way to this node on one stream.
const STREAM_WINDOW: u32 = 256 * 1024;

/// An address that a node stays connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed {
    /// Where to dial.
    pub address: SocketAddr,
    /// Who must answer there; anybody trusted, when not known.
    pub node: Option<NodeId>,
}

/// The settings of the peers. Every limit has a default; none can be switched off.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeersConfig {
    /// The realm; peers of another are refused. Default `default`.
    pub realm: String,
    /// When this node started, in milliseconds since the epoch: a later life of a node replaces an earlier one.
    pub incarnation: u64,
    /// Where this node listens, as others should dial it. Default: not told.
    pub listens: Option<SocketAddr>,
    /// Whom to dial at start.
    pub seeds: Vec<Seed>,
    /// Connections kept at most. Default 1,000; the least recently used idle one makes room. None is closed for being idle
    /// alone: gossip goes over each, and [`PeersConfig::idle`] finds the dead ones.
    pub connections: Cap,
    /// Calls at once on a connection, each way. Default 1,024.
    pub calls: u32,
    /// The largest body. Default 1 MiB.
    pub max_body: usize,
    /// Bytes of all calls of a connection that may be on their way, each way. Default 8 MiB.
    pub window: u32,
    /// How often a silent connection is probed. Default 500 ms.
    pub keep_alive: Duration,
    /// After how much silence a peer counts as gone. Default 1.5 s: three probes.
    pub idle: Duration,
    /// How long dialling and the first exchange may take. Default 3 s.
    pub patience: Duration,
    /// Connections that have not completed the handshake, at most. Default 64.
    pub max_handshakes: usize,
    /// Waits between attempts.
    pub redial: Redial,
    /// Where to keep who came and went. Default: a history of its own.
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

fn millis(duration: Duration) -> VarInt {
    VarInt::from_u32(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX))
}

/// A wait as long as this, or longer, is never: a hundred years, which every clock can count.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Waits between attempts: doubled each time, shortened by up to a quarter at random so that nodes do not dial in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redial {
    /// The wait after the first failure. Default 100 ms: a node that restarts is back within a few hundred.
    pub first: Duration,
    /// The longest wait. Default 5 s.
    pub longest: Duration,
    /// The longest wait while one side refuses the other. Default 30 s: only an operator changes that.
    pub longest_refused: Duration,
}

impl Default for Redial {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(5),
            longest_refused: Duration::from_secs(30),
        }
    }
}

impl Redial {
    /// The wait after so many failures in a row; none after none. `jitter` is from 0 to 1.
    pub(crate) fn delay(self, failures: u32, refused: bool, jitter: f64) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let longest = if refused { self.longest_refused } else { self.longest };
        let doubled = self.first.saturating_mul(1 << (failures - 1).min(16));
        doubled.min(longest).min(NEVER).mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_cap() {
        let redial = Redial::default();
        let waits: Vec<_> = (0..8).map(|failures| redial.delay(failures, false, 0.0).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 5000]);
        assert_eq!(redial.delay(u32::MAX, true, 0.0), Duration::from_secs(30));
        assert_eq!(redial.delay(1, false, 1.0), Duration::from_millis(75));
    }

    /// M-1: a wait without end is one that a clock can count.
    #[test]
    fn a_wait_without_end_is_no_overflow() {
        let redial = Redial { first: Duration::MAX, longest: Duration::MAX, longest_refused: Duration::MAX };
        for (failures, refused) in [(1, false), (u32::MAX, true)] {
            let due = std::time::Instant::now() + redial.delay(failures, refused, 0.0);
            assert!(due > std::time::Instant::now() + Duration::from_secs(1 << 30));
        }
    }
}
