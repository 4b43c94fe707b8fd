//! The work: one image for one request, in a worker of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use plimsoll::bounded::{ByteCache, ByteCap, Copied, Fill, FillError, Lookup, TaskPool, Tee};
use plimsoll::call::{CallContext, Service};

use crate::body::Body;
use crate::controls::switched_off;
use crate::key::ImageKey;
use crate::origin::{FetchError, Fetched, Origin};
use crate::store::Store;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) key: ImageKey,
    /// Whether only its length is.
    pub(crate) head: bool,
}

/// An image on its way to a client.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) length: Option<u64>,
    pub(crate) body: Body,
}

/// Why there is none.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ImageError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Too much is being fetched.
    #[error("too many images are being fetched")]
    Busy,
}

/// The service behind every request.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    pub(crate) origin: Origin,
    pub(crate) cache: ByteCache<ImageKey>,
    pub(crate) store: Store,
    pub(crate) background: TaskPool,
    pub(crate) largest: ByteCap,
    /// How long a request waits for another's fetch.
    pub(crate) patience: Duration,
}

impl Service for Images {
    type Request = Wanted;
    type Reply = Image;
    type Error = ImageError;

    async fn call(&self, _: CallContext, wanted: Wanted) -> Result<Image, ImageError> {
        assert!(wanted.key.tenant() != "panic", "a tenant of this name is a test of the handler");
        if wanted.head { self.head(&wanted.key).await } else { self.image(wanted.key).await }
    }
}

impl Images {
    /// The length from memory, else from one request to the origin.
    async fn head(&self, key: &ImageKey) -> Result<Image, ImageError> {
        let length = match self.cache.get(key, Instant::now()) {
            Some(image) => Some(image.len() as u64),
            None => self.origin.fetch(Method::HEAD, key).await?.length,
        };
        Ok(Image { length, body: Body::Empty })
    }

    /// From memory, from whoever is fetching it already, from the folder, from the origin.
    async fn image(&self, key: ImageKey) -> Result<Image, ImageError> {
        #[cfg(plimsoll_controls)]
        if switched_off("single-flight") {
            return match self.cache.get(&key, Instant::now()) {
                Some(image) => Ok(whole(image)),
                None => self.fetch_alone(key).await,
            };
        }
        loop {
            match self.cache.lookup(&key, Instant::now()).map_err(refused)? {
                Lookup::Hit(image) => return Ok(whole(image)),
                Lookup::Wait(wait) => match tokio::time::timeout(self.patience, wait.result()).await {
                    Ok(Some(result)) => return result.map(whole).map_err(refused),
                    // Whoever fetched it left, or it is too large to be shared: look again.
                    Ok(None) => {}
                    // It comes no faster than the client it is fetched for takes it: no reason for others to wait.
                    Err(_) => return self.beside(&key).await,
                },
                Lookup::Fill(fill) => {
                    if let Some(image) = self.store.read(&key).await {
                        return Ok(whole(fill.publish(image, Instant::now())));
                    }
                    return match self.origin.fetch(Method::GET, &key).await {
                        Ok(fetched) => Ok(self.pass_on(fetched, fill)),
                        Err(error) => Err(refused(fill.fail(error))),
                    };
                }
            }
        }
    }

    /// Beside the fetch that others wait for, and without a copy.
    async fn beside(&self, key: &ImageKey) -> Result<Image, ImageError> {
        let Fetched { length, pieces } = self.origin.fetch(Method::GET, key).await?;
        Ok(Image { length, body: Body::Stream(pieces) })
    }

    /// The client gets the pieces as they come; the copy beside them fills the cache and then, if there is a permit, the
    /// folder.
    fn pass_on(&self, fetched: Fetched, fill: Fill<ImageKey>) -> Image {
        let (store, background) = (self.store.clone(), self.background.clone());
        let hand_over = move |copied| match copied {
            Copied::Whole(image) => {
                let key = fill.key().clone();
                let image = fill.publish(image, Instant::now());
                keep(&background, store, key, image);
            }
            Copied::Failed | Copied::WrongLength { .. } => {
                drop(fill.fail(FetchError::Broken("in the middle of the image".into())));
            }
            _ => drop(fill),
        };
        self.tee(fetched, hand_over)
    }

    fn tee(&self, fetched: Fetched, hand_over: impl FnOnce(Copied) + Send + Unpin + 'static) -> Image {
        let cap = if switched_off("tee-cap") { ByteCap::of::<{ ByteCap::MAX }>() } else { self.largest };
        let Fetched { length, pieces } = fetched;
        #[cfg(plimsoll_controls)]
        if switched_off("abort-on-close") {
            let tee = Tee::new(pieces, cap, length, hand_over);
            return Image { length, body: Body::Stream(crate::before::read_to_the_end(tee)) };
        }
        Image { length, body: Body::Stream(Box::pin(Tee::new(pieces, cap, length, hand_over))) }
    }

    #[cfg(plimsoll_controls)]
    async fn fetch_alone(&self, key: ImageKey) -> Result<Image, ImageError> {
        let fetched = self.origin.fetch(Method::GET, &key).await?;
        let (cache, store, background) = (self.cache.clone(), self.store.clone(), self.background.clone());
        Ok(self.tee(fetched, move |copied| {
            if let Copied::Whole(image) = copied
                && cache.insert(key.clone(), image.clone(), Instant::now()).is_ok()
            {
                keep(&background, store, key, image);
            }
        }))
    }
}

/// Writes the image to the folder in the background; skipped, and counted, when enough is being written.
fn keep(background: &TaskPool, store: Store, key: ImageKey, image: Bytes) {
    #[cfg(plimsoll_controls)]
    if switched_off("permit-before-spawn") {
        return crate::before::spawn_then_wait(async move { drop(store.write(key, image).await) });
    }
    // Skipped is as good as done: the pool counts it, and the image is in memory.
    let _skipped = background.try_spawn(move || async move { store.write(key, image).await });
}

fn whole(image: Bytes) -> Image {
    let image = if switched_off("bytes") { Bytes::copy_from_slice(&image) } else { image };
    Image { length: Some(image.len() as u64), body: Body::Bytes(image) }
}

/// The origin's own error, where that is what everybody who waited was told.
fn refused(error: FillError) -> ImageError {
    match error {
        FillError::Failed(error) => {
            let known = error.downcast_ref::<FetchError>().cloned();
            known.unwrap_or_else(|| FetchError::Broken(Arc::from(error.to_string()))).into()
        }
        FillError::Busy { .. } => ImageError::Busy,
        _ => FetchError::Broken("the fetch panicked".into()).into(),
    }
}
