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

/// As [`bind`], at the first of `addresses` that can be listened on.
///
/// # Errors
/// The system's error for the first address; [`io::ErrorKind::InvalidInput`] without an address.
///
/// # Panics
/// Outside a tokio runtime.
pub fn bind_first(addresses: &[SocketAddr], config: &quinn::EndpointConfig) -> io::Result<quinn::Endpoint> {
    let mut first = None;
    for &address in addresses {
        match bind(address, config.clone()) {
            Ok(endpoint) => return Ok(endpoint),
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    Err(first.unwrap_or_else(|| io::Error::from(io::ErrorKind::InvalidInput)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 10, 4.5: an address that cannot be listened on does not hide the next one of its name.
    #[tokio::test]
    async fn the_first_address_that_can_be_listened_on_is_taken() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let held = UdpSocket::bind(taken).unwrap();
        let config = quinn::EndpointConfig::default();
        let free = "127.0.0.1:0".parse().unwrap();
        let endpoint = bind_first(&[taken, free], &config).unwrap();
        assert_ne!(endpoint.local_addr().unwrap().port(), taken.port());
        assert_eq!(bind_first(&[taken], &config).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(bind_first(&[], &config).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        drop(held);
        assert_eq!(bind_first(&[taken, free], &config).unwrap().local_addr().unwrap(), taken);
    }
}
