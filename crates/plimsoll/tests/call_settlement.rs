//! Whatever ends a call settles it at once, once, and leaves nothing behind. Every case for both kinds of worker.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Do, assert_nothing_left, counters, server, until};
use plimsoll::call::{CallError, Died, Overload, Worker};
use plimsoll::exit::ExitReason;
use plimsoll_testkit::gate::Gate;
use plimsoll_testkit::probe::probe;
use tokio::time::Instant;

macro_rules! for_both_workers {
    ($($(#[$meta:meta])* async fn $name:ident($worker:ident) $body:block)*) => {
        mod actor {
            use super::*;
            $($(#[$meta])* #[tokio::test(start_paused = true)] async fn $name() { let $worker = Worker::Actor; $body })*
        }
        mod task {
            use super::*;
            $($(#[$meta])* #[tokio::test(start_paused = true)] async fn $name() { let $worker = Worker::Task; $body })*
        }
    };
}

for_both_workers! {
    /// E-4: the worker replies straight to the caller and ends.
    async fn a_reply_settles_the_call(worker) {
        let server = server().worker(worker).start().await.unwrap();
        assert_eq!(server.client().call(Do::Echo(7)).await, Ok(7));
        until(|| counters(&server)["workers"] == 0).await;
        assert_nothing_left(&counters(&server));
        assert_eq!(counters(&server)["settled_reply"], 1);
    }

    async fn the_services_own_error_reaches_the_caller(worker) {
        let server = server().worker(worker).start().await.unwrap();
        assert_eq!(server.client().call(Do::Refuse("no")).await, Err(CallError::App("no")));
        assert_eq!(counters(&server)["settled_app_error"], 1);
    }

    /// E-8, E-7: a panic is known at once, with its message, and ends that call alone.
    async fn a_panic_is_died_with_its_message_at_once(worker) {
        let server = server().worker(worker).start().await.unwrap();
        let before = Instant::now();
        let outcome = server.client().call(Do::Panic("disk on fire")).await;
        assert_eq!(outcome, Err(CallError::Died(Died::Exit(ExitReason::failed("disk on fire")))));
        assert_eq!(Instant::now(), before);
        assert_eq!(server.client().call(Do::Echo(1)).await, Ok(1));
        until(|| counters(&server)["workers"] == 0).await;
        assert_nothing_left(&counters(&server));
    }

    /// E-5, E-10: the deadline is typed, and the work ends with it.
    async fn the_deadline_settles_the_call_and_stops_its_worker(worker) {
        let server = server().worker(worker).start().await.unwrap();
        let held = Arc::new(());
        let before = Instant::now();
        let outcome = server.client().call_by(Do::Hold(held.clone()), before + Duration::from_millis(250)).await;
        assert_eq!(outcome, Err(CallError::Timeout));
        assert_eq!(before.elapsed(), Duration::from_millis(250));
        until(|| Arc::strong_count(&held) == 1).await;
        until(|| counters(&server)["workers"] == 0).await;
        assert_nothing_left(&counters(&server));
    }

    /// M-17: an earlier deadline than all others wakes the one clock; each is kept exactly.
    async fn deadlines_are_kept_in_whatever_order_they_come(worker) {
        let server = server().worker(worker).start().await.unwrap();
        let start = Instant::now();
        let calls = [900_u64, 5, 70_000, 64, 4_097, 1].map(|ms| {
            let client = server.client();
            tokio::spawn(async move {
                let outcome = client.call_by(Do::Hold(Arc::default()), start + Duration::from_millis(ms)).await;
                assert_eq!(outcome, Err(CallError::Timeout));
                assert_eq!(start.elapsed(), Duration::from_millis(ms));
            })
        });
        for call in calls {
            call.await.unwrap();
        }
    }

    async fn a_deadline_that_has_passed_runs_nothing(worker) {
        let server = server().worker(worker).start().await.unwrap();
        let outcome = server.client().call_by(Do::Panic("must not run"), Instant::now()).await;
        assert_eq!(outcome, Err(CallError::Timeout));
        assert_eq!((counters(&server)["settled_timeout"], counters(&server)["worker_failures"]), (1, 0));
    }

    /// M-15, R-2: a caller that gives up leaves no slot, no timer, no permit and no worker.
    async fn dropping_the_future_frees_everything_at_once(worker) {
        let server = server().worker(worker).start().await.unwrap();
        let held = Arc::new(());
        let client = server.client();
        let call = tokio::spawn({
            let held = held.clone();
            async move { client.call(Do::Hold(held)).await }
        });
        until(|| counters(&server)["workers"] == 1).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        assert_eq!((counters(&server)["in_flight"], counters(&server)["timers"]), (0, 0));
        until(|| counters(&server)["workers"] == 0).await;
        assert_nothing_left(&counters(&server));
        assert_eq!((Arc::strong_count(&held), counters(&server)["settled_cancelled"]), (1, 1));
    }

    /// E-11: over the cap the refusal is typed, at once, and says how full it was.
    async fn over_the_cap_a_call_is_refused_at_admission(worker) {
        let server = server().worker(worker).max_in_flight(2).start().await.unwrap();
        let gate = Gate::closed();
        let calls = [0, 1].map(|_| {
            let (client, gate) = (server.client(), gate.clone());
            tokio::spawn(async move { client.call(Do::Pass(gate)).await })
        });
        gate.until_waiting(2).await;
        let refused = server.client().call(Do::Echo(1)).await;
        assert_eq!(refused, Err(Overload::InFlight { in_flight: 2, limit: 2 }.into()));
        assert_eq!(counters(&server)["refused_in_flight"], 1);
        gate.open();
        for call in calls {
            assert_eq!(call.await.unwrap(), Ok(0));
        }
        until(|| counters(&server)["workers"] == 0).await;
        assert_nothing_left(&counters(&server));
        assert_eq!(server.client().call(Do::Echo(1)).await, Ok(1));
    }

    /// E-7: the workers are the server's, and end with it.
    async fn a_killed_server_settles_its_calls_at_once(worker) {
        let mut server = server().worker(worker).start().await.unwrap();
        let held = Arc::new(());
        let (client, kept) = (server.client(), held.clone());
        let call = tokio::spawn(async move { client.call(Do::Hold(kept)).await });
        until(|| counters(&server)["workers"] == 1).await;
        let before = Instant::now();
        server.actor().kill();
        assert_eq!(call.await.unwrap(), Err(CallError::Died(Died::Exit(ExitReason::Killed))));
        assert_eq!(Instant::now(), before);
        server.ended().await;
        assert_eq!(server.client().call(Do::Echo(1)).await, Err(CallError::Died(Died::NoProcess)));
        until(|| counters(&server)["workers"] == 0).await;
        assert_nothing_left(&counters(&server));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    async fn a_stop_serves_what_is_in_flight_and_takes_nothing_new(worker) {
        let mut server = server().worker(worker).start().await.unwrap();
        let gate = Gate::closed();
        let (client, pass) = (server.client(), gate.clone());
        let call = tokio::spawn(async move { client.call(Do::Pass(pass)).await });
        gate.until_waiting(1).await;
        server.actor().stop(None);
        until(|| !server.client().is_open()).await;
        assert_eq!(server.client().call(Do::Echo(1)).await, Err(CallError::ShuttingDown));
        gate.open();
        assert_eq!(call.await.unwrap(), Ok(0));
        server.ended().await;
        assert_nothing_left(&counters(&server));
    }

    async fn calls_let_in_before_the_stop_are_served(worker) {
        let mut server = server().worker(worker).start().await.unwrap();
        // The future is polled once, so that the call is let in; the router has had no turn when the stop overtakes it.
        let client = server.client();
        let mut call = Box::pin(client.call(Do::Echo(3)));
        assert!(futures::poll!(&mut call).is_pending());
        server.actor().stop(None);
        server.ended().await;
        assert_eq!(call.await, Ok(3));
    }

    async fn a_stop_can_end_what_has_no_worker_yet(worker) {
        let mut server = server().worker(worker).serve_queued_on_stop(false).start().await.unwrap();
        let client = server.client();
        let mut call = Box::pin(client.call(Do::Echo(3)));
        assert!(futures::poll!(&mut call).is_pending());
        server.actor().stop(None);
        server.ended().await;
        assert_eq!(call.await, Err(CallError::ShuttingDown));
        assert_nothing_left(&counters(&server));
    }

    /// What outlasts the grace ends as shutting down when the server is killed.
    async fn a_drain_that_is_cut_short_ends_the_rest_as_shutting_down(worker) {
        let mut server = server().worker(worker).start().await.unwrap();
        let client = server.client();
        let call = tokio::spawn(async move { client.call(Do::Hold(Arc::default())).await });
        until(|| counters(&server)["workers"] == 1).await;
        server.actor().stop(None);
        until(|| !server.client().is_open()).await;
        server.actor().kill();
        assert_eq!(call.await.unwrap(), Err(CallError::ShuttingDown));
        server.ended().await;
    }

    async fn ractors_own_drain_serves_what_is_in_flight(worker) {
        let mut server = server().worker(worker).start().await.unwrap();
        let client = server.client();
        let mut call = Box::pin(client.call(Do::Echo(3)));
        assert!(futures::poll!(&mut call).is_pending());
        server.actor().drain().unwrap();
        server.ended().await;
        assert_eq!(call.await, Ok(3));
    }

    /// E-11: those who wait are served first come first served, and leave the queue when their time is up.
    async fn a_bounded_queue_waits_for_a_permit(worker) {
        let server = server().worker(worker).max_in_flight(1).queue(2).start().await.unwrap();
        let gate = Gate::closed();
        let spawn = |what: Do, ms: u64| {
            let client = server.client();
            tokio::spawn(async move { client.call_by(what, Instant::now() + Duration::from_millis(ms)).await })
        };
        let first = spawn(Do::Pass(gate.clone()), 1_000);
        gate.until_waiting(1).await;
        let (second, third) = (spawn(Do::Echo(2), 100), spawn(Do::Echo(3), 1_000));
        until(|| counters(&server)["waiting"] == 2).await;
        assert_eq!(server.client().call(Do::Echo(4)).await, Err(Overload::Queue { limit: 2 }.into()));
        assert_eq!(second.await.unwrap(), Err(CallError::Timeout));
        until(|| counters(&server)["waiting"] == 1).await;
        gate.open();
        assert_eq!(first.await.unwrap(), Ok(0));
        assert_eq!(third.await.unwrap(), Ok(3));
        until(|| counters(&server)["workers"] == 0).await;
        assert_nothing_left(&counters(&server));
    }

    async fn bytes_are_admitted_with_the_call_and_given_back(worker) {
        let server = server().worker(worker).max_bytes(100, |_| 60).start().await.unwrap();
        let gate = Gate::closed();
        let (client, pass) = (server.client(), gate.clone());
        let call = tokio::spawn(async move { client.call(Do::Pass(pass)).await });
        gate.until_waiting(1).await;
        let refused = server.client().call(Do::Echo(1)).await;
        assert_eq!(refused, Err(Overload::Bytes { held: 60, limit: 100, wanted: 60 }.into()));
        gate.open();
        assert_eq!(call.await.unwrap(), Ok(0));
        until(|| counters(&server)["workers"] == 0).await;
        assert_nothing_left(&counters(&server));
    }

    async fn a_nested_call_never_outlasts_its_own(worker) {
        let server = server().worker(worker).start().await.unwrap();
        let (mark, mut seen) = probe(1);
        let latest = Instant::now() + Duration::from_millis(10);
        let nested = server.client().with_deadline(latest).with_deadline(latest + Duration::from_secs(1));
        assert_eq!(nested.call(Do::Deadline(mark)).await, Ok(0));
        assert_eq!(seen.next().await, latest);
    }
}

/// After a spike the tables go back to what is needed.
#[tokio::test(start_paused = true)]
async fn compaction_gives_back_what_a_spike_left() {
    let server = server().worker(Worker::Task).max_in_flight(10_000).start().await.unwrap();
    let gate = Gate::closed();
    let calls: Vec<_> = (0..5_000)
        .map(|_| {
            let (client, gate) = (server.client(), gate.clone());
            tokio::spawn(async move { client.call(Do::Pass(gate)).await })
        })
        .collect();
    gate.until_waiting(5_000).await;
    gate.open();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(server.client().compact(2) > 5_000 * 24);
    assert_eq!(server.client().compact(2), 0);
    assert_eq!(server.client().call(Do::Echo(1)).await, Ok(1));
}

/// `Died` carries the reason of the worker's end.
#[tokio::test(start_paused = true)]
async fn a_killed_worker_settles_its_call() {
    let server = server().start().await.unwrap();
    let outcome = server.client().call(Do::KillWorker).await;
    assert_eq!(outcome, Err(CallError::Died(Died::Exit(ExitReason::Killed))));
    until(|| counters(&server)["workers"] == 0).await;
    assert_nothing_left(&counters(&server));
}

/// A worker that blocks its thread cannot be stopped: the call still settles at its deadline, and the worker is counted
/// and keeps its permit until it ends. E-9: its late reply is dropped and counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_worker_that_blocks_is_counted_as_overrunning_and_keeps_its_permit() {
    for worker in [Worker::Actor, Worker::Task] {
        let server = server().worker(worker).max_in_flight(1).start().await.unwrap();
        let (release, released) = std::sync::mpsc::channel();
        let deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(server.client().call_by(Do::Block(released), deadline).await, Err(CallError::Timeout));
        let seen = counters(&server);
        assert_eq!((seen["in_flight"], seen["overrunning"], seen["permits_used"]), (0, 1, 1));
        assert!(matches!(server.client().call(Do::Echo(1)).await, Err(CallError::Overloaded(_))));
        release.send(()).unwrap();
        until_real(|| counters(&server)["workers"] == 0).await;
        assert_nothing_left(&counters(&server));
        assert_eq!(counters(&server)["late_replies"], 1);
    }
}

/// For what another thread does: looks again every millisecond, for ten seconds at most.
async fn until_real(mut done: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < patience, "it did not come to that within ten seconds");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// When the runtime ends, futures and workers go with it, and the books say so.
#[test]
fn the_end_of_the_runtime_leaves_nothing_in_the_books() {
    for worker in [Worker::Actor, Worker::Task] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let held = Arc::new(());
        let server = runtime.block_on(async {
            let server = server().worker(worker).start().await.unwrap();
            let (client, held) = (server.client(), held.clone());
            tokio::spawn(async move { client.call(Do::Hold(held)).await });
            until(|| counters(&server)["workers"] == 1).await;
            server
        });
        drop(runtime);
        assert_nothing_left(&counters(&server));
        assert_eq!(Arc::strong_count(&held), 1);
    }
}

/// A worker that calls its own server is served by another worker; when every permit is held by one that waits for a
/// permit, waiting would never end, and the last to wait is told.
#[tokio::test(start_paused = true)]
async fn workers_that_all_wait_for_their_own_server_are_told() {
    for worker in [Worker::Actor, Worker::Task] {
        let server = server().worker(worker).max_in_flight(2).queue(8).start().await.unwrap();
        let (client, gate) = (server.client(), Gate::closed());
        assert_eq!(client.call(Do::CallSelf(client.clone(), opened())).await, Ok(1));
        let before = Instant::now();
        let calls = [0, 1].map(|_| {
            let (client, gate) = (client.clone(), gate.clone());
            tokio::spawn(async move { client.call(Do::CallSelf(client.clone(), gate)).await })
        });
        gate.until_waiting(2).await;
        gate.open();
        let mut outcomes = Vec::new();
        for call in calls {
            outcomes.push(call.await.unwrap());
        }
        outcomes.sort_by_key(Result::is_err);
        assert_eq!(outcomes, [Ok(1), Err(CallError::App("deadlock"))]);
        assert_eq!((Instant::now(), counters(&server)["refused_deadlock"]), (before, 1));
        server.actor().kill();
    }
}

fn opened() -> Gate {
    let gate = Gate::closed();
    gate.open();
    gate
}
