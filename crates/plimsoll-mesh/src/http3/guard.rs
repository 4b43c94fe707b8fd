//! The frame guard: reads frame headers as they pass and refuses a frame that announces too much.
//!
//! h3 keeps every frame but DATA in memory until it is complete, and reading re-opens QUIC's window, so neither flow
//! control nor h3's own limits bound it. The guard sees the announced length before a byte of the frame is kept.
//!
//! It is a state machine without I/O: chunks go in, chunks come out, never copied except where a frame header is split
//! between two of them.

use bytes::{Buf, Bytes};

/// The largest HEADERS frame that is read: twice the cap of a header section, so that a slightly larger one gets a 431
/// response instead of a reset.
pub const HEADERS_FRAME_CAP: u64 = 32 * 1024;

/// The largest frame of any other type but DATA: settings, push ids, GOAWAY, and whatever is unknown (RFC 9114, 9).
pub const ANY_FRAME_CAP: u64 = 16 * 1024;

const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;

/// Type and length are two variable-length integers of up to eight bytes (RFC 9114, 7.1).
const LONGEST_FRAME_HEADER: usize = 16;

/// A frame that announces more than its cap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a frame of type {kind:#x} announces {announced} bytes, more than the {cap} allowed")]
pub(crate) struct Oversized {
    pub(crate) kind: u64,
    pub(crate) announced: u64,
    pub(crate) cap: u64,
}

/// Follows the frames of one stream. Holds at most one incomplete frame header.
#[derive(Debug)]
pub(crate) struct FrameGuard {
    /// Bytes of the current frame's payload still to come.
    payload: u64,
    /// A frame header that the last chunk cut off.
    split: [u8; LONGEST_FRAME_HEADER],
    split_len: u8,
    /// Removes empty DATA frames: h3 reports the end of the body at one.
    skip_empty_data: bool,
}

impl FrameGuard {
    /// The guard of a request stream.
    pub(crate) fn request() -> Self {
        Self { payload: 0, split: [0; LONGEST_FRAME_HEADER], split_len: 0, skip_empty_data: true }
    }

    /// The guard of a control stream. Nothing is removed: any DATA frame there is an error that h3 must see.
    pub(crate) fn control() -> Self {
        Self { skip_empty_data: false, ..Self::request() }
    }

    /// Removes from `chunk` what may pass now and returns it. `None`: nothing yet; call again while `chunk` has bytes.
    ///
    /// # Errors
    /// [`Oversized`], once and for all: the stream must not be read on.
    pub(crate) fn scan(&mut self, chunk: &mut Bytes) -> Result<Option<Bytes>, Oversized> {
        if self.split_len > 0 {
            return self.complete_split(chunk);
        }
        let mut pos = 0;
        loop {
            let in_payload = usize::try_from(self.payload).unwrap_or(usize::MAX).min(chunk.len() - pos);
            self.payload -= in_payload as u64;
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
            frame.check()?;
            if self.skip_empty_data && frame.is_empty_data() {
                let passed = chunk.split_to(pos);
                chunk.advance(frame.size);
                return Ok(Some(passed).filter(|passed| !passed.is_empty()));
            }
            self.payload = frame.length;
            pos += frame.size;
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

    fn complete_split(&mut self, chunk: &mut Bytes) -> Result<Option<Bytes>, Oversized> {
        while chunk.has_remaining() {
            self.split[usize::from(self.split_len)] = chunk.get_u8();
            self.split_len += 1;
            let header = &self.split[..usize::from(self.split_len)];
            let Some(frame) = FrameHeader::parse(header) else { continue };
            frame.check()?;
            let passed = Bytes::copy_from_slice(header);
            self.split_len = 0;
            if self.skip_empty_data && frame.is_empty_data() {
                return Ok(None);
            }
            self.payload = frame.length;
            return Ok(Some(passed));
        }
        Ok(None)
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

    fn check(&self) -> Result<(), Oversized> {
        let cap = match self.kind {
            DATA => return Ok(()),
            HEADERS => HEADERS_FRAME_CAP,
            _ => ANY_FRAME_CAP,
        };
        let (kind, announced) = (self.kind, self.length);
        if announced > cap { Err(Oversized { kind, announced, cap }) } else { Ok(()) }
    }

    fn is_empty_data(&self) -> bool {
        self.kind == DATA && self.length == 0
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
