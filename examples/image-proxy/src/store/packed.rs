//! Images as they lie in the second store: compressed where that is worth it.
//!
//! Compressing is worth little and never necessary, so it is cut off early: by the time it takes, by how little it saves,
//! and for what is too small to matter. A file says how long its image is, and nothing longer is ever unpacked from it.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;

/// The time that one image may take, looked at after each piece.
const BUDGET: Duration = Duration::from_millis(20);
const PIECE: usize = 64 * 1024;
/// Smaller images are kept as they are.
const SMALLEST: usize = 512;

const AS_IT_IS: u8 = 0;
const COMPRESSED: u8 = 1;
const LENGTH: usize = size_of::<u64>();

/// The file of an image. `spent` tells how long it has taken so far.
pub(crate) fn pack(image: &[u8], spent: impl Fn() -> Duration) -> Vec<u8> {
    compressed(image, spent).unwrap_or_else(|| {
        let mut file = Vec::with_capacity(1 + image.len());
        file.push(AS_IT_IS);
        file.extend_from_slice(image);
        file
    })
}

/// `None` when it takes too long or saves less than an eighth.
fn compressed(image: &[u8], spent: impl Fn() -> Duration) -> Option<Vec<u8>> {
    if image.len() < SMALLEST {
        return None;
    }
    let worth_it = image.len() - image.len() / 8;
    let mut file = Vec::with_capacity(1 + LENGTH + image.len() / 4);
    file.push(COMPRESSED);
    file.extend_from_slice(&(image.len() as u64).to_le_bytes());
    let mut encoder = zstd::stream::write::Encoder::new(file, 1).ok()?;
    for piece in image.chunks(PIECE) {
        encoder.write_all(piece).ok()?;
        if spent() > BUDGET || encoder.get_ref().len() > worth_it {
            return None;
        }
    }
    encoder.finish().ok().filter(|file| file.len() <= worth_it)
}

/// The image of a file; `None` when the file is none of ours, or its image is longer than `largest` or not as long as it
/// says.
pub(crate) fn unpack(file: Vec<u8>, largest: u64) -> Option<Bytes> {
    match *file.first()? {
        AS_IT_IS => Some(Bytes::from(file).slice(1..)),
        COMPRESSED => {
            let (length, packed) = file[1..].split_first_chunk::<LENGTH>()?;
            let length = u64::from_le_bytes(*length);
            if length > largest {
                return None;
            }
            let length = usize::try_from(length).ok()?;
            let image = zstd::bulk::decompress(packed, length).ok()?;
            (image.len() == length).then(|| image.into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: u64 = 1 << 20;

    fn quick() -> Duration {
        Duration::ZERO
    }

    /// Bytes that nothing can compress.
    fn noise(length: usize) -> Vec<u8> {
        let mut seed = 7_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    /// an image comes back as it was, and takes less room where compressing saves anything; where it takes longer than
    /// it may, or saves next to nothing, it lies as it is.
    #[test]
    fn compression_is_kept_where_it_is_worth_its_time() {
        let plain = vec![7; 200_000];
        let packed = pack(&plain, quick);
        assert!(packed.len() < plain.len() / 10, "{}", packed.len());
        assert_eq!(unpack(packed, LARGEST).unwrap(), plain);
        for (image, spent) in [
            (vec![7; 200_000], BUDGET + Duration::from_nanos(1)),
            (noise(200_000), Duration::ZERO),
            (vec![7; SMALLEST - 1], Duration::ZERO),
            (Vec::new(), Duration::ZERO),
        ] {
            let packed = pack(&image, || spent);
            assert_eq!(packed.len(), image.len() + 1, "as it is");
            assert_eq!(unpack(packed, LARGEST).unwrap(), image);
        }
    }

    /// a file that swells beyond what an image may be, or beyond what it says, is not unpacked.
    #[test]
    fn a_file_unpacks_to_no_more_than_it_says_and_may() {
        let packed = pack(&vec![7; 200_000], quick);
        assert_eq!(unpack(packed.clone(), 199_999), None);
        for said in [199_999_u64, 200_001, u64::MAX] {
            let mut lying = packed.clone();
            lying[1..=LENGTH].copy_from_slice(&said.to_le_bytes());
            assert_eq!(unpack(lying, LARGEST), None, "{said}");
        }
        for file in [vec![], vec![COMPRESSED], vec![COMPRESSED; 12], vec![9, 9]] {
            assert_eq!(unpack(file, LARGEST), None);
        }
    }
}
