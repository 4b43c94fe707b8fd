//! The proxy composed without some of its mechanisms, for the table of before and after. Only a build with
//! `--cfg plimsoll_controls` contains this.

use std::time::Instant;

use bytes::Bytes;
use http::Method;
use plimsoll::bounded::{ByteCap, Cap, TeeOutcome};

use crate::before;
use crate::images::{Image, ImageError, Images, Mechanisms};
use crate::key::ImageKey;

/// The mechanisms without those in the comma-separated list of the environment variable `PLIMSOLL_CONTROLS_OFF`.
pub(crate) fn without_listed(mut mechanisms: Mechanisms) -> Mechanisms {
    let list = std::env::var("PLIMSOLL_CONTROLS_OFF").unwrap_or_default();
    for name in list.split(',').map(str::trim) {
        match name {
            "pool-cap" => mechanisms.pool_cap = Cap::of::<{ Cap::MAX }>(),
            "tee-cap" => mechanisms.copy_cap = ByteCap::of::<{ ByteCap::MAX }>(),
            "bytes" => mechanisms.share = |image| Bytes::copy_from_slice(&image),
            "abort-on-close" => mechanisms.deliver = before::read_to_the_end,
            "permit-before-spawn" => {
                mechanisms.store = |_, work| before::spawn_then_wait(async move { drop(work.await) })
            }
            "single-flight" => mechanisms.find = |images, key| Box::pin(fetch_alone(images, key)),
            "one-shot-reply" => {
                mechanisms.call =
                    |images, request| Box::pin(before::rendezvous(async move { images.call(request).await }));
            }
            "cut-on-error" => mechanisms.discard = |response, lease| before::leave_open((response, lease)),
            _ => {}
        }
    }
    mechanisms
}

/// A fetch for each request, each with a copy of its own.
async fn fetch_alone(images: &Images, key: ImageKey) -> Result<Image, ImageError> {
    if let Some(image) = images.cache.get(&key, Instant::now()) {
        return Ok(images.stored(image));
    }
    let fetched = images.origin.fetch(Method::GET, &key).await?;
    let (cache, images_of) = (images.cache.clone(), images.clone());
    let fresh_for = fetched.time_to_live.unwrap_or_default();
    Ok(images.tee(fetched, move |outcome| {
        if let TeeOutcome::Complete(image) = outcome
            && cache.insert(key.clone(), image.clone(), Instant::now()).is_ok()
        {
            images_of.store_later(key, image, fresh_for);
        }
    }))
}
