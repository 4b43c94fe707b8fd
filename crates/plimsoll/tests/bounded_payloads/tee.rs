use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, stream};
use parking_lot::Mutex;
use plimsoll::bounded::{ByteCap, Tee, TeeOutcome};
use proptest::prelude::*;

/// What was handed over, and how often.
type Handed = Arc<Mutex<Vec<TeeOutcome>>>;

fn tee<S>(stream: S, cap: u64, announced: Option<u64>) -> (Tee<S, impl FnOnce(TeeOutcome)>, Handed) {
    let handed = Handed::default();
    let copied = {
        let handed = handed.clone();
        move |copied| handed.lock().push(copied)
    };
    (Tee::new(stream, ByteCap::new(cap).unwrap(), announced, copied), handed)
}

#[derive(Debug, Clone)]
enum End {
    Well,
    Error,
    /// The reader leaves after so many pieces.
    Leaves(usize),
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![3 => Just(End::Well), 1 => Just(End::Error), 1 => (0..8_usize).prop_map(End::Leaves)]
}

/// The rules, from the whole of what the reader got.
fn expected(read: &[Bytes], end: &End, cap: u64, announced: Option<u64>) -> TeeOutcome {
    let mut came = 0;
    if announced.is_some_and(|announced| announced > cap) {
        return TeeOutcome::TooLarge;
    }
    if announced == Some(0) {
        return TeeOutcome::Complete(Bytes::new());
    }
    for (index, piece) in read.iter().enumerate() {
        came += piece.len() as u64;
        match announced {
            Some(announced) if came > announced => return TeeOutcome::WrongLength { announced, received: came },
            _ if came > cap => return TeeOutcome::TooLarge,
            // The first moment at which all that was announced is there.
            Some(announced) if came == announced => return TeeOutcome::Complete(read[..=index].concat().into()),
            _ => {}
        }
    }
    match (end, announced) {
        (End::Error, _) => TeeOutcome::Failed,
        (End::Leaves(_), _) => TeeOutcome::Abandoned,
        (End::Well, Some(announced)) => TeeOutcome::WrongLength { announced, received: came },
        (End::Well, None) => TeeOutcome::Complete(read.concat().into()),
    }
}

proptest! {
    #![proptest_config(crate::config())]

    /// the reader gets every piece as the very bytes that came, through no buffer of ours that a pool could
    /// keep; the copy never holds more than the cap and is handed over exactly once, whole or not at all.
    #[test]
    fn tee_hands_over_what_the_model_says(
        lengths in prop::collection::vec(0..40_usize, 0..8),
        end in end(),
        cap in 1..150_u64,
        announced in prop::option::of(prop_oneof![Just(None), (0..200_u64).prop_map(Some)]),
    ) {
        let pieces: Vec<Bytes> =
            lengths.iter().enumerate().map(|(index, length)| Bytes::from(vec![index as u8; *length])).collect();
        let total: u64 = lengths.iter().sum::<usize>() as u64;
        // Mostly the truth, sometimes something else, sometimes nothing.
        let announced = announced.map(|other| other.unwrap_or(total));
        let mut items: Vec<Result<Bytes, &str>> = pieces.iter().cloned().map(Ok).collect();
        if matches!(end, End::Error) {
            items.push(Err("reset"));
        }
        let (mut tee, handed) = tee(stream::iter(items), cap, announced);
        let mut read = Vec::new();
        let mut failed = false;
        loop {
            if matches!(end, End::Leaves(after) if after <= read.len()) {
                break;
            }
            match tee.next().now_or_never().expect("the tee adds no waiting") {
                Some(Ok(piece)) => read.push(piece),
                Some(Err(_)) => failed = true,
                None => break,
            }
            prop_assert!(tee.held() as u64 <= cap);
        }
        drop(tee);
        prop_assert_eq!(failed, matches!(end, End::Error));
        let left_early = matches!(end, End::Leaves(after) if after <= pieces.len());
        prop_assert!(left_early || read.len() == pieces.len());
        for (got, sent) in read.iter().zip(&pieces) {
            prop_assert_eq!(got.as_ptr(), sent.as_ptr());
        }
        let end = if left_early { end } else if failed { End::Error } else { End::Well };
        prop_assert_eq!(&*handed.lock(), &[expected(&read, &end, cap, announced)]);
    }
}

fn pieces<const N: usize>(pieces: [&'static [u8]; N]) -> impl Stream<Item = Result<Bytes, &'static str>> + Unpin {
    stream::iter(pieces.map(|piece| Ok(Bytes::from_static(piece))))
}

/// with a known length the copy is handed over with the last piece: a server that has written as many bytes as it
/// announced never asks for the end.
#[tokio::test]
async fn a_known_length_is_whole_with_its_last_piece() {
    let (mut tee, handed) = tee(pieces([b"ab", b"cd"]), 100, Some(4));
    tee.next().await;
    assert!(handed.lock().is_empty());
    tee.next().await;
    assert_eq!(*handed.lock(), [TeeOutcome::Complete("abcd".into())]);
}

/// a store that panics takes nothing from the reader.
#[tokio::test]
async fn a_failing_store_does_not_fail_the_reader() {
    let tee = Tee::new(pieces([b"ab", b"cd"]), ByteCap::of::<100>(), None, |_| std::panic::resume_unwind(Box::new(())));
    let read: Vec<_> = tee.map(Result::unwrap).collect().await;
    assert_eq!(read.concat(), b"abcd");
}

/// beyond the cap the copy's memory goes at once and not with the stream.
#[tokio::test]
async fn a_stream_over_the_cap_holds_nothing() {
    let (mut tee, handed) = tee(pieces([b"abc", b"def", b"ghi"]), 5, None);
    tee.next().await;
    assert_eq!(tee.held(), 3);
    tee.next().await;
    assert_eq!(tee.held(), 0);
    assert_eq!(*handed.lock(), [TeeOutcome::TooLarge]);
    assert_eq!(tee.map(Result::unwrap).collect::<Vec<_>>().await, ["ghi"]);
}

/// a copy keeps no memory but its own, whether its length was known or its capacity had to double.
#[tokio::test]
async fn a_copy_is_exact() {
    let kib = Bytes::from(vec![1; 1024]);
    for announced in [Some(70 << 10), None] {
        let stream = stream::iter((0..70).map(|_| Ok::<_, ()>(kib.clone())));
        let (tee, handed) = tee(stream, 1 << 20, announced);
        tee.for_each(|_| async {}).await;
        let copied = handed.lock().pop();
        let Some(TeeOutcome::Complete(whole)) = copied else { panic!("{copied:?}") };
        let whole = whole.try_into_mut().expect("the only reference");
        assert_eq!((whole.len(), whole.capacity()), (70 << 10, 70 << 10));
    }
}
