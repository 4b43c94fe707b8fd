//! The head of a response on the wire.
//!
//! Encoded here: h3 builds a header map, a header list and a Huffman code for every value that is not in QPACK's static
//! table, which together cost more than the rest of a response. Here each field is written literally (RFC 9204, 4.5.6 allows
//! strings without Huffman), names and usual statuses by their index in the static table.

use bytes::{BufMut, BytesMut};
use http::StatusCode;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;

/// Names in QPACK's static table (RFC 9204, appendix A).
const STATUS: usize = 24;
const CONTENT_TYPE: usize = 44;

/// Appends a HEADERS frame with these fields. `fields` have lower-case names.
pub(crate) fn put_head(out: &mut BytesMut, status: StatusCode, content_type: &str, fields: &[(&'static str, String)]) {
    out.put_u8(HEADERS);
    let length_at = out.len();
    out.put_u16(0);
    // No dynamic table: required insert count and base are zero.
    out.put_slice(&[0, 0]);
    put_status(out, status);
    // A response without a body has no media type.
    if !content_type.is_empty() {
        put_integer(out, 0x50, 4, CONTENT_TYPE);
        put_string(out, 0, 7, content_type.as_bytes());
    }
    for (name, value) in fields {
        put_string(out, 0x20, 3, name.as_bytes());
        put_string(out, 0, 7, value.as_bytes());
    }
    // INVARIANT: a head is far below the 16 KiB that two bytes of length can say; values are short.
    let length = (out.len() - length_at - 2) as u16 | 0x4000;
    out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
}

/// Appends the header of a DATA frame of so many bytes.
pub(crate) fn put_data_header(out: &mut BytesMut, length: usize) {
    out.put_u8(DATA);
    match length as u64 {
        short @ 0..0x40 => out.put_u8(short as u8),
        short @ 0x40..0x4000 => out.put_u16(short as u16 | 0x4000),
        long @ 0x4000..0x4000_0000 => out.put_u32(long as u32 | 0x8000_0000),
        long => out.put_u64(long | 0xc000_0000_0000_0000),
    }
}

fn put_status(out: &mut BytesMut, status: StatusCode) {
    let indexed = match status.as_u16() {
        200 => 25,
        404 => 27,
        503 => 28,
        204 => 64,
        400 => 67,
        403 => 68,
        500 => 71,
        _ => {
            put_integer(out, 0x50, 4, STATUS);
            return put_string(out, 0, 7, status.as_str().as_bytes());
        }
    };
    put_integer(out, 0xc0, 6, indexed);
}

/// A string without Huffman code: its length behind `flags` in `bits` bits, then its bytes.
pub(super) fn put_string(out: &mut BytesMut, flags: u8, bits: u32, text: &[u8]) {
    put_integer(out, flags, bits, text.len());
    out.put_slice(text);
}

/// An integer with a prefix of `bits` bits (RFC 7541, 5.1).
pub(super) fn put_integer(out: &mut BytesMut, flags: u8, bits: u32, value: usize) {
    let most = (1usize << bits) - 1;
    if value < most {
        return out.put_u8(flags | value as u8);
    }
    out.put_u8(flags | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_those_of_the_rfc() {
        for (bits, value, wire) in [(5, 10, &[0x0a][..]), (5, 1337, &[0x1f, 0x9a, 0x0a]), (8, 42, &[0x2a])] {
            let mut out = BytesMut::new();
            put_integer(&mut out, 0, bits, value);
            assert_eq!(&out[..], wire);
        }
    }

    #[test]
    fn a_plain_response_has_a_short_head() {
        let mut out = BytesMut::new();
        put_head(&mut out, StatusCode::OK, "text/plain", &[]);
        let head = [&[0x1, 0x40, 16, 0, 0, 0xc0 | 25, 0x5f, 44 - 15, 10][..], b"text/plain"].concat();
        assert_eq!(&out[..], head);
    }

    #[test]
    fn data_lengths_use_the_shortest_encoding() {
        for (length, size) in [(0, 2), (63, 2), (64, 3), (16_383, 3), (16_384, 5), (1 << 30, 9)] {
            let mut out = BytesMut::new();
            put_data_header(&mut out, length);
            assert_eq!(out.len(), size, "{length}");
            assert_eq!(super::super::frame_guard::varint(&out[1..]), Some((length as u64, size - 1)));
        }
    }
}
