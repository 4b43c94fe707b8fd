//! OTP's gen_server, case by case: `docs/semantics.md`, section "Calls".

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{assert_nothing_left, counters, until};
use plimsoll::call::{CallClient, CallError, Died, Overload, StartedServer, multi_call};
use plimsoll::exit::ExitReason;
use plimsoll::server::{self, BoxError, CastError, Reply, Server, ServerBuilder, Serving, TimerKey, Turn};
use plimsoll_testkit::gate::Gate;
use plimsoll_testkit::probe::{Mark, Probe, probe};
use tokio::time::Instant;

/// A server that does what it is told and notes what it did.
struct Obeys {
    mark: Mark<&'static str>,
    kept: Vec<Reply<Self>>,
    timer: Option<TimerKey>,
}

enum Ask {
    Echo(u32),
    Forget,
    /// Drop the reply handle in another task, at the first gate; the handler waits at the second.
    ForgetElsewhere(Gate, Gate),
    /// Drop the reply handle, then wait.
    ForgetThenPass(Gate),
    /// Drop the reply handle and fail in the same breath.
    ForgetAndFail(&'static str),
    Keep,
    Fail(&'static str),
    Panic(&'static str),
    Refuse,
    StopNormally,
    StopWith(&'static str),
    Pass(Gate),
    Delegate(Gate),
    Continue,
    CallMyself,
    Call(CallClient<Serving<Obeys>>, Box<Ask>),
    Request(CallClient<Serving<Obeys>>, Box<Ask>),
    After(Duration),
    Every(Duration),
    CancelTimer,
    Deadline(Mark<Option<Instant>>),
}

enum Note {
    Say(&'static str),
    Wait(Gate),
    AnswerKept(u32),
}

impl Server for Obeys {
    type Args = (Mark<&'static str>, Option<&'static str>);
    type Call = Ask;
    type Reply = u32;
    type Error = String;
    type Cast = Note;
    type Message = &'static str;

    async fn init((mark, first): Self::Args, turn: &mut Turn<Self>) -> Result<Self, BoxError> {
        match first {
            Some("fail") => return Err("init failed".into()),
            Some(message) => turn.continue_with(message),
            None => {}
        }
        Ok(Self { mark, kept: Vec::new(), timer: None })
    }

    async fn call(&mut self, ask: Ask, reply: Reply<Self>, turn: &mut Turn<Self>) -> Result<(), BoxError> {
        match ask {
            Ask::Echo(n) => {
                reply.ok(n);
            }
            Ask::Forget => drop(reply),
            Ask::ForgetElsewhere(there, here) => {
                tokio::spawn(async move {
                    there.pass().await;
                    drop(reply);
                });
                here.pass().await;
            }
            Ask::ForgetThenPass(gate) => {
                drop(reply);
                gate.pass().await;
            }
            Ask::ForgetAndFail(why) => {
                drop(reply);
                return Err(why.into());
            }
            Ask::Keep => self.kept.push(reply),
            Ask::Fail(why) => return Err(why.into()),
            Ask::Panic(why) => panic!("{why}"),
            Ask::Refuse => {
                reply.err("no".to_owned());
            }
            Ask::StopNormally => {
                self.kept.push(reply);
                turn.stop(None);
            }
            Ask::StopWith(why) => {
                self.kept.push(reply);
                turn.stop(Some(why));
            }
            Ask::Pass(gate) => {
                gate.pass().await;
                reply.ok(0);
            }
            Ask::Delegate(gate) => {
                tokio::spawn(async move {
                    gate.pass().await;
                    reply.ok(1);
                });
            }
            Ask::Continue => {
                reply.ok(0);
                turn.continue_with("continued");
            }
            Ask::CallMyself => {
                let outcome = turn.client(&turn.myself()).call(Ask::Echo(1)).await;
                reply.send(outcome.map_err(|error| error.to_string()));
            }
            Ask::Call(other, ask) => {
                let outcome = turn.client(&other).call(*ask).await;
                reply.send(outcome.map_err(|error| error.to_string()));
            }
            Ask::Request(other, ask) => {
                let asked = turn.request(&other, *ask, |answer| if answer.is_ok() { "answered" } else { "refused" });
                reply.send(asked.map(|()| 0).map_err(|error| error.to_string()));
            }
            Ask::After(delay) => {
                self.timer = Some(turn.send_after(delay, "after")?);
                reply.ok(0);
            }
            Ask::Every(period) => {
                self.timer = Some(turn.every(period, || "tick")?);
                reply.ok(0);
            }
            Ask::CancelTimer => {
                let was = self.timer.take().is_some_and(|timer| turn.cancel(timer));
                reply.ok(u32::from(was));
            }
            Ask::Deadline(mark) => {
                mark.note(turn.deadline());
                reply.ok(0);
            }
        }
        Ok(())
    }

    async fn cast(&mut self, note: Note, _: &mut Turn<Self>) -> Result<(), BoxError> {
        match note {
            Note::Say(what) => self.mark.note(what),
            Note::Wait(gate) => gate.pass().await,
            Note::AnswerKept(n) => self.kept.drain(..).for_each(|reply| {
                reply.ok(n);
            }),
        }
        Ok(())
    }

    async fn message(&mut self, message: &'static str, _: &mut Turn<Self>) -> Result<(), BoxError> {
        self.mark.note(message);
        if message == "fail" { Err("continuation failed".into()) } else { Ok(()) }
    }

    async fn idle(&mut self, _: &mut Turn<Self>) -> Result<(), BoxError> {
        self.mark.note("idle");
        Ok(())
    }

    async fn stopped(&mut self, _: &mut Turn<Self>) -> Result<(), BoxError> {
        self.mark.note("stopped");
        Ok(())
    }

    fn method(ask: &Ask) -> &'static str {
        if let Ask::Echo(_) = ask { "echo" } else { "other" }
    }
}

type Started = StartedServer<Serving<Obeys>>;

fn obeys() -> (ServerBuilder<Obeys>, Probe<&'static str>) {
    let (mark, probe) = probe(64);
    (server::builder((mark, None)), probe)
}

async fn started() -> (Started, Probe<&'static str>) {
    let (builder, probe) = obeys();
    (builder.start().await.unwrap(), probe)
}

/// The outcome of a call made in a task of its own.
fn spawn(server: &Started, ask: Ask) -> tokio::task::JoinHandle<Result<u32, CallError<String>>> {
    let client = server.client();
    tokio::spawn(async move { client.call(ask).await })
}

fn died(reason: ExitReason) -> Result<u32, CallError<String>> {
    Err(Died::Exit(reason).into())
}

#[tokio::test(start_paused = true)]
async fn otp_call_reply_and_the_servers_own_error() {
    let (server, _probe) = started().await;
    assert_eq!(server.client().call(Ask::Echo(5)).await, Ok(5));
    assert_eq!(server.client().call(Ask::Refuse).await, Err(CallError::App("no".to_owned())));
    assert_nothing_left(&counters(&server));
    assert_eq!(counters(&server)["method_echo_timed"], 1);
}

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

/// Row: caller dies: also while the server is at something else, and while it drains.
#[tokio::test(start_paused = true)]
async fn otp_a_dead_callers_queued_calls_go_while_the_server_is_busy_or_drains() {
    let (server, _probe) = started().await;
    for drains in [false, true] {
        let (mark, _caller_probe) = probe(1);
        let caller = server::builder::<Obeys>((mark, None)).start().await.unwrap();
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

/// Row: server calls itself.
#[tokio::test(start_paused = true)]
async fn otp_a_server_that_calls_itself_is_told_at_once() {
    let (mark, _probe) = probe(1);
    let server = server::builder::<Obeys>((mark, None)).name("narcissus").start().await.unwrap();
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
    let start = |name: &str| server::builder::<Obeys>((mark.clone(), None)).name(name).start();
    let (ann, ben) = (start("ann").await.unwrap(), start("ben").await.unwrap());
    let back = Ask::Call(ann.client(), Box::new(Ask::Echo(1)));
    let before = Instant::now();
    let outcome = ann.client().call(Ask::Call(ben.client(), Box::new(back))).await;
    let inner = "deadlock: ben waits for ann waits for ben";
    assert!(matches!(&outcome, Err(CallError::App(text)) if text.contains("answered with an error")), "{outcome:?}");
    assert_eq!((Instant::now(), counters(&ann)["refused_deadlock"]), (before, 1));
    // Without the outer call there is no circle, and the same call goes through.
    assert_eq!(ben.client().call(Ask::Call(ann.client(), Box::new(Ask::Echo(1)))).await, Ok(1), "{inner}");
}

/// Row: continuation asked for by init or a handler.
#[tokio::test(start_paused = true)]
async fn otp_continuations_run_before_anything_queued() {
    let (mark, mut probe) = probe(8);
    let gate = Gate::closed();
    let server = server::builder::<Obeys>((mark, Some("first"))).start().await.unwrap();
    server.client().cast(Note::Wait(gate.clone())).unwrap();
    gate.until_waiting(1).await;
    let call = spawn(&server, Ask::Continue);
    until(|| counters(&server)["in_flight"] == 1).await;
    server.client().cast(Note::Say("queued")).unwrap();
    gate.open();
    assert_eq!(call.await.unwrap(), Ok(0));
    assert_eq!(probe.take(3).await, ["first", "continued", "queued"]);
}

/// Row: a failure of init's continuation comes after a successful start; a failure of init is a failed start.
#[tokio::test(start_paused = true)]
async fn otp_a_failing_continuation_of_init_comes_after_the_start() {
    let (mark, mut probe) = probe(8);
    assert!(server::builder::<Obeys>((mark.clone(), Some("fail"))).start().await.is_err());
    let mut server = server::builder::<Obeys>((mark, Some("boom"))).start().await.unwrap();
    assert_eq!(probe.next().await, "boom");
    server.actor().kill();
    server.ended().await;
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
async fn otp_a_newcomer_of_the_same_name_answers_nothing_of_the_old_one() {
    let (mark, _probe) = probe(8);
    let mut old = server::builder::<Obeys>((mark.clone(), None)).name("throne").start().await.unwrap();
    let call = spawn(&old, Ask::Keep);
    until(|| counters(&old)["workers"] == 1).await;
    old.actor().kill();
    old.ended().await;
    let new = server::builder::<Obeys>((mark, None)).name("throne").start().await.unwrap();
    assert_eq!(call.await.unwrap(), died(ExitReason::Killed));
    assert_eq!(old.client().call(Ask::Echo(1)).await, Err(Died::NoProcess.into()));
    assert_eq!(counters(&new)["started"], 0);
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

#[tokio::test(start_paused = true)]
async fn timers_fire_once_or_again_and_can_be_cancelled() {
    let (server, mut probe) = started().await;
    let client = server.client();
    let start = Instant::now();
    client.call(Ask::After(Duration::from_millis(30))).await.unwrap();
    assert_eq!(probe.next().await, "after");
    assert_eq!(start.elapsed(), Duration::from_millis(30));
    assert_eq!(client.call(Ask::CancelTimer).await, Ok(0), "it has fired");
    client.call(Ask::Every(Duration::from_secs(1))).await.unwrap();
    let start = Instant::now();
    assert_eq!(probe.take(3).await, ["tick", "tick", "tick"]);
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    assert_eq!(client.call(Ask::CancelTimer).await, Ok(1));
    tokio::time::advance(Duration::from_secs(10)).await;
    client.call(Ask::Echo(1)).await.unwrap();
    assert!(probe.waiting().is_empty());
    assert_eq!(counters(&server)["own_timers"], 0);
}

/// OTP's hibernate: idle once, and again only after something came.
#[tokio::test(start_paused = true)]
async fn an_idle_server_is_told_once() {
    let (builder, mut probe) = obeys();
    let server = builder.idle(Duration::from_secs(2)).start().await.unwrap();
    let start = Instant::now();
    assert_eq!(probe.next().await, "idle");
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::task::yield_now().await;
    assert!(probe.waiting().is_empty());
    server.client().call(Ask::Echo(1)).await.unwrap();
    let start = Instant::now();
    assert_eq!(probe.next().await, "idle");
    assert_eq!(start.elapsed(), Duration::from_secs(2));
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
