//! A service that a node offers.

use std::fmt;
use std::sync::Arc;

use plimsoll::call::{CallServer, CallServerBuilder, Service};
use plimsoll::supervisor::ChildSpec;

use crate::names::ServiceName;
use crate::service::{ApplicationError, Request, Response};
use crate::services::{self, ServiceTable};

type Spec = Arc<dyn Fn(ServiceTable) -> ChildSpec + Send + Sync>;

/// A service with its name and its limits.
///
/// ```
/// use plimsoll::call::{CallContext, Service};
/// use plimsoll_mesh::node::Offer;
/// use plimsoll_mesh::service::{ApplicationError, Request, Response};
///
/// struct Echo;
///
/// impl Service for Echo {
///     type Request = Request;
///     type Reply = Response;
///     type Error = ApplicationError;
///
///     async fn call(&self, _: CallContext, request: Request) -> Result<Response, ApplicationError> {
///         Ok(Response { content_type: "text/plain".into(), body: request.body })
///     }
/// }
///
/// let offer = Offer::new("echo".parse()?, Echo).idempotent(true).limits(|server| server.max_in_flight(100));
/// # Ok::<(), plimsoll_mesh::names::InvalidName>(())
/// ```
#[must_use = "an offer does nothing until it is given to a node"]
pub struct Offer<S: Service> {
    name: ServiceName,
    idempotent: bool,
    service: Arc<S>,
    limits: Limits<S>,
}

type Limits<S> = Arc<dyn Fn(CallServerBuilder<Arc<S>>) -> CallServerBuilder<Arc<S>> + Send + Sync>;

/// An offer whose service's type is forgotten.
#[derive(Clone)]
pub(super) struct AnyOffer {
    pub(super) name: ServiceName,
    spec: Spec,
}

impl<S> Offer<S>
where
    S: Service<Request = Request, Reply = Response, Error = ApplicationError>,
{
    /// Offers `service` under `name`, with the call server's default limits; a call may not run twice.
    pub fn new(name: ServiceName, service: S) -> Self {
        Self { name, idempotent: false, service: Arc::new(service), limits: Arc::new(|server| server) }
    }

    /// Whether a call may run twice: then one whose provider died is tried elsewhere. Default: no.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Sets the limits of its call server.
    pub fn limits(
        mut self,
        limits: impl Fn(CallServerBuilder<Arc<S>>) -> CallServerBuilder<Arc<S>> + Send + Sync + 'static,
    ) -> Self {
        self.limits = Arc::new(limits);
        self
    }

    pub(super) fn forget(self) -> AnyOffer {
        let Self { name, idempotent, service, limits } = self;
        let known_as = name.clone();
        let spec: Spec = Arc::new(move |services| {
            let (id, name) = (name.clone(), name.clone());
            let (service, limits) = (Arc::clone(&service), Arc::clone(&limits));
            ChildSpec::new(id.as_str(), move |parent| {
                let server = limits(CallServer::builder(Arc::clone(&service)));
                let (services, name) = (services.clone(), name.clone());
                async move { services::provide(&services, name, idempotent, server, parent).await }
            })
        });
        AnyOffer { name: known_as, spec }
    }
}

impl AnyOffer {
    /// The call server as a child of the services' supervisor.
    pub(super) fn spec(&self, services: ServiceTable) -> ChildSpec {
        (self.spec)(services)
    }
}

impl<S: Service> fmt::Debug for Offer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("name", &self.name).field("idempotent", &self.idempotent).finish_non_exhaustive()
    }
}

impl fmt::Debug for AnyOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyOffer").field("name", &self.name).finish_non_exhaustive()
    }
}
