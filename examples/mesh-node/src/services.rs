//! The built-in services.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use plimsoll::call::{CallContext, Service};
use plimsoll_mesh::node::Offer;
use plimsoll_mesh::service::{ApplicationError, Request, Response};

/// A built-in service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builtin {
    /// Returns the body.
    Echo,
    /// The time, RFC 3339, UTC.
    Time,
    /// A response after the number of milliseconds in the body.
    Sleep,
    /// A panic with the body as its message.
    Crash,
    /// The body's SHA-256 in hexadecimal.
    Hash,
}

impl Builtin {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Echo, Self::Time, Self::Sleep, Self::Crash, Self::Hash];

    /// The name under which it is called.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Time => "time",
            Self::Sleep => "sleep",
            Self::Crash => "crash",
            Self::Hash => "hash",
        }
    }

    /// Arguments of `call` for a first call.
    pub(crate) const fn example(self) -> &'static str {
        match self {
            Self::Echo => "echo hello",
            Self::Time => "time",
            Self::Sleep => "sleep 100",
            Self::Crash => "crash 'out of range'",
            Self::Hash => "hash hello",
        }
    }

    /// Whether a call that may have run already may run again.
    pub(crate) const fn idempotent(self) -> bool {
        !matches!(self, Self::Sleep | Self::Crash)
    }

    /// The service as a node offers it.
    pub(crate) fn offer(self, max_in_flight: u32, deadline: Duration) -> Offer<Self> {
        // The names above are valid, which a test checks.
        let name = self.name().parse().unwrap_or_else(|error| unreachable!("{error}"));
        Offer::new(name, self)
            .idempotent(self.idempotent())
            .limits(move |server| server.max_in_flight(max_in_flight).deadline(deadline))
    }

    async fn respond(self, request: Request) -> Result<Response, ApplicationError> {
        match self {
            Self::Echo => {
                let content_type = request.content_type.unwrap_or_else(|| "application/octet-stream".into());
                Ok(Response { content_type, body: request.body })
            }
            Self::Time => Ok(text(format!("{:.3}", jiff::Timestamp::now()))),
            Self::Hash => {
                let digest = ring::digest::digest(&ring::digest::SHA256, &request.body);
                Ok(text(hex::encode(digest)))
            }
            Self::Sleep => {
                let wanted = std::str::from_utf8(&request.body).ok().and_then(|body| body.trim().parse().ok());
                let Some(milliseconds) = wanted else {
                    let Response { content_type, body } = text("the body must be a whole number of milliseconds");
                    return Err(ApplicationError { content_type, body });
                };
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                Ok(text(format!("slept {milliseconds} ms")))
            }
            Self::Crash => panic!("{}", String::from_utf8_lossy(&request.body)),
        }
    }
}

impl Service for Builtin {
    type Request = Request;
    type Reply = Response;
    type Error = ApplicationError;

    async fn call(&self, _: CallContext, request: Request) -> Result<Response, ApplicationError> {
        self.respond(request).await
    }
}

fn text(body: impl Into<Bytes>) -> Response {
    Response { content_type: "text/plain; charset=utf-8".into(), body: body.into() }
}

impl FromStr for Builtin {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|service| service.name() == name)
            .ok_or_else(|| format!("the built-in services are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

impl fmt::Display for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_valid_and_read_back() {
        for service in Builtin::ALL {
            assert_eq!(service.name().parse(), Ok(service));
            assert_eq!(service.example().split(' ').next(), Some(service.name()));
            let _ = service.offer(1, Duration::from_secs(1));
        }
    }

    /// RFC 3339, UTC, to the millisecond; now.
    #[tokio::test]
    async fn the_time_is_written_as_in_rfc_3339() {
        let request = Request {
            service: "time".parse().unwrap(),
            body: Bytes::new(),
            content_type: None,
            deadline: std::time::Instant::now() + Duration::from_secs(5),
            call_id: "test".into(),
            traceparent: None,
            caller: plimsoll_mesh::service::Caller::Client(0),
        };
        let before = jiff::Timestamp::now().as_millisecond();
        let response = Builtin::Time.respond(request).await.unwrap();
        let after = jiff::Timestamp::now().as_millisecond();
        let text = String::from_utf8(response.body.to_vec()).unwrap();
        let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
        let time = text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
        assert!((before..=after).contains(&time), "{before} {text} {after}");
    }
}
