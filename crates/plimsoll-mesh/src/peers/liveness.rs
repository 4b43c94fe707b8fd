//! When a connection counts as silent.
//!
//! QUIC's own idle time-out starts anew with the first probe that is sent into the silence (RFC 9000, 10.1), so that a
//! peer that dies right after a packet is noticed one probe interval late. This looks at what arrives, and nothing else.

use std::time::{Duration, Instant};

/// How often a connection is looked at.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Datagrams received on one connection, over time.
#[derive(Debug)]
pub(crate) struct Liveness {
    received: u64,
    since: Instant,
    looked: Instant,
}

impl Liveness {
    pub(crate) fn new(now: Instant) -> Self {
        Self { received: 0, since: now, looked: now }
    }

    /// Whether nothing arrived for as long as `limit`, given how many datagrams arrived until `now`.
    ///
    /// Time in which nobody looked does not count as silence: then it was this process that stood still, and what
    /// arrived meanwhile has not been read yet.
    pub(crate) fn observe(&mut self, received: u64, now: Instant, limit: Duration) -> bool {
        let stood_still = now.duration_since(self.looked) > CHECK_INTERVAL * 3;
        self.looked = now;
        if stood_still || received != self.received {
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
    fn silence_is_time_without_a_datagram_while_somebody_looks() {
        let start = Instant::now();
        let mut silence = Liveness::new(start);
        let at = |look: u32| start + CHECK_INTERVAL * look;
        for look in 1..30 {
            assert!(!silence.observe(look.into(), at(look), LIMIT));
        }
        for look in 30..35 {
            assert!(!silence.observe(29, at(look), LIMIT), "{look}");
        }
        assert!(silence.observe(29, at(35), LIMIT));
        assert!(!silence.observe(29, at(100), LIMIT), "this process stood still");
    }
}
