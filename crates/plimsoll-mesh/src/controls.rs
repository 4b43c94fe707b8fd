//! Parts composed without some of their mechanisms, for proofs that the mechanisms matter. Only a build with
//! `--cfg plimsoll_controls` contains this; the places where parts are wired together call it.

use std::time::Duration;

use futures::future::BoxFuture;
use plimsoll::bounded::ByteCap;

use crate::gateway::Limits;
use crate::http3::{RecvStream, StreamEnd};

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether `mechanism` is in the comma-separated list of the environment variable `PLIMSOLL_CONTROLS_OFF`.
pub(crate) fn is_off(mechanism: &str) -> bool {
    static OFF: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let off = OFF.get_or_init(|| {
        let list = std::env::var("PLIMSOLL_CONTROLS_OFF").unwrap_or_default();
        list.split(',').map(|name| name.trim().to_owned()).collect()
    });
    off.iter().any(|name| name == mechanism)
}

/// The limits of a gateway: leases that do not end without `sweep`, backlogs without an end without `fanout-bound`.
pub(crate) fn limits(mut limits: Limits) -> Limits {
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
pub(crate) fn stream_end(end: BoxFuture<'static, StreamEnd>) -> BoxFuture<'static, StreamEnd> {
    if is_off("caller-death") { Box::pin(std::future::pending()) } else { end }
}

/// A received stream: not checked without `frame-guard`.
pub(crate) fn received(stream: RecvStream) -> RecvStream {
    if is_off("frame-guard") { stream.without_guard() } else { stream }
}
