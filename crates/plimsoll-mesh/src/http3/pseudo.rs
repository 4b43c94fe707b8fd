//! Pseudo-header fields: in a request each at most once and before the other fields, in trailers none (RFC 9114, 4.3).
//!
//! h3 uses the last of several, wherever it is: an intermediary that used the first one saw another request. So the section
//! is walked once more, without decoding it: names in QPACK's static table are known by their index, and of the other
//! fields only the names are compared. A section that cannot be walked is left to h3, which rejects it.

/// All pseudo-header fields, as names and in Huffman code (RFC 7541, appendix B).
const NAMES: [(&[u8], &[u8]); 6] = [
    (b":authority", &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f]),
    (b":path", &[0xb9, 0x58, 0xd3, 0x3f]),
    (b":method", &[0xb9, 0x49, 0x53, 0x39, 0xe4]),
    (b":scheme", &[0xb8, 0x82, 0x4e, 0x5a, 0x4b]),
    (b":status", &[0xb8, 0x84, 0x8d, 0x36, 0xa3]),
    (b":protocol", &[0xb9, 0x5d, 0x87, 0x49, 0xc8, 0x7a, 0x3f]),
];

/// Indexes into [`NAMES`].
const AUTHORITY: usize = 0;
const PATH: usize = 1;
const METHOD: usize = 2;
const SCHEME: usize = 3;
const STATUS: usize = 4;

/// What is wrong with the pseudo-header fields of an encoded request, if anything is.
pub(crate) fn fault(section: &[u8]) -> Option<&'static str> {
    let (mut seen, mut fields_began) = ([false; NAMES.len()], false);
    let mut rest = section;
    // Required insert count and base. There is no dynamic table.
    integer(&mut rest, 8)?;
    integer(&mut rest, 7)?;
    while !rest.is_empty() {
        let Some(name) = next_name(&mut rest)? else {
            fields_began = true;
            continue;
        };
        if name == STATUS {
            return Some(":status, which belongs to a response");
        }
        if fields_began {
            return Some("a pseudo-header field after other fields");
        }
        if std::mem::replace(&mut seen[name], true) {
            return Some("a pseudo-header field that occurs twice");
        }
    }
    None
}

/// What is wrong with an encoded trailer section, if anything is: it has no pseudo-header fields at all.
pub(crate) fn trailer_fault(section: &[u8]) -> Option<&'static str> {
    let mut rest = section;
    integer(&mut rest, 8)?;
    integer(&mut rest, 7)?;
    while !rest.is_empty() {
        if next_name(&mut rest)?.is_some() {
            return Some("a pseudo-header field");
        }
    }
    None
}

/// The next field line (RFC 9204, 4.5): which pseudo-header field it is, if it is one. `None`: it cannot be walked.
fn next_name(rest: &mut &[u8]) -> Option<Option<usize>> {
    let first = *rest.first()?;
    let name = match first {
        // By index, name and value.
        0xc0.. => indexed(integer(rest, 6)?),
        // The name by its index, then the value.
        0x50..=0x5f | 0x70..=0x7f => {
            let name = indexed(integer(rest, 4)?);
            string(rest, 7)?;
            name
        }
        // Name and value.
        0x20..=0x3f => {
            let (huffman, name) = (first & 0x08 != 0, string(rest, 3)?);
            string(rest, 7)?;
            NAMES.iter().position(|(plain, coded)| name == if huffman { *coded } else { *plain })
        }
        // By an index of the dynamic table.
        _ => return None,
    };
    Some(name)
}

/// Names in QPACK's static table (RFC 9204, appendix A).
fn indexed(index: usize) -> Option<usize> {
    match index {
        0 => Some(AUTHORITY),
        1 => Some(PATH),
        15..=21 => Some(METHOD),
        22..=23 => Some(SCHEME),
        24..=28 | 63..=71 => Some(STATUS),
        _ => None,
    }
}

/// A string, its length in a prefix of `bits` bits.
fn string<'a>(rest: &mut &'a [u8], bits: u32) -> Option<&'a [u8]> {
    let length = integer(rest, bits)?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(text)
}

/// An integer with a prefix of `bits` bits (RFC 7541, 5.1); those of a header section have four more bytes at most.
fn integer(rest: &mut &[u8], bits: u32) -> Option<usize> {
    let (&first, mut after) = rest.split_first()?;
    let most = (1usize << bits) - 1;
    let mut value = usize::from(first) & most;
    if value == most {
        let mut shift = 0;
        loop {
            let (&byte, further) = after.split_first()?;
            after = further;
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 21 {
                return None;
            }
        }
    }
    *rest = after;
    Some(value)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::super::head::{put_integer, put_string};
    use super::*;

    enum Line {
        Indexed(usize),
        Named(usize, &'static [u8]),
        Plain(&'static [u8], &'static [u8]),
        Coded(&'static [u8]),
    }
    use Line::{Coded, Indexed, Named, Plain};

    fn section(lines: &[Line]) -> BytesMut {
        let mut out = BytesMut::from(&[0, 0][..]);
        for line in lines {
            match *line {
                Indexed(index) => put_integer(&mut out, 0xc0, 6, index),
                Named(index, value) => {
                    put_integer(&mut out, 0x50, 4, index);
                    put_string(&mut out, 0, 7, value);
                }
                Plain(name, value) => {
                    put_string(&mut out, 0x20, 3, name);
                    put_string(&mut out, 0, 7, value);
                }
                Coded(name) => {
                    put_string(&mut out, 0x28, 3, name);
                    put_string(&mut out, 0, 7, b"x");
                }
            }
        }
        out
    }

    const POST: Line = Indexed(20);
    const HTTPS: Line = Indexed(23);
    const NODE: Line = Named(0, b"node");
    const ECHO: Line = Named(1, b"/v1/call/echo");

    #[test]
    fn each_is_there_once_and_before_the_other_fields() {
        const LONG: &[u8] = &[b'x'; 1000];
        let good = [POST, HTTPS, NODE, ECHO, Plain(b"x", LONG), Named(44, b"text/plain"), Indexed(29), Indexed(98)];
        assert_eq!(fault(&section(&good)), None);
        assert_eq!(fault(&section(&[])), None);
        for (lines, said) in [
            (&[POST, HTTPS, NODE, ECHO, Named(1, b"/v1/call/hash")][..], "twice"),
            (&[POST, Indexed(17), HTTPS, NODE, ECHO], "twice"),
            (&[POST, HTTPS, NODE, ECHO, Plain(b":path", b"/v1/call/hash")], "twice"),
            (&[POST, HTTPS, NODE, Plain(b"x", LONG), ECHO], "after other fields"),
            (&[Indexed(29), POST], "after other fields"),
            (&[POST, HTTPS, NODE, ECHO, Indexed(25)], ":status"),
            (&[Named(71, b"500")], ":status"),
        ] {
            let fault = fault(&section(lines)).unwrap_or_default();
            assert!(fault.contains(said), "{fault:?} and not {said:?}");
        }
        for (name, coded) in NAMES {
            assert!(fault(&section(&[Plain(name, b"x"), Coded(coded)])).is_some(), "the two are the same name");
        }
    }

    #[test]
    fn a_trailer_section_has_no_pseudo_header_field() {
        assert_eq!(trailer_fault(&section(&[Plain(b"x-checksum", b"1")])), None);
        for line in [Indexed(25), Named(1, b"/"), Plain(b":path", b"/"), Coded(NAMES[2].1)] {
            assert!(trailer_fault(&section(&[Plain(b"x-checksum", b"1"), line])).is_some());
        }
    }

    #[test]
    fn what_cannot_be_walked_is_left_to_h3() {
        for section in [&[][..], &[0], &[0, 0, 0x80], &[0, 0, 0x10], &[0, 0, 0x51, 0x05, b'x'], &[0, 0, 0xff, 0xff]] {
            assert_eq!(fault(section), None, "{section:?}");
        }
        assert_eq!(fault(&[0, 0, 0x27, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }

    proptest! {
        #[test]
        fn junk_never_panics(section in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = fault(&section);
        }
    }
}
