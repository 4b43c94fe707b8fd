//! Calls whose types, callers or times are out of the ordinary: drops that panic, waits that only look like circles,
//! times that no clock can express.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Do, Obedient, assert_nothing_left, counters, until};
use futures::StreamExt;
use plimsoll::call::{CallClient, CallContext, CallError, CallServer, Died, Part, Service, Sink, Worker};
use plimsoll::exit::ExitReason;
use plimsoll::server::{self, BoxError, Context, GenServer, Reply, Response, ServerRef};
use plimsoll_testkit::gate::Gate;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::{Instant, timeout};

/// Panics when it is dropped, unless it is a dud.
struct Bomb {
    dud: bool,
}

const DUD: Bomb = Bomb { dud: true };
const LIVE: Bomb = Bomb { dud: false };

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(self.dud || std::thread::panicking(), "a drop that panics");
    }
}

struct Handles;

enum Handle {
    /// Holds what it was sent.
    Hold(Bomb),
    /// Holds one of its own.
    HoldOwn(Bomb),
    /// Blocks its thread, then replies with the bomb.
    Block(std::sync::mpsc::Receiver<()>, Bomb),
}

impl Service for Handles {
    type Request = Handle;
    type Reply = Bomb;
    type Error = ();

    async fn call(&self, _: CallContext, what: Handle) -> Result<Bomb, ()> {
        match what {
            Handle::Hold(_held) | Handle::HoldOwn(_held) => std::future::pending().await,
            Handle::Block(release, reply) => {
                let _ = release.recv();
                Ok(reply)
            }
        }
    }
}

/// A request that waits for a permit until its deadline, and whose drop panics: its caller is told, and the server and its
/// clock live on.
#[tokio::test(start_paused = true)]
async fn a_queued_request_whose_drop_panics_ends_its_own_call_alone() {
    let server = CallServer::builder(Handles).max_in_flight(1).queue(4).start().await.unwrap();
    let client = server.client();
    let holder = tokio::spawn({
        let client = client.clone();
        async move { client.call_by(Handle::Hold(DUD), Instant::now() + Duration::from_secs(60)).await.map(drop) }
    });
    until(|| counters(&server)["workers"] == 1).await;
    for _ in 0..2 {
        let outcome = timeout(Duration::from_secs(10), client.call(Handle::Hold(LIVE))).await;
        assert_eq!(outcome.map(|outcome| outcome.map(drop)), Ok(Err(CallError::Timeout)));
    }
    assert!(client.is_open() && !holder.is_finished());
    assert_eq!(holder.await.unwrap(), Err(CallError::Timeout), "the clock still keeps time");
    until(|| counters(&server)["workers"] == 0).await;
    assert_nothing_left(&counters(&server));
}

/// What a cancelled service held may panic in its drop: the permit comes back, the server lives on.
#[tokio::test(start_paused = true)]
async fn a_worker_whose_drop_panics_gives_its_permit_back() {
    for worker in [Worker::Actor, Worker::Task] {
        let server = CallServer::builder(Handles).worker(worker).start().await.unwrap();
        for what in [Handle::Hold(LIVE), Handle::HoldOwn(LIVE)] {
            assert_eq!(server.client().call(what).await.map(drop), Err(CallError::Timeout));
            until(|| counters(&server)["workers"] == 0).await;
        }
        assert_nothing_left(&counters(&server));
        assert!(server.client().is_open());
    }
}

/// E-9: a reply that comes late and panics as it is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_reply_whose_drop_panics_ends_its_worker_alone() {
    for worker in [Worker::Actor, Worker::Task] {
        let server = CallServer::builder(Handles).worker(worker).start().await.unwrap();
        let (release, blocked) = std::sync::mpsc::channel();
        let soon = Instant::now() + Duration::from_millis(20);
        let outcome = server.client().call_by(Handle::Block(blocked, LIVE), soon).await;
        assert_eq!(outcome.map(drop), Err(CallError::Timeout));
        drop(release);
        let counters = || server.inspector().inspect().counters;
        for _ in 0..10_000 {
            if counters()["workers"] == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_nothing_left(&counters());
        assert!(server.client().is_open());
    }
}

/// Asks another server, and answers when its answer comes; meanwhile it serves.
struct Asks {
    other: Option<CallClient<AsksBack>>,
    owed: Option<Reply<Asks>>,
}

enum Ask {
    Other,
    Echo(u32),
}

impl GenServer for Asks {
    type Call = Ask;
    type Reply = u32;
    type Error = String;
    type Cast = CallClient<AsksBack>;
    type Message = Result<u32, String>;

    async fn call(&mut self, ask: Ask, ctx: &mut Context<Self>) -> Result<Response<Self>, BoxError> {
        match (ask, &self.other) {
            (Ask::Other, Some(other)) => {
                ctx.request(other, (), |result| result.map_err(|error| error.to_string()))
                    .map_err(|error| error.to_string())?;
                self.owed = ctx.take_reply();
                Ok(Response::Later)
            }
            (Ask::Other, None) => Ok(Response::Later),
            (Ask::Echo(n), _) => Ok(Response::Reply(n)),
        }
    }

    async fn cast(&mut self, other: CallClient<AsksBack>, _: &mut Context<Self>) -> Result<(), BoxError> {
        self.other = Some(other);
        Ok(())
    }

    async fn message(&mut self, answer: Self::Message, _: &mut Context<Self>) -> Result<(), BoxError> {
        if let Some(owed) = self.owed.take() {
            owed.send(answer);
        }
        Ok(())
    }
}

/// Whose workers ask whoever asked them.
struct AsksBack(ServerRef<Asks>);

impl Service for AsksBack {
    type Request = ();
    type Reply = u32;
    type Error = String;

    async fn call(&self, ctx: CallContext, (): ()) -> Result<u32, String> {
        ctx.client(&self.0).call(Ask::Echo(7)).await.map_err(|error| error.to_string())
    }
}

/// A request is not waited for: whoever serves it may call back.
#[tokio::test(start_paused = true)]
async fn a_request_whose_worker_calls_back_is_no_circle() {
    let asks = server::builder(Asks { other: None, owed: None }).start().await.unwrap();
    let back = CallServer::builder(AsksBack(asks.client())).start().await.unwrap();
    asks.client().cast(back.client()).unwrap();
    assert_eq!(asks.client().call(Ask::Other).await, Ok(7));
}

struct Nests;

enum Nest {
    Two(CallClient<Nests>),
    Pass(Gate),
}

impl Service for Nests {
    type Request = Nest;
    type Reply = ();
    type Error = String;

    async fn call(&self, ctx: CallContext, what: Nest) -> Result<(), String> {
        match what {
            Nest::Two(client) => {
                let (client, gate) = (ctx.client(&client), Gate::closed());
                gate.open();
                let both = futures::join!(client.call(Nest::Pass(gate.clone())), client.call(Nest::Pass(gate)));
                both.0.and(both.1).map_err(|error| error.to_string())
            }
            Nest::Pass(gate) => {
                gate.pass().await;
                Ok(())
            }
        }
    }
}

/// Two calls of one worker are one worker that waits: another that does not wait will give its permit back.
#[tokio::test(start_paused = true)]
async fn two_nested_calls_of_one_worker_are_one_that_waits() {
    let server = CallServer::builder(Nests).max_in_flight(2).queue(4).start().await.unwrap();
    let (client, gate) = (server.client(), Gate::closed());
    let other = tokio::spawn({
        let (client, gate) = (client.clone(), gate.clone());
        async move { client.call(Nest::Pass(gate)).await }
    });
    gate.until_waiting(1).await;
    let two = tokio::spawn(async move { client.call(Nest::Two(client.clone())).await });
    until(|| counters(&server)["waiting"] == 2).await;
    gate.open();
    assert_eq!((other.await.unwrap(), two.await.unwrap()), (Ok(()), Ok(())));
    // All of its permits being its own, nobody is left to give one back.
    let alone = CallServer::builder(Nests).max_in_flight(1).queue(4).start().await.unwrap();
    let told = alone.client().call(Nest::Two(alone.client())).await;
    assert!(matches!(&told, Err(CallError::App(text)) if text.starts_with("deadlock")), "{told:?}");
}

struct Times;

enum Time {
    After(Duration),
    Every(Duration),
    Badly,
    Never,
    Fired,
}

impl GenServer for Times {
    type Call = Time;
    type Reply = ();
    type Error = ();
    type Cast = ();
    type Message = ();

    async fn call(&mut self, time: Time, ctx: &mut Context<Self>) -> Result<Response<Self>, BoxError> {
        match time {
            Time::After(delay) => drop(ctx.send_after(delay, ())?),
            Time::Every(period) => drop(ctx.every(period, || ())?),
            Time::Badly => drop(ctx.every(Duration::from_millis(5), || panic!("made badly"))?),
            Time::Never => {
                let reply = ctx.take_reply();
                tokio::spawn(async move { (std::future::pending::<()>().await, reply) });
                return Ok(Response::Later);
            }
            Time::Fired => {}
        }
        Ok(Response::Reply(()))
    }

    async fn message(&mut self, (): (), _: &mut Context<Self>) -> Result<(), BoxError> {
        Err("it fired".into())
    }
}

/// A time that no clock can express never comes.
#[tokio::test(start_paused = true)]
async fn times_beyond_all_clocks_never_come() {
    for time in [Duration::MAX, Duration::from_millis(u64::MAX), Duration::from_secs(u64::MAX / 1_000)] {
        let server = server::builder(Times).idle(time).deadline(time).start().await.unwrap();
        let client = server.client();
        tokio::time::advance(Duration::from_millis(3)).await;
        assert_eq!(client.call(Time::After(time)).await, Ok(()), "{time:?}");
        assert_eq!(client.call(Time::Every(time)).await, Ok(()), "{time:?}");
        tokio::time::sleep(Duration::from_secs(100 * 86_400)).await;
        assert_eq!(client.call(Time::Fired).await, Ok(()), "{time:?}");
    }
}

/// What an interval's closure panics with is the server's end, and that of the calls that were open.
#[tokio::test(start_paused = true)]
async fn a_closure_of_an_interval_that_panics_is_the_servers_reason() {
    let server = server::builder(Times).start().await.unwrap();
    let client = server.client();
    let open = tokio::spawn({
        let client = client.clone();
        async move { client.call(Time::Never).await }
    });
    assert_eq!(client.call(Time::Badly).await, Ok(()));
    let outcome = open.await.unwrap();
    let Err(CallError::Died(Died::Exit(ExitReason::Failed(failure)))) = outcome else { panic!("{outcome:?}") };
    assert_eq!(&*failure.message, "made badly");
}

/// A cap of none is one of one: a server that refuses everything is of no use to anybody.
#[tokio::test(start_paused = true)]
async fn a_server_without_any_permit_has_one() {
    let worked = CallServer::builder(Obedient).max_in_flight(0).start().await.unwrap();
    assert_eq!(worked.client().call(Do::Echo(1)).await, Ok(1));
    let served = server::builder(Times).mailbox(0).start().await.unwrap();
    assert_eq!(served.client().call(Time::Fired).await, Ok(()));
}

struct Bystander;

impl Actor for Bystander {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// The calls of a dead caller are settled in slices: on the only thread there is, a call of somebody else is served while
/// most of them are still to come.
#[tokio::test]
async fn a_dead_callers_many_calls_let_others_through() {
    const CALLS: u64 = 50_000;
    let server =
        CallServer::builder(Obedient).worker(Worker::Task).max_in_flight(2 * CALLS as u32).start().await.unwrap();
    let (caller, ended) = Bystander::spawn(None, Bystander, ()).await.unwrap();
    let (bound, client) = (server.client().bind(&caller.get_cell()).unawaited(), server.client());
    let mut calls: Vec<_> = (0..CALLS).map(|_| bound.call(Do::Hold(Arc::default()))).collect();
    for call in &mut calls {
        assert!(futures::poll!(call).is_pending());
    }
    until(|| counters(&server)["workers"] == CALLS).await;
    caller.kill();
    ended.await.unwrap();
    assert_eq!(client.call(Do::Echo(1)).await, Ok(1));
    let left = counters(&server)["in_flight"];
    assert!(left > CALLS / 10, "only {left} of {CALLS} were left when somebody else had a turn");
    until(|| counters(&server)["in_flight"] == 0).await;
}

struct Streams;

impl Service for Streams {
    type Request = (u32, Sink<u32>, Gate);
    type Reply = ();
    type Error = ();

    async fn call(&self, _: CallContext, (items, sink, gate): Self::Request) -> Result<(), ()> {
        for n in 0..items {
            let _ = sink.send(n).await;
        }
        gate.pass().await;
        Ok(())
    }
}

/// What was handed over before the server was killed still arrives, then the reason, once.
#[tokio::test(start_paused = true)]
async fn a_stream_outlives_its_killed_server_for_what_was_handed_over() {
    for worker in [Worker::Actor, Worker::Task] {
        let mut server = CallServer::builder(Streams).worker(worker).start().await.unwrap();
        let gate = Gate::closed();
        let mut stream = server.client().stream(8, |sink| (3, sink, gate.clone()));
        assert_eq!(stream.next().await, Some(Ok(Part::Item(0))));
        gate.until_waiting(1).await;
        server.actor().kill();
        server.ended().await;
        assert_eq!(stream.next().await, Some(Ok(Part::Item(1))));
        assert_eq!(stream.next().await, Some(Ok(Part::Item(2))));
        assert_eq!(stream.next().await, Some(Err(CallError::Died(Died::Exit(ExitReason::Killed)))));
        assert_eq!(stream.next().await, None);
    }
}

/// The runtime of a server ends while a worker of it blocks its thread: a caller elsewhere is told, and does not wait for
/// that thread.
#[test]
fn the_end_of_a_runtime_with_a_blocked_worker_tells_callers_elsewhere() {
    for worker in [Worker::Actor, Worker::Task] {
        let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let callers = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = servers.block_on(CallServer::builder(Obedient).worker(worker).start()).unwrap();
        let (release, blocked) = std::sync::mpsc::channel();
        let outcome = callers.block_on(async {
            let mut call = server.client().call(Do::Block(blocked));
            assert!(futures::poll!(&mut call).is_pending());
            while server.inspector().inspect().counters["workers"] == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            servers.shutdown_background();
            timeout(Duration::from_secs(20), call).await
        });
        assert!(matches!(outcome, Ok(Err(CallError::Died(_) | CallError::Timeout))), "{worker:?}: {outcome:?}");
        drop(release);
    }
}
