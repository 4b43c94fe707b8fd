//! A gateway composed without some of its mechanisms, in builds with `--cfg plimsoll_controls`.

use std::time::Duration;

use futures::future::BoxFuture;
use plimsoll::bounded::ByteCap;

use super::limits::Limits;
use crate::controls::is_off;
use crate::http3::StreamEnd;

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// The limits of a gateway: leases that do not end without `sweep`, backlogs without an end without `fanout-bound`.
pub(super) fn limits(mut limits: Limits) -> Limits {
    if is_off("sweep") {
        let leases = &mut limits.advertisements;
        (leases.ttl, leases.shortest_ttl, leases.longest_ttl) = (NEVER, NEVER, NEVER);
    }
    if is_off("fanout-bound") {
        (limits.pubsub.backlog, limits.pubsub.patience) = (ByteCap::of::<{ ByteCap::MAX }>(), Duration::MAX);
    }
    limits
}

/// The end of a request's stream: never noticed without `caller-death`.
pub(super) fn stream_end(end: BoxFuture<'static, StreamEnd>) -> BoxFuture<'static, StreamEnd> {
    if is_off("caller-death") { Box::pin(std::future::pending()) } else { end }
}
