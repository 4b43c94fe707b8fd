//! Gossip messages as an attacker would write them.

use std::net::{IpAddr, SocketAddr};

use crate::names::NodeId;

use super::address::address_of;

/// Writes messages as the engine does.
#[derive(Default)]
pub(crate) struct MessageBuilder(pub(crate) Vec<u8>);

impl MessageBuilder {
    pub(crate) fn header(kind: u8) -> Self {
        Self::default().bytes(&45_139u16.to_le_bytes()).bytes(&[0, kind])
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u64(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(&(text.len() as u16).to_le_bytes()).bytes(text.as_bytes())
    }

    pub(crate) fn id(self, claimed: &str, generation: u64, address: SocketAddr) -> Self {
        let IpAddr::V6(ip) = address.ip() else { return self };
        self.text(claimed).u64(generation).bytes(&[6]).bytes(&ip.octets()).bytes(&address.port().to_le_bytes())
    }

    pub(crate) fn life(self, n: u8, generation: u64) -> Self {
        let node = NodeId::from_digest([n; 32]);
        self.id(&node.to_string(), generation, address_of(&node))
    }

    pub(crate) fn node(self, n: u8) -> Self {
        self.bytes(&[0]).life(n, 1).u64(0).u64(0)
    }

    pub(crate) fn key(self, key: &str, value: &str, version: u64) -> Self {
        self.bytes(&[1]).text(key).text(value).u64(version).bytes(&[0])
    }

    /// An `Ack` with these entries, in plain blocks.
    pub(crate) fn ack(self) -> Vec<u8> {
        let mut message = Self::header(2);
        for block in self.0.chunks(usize::from(u16::MAX)) {
            message = message.bytes(&[2]).bytes(&(block.len() as u16).to_le_bytes()).bytes(block);
        }
        message.bytes(&[0]).0
    }

    pub(crate) fn zstd(entries: &[u8], blocks: usize) -> Vec<u8> {
        let mut message = Self::header(2);
        for _ in 0..blocks {
            let block = zstd::bulk::compress(entries, 0).unwrap_or_default();
            message = message.bytes(&[1]).bytes(&(block.len() as u16).to_le_bytes()).bytes(&block);
        }
        message.bytes(&[0]).0
    }
}
