//! Responses: from a served call, a listing or a problem to status, header fields and body.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use crate::http3::SendStream;
use crate::names::NodeId;
use crate::problem::{Code, Problem};
use crate::pubsub::Published;
use crate::service::{NodeEntry, Response, ServiceEntry};

/// A whole response.
#[derive(Debug)]
pub(super) struct HttpResponse {
    status: StatusCode,
    content_type: MediaType,
    /// Further header fields; few responses have any.
    fields: Vec<(&'static str, String)>,
    body: Bytes,
}

#[derive(Debug)]
enum MediaType {
    /// Set by the gateway.
    Gateway(&'static str),
    /// Set by a service.
    Service(Arc<str>),
}

/// A problem, and the methods that the path does allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problem.detail)]
pub(super) struct HttpProblem {
    pub(super) problem: Problem,
    pub(super) allow: Option<&'static str>,
}

impl From<Problem> for HttpProblem {
    fn from(problem: Problem) -> Self {
        Self { problem, allow: None }
    }
}

/// Version of the listings' JSON; it rises when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

/// The field with the id of a call.
const CALL_ID: &str = "plimsoll-call-id";

impl HttpResponse {
    fn new(status: StatusCode, content_type: MediaType, body: Bytes) -> Self {
        Self { status, content_type, fields: Vec::new(), body }
    }

    /// A status without a body.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self::new(status, MediaType::Gateway(""), Bytes::new())
    }

    /// 200 with the service's own media type and body.
    pub(super) fn served(response: Response) -> Self {
        Self::new(StatusCode::OK, MediaType::Service(response.content_type), response.body)
    }

    /// How many subscribers a message reached, as JSON.
    pub(super) fn published(published: Published) -> Self {
        #[derive(Serialize)]
        struct Document {
            schema: u32,
            reached: usize,
            cut_off: usize,
        }
        let Published { reached, cut_off } = published;
        Self::listing(json(&Document { schema: SCHEMA, reached, cut_off }))
    }

    /// The services as JSON, for a listing.
    pub(super) fn services(services: &[ServiceEntry]) -> Bytes {
        #[derive(Serialize)]
        struct Listing<'a> {
            schema: u32,
            services: &'a [ServiceEntry],
        }
        json(&Listing { schema: SCHEMA, services })
    }

    /// The nodes as JSON, for a listing.
    pub(super) fn nodes(nodes: &[NodeEntry]) -> Bytes {
        #[derive(Serialize)]
        struct Listing<'a> {
            schema: u32,
            nodes: &'a [NodeEntry],
        }
        json(&Listing { schema: SCHEMA, nodes })
    }

    /// A body of JSON.
    pub(super) fn listing(body: Bytes) -> Self {
        Self::new(StatusCode::OK, MediaType::Gateway("application/json"), body)
    }

    /// Adds an entity tag.
    pub(super) fn with_etag(mut self, etag: &str) -> Self {
        self.fields.push(("etag", etag.to_owned()));
        self
    }

    /// The problem as `problem+json`; a service's own refusal as its own body (422).
    pub(super) fn problem(problem: HttpProblem, node: NodeId) -> Self {
        let HttpProblem { problem, allow } = problem;
        let problem = problem.on(node);
        let status = problem.code.status();
        let mut response = match problem.application.clone() {
            Some(error) => {
                let mut response = Self::new(status, MediaType::Service(error.content_type), error.body);
                response.fields.push(("plimsoll-problem", Code::ApplicationError.as_str().to_owned()));
                response
            }
            None => Self::new(status, MediaType::Gateway("application/problem+json"), problem.to_json()),
        };
        if let Some(wait) = problem.retry_after {
            // Whole seconds, rounded up, so that no client retries too early.
            response.fields.push(("retry-after", wait.as_millis().div_ceil(1000).to_string()));
        }
        if let Some(methods) = allow {
            response.fields.push(("allow", methods.to_owned()));
        }
        response
    }

    /// Repeats the call id that the caller gave.
    pub(super) fn with_call_id(mut self, call_id: &str) -> Self {
        self.fields.push((CALL_ID, call_id.to_owned()));
        self
    }

    /// Repeats the call id of another response to the same call.
    pub(super) fn with_call_id_of(mut self, other: Self) -> Self {
        self.fields.extend(other.fields.into_iter().filter(|(name, _)| *name == CALL_ID));
        self
    }

    /// The bytes of its body.
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }

    /// Sends the response and finishes the stream.
    ///
    /// Not cancel safe: drop the stream then, which resets it.
    pub(super) async fn send(self, stream: &mut SendStream) -> Result<(), quinn::WriteError> {
        let Self { status, content_type, fields, body } = self;
        stream.send_response(status, content_type.as_str(), &fields, body).await
    }
}

fn json(document: &impl Serialize) -> Bytes {
    // Plain structs of strings and numbers: serialising them cannot fail.
    serde_json::to_vec(document).map(Bytes::from).unwrap_or_default()
}

impl MediaType {
    /// The media type, if it is valid in a header field.
    fn as_str(&self) -> &str {
        match self {
            Self::Gateway(text) => text,
            Self::Service(text) if is_plain(text) => text,
            Self::Service(_) => "application/octet-stream",
        }
    }
}

/// The media type of a service must not add other fields to the head, nor fill it.
fn is_plain(text: &str) -> bool {
    (1..=256).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}
