//! Small responses that a client has not acknowledged.
//!
//! The transport keeps a response until it is acknowledged, and the task of a request does not wait for that: it costs more
//! than the response. So a finished response is put on a list of its connection. The list is checked when it has grown and
//! once a second; what is acknowledged is dropped from it, and what is too old is reset, which frees its bytes.

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use h3::error::Code as H3Code;
use parking_lot::Mutex;

use crate::http3::{SendStream, StreamEnd};

/// Bytes of small responses that one connection may have unacknowledged. More are reserved in the budget of all responses.
pub(super) const UNACKNOWLEDGED_BYTES: usize = 32 * 1024;

/// What a response holds beside its body: its head, its stream and its entry here.
const OVERHEAD: usize = 512;

/// The list is checked when it has so many entries.
const CHECKED_AT: usize = 8;

/// The small responses of one connection that are not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged(Mutex<List>);

#[derive(Default)]
struct List {
    /// INVARIANT: at most as many as the client may have streams open: a stream ends when its response is acknowledged.
    responses: Vec<Response>,
    bytes: usize,
}

struct Response {
    send: SendStream,
    end: BoxFuture<'static, StreamEnd>,
    sent: Instant,
    bytes: usize,
}

impl Unacknowledged {
    /// Whether a response with such a body fits, after dropping what is acknowledged.
    pub(super) fn fits(&self, body: usize) -> bool {
        let mut list = self.0.lock();
        if list.bytes + body + OVERHEAD > UNACKNOWLEDGED_BYTES || list.responses.len() >= CHECKED_AT {
            list.check();
        }
        list.bytes + body + OVERHEAD <= UNACKNOWLEDGED_BYTES
    }

    /// Adds a response that is sent and finished.
    pub(super) fn add(&self, send: SendStream, end: BoxFuture<'static, StreamEnd>, body: usize) {
        let (sent, bytes) = (Instant::now(), body + OVERHEAD);
        let mut list = self.0.lock();
        list.bytes += bytes;
        list.responses.push(Response { send, end, sent, bytes });
    }

    /// Drops what is acknowledged and resets what is older than `timeout`. Returns how many were reset.
    pub(super) fn sweep(&self, now: Instant, timeout: Duration) -> usize {
        let mut list = self.0.lock();
        list.check();
        let before = list.responses.len();
        list.retain(|response| {
            let keep = now.saturating_duration_since(response.sent) < timeout;
            if !keep {
                response.send.reset_with(H3Code::H3_REQUEST_CANCELLED);
            }
            keep
        });
        before - list.responses.len()
    }
}

impl List {
    fn check(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        self.retain(|response| matches!(response.end.as_mut().poll(&mut cx), Poll::Pending));
    }

    fn retain(&mut self, keep: impl FnMut(&mut Response) -> bool) {
        self.responses.retain_mut(keep);
        self.bytes = self.responses.iter().map(|response| response.bytes).sum();
        if self.responses.is_empty() {
            // An idle connection holds nothing here.
            self.responses = Vec::new();
        }
    }
}

impl std::fmt::Debug for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("List").field("responses", &self.responses.len()).field("bytes", &self.bytes).finish()
    }
}
