//! Clients in large numbers.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_mesh::client::{Client, ConnectError};
use plimsoll_mesh::names::NodeId;
use quinn::{Endpoint, EndpointConfig, TokioRuntime, TransportConfig};
use socket2::SockRef;

use crate::harness::Node;

/// Where a node is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) address: SocketAddr,
    pub(crate) id: NodeId,
}

impl At {
    pub(crate) fn of(node: &Node) -> Self {
        Self { address: node.address, id: node.id }
    }

    /// A connection that lasts without traffic for as long as the node lets it.
    pub(crate) async fn connect(self, endpoint: &Endpoint) -> Result<Client, ConnectError> {
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(Duration::from_secs(600).try_into().unwrap()));
        // No more room for what is not read than a node gives its own.
        transport.stream_receive_window((64_u32 << 10).into()).receive_window((256_u32 << 10).into());
        Client::connect_over(endpoint, self.address, self.id, transport).await
    }
}

/// A client's socket at 127.0.`nth`.1, with buffers of 4 MiB where the system allows.
pub(crate) fn endpoint(nth: u8) -> Endpoint {
    let socket = UdpSocket::bind(SocketAddr::from(([127, 0, nth, 1], 0))).unwrap();
    let buffers = SockRef::from(&socket);
    let _ = buffers.set_recv_buffer_size(4 << 20);
    let _ = buffers.set_send_buffer_size(4 << 20);
    Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).unwrap()
}

/// The 99th percentile in milliseconds.
pub(crate) fn p99(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() * 99 / 100].as_secs_f64() * 1_000.0
}
