//! Messages as server-sent events (WHATWG HTML, 9.2).
//!
//! A message is one line of JSON, so that nothing in a body can end the event: `text` holds a body that is UTF-8, `hex` any
//! other.

use bytes::{BufMut, Bytes, BytesMut};
use plimsoll::bounded::Disconnected;
use serde::Serialize;

use super::Topic;

/// A comment, which readers skip: it shows both sides whether the other is still there.
pub const HEARTBEAT: Bytes = Bytes::from_static(b": heartbeat\n\n");

#[derive(Serialize)]
struct Message<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Body<'a> {
    Text(&'a str),
    Hex(String),
}

#[derive(Serialize)]
struct Ended {
    reason: &'static str,
    detail: String,
}

/// A message as the event `message`.
pub(super) fn message(topic: &Topic, content_type: Option<&str>, body: &[u8]) -> Bytes {
    let body = std::str::from_utf8(body).map_or_else(|_| Body::Hex(hex::encode(body)), Body::Text);
    event("message", &Message { topic: topic.as_str(), content_type, body })
}

/// The end of a subscription as the event `cut_off`, with `backlog`, `slow`, `over_budget` or `shutting_down` as the reason.
pub fn cut_off_event(why: Disconnected) -> Bytes {
    let reason = match why {
        Disconnected::BacklogFull { .. } => "backlog",
        Disconnected::TooSlow { .. } | Disconnected::Stalled { .. } => "slow",
        Disconnected::OverBudget { .. } => "over_budget",
        _ => "shutting_down",
    };
    event("cut_off", &Ended { reason, detail: why.to_string() })
}

fn event(name: &str, data: &impl Serialize) -> Bytes {
    let mut event = BytesMut::new();
    event.put_slice(format!("event: {name}\ndata: ").as_bytes());
    // Plain structs of strings: serialising them cannot fail. JSON has no line break outside of its escapes.
    let _ = serde_json::to_writer((&mut event).writer(), data);
    event.put_slice(b"\n\n");
    // Exact: what room doubling left over would be held as often as the event waits.
    Bytes::copy_from_slice(&event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &[u8]) -> String {
        String::from_utf8(message(&"a.b".parse().unwrap(), None, body).to_vec()).unwrap()
    }

    #[test]
    fn no_body_can_end_its_event() {
        assert_eq!(
            text(b"x\n\nevent: y"),
            "event: message\ndata: {\"topic\":\"a.b\",\"text\":\"x\\n\\nevent: y\"}\n\n"
        );
        assert_eq!(text(&[0xff, 0]), "event: message\ndata: {\"topic\":\"a.b\",\"hex\":\"ff00\"}\n\n");
    }
}
