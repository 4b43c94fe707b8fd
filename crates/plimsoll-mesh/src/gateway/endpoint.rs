//! The node's UDP port.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use socket2::SockRef;

/// Requested from the kernel for each direction; `net.core.rmem_max` and `wmem_max` cap it. With the usual
/// default of 208 KiB, a thousand clients that connect at once lose handshakes.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// QUIC version 1 (RFC 9000), and no draft of it.
const QUIC_V1: u32 = 1;

/// Binds the endpoint for clients and peers, which also dials peers. It accepts no connection before
/// [`Gateway::supervisor`](super::Gateway::supervisor) is started.
///
/// # Errors
/// The system's error for the address.
///
/// # Panics
/// Outside a tokio runtime.
pub fn bind(address: SocketAddr, mut config: quinn::EndpointConfig) -> io::Result<quinn::Endpoint> {
    let socket = UdpSocket::bind(address)?;
    let buffers = SockRef::from(&socket);
    // Smaller buffers are not an error: the kernel's limit applies, and lost packets are sent again.
    let _ = buffers.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = buffers.set_send_buffer_size(SOCKET_BUFFER);
    config.supported_versions(vec![QUIC_V1]);
    quinn::Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime))
}
