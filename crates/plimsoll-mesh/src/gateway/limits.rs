//! Every limit of the gateway, with its default and its reason.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};

use super::admission::AdmissionLimits;
use super::sessions::AdvertisementLimits;
use crate::pubsub::PubsubCaps;

/// What clients of the gateway may use, and for how long.
///
/// ```
/// use plimsoll_mesh::gateway::Limits;
///
/// let limits = Limits { clients: 100, ..Limits::default() };
/// assert_eq!(limits.refusal_responders, 64);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Clients connected at once. Default 10,000.
    pub clients: usize,
    /// Connections over the cap that get a response with the reason, at once. Default 64.
    pub refusal_responders: usize,
    /// How long such a connection may take, its handshake included. Default 3 s.
    pub refusal_timeout: Duration,
    /// How long a handshake may take. Default 5 s.
    pub handshake_timeout: Duration,
    /// How long a request's header section may take from its first byte. Default 5 s.
    pub header_timeout: Duration,
    /// How long a request's body may take after its headers. Default 10 s.
    pub body_timeout: Duration,
    /// How long a client may take to read a response and acknowledge it. Default 10 s.
    pub response_timeout: Duration,
    /// How long a subscription may be quiet before it gets a heartbeat; below half of `idle_timeout`, so that a quiet
    /// subscription is kept. Default 10 s.
    pub heartbeat: Duration,
    /// How long a connection without traffic is kept. A client without request and subscription for as long is kept while there
    /// is room: keep-alives hold its connection, but when the gateway is full it makes room for a new client. From 1 ms to [`Limits::MAX_IDLE_TIMEOUT`]; what is outside is clamped.
    /// Default 30 s.
    pub idle_timeout: Duration,
    /// Largest body of a call. Default 1 MiB.
    pub body_bytes: usize,
    /// Bodies of all requests together, each until its call has ended. One connection holds at most a quarter, so that it
    /// should be four times [`body_bytes`](Self::body_bytes) at least. Default 64 MiB.
    pub all_bodies_bytes: usize,
    /// Responses to all clients together, each until its client has acknowledged it; those of up to
    /// [`Limits::LISTED_RESPONSE`] count only beyond 32 KiB of one connection. One connection holds at most a quarter, so that it should be four times the
    /// largest response at least. Default 64 MiB.
    pub all_responses_bytes: usize,
    /// Largest header section, counted as RFC 9114, 4.2.2 does: names, values and 32 bytes a field. Default 16 KiB.
    pub header_bytes: usize,
    /// Most header fields of a request. Default 64.
    pub header_fields: usize,
    /// Deadline of a call that names none. Default 5 s.
    pub deadline: Duration,
    /// Longest deadline a call may name; longer ones are clamped. Default 60 s.
    pub longest_deadline: Duration,
    /// Request streams of one connection at once. Default 64.
    pub bidi_streams: u32,
    /// Requests in flight of one client. Default 64, as many as it may have streams.
    pub requests_per_client: u32,
    /// Requests in flight of all clients of one origin, the address prefix of [`AdmissionLimits`]. Default 512: half of what a
    /// service takes by default, so that one origin leaves the other half to others.
    pub requests_per_origin: u32,
    /// Listings, publications and advertisements in progress at once. Default 1,024.
    pub workers: u32,
    /// How often the address of a client may change in a minute. Default 60.
    pub path_changes_per_minute: u32,
    /// Unidirectional streams of one connection at once: three of HTTP/3, and unknown ones until they are stopped.
    /// Default 8.
    pub uni_streams: u32,
    /// Bytes a client may send on one connection before they are read. Default 256 KiB.
    pub receive_window: u32,
    /// Bytes kept for one connection until they are acknowledged. Default 256 KiB.
    pub send_window: u32,
    /// Bytes a client may send on one stream before they are read. Default 64 KiB.
    pub stream_window: u32,
    /// Handshakes that wait for the accept loop. Default 1,024.
    pub pending_handshakes: usize,
    /// Bytes kept for one of them. Default 4 KiB.
    pub handshake_bytes: u64,
    /// Bytes kept for all of them. Default 1 MiB.
    pub all_handshakes_bytes: u64,
    /// What clients may advertise.
    pub advertisements: AdvertisementLimits,
    /// How many connections may be opened.
    pub admission: AdmissionLimits,
    /// How many may subscribe, and how much may wait for a subscriber.
    pub pubsub: PubsubCaps,
}

/// How long each step of closing a connection waits for the client: for its acknowledgement of the last responses, and for
/// requests that it sent before it received GOAWAY.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

impl Default for Limits {
    fn default() -> Self {
        const KIB: u32 = 1024;
        Self {
            clients: 10_000,
            refusal_responders: 64,
            refusal_timeout: Duration::from_secs(3),
            handshake_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            body_bytes: 1024 * 1024,
            all_bodies_bytes: 64 * 1024 * 1024,
            all_responses_bytes: 64 * 1024 * 1024,
            header_bytes: 16 * 1024,
            header_fields: 64,
            deadline: Duration::from_secs(5),
            longest_deadline: Duration::from_secs(60),
            bidi_streams: 64,
            requests_per_client: 64,
            requests_per_origin: 512,
            workers: 1_024,
            path_changes_per_minute: 60,
            uni_streams: 8,
            receive_window: 256 * KIB,
            send_window: 256 * KIB,
            stream_window: 64 * KIB,
            pending_handshakes: 1024,
            handshake_bytes: 4 * 1024,
            all_handshakes_bytes: 1024 * 1024,
            advertisements: AdvertisementLimits::default(),
            admission: AdmissionLimits::default(),
            pubsub: PubsubCaps::default(),
        }
    }
}

/// The header section that h3 decodes and announces. Above [`Limits::header_bytes`], so that a client within the announced
/// size still gets a response that names the excess.
const H3_HEADER_BYTES: u64 = 64 * 1024;

impl Limits {
    /// The longest that a connection without traffic is kept, whatever [`Limits::idle_timeout`] says.
    pub const MAX_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

    /// How many connections can hold all of [`Limits::all_bodies_bytes`] between them, or of [`Limits::all_responses_bytes`]: 4.
    /// A quarter is the least that still takes the largest body, 16 MiB, of the default of either.
    pub const SHARES: usize = 4;

    /// The largest response whose request does not wait for the acknowledgement: 4 KiB. One connection may have 32 KiB of them
    /// unacknowledged; more count among [`Limits::all_responses_bytes`].
    pub const LISTED_RESPONSE: usize = 4 * 1024;

    /// quinn's transport settings for client connections.
    pub fn transport(&self) -> TransportConfig {
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(self.bidi_streams.into())
            .max_concurrent_uni_streams(self.uni_streams.into())
            .receive_window(self.receive_window.into())
            .send_window(self.send_window.into())
            .stream_receive_window(self.stream_window.into())
            .max_idle_timeout(Some(self.quic_idle_timeout()))
            .keep_alive_interval(Some(self.keep_alive()))
            .datagram_receive_buffer_size(None)
            .datagram_send_buffer_size(0);
        transport
    }

    /// Applies the transport settings, the bounds on pending handshakes, and migration: a client whose address changes, behind
    /// a NAT for example, keeps its connection once the new path is validated.
    pub fn apply(&self, server: &mut quinn::ServerConfig) {
        server
            .transport_config(Arc::new(self.transport()))
            .max_incoming(self.pending_handshakes)
            .incoming_buffer_size(self.handshake_bytes)
            .incoming_buffer_size_total(self.all_handshakes_bytes)
            .migration(true);
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

    /// A third of the idle timeout, so that two keep-alives may be lost.
    fn keep_alive(&self) -> Duration {
        self.idle_timeout.clamp(Duration::from_millis(3), Self::MAX_IDLE_TIMEOUT) / 3
    }

    /// Never absent, and never zero, which QUIC reads as none.
    fn quic_idle_timeout(&self) -> IdleTimeout {
        let time = self.idle_timeout.clamp(Duration::from_millis(1), Self::MAX_IDLE_TIMEOUT);
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
    fn every_idle_timeout_is_bounded() {
        for (idle_timeout, kept) in [(Duration::MAX, 600_000), (Duration::ZERO, 1), (Duration::from_secs(30), 30_000)] {
            let transport = format!("{:?}", Limits { idle_timeout, ..Limits::default() }.transport());
            assert!(transport.contains(&format!("max_idle_timeout: Some({kept})")), "{idle_timeout:?}: {transport}");
        }
    }
}
