//! Ends of a server or of its callers, with calls in flight and queued.

use std::sync::Arc;

use plimsoll::call::{CallError, Died, Overload};
use plimsoll::exit::ExitReason;
use plimsoll::server::{self, CastError};
use plimsoll_testkit::gate::Gate;
use plimsoll_testkit::probe::probe;
use tokio::time::Instant;

use crate::common::{assert_nothing_left, counters, until};
use crate::obeys::{Ask, Note, Obeys, died, obeys, spawn, started};

/// Row: callee already gone.
#[tokio::test(start_paused = true)]
async fn otp_a_callee_that_is_gone_is_no_process_at_once() {
    let (mut server, _probe) = started().await;
    server.actor().stop(None);
    server.ended().await;
    let before = Instant::now();
    assert_eq!(server.client().call(Ask::Echo(1)).await, Err(Died::NoProcess.into()));
    assert_eq!(Instant::now(), before);
    assert_eq!(server.client().cast(Note::Say("x")), Err(CastError::NoProcess));
}

/// Row: callee dies before replying, by any reason; that is the reason of `Died`, also for what was queued.
#[tokio::test(start_paused = true)]
async fn otp_a_callee_that_dies_settles_with_its_reason() {
    let reason = |why: &str| ExitReason::failed(why);
    for (ask, expected) in [(Ask::Fail("bad"), reason("bad")), (Ask::Panic("worse"), reason("worse"))] {
        let (mut server, _probe) = started().await;
        let gate = Gate::closed();
        let first = spawn(&server, Ask::Pass(gate.clone()));
        gate.until_waiting(1).await;
        let (kept, fatal, queued) = (spawn(&server, Ask::Keep), spawn(&server, ask), spawn(&server, Ask::Echo(1)));
        until(|| counters(&server)["in_flight"] == 4).await;
        server.client().cast(Note::Say("never")).unwrap();
        gate.open();
        assert_eq!(first.await.unwrap(), Ok(0));
        for call in [kept, fatal, queued] {
            assert_eq!(call.await.unwrap(), died(expected.clone()));
        }
        server.ended().await;
        assert_nothing_left(&counters(&server));
        assert_eq!(counters(&server)["casts_dropped"], 1);
    }
}

/// Row: callee ends normally, or with a reason of its own, without replying.
#[tokio::test(start_paused = true)]
async fn otp_a_callee_that_stops_itself_is_died_with_that_reason() {
    let (mut server, mut probe) = started().await;
    assert_eq!(server.client().call(Ask::StopNormally).await, died(ExitReason::Normal));
    server.ended().await;
    assert_eq!(probe.next().await, "stopped");
    let (server, _probe) = started().await;
    let upgrade = ExitReason::ShutdownWith { reason: "upgrade".into() };
    assert_eq!(server.client().call(Ask::StopWith("upgrade")).await, died(upgrade));
}

/// Row: caller dies: also while the server is at something else, and while it drains.
#[tokio::test(start_paused = true)]
async fn otp_a_dead_callers_queued_calls_go_while_the_server_is_busy_or_drains() {
    let (server, _probe) = started().await;
    for drains in [false, true] {
        let (mark, _caller_probe) = probe(1);
        let caller = server::builder(Obeys::new(mark, None)).start().await.unwrap();
        let gate = Gate::closed();
        let busy = tokio::spawn({
            let (client, gate) = (server.client(), gate.clone());
            async move { client.call(Ask::Pass(gate)).await }
        });
        gate.until_waiting(1).await;
        let bound = server.client().bind(&caller.actor()).unawaited();
        let call = tokio::spawn(async move { bound.call(Ask::Echo(1)).await });
        until(|| counters(&server)["in_flight"] == 2).await;
        let before = Instant::now();
        if drains {
            server.actor().stop(None);
        }
        caller.actor().kill();
        assert_eq!(call.await.unwrap(), Err(CallError::Cancelled));
        assert_eq!((Instant::now(), counters(&server)["in_flight"]), (before, 1));
        gate.open();
        assert_eq!(busy.await.unwrap(), Ok(0));
    }
}

/// Row: callee stopping gracefully: what was queued before is served, the rest is told.
#[tokio::test(start_paused = true)]
async fn otp_a_stopping_server_serves_what_was_queued() {
    let (mut server, mut probe) = started().await;
    let gate = Gate::closed();
    let first = spawn(&server, Ask::Pass(gate.clone()));
    gate.until_waiting(1).await;
    let queued = spawn(&server, Ask::Echo(4));
    until(|| counters(&server)["in_flight"] == 2).await;
    server.actor().stop(Some("shutdown".to_owned()));
    gate.open();
    assert_eq!((first.await.unwrap(), queued.await.unwrap()), (Ok(0), Ok(4)));
    server.ended().await;
    assert_eq!(probe.next().await, "stopped");
    assert_nothing_left(&counters(&server));
}

/// Row: settable to in-flight only.
#[tokio::test(start_paused = true)]
async fn otp_a_stopping_server_can_leave_the_queue() {
    let (builder, _probe) = obeys();
    let mut server = builder.serve_queued_on_stop(false).start().await.unwrap();
    let gate = Gate::closed();
    let first = spawn(&server, Ask::Pass(gate.clone()));
    gate.until_waiting(1).await;
    let queued = spawn(&server, Ask::Echo(4));
    until(|| counters(&server)["in_flight"] == 2).await;
    server.actor().stop(None);
    gate.open();
    assert_eq!((first.await.unwrap(), queued.await.unwrap()), (Ok(0), Err(CallError::ShuttingDown)));
    server.ended().await;
}

/// Row: callee killed with a full mailbox: every queued call gets `Died`, every credit comes back.
#[tokio::test(start_paused = true)]
async fn otp_a_killed_server_with_a_full_mailbox_settles_all() {
    let (builder, _probe) = obeys();
    let mut server = builder.mailbox(4).start().await.unwrap();
    let gate = Gate::closed();
    let calls: Vec<_> = [Ask::Pass(gate.clone()), Ask::Echo(1), Ask::Echo(2)].map(|ask| spawn(&server, ask)).into();
    until(|| counters(&server)["in_flight"] == 3).await;
    gate.until_waiting(1).await;
    server.client().cast(Note::Say("never")).unwrap();
    let full = Overload::InFlight { in_flight: 4, limit: 4 };
    assert_eq!(server.client().cast(Note::Say("full")), Err(CastError::Overloaded(full)));
    assert_eq!(server.client().call(Ask::Echo(3)).await, Err(full.into()));
    server.actor().kill();
    for call in calls {
        assert_eq!(call.await.unwrap(), died(ExitReason::Killed));
    }
    server.ended().await;
    assert_nothing_left(&counters(&server));
    assert_eq!((counters(&server)["casts_dropped"], counters(&server)["casts_refused"]), (1, 1));
}

/// Row: callee's name is taken over by another actor: a call in flight is never answered by the newcomer.
#[tokio::test(start_paused = true)]
async fn otp_a_successor_of_the_same_name_replies_to_no_call_of_the_old_one() {
    let (mark, _probe) = probe(8);
    let mut old = server::builder(Obeys::new(mark.clone(), None)).name("throne").start().await.unwrap();
    let call = spawn(&old, Ask::Keep);
    until(|| counters(&old)["workers"] == 1).await;
    old.actor().kill();
    old.ended().await;
    let new = server::builder(Obeys::new(mark, None)).name("throne").start().await.unwrap();
    assert_eq!(call.await.unwrap(), died(ExitReason::Killed));
    assert_eq!(old.client().call(Ask::Echo(1)).await, Err(Died::NoProcess.into()));
    assert_eq!(counters(&new)["started"], 0);
}

/// A request ends with the server that made it.
#[tokio::test(start_paused = true)]
async fn a_request_ends_with_its_server() {
    let (ann, _heard) = started().await;
    let (ben, _probe) = started().await;
    let ask = Ask::Request(ben.client(), Box::new(Ask::Keep));
    ann.client().call(ask).await.unwrap();
    until(|| counters(&ben)["workers"] == 1).await;
    ann.actor().kill();
    until(|| counters(&ben)["settled_cancelled"] == 1).await;
}

/// State is dropped when the server dies, not when somebody looks at its exit event.
#[tokio::test(start_paused = true)]
async fn a_dead_servers_state_is_gone_with_it() {
    let (mut server, mut probe) = started().await;
    let held = Arc::new(());
    assert_eq!(server.client().call(Ask::Echo(1)).await, Ok(1));
    drop(held);
    server.actor().kill();
    server.ended().await;
    probe.assert_ended().await;
}
