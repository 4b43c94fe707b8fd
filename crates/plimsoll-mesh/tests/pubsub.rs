//! Publish and subscribe on one node, without a network.

use plimsoll::bounded::{ByteCap, Cap, Disconnected};
use plimsoll::inspect::Inspect;
use plimsoll_mesh::pubsub::{Full, Published, Pubsub, PubsubCaps, PubsubEvent, Topic};

fn topic(name: &str) -> Topic {
    name.parse().unwrap()
}

fn publish(pubsub: &Pubsub, name: &str, body: &[u8]) -> Published {
    pubsub.publish(&topic(name), None, body).unwrap()
}

/// F-11: a message that several filters match is encoded once; all subscribers hold the same bytes.
#[test]
fn all_filters_share_one_encoding() {
    let pubsub = Pubsub::new(PubsubCaps::default());
    let mut subscribers: Vec<_> =
        ["a.b", "a.*", "**", "a.**", "a.b"].map(|filter| pubsub.subscribe(filter.parse().unwrap()).unwrap()).into();
    let mut other = pubsub.subscribe("b.*".parse().unwrap()).unwrap();
    assert_eq!(publish(&pubsub, "a.b", b"hello").reached, 5);
    let buffers: Vec<_> = subscribers.iter_mut().map(|one| one.try_next().unwrap().unwrap().as_ptr()).collect();
    assert!(buffers.iter().all(|buffer| *buffer == buffers[0]));
    assert_eq!(other.try_next(), None);
    assert_eq!(publish(&pubsub, "c", b"to nobody").reached, 1, "'**' wants it");
}

/// M-13, F-13: the filter goes with its last subscriber; one that was cut off counts until it reads the reason.
#[test]
fn nothing_is_left_of_subscribers_that_left() {
    let pubsub = Pubsub::new(PubsubCaps { backlog: ByteCap::of::<1_000>(), ..PubsubCaps::default() });
    let first = pubsub.subscribe("a.*".parse().unwrap()).unwrap();
    let mut second = pubsub.subscribe("a.*".parse().unwrap()).unwrap();
    let third = pubsub.subscribe("a.**".parse().unwrap()).unwrap();
    assert_eq!((pubsub.filters(), pubsub.subscribers()), (2, 3));
    drop((first, third));
    assert_eq!((pubsub.filters(), pubsub.subscribers()), (1, 1));
    publish(&pubsub, "a.b", &[b'x'; 600]);
    assert_eq!(publish(&pubsub, "a.b", &[b'x'; 600]), Published { reached: 0, cut_off: 1 });
    assert_eq!(pubsub.inspect().counters["backlog_bytes"], 0, "its backlog went at once");
    assert!(matches!(second.try_next(), Some(Err(Disconnected::BacklogFull { .. }))));
    drop(second);
    assert_eq!((pubsub.filters(), pubsub.subscribers()), (0, 0));
}

/// M-1, M-7: filters and subscribers have a cap each, and a refusal says which.
#[test]
fn filters_and_subscribers_are_capped() {
    let caps = PubsubCaps { filters: Cap::of::<2>(), subscribers: Cap::of::<3>(), ..PubsubCaps::default() };
    let pubsub = Pubsub::new(caps);
    let subscribe = |filter: &str| pubsub.subscribe(filter.parse().unwrap());
    let (a, _b) = (subscribe("a").unwrap(), subscribe("b").unwrap());
    assert_eq!(subscribe("c").unwrap_err(), Full { what: "filters", cap: 2 });
    let _c = subscribe("a").unwrap();
    assert_eq!(subscribe("a").unwrap_err(), Full { what: "subscriptions", cap: 3 });
    assert_eq!(pubsub.counters().counted(PubsubEvent::RefusedFull), 2);
    drop(a);
    let _d = subscribe("b").unwrap();
}

/// F-12: one of ten does not read; it is cut off at its bound, and the nine have every message in order.
#[test]
fn nine_readers_do_not_notice_the_tenth() {
    let pubsub = Pubsub::new(PubsubCaps { backlog: ByteCap::of::<{ 64 << 10 }>(), ..PubsubCaps::default() });
    let mut readers: Vec<_> = (0..9).map(|_| pubsub.subscribe("a".parse().unwrap()).unwrap()).collect();
    let mut stalled = pubsub.subscribe("a".parse().unwrap()).unwrap();
    for n in 0..1_000 {
        publish(&pubsub, "a", format!("{n:0100}").as_bytes());
        for reader in &mut readers {
            let event = reader.try_next().expect("it is there already").unwrap();
            assert!(event.ends_with(format!("{n:0100}\"}}\n\n").as_bytes()));
        }
    }
    assert!(matches!(stalled.try_next(), Some(Err(Disconnected::BacklogFull { limit: 65_536, .. }))));
    assert_eq!(pubsub.counters().counted(PubsubEvent::CutOff), 1);
}
