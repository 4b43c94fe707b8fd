//! Header fields that HTTP/3 does not know: a request that has one is malformed (RFC 9114, 4.2).

use http::HeaderMap;

/// The first field of `headers` that speaks of a connection of HTTP/1.1. What somebody else may take for the end of a
/// message, or for an agreement with the next hop, is never passed over in silence.
pub(super) fn of_another_version(headers: &HeaderMap) -> Option<&str> {
    let of_another = |(name, value): (&'_ http::HeaderName, &http::HeaderValue)| match name.as_str() {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => true,
        // The one thing that a client may say about transfer codings (RFC 9110, 10.1.4).
        "te" => !value.as_bytes().eq_ignore_ascii_case(b"trailers"),
        _ => false,
    };
    headers.iter().find(|&field| of_another(field)).map(|(name, _)| name.as_str())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn fields_of_a_connection_are_found_whatever_stands_beside_them() {
        for (name, value, found) in [
            ("connection", "close", true),
            ("connection", "", true),
            ("keep-alive", "timeout=5", true),
            ("proxy-connection", "keep-alive", true),
            ("transfer-encoding", "chunked", true),
            ("transfer-encoding", "identity", true),
            ("upgrade", "h2c", true),
            ("te", "trailers", false),
            ("te", "Trailers", false),
            ("te", "gzip", true),
            ("te", "trailers, deflate", true),
            ("trailer", "expires", false),
            ("connections", "close", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("accept", HeaderValue::from_static("*/*"));
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            assert_eq!(of_another_version(&headers), found.then_some(name), "{name}: {value}");
        }
        let mut twice = HeaderMap::new();
        twice.append("te", HeaderValue::from_static("trailers"));
        twice.append("te", HeaderValue::from_static("gzip"));
        assert_eq!(of_another_version(&twice), Some("te"));
    }
}
