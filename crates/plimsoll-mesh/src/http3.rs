//! HTTP/3 over quinn: an adapter of our own at h3's transport traits.
//!
//! It stands where the crate `h3-quinn` would, for the server and the client side, and adds what a server that must not
//! be harmed by a client or by its own panics needs:
//!
//! - a **frame guard**: h3 buffers every frame but DATA whole, whatever its limits say, so a frame that announces more
//!   than its cap ends its request stream with `H3_EXCESSIVE_LOAD`, or the connection if it comes on the control stream;
//! - a send stream that is dropped without `finish` is **reset**: quinn alone would end it cleanly, and a partial response
//!   would look complete;
//! - [`BidiStream::stopped`] completes when **the other side leaves**, also after it has sent its whole request;
//! - a server may take the sending half ([`BidiStream::take_send`]): h3 then only reads the request, and the response is
//!   **one write**, head and body together;
//! - **pseudo-header fields** that occur twice or too late are found: h3 uses the last of them;
//! - an empty DATA frame inside a body is removed: h3 would report the end of the body there;
//! - the **order of a request's frames**, **trailers** and **push ids** are checked, which h3 leaves to others;
//! - **QPACK streams** are read and checked: h3 never reads them, and what a client sent there would stay in the transport.

mod connection;
#[cfg(plimsoll_controls)]
mod controls;
mod frame_guard;
mod head;
mod pseudo;
mod qpack;
mod recv;
mod send;
mod uni;

pub use connection::{BidiStream, Connection, OpenStreams, StreamEnd};
pub(crate) use frame_guard::FrameError;
pub use frame_guard::{ANY_FRAME_CAP, HEADERS_FRAME_CAP};
pub(crate) use pseudo::fault as pseudo_fault;
pub use recv::{CONNECTION_HEADERS_CAP, RecvStream};
pub use send::SendStream;

use h3::error::Code;
use h3::quic::ConnectionErrorIncoming;
use std::sync::Arc;

/// Which side of the connection this is. It decides the codes that a dropped stream is ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

impl Role {
    /// A send stream dropped without `finish`: the server failed to respond, the client cancelled.
    const fn reset_code(self) -> Code {
        match self {
            Self::Server => Code::H3_INTERNAL_ERROR,
            Self::Client => Code::H3_REQUEST_CANCELLED,
        }
    }

    /// A receive stream dropped before its end: the server needed no more of the request (RFC 9114, 4.1).
    const fn stop_code(self) -> Code {
        match self {
            Self::Server => Code::H3_NO_ERROR,
            Self::Client => Code::H3_REQUEST_CANCELLED,
        }
    }
}

fn quic_code(code: u64) -> quinn::VarInt {
    quinn::VarInt::from_u64(code).unwrap_or(quinn::VarInt::MAX)
}

fn connection_error(error: quinn::ConnectionError) -> ConnectionErrorIncoming {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        quinn::ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}
