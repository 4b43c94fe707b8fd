//! Reading the admin socket of a running service.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// The largest response that is read, in bytes: a snapshot of 10,000 actors takes about 3 MB.
pub const MAX_RESPONSE: usize = 64 << 20;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nothing listens there.
    #[error("nothing listens on {} (is the node running, with this data folder?)", path.display())]
    NotRunning {
        /// The socket's path.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The socket belongs to another user.
    #[error("{} belongs to another user", .0.display())]
    NotAllowed(PathBuf),
    /// The service responded with another status than 200.
    #[error("the admin listener responded {status}: {body}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The problem document or other body, cut to 1,000 characters.
        body: String,
    },
    /// It did not respond in time.
    #[error("no response within {0:?}")]
    Timeout(Duration),
    /// The connection failed, or the response was longer than [`MAX_RESPONSE`].
    #[error("the response could not be read")]
    Response(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Gets `route` from the service that listens on the Unix socket `path`.
///
/// # Errors
/// [`ClientError`], see there.
///
/// Cancel safe: the connection is dropped.
pub async fn get(path: &Path, route: &str, patience: Duration) -> Result<Bytes, ClientError> {
    tokio::time::timeout(patience, exchange(path, route)).await.map_err(|_| ClientError::Timeout(patience))?
}

async fn exchange(path: &Path, route: &str) -> Result<Bytes, ClientError> {
    let stream = UnixStream::connect(path).await.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::NotAllowed(path.to_owned()),
        _ => ClientError::NotRunning { path: path.to_owned(), source },
    })?;
    let failed = |error: hyper::Error| ClientError::Response(error.into());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::get(route)
        .header(header::HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(|error| ClientError::Response(error.into()))?;
    let response = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let body = Limited::new(response, MAX_RESPONSE).collect().await.map_err(ClientError::Response)?.to_bytes();
        if status == StatusCode::OK {
            return Ok(body);
        }
        let body = String::from_utf8_lossy(&body).chars().take(1_000).collect();
        Err(ClientError::Refused { status, body })
    };
    // The connection is driven here and not in a task of its own: it ends with the exchange.
    tokio::pin!(response);
    tokio::select! {
        result = &mut response => result,
        end = connection => match end {
            Ok(()) => response.await,
            Err(error) => Err(failed(error)),
        },
    }
}
