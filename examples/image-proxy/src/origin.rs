//! The origin, and the clients that speak to it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use plimsoll::bounded::pool::{Connect, DialLease, DialPool, LeaseError, PoolSettings, WhenFull};
use tokio::time::timeout;

use crate::cacheable;
use crate::key::ImageKey;

/// Why there is no image from the origin.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FetchError {
    /// There was no client to fetch with.
    #[error("no client of the origin: {0}")]
    NoClient(#[from] LeaseError<Infallible>),
    /// The origin could not be reached, or broke off.
    #[error("the connection to the origin failed: {0}")]
    Connection(Arc<str>),
    /// Its response has a status that is no image.
    #[error("the origin responded with status {0}")]
    Status(http::StatusCode),
    /// It sent nothing for too long.
    #[error("the origin sent nothing for {0:?}")]
    TimedOut(Duration),
}

/// Makes a client for a tenant; closing one is dropping it, which closes its connections.
pub(crate) struct Clients {
    pub(crate) patience: Duration,
    /// Bytes of its receive buffer in the kernel.
    pub(crate) socket: usize,
}

/// The client of one tenant, with its idle connections.
#[derive(Debug, Clone)]
pub(crate) struct OriginClient(Client<HttpConnector, Empty<Bytes>>);

pub(crate) type Pool = DialPool<Arc<str>, Clients>;
pub(crate) type Lease = DialLease<Arc<str>, Clients>;

impl Connect<Arc<str>> for Clients {
    type Handle = OriginClient;
    type Error = Infallible;

    async fn connect(&self, _tenant: &Arc<str>) -> Result<OriginClient, Infallible> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_recv_buffer_size(Some(self.socket));
        connector.set_connect_timeout(Some(self.patience));
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Ok(OriginClient(client))
    }

    async fn close(&self, _tenant: &Arc<str>, client: OriginClient) -> Result<(), Infallible> {
        drop(client);
        Ok(())
    }
}

/// The origin of all images.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    address: SocketAddr,
    patience: Duration,
    /// The longest that an image may be stored.
    longest: Duration,
    discard: fn(Response<Incoming>, Lease),
    pool: Pool,
}

/// An image whose response head has arrived.
pub(crate) struct Fetched {
    pub(crate) status: http::StatusCode,
    /// How long it may be stored; `None` when it must not be.
    pub(crate) time_to_live: Option<Duration>,
    /// Its length, if the origin sent it.
    pub(crate) length: Option<u64>,
    /// Its bytes. Dropping this before the end closes the connection; the rest is not read.
    pub(crate) pieces: BoxStream<'static, Result<Bytes, FetchError>>,
}

impl Origin {
    pub(crate) fn new(
        address: SocketAddr,
        clients: Clients,
        settings: PoolSettings,
        longest: Duration,
        discard: fn(Response<Incoming>, Lease),
    ) -> Self {
        Self { address, patience: clients.patience, longest, discard, pool: DialPool::new(settings, clients) }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Requests an image, once: its length comes with the response.
    ///
    /// Cancel safe: a fetch that is dropped ends with its connection.
    pub(crate) async fn fetch(&self, method: Method, key: &ImageKey) -> Result<Fetched, FetchError> {
        let lease = self.pool.lease_within(&key.tenant().into(), WhenFull::Wait, self.patience).await?;
        let uri: Uri = format!("http://{}{}", self.address, key.path()).parse().map_err(connection)?;
        let request = Request::builder().method(method).uri(uri).body(Empty::new()).map_err(connection)?;
        let sent = Request::from_parts(request.clone().into_parts().0, ());
        let response = timeout(self.patience, lease.0.request(request)).await;
        let response = response.map_err(|_| FetchError::TimedOut(self.patience))?.map_err(connection)?;
        let status = response.status();
        // No part was requested: a partial response is none to this request.
        if !status.is_success() || status == http::StatusCode::PARTIAL_CONTENT {
            (self.discard)(response, lease);
            return Err(FetchError::Status(status));
        }
        let time_to_live = cacheable::time_to_live(&sent, &response, self.longest);
        let length = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Fetched { status, time_to_live, length, pieces: pieces(response.into_body(), lease, self.patience) })
    }
}

/// The body piece by piece; the client stays leased until the last one, so that no pool closes it in between.
fn pieces(body: Incoming, lease: Lease, patience: Duration) -> BoxStream<'static, Result<Bytes, FetchError>> {
    stream::unfold(Some((body, lease)), move |state| async move {
        let (mut body, lease) = state?;
        loop {
            let piece = match timeout(patience, body.frame()).await {
                Err(_) => Err(FetchError::TimedOut(patience)),
                Ok(None) => return None,
                Ok(Some(Err(error))) => Err(connection(error)),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => Ok(piece),
                    // Trailers are not passed on.
                    Err(_) => continue,
                },
            };
            let rest = piece.is_ok().then_some((body, lease));
            return Some((piece, rest));
        }
    })
    .boxed()
}

fn connection(error: impl std::error::Error) -> FetchError {
    let reasons = std::iter::successors(error.source(), |error| error.source());
    FetchError::Connection(reasons.fold(error.to_string(), |text, reason| format!("{text}: {reason}")).into())
}
