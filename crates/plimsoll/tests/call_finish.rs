//! Calls that finish although their caller leaves: `OnCallerExit::Finish`.

#[path = "common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Do, assert_nothing_left, counters, server, until};
use plimsoll::call::{CallError, OnCallerExit, Worker};
use plimsoll::server::{self, BoxError, Context, Server};
use plimsoll_testkit::gate::Gate;
use tokio::time::Instant;

struct Idle;

impl Server for Idle {
    type Call = ();
    type Reply = ();

    async fn call(&mut self, (): (), _: &mut Context<Self>) -> Result<(), BoxError> {
        Ok(())
    }
}

/// Per service: a begun call runs to its end, keeps its permit until then and counts as a reply.
#[tokio::test(start_paused = true)]
async fn a_begun_call_finishes_after_its_caller_leaves() {
    for worker in [Worker::Actor, Worker::Task] {
        let server = server().worker(worker).on_caller_exit(OnCallerExit::Finish).start().await.unwrap();
        let gate = Gate::closed();
        let call = tokio::spawn({
            let (client, gate) = (server.client(), gate.clone());
            async move { client.call(Do::Pass(gate)).await }
        });
        gate.until_waiting(1).await;
        call.abort();
        let _ = call.await;
        tokio::task::yield_now().await;
        let now = counters(&server);
        assert_eq!((now["in_flight"], now["permits_used"], now["left_to_finish"]), (1, 1, 1), "{now:?}");
        assert_eq!(gate.waiting(), 1, "its worker goes on");
        gate.open();
        until(|| counters(&server)["permits_used"] == 0).await;
        assert_nothing_left(&counters(&server));
        assert_eq!((counters(&server)["settled_reply"], counters(&server)["settled_cancelled"]), (1, 0));
    }
}

/// Per call: also when the actor exits that the client is bound to.
#[tokio::test(start_paused = true)]
async fn a_begun_call_finishes_after_its_bound_caller_exits() {
    let server = server().start().await.unwrap();
    let caller = server::builder(Idle).start().await.unwrap();
    let client = server.client().on_caller_exit(OnCallerExit::Finish).bind(&caller.actor());
    let gate = Gate::closed();
    let call = tokio::spawn({
        let gate = gate.clone();
        async move { client.call(Do::Pass(gate)).await }
    });
    gate.until_waiting(1).await;
    caller.actor().kill();
    until(|| counters(&server)["left_to_finish"] == 1).await;
    gate.open();
    assert_eq!(call.await.unwrap(), Ok(0), "the future that is elsewhere gets the reply");
    until(|| counters(&server)["permits_used"] == 0).await;
    assert_nothing_left(&counters(&server));
}

/// The deadline holds all the same, and stops the worker.
#[tokio::test(start_paused = true)]
async fn a_call_that_finishes_alone_still_ends_at_its_deadline() {
    let server = server().on_caller_exit(OnCallerExit::Finish).start().await.unwrap();
    let (held, before) = (Arc::new(()), Instant::now());
    let call = tokio::spawn({
        let (client, held) = (server.client(), Arc::clone(&held));
        async move { client.call(Do::Hold(held)).await }
    });
    until(|| counters(&server)["workers"] == 1).await;
    call.abort();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(Arc::strong_count(&held), 1, "the worker has stopped");
    assert_eq!(before.elapsed(), Duration::from_secs(6));
    assert_nothing_left(&counters(&server));
    assert_eq!(counters(&server)["settled_timeout"], 1);
}

/// A call that has not begun is cancelled in any case.
#[tokio::test(start_paused = true)]
async fn a_call_that_has_not_begun_is_cancelled_with_its_caller() {
    let server = server().max_in_flight(1).queue(1).on_caller_exit(OnCallerExit::Finish).start().await.unwrap();
    let gate = Gate::closed();
    let first = tokio::spawn({
        let (client, gate) = (server.client(), gate.clone());
        async move { client.call(Do::Pass(gate)).await }
    });
    gate.until_waiting(1).await;
    let queued = tokio::spawn({
        let client = server.client();
        async move { client.call(Do::Echo(1)).await }
    });
    until(|| counters(&server)["waiting"] == 1).await;
    queued.abort();
    until(|| counters(&server)["settled_cancelled"] == 1).await;
    assert_eq!(counters(&server)["in_flight"], 1);
    gate.open();
    assert_eq!(first.await.unwrap(), Ok(0));
}

/// The default is unchanged, and a client can ask for it.
#[tokio::test(start_paused = true)]
async fn a_client_can_have_its_calls_cancelled() {
    let server = server().on_caller_exit(OnCallerExit::Finish).start().await.unwrap();
    let client = server.client().on_caller_exit(OnCallerExit::Cancel);
    let held = Arc::new(());
    let call = tokio::spawn({
        let held = Arc::clone(&held);
        async move { client.call(Do::Hold(held)).await }
    });
    until(|| counters(&server)["workers"] == 1).await;
    call.abort();
    until(|| Arc::strong_count(&held) == 1).await;
    assert_nothing_left(&counters(&server));
    assert_eq!(counters(&server)["settled_cancelled"], 1);
    assert!(matches!(
        server.client().call_timeout(Do::Hold(held), Duration::from_millis(3)).await,
        Err(CallError::Timeout)
    ));
}

/// Both end at the same moment, on several threads: the call settles once, and nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn leaving_and_beginning_at_the_same_moment_settles_once() {
    let server = server().worker(Worker::Task).on_caller_exit(OnCallerExit::Finish).start().await.unwrap();
    for n in 0..2_000_u32 {
        let client = server.client();
        let call = tokio::spawn(async move { client.call(Do::Echo(n)).await });
        if n % 3 == 0 {
            tokio::task::yield_now().await;
        }
        call.abort();
        let _ = call.await;
    }
    let idle = async {
        while counters(&server)["permits_used"] > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), idle).await.expect("every call ends");
    assert_nothing_left(&counters(&server));
}
