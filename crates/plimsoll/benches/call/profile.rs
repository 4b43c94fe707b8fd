//! One kind of call over and over, for a profiler: `call-<hash> profile <what> [times] [threads]`. On one thread, if not
//! on two with `threads`, so that every instruction between two calls is a cost of one.

use std::sync::Arc;

use plimsoll::call::{CallServer, Worker};
use plimsoll::mailbox::MailboxBuilder;
use plimsoll::server;
use ractor::Actor;
use tokio::sync::Notify;

use super::peers::{bare_call, bare_router};
use super::server::{Adder, BoundedSink, DEADLINE, RactorAdder, RactorSink};
use crate::Increment;

const WHAT: &str = "actor, bare-actor, task, bare-task, plain, bare-plain, send, bare-send";

/// Runs what `args` ask for; `false` when they ask for no profile.
pub fn asked(args: &[String]) -> bool {
    let mut args = args.iter().skip_while(|arg| *arg != "profile").skip(1);
    let Some(what) = args.next() else { return false };
    let times = args.next().map_or(20_000, |times| times.parse().expect("a number of times"));
    let runtime = match args.next().map(String::as_str) {
        Some("threads") => tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build(),
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build(),
    };
    runtime.expect("a runtime").block_on(async { tokio::spawn(repeat(what.clone(), times)).await.expect("the calls") });
    true
}

async fn repeat(what: String, times: u64) {
    match what.as_str() {
        "actor" | "task" => {
            let worker = if what == "actor" { Worker::Actor } else { Worker::Task };
            let client = CallServer::builder(Increment).worker(worker).start().await.expect("starts").client();
            for n in 0..times {
                assert_eq!(client.call(n).await, Ok(n + 1));
            }
        }
        "bare-actor" | "bare-task" => {
            let (bare, _) = bare_router(what == "bare-actor").await;
            for n in 0..times {
                assert_eq!(bare_call(&bare, n).await, n + 1);
            }
        }
        "plain" => {
            let client = server::builder(Adder::default()).start().await.expect("starts").client();
            for _ in 0..times {
                assert!(client.call(1).await.is_ok());
            }
        }
        "bare-plain" => {
            let (actor, _) = RactorAdder::spawn(None, RactorAdder, ()).await.expect("starts");
            for _ in 0..times {
                let answer = actor.call(|reply| (1, reply), Some(DEADLINE)).await.expect("sent");
                assert!(answer.is_success());
            }
        }
        "send" => {
            let done = Arc::new(Notify::new());
            let sink = BoundedSink(99, Arc::clone(&done));
            let (bounded, _) = MailboxBuilder::messages(100).spawn(None, sink, ()).await.expect("starts");
            for _ in 0..times / 100 {
                (0..100).for_each(|n| assert!(bounded.send(n).is_ok()));
                done.notified().await;
            }
        }
        "bare-send" => {
            let done = Arc::new(Notify::new());
            let (bare, _) = RactorSink::spawn(None, RactorSink(99, Arc::clone(&done)), ()).await.expect("starts");
            for _ in 0..times / 100 {
                (0..100).for_each(|n| assert!(bare.send_message(n).is_ok()));
                done.notified().await;
            }
        }
        _ => panic!("one of: {WHAT}"),
    }
}
