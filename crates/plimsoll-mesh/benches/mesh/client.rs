//! The client of both sides: quinn with h3-quinn, as anybody would write it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http::Request;
use plimsoll_mesh::gateway::Limits;
use plimsoll_mesh::identity::client_config;
use plimsoll_mesh::names::NodeId;

pub type Sender = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

/// The body of every call.
pub const BODY: &[u8] = &[0x5a; 256];

/// A server to measure.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub address: SocketAddr,
    pub pin: NodeId,
}

/// One connection, kept as long as this.
pub struct Line {
    pub sender: Sender,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A client's own transport settings: as generous as quinn's, but that connections stay up while others are measured.
fn config(pin: NodeId) -> quinn::ClientConfig {
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(5)));
    client_config(pin, Arc::new(transport)).expect("TLS takes its own settings")
}

pub fn endpoint() -> quinn::Endpoint {
    quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a UDP port")
}

pub async fn connect(endpoint: &quinn::Endpoint, target: Target) -> Line {
    let connecting = endpoint.connect_with(config(target.pin), target.address, "node").expect("a valid address");
    let connection = h3_quinn::Connection::new(connecting.await.expect("a handshake"));
    let (mut driver, sender) = h3::client::new(connection).await.expect("HTTP/3");
    let driver = tokio::spawn(async move {
        std::future::poll_fn(|cx| driver.poll_close(cx)).await;
    });
    Line { sender, driver }
}

/// One call; panics unless the answer is the body.
pub async fn call(sender: &mut Sender, body: Bytes) {
    let request = Request::post("https://node/v1/call/echo").body(()).expect("a request");
    let mut stream = sender.send_request(request).await.expect("a stream");
    stream.send_data(body).await.expect("sent");
    stream.finish().await.expect("finished");
    let response = stream.recv_response().await.expect("an answer");
    assert_eq!(response.status(), 200);
    let mut length = 0;
    while let Some(piece) = stream.recv_data().await.expect("a body") {
        length += piece.remaining();
    }
    assert_eq!(length, BODY.len());
}

/// `calls` calls with `in_flight` of them at once, spread over the lines; the time of all.
pub async fn batch(lines: &[Line], in_flight: usize, calls: usize) -> Duration {
    let each = calls / in_flight;
    let began = Instant::now();
    let callers: Vec<_> = (0..in_flight)
        .map(|caller| {
            let mut senders: Vec<Sender> = if in_flight == 1 {
                lines.iter().map(|line| line.sender.clone()).collect()
            } else {
                vec![lines[caller % lines.len()].sender.clone()]
            };
            tokio::spawn(async move {
                for nth in 0..each {
                    let at = nth % senders.len();
                    call(&mut senders[at], Bytes::from_static(BODY)).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("a caller");
    }
    began.elapsed()
}

/// Connects, makes one call, and closes; the time from the first packet to the answer.
pub async fn connect_and_call(endpoint: &quinn::Endpoint, target: Target) -> Duration {
    let began = Instant::now();
    let mut line = connect(endpoint, target).await;
    call(&mut line.sender, Bytes::from_static(BODY)).await;
    began.elapsed()
}

/// The settings that both servers run with.
pub fn limits() -> Limits {
    Limits::default()
}
