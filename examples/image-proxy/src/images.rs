//! The work: one image for one request, in a worker of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use plimsoll::bounded::{ByteCache, ByteCap, Cap, Fill, FillError, Lookup, TaskPool, Tee, TeeOutcome};
use plimsoll::call::{CallClient, CallContext, CallError, Service};

use crate::body::Body;
use crate::key::ImageKey;
use crate::origin::{FetchError, Fetched, Lease, Origin};
use crate::settings::Settings;
use crate::store::Store;

/// A request for an image.
#[derive(Debug, Clone)]
pub(crate) struct ImageRequest {
    pub(crate) key: ImageKey,
    /// Whether only its length is requested.
    pub(crate) head: bool,
}

/// An image on its way to a client.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) status: StatusCode,
    pub(crate) length: Option<u64>,
    pub(crate) body: Body,
}

/// Why there is no image.
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
    pub(crate) mechanisms: Mechanisms,
    /// How long a request waits for the fetch of another.
    pub(crate) patience: Duration,
}

pub(crate) type Pieces = BoxStream<'static, Result<Bytes, FetchError>>;

type CallResult = Result<Image, CallError<ImageError>>;

/// The mechanisms that the proxy is composed of, as functions, so that a build with controls can compose it without one of them
/// and show what it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mechanisms {
    /// Clients of the origin.
    pub(crate) pool_cap: Cap,
    /// The largest copy of an image that is being fetched.
    pub(crate) copy_cap: ByteCap,
    /// A stored image on its way to a client: a reference to the same bytes.
    pub(crate) share: fn(Bytes) -> Bytes,
    /// An image on its way from the origin to a client: it ends with its client.
    pub(crate) deliver: fn(Pieces) -> Pieces,
    /// Writes an image in the background, if there is a permit.
    pub(crate) store: fn(&TaskPool, BoxFuture<'static, std::io::Result<()>>),
    /// Finds an image: one fetch for all that request it.
    pub(crate) find: for<'a> fn(&'a Images, ImageKey) -> BoxFuture<'a, Result<Image, ImageError>>,
    /// Calls the service: the call ends with its caller.
    pub(crate) call: fn(CallClient<Images>, ImageRequest) -> BoxFuture<'static, CallResult>,
    /// What happens to a failed response and its client: both are dropped.
    pub(crate) discard: fn(Response<Incoming>, Lease),
}

impl Mechanisms {
    /// All of them.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            pool_cap: settings.pool,
            copy_cap: settings.image,
            share: std::convert::identity,
            deliver: std::convert::identity,
            store: |pool, work| {
                // A refused job is counted by the pool, and the image is in memory.
                let _refused = pool.try_spawn(move || work);
            },
            find: |images, key| Box::pin(images.find(key)),
            call: |images, request| Box::pin(async move { images.call(request).await }),
            discard: |response, lease| drop((response, lease)),
        }
    }
}

impl Service for Images {
    type Request = ImageRequest;
    type Reply = Image;
    type Error = ImageError;

    async fn call(&self, _: CallContext, request: ImageRequest) -> Result<Image, ImageError> {
        assert!(request.key.tenant() != "panic", "a tenant of this name is a test of the handler");
        if request.head { self.head(&request.key).await } else { (self.mechanisms.find)(self, request.key).await }
    }
}

impl Images {
    /// The length from memory, else from one request to the origin.
    async fn head(&self, key: &ImageKey) -> Result<Image, ImageError> {
        if let Some(image) = self.cache.get(key, Instant::now()) {
            return Ok(Image { status: StatusCode::OK, length: Some(image.len() as u64), body: Body::Empty });
        }
        let Fetched { status, length, .. } = self.origin.fetch(Method::HEAD, key).await?;
        Ok(Image { status, length, body: Body::Empty })
    }

    /// From memory, from a fetch in progress, from the folder, from the origin.
    pub(crate) async fn find(&self, key: ImageKey) -> Result<Image, ImageError> {
        loop {
            match self.cache.lookup(&key, Instant::now()).map_err(refused)? {
                Lookup::Hit(image) => return Ok(self.stored(image)),
                Lookup::Wait(wait) => match tokio::time::timeout(self.patience, wait.result()).await {
                    Ok(Some(result)) => return result.map(|image| self.stored(image)).map_err(refused),
                    // Its client left, it is too large to be shared or must not be stored: look it up again.
                    Ok(None) => {}
                    // It arrives no faster than the client that it is fetched for reads it: others need not wait.
                    Err(_) => return self.fetch_uncopied(&key).await,
                },
                Lookup::Fill(fill) => {
                    if let Some((image, fresh_for)) = self.store.read(&key).await {
                        return Ok(self.stored(fill.publish_for(image, fresh_for, Instant::now())));
                    }
                    return match self.origin.fetch(Method::GET, &key).await {
                        Ok(fetched) => Ok(self.stream_to_client(fetched, fill)),
                        Err(error) => Err(refused(fill.fail(error))),
                    };
                }
            }
        }
    }

    /// A fetch of its own, without a copy.
    async fn fetch_uncopied(&self, key: &ImageKey) -> Result<Image, ImageError> {
        let Fetched { status, length, pieces, .. } = self.origin.fetch(Method::GET, key).await?;
        Ok(Image { status, length, body: Body::Stream(pieces) })
    }

    /// The client receives the pieces as they arrive; the copy of a response that may be stored fills the cache and then, if
    /// there is a permit, the folder.
    fn stream_to_client(&self, fetched: Fetched, fill: Fill<ImageKey>) -> Image {
        let Some(fresh_for) = fetched.time_to_live else {
            drop(fill);
            let Fetched { status, length, pieces, .. } = fetched;
            return Image { status, length, body: Body::Stream(pieces) };
        };
        let images = self.clone();
        let on_end = move |outcome| match outcome {
            TeeOutcome::Complete(image) if !image.is_empty() => {
                let key = fill.key().clone();
                let image = fill.publish_for(image, fresh_for, Instant::now());
                images.store_later(key, image, fresh_for);
            }
            TeeOutcome::Failed | TeeOutcome::WrongLength { .. } => {
                drop(fill.fail(FetchError::Connection("it ended within the image".into())));
            }
            _ => drop(fill),
        };
        self.tee(fetched, on_end)
    }

    pub(crate) fn tee(&self, fetched: Fetched, on_end: impl FnOnce(TeeOutcome) + Send + Unpin + 'static) -> Image {
        let Fetched { status, length, pieces, .. } = fetched;
        let tee = Tee::new(pieces, self.mechanisms.copy_cap, length, on_end);
        Image { status, length, body: Body::Stream((self.mechanisms.deliver)(Box::pin(tee))) }
    }

    /// Writes the image to the folder in the background; refused, and counted, when enough is being written.
    pub(crate) fn store_later(&self, key: ImageKey, image: Bytes, fresh_for: Duration) {
        let store = self.store.clone();
        let work = Box::pin(async move { store.write(key, image, fresh_for).await });
        (self.mechanisms.store)(&self.background, work);
    }

    /// A stored image.
    pub(crate) fn stored(&self, image: Bytes) -> Image {
        let image = (self.mechanisms.share)(image);
        Image { status: StatusCode::OK, length: Some(image.len() as u64), body: Body::Bytes(image) }
    }
}

/// The origin's own error, where that is what failed the fill.
fn refused(error: FillError) -> ImageError {
    match error {
        FillError::Failed(error) => {
            let known = error.downcast_ref::<FetchError>().cloned();
            known.unwrap_or_else(|| FetchError::Connection(Arc::from(error.to_string()))).into()
        }
        FillError::Busy { .. } => ImageError::Busy,
        _ => FetchError::Connection("the fetch panicked".into()).into(),
    }
}
