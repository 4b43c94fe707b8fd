//! Answers: from a served call, a listing or a problem to status, headers and body.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::routes::Refusal;
use crate::names::NodeId;
use crate::service::{NodeEntry, Response, ServiceEntry};

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: http::Response<()>,
    pub(super) body: Bytes,
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const PLIMSOLL_PROBLEM: HeaderName = HeaderName::from_static("plimsoll-problem");

/// Version of the listings' JSON; it rises when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

impl Answer {
    fn new(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Self {
        let mut head = http::Response::new(());
        *head.status_mut() = status;
        head.headers_mut().insert(CONTENT_TYPE, content_type);
        Self { head, body }
    }

    /// 200 with the service's own media type and body.
    pub(super) fn served(response: Response) -> Self {
        Self::new(StatusCode::OK, media_type(&response.content_type), response.body)
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
        Self::new(StatusCode::OK, JSON, body.into())
    }

    /// The problem as `problem+json`; a service's own refusal as its own body (422).
    pub(super) fn refused(refusal: Refusal, node: NodeId) -> Self {
        let Refusal { problem, allow } = refusal;
        let problem = problem.on(node);
        let status = problem.code.status();
        let mut answer = match &problem.application {
            Some(error) => {
                let mut answer = Self::new(status, media_type(&error.content_type), error.body.clone());
                let mark = HeaderValue::from_static(crate::problem::Code::ApplicationError.as_str());
                answer.head.headers_mut().insert(PLIMSOLL_PROBLEM, mark);
                answer
            }
            None => Self::new(status, PROBLEM_JSON, problem.to_json()),
        };
        if let Some(wait) = problem.retry_after {
            // Whole seconds, rounded up: nobody is to come back too early.
            let seconds = wait.as_millis().div_ceil(1000).min(u128::from(u32::MAX)) as u32;
            answer.head.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if let Some(methods) = allow {
            answer.head.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        }
        answer
    }

    /// Repeats the caller's name for its call.
    pub(super) fn with_call_id(mut self, call_id: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(call_id) {
            self.head.headers_mut().insert(HeaderName::from_static("plimsoll-call-id"), value);
        }
        self
    }
}

fn media_type(text: &str) -> HeaderValue {
    match text {
        "application/octet-stream" => OCTETS,
        "application/json" => JSON,
        other => HeaderValue::from_str(other).unwrap_or(OCTETS),
    }
}
