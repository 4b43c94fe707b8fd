//! Frames over quinn's streams.

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, WriteError};

use super::wire::{Expected, FrameError, PREFIX, Prefix, SMALL};

/// Room made before the first bytes of a large frame are there; the rest grows as it arrives, whatever was announced.
const FIRST_ROOM: usize = 16 * 1024;

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The stream or its connection ended.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What came is no frame that belongs here.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Head and body of a frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
}

/// Reads the one frame of a stream, up to the stream's end.
pub(crate) async fn receive(stream: &mut RecvStream, expected: Expected) -> Result<Frame, ReceiveError> {
    let mut held = match stream.read_chunk(usize::MAX, true).await? {
        Some(chunk) => Received::One(chunk.bytes),
        None => return Err(FrameError::Truncated.into()),
    };
    let mut prefix = check(held.as_slice(), expected)?;
    loop {
        let wanted = prefix.map(|prefix| PREFIX + prefix.head + prefix.body);
        if wanted.is_some_and(|wanted| held.as_slice().len() > wanted) {
            return Err(FrameError::Trailing.into());
        }
        let Some(chunk) = stream.read_chunk(usize::MAX, true).await? else { break };
        held = held.with(chunk.bytes, wanted.unwrap_or(PREFIX));
        if prefix.is_none() {
            prefix = check(held.as_slice(), expected)?;
        }
    }
    let prefix = prefix.ok_or(FrameError::Truncated)?;
    let mut bytes = held.freeze();
    if bytes.len() < PREFIX + prefix.head + prefix.body {
        return Err(FrameError::Truncated.into());
    }
    let mut head = bytes.split_to(PREFIX + prefix.head);
    Ok(Frame { head: head.split_off(PREFIX), body: bytes })
}

/// Sends a frame and ends the stream.
///
/// Not cancel safe: a frame that is cut off is refused by its reader.
pub(crate) async fn send(stream: &mut SendStream, mut head: Vec<u8>, body: Bytes) -> Result<(), WriteError> {
    if body.len() <= SMALL {
        head.extend_from_slice(&body);
        stream.write_chunk(head.into()).await?;
    } else {
        stream.write_all_chunks(&mut [head.into(), body]).await?;
    }
    stream.finish().map_err(|_| WriteError::ClosedStream)
}

fn check(held: &[u8], expected: Expected) -> Result<Option<Prefix>, FrameError> {
    held.first_chunk::<PREFIX>().map(|prefix| expected.check(*prefix)).transpose()
}

/// Bytes that arrived: the usual single piece is kept as it is, without a copy.
enum Received {
    One(Bytes),
    Many(BytesMut),
}

impl Received {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes,
        }
    }

    fn with(self, more: Bytes, wanted: usize) -> Self {
        let mut bytes = match self {
            Self::Many(bytes) => bytes,
            Self::One(first) => {
                let mut bytes = BytesMut::with_capacity(wanted.min(FIRST_ROOM).max(first.len() + more.len()));
                bytes.extend_from_slice(&first);
                bytes
            }
        };
        bytes.extend_from_slice(&more);
        Self::Many(bytes)
    }

    fn freeze(self) -> Bytes {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.freeze(),
        }
    }
}
