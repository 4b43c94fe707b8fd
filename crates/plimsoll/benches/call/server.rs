//! A plain call to a server that owns its state, and a bounded send.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll::call::{CallClient, CallServer, Protocol, Worker};
use plimsoll::mailbox::{Bounded, MailboxBuilder};
use plimsoll::server::{self, BoxError, Context, Server, ServerRef};
use plimsoll::supervisor::{Child, ChildSpec, Supervisor};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::{Notify, mpsc};

use crate::report::{Row, median, ns_each};
use crate::{Increment, callers};

#[derive(Default)]
pub struct Adder(u64);

impl Server for Adder {
    type Call = u64;
    type Reply = u64;

    async fn call(&mut self, n: u64, _: &mut Context<Self>) -> Result<u64, BoxError> {
        self.0 += n;
        Ok(self.0)
    }
}

pub struct RactorAdder;

impl Actor for RactorAdder {
    type Msg = (u64, RpcReplyPort<u64>);
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        (n, reply): Self::Msg,
        sum: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        *sum += n;
        let _ = reply.send(*sum);
        Ok(())
    }
}

#[derive(kameo::Actor)]
struct KameoAdder(u64);

impl kameo::message::Message<u64> for KameoAdder {
    type Reply = u64;

    async fn handle(&mut self, n: u64, _: &mut kameo::message::Context<Self, Self::Reply>) -> u64 {
        self.0 += n;
        self.0
    }
}

pub const DEADLINE: Duration = Duration::from_secs(5);

pub async fn plain_calls(rows: &mut Vec<Row>) {
    let ours_ = server::builder(Adder::default()).mailbox(4_096).start().await.expect("starts");
    let (ractor, _) = RactorAdder::spawn(None, RactorAdder, ()).await.expect("starts");
    let kameo = <KameoAdder as kameo::actor::Spawn>::spawn(KameoAdder(0));
    for n in [1, 64] {
        let calls = 50_000;
        let (mut ours, mut of_ractor, mut of_kameo) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..11 {
            let client = ours_.client();
            let call = move || {
                let client = client.clone();
                async move { client.call(1).await.map(|_| ()).expect("a reply") }
            };
            ours.push(callers(n, calls, call).await);
            let actor = ractor.clone();
            let call = move || {
                let actor = actor.clone();
                async move {
                    let answer = actor.call(|reply| (1, reply), Some(DEADLINE)).await.expect("sent");
                    assert!(answer.is_success());
                }
            };
            of_ractor.push(callers(n, calls, call).await);
            let actor = kameo.clone();
            let call = move || {
                let actor = actor.clone();
                async move { assert!(actor.ask(1_u64).reply_timeout(DEADLINE).await.is_ok()) }
            };
            of_kameo.push(callers(n, calls, call).await);
        }
        let (ours, of_ractor, of_kameo) = (median(ours), median(of_ractor), median(of_kameo));
        let goal = |theirs: f64, other: f64| match n {
            1 => Some(1.0),
            _ => (theirs <= other).then_some(1.1),
        };
        let what = format!("plain call with deadline, {n} callers");
        rows.push(Row::against(
            what.clone(),
            ours,
            "ns",
            "ractor call with timeout",
            of_ractor,
            goal(of_ractor, of_kameo),
        ));
        rows.push(Row::against(what, ours, "ns", "kameo ask with reply_timeout", of_kameo, goal(of_kameo, of_ractor)));
    }
    ours_.actor().stop(None);
    ractor.stop(None);
    kameo.kill();
}

/// Through a client of a child against one of its incarnation, for both kinds of server.
pub async fn calls_through_handles(rows: &mut Vec<Row>) {
    let adder = ChildSpec::new("adder", |parent| async {
        server::builder(Adder::default()).mailbox(4_096).start_linked(parent).await.map(Child::from)
    });
    let increment = ChildSpec::new("increment", |parent| async {
        let server = CallServer::builder(Increment).worker(Worker::Task).max_in_flight(4_096);
        server.start_linked(parent).await.map(Child::from)
    });
    let tree = Supervisor::builder("top").child(adder).child(increment).start().await.expect("starts");
    let plain: Arc<ServerRef<Adder>> = tree.child("adder").expect("runs").value().expect("a client");
    let handle = tree.server_ref::<Adder>("adder").expect("runs");
    against(rows, "server", &plain, &handle).await;
    let plain: Arc<CallClient<Increment>> = tree.child("increment").expect("runs").value().expect("a client");
    let handle = tree.call_client::<Increment>("increment").expect("runs");
    against(rows, "call server, task worker", &plain, &handle).await;
    tree.stop().await.expect("stops");
}

async fn against<P>(rows: &mut Vec<Row>, what: &str, plain: &CallClient<P>, handle: &CallClient<P>)
where
    P: Protocol<Request = u64, Error: std::fmt::Debug>,
{
    for n in [1, 64] {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..11 {
            for (client, times) in [(handle, &mut ours), (plain, &mut bare)] {
                let client = client.clone();
                let call = move || {
                    let client = client.clone();
                    async move { client.call(1).await.map(|_| ()).expect("a reply") }
                };
                times.push(callers(n, 50_000, call).await);
            }
        }
        let what = format!("call through a handle, {what}, {n} callers");
        rows.push(Row::against(what, median(ours), "ns", "a client of the incarnation", median(bare), Some(1.1)));
    }
}

pub struct BoundedSink(pub u64, pub Arc<Notify>);

impl Actor for BoundedSink {
    type Msg = Bounded<u64>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        bounded: Bounded<u64>,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if bounded.into_message() == Some(self.0) {
            self.1.notify_one();
        }
        Ok(())
    }
}

pub struct RactorSink(pub u64, pub Arc<Notify>);

impl Actor for RactorSink {
    type Msg = u64;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<u64>, n: u64, (): &mut ()) -> Result<(), ActorProcessingErr> {
        if n == self.0 {
            self.1.notify_one();
        }
        Ok(())
    }
}

const SENDS: u64 = 50_000;

pub async fn sends(rows: &mut Vec<Row>) {
    let last = SENDS - 1;
    let notes = [(), (), ()].map(|()| Arc::new(Notify::new()));
    let sink = BoundedSink(last, Arc::clone(&notes[0]));
    let (bounded, _) = MailboxBuilder::messages(SENDS as u32).spawn(None, sink, ()).await.expect("starts");
    let (bare, _) = RactorSink::spawn(None, RactorSink(last, Arc::clone(&notes[1])), ()).await.expect("starts");
    let (sender, mut receiver) = mpsc::channel(SENDS as usize);
    let done = Arc::clone(&notes[2]);
    tokio::spawn(async move {
        while let Some(n) = receiver.recv().await {
            if n == last {
                done.notify_one();
            }
        }
    });
    let mut times = [(); 6].map(|()| Vec::new());
    for _ in 0..15 {
        for (which, send) in [
            &(|n| assert!(bounded.send(n).is_ok())) as &(dyn Fn(u64) + Sync),
            &|n| assert!(bare.send_message(n).is_ok()),
            &|n| assert!(sender.try_send(n).is_ok()),
        ]
        .into_iter()
        .enumerate()
        {
            let start = Instant::now();
            (0..SENDS).for_each(send);
            times[which].push(ns_each(start.elapsed(), SENDS as usize));
            notes[which].notified().await;
            times[which + 3].push(ns_each(start.elapsed(), SENDS as usize));
        }
    }
    let [ours, cast, mpsc, ours_handled, cast_handled, mpsc_handled] = times.map(median);
    rows.push(Row::against("bounded send, the send alone", ours, "ns", "ractor cast", cast, Some(1.25)));
    rows.push(Row::against("bounded send, until handled", ours_handled, "ns", "ractor cast", cast_handled, Some(1.25)));
    rows.push(Row::against("bounded send, the send alone", ours, "ns", "tokio mpsc", mpsc, None));
    rows.push(Row::against("bounded send, until handled", ours_handled, "ns", "tokio mpsc", mpsc_handled, None));
    bounded.actor().stop(None);
    bare.stop(None);
}
