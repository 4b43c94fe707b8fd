//! Streams composed without their checks, in builds with `--cfg plimsoll_controls`.

use super::recv::RecvStream;
use crate::controls::is_off;

/// A received stream: not checked without `frame-guard`.
pub(super) fn received(stream: RecvStream) -> RecvStream {
    if is_off("frame-guard") { stream.without_guard() } else { stream }
}
