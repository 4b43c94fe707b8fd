//! The node's UDP port.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use socket2::SockRef;

/// Asked of the kernel for each direction, which grants what `net.core.rmem_max` and `wmem_max` allow. With the usual
/// default of 208 KiB, a thousand clients that connect at once lose handshakes.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// QUIC version 1 (RFC 9000), and no draft of it.
const QUIC_V1: u32 = 1;

/// Binds the endpoint that clients and peers reach and from which peers are dialled. It accepts nobody before
/// [`Gateway::supervisor`](super::Gateway::supervisor) is started.
///
/// # Errors
/// Whatever the system says about the address.
///
/// # Panics
/// Outside a tokio runtime.
pub fn bind(address: SocketAddr, mut config: quinn::EndpointConfig) -> io::Result<quinn::Endpoint> {
    let socket = UdpSocket::bind(address)?;
    let buffers = SockRef::from(&socket);
    // Less than asked for is no failure: the kernel's own limit stands, and packets that find no room are sent again.
    let _ = buffers.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = buffers.set_send_buffer_size(SOCKET_BUFFER);
    config.supported_versions(vec![QUIC_V1]);
    quinn::Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime))
}
