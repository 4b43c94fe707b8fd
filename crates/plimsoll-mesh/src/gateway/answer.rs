//! Answers: from a served call, a listing or a problem to status, headers and body.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use super::routes::Refusal;
use crate::http3::SendStream;
use crate::names::NodeId;
use crate::problem::Code;
use crate::pubsub::Reached;
use crate::service::{NodeEntry, Response, ServiceEntry};

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    content_type: MediaType,
    /// Further header fields; few answers have any.
    fields: Vec<(&'static str, String)>,
    body: Bytes,
}

#[derive(Debug)]
enum MediaType {
    Ours(&'static str),
    Theirs(Arc<str>),
}

/// Version of the listings' JSON; it rises when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

/// The field that names a call.
const CALL_ID: &str = "plimsoll-call-id";

impl Answer {
    fn new(status: StatusCode, content_type: MediaType, body: Bytes) -> Self {
        Self { status, content_type, fields: Vec::new(), body }
    }

    /// A status that says all.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self::new(status, MediaType::Ours(""), Bytes::new())
    }

    /// 200 with the service's own media type and body.
    pub(super) fn served(response: Response) -> Self {
        Self::new(StatusCode::OK, MediaType::Theirs(response.content_type), response.body)
    }

    /// How many a message reached, as JSON.
    pub(super) fn published(reached: Reached) -> Self {
        #[derive(Serialize)]
        struct Published {
            schema: u32,
            reached: usize,
            cut_off: usize,
        }
        let Reached { reached, cut_off } = reached;
        Self::listing(&Published { schema: SCHEMA, reached, cut_off })
    }

    /// The services as JSON.
    pub(super) fn services(services: &[ServiceEntry]) -> Self {
        #[derive(Serialize)]
        struct Listing<'a> {
            schema: u32,
            services: &'a [ServiceEntry],
        }
        Self::listing(&Listing { schema: SCHEMA, services })
    }

    /// The nodes as JSON.
    pub(super) fn nodes(nodes: &[NodeEntry]) -> Self {
        #[derive(Serialize)]
        struct Listing<'a> {
            schema: u32,
            nodes: &'a [NodeEntry],
        }
        Self::listing(&Listing { schema: SCHEMA, nodes })
    }

    fn listing(listing: &impl Serialize) -> Self {
        // Plain structs of strings and numbers: serialising them cannot fail.
        let body = serde_json::to_vec(listing).unwrap_or_default();
        Self::new(StatusCode::OK, MediaType::Ours("application/json"), body.into())
    }

    /// The problem as `problem+json`; a service's own refusal as its own body (422).
    pub(super) fn refused(refusal: Refusal, node: NodeId) -> Self {
        let Refusal { problem, allow } = refusal;
        let problem = problem.on(node);
        let status = problem.code.status();
        let mut answer = match problem.application.clone() {
            Some(error) => {
                let mut answer = Self::new(status, MediaType::Theirs(error.content_type), error.body);
                answer.fields.push(("plimsoll-problem", Code::ApplicationError.as_str().to_owned()));
                answer
            }
            None => Self::new(status, MediaType::Ours("application/problem+json"), problem.to_json()),
        };
        if let Some(wait) = problem.retry_after {
            // Whole seconds, rounded up: nobody is to come back too early.
            answer.fields.push(("retry-after", wait.as_millis().div_ceil(1000).to_string()));
        }
        if let Some(methods) = allow {
            answer.fields.push(("allow", methods.to_owned()));
        }
        answer
    }

    /// Repeats the caller's name for its call.
    pub(super) fn with_call_id(mut self, call_id: &str) -> Self {
        self.fields.push((CALL_ID, call_id.to_owned()));
        self
    }

    /// Repeats what another answer of the same call repeats.
    pub(super) fn in_place_of(mut self, other: Self) -> Self {
        self.fields.extend(other.fields.into_iter().filter(|(name, _)| *name == CALL_ID));
        self
    }

    /// The bytes of its body.
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }

    /// Sends the answer and ends the stream.
    ///
    /// Not cancel safe: the stream must be dropped then, which resets it.
    pub(super) async fn send(self, stream: &mut SendStream) -> Result<(), quinn::WriteError> {
        let Self { status, content_type, fields, body } = self;
        stream.answer(status, content_type.as_str(), &fields, body).await
    }
}

impl MediaType {
    /// What a service calls its body, if it can stand in a header.
    fn as_str(&self) -> &str {
        match self {
            Self::Ours(text) => text,
            Self::Theirs(text) if is_plain(text) => text,
            Self::Theirs(_) => "application/octet-stream",
        }
    }
}

/// A media type of a service must not smuggle anything else into the head, nor fill it.
fn is_plain(text: &str) -> bool {
    (1..=256).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}
