use http::Request;

use super::*;

fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut builder = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn refused(method: &str, uri: &str, headers: &[(&str, &str)]) -> (Code, Option<&'static str>) {
    let refusal = route(&head(method, uri, headers), &Limits::default()).unwrap_err();
    (refusal.problem.code, refusal.allow)
}

fn call(headers: &[(&str, &str)]) -> CallHead {
    match route(&head("POST", "https://node/v1/call/echo", headers), &Limits::default()) {
        Ok(Route::Call(call)) => call,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_without_headers_gets_the_defaults() {
    let call = call(&[]);
    assert_eq!(call.service.as_str(), "echo");
    assert_eq!(call.deadline, Duration::from_secs(5));
    assert_eq!((call.call_id, call.traceparent, call.content_type, call.content_length), (None, None, None, None));
}

#[test]
fn a_call_carries_its_headers() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let call = call(&[
        ("plimsoll-deadline-ms", "250"),
        ("plimsoll-call-id", "order-7"),
        ("traceparent", trace),
        ("content-type", "text/plain"),
        ("content-length", "12"),
    ]);
    assert_eq!(call.deadline, Duration::from_millis(250));
    assert_eq!(call.call_id.as_deref(), Some("order-7"));
    assert_eq!(call.traceparent.as_deref(), Some(trace));
    assert_eq!(call.content_type.as_deref(), Some("text/plain"));
    assert_eq!(call.content_length, Some(12));
}

#[test]
fn a_long_deadline_is_clamped_and_a_wrong_one_refused() {
    for (given, taken) in
        [("1", 1), ("60000", 60_000), ("60001", 60_000), ("99999999999999999999999", 60_000), ("0005", 5)]
    {
        assert_eq!(call(&[("plimsoll-deadline-ms", given)]).deadline, Duration::from_millis(taken), "{given}");
    }
    for wrong in ["0", "00", "", "-1", "+1", "1.5", "1e3", " 1", "5s", "٣"] {
        let refusal = refused("POST", "https://node/v1/call/echo", &[("plimsoll-deadline-ms", wrong)]);
        assert_eq!(refusal, (Code::BadDeadline, None), "{wrong:?}");
    }
    let twice = [("plimsoll-deadline-ms", "5"), ("plimsoll-deadline-ms", "6")];
    assert_eq!(refused("POST", "https://node/v1/call/echo", &twice).0, Code::BadDeadline);
}

#[test]
fn a_service_name_that_breaks_the_rules_is_refused() {
    for name in ["", "Echo", "-echo", "ec%68o", "e c", "é", &"x".repeat(129)] {
        let uri = format!("https://node/v1/call/{}", name.replace(' ', "%20").replace('é', "%C3%A9"));
        assert_eq!(refused("POST", &uri, &[]), (Code::BadName, None), "{name:?}");
    }
}

#[test]
fn there_is_nothing_elsewhere() {
    for path in
        ["/", "/v1", "/v1/call", "/v1/call/a/b", "/v1/services/", "/v1/admin/snapshot", "/v2/nodes", "//v1/nodes"]
    {
        assert_eq!(refused("GET", &format!("https://node{path}"), &[]), (Code::NoSuchRoute, None), "{path}");
    }
}

#[test]
fn another_method_is_refused_with_the_one_that_fits() {
    assert_eq!(refused("GET", "https://node/v1/call/echo", &[]), (Code::MethodNotAllowed, Some("POST")));
    assert_eq!(refused("POST", "https://node/v1/services", &[]), (Code::MethodNotAllowed, Some("GET")));
    assert_eq!(refused("DELETE", "https://node/v1/nodes?x=1", &[]), (Code::MethodNotAllowed, Some("GET")));
}

#[test]
fn an_advertisement_has_a_name_and_may_have_a_lease() {
    let advertise = |headers: &[(&str, &str)]| {
        let head = head("PUT", "https://node/v1/services/resize", headers);
        match route(&head, &Limits::default()) {
            Ok(Route::Advertisement(name, change)) => (name.to_string(), change),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(advertise(&[]), ("resize".into(), AdvertisementChange::Advertise { ttl: None }));
    let ttl = Some(Duration::from_secs(5));
    assert_eq!(advertise(&[("plimsoll-ttl-ms", "5000")]).1, AdvertisementChange::Advertise { ttl });
    let uri = "https://node/v1/services/resize";
    assert_eq!(refused("PUT", uri, &[("plimsoll-ttl-ms", "5s")]).0, Code::BadFrame);
    assert_eq!(refused("POST", uri, &[]), (Code::MethodNotAllowed, Some("PUT, DELETE")));
    assert_eq!(refused("PUT", "https://node/v1/services/Resize", &[]).0, Code::BadName);
}

#[test]
fn a_header_section_has_a_size_and_a_number_of_fields() {
    let long = "x".repeat(16 * 1024);
    assert_eq!(refused("GET", "https://node/v1/nodes", &[("x", &long)]).0, Code::HeadersTooLarge);
    let names: Vec<String> = (0..65).map(|n| format!("x-{n}")).collect();
    let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(refused("GET", "https://node/v1/nodes", &fields).0, Code::HeadersTooLarge);
    assert!(route(&head("GET", "https://node/v1/nodes", &fields[..64]), &Limits::default()).is_ok());
}

#[test]
fn a_body_announced_too_large_is_refused_before_it_comes() {
    let (fits, over) = ("1048576", "1048577");
    assert_eq!(call(&[("content-length", fits)]).content_length, Some(1 << 20));
    assert_eq!(refused("POST", "https://node/v1/call/echo", &[("content-length", over)]).0, Code::BodyTooLarge);
    assert_eq!(refused("POST", "https://node/v1/call/echo", &[("content-length", "many")]).0, Code::BadFrame);
}

#[test]
fn a_call_id_is_short_and_a_broken_trace_is_dropped() {
    let long = "x".repeat(129);
    assert_eq!(refused("POST", "https://node/v1/call/echo", &[("plimsoll-call-id", &long)]).0, Code::BadFrame);
    assert_eq!(refused("POST", "https://node/v1/call/echo", &[("plimsoll-call-id", "")]).0, Code::BadFrame);
    assert_eq!(call(&[("traceparent", &long)]).traceparent, None);
}

/// RFC 9110, 8.6: of two lengths somebody on the way may have believed the other one.
#[test]
fn what_is_said_twice_is_taken_only_if_it_is_the_same() {
    let twice = |name, [one, other]: [&'static str; 2]| [(name, one), (name, other)];
    assert_eq!(call(&twice("content-length", ["12", "12"])).content_length, Some(12));
    for (name, values) in
        [("content-length", ["2", "3"]), ("content-length", ["2", "02"]), ("plimsoll-call-id", ["a", "b"])]
    {
        let refusal = refused("POST", "https://node/v1/call/echo", &twice(name, values));
        assert_eq!(refusal, (Code::BadFrame, None), "{name} {values:?}");
    }
}

#[test]
fn a_media_type_with_a_long_boundary_is_carried() {
    let long = format!("multipart/form-data; boundary={}", "x".repeat(200));
    assert_eq!(call(&[("content-type", &long)]).content_type.as_deref(), Some(&*long));
    assert_eq!(call(&[("content-type", &"x".repeat(257))]).content_type, None);
}

#[test]
fn connection_specific_fields_are_found_beside_any_other() {
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
        headers.insert("accept", http::HeaderValue::from_static("*/*"));
        headers.append(http::HeaderName::from_static(name), http::HeaderValue::from_static(value));
        assert_eq!(connection_specific_field(&headers), found.then_some(name), "{name}: {value}");
    }
    let mut twice = HeaderMap::new();
    twice.append("te", http::HeaderValue::from_static("trailers"));
    twice.append("te", http::HeaderValue::from_static("gzip"));
    assert_eq!(connection_specific_field(&twice), Some("te"));
}
