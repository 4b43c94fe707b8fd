//! The bodies of listings, built once for each version of what they list.
//!
//! Building one costs as much as the mesh is large, and any client may ask for it. So it is kept with an entity tag; it is
//! built again only when its version has changed or it is too old, by one request at a time, and for at most a tenth of the
//! time.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use std::sync::Arc;
use tokio::time::Instant;

/// How long a body is used when only what has no version may have changed: the states of other nodes.
const MAX_AGE: Duration = Duration::from_millis(250);

/// Building takes at most one part in so many of the time.
const PAUSE: u32 = 9;

/// The body of one listing. Cloning the [`Body`] shares its bytes.
#[derive(Debug)]
pub(super) struct CachedListing {
    latest: ArcSwapOption<Body>,
    building: tokio::sync::Mutex<()>,
    tag: RandomState,
}

/// A built body.
#[derive(Debug)]
pub(super) struct Body {
    version: u64,
    built: Instant,
    cost: Duration,
    pub(super) bytes: Bytes,
    /// Its entity tag, in quotes (RFC 9110, 8.8.3).
    pub(super) etag: String,
}

impl Default for CachedListing {
    fn default() -> Self {
        Self { latest: ArcSwapOption::empty(), building: tokio::sync::Mutex::default(), tag: RandomState::new() }
    }
}

impl CachedListing {
    /// The body for the version that `version` reads, built by `build` unless there is one.
    ///
    /// Cancel safe: another request builds it then.
    pub(super) async fn get(&self, version: impl Fn() -> u64, build: impl Fn() -> Bytes) -> Arc<Body> {
        if let Some(body) = self.current(version()) {
            return body;
        }
        let _building = self.building.lock().await;
        if let Some(body) = self.current(version()) {
            return body;
        }
        if let Some(last) = self.latest.load().as_ref() {
            tokio::time::sleep_until(last.built + PAUSE * last.cost).await;
        }
        // Read before building: what changes meanwhile makes the body outdated, never the other way round.
        let (version, began) = (version(), Instant::now());
        let bytes = build();
        let mut hasher = self.tag.build_hasher();
        hasher.write(&bytes);
        let etag = format!("\"{:016x}-{:x}\"", hasher.finish(), bytes.len());
        let built = Instant::now();
        let body = Arc::new(Body { version, built, cost: built - began, bytes, etag });
        self.latest.store(Some(Arc::clone(&body)));
        body
    }

    /// Bytes of the latest body; 0 before the first is built.
    pub(super) fn len(&self) -> usize {
        self.latest.load().as_ref().map_or(0, |body| body.bytes.len())
    }

    fn current(&self, version: u64) -> Option<Arc<Body>> {
        self.latest.load_full().filter(|body| body.version == version && body.built.elapsed() < MAX_AGE)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_is_built_once_for_each_version_and_age() {
        let (listing, version, built) = (CachedListing::default(), AtomicU64::new(0), AtomicU64::new(0));
        let get = || {
            listing.get(
                || version.load(SeqCst),
                || {
                    built.fetch_add(1, SeqCst);
                    Bytes::from(version.load(SeqCst).to_string())
                },
            )
        };
        let first = get().await;
        assert_eq!(get().await.etag, first.etag);
        assert_eq!(built.load(SeqCst), 1);
        version.store(1, SeqCst);
        let second = get().await;
        assert_eq!((&second.bytes[..], built.load(SeqCst)), (&b"1"[..], 2));
        assert_ne!(second.etag, first.etag);
        tokio::time::advance(MAX_AGE).await;
        assert_eq!(get().await.etag, second.etag, "built again, with the same bytes");
        assert_eq!(built.load(SeqCst), 3);
    }
}
