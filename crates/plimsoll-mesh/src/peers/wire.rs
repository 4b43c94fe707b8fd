//! The frames on a stream between nodes: `plimsoll-peer/1`.
//!
//! One frame for each direction of a stream. A prefix of eight bytes holds version, kind and both lengths, so that every
//! limit is checked before a byte is kept; the head in postcard and the body follow.
//!
//! ```text
//! | version 1 | kind 1 | head length 2 | body length 4 | head | body |      numbers big-endian, the stream ends there
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::{MAX_NAME, NodeId};
use crate::problem::{Code, Problem};
use crate::service::{ApplicationError, Refusal, Response};

/// Version of the frame format. A frame of another version is refused.
pub(crate) const VERSION: u8 = 1;
/// Length of the prefix.
pub(crate) const PREFIX: usize = 8;
/// Bodies up to this size are copied behind their head, so that one write makes one packet.
pub(crate) const SMALL: usize = 4 * 1024;
/// Room made for a head before it is encoded; few are longer.
const USUAL_HEAD: usize = 120;
/// The longest head.
pub(crate) const MAX_HEAD: usize = 4 * 1024;
/// The longest gossip message: what the gossip engine sends at most, and some room.
pub(crate) const MAX_GOSSIP: usize = 80 * 1024;
/// Texts that are passed on (media types, trace context, call ids) are at most this long.
const MAX_TEXT: usize = 256;
/// The longest `detail` of a problem on the wire; longer ones are cut.
const MAX_DETAIL: usize = 1024;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The first frame of each side of a connection.
    Hello = 0,
    /// A call.
    Call = 1,
    /// The reply to a call.
    Reply = 2,
    /// A gossip message, on a stream of its own in one direction.
    Gossip = 3,
}

/// The limits that a frame is checked against before anything is kept of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// The kind that belongs here.
    pub(crate) kind: Kind,
    /// The longest body.
    pub(crate) max_body: usize,
}

/// A frame's prefix, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) head: usize,
    pub(crate) body: usize,
}

/// Why a frame was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FrameError {
    #[error("frame version {0} is not {VERSION}")]
    Version(u8),
    #[error("frame kind {found} where {expected:?} belongs")]
    Kind { found: u8, expected: Kind },
    #[error("a head of {0} bytes is longer than {MAX_HEAD}")]
    HeadTooLong(usize),
    #[error("a body of {found} bytes is larger than {limit}")]
    BodyTooLarge { found: usize, limit: usize },
    #[error("the frame ends early")]
    Truncated,
    #[error("bytes follow the frame")]
    Trailing,
    #[error("the head cannot be read: {0}")]
    Head(&'static str),
}

impl Expected {
    /// Checks a prefix.
    pub(crate) fn check(self, prefix: [u8; PREFIX]) -> Result<Prefix, FrameError> {
        let [version, kind, head_1, head_0, body @ ..] = prefix;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if kind != self.kind as u8 {
            return Err(FrameError::Kind { found: kind, expected: self.kind });
        }
        let head = usize::from(u16::from_be_bytes([head_1, head_0]));
        if head > MAX_HEAD {
            return Err(FrameError::HeadTooLong(head));
        }
        let body = u32::from_be_bytes(body) as usize;
        if body > self.max_body {
            return Err(FrameError::BodyTooLarge { found: body, limit: self.max_body });
        }
        Ok(Prefix { head, body })
    }
}

/// Prefix and head of a frame whose body, of this length, follows.
pub(crate) fn encode<H: Serialize>(kind: Kind, head: &H, body_len: usize) -> Result<Vec<u8>, FrameError> {
    let mut frame = Vec::with_capacity(PREFIX + USUAL_HEAD + if body_len <= SMALL { body_len } else { 0 });
    frame.resize(PREFIX, 0);
    let mut frame = postcard::to_extend(head, frame).map_err(|_| FrameError::Head("it cannot be written"))?;
    let head_len = frame.len() - PREFIX;
    if head_len > MAX_HEAD {
        return Err(FrameError::HeadTooLong(head_len));
    }
    let too_large = FrameError::BodyTooLarge { found: body_len, limit: u32::MAX as usize };
    let body_len = u32::try_from(body_len).map_err(|_| too_large)?;
    frame[0] = VERSION;
    frame[1] = kind as u8;
    frame[2..4].copy_from_slice(&(head_len as u16).to_be_bytes());
    frame[4..8].copy_from_slice(&body_len.to_be_bytes());
    Ok(frame)
}

/// The first message of each side of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The realm; names do not cross realms.
    pub(crate) realm: String,
    /// The oldest protocol version understood.
    pub(crate) oldest: u16,
    /// The newest protocol version understood.
    pub(crate) newest: u16,
    /// The incarnation of the node, which rises with each start: a later one replaces an earlier one.
    pub(crate) incarnation: u64,
    /// Where the node listens, for other nodes to dial.
    pub(crate) listens: Option<SocketAddr>,
}

impl Hello {
    pub(crate) fn decode(head: &[u8]) -> Result<Self, FrameError> {
        let hello: Self = decode(head)?;
        if hello.realm.len() > MAX_NAME { Err(FrameError::Head("the realm is too long")) } else { Ok(hello) }
    }
}

/// A call's head. The deadline is relative: clocks of two nodes need not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallHead<'a> {
    pub(crate) service: &'a str,
    pub(crate) deadline_ms: u32,
    pub(crate) call_id: &'a str,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) traceparent: Option<&'a str>,
}

impl<'a> CallHead<'a> {
    pub(crate) fn decode(head: &'a [u8]) -> Result<Self, FrameError> {
        let call: Self = decode(head)?;
        let texts = [Some(call.call_id), call.content_type, call.traceparent];
        if texts.into_iter().flatten().any(|text| text.len() > MAX_TEXT) {
            return Err(FrameError::Head("a text is too long"));
        }
        if call.deadline_ms == 0 {
            return Err(FrameError::Head("the deadline is zero"));
        }
        Ok(call)
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms.into())
    }
}

/// A reply's head; the body that follows is the service's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum ReplyHead<'a> {
    Response { content_type: &'a str },
    Refusal(RefusalHead<'a>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RefusalHead<'a> {
    code: &'a str,
    detail: &'a str,
    node: Option<[u8; 32]>,
    retry_after_ms: Option<u32>,
    /// Media type of the service's own refusal, which is the body.
    application: Option<&'a str>,
    never_ran: bool,
}

/// The frame of a reply, up to its body, and the body.
pub(crate) fn encode_reply(reply: &Result<Response, Refusal>) -> Result<(Vec<u8>, bytes::Bytes), FrameError> {
    let (head, body) = match reply {
        Ok(response) => (ReplyHead::Response { content_type: &response.content_type }, response.body.clone()),
        Err(Refusal { problem, never_ran }) => {
            let own = problem.application.as_ref();
            let head = RefusalHead {
                code: problem.code.as_str(),
                detail: cut(&problem.detail, MAX_DETAIL),
                node: problem.node.map(|node| *node.as_bytes()),
                retry_after_ms: problem.retry_after.map(|after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX)),
                application: own.map(|error| &*error.content_type),
                never_ran: *never_ran,
            };
            (ReplyHead::Refusal(head), own.map(|error| error.body.clone()).unwrap_or_default())
        }
    };
    Ok((encode(Kind::Reply, &head, body.len())?, body))
}

/// A reply from its head and body.
pub(crate) fn decode_reply(head: &[u8], body: bytes::Bytes) -> Result<Result<Response, Refusal>, FrameError> {
    match decode::<ReplyHead<'_>>(head)? {
        ReplyHead::Response { content_type } => Ok(Ok(Response { content_type: content_type.into(), body })),
        ReplyHead::Refusal(refusal) => {
            let code = Code::ALL.iter().find(|code| code.as_str() == refusal.code);
            let code = *code.ok_or(FrameError::Head("the problem's code is unknown"))?;
            let mut problem = Problem::new(code, refusal.detail);
            problem.node = refusal.node.map(NodeId::from_digest);
            problem.retry_after = refusal.retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
            let own = |content_type: &str| ApplicationError { content_type: content_type.into(), body };
            problem.application = refusal.application.map(own);
            Ok(Err(Refusal { problem, never_ran: refusal.never_ran }))
        }
    }
}

fn decode<'a, H: Deserialize<'a>>(head: &'a [u8]) -> Result<H, FrameError> {
    match postcard::take_from_bytes(head) {
        Ok((decoded, [])) => Ok(decoded),
        Ok(_) => Err(FrameError::Head("bytes follow it")),
        Err(_) => Err(FrameError::Head("it is not of this version")),
    }
}

fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const CALL: Expected = Expected { kind: Kind::Call, max_body: 1024 };

    fn split(frame: &[u8], expected: Expected) -> Result<(&[u8], &[u8]), FrameError> {
        let (prefix, rest) = frame.split_first_chunk::<PREFIX>().ok_or(FrameError::Truncated)?;
        let prefix = expected.check(*prefix)?;
        let (head, body) = rest.split_at_checked(prefix.head).ok_or(FrameError::Truncated)?;
        if body.len() == prefix.body { Ok((head, body)) } else { Err(FrameError::Truncated) }
    }

    #[test]
    fn every_limit_is_in_the_prefix() {
        assert_eq!(CALL.check([1, 1, 0, 3, 0, 0, 4, 0]), Ok(Prefix { head: 3, body: 1024 }));
        assert_eq!(CALL.check([2, 1, 0, 3, 0, 0, 0, 0]), Err(FrameError::Version(2)));
        assert_eq!(CALL.check([1, 2, 0, 3, 0, 0, 0, 0]), Err(FrameError::Kind { found: 2, expected: Kind::Call }));
        assert_eq!(CALL.check([1, 1, 0xff, 0xff, 0, 0, 0, 0]), Err(FrameError::HeadTooLong(65_535)));
        let too_large = FrameError::BodyTooLarge { found: 1025, limit: 1024 };
        assert_eq!(CALL.check([1, 1, 0, 3, 0, 0, 4, 1]), Err(too_large));
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() -> Result<(), FrameError> {
        let problem = Problem::new(Code::WorkerPanicked, "é".repeat(4000));
        let (frame, body) = encode_reply(&Err(Refusal { problem, never_ran: false }))?;
        let (head, _) = split(&frame, Expected { kind: Kind::Reply, max_body: 0 })?;
        let Err(refusal) = decode_reply(head, body)? else { return Err(FrameError::Head("not a refusal")) };
        assert_eq!(refusal.problem.detail, "é".repeat(512));
        Ok(())
    }

    proptest! {
        /// What a peer sends never panics the reader, and what is read can be written again.
        #[test]
        fn junk_is_refused_and_never_panics(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in [Kind::Hello, Kind::Call, Kind::Reply, Kind::Gossip] {
                let _ = split(&frame, Expected { kind, max_body: 64 });
            }
            let _ = Hello::decode(&frame);
            let _ = decode_reply(&frame, Bytes::new());
            if let Ok(call) = CallHead::decode(&frame) {
                prop_assert!(call.deadline_ms > 0);
                let again = encode(Kind::Call, &call, 0);
                prop_assert!(again.is_ok());
            }
        }

        /// A valid frame with one byte changed or cut short is refused or read as another; it never panics.
        #[test]
        fn damaged_calls_never_panic(at in 0usize..60, to in any::<u8>(), keep in 0usize..60) {
            let head = CallHead {
                service: "image.resize", deadline_ms: 5000, call_id: "c-1",
                content_type: Some("text/plain"), traceparent: None,
            };
            let mut frame = encode(Kind::Call, &head, 0).map_err(|error| TestCaseError::fail(error.to_string()))?;
            if let Some(byte) = frame.get_mut(at) {
                *byte = to;
            }
            frame.truncate(keep);
            if let Ok((head, _)) = split(&frame, CALL) {
                let _ = CallHead::decode(head);
            }
        }

        #[test]
        fn replies_survive_the_wire(
            code in prop::sample::select(Code::ALL), detail in ".{0,80}", node in prop::option::of(any::<[u8; 32]>()),
            after in prop::option::of(0u32..60_000), body in prop::collection::vec(any::<u8>(), 0..64),
            own in any::<bool>(), never_ran in any::<bool>(), good in any::<bool>(),
        ) {
            let content_type: std::sync::Arc<str> = "application/x".into();
            let body = Bytes::from(body);
            let mut problem = Problem::new(code, detail);
            problem.node = node.map(NodeId::from_digest);
            problem.retry_after = after.map(|ms| Duration::from_millis(ms.into()));
            problem.application = own.then(|| ApplicationError { content_type: content_type.clone(), body: body.clone() });
            let reply = if good { Ok(Response { content_type, body }) } else { Err(Refusal { problem, never_ran }) };

            let read = encode_reply(&reply).and_then(|(mut frame, body)| {
                frame.extend_from_slice(&body);
                let (head, body) = split(&frame, Expected { kind: Kind::Reply, max_body: 64 })?;
                decode_reply(head, Bytes::copy_from_slice(body))
            });
            prop_assert_eq!(read, Ok(reply));
        }
    }
}
