//! First packets seen lately.
//!
//! A client repeats its first packet until it hears an answer, and quinn shows a repeated one as a new attempt once the
//! first was refused. Counting each attempt once therefore needs a memory of those seen lately; it is bounded, and what
//! falls out of it could at worst be counted twice.

use std::collections::hash_map::RandomState;
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::net::SocketAddr;

/// Attempts remembered. Refusing runs at some 9,000 attempts a second; a repetition follows within about a second.
const REMEMBERED: usize = 16 * 1024;

/// The attempts seen lately, as keyed 64-bit digests: a client cannot choose one that collides.
#[derive(Debug, Default)]
pub(super) struct Recent {
    seen: HashSet<u64>,
    order: VecDeque<u64>,
    digest: RandomState,
}

impl Recent {
    /// Remembers the attempt; whether it was unknown.
    pub(super) fn is_new(&mut self, from: SocketAddr, connection_id: &[u8]) -> bool {
        let digest = self.digest.hash_one((from, connection_id));
        if !self.seen.insert(digest) {
            return false;
        }
        self.order.push_back(digest);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_first_packet_is_known_and_another_sender_is_not() {
        let mut recent = Recent::default();
        let (a, b) = (SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2)));
        assert!(recent.is_new(a, b"id"));
        assert!(!recent.is_new(a, b"id"));
        assert!(recent.is_new(b, b"id"));
        assert!(recent.is_new(a, b"di"));
    }

    #[test]
    fn it_never_remembers_more_than_its_cap() {
        let mut recent = Recent::default();
        for n in 0..REMEMBERED as u64 + 10 {
            assert!(recent.is_new(([127, 0, 0, 1], 1).into(), &n.to_be_bytes()));
        }
        assert_eq!((recent.seen.len(), recent.order.len()), (REMEMBERED, REMEMBERED));
        assert!(recent.is_new(([127, 0, 0, 1], 1).into(), &0u64.to_be_bytes()), "the oldest is forgotten");
    }
}
