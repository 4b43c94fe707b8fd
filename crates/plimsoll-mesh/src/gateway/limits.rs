//! Every limit of the gateway, with its default and its reason.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};

use super::{AdmissionLimits, AdvertisementLimits};
use crate::pubsub::PubsubCaps;

/// What clients of the gateway may use, and for how long.
///
/// ```
/// use plimsoll_mesh::gateway::Limits;
///
/// let limits = Limits { clients: 100, ..Limits::default() };
/// assert_eq!(limits.desk_places, 64);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Clients connected at once. Default 10,000.
    pub clients: usize,
    /// Places at the refusal desk: connections over the cap that are told so by name. Default 64.
    pub desk_places: usize,
    /// How long a connection may stand at the desk, its handshake included. Default 3 s.
    pub desk_time: Duration,
    /// How long a handshake may take. Default 5 s.
    pub handshake_time: Duration,
    /// How long a request's header section may take from its first byte. Default 5 s.
    pub header_time: Duration,
    /// How long a request's body may take after its headers. Default 10 s.
    pub body_time: Duration,
    /// How long a client may take to read an answer and acknowledge it. Default 10 s.
    pub answer_time: Duration,
    /// How long a subscriber hears nothing before it gets a heartbeat; below half of `idle_time`, so that a quiet
    /// subscription is kept. Default 10 s.
    pub heartbeat: Duration,
    /// How long a connection without traffic is kept, from 1 ms to [`Limits::LONGEST_IDLE`]; what is outside is clamped.
    /// Default 30 s.
    pub idle_time: Duration,
    /// Largest body of a call. Default 1 MiB.
    pub body_bytes: usize,
    /// Bodies of all requests together, each until its call has ended. One connection holds at most a quarter, so that it
    /// should be four times [`body_bytes`](Self::body_bytes) at least. Default 64 MiB.
    pub all_bodies_bytes: usize,
    /// Answers to all clients together, each from when it is there until its client has acknowledged it; one of up to
    /// [`Limits::FREE_ANSWER`] does not count. One connection holds at most a quarter, so that it should be four times the
    /// largest answer at least. Default 64 MiB.
    pub all_answers_bytes: usize,
    /// Largest header section, counted as RFC 9114, 4.2.2 does: names, values and 32 bytes a field. Default 16 KiB.
    pub header_bytes: usize,
    /// Most header fields of a request. Default 64.
    pub header_fields: usize,
    /// Deadline of a call that names none. Default 5 s.
    pub deadline: Duration,
    /// Longest deadline a call may name; longer ones are clamped. Default 60 s.
    pub longest_deadline: Duration,
    /// Requests of one connection at once. Default 64.
    pub bidi_streams: u32,
    /// Unidirectional streams of one connection at once: three of HTTP/3, the rest unknown ones on their way to be
    /// stopped. Default 8.
    pub uni_streams: u32,
    /// Bytes a client may send on one connection before they are read. Default 256 KiB.
    pub receive_window: u32,
    /// Bytes kept for one connection until they are acknowledged. Default 256 KiB.
    pub send_window: u32,
    /// Bytes a client may send on one stream before they are read. Default 64 KiB.
    pub stream_window: u32,
    /// Handshakes waiting to be looked at. Default 1,024.
    pub handshakes_waiting: usize,
    /// Bytes kept for one waiting handshake. Default 4 KiB.
    pub waiting_bytes: u64,
    /// Bytes kept for all waiting handshakes. Default 1 MiB.
    pub all_waiting_bytes: u64,
    /// What clients may advertise.
    pub advertisements: AdvertisementLimits,
    /// How many connections may begin.
    pub admission: AdmissionLimits,
    /// Who may subscribe, and how much may wait for a subscriber.
    pub pubsub: PubsubCaps,
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: u32 = 1024;
        Self {
            clients: 10_000,
            desk_places: 64,
            desk_time: Duration::from_secs(3),
            handshake_time: Duration::from_secs(5),
            header_time: Duration::from_secs(5),
            body_time: Duration::from_secs(10),
            answer_time: Duration::from_secs(10),
            heartbeat: Duration::from_secs(10),
            idle_time: Duration::from_secs(30),
            body_bytes: 1024 * 1024,
            all_bodies_bytes: 64 * 1024 * 1024,
            all_answers_bytes: 64 * 1024 * 1024,
            header_bytes: 16 * 1024,
            header_fields: 64,
            deadline: Duration::from_secs(5),
            longest_deadline: Duration::from_secs(60),
            bidi_streams: 64,
            uni_streams: 8,
            receive_window: 256 * KIB,
            send_window: 256 * KIB,
            stream_window: 64 * KIB,
            handshakes_waiting: 1024,
            waiting_bytes: 4 * 1024,
            all_waiting_bytes: 1024 * 1024,
            advertisements: AdvertisementLimits::default(),
            admission: AdmissionLimits::default(),
            pubsub: PubsubCaps::default(),
        }
    }
}

/// The header section that h3 unpacks, and that it announces. Above [`Limits::header_bytes`], so that a client that keeps
/// to what is announced still hears from the gateway by how much it is over.
const H3_HEADER_BYTES: u64 = 64 * 1024;

impl Limits {
    /// The longest that a connection without traffic is kept, whatever [`Limits::idle_time`] says.
    pub const LONGEST_IDLE: Duration = Duration::from_secs(600);

    /// How many connections can hold all of [`Limits::all_bodies_bytes`] between them, or of [`Limits::all_answers_bytes`]: 4.
    /// A quarter is the least that still takes the largest body, 16 MiB, of the default of either.
    pub const SHARES: usize = 4;

    /// The largest answer that does not count among [`Limits::all_answers_bytes`]: 4 KiB. It is about what the request itself
    /// costs as long as it runs, and there are no more of them than `clients` times `bidi_streams`.
    pub const FREE_ANSWER: usize = 4 * 1024;

    /// quinn's transport settings for client connections.
    pub fn transport(&self) -> TransportConfig {
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(self.bidi_streams.into())
            .max_concurrent_uni_streams(self.uni_streams.into())
            .receive_window(self.receive_window.into())
            .send_window(self.send_window.into())
            .stream_receive_window(self.stream_window.into())
            .max_idle_timeout(Some(self.idle_timeout()))
            .datagram_receive_buffer_size(None)
            .datagram_send_buffer_size(0);
        transport
    }

    /// Sets what belongs to the endpoint's server side: this transport, the waiting room, no migration to another
    /// address (a client that moves connects anew; nothing here is worth the attack surface).
    pub fn apply(&self, server: &mut quinn::ServerConfig) {
        server
            .transport_config(Arc::new(self.transport()))
            .max_incoming(self.handshakes_waiting)
            .incoming_buffer_size(self.waiting_bytes)
            .incoming_buffer_size_total(self.all_waiting_bytes)
            .migration(false);
    }

    /// h3's own settings: no grease, no datagrams, no WebTransport, no extended CONNECT.
    pub(crate) fn h3(&self) -> h3::server::Builder {
        let mut builder = h3::server::builder();
        builder
            .max_field_section_size(H3_HEADER_BYTES.max(self.header_bytes as u64))
            .send_grease(false)
            .enable_webtransport(false)
            .enable_extended_connect(false)
            .enable_datagram(false);
        builder
    }

    /// Never absent, and never zero, which QUIC reads as none.
    fn idle_timeout(&self) -> IdleTimeout {
        let time = self.idle_time.clamp(Duration::from_millis(1), Self::LONGEST_IDLE);
        VarInt::from_u32(u32::try_from(time.as_millis()).unwrap_or(u32::MAX)).into()
    }

    pub(crate) fn bidi_streams(&self) -> usize {
        usize::try_from(VarInt::from(self.bidi_streams).into_inner()).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_idle_time_ends() {
        for (idle_time, kept) in [(Duration::MAX, 600_000), (Duration::ZERO, 1), (Duration::from_secs(30), 30_000)] {
            let transport = format!("{:?}", Limits { idle_time, ..Limits::default() }.transport());
            assert!(transport.contains(&format!("max_idle_timeout: Some({kept})")), "{idle_time:?}: {transport}");
        }
    }
}
