//! Every refusal as problem details (RFC 9457).
//!
//! `type` is `urn:plimsoll:problem:<code>`, and `code` is a member of its own. A refusal from another node keeps its code, and
//! `node` names that node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::names::NodeId;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:ident;)*) => {
        /// What went wrong, as a stable code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// The code as text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Its HTTP status.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }
    };
}

codes! {
    /// The service name breaks the rules.
    BadName = "bad_name", BAD_REQUEST;
    /// A malformed frame or message.
    BadFrame = "bad_frame", BAD_REQUEST;
    /// `plimsoll-deadline-ms` is not a whole number from 1.
    BadDeadline = "bad_deadline", BAD_REQUEST;
    /// No credentials, or unknown ones.
    Unauthenticated = "unauthenticated", UNAUTHORIZED;
    /// Known, but not allowed.
    Forbidden = "forbidden", FORBIDDEN;
    /// No such path.
    NoSuchRoute = "no_such_route", NOT_FOUND;
    /// No node provides the service.
    NoProvider = "no_provider", NOT_FOUND;
    /// The path exists and does not allow the method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
    /// The request did not arrive in time.
    SlowRequest = "slow_request", REQUEST_TIMEOUT;
    /// The body is larger than the cap.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE;
    /// The service refused with a body of its own.
    ApplicationError = "application_error", UNPROCESSABLE_ENTITY;
    /// More than the rate allows; or the connection is at its cap of bytes. If the response was refused for that, the
    /// call has run, and the detail says so.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS;
    /// The header section is larger than the cap.
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// The worker panicked.
    WorkerPanicked = "worker_panicked", INTERNAL_SERVER_ERROR;
    /// The worker was killed, or ended without a reply; or its response is larger than the limit.
    WorkerDied = "worker_died", INTERNAL_SERVER_ERROR;
    /// The connection to the provider is gone; the call may have run.
    ProviderDied = "provider_died", BAD_GATEWAY;
    /// The gateway is at its cap of clients.
    MaxClientsReached = "max_clients_reached", SERVICE_UNAVAILABLE;
    /// The address prefix of the client has as many clients as one may.
    OriginFull = "origin_full", SERVICE_UNAVAILABLE;
    /// The service is at its cap of calls in flight, or all clients together are at their cap of bytes. If the
    /// response was refused for that, the call has run, and the detail says so.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE;
    /// Memory is short; new work is refused first.
    Pressure = "pressure", SERVICE_UNAVAILABLE;
    /// The node is stopping.
    ShuttingDown = "shutting_down", SERVICE_UNAVAILABLE;
    /// The deadline passed.
    Deadline = "deadline", GATEWAY_TIMEOUT;
}

/// A service's own refusal: 422, with the service's own body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("application error ({content_type}, {} bytes)", .body.len())]
pub struct ApplicationError {
    /// Media type of the body.
    pub content_type: Arc<str>,
    /// The body.
    pub body: Bytes,
}

/// A refusal or failure, as it is sent to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The stable code.
    pub code: Code,
    /// What happened and what the caller may do.
    pub detail: String,
    /// The node on which it arose.
    pub node: Option<NodeId>,
    /// When trying again makes sense (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// The service's own body; only with [`Code::ApplicationError`].
    pub application: Option<ApplicationError>,
    /// The service may have run, or has: a call that may not run twice must not simply be repeated.
    pub may_have_run: bool,
}

/// The JSON document of a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// `urn:plimsoll:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code as a title.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened.
    pub detail: String,
    /// The stable code.
    pub code: Code,
    /// The node on which it arose.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<NodeId>,
    /// Whether the service may have run; left out when it certainly did not.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub may_have_run: bool,
}

impl Problem {
    /// A problem; the codes of status 503 and 429 get a `Retry-After` of one second.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let again = matches!(code.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        let retry_after = again.then_some(Duration::from_secs(1));
        Self { code, detail: detail.into(), node: None, retry_after, application: None, may_have_run: false }
    }

    /// A service's own refusal.
    pub fn application(error: ApplicationError) -> Self {
        let mut problem = Self::new(Code::ApplicationError, "the service refused");
        problem.application = Some(error);
        problem
    }

    /// Names the node, unless an earlier one is named already.
    #[must_use]
    pub fn on(mut self, node: NodeId) -> Self {
        self.node.get_or_insert(node);
        self
    }

    /// The `problem+json` document.
    pub fn document(&self) -> Document {
        Document {
            kind: format!("urn:plimsoll:problem:{}", self.code.as_str()),
            title: self.code.as_str().replace('_', " "),
            status: self.code.status().as_u16(),
            detail: self.detail.clone(),
            code: self.code,
            node: self.node,
            may_have_run: self.may_have_run,
        }
    }

    /// The document as JSON bytes.
    pub fn to_json(&self) -> Bytes {
        serde_json::to_vec(&self.document()).map(Bytes::from).unwrap_or_default()
    }
}
