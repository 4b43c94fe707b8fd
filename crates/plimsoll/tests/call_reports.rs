//! Public bug reports of other call and mailbox layers, each one's kind tried against ours.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Do, assert_nothing_left, counters, until};
use futures::FutureExt;
use parking_lot::Mutex;
use plimsoll::call::{CallClient, CallContext, CallError, CallServer, Died, Service};
use plimsoll::mailbox::{Bounded, BoundedRef, MailboxBuilder, Overflow, SendError};
use plimsoll::server::{self, BoxError, Context, GenServer, Response, ServerRef};
use plimsoll_testkit::gate::Gate;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::{Instant, sleep, timeout};

/// Does one of a few things, and notes the messages it gets.
#[derive(Default)]
struct Node {
    seen: Arc<Mutex<Vec<String>>>,
}

enum Ask {
    Echo(u32),
    Pass(Gate),
    /// Call the other and return its outcome as text.
    Call(ServerRef<Node>, Box<Ask>, Duration),
    /// The same without waiting: the result arrives as a message.
    Request(ServerRef<Node>, Box<Ask>, Duration),
    /// Send to a mailbox, waiting for room.
    Send(BoundedRef<Letter>, Letter),
    /// Cast to oneself this many times; how many were refused.
    CastToSelf(u32),
}

impl GenServer for Node {
    type Call = Ask;
    type Reply = String;
    type Error = String;
    type Cast = u32;
    type Message = String;

    async fn call(&mut self, ask: Ask, ctx: &mut Context<Self>) -> Result<Response<Self>, BoxError> {
        Ok(Response::Reply(match ask {
            Ask::Echo(n) => n.to_string(),
            Ask::Pass(gate) => {
                gate.pass().await;
                "passed".to_owned()
            }
            Ask::Call(other, ask, time) => format!("{:?}", ctx.client(&other).call_timeout(*ask, time).await),
            Ask::Request(other, ask, time) => {
                let other = other.with_deadline(Instant::now() + time);
                ctx.request(&other, *ask, |result| format!("{result:?}")).map_err(|error| error.to_string())?;
                "requested".to_owned()
            }
            Ask::Send(to, letter) => match to.send_timeout(letter, Duration::from_secs(60)).await {
                Ok(_) => "sent".to_owned(),
                Err(error) => error.to_string(),
            },
            Ask::CastToSelf(n) => {
                let myself = ctx.myself();
                (0..n).filter(|n| myself.cast(*n).is_err()).count().to_string()
            }
        }))
    }

    async fn cast(&mut self, n: u32, _: &mut Context<Self>) -> Result<(), BoxError> {
        self.seen.lock().push(n.to_string());
        Ok(())
    }

    async fn message(&mut self, message: String, _: &mut Context<Self>) -> Result<(), BoxError> {
        self.seen.lock().push(message);
        Ok(())
    }
}

/// A message for [`Postbox`].
enum Letter {
    Note(u32),
    Pass(Gate),
    /// Send this to the mailbox, waiting for room, and note how that ended.
    Forward(BoundedRef<Letter>, Box<Letter>),
    Call(ServerRef<Node>, Box<Ask>),
    Forwarder(CallClient<Forwarder>, BoundedRef<Letter>),
}

/// Sends to a mailbox on behalf of its caller.
struct Forwarder;

impl Service for Forwarder {
    type Request = BoundedRef<Letter>;
    type Reply = String;
    type Error = std::convert::Infallible;

    async fn call(&self, _: CallContext, to: BoundedRef<Letter>) -> Result<String, Self::Error> {
        Ok(match to.send_timeout(Letter::Note(1), Duration::from_secs(60)).await {
            Ok(_) => "sent".to_owned(),
            Err(error) => error.to_string(),
        })
    }
}

struct Postbox(Arc<Mutex<Vec<String>>>);

impl Actor for Postbox {
    type Msg = Bounded<Letter>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        letter: Self::Msg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match letter.into_message() {
            Some(Letter::Note(n)) => self.0.lock().push(n.to_string()),
            Some(Letter::Pass(gate)) => gate.pass().await,
            Some(Letter::Forward(to, letter)) => {
                let outcome = to.send_timeout(*letter, Duration::from_secs(60)).await;
                let noted = match outcome {
                    Ok(_) => "forwarded".to_owned(),
                    Err(SendError::Deadlock(cycle, _)) => format!("deadlock of {}", cycle.len() - 1),
                    Err(error) => error.to_string(),
                };
                self.0.lock().push(noted);
            }
            Some(Letter::Call(server, ask)) => {
                let outcome = server.bind(&myself.get_cell()).call(*ask).await;
                self.0.lock().push(format!("{outcome:?}"));
            }
            Some(Letter::Forwarder(server, to)) => {
                let outcome = server.bind(&myself.get_cell()).call(to).await;
                self.0.lock().push(format!("{outcome:?}"));
            }
            None => {}
        }
        Ok(())
    }
}

type Noted = Arc<Mutex<Vec<String>>>;

async fn postbox(size: u32) -> (BoundedRef<Letter>, Noted) {
    let noted = Noted::default();
    let builder = MailboxBuilder::messages(size).overflow(Overflow::Wait);
    let (sender, _) = builder.spawn(None, Postbox(Arc::clone(&noted)), ()).await.unwrap();
    (sender, noted)
}

/// kameo 335 (github.com/tqwewe/kameo/issues/335): a call to an actor that had stopped stayed in its buffer and never ended,
/// and the caller's handler with it.
#[tokio::test(start_paused = true)]
async fn a_handler_that_calls_a_stopped_server_goes_on() {
    let mut parent = server::builder(Node::default()).start().await.unwrap();
    let child = server::builder(Node::default()).start().await.unwrap();
    let before = Instant::now();
    parent.actor().stop(None);
    parent.ended().await;
    let ask = Ask::Call(parent.client(), Box::new(Ask::Echo(1)), Duration::from_secs(60));
    assert_eq!(child.client().call(ask).await.unwrap(), "Err(Died(NoProcess))");
    assert_eq!(before.elapsed(), Duration::ZERO);
    // The same with the call under way when the parent is killed.
    let parent = server::builder(Node::default()).start().await.unwrap();
    let gate = Gate::closed();
    let ask = Ask::Call(parent.client(), Box::new(Ask::Pass(gate.clone())), Duration::from_secs(60));
    let calling = tokio::spawn({
        let client = child.client();
        async move { client.call(ask).await }
    });
    gate.until_waiting(1).await;
    parent.actor().kill();
    assert_eq!(calling.await.unwrap().unwrap(), "Err(Died(Exit(Killed)))");
    assert_nothing_left(&counters(&parent));
}

/// kameo 84 (github.com/tqwewe/kameo/pull/84): a small mailbox that was full before the actor had started blocked it for ever.
#[tokio::test(start_paused = true)]
async fn a_server_that_fills_its_own_mailbox_is_refused_and_runs_on() {
    let seen = Noted::default();
    let server = server::builder(Node { seen: Arc::clone(&seen) }).mailbox(2).start().await.unwrap();
    assert_eq!(server.client().call(Ask::CastToSelf(5)).await.unwrap(), "4", "the call itself holds one place");
    assert_eq!(server.client().call(Ask::Echo(7)).await.unwrap(), "7");
    assert_eq!(*seen.lock(), ["0"]);
    assert_eq!(counters(&server)["casts_refused"], 4);
    assert_nothing_left(&counters(&server));
}

/// actix 534 (github.com/actix/actix/issues/534) and quasar 283: after its mailbox had been full once an actor got nothing more.
#[tokio::test(start_paused = true)]
async fn a_mailbox_that_was_full_takes_messages_again() {
    for round in 0..3 {
        let (sender, noted) = postbox(4).await;
        let gate = Gate::closed();
        sender.send(Letter::Pass(gate.clone())).unwrap();
        gate.until_waiting(1).await;
        let refused = (0..50).filter(|n| sender.send(Letter::Note(*n)).is_err()).count();
        assert_eq!(refused, 46, "round {round}");
        gate.open();
        until(|| noted.lock().len() == 4).await;
        for n in 50..100 {
            sender.send_timeout(Letter::Note(n), Duration::from_secs(1)).await.unwrap();
        }
        until(|| noted.lock().len() == 54).await;
        assert_eq!(noted.lock().last().map(String::as_str), Some("99"));
    }
}

/// apollo-router 9034 (github.com/apollographql/router/pull/9034): a task that had used up its cooperative budget was told that
/// the service is overloaded, with permits free.
#[tokio::test(start_paused = true)]
async fn a_task_without_budget_is_not_overloaded() {
    let server = common::server().max_in_flight(4).start().await.unwrap();
    let client = server.client();
    let outcomes = tokio::spawn(async move {
        // No await point yields: every poll below happens in one poll of this task, past its budget.
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        (0..1_000).for_each(|n| sender.send(n).unwrap());
        while receiver.recv().now_or_never().flatten().is_some() {}
        let mut outcomes = Vec::new();
        for n in 0..4 {
            outcomes.push(client.call(Do::Echo(n)).await);
        }
        outcomes
    });
    assert_eq!(outcomes.await.unwrap(), [Ok(0), Ok(1), Ok(2), Ok(3)]);
    assert_eq!(counters(&server)["refused_in_flight"], 0);
}

/// tower 561 (github.com/tower-rs/tower/issues/561): once the inner service was not ready, the worker was never polled again.
#[tokio::test(start_paused = true)]
async fn a_handler_that_waited_does_not_stall_what_is_behind_it() {
    let server = server::builder(Node::default()).start().await.unwrap();
    let gate = Gate::closed();
    let first = tokio::spawn({
        let (client, gate) = (server.client(), gate.clone());
        async move { client.call(Ask::Pass(gate)).await }
    });
    gate.until_waiting(1).await;
    let behind: Vec<_> = (0..200)
        .map(|n| {
            let client = server.client();
            tokio::spawn(async move { client.call(Ask::Echo(n)).await })
        })
        .collect();
    sleep(Duration::from_secs(3)).await;
    gate.open();
    assert_eq!(first.await.unwrap().unwrap(), "passed");
    for (n, call) in behind.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap(), n.to_string());
    }
    assert_nothing_left(&counters(&server));
}

/// elle 1249 (github.com/elle-lisp/elle/issues/1249) and erlang/otp 2884: the late reply of a call that had timed out was taken
/// for something else by its caller.
#[tokio::test(start_paused = true)]
async fn a_late_reply_is_never_that_of_the_next_call() {
    let server = server::builder(Node::default()).start().await.unwrap();
    let client = server.client();
    for n in 0..20 {
        let gate = Gate::closed();
        let outcome = client.call_timeout(Ask::Pass(gate.clone()), Duration::from_millis(5)).await;
        assert_eq!(outcome, Err(CallError::Timeout));
        let next = tokio::spawn({
            let client = client.clone();
            async move { client.call(Ask::Echo(n)).await }
        });
        tokio::task::yield_now().await;
        gate.open();
        assert_eq!(next.await.unwrap().unwrap(), n.to_string());
    }
    assert_eq!((counters(&server)["late_replies"], counters(&server)["overrunning"]), (20, 0));
    assert_nothing_left(&counters(&server));
}

/// emqx 10455 (github.com/emqx/emqx/pull/10455): the late reply to a worker's inner call reached a caller that had its time-out.
#[tokio::test(start_paused = true)]
async fn a_request_that_times_out_brings_one_message_and_no_late_one() {
    let seen = Noted::default();
    let outer = server::builder(Node { seen: Arc::clone(&seen) }).start().await.unwrap();
    let inner = server::builder(Node::default()).start().await.unwrap();
    let gate = Gate::closed();
    let ask = Ask::Request(inner.client(), Box::new(Ask::Pass(gate.clone())), Duration::from_millis(20));
    assert_eq!(outer.client().call(ask).await.unwrap(), "requested");
    gate.until_waiting(1).await;
    sleep(Duration::from_millis(30)).await;
    assert_eq!(*seen.lock(), ["Err(Timeout)"]);
    gate.open();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(*seen.lock(), ["Err(Timeout)"], "the late reply is dropped");
    assert_eq!((counters(&inner)["late_replies"], counters(&outer)["requests"]), (1, 0));
    assert_nothing_left(&counters(&inner));
}

/// tokio 3215 (github.com/tokio-rs/tokio/pull/3215): a permit that was granted to a sender which does not run kept a closing
/// channel open.
#[tokio::test(start_paused = true)]
async fn a_granted_caller_that_does_not_run_does_not_hold_up_the_stop() {
    let mut server = server::builder(Node::default()).mailbox(1).queue(4).start().await.unwrap();
    let gate = Gate::closed();
    let first = tokio::spawn({
        let (client, gate) = (server.client(), gate.clone());
        async move { client.call(Ask::Pass(gate)).await }
    });
    gate.until_waiting(1).await;
    let mut frozen = Box::pin(server.client().call_timeout(Ask::Echo(1), Duration::from_secs(3_600)));
    assert!(frozen.as_mut().now_or_never().is_none());
    gate.open();
    first.await.unwrap().unwrap();
    let before = Instant::now();
    server.actor().stop(None);
    timeout(Duration::from_secs(2), server.ended()).await.expect("a frozen caller is not waited for");
    assert!(before.elapsed() <= Duration::from_millis(200), "{:?}", before.elapsed());
    assert_eq!(frozen.await, Err(CallError::ShuttingDown));
    // The router of a call server has the same duty.
    let mut server = common::server().max_in_flight(1).queue(4).start().await.unwrap();
    let gate = Gate::closed();
    let first = tokio::spawn({
        let (client, gate) = (server.client(), gate.clone());
        async move { client.call(Do::Pass(gate)).await }
    });
    gate.until_waiting(1).await;
    let mut frozen = Box::pin(server.client().call_timeout(Do::Echo(1), Duration::from_secs(3_600)));
    assert!(frozen.as_mut().now_or_never().is_none());
    gate.open();
    first.await.unwrap().unwrap();
    until(|| counters(&server)["workers"] == 0).await;
    server.actor().stop(None);
    timeout(Duration::from_secs(2), server.ended()).await.expect("a frozen caller is not waited for");
    assert_eq!(frozen.await, Err(CallError::ShuttingDown));
    assert_nothing_left(&counters(&server));
}

/// tokio 8075 (github.com/tokio-rs/tokio/pull/8075): a permit that was released unused did not wake a closing receiver.
#[tokio::test(start_paused = true)]
async fn a_granted_caller_that_leaves_during_the_drain_ends_it() {
    let mut server = common::server().max_in_flight(1).queue(1).start().await.unwrap();
    let gate = Gate::closed();
    let first = tokio::spawn({
        let (client, gate) = (server.client(), gate.clone());
        async move { client.call(Do::Pass(gate)).await }
    });
    gate.until_waiting(1).await;
    let mut granted = Box::pin(server.client().call(Do::Echo(1)));
    assert!(granted.as_mut().now_or_never().is_none());
    server.actor().stop(None);
    tokio::task::yield_now().await;
    gate.open();
    first.await.unwrap().unwrap();
    tokio::task::yield_now().await;
    let before = Instant::now();
    drop(granted);
    timeout(Duration::from_secs(1), server.ended()).await.expect("the drain ends");
    assert!(before.elapsed() < Duration::from_millis(50), "{:?}", before.elapsed());
    assert_nothing_left(&counters(&server));
}

/// tokio 2637 (github.com/tokio-rs/tokio/issues/2637): the memory of a channel stayed that of its largest number of waiters.
#[tokio::test(start_paused = true)]
async fn the_memory_of_many_waiters_can_be_given_back() {
    let server = common::server().max_in_flight(1).queue(20_000).start().await.unwrap();
    let gate = Gate::closed();
    let first = tokio::spawn({
        let (client, gate) = (server.client(), gate.clone());
        async move { client.call(Do::Pass(gate)).await }
    });
    gate.until_waiting(1).await;
    let mut waiting: Vec<_> = (0..10_000).map(|n| Box::pin(server.client().call(Do::Echo(n)))).collect();
    assert!(waiting.iter_mut().all(|call| call.as_mut().now_or_never().is_none()));
    assert_eq!(counters(&server)["waiting"], 10_000);
    drop(waiting);
    assert_eq!((counters(&server)["waiting"], counters(&server)["in_flight"]), (0, 1));
    assert!(server.client().compact(2) > 10_000 * 24, "slots and timers of the waiters");
    gate.open();
    first.await.unwrap().unwrap();
}

/// wavelength 394 (github.com/lightninglabs/wavelength/issues/394) and akka 15317: actors that wait for room in each other's full
/// mailboxes waited for ever.
#[tokio::test(start_paused = true)]
async fn actors_that_wait_for_each_others_mailboxes_are_deadlocked_at_once() {
    // One actor and its own mailbox.
    let (own, noted) = postbox(1).await;
    let before = Instant::now();
    let gate = Gate::closed();
    own.send(Letter::Pass(gate.clone())).unwrap();
    gate.until_waiting(1).await;
    own.send(Letter::Forward(own.clone(), Box::new(Letter::Note(1)))).unwrap();
    gate.open();
    // Its mailbox is full again before it comes to the letter.
    own.send_timeout(Letter::Note(2), Duration::from_secs(1)).await.unwrap();
    until(|| noted.lock().len() == 2).await;
    assert_eq!(*noted.lock(), ["deadlock of 1", "2"]);
    assert_eq!(before.elapsed(), Duration::ZERO);
    // Two actors.
    let ((ann, of_ann), (ben, of_ben)) = (postbox(1).await, postbox(1).await);
    let (gate_of_ann, gate_of_ben) = (Gate::closed(), Gate::closed());
    ann.send(Letter::Pass(gate_of_ann.clone())).unwrap();
    ben.send(Letter::Pass(gate_of_ben.clone())).unwrap();
    gate_of_ann.until_waiting(1).await;
    gate_of_ben.until_waiting(1).await;
    ann.send(Letter::Forward(ben.clone(), Box::new(Letter::Note(1)))).unwrap();
    ben.send(Letter::Forward(ann.clone(), Box::new(Letter::Note(2)))).unwrap();
    gate_of_ann.open();
    ann.send_timeout(Letter::Note(3), Duration::from_secs(1)).await.unwrap();
    until(|| counters_of(&ben)["waiting"] == 1).await;
    gate_of_ben.open();
    until(|| of_ann.lock().len() == 2 && of_ben.lock().len() == 2).await;
    assert_eq!((of_ben.lock()[0].as_str(), of_ann.lock()[0].as_str()), ("deadlock of 2", "forwarded"));
    // An actor that awaits a server whose handler waits for room in the actor's mailbox.
    let (own, noted) = postbox(1).await;
    let server = server::builder(Node::default()).start().await.unwrap();
    let gate = Gate::closed();
    own.send(Letter::Pass(gate.clone())).unwrap();
    gate.until_waiting(1).await;
    let ask = Ask::Send(own.clone(), Letter::Note(1));
    own.send(Letter::Call(server.client(), Box::new(ask))).unwrap();
    gate.open();
    own.send_timeout(Letter::Note(2), Duration::from_secs(1)).await.unwrap();
    until(|| noted.lock().len() == 2).await;
    assert!(noted.lock()[0].contains("deadlock: "), "{:?}", noted.lock());
    assert_eq!(before.elapsed(), Duration::ZERO);
    // The same with a call server, whose worker waits.
    let (own, noted) = postbox(1).await;
    let server = CallServer::builder(Forwarder).start().await.unwrap();
    let gate = Gate::closed();
    own.send(Letter::Pass(gate.clone())).unwrap();
    gate.until_waiting(1).await;
    own.send(Letter::Forwarder(server.client(), own.clone())).unwrap();
    gate.open();
    own.send_timeout(Letter::Note(2), Duration::from_secs(1)).await.unwrap();
    until(|| noted.lock().len() == 2).await;
    assert!(noted.lock()[0].contains("deadlock: "), "{:?}", noted.lock());
    assert_eq!(before.elapsed(), Duration::ZERO);
    // A wait that is no cycle is a wait, also in a handler.
    let (other, of_other) = postbox(1).await;
    let gate = Gate::closed();
    other.send(Letter::Pass(gate.clone())).unwrap();
    gate.until_waiting(1).await;
    other.send(Letter::Note(5)).unwrap();
    own.send(Letter::Forward(other.clone(), Box::new(Letter::Note(6)))).unwrap();
    until(|| counters_of(&other)["waiting"] == 1).await;
    gate.open();
    until(|| of_other.lock().len() == 2).await;
    assert_eq!(noted.lock().last().map(String::as_str), Some("forwarded"));
}

fn counters_of(sender: &BoundedRef<Letter>) -> std::collections::BTreeMap<String, u64> {
    sender.inspector().inspect().counters.into()
}

/// actor-ts 915 and 1192 (github.com/pathosDev/actor-ts): a stop waited behind the whole backlog, and a terminating actor with a
/// queued message spun until its last child had ended.
#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_behind_the_backlog_and_does_not_spin() {
    let mut server =
        server::builder(Node::default()).serve_queued_on_stop(false).mailbox(20_000).start().await.unwrap();
    let gate = Gate::closed();
    let first = tokio::spawn({
        let (client, gate) = (server.client(), gate.clone());
        async move { client.call_timeout(Ask::Pass(gate), Duration::from_secs(3_600)).await }
    });
    gate.until_waiting(1).await;
    let mut backlog: Vec<_> = (0..10_000).map(|n| Box::pin(server.client().call(Ask::Echo(n)))).collect();
    assert!(backlog.iter_mut().all(|call| call.as_mut().now_or_never().is_none()));
    server.actor().stop(None);
    // Time that is paused advances only while nothing spins.
    timeout(Duration::from_secs(30), server.ended()).await.expect_err("its handler is running");
    for call in backlog {
        assert_eq!(call.now_or_never(), Some(Err(CallError::ShuttingDown)), "at once");
    }
    gate.open();
    server.ended().await;
    assert_eq!(first.await.unwrap().unwrap(), "passed");
    assert_nothing_left(&counters(&server));
}

/// akka.net 2358 (github.com/akkadotnet/akka.net/issues/2358): the longest time-out there is hung.
#[tokio::test(start_paused = true)]
async fn the_longest_timeout_is_a_timeout() {
    let server = server::builder(Node::default()).start().await.unwrap();
    assert_eq!(server.client().call_timeout(Ask::Echo(1), Duration::MAX).await.unwrap(), "1");
    let (sender, noted) = postbox(1).await;
    sender.send_timeout(Letter::Note(1), Duration::MAX).await.unwrap();
    until(|| noted.lock().len() == 1).await;
    server.actor().kill();
    let outcome = server.client().call_timeout(Ask::Echo(1), Duration::MAX).await;
    assert!(matches!(outcome, Err(CallError::Died(Died::NoProcess | Died::Exit(_)))), "{outcome:?}");
}
