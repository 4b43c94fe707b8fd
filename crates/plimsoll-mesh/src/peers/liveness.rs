//! When the peer of a connection counts as lost.
//!
//! QUIC's own idle time-out starts again with the first probe that is sent without a reply (RFC 9000, 10.1), so that a
//! peer that dies right after a packet is noticed one probe interval late. Here only what arrives counts.

use std::time::{Duration, Instant};

/// How often a connection is checked.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Datagrams received on one connection, over time.
#[derive(Debug)]
pub(crate) struct Liveness {
    received: u64,
    since: Instant,
    checked: Instant,
}

impl Liveness {
    pub(crate) fn new(now: Instant) -> Self {
        Self { received: 0, since: now, checked: now }
    }

    /// Whether nothing arrived for as long as `limit`, given how many datagrams arrived until `now`.
    ///
    /// Time without a check does not count: then this process was suspended, and what arrived meanwhile has not been read
    /// yet.
    pub(crate) fn is_lost(&mut self, received: u64, now: Instant, limit: Duration) -> bool {
        let suspended = now.duration_since(self.checked) > CHECK_INTERVAL * 3;
        self.checked = now;
        if suspended || received != self.received {
            (self.received, self.since) = (received, now);
            return false;
        }
        now.duration_since(self.since) >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(1_500);

    #[test]
    fn a_peer_is_lost_when_no_datagram_arrives_while_the_connection_is_checked() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        let at = |check: u32| start + CHECK_INTERVAL * check;
        for check in 1..30 {
            assert!(!liveness.is_lost(check.into(), at(check), LIMIT));
        }
        for check in 30..35 {
            assert!(!liveness.is_lost(29, at(check), LIMIT), "{check}");
        }
        assert!(liveness.is_lost(29, at(35), LIMIT));
        assert!(!liveness.is_lost(29, at(100), LIMIT), "this process was suspended");
    }
}
