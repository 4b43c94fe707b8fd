//! The frame guard: reads frame headers as they pass and refuses a frame that announces too much.
//!
//! h3 keeps every frame but DATA in memory until it is complete, and reading re-opens QUIC's window, so neither flow
//! control nor h3's own limits bound it. The guard sees the announced length before a byte of the frame is kept. It also
//! checks what h3 does not: the order of a request's frames, pseudo-header fields in trailers, and push ids.
//!
//! It is a state machine without I/O: chunks go in, chunks come out, never copied except where a frame header is split
//! between two of them.

use bytes::{Buf, Bytes, BytesMut};

use super::pseudo;

/// The largest HEADERS frame that is read: twice the cap of a header section, so that a slightly larger one gets a 431
/// response instead of a reset.
pub const HEADERS_FRAME_CAP: u64 = 32 * 1024;

/// The largest frame of any other type but DATA: settings, push ids, GOAWAY, and whatever is unknown (RFC 9114, 9).
pub const ANY_FRAME_CAP: u64 = 16 * 1024;

const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;

/// Type and length are two variable-length integers of up to eight bytes (RFC 9114, 7.1).
const MAX_FRAME_HEADER: usize = 16;

const CANCEL_PUSH: u64 = 0x3;
const SETTINGS: u64 = 0x4;
const PUSH_PROMISE: u64 = 0x5;
const GOAWAY: u64 = 0x7;
const MAX_PUSH_ID: u64 = 0xd;
/// Frame types of HTTP/2 that do not exist in HTTP/3 (RFC 9114, 7.2.8).
const RESERVED: [u64; 4] = [0x2, 0x6, 0x8, 0x9];

/// A frame that announces more than its cap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a frame of type {kind:#x} announces {announced} bytes, more than the {cap} allowed")]
pub(crate) struct Oversized {
    pub(crate) kind: u64,
    pub(crate) announced: u64,
    pub(crate) cap: u64,
}

/// A frame that must not be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// It is larger than its cap.
    #[error(transparent)]
    Oversized(#[from] Oversized),
    /// It is not allowed at its place in a request: an error of the connection (RFC 9114, 4.1 and 7.2).
    #[error("a frame of type {kind:#x} is not allowed {place}")]
    Unexpected { kind: u64, place: &'static str },
    /// The trailer section is malformed: an error of the stream (RFC 9114, 4.1.2 and 4.3).
    #[error("a trailer section with {0} is malformed")]
    MalformedTrailers(&'static str),
    /// A push id is wrong: an error of the connection (RFC 9114, 7.2.3 and 7.2.7).
    #[error("{0}")]
    PushId(&'static str),
}

/// Follows the frames of one stream. Holds at most one incomplete frame header, and the payload of a frame whose content it
/// checks.
#[derive(Debug)]
pub(crate) struct FrameGuard {
    /// Bytes of the current frame's payload still to come.
    payload: u64,
    /// Announced length of the current frame if it is a HEADERS frame, which h3 buffers until it is complete.
    headers: u64,
    /// A frame header that the last chunk cut off.
    split: [u8; MAX_FRAME_HEADER],
    split_len: u8,
    rules: Rules,
    /// The payload of the current frame, if its content is checked.
    checked: Option<(Check, BytesMut)>,
}

/// What is checked beside the size of frames.
#[derive(Debug)]
enum Rules {
    /// The frames of a request, in the order of RFC 9114, 4.1. Empty DATA frames are removed: h3 reports the end of the body
    /// at one.
    Request(RequestPart),
    /// The frames of a response: only empty DATA frames are removed.
    Response,
    /// A client's control stream: push ids.
    ClientControl { max_push_id: Option<u64> },
    /// A server's control stream.
    ServerControl,
}

/// The part of a request that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestPart {
    Nothing,
    Headers,
    Trailers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Trailers,
    MaxPushId,
}

impl FrameGuard {
    /// The guard of a request, as a server reads it.
    pub(crate) fn request() -> Self {
        Self::with(Rules::Request(RequestPart::Nothing))
    }

    /// The guard of a response, as a client reads it.
    pub(crate) fn response() -> Self {
        Self::with(Rules::Response)
    }

    /// The guard of a client's control stream. No frame is removed: h3 rejects the types that do not belong there.
    pub(crate) fn client_control() -> Self {
        Self::with(Rules::ClientControl { max_push_id: None })
    }

    /// The guard of a server's control stream.
    pub(crate) fn server_control() -> Self {
        Self::with(Rules::ServerControl)
    }

    fn with(rules: Rules) -> Self {
        Self { payload: 0, headers: 0, split: [0; MAX_FRAME_HEADER], split_len: 0, rules, checked: None }
    }

    /// Bytes that h3 may buffer for a HEADERS frame that is not complete; 0 when there is none.
    pub(crate) fn incomplete_headers(&self) -> u64 {
        if self.payload > 0 { self.headers } else { 0 }
    }

    /// Removes from `chunk` what may pass now and returns it. `None`: nothing yet; call again while `chunk` has bytes.
    ///
    /// # Errors
    /// [`FrameError`], once and for all: the stream must not be read on.
    pub(crate) fn scan(&mut self, chunk: &mut Bytes) -> Result<Option<Bytes>, FrameError> {
        if self.split_len > 0 {
            return self.complete_split(chunk);
        }
        let mut pos = 0;
        loop {
            let in_payload = usize::try_from(self.payload).unwrap_or(usize::MAX).min(chunk.len() - pos);
            self.pass_payload(&chunk[pos..pos + in_payload])?;
            pos += in_payload;
            if pos == chunk.len() {
                return Ok(Some(std::mem::take(chunk)).filter(|passed| !passed.is_empty()));
            }
            let Some(frame) = FrameHeader::parse(&chunk[pos..]) else {
                self.keep_split(&chunk[pos..]);
                let passed = chunk.split_to(pos);
                chunk.clear();
                return Ok(Some(passed).filter(|passed| !passed.is_empty()));
            };
            if self.begin(&frame)? {
                pos += frame.size;
            } else {
                let passed = chunk.split_to(pos);
                chunk.advance(frame.size);
                return Ok(Some(passed).filter(|passed| !passed.is_empty()));
            }
        }
    }

    /// The part of a frame header at which a stream ended, so that h3 sees the incomplete frame.
    pub(crate) fn unfinished(&mut self) -> Option<Bytes> {
        let split = &self.split[..usize::from(std::mem::take(&mut self.split_len))];
        (!split.is_empty()).then(|| Bytes::copy_from_slice(split))
    }

    fn keep_split(&mut self, bytes: &[u8]) {
        // INVARIANT: shorter than a whole frame header, or it would have been parsed.
        self.split[..bytes.len()].copy_from_slice(bytes);
        self.split_len = bytes.len() as u8;
    }

    fn complete_split(&mut self, chunk: &mut Bytes) -> Result<Option<Bytes>, FrameError> {
        while chunk.has_remaining() {
            self.split[usize::from(self.split_len)] = chunk.get_u8();
            self.split_len += 1;
            let header = &self.split[..usize::from(self.split_len)];
            let Some(frame) = FrameHeader::parse(header) else { continue };
            let passed = Bytes::copy_from_slice(header);
            self.split_len = 0;
            return Ok(self.begin(&frame)?.then_some(passed));
        }
        Ok(None)
    }

    /// Checks the header of a frame and begins its payload. Returns whether the frame passes; one that does not is removed.
    fn begin(&mut self, frame: &FrameHeader) -> Result<bool, FrameError> {
        frame.check_size()?;
        let mut check = None;
        match &mut self.rules {
            Rules::Request(part) => {
                *part = part.after(frame.kind)?;
                check = (*part == RequestPart::Trailers && frame.kind == HEADERS).then_some(Check::Trailers);
            }
            Rules::ClientControl { .. } if frame.kind == CANCEL_PUSH => {
                return Err(FrameError::PushId("CANCEL_PUSH of a push that was never promised"));
            }
            Rules::ClientControl { .. } if frame.kind == MAX_PUSH_ID => check = Some(Check::MaxPushId),
            Rules::ClientControl { .. } | Rules::ServerControl | Rules::Response => {}
        }
        let is_control = matches!(self.rules, Rules::ClientControl { .. } | Rules::ServerControl);
        if !is_control && frame.kind == DATA && frame.length == 0 {
            return Ok(false);
        }
        self.payload = frame.length;
        self.headers = if frame.kind == HEADERS { frame.length } else { 0 };
        self.checked = check.map(|check| (check, BytesMut::new()));
        if frame.length == 0 {
            self.check_payload()?;
        }
        Ok(true)
    }

    fn pass_payload(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.payload -= bytes.len() as u64;
        if let Some((_, payload)) = &mut self.checked {
            payload.extend_from_slice(bytes);
            if self.payload == 0 {
                self.check_payload()?;
            }
        }
        Ok(())
    }

    fn check_payload(&mut self) -> Result<(), FrameError> {
        let Some((check, payload)) = self.checked.take() else { return Ok(()) };
        match (check, &mut self.rules) {
            (Check::Trailers, _) => match pseudo::trailer_fault(&payload) {
                Some(fault) => Err(FrameError::MalformedTrailers(fault)),
                None => Ok(()),
            },
            (Check::MaxPushId, Rules::ClientControl { max_push_id }) => {
                // A frame that is no single integer is left to h3, which rejects it.
                let Some((id, _)) = varint(&payload) else { return Ok(()) };
                if max_push_id.replace(id).is_some_and(|former| id < former) {
                    return Err(FrameError::PushId("MAX_PUSH_ID is less than the former one"));
                }
                Ok(())
            }
            (Check::MaxPushId, _) => Ok(()),
        }
    }
}

impl RequestPart {
    /// The part that a frame of this kind belongs to.
    fn after(self, kind: u64) -> Result<Self, FrameError> {
        match (self, kind) {
            (Self::Nothing, HEADERS) => Ok(Self::Headers),
            (Self::Headers, HEADERS) => Ok(Self::Trailers),
            (Self::Headers, DATA) => Ok(Self::Headers),
            (Self::Nothing, DATA) => Err(FrameError::Unexpected { kind, place: "before the header section" }),
            (Self::Trailers, HEADERS | DATA) => {
                Err(FrameError::Unexpected { kind, place: "after the trailer section" })
            }
            (_, CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID) => {
                Err(FrameError::Unexpected { kind, place: "in a request" })
            }
            (_, kind) if RESERVED.contains(&kind) => Err(FrameError::Unexpected { kind, place: "in HTTP/3" }),
            (part, _) => Ok(part),
        }
    }
}

struct FrameHeader {
    kind: u64,
    length: u64,
    size: usize,
}

impl FrameHeader {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, kind_size) = varint(bytes)?;
        let (length, length_size) = varint(&bytes[kind_size..])?;
        Some(Self { kind, length, size: kind_size + length_size })
    }

    fn check_size(&self) -> Result<(), Oversized> {
        let cap = match self.kind {
            DATA => return Ok(()),
            HEADERS => HEADERS_FRAME_CAP,
            _ => ANY_FRAME_CAP,
        };
        let (kind, announced) = (self.kind, self.length);
        if announced > cap { Err(Oversized { kind, announced, cap }) } else { Ok(()) }
    }
}

/// A variable-length integer and its size (RFC 9000, 16), if `bytes` holds all of it.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let size = 1usize << (first >> 6);
    let rest = bytes.get(1..size)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte));
    Some((value, size))
}

#[cfg(test)]
mod tests;
