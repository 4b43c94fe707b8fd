//! The QPACK streams of the other side (RFC 9204, 4.2).
//!
//! Both sides announce a dynamic table of zero bytes, so almost no instruction is valid on these streams. They are read, so
//! that nothing accumulates in the transport; any other instruction, and the end of such a stream, is an error of the
//! connection.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll};

use h3::error::Code;

/// Which QPACK stream it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QpackStreamKind {
    Encoder,
    Decoder,
}

/// A QPACK stream of the other side.
#[derive(Debug)]
pub(super) struct QpackStream {
    stream: quinn::RecvStream,
    instructions: Instructions,
}

/// An error of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CriticalStreamError {
    pub(super) code: Code,
    pub(super) reason: &'static str,
}

impl QpackStream {
    /// A stream whose type is read, with the bytes that came after the type.
    pub(super) fn new(
        stream: quinn::RecvStream,
        kind: QpackStreamKind,
        rest: &[u8],
    ) -> Result<Self, CriticalStreamError> {
        let mut instructions = Instructions::new(kind);
        instructions.read(rest)?;
        Ok(Self { stream, instructions })
    }

    pub(super) fn kind(&self) -> QpackStreamKind {
        self.instructions.kind
    }

    /// Reads what has come. Ready only with an error.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CriticalStreamError> {
        loop {
            // A transient future is enough: quinn keeps the waker by stream, not in the future.
            match pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(chunk))) => {
                    if let Err(error) = self.instructions.read(&chunk.bytes) {
                        return Poll::Ready(error);
                    }
                }
                // The connection is lost, which its owner notices.
                Poll::Ready(Err(quinn::ReadError::ConnectionLost(_))) => return Poll::Pending,
                Poll::Ready(Ok(None) | Err(_)) => {
                    let reason = "a QPACK stream was closed";
                    return Poll::Ready(CriticalStreamError { code: Code::H3_CLOSED_CRITICAL_STREAM, reason });
                }
            }
        }
    }
}

/// Checks the instructions of one stream, cut at any byte.
#[derive(Debug)]
struct Instructions {
    kind: QpackStreamKind,
    /// Bytes that the integer of the current instruction has so far; 0 between instructions.
    integer_bytes: u8,
}

/// A longer integer does not fit 62 bits (RFC 9204, 4.1.1).
const MAX_INTEGER_BYTES: u8 = 10;

impl Instructions {
    const fn new(kind: QpackStreamKind) -> Self {
        Self { kind, integer_bytes: 0 }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), CriticalStreamError> {
        bytes.iter().try_for_each(|&byte| self.push(byte))
    }

    fn push(&mut self, byte: u8) -> Result<(), CriticalStreamError> {
        if self.integer_bytes > 0 {
            self.integer_bytes += 1;
            if self.integer_bytes > MAX_INTEGER_BYTES {
                return Err(self.error("an integer of a QPACK instruction is too long"));
            }
            if byte & 0x80 == 0 {
                self.integer_bytes = 0;
            }
            return Ok(());
        }
        match (self.kind, byte) {
            // Set Dynamic Table Capacity to zero.
            (QpackStreamKind::Encoder, 0x20) => Ok(()),
            (QpackStreamKind::Encoder, _) => Err(self.error("an instruction for a dynamic table of zero bytes")),
            // Stream Cancellation, with the stream's number.
            (QpackStreamKind::Decoder, 0x40..=0x7f) => {
                self.integer_bytes = u8::from(byte == 0x7f);
                Ok(())
            }
            (QpackStreamKind::Decoder, _) => Err(self.error("an acknowledgement of a dynamic table that is not used")),
        }
    }

    fn error(&self, reason: &'static str) -> CriticalStreamError {
        let code = match self.kind {
            QpackStreamKind::Encoder => Code::QPACK_ENCODER_STREAM_ERROR,
            QpackStreamKind::Decoder => Code::QPACK_DECODER_STREAM_ERROR,
        };
        CriticalStreamError { code, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_no_dynamic_table_is_valid() {
        use QpackStreamKind::{Decoder, Encoder};
        for (kind, bytes, valid) in [
            (Encoder, &[0x20, 0x20][..], true),
            (Encoder, &[0x21], false),
            (Encoder, &[0x3f, 0x01], false),
            (Encoder, &[0xc0, 0x00], false),
            (Encoder, &[0x40, 0x00], false),
            (Encoder, &[0x00], false),
            (Decoder, &[0x44, 0x7f, 0x80, 0x01, 0x48], true),
            (Decoder, &[0x84], false),
            (Decoder, &[0x01], false),
            (Decoder, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], false),
        ] {
            assert_eq!(Instructions::new(kind).read(bytes).is_ok(), valid, "{kind:?} {bytes:x?}");
            let mut cut = Instructions::new(kind);
            assert_eq!(bytes.iter().try_for_each(|&byte| cut.read(&[byte])).is_ok(), valid, "{kind:?} {bytes:x?}");
        }
    }
}
