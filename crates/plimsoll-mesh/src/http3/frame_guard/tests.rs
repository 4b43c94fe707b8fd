use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

fn put_varint(out: &mut BytesMut, value: u64, size: usize) {
    let tag = match size {
        1 => 0u64,
        2 => 1,
        4 => 2,
        _ => 3,
    };
    let tagged = value | tag << (size * 8 - 2);
    out.put_slice(&tagged.to_be_bytes()[8 - size..]);
}

fn frame(kind: u64, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put_varint(&mut out, kind, 8);
    put_varint(&mut out, payload.len() as u64, 8);
    out.put_slice(payload);
    out.freeze()
}

/// Runs `wire` through a guard, cut at `cuts`; gives what passed.
fn pass(mut guard: FrameGuard, wire: &Bytes, cuts: &[usize]) -> Result<Bytes, FrameError> {
    let mut out = BytesMut::new();
    let mut from = 0;
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
    ends.sort_unstable();
    ends.push(wire.len());
    for end in ends {
        let mut chunk = wire.slice(from..end);
        from = end;
        while !chunk.is_empty() {
            out.extend(guard.scan(&mut chunk)?);
        }
    }
    out.extend(guard.unfinished());
    Ok(out.freeze())
}

#[test]
fn a_gibibyte_announced_is_refused_before_its_first_byte() {
    let mut wire = BytesMut::new();
    put_varint(&mut wire, HEADERS, 1);
    put_varint(&mut wire, 1 << 30, 8);
    let refused = pass(FrameGuard::request(), &wire.freeze(), &[]).unwrap_err();
    assert_eq!(refused, Oversized { kind: HEADERS, announced: 1 << 30, cap: HEADERS_FRAME_CAP }.into());
}

#[test]
fn each_kind_of_frame_has_its_cap_to_the_byte() {
    for (kind, cap) in [(HEADERS, HEADERS_FRAME_CAP), (0x21, ANY_FRAME_CAP), (0x4, ANY_FRAME_CAP)] {
        for (announced, refused) in [(cap, false), (cap + 1, true)] {
            let mut wire = BytesMut::new();
            put_varint(&mut wire, kind, 1);
            put_varint(&mut wire, announced, 8);
            let passed = pass(FrameGuard::client_control(), &wire.freeze(), &[]);
            assert_eq!(passed.is_err(), refused, "{kind:#x} of {announced}");
        }
    }
}

#[test]
fn data_may_be_of_any_size() {
    let mut wire = BytesMut::new();
    put_varint(&mut wire, DATA, 1);
    put_varint(&mut wire, 1 << 40, 8);
    assert!(pass(FrameGuard::response(), &wire.freeze(), &[]).is_ok());
}

#[test]
fn an_empty_data_frame_is_removed_from_a_message_only() {
    let wire = [frame(HEADERS, b"h"), frame(DATA, b""), frame(DATA, b"body"), frame(DATA, b"")].concat().into();
    let kept: Bytes = [frame(HEADERS, b"h"), frame(DATA, b"body")].concat().into();
    assert_eq!(pass(FrameGuard::request(), &wire, &[]).unwrap(), kept);
    assert_eq!(pass(FrameGuard::client_control(), &wire, &[]).unwrap(), wire);
}

#[test]
fn a_stream_that_ends_in_a_frame_header_still_shows_it() {
    let wire = Bytes::from_static(&[0x80, 0x00]);
    assert_eq!(pass(FrameGuard::request(), &wire, &[1]).unwrap(), wire);
}

/// RFC 9114, 4.1: HEADERS, DATA, then at most one more HEADERS; unknown frames anywhere.
#[test]
fn the_frames_of_a_request_have_an_order() {
    let trailers = &[0, 0][..];
    let of = |kinds: &[u64]| -> Bytes {
        kinds
            .iter()
            .map(|&kind| frame(kind, if kind == HEADERS { trailers } else { b"x" }))
            .collect::<Vec<_>>()
            .concat()
            .into()
    };
    let unexpected = |kinds: &[u64]| {
        let wire = of(kinds);
        let whole = pass(FrameGuard::request(), &wire, &[]);
        let cut: Vec<usize> = (0..wire.len()).collect();
        assert_eq!(pass(FrameGuard::request(), &wire, &cut).is_err(), whole.is_err(), "{kinds:x?}");
        matches!(whole, Err(FrameError::Unexpected { .. }))
    };
    for kinds in
        [&[HEADERS][..], &[0x21, HEADERS, 0x21, DATA, DATA, 0x21], &[HEADERS, HEADERS], &[HEADERS, DATA, HEADERS, 0x21]]
    {
        assert!(!unexpected(kinds), "{kinds:x?}");
    }
    for kinds in [
        &[DATA][..],
        &[HEADERS, HEADERS, DATA],
        &[HEADERS, DATA, HEADERS, DATA],
        &[HEADERS, HEADERS, HEADERS],
        &[HEADERS, DATA, HEADERS, 0x21, HEADERS],
        &[HEADERS, SETTINGS],
        &[HEADERS, DATA, HEADERS, GOAWAY],
        &[CANCEL_PUSH],
        &[HEADERS, PUSH_PROMISE],
        &[HEADERS, MAX_PUSH_ID],
        &[HEADERS, 0x8],
    ] {
        assert!(unexpected(kinds), "{kinds:x?}");
    }
    // An empty DATA frame has a place in the order as well.
    let wire = [frame(HEADERS, trailers), frame(HEADERS, trailers), frame(DATA, b"")].concat().into();
    assert!(matches!(pass(FrameGuard::request(), &wire, &[]), Err(FrameError::Unexpected { .. })));
}

#[test]
fn a_pseudo_header_field_in_trailers_is_found_wherever_it_is_cut() {
    // `:path` = `/` by its index in the static table.
    let wire: Bytes = [frame(HEADERS, b"h"), frame(DATA, b"body"), frame(HEADERS, &[0, 0, 0xc1])].concat().into();
    for cut in 0..wire.len() {
        let passed = pass(FrameGuard::request(), &wire, &[cut]);
        assert!(matches!(passed, Err(FrameError::MalformedTrailers(_))), "{cut}");
    }
}

/// RFC 9114, 7.2.3 and 7.2.7.
#[test]
fn push_ids_of_a_client_only_rise_and_none_can_be_cancelled() {
    let ids = |ids: &[u8]| ids.iter().map(|&id| frame(MAX_PUSH_ID, &[id])).collect::<Vec<_>>().concat().into();
    for (sent, valid) in [(&[1, 1, 7][..], true), (&[7, 6], false), (&[0], true)] {
        let wire: Bytes = ids(sent);
        for cut in 0..wire.len() {
            assert_eq!(pass(FrameGuard::client_control(), &wire, &[cut]).is_ok(), valid, "{sent:?} {cut}");
        }
    }
    assert!(pass(FrameGuard::client_control(), &frame(CANCEL_PUSH, &[0]), &[]).is_err());
    assert!(pass(FrameGuard::server_control(), &frame(CANCEL_PUSH, &[0]), &[]).is_ok());
}

proptest! {
    /// However the stream is cut, all bytes but empty DATA frames pass unchanged and in order.
    #[test]
    fn cutting_changes_nothing(
        frames in prop::collection::vec((prop::sample::select(vec![DATA, HEADERS, 0x21, 0x4, 0x4041]), 0usize..40), 0..12),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let all: Vec<Bytes> = frames.iter().map(|&(kind, len)| frame(kind, &vec![0xa5; len])).collect();
        let kept: Vec<Bytes> =
            frames.iter().zip(&all).filter(|((kind, len), _)| (*kind, *len) != (DATA, 0)).map(|(_, f)| f.clone()).collect();
        let (wire, kept): (Bytes, Bytes) = (all.concat().into(), kept.concat().into());
        prop_assert_eq!(pass(FrameGuard::response(), &wire, &cuts).unwrap(), kept);
        prop_assert_eq!(pass(FrameGuard::client_control(), &wire, &cuts).unwrap(), wire);
    }

    /// An oversized frame is found wherever the stream is cut.
    #[test]
    fn cutting_hides_nothing(before in 0usize..40, cuts in prop::collection::vec(any::<usize>(), 0..12)) {
        let mut wire = BytesMut::from(&frame(DATA, &vec![1; before])[..]);
        put_varint(&mut wire, 0x21, 8);
        put_varint(&mut wire, ANY_FRAME_CAP + 1, 4);
        wire.put_bytes(0, 64);
        prop_assert!(pass(FrameGuard::response(), &wire.freeze(), &cuts).is_err());
    }
}
