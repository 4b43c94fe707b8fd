//! Publish and subscribe on one node, without a network.

use plimsoll::bounded::{ByteCap, Cap, Disconnected};
use plimsoll::inspect::Inspect;
use plimsoll::supervisor::{Supervisor, SupervisorRef};
use plimsoll_mesh::pubsub::{Full, Published, Pubsub, PubsubCaps, PubsubEvent, SubscribeError, Subscriber, Topic};

/// The topics with their server.
async fn start(caps: PubsubCaps) -> (Pubsub, SupervisorRef) {
    let pubsub = Pubsub::new(caps);
    let tree = Supervisor::builder("test").child(pubsub.child("topics")).start().await.unwrap();
    (pubsub, tree)
}

async fn subscribe(pubsub: &Pubsub, filter: &str) -> Result<Subscriber, SubscribeError> {
    pubsub.subscribe(filter.parse().unwrap()).await
}

/// Waits for the server's next turn, in which it removes who left.
async fn settled(pubsub: &Pubsub, holds: impl Fn(&Pubsub) -> bool) {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !holds(pubsub) {
        assert!(std::time::Instant::now() < patience, "never: {:?}", pubsub.inspect());
        tokio::task::yield_now().await;
    }
}

fn topic(name: &str) -> Topic {
    name.parse().unwrap()
}

fn publish(pubsub: &Pubsub, name: &str, body: &[u8]) -> Published {
    pubsub.publish(&topic(name), None, body).unwrap()
}

/// F-11: a message that several filters match is encoded once; all subscribers hold the same bytes.
#[tokio::test]
async fn all_filters_share_one_encoding() {
    let (pubsub, _tree) = start(PubsubCaps::default()).await;
    let mut subscribers = Vec::new();
    for filter in ["a.b", "a.*", "**", "a.**", "a.b"] {
        subscribers.push(subscribe(&pubsub, filter).await.unwrap());
    }
    let mut other = subscribe(&pubsub, "b.*").await.unwrap();
    assert_eq!(publish(&pubsub, "a.b", b"hello").reached, 5);
    let buffers: Vec<_> = subscribers.iter_mut().map(|one| one.try_next().unwrap().unwrap().as_ptr()).collect();
    assert!(buffers.iter().all(|buffer| *buffer == buffers[0]));
    assert_eq!(other.try_next(), None);
    assert_eq!(publish(&pubsub, "c", b"to nobody").reached, 1, "'**' wants it");
}

/// M-13, F-13: the filter goes with its last subscriber; one that was cut off counts until it reads the reason.
#[tokio::test]
async fn nothing_is_left_of_subscribers_that_left() {
    let (pubsub, _tree) = start(PubsubCaps { backlog: ByteCap::of::<1_000>(), ..PubsubCaps::default() }).await;
    let first = subscribe(&pubsub, "a.*").await.unwrap();
    let mut second = subscribe(&pubsub, "a.*").await.unwrap();
    let third = subscribe(&pubsub, "a.**").await.unwrap();
    assert_eq!((pubsub.filters(), pubsub.subscribers()), (2, 3));
    drop((first, third));
    settled(&pubsub, |pubsub| (pubsub.filters(), pubsub.subscribers()) == (1, 1)).await;
    publish(&pubsub, "a.b", &[b'x'; 600]);
    assert_eq!(publish(&pubsub, "a.b", &[b'x'; 600]), Published { reached: 0, cut_off: 1 });
    assert_eq!(pubsub.inspect().counters["backlog_bytes"], 0, "its backlog went at once");
    assert!(matches!(second.try_next(), Some(Err(Disconnected::BacklogFull { .. }))));
    drop(second);
    settled(&pubsub, |pubsub| (pubsub.filters(), pubsub.subscribers()) == (0, 0)).await;
}

/// M-1, M-7: filters and subscribers have a cap each, and a refusal says which. What left makes room at once, also before
/// the server's next turn.
#[tokio::test]
async fn filters_and_subscribers_are_capped() {
    let caps = PubsubCaps { filters: Cap::of::<2>(), subscribers: Cap::of::<3>(), ..PubsubCaps::default() };
    let (pubsub, _tree) = start(caps).await;
    let (a, _b) = (subscribe(&pubsub, "a").await.unwrap(), subscribe(&pubsub, "b").await.unwrap());
    assert_eq!(subscribe(&pubsub, "c").await.unwrap_err(), Full { what: "filters", cap: 2 }.into());
    let _c = subscribe(&pubsub, "a").await.unwrap();
    assert_eq!(subscribe(&pubsub, "a").await.unwrap_err(), Full { what: "subscriptions", cap: 3 }.into());
    assert_eq!(pubsub.counters().counted(PubsubEvent::RefusedFull), 2);
    drop(a);
    let _d = subscribe(&pubsub, "b").await.unwrap();
}

/// M-13: a subscriber whose call is abandoned leaves nothing.
#[tokio::test]
async fn an_abandoned_subscription_leaves_nothing() {
    let (pubsub, _tree) = start(PubsubCaps::default()).await;
    for polls in 0..4 {
        let mut subscribing = Box::pin(subscribe(&pubsub, "a.b"));
        for _ in 0..polls {
            if futures::poll!(&mut subscribing).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(subscribing);
        settled(&pubsub, |pubsub| (pubsub.filters(), pubsub.subscribers()) == (0, 0)).await;
    }
}

/// F-12: one of ten does not read; it is cut off at its bound, and the nine have every message in order.
#[tokio::test]
async fn nine_readers_do_not_notice_the_tenth() {
    let (pubsub, _tree) = start(PubsubCaps { backlog: ByteCap::of::<{ 64 << 10 }>(), ..PubsubCaps::default() }).await;
    let mut readers = Vec::new();
    for _ in 0..9 {
        readers.push(subscribe(&pubsub, "a").await.unwrap());
    }
    let mut stalled = subscribe(&pubsub, "a").await.unwrap();
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
