//! Callers are linked: a call ends with the actor that it is bound to, wherever its future is.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Do, Obedient, assert_nothing_left, counters, server, until};
use plimsoll::call::{CallClient, CallError, Worker};
use plimsoll_testkit::gate::Gate;
use ractor::{Actor, ActorProcessingErr, ActorRef};

/// An actor that calls in its handler.
struct Caller(CallClient<Obedient>);

enum Ask {
    AwaitInHandler(Arc<()>),
}

impl Actor for Caller {
    type Msg = Ask;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Ask>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Ask>,
        Ask::AwaitInHandler(held): Ask,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let _ = self.0.call(Do::Hold(held)).await;
        Ok(())
    }
}

/// M-15: a killed actor that awaits in its handler gives its call up, bound or not.
#[tokio::test(start_paused = true)]
async fn killing_an_actor_that_awaits_cancels_its_call() {
    for worker in [Worker::Actor, Worker::Task] {
        let server = server().worker(worker).start().await.unwrap();
        let (caller, ended) = Caller::spawn(None, Caller(server.client()), ()).await.unwrap();
        let held = Arc::new(());
        caller.send_message(Ask::AwaitInHandler(held.clone())).unwrap();
        until(|| counters(&server)["workers"] == 1).await;
        caller.kill();
        ended.await.unwrap();
        assert_eq!(counters(&server)["in_flight"], 0);
        until(|| counters(&server)["workers"] == 0).await;
        assert_nothing_left(&counters(&server));
        assert_eq!((Arc::strong_count(&held), counters(&server)["settled_cancelled"]), (1, 1));
    }
}

/// M-15, M-16: a call that was moved to another task ends with the actor that it is bound to.
#[tokio::test(start_paused = true)]
async fn a_bound_call_in_another_task_ends_with_its_actor() {
    let server = server().start().await.unwrap();
    let (caller, ended) = Caller::spawn(None, Caller(server.client()), ()).await.unwrap();
    let bound = server.client().bind(&caller.get_cell());
    let call = tokio::spawn({
        let bound = bound.clone();
        async move { bound.call(Do::Hold(Arc::default())).await }
    });
    let unbound = tokio::spawn({
        let client = server.client();
        async move { client.call(Do::Hold(Arc::default())).await }
    });
    until(|| counters(&server)["workers"] == 2).await;
    caller.stop(None);
    ended.await.unwrap();
    assert_eq!(call.await.unwrap(), Err(CallError::Cancelled));
    assert_eq!(counters(&server)["in_flight"], 1);
    assert_eq!(bound.call(Do::Echo(1)).await, Err(CallError::Cancelled));
    assert_eq!(server.client().bind(&caller.get_cell()).call(Do::Echo(1)).await, Err(CallError::Cancelled));
    drop(bound);
    assert_eq!(counters(&server)["bound_callers"], 0);
    unbound.abort();
}

/// M-15: a bound caller's death is noticed at once while the server drains, and not when its deadline passes.
#[tokio::test(start_paused = true)]
async fn a_bound_caller_that_dies_during_a_drain_is_noticed_at_once() {
    for worker in [Worker::Actor, Worker::Task] {
        let server = server().worker(worker).start().await.unwrap();
        let (caller, ended) = Caller::spawn(None, Caller(server.client()), ()).await.unwrap();
        let gate = Gate::closed();
        let other = tokio::spawn({
            let (client, gate) = (server.client(), gate.clone());
            async move { client.call(Do::Pass(gate)).await }
        });
        let (held, bound) = (Arc::new(()), server.client().bind(&caller.get_cell()).unawaited());
        let call = tokio::spawn({
            let held = held.clone();
            async move { bound.call(Do::Hold(held)).await }
        });
        until(|| counters(&server)["workers"] == 2).await;
        server.actor().stop(None);
        until(|| !server.client().is_open()).await;
        let before = tokio::time::Instant::now();
        caller.kill();
        ended.await.unwrap();
        assert_eq!(call.await.unwrap(), Err(CallError::Cancelled));
        until(|| counters(&server)["workers"] == 1).await;
        assert_eq!((tokio::time::Instant::now(), Arc::strong_count(&held)), (before, 1));
        gate.open();
        assert_eq!(other.await.unwrap(), Ok(0), "the drain serves the rest");
    }
}

/// M-15: so is that of one which was bound as the server had been told to stop, and before it came to that.
#[tokio::test(start_paused = true)]
async fn a_caller_bound_as_a_stop_is_underway_is_watched_during_the_drain() {
    let mut server = server().start().await.unwrap();
    let (caller, ended) = Caller::spawn(None, Caller(server.client()), ()).await.unwrap();
    server.actor().stop(None);
    let bound = server.client().bind(&caller.get_cell()).unawaited();
    let mut call = Box::pin(bound.call(Do::Hold(Arc::default())));
    assert!(futures::poll!(&mut call).is_pending());
    until(|| counters(&server)["workers"] == 1).await;
    let before = tokio::time::Instant::now();
    caller.kill();
    ended.await.unwrap();
    assert_eq!(call.await, Err(CallError::Cancelled));
    assert_eq!(tokio::time::Instant::now(), before, "not at the deadline");
    server.ended().await;
    assert_nothing_left(&counters(&server));
}

/// One watch for a caller, however many clients are bound to it, and none when the last of them has gone.
#[tokio::test(start_paused = true)]
async fn a_caller_is_watched_once_and_only_while_a_client_is_bound() {
    let server = server().start().await.unwrap();
    let (caller, _) = Caller::spawn(None, Caller(server.client()), ()).await.unwrap();
    let clients: Vec<_> = (0..100).map(|_| server.client().bind(&caller.get_cell())).collect();
    assert_eq!(counters(&server)["bound_callers"], 1);
    for client in &clients {
        assert_eq!(client.call(Do::Echo(1)).await, Ok(1));
    }
    drop(clients);
    assert_eq!(counters(&server)["bound_callers"], 0);
}

/// Of one dead caller's 10,000 calls, slots, timers and index entries go within 10 ms and workers within 100 ms; calls of
/// others get through meanwhile. The benchmark `call` measures that against the promise; this allows for a debug build on
/// a busy machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_of_a_dead_caller_go_at_once() {
    let slack = 400;
    let server = server().worker(Worker::Task).max_in_flight(20_000).start().await.unwrap();
    let (caller, _) = Caller::spawn(None, Caller(server.client()), ()).await.unwrap();
    let bound = server.client().bind(&caller.get_cell()).unawaited();
    let gate = Gate::closed();
    let calls: Vec<_> = (0..10_000)
        .map(|_| {
            let (bound, gate) = (bound.clone(), gate.clone());
            tokio::spawn(async move { bound.call(Do::Pass(gate)).await })
        })
        .collect();
    gate.until_waiting(10_000).await;
    let client = server.client();
    let start = Instant::now();
    caller.kill();
    while counters(&server)["in_flight"] > 0 {
        tokio::task::yield_now().await;
    }
    let freed = start.elapsed();
    assert_eq!(client.call(Do::Echo(1)).await, Ok(1));
    while counters(&server)["workers"] > 0 {
        tokio::task::yield_now().await;
    }
    let ended = start.elapsed();
    for call in calls {
        assert_eq!(call.await.unwrap(), Err(CallError::Cancelled));
    }
    assert_nothing_left(&counters(&server));
    println!("10,000 calls of one dead caller: freed in {freed:?}, workers ended in {ended:?}");
    assert!(freed < Duration::from_millis(10 * slack), "freed in {freed:?}");
    assert!(ended < Duration::from_millis(100 * slack), "workers ended in {ended:?}");
}
