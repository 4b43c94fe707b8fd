//! Servers that wait for themselves, or for each other.

use plimsoll::call::CallError;
use plimsoll::server;
use plimsoll_testkit::probe::probe;
use tokio::time::Instant;

use crate::common::counters;
use crate::obeys::{Ask, Obeys};

/// Row: server calls itself.
#[tokio::test(start_paused = true)]
async fn otp_a_server_that_calls_itself_is_told_at_once() {
    let (mark, _probe) = probe(1);
    let server = server::builder(Obeys::new(mark, None)).name("narcissus").start().await.unwrap();
    let before = Instant::now();
    let outcome = server.client().call(Ask::CallMyself).await;
    assert_eq!(outcome, Err(CallError::App("deadlock: narcissus waits for narcissus".to_owned())));
    assert_eq!(Instant::now(), before);
    assert_eq!(counters(&server)["refused_deadlock"], 1);
}

/// Row: a cycle of servers that wait for each other.
#[tokio::test(start_paused = true)]
async fn otp_a_cycle_of_servers_is_named_at_once() {
    let (mark, _probe) = probe(1);
    let start = |name: &str| server::builder(Obeys::new(mark.clone(), None)).name(name).start();
    let (ann, ben) = (start("ann").await.unwrap(), start("ben").await.unwrap());
    let back = Ask::Call(ann.client(), Box::new(Ask::Echo(1)));
    let before = Instant::now();
    let outcome = ann.client().call(Ask::Call(ben.client(), Box::new(back))).await;
    let inner = "deadlock: ben waits for ann waits for ben";
    assert!(matches!(&outcome, Err(CallError::App(text)) if text.contains("service returned an error")), "{outcome:?}");
    assert_eq!((Instant::now(), counters(&ann)["refused_deadlock"]), (before, 1));
    // Without the outer call there is no circle, and the same call goes through.
    assert_eq!(ben.client().call(Ask::Call(ann.client(), Box::new(Ask::Echo(1)))).await, Ok(1), "{inner}");
}
