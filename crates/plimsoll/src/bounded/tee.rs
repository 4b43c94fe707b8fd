//! A stream that goes on to its reader while a capped copy of it is kept.
//!
//! The reader gets every piece as it comes, as a reference to the same bytes. The copy grows beside it up to its cap; one
//! byte more and it is dropped. What has been copied is handed over once, at the clean end of the stream: at its last
//! piece when the length was known, at its end otherwise. A stream that failed, fell short of its announced length, or
//! whose reader left, hands over nothing.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::Stream;

use super::ByteCap;

/// What became of the copy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Copied {
    /// The stream ended well and the copy is whole.
    Whole(Bytes),
    /// The stream is, or was announced, larger than the cap.
    TooLarge,
    /// The stream ended with an error.
    Failed,
    /// The stream ended well before or after its announced length.
    WrongLength {
        /// What was announced.
        announced: u64,
        /// What came; when more came than was announced, what had come by then.
        came: u64,
    },
    /// The reader left before the end.
    Abandoned,
}

/// The stream with the copy beside it.
///
/// It belongs to its reader and ends with the stream: in use is what it [holds](Tee::held), the most is its cap, and each
/// refusal is handed over by its reason ([`Copied`]), for whoever makes tees to count. It keeps no room to compact, and its
/// place in the snapshot is its maker's.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use bytes::Bytes;
/// use futures::{StreamExt, stream};
/// use plimsoll::bounded::{ByteCap, Copied, Tee};
///
/// let origin = stream::iter([Ok::<_, std::io::Error>(Bytes::from("ab")), Ok(Bytes::from("c"))]);
/// let (done, copy) = std::sync::mpsc::sync_channel(1);
/// let tee = Tee::new(origin, ByteCap::of::<100>(), Some(3), move |copied| drop(done.send(copied)));
/// assert_eq!(tee.map(Result::unwrap).collect::<Vec<_>>().await.concat(), b"abc");
/// assert_eq!(copy.recv().unwrap(), Copied::Whole("abc".into()));
/// # }
/// ```
#[derive(Debug)]
pub struct Tee<S, F: FnOnce(Copied)> {
    stream: S,
    copy: BytesMut,
    cap: u64,
    announced: Option<u64>,
    came: u64,
    hand_over: Option<F>,
}

impl<S, F: FnOnce(Copied)> Tee<S, F> {
    /// Copies `stream` up to `cap`; `announced` is its length, if it is known.
    ///
    /// `hand_over` is called exactly once, with what became of the copy, in the reader's task. It must not block and has no
    /// way to wait, so that no store can delay the reader: give slow work to a [`TaskPool`](super::TaskPool) with
    /// `try_spawn`. If it panics the reader does not notice.
    pub fn new(stream: S, cap: ByteCap, announced: Option<u64>, hand_over: F) -> Self {
        let mut tee =
            Self { stream, copy: BytesMut::new(), cap: cap.get(), announced, came: 0, hand_over: Some(hand_over) };
        match announced {
            Some(length) if length > tee.cap => tee.finish(Copied::TooLarge),
            Some(0) => tee.finish(Copied::Whole(Bytes::new())),
            Some(_) | None => {}
        }
        tee
    }

    /// Bytes that the copy holds now; never more than the cap.
    pub fn held(&self) -> usize {
        self.copy.len()
    }

    /// Takes note of a piece on its way to the reader.
    fn piece(&mut self, piece: &Bytes) {
        if self.hand_over.is_none() {
            return;
        }
        let came = self.came + piece.len() as u64;
        match self.announced {
            Some(announced) if came > announced => self.finish(Copied::WrongLength { announced, came }),
            _ if came > self.cap => self.finish(Copied::TooLarge),
            announced => {
                self.reserve(piece.len());
                self.copy.extend_from_slice(piece);
                self.came = came;
                if announced == Some(came) {
                    self.whole();
                }
            }
        }
    }

    /// One allocation when the length is known; otherwise room doubles, but not beyond the cap.
    fn reserve(&mut self, more: usize) {
        let needed = self.copy.len() + more;
        if needed <= self.copy.capacity() {
            return;
        }
        let room = self.announced.unwrap_or_else(|| (2 * needed as u64).min(self.cap));
        self.copy.reserve(usize::try_from(room).unwrap_or(needed).max(needed) - self.copy.len());
    }

    fn whole(&mut self) {
        let copy = std::mem::take(&mut self.copy);
        // Room that doubling left over would be held for as long as the copy is.
        let exact = copy.capacity() <= copy.len() + copy.len() / 4;
        self.finish(Copied::Whole(if exact { copy.freeze() } else { Bytes::copy_from_slice(&copy) }));
    }

    fn finish(&mut self, copied: Copied) {
        self.copy = BytesMut::new();
        if let Some(hand_over) = self.hand_over.take() {
            // The panic hook has reported it; what it left behind is its own.
            let _ = std::panic::catch_unwind(AssertUnwindSafe(|| hand_over(copied)));
        }
    }
}

impl<S, F, E> Stream for Tee<S, F>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    F: FnOnce(Copied) + Unpin,
{
    type Item = Result<Bytes, E>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(Pin::new(&mut self.stream).poll_next(context));
        match &next {
            Some(Ok(piece)) => self.piece(piece),
            Some(Err(_)) => self.finish(Copied::Failed),
            None => match (self.announced, self.came) {
                (Some(announced), came) if announced != came => self.finish(Copied::WrongLength { announced, came }),
                (Some(_) | None, _) if self.hand_over.is_some() => self.whole(),
                _ => {}
            },
        }
        Poll::Ready(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}

impl<S, F: FnOnce(Copied)> Drop for Tee<S, F> {
    fn drop(&mut self) {
        self.finish(Copied::Abandoned);
    }
}
