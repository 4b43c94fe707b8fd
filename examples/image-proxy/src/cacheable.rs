//! Whether a response may be stored, and for how long (RFC 9111, as a shared cache).

use std::time::{Duration, SystemTime};

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, EXPIRES, PRAGMA, TRANSFER_ENCODING, VARY};
use http::{HeaderMap, Request, Response, StatusCode};
use http_cache_semantics::CachePolicy;

/// How long a response to `request` may be served from a store: what it says itself, at most `longest`, and `longest` where
/// it says nothing. `None` when it must not be stored.
///
/// Only a 200 is stored, and only if its end can be told from a connection that broke: a body that is ended by the close of
/// its connection may be incomplete.
pub(crate) fn time_to_live<A, B>(request: &Request<A>, response: &Response<B>, longest: Duration) -> Option<Duration> {
    let headers = response.headers();
    let varies_always = headers.get_all(VARY).iter().any(|value| value.as_bytes().contains(&b'*'));
    if response.status() != StatusCode::OK || !has_framed_end(headers) || varies_always {
        return None;
    }
    let policy = CachePolicy::new(request, response);
    if !policy.is_storable() {
        return None;
    }
    let explicit = [CACHE_CONTROL, EXPIRES, PRAGMA].iter().any(|name| headers.contains_key(name));
    let time =
        if explicit && says_how_long(headers) { policy.time_to_live(SystemTime::now()).min(longest) } else { longest };
    (!time.is_zero()).then_some(time)
}

/// Whether the end of the body is part of the message: by its length or its last chunk.
fn has_framed_end(headers: &HeaderMap) -> bool {
    let chunked =
        |value: &http::HeaderValue| value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("chunked"));
    headers.contains_key(CONTENT_LENGTH) || headers.get_all(TRANSFER_ENCODING).iter().any(chunked)
}

/// Whether a header limits how long the response is fresh; `public` alone does not.
fn says_how_long(headers: &HeaderMap) -> bool {
    if headers.contains_key(EXPIRES) || headers.contains_key(PRAGMA) {
        return true;
    }
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives =
        values.flat_map(|value| value.split(',')).map(|directive| directive.trim().to_ascii_lowercase());
    directives.any(|directive| ["max-age", "s-maxage", "no-cache"].iter().any(|limit| directive.starts_with(limit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// In seconds, rounded up: a part of the first has passed.
    fn stored(status: u16, headers: &[(&str, &str)]) -> Option<u64> {
        let request = Request::get("/tenant/image").body(()).unwrap();
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        time_to_live(&request, &response.body(()).unwrap(), HOUR).map(|time| time.as_secs_f64().ceil() as u64)
    }

    /// RFC 9111, 3 and 4.2: what is stored, and for how long.
    #[test]
    fn only_complete_cacheable_responses_are_stored() {
        let length = ("content-length", "4");
        assert_eq!(stored(200, &[length]), Some(3600));
        assert_eq!(stored(200, &[("transfer-encoding", "chunked")]), Some(3600));
        assert_eq!(stored(200, &[length, ("cache-control", "public")]), Some(3600));
        assert_eq!(stored(200, &[length, ("cache-control", "max-age=60")]), Some(60));
        assert_eq!(stored(200, &[length, ("cache-control", "max-age=999999")]), Some(3600));
        assert_eq!(stored(200, &[length, ("cache-control", "max-age=60, s-maxage=5")]), Some(5));
        assert_eq!(stored(200, &[length, ("cache-control", "max-age=60"), ("age", "20")]), Some(40));
        assert_eq!(stored(200, &[length, ("vary", "accept")]), Some(3600));
        assert_eq!(stored(200, &[]), None, "its end is the end of the connection");
        for status in [201, 202, 203, 204, 206, 300, 301, 404, 500] {
            assert_eq!(stored(status, &[length]), None, "{status}");
        }
        for refused in ["no-store", "private", "no-cache", "max-age=0", "s-maxage=0, max-age=60"] {
            assert_eq!(stored(200, &[length, ("cache-control", refused)]), None, "{refused}");
        }
        assert_eq!(stored(200, &[length, ("cache-control", "max-age=60"), ("age", "60")]), None);
        assert_eq!(stored(200, &[length, ("expires", "Thu, 01 Jan 1970 00:00:00 GMT")]), None);
        assert_eq!(stored(200, &[length, ("vary", "*")]), None);
    }
}
