//! A stream that is passed to its reader while a capped copy of it is made.
//!
//! The reader receives every piece as it arrives, as a reference to the same bytes. The copy grows up to its cap and is
//! dropped with the first byte beyond it. The complete copy is passed to a callback once: at the last piece when the length
//! was known, at the end of the stream otherwise. For a stream that failed, did not have its announced length, or whose
//! reader was dropped, the callback gets the reason and no copy.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::Stream;

use super::ByteCap;

/// The result of a [`Tee`], passed to its callback.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TeeOutcome {
    /// The stream ended without an error and the copy is complete.
    Complete(Bytes),
    /// The stream is, or was announced, larger than the cap.
    TooLarge,
    /// The stream ended with an error.
    Failed,
    /// The stream ended without an error before or after its announced length.
    WrongLength {
        /// The announced length.
        announced: u64,
        /// Bytes received; when more arrived than was announced, those received by then.
        received: u64,
    },
    /// The stream was dropped before its end.
    Abandoned,
}

/// A stream and its copy.
///
/// It belongs to its reader and ends with the stream. Its use is [`held`](Tee::held), its limit the cap, and each outcome is
/// passed to the callback as a [`TeeOutcome`], for its maker to count and to show.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use bytes::Bytes;
/// use futures::{StreamExt, stream};
/// use plimsoll::bounded::{ByteCap, Tee, TeeOutcome};
///
/// let origin = stream::iter([Ok::<_, std::io::Error>(Bytes::from("ab")), Ok(Bytes::from("c"))]);
/// let (done, copy) = std::sync::mpsc::sync_channel(1);
/// let tee = Tee::new(origin, ByteCap::of::<100>(), Some(3), move |outcome| drop(done.send(outcome)));
/// assert_eq!(tee.map(Result::unwrap).collect::<Vec<_>>().await.concat(), b"abc");
/// assert_eq!(copy.recv().unwrap(), TeeOutcome::Complete("abc".into()));
/// # }
/// ```
#[derive(Debug)]
pub struct Tee<S, F: FnOnce(TeeOutcome)> {
    stream: S,
    copy: BytesMut,
    cap: u64,
    announced: Option<u64>,
    received: u64,
    on_end: Option<F>,
}

impl<S, F: FnOnce(TeeOutcome)> Tee<S, F> {
    /// Copies `stream` up to `cap`; `announced` is its length, if it is known.
    ///
    /// `on_end` is called exactly once, with the outcome, in the reader's task. It must not block, so that no store delays
    /// the reader: give slow work to a [`TaskPool`](super::TaskPool) with `try_spawn`. A panic in it does not reach the
    /// reader.
    pub fn new(stream: S, cap: ByteCap, announced: Option<u64>, on_end: F) -> Self {
        let mut tee =
            Self { stream, copy: BytesMut::new(), cap: cap.get(), announced, received: 0, on_end: Some(on_end) };
        match announced {
            Some(length) if length > tee.cap => tee.finish(TeeOutcome::TooLarge),
            Some(0) => tee.finish(TeeOutcome::Complete(Bytes::new())),
            Some(_) | None => {}
        }
        tee
    }

    /// Bytes that the copy holds now; never more than the cap.
    pub fn held(&self) -> usize {
        self.copy.len()
    }

    /// Copies a piece that is passed to the reader.
    fn piece(&mut self, piece: &Bytes) {
        if self.on_end.is_none() {
            return;
        }
        let received = self.received + piece.len() as u64;
        match self.announced {
            Some(announced) if received > announced => self.finish(TeeOutcome::WrongLength { announced, received }),
            _ if received > self.cap => self.finish(TeeOutcome::TooLarge),
            announced => {
                self.reserve(piece.len());
                self.copy.extend_from_slice(piece);
                self.received = received;
                if announced == Some(received) {
                    self.complete();
                }
            }
        }
    }

    /// One allocation when the length is known; otherwise the capacity doubles, but not beyond the cap.
    fn reserve(&mut self, more: usize) {
        let needed = self.copy.len() + more;
        if needed <= self.copy.capacity() {
            return;
        }
        let capacity = self.announced.unwrap_or_else(|| (2 * needed as u64).min(self.cap));
        self.copy.reserve(usize::try_from(capacity).unwrap_or(needed).max(needed) - self.copy.len());
    }

    fn complete(&mut self) {
        let copy = std::mem::take(&mut self.copy);
        // Capacity that doubling left unused would be held for as long as the copy.
        let exact = copy.capacity() <= copy.len() + copy.len() / 4;
        self.finish(TeeOutcome::Complete(if exact { copy.freeze() } else { Bytes::copy_from_slice(&copy) }));
    }

    fn finish(&mut self, outcome: TeeOutcome) {
        self.copy = BytesMut::new();
        if let Some(on_end) = self.on_end.take() {
            // The panic hook has reported it.
            let _ = std::panic::catch_unwind(AssertUnwindSafe(|| on_end(outcome)));
        }
    }
}

impl<S, F, E> Stream for Tee<S, F>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    F: FnOnce(TeeOutcome) + Unpin,
{
    type Item = Result<Bytes, E>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(Pin::new(&mut self.stream).poll_next(context));
        match &next {
            Some(Ok(piece)) => self.piece(piece),
            Some(Err(_)) => self.finish(TeeOutcome::Failed),
            None => match (self.announced, self.received) {
                (Some(announced), received) if announced != received => {
                    self.finish(TeeOutcome::WrongLength { announced, received });
                }
                (Some(_) | None, _) if self.on_end.is_some() => self.complete(),
                _ => {}
            },
        }
        Poll::Ready(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}

impl<S, F: FnOnce(TeeOutcome)> Drop for Tee<S, F> {
    fn drop(&mut self) {
        self.finish(TeeOutcome::Abandoned);
    }
}
