//! The mechanisms that the proxy is composed of. A build with controls composes it without one of them, to show what each is
//! for.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::Response;
use hyper::body::Incoming;
use plimsoll::bounded::{ByteCap, Cap, TaskPool};
use plimsoll::call::{CallClient, CallError};

use crate::images::{Image, ImageError, ImageRequest, Images};
use crate::key::ImageKey;
use crate::origin::{FetchError, Lease};
use crate::settings::Settings;

pub(crate) type Pieces = BoxStream<'static, Result<Bytes, FetchError>>;

type CallResult = Result<Image, CallError<ImageError>>;

/// What is done in which way.
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
