//! What a caller gets: replies, errors, deadlines, and the order of what one sender sends.

use std::time::Duration;

use plimsoll::call::{CallError, Died, StartedServer, multi_call};
use plimsoll::exit::ExitReason;
use plimsoll_testkit::gate::Gate;
use plimsoll_testkit::probe::probe;
use tokio::time::Instant;

use crate::common::{assert_nothing_left, counters};
use crate::obeys::{Ask, Note, spawn, started};

#[tokio::test(start_paused = true)]
async fn otp_call_reply_and_the_servers_own_error() {
    let (server, _probe) = started().await;
    assert_eq!(server.client().call(Ask::Echo(5)).await, Ok(5));
    assert_eq!(server.client().call(Ask::Refuse).await, Err(CallError::App("no".to_owned())));
    assert_nothing_left(&counters(&server));
    assert_eq!(counters(&server)["method_echo_timed"], 1);
}

/// Row: deadline passes first; the late reply is dropped and counted. E-9.
#[tokio::test(start_paused = true)]
async fn otp_a_late_reply_is_dropped_and_counted() {
    let (server, _probe) = started().await;
    let before = Instant::now();
    assert_eq!(server.client().call(Ask::Keep).await, Err(CallError::Timeout));
    assert_eq!(before.elapsed(), Duration::from_secs(5));
    assert_eq!(counters(&server)["overrunning"], 1);
    server.client().cast(Note::AnswerKept(9)).unwrap();
    assert_eq!(server.client().call(Ask::Echo(2)).await, Ok(2));
    assert_eq!(counters(&server)["late_replies"], 1);
    assert_nothing_left(&counters(&server));
}

/// Row: reply sent by another task on the callee's behalf; and later, by the callee itself.
#[tokio::test(start_paused = true)]
async fn otp_delegated_and_delayed_replies_are_delivered() {
    let (server, _probe) = started().await;
    let gate = Gate::closed();
    let (delegated, delayed) = (spawn(&server, Ask::Delegate(gate.clone())), spawn(&server, Ask::Keep));
    gate.until_waiting(1).await;
    assert_eq!(server.client().call(Ask::Echo(3)).await, Ok(3));
    server.client().cast(Note::AnswerKept(2)).unwrap();
    assert_eq!(delayed.await.unwrap(), Ok(2));
    gate.open();
    assert_eq!(delegated.await.unwrap(), Ok(1));
    assert_nothing_left(&counters(&server));
}

/// Row: handler returns without replying, reply handle dropped.
#[tokio::test(start_paused = true)]
async fn otp_a_dropped_reply_handle_is_no_reply_at_once() {
    let (server, _probe) = started().await;
    assert_eq!(server.client().call(Ask::Forget).await, Err(Died::NoReply.into()));
    assert_eq!(server.client().call(Ask::Echo(1)).await, Ok(1));
    assert_nothing_left(&counters(&server));
}

/// Row: reply handle dropped, elsewhere or by the handler itself, while that runs on: the caller does not wait for it.
#[tokio::test(start_paused = true)]
async fn otp_a_reply_handle_dropped_while_its_handler_runs_is_no_reply_at_once() {
    let (server, _probe) = started().await;
    let (there, here) = (Gate::closed(), Gate::closed());
    let call = tokio::spawn({
        let (client, ask) = (server.client(), Ask::ForgetElsewhere(there.clone(), here.clone()));
        async move { client.call(ask).await }
    });
    here.until_waiting(1).await;
    let before = Instant::now();
    there.open();
    assert_eq!(call.await.unwrap(), Err(Died::NoReply.into()));
    here.open();
    let gate = Gate::closed();
    assert_eq!(server.client().call(Ask::ForgetThenPass(gate.clone())).await, Err(Died::NoReply.into()));
    gate.open();
    assert_eq!(server.client().call(Ask::Echo(1)).await, Ok(1));
    assert_eq!(Instant::now(), before, "nothing waited for a deadline");
    assert_nothing_left(&counters(&server));
}

/// Row: reason in `Died(reason)`: a handle that goes down with its failing handler was not forgotten.
#[tokio::test(start_paused = true)]
async fn otp_a_reply_handle_dropped_by_a_failing_handler_has_the_servers_reason() {
    let (server, _probe) = started().await;
    let outcome = server.client().call(Ask::ForgetAndFail("broke")).await;
    assert_eq!(outcome, Err(Died::Exit(ExitReason::failed("broke")).into()));
    let (server, _probe) = started().await;
    let gate = Gate::closed();
    let waiting = tokio::spawn({
        let (client, gate) = (server.client(), gate.clone());
        async move { client.call(Ask::Pass(gate)).await }
    });
    gate.until_waiting(1).await;
    server.actor().kill();
    assert_eq!(waiting.await.unwrap(), Err(Died::Exit(ExitReason::Killed).into()), "cut short, not forgotten");
}

/// Row: multi_call to N.
#[tokio::test(start_paused = true)]
async fn otp_multi_call_answers_in_order_with_one_deadline() {
    #[derive(Clone)]
    struct Quick;
    impl plimsoll::call::Service for Quick {
        type Request = u32;
        type Reply = u32;
        type Error = ();
        async fn call(&self, _: plimsoll::call::CallContext, n: u32) -> Result<u32, ()> {
            if n == 0 { std::future::pending().await } else { Ok(n) }
        }
    }
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(plimsoll::call::CallServer::builder(Quick).start().await.unwrap());
    }
    servers[1].actor().kill();
    servers[1].ended().await;
    let clients: Vec<_> = servers.iter().map(StartedServer::client).collect();
    let start = Instant::now();
    let outcomes = multi_call(&clients, 7, start + Duration::from_millis(100)).await;
    assert_eq!(outcomes, [Ok(7), Err(Died::NoProcess.into()), Ok(7)]);
    let outcomes = multi_call(&clients, 0, start + Duration::from_millis(100)).await;
    assert_eq!(outcomes, [Err(CallError::Timeout), Err(Died::NoProcess.into()), Err(CallError::Timeout)]);
    assert_eq!(start.elapsed(), Duration::from_millis(100));
}

/// Row: messages between one pair arrive in the order sent.
#[tokio::test(start_paused = true)]
async fn otp_one_senders_casts_and_calls_arrive_in_order() {
    let (server, mut probe) = started().await;
    let client = server.client();
    client.cast(Note::Say("one")).unwrap();
    client.cast(Note::Say("two")).unwrap();
    client.call(Ask::Continue).await.unwrap();
    client.cast(Note::Say("three")).unwrap();
    assert_eq!(probe.take(4).await, ["one", "two", "continued", "three"]);
}

/// The reply to a request arrives as a message, and the server works on meanwhile.
#[tokio::test(start_paused = true)]
async fn a_request_is_answered_by_a_message() {
    let (ann, mut heard) = started().await;
    let (ben, _probe) = started().await;
    let gate = Gate::closed();
    let ask = Ask::Request(ben.client(), Box::new(Ask::Pass(gate.clone())));
    assert_eq!(ann.client().call(ask).await, Ok(0));
    gate.until_waiting(1).await;
    assert_eq!((ann.client().call(Ask::Echo(6)).await, counters(&ann)["requests"]), (Ok(6), 1));
    gate.open();
    assert_eq!(heard.next().await, "answered");
    assert_eq!((counters(&ann)["requests"], counters(&ben)["bound_callers"]), (0, 0));
}

/// Deadlines travel with nested calls and only ever shrink.
#[tokio::test(start_paused = true)]
async fn a_nested_calls_deadline_is_that_of_the_outer_one() {
    let (ann, _heard) = started().await;
    let (ben, _probe) = started().await;
    let (mark, mut seen) = probe(1);
    let deadline = Instant::now() + Duration::from_millis(70);
    let ask = Ask::Call(ben.client(), Box::new(Ask::Deadline(mark)));
    assert_eq!(ann.client().call_by(ask, deadline).await, Ok(0));
    assert_eq!(seen.next().await, Some(deadline));
}
