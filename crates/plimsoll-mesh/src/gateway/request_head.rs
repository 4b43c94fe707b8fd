//! The head of a request: which route it takes, and which heads are rejected.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, IF_NONE_MATCH};
use http::{HeaderMap, Method, request};

use super::limits::Limits;
use super::response::HttpProblem;
use crate::names::ServiceName;
use crate::problem::{Code, Problem};
use crate::pubsub::{Filter, Topic};

/// The route of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `POST /v1/call/{service}`
    Call(CallHead),
    /// `POST /v1/publish/{topic}`
    Publish(PublishHead),
    /// `GET /v1/subscribe/{filter}`
    Subscribe(Filter),
    /// `GET /v1/services`, with the `if-none-match` of the client.
    Services(Option<Arc<str>>),
    /// `PUT` and `DELETE /v1/services/{name}`
    Advertisement(ServiceName, AdvertisementChange),
    /// `GET /v1/nodes`, with the `if-none-match` of the client.
    Nodes(Option<Arc<str>>),
}

impl Route {
    /// The announced length of the body, if the route uses a body.
    pub(super) fn content_length(&self) -> Option<usize> {
        match self {
            Self::Call(head) => head.content_length,
            Self::Publish(head) => head.content_length,
            _ => None,
        }
    }
}

/// The head of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallHead {
    pub(super) service: ServiceName,
    /// From the arrival of the head.
    pub(super) deadline: Duration,
    pub(super) call_id: Option<Arc<str>>,
    pub(super) traceparent: Option<Arc<str>>,
    pub(super) content_type: Option<Arc<str>>,
    pub(super) content_length: Option<usize>,
}

/// The head of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublishHead {
    pub(super) topic: Topic,
    pub(super) content_type: Option<Arc<str>>,
    pub(super) content_length: Option<usize>,
}

/// What is to happen to an advertisement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AdvertisementChange {
    /// Begin or refresh its lease.
    Advertise {
        /// The requested lease.
        ttl: Option<Duration>,
    },
    /// End its lease.
    Withdraw,
}

/// The longest call id that is passed on. Trace context is 55 bytes (W3C, version 00).
const MAX_ID: usize = 128;
/// The longest media type that is passed on, as in a response; a longer one is left out.
const MAX_MEDIA_TYPE: usize = 256;
/// The longest list of entity tags that is compared.
const MAX_ENTITY_TAGS: usize = 256;

/// Finds the route of `head`.
///
/// # Errors
/// The problem for the client: over a header limit, no such route, wrong method, or a head that breaks the route's rules.
pub(super) fn route(head: &request::Parts, limits: &Limits) -> Result<Route, HttpProblem> {
    check_header_size(&head.headers, limits)?;
    let path = head.uri.path();
    match path {
        "/v1/services" => only(&Method::GET, &head.method).map(|()| Route::Services(if_none_match(&head.headers))),
        "/v1/nodes" => only(&Method::GET, &head.method).map(|()| Route::Nodes(if_none_match(&head.headers))),
        _ => named_route(path, head, limits),
    }
}

/// The routes whose last segment is a name.
fn named_route(path: &str, head: &request::Parts, limits: &Limits) -> Result<Route, HttpProblem> {
    let mut parts = path.rsplitn(2, '/');
    let name = parts.next().unwrap_or_default();
    match parts.next() {
        Some("/v1/call") => {
            only(&Method::POST, &head.method)?;
            Ok(Route::Call(call_head(name, &head.headers, limits)?))
        }
        Some("/v1/publish") => {
            only(&Method::POST, &head.method)?;
            Ok(Route::Publish(publish_head(name, &head.headers, limits)?))
        }
        Some("/v1/subscribe") => {
            only(&Method::GET, &head.method)?;
            Ok(Route::Subscribe(name.parse().map_err(bad_name)?))
        }
        Some("/v1/services") if !name.is_empty() => advertisement(name, head),
        _ => Err(Problem::new(Code::NoSuchRoute, "no such path").into()),
    }
}

fn advertisement(name: &str, head: &request::Parts) -> Result<Route, HttpProblem> {
    let change = match head.method {
        Method::PUT => {
            AdvertisementChange::Advertise { ttl: millis(&head.headers, "plimsoll-ttl-ms", Code::BadFrame)? }
        }
        Method::DELETE => AdvertisementChange::Withdraw,
        _ => {
            let problem = Problem::new(Code::MethodNotAllowed, "this path takes PUT and DELETE only");
            return Err(HttpProblem { problem, allow: Some("PUT, DELETE") });
        }
    };
    Ok(Route::Advertisement(name.parse().map_err(bad_name)?, change))
}

fn only(allowed: &'static Method, given: &Method) -> Result<(), HttpProblem> {
    if given == allowed {
        return Ok(());
    }
    let problem = Problem::new(Code::MethodNotAllowed, format!("this path takes {allowed} only"));
    Err(HttpProblem { problem, allow: Some(allowed.as_str()) })
}

fn check_header_size(headers: &HeaderMap, limits: &Limits) -> Result<(), Problem> {
    const FIELD_OVERHEAD: usize = 32;
    let (mut fields, mut bytes) = (0, 0);
    for (name, value) in headers {
        fields += 1;
        bytes += name.as_str().len() + value.len() + FIELD_OVERHEAD;
    }
    if fields > limits.header_fields {
        let detail = format!("{fields} header fields, at most {} are allowed", limits.header_fields);
        return Err(Problem::new(Code::HeadersTooLarge, detail));
    }
    if bytes > limits.header_bytes {
        let detail = format!("a header section of {bytes} bytes, at most {} are allowed", limits.header_bytes);
        return Err(Problem::new(Code::HeadersTooLarge, detail));
    }
    Ok(())
}

fn call_head(service: &str, headers: &HeaderMap, limits: &Limits) -> Result<CallHead, Problem> {
    let service = service.parse().map_err(bad_name)?;
    let content_length = content_length(headers, limits)?;
    Ok(CallHead {
        service,
        deadline: deadline(headers, limits)?,
        call_id: call_id(headers)?,
        // A broken trace context is dropped, not refused (W3C Trace Context, 3.2.2.3).
        traceparent: visible(headers.get("traceparent"), MAX_ID),
        content_type: visible(headers.get(CONTENT_TYPE), MAX_MEDIA_TYPE),
        content_length,
    })
}

fn publish_head(topic: &str, headers: &HeaderMap, limits: &Limits) -> Result<PublishHead, Problem> {
    let topic = topic.parse().map_err(bad_name)?;
    let content_length = content_length(headers, limits)?;
    Ok(PublishHead { topic, content_type: visible(headers.get(CONTENT_TYPE), MAX_MEDIA_TYPE), content_length })
}

/// The entity tags of a client. One that is too long is left out: the client gets the whole body.
fn if_none_match(headers: &HeaderMap) -> Option<Arc<str>> {
    visible(headers.get(IF_NONE_MATCH), MAX_ENTITY_TAGS)
}

fn bad_name(error: impl std::error::Error) -> Problem {
    Problem::new(Code::BadName, error.to_string())
}

pub(super) fn body_too_large(limits: &Limits) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("the body is larger than {} bytes", limits.body_bytes))
}

fn deadline(headers: &HeaderMap, limits: &Limits) -> Result<Duration, Problem> {
    let requested = millis(headers, "plimsoll-deadline-ms", Code::BadDeadline)?;
    Ok(requested.map_or(limits.deadline, |requested| requested.min(limits.longest_deadline)))
}

/// A whole number from 1; digits only, so no sign, no space, no exponent.
fn millis(headers: &HeaderMap, name: &'static str, code: Code) -> Result<Option<Duration>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    match digits {
        Some(digits) if values.next().is_none() && digits.bytes().any(|b| b != b'0') => {
            // A number that does not fit is clamped by every caller.
            Ok(Some(Duration::from_millis(digits.parse().unwrap_or(u64::MAX))))
        }
        _ => Err(Problem::new(code, format!("{name} must be a whole number of milliseconds from 1"))),
    }
}

fn call_id(headers: &HeaderMap) -> Result<Option<Arc<str>>, Problem> {
    let mut values = headers.get_all("plimsoll-call-id").iter();
    let Some(value) = values.next() else { return Ok(None) };
    match visible(Some(value), MAX_ID) {
        Some(id) if !id.is_empty() && values.next().is_none() => Ok(Some(id)),
        _ => {
            let detail = format!("plimsoll-call-id must occur once, with 1 to {MAX_ID} visible ASCII characters");
            Err(Problem::new(Code::BadFrame, detail))
        }
    }
}

/// The announced length of the body, which is within the cap.
fn content_length(headers: &HeaderMap, limits: &Limits) -> Result<Option<usize>, Problem> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.any(|other| other != value) {
        // An intermediary may have used the other one (RFC 9110, 8.6).
        return Err(Problem::new(Code::BadFrame, "content-length occurs twice with different values"));
    }
    let digits = value.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    match digits.map(|digits| digits.parse().unwrap_or(usize::MAX)) {
        Some(length) if length > limits.body_bytes => Err(body_too_large(limits)),
        Some(length) => Ok(Some(length)),
        None => Err(Problem::new(Code::BadFrame, "content-length is not a number")),
    }
}

/// The value as text, if it is short and plain enough to be passed on.
fn visible(value: Option<&http::HeaderValue>, max: usize) -> Option<Arc<str>> {
    let text = value?.to_str().ok()?;
    (text.len() <= max).then(|| text.into())
}

/// The first field of `headers` that is specific to an HTTP/1.1 connection: a request that has one is malformed
/// (RFC 9114, 4.2). Such fields are never ignored, because an intermediary may take one for the end of a message or for an
/// agreement with the next hop.
pub(super) fn connection_specific_field(headers: &HeaderMap) -> Option<&str> {
    let is_specific = |(name, value): (&'_ http::HeaderName, &http::HeaderValue)| match name.as_str() {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => true,
        // The only value that a client may send (RFC 9110, 10.1.4).
        "te" => !value.as_bytes().eq_ignore_ascii_case(b"trailers"),
        _ => false,
    };
    headers.iter().find(|&field| is_specific(field)).map(|(name, _)| name.as_str())
}

#[cfg(test)]
mod tests;
