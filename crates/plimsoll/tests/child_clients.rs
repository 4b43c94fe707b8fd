//! Clients of children: they survive restarts, say when there is no incarnation, and a request reaches one incarnation at most.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use plimsoll::call::{CallClient, CallContext, CallError, CallServer, Died, Part, Service, Sink, Worker};
use plimsoll::exit::ExitReason;
use plimsoll::server::{self, BoxError, CastError, Context, GenServer, Response, ServerRef};
use plimsoll::supervisor::{
    Backoff, Child, ChildError, ChildSpec, DynamicSupervisor, Restart, Strategy, Supervisor, SupervisorBuilder,
    SupervisorRef,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::time::Instant;

/// What was handled, by number, by all incarnations.
type Handled = Arc<Mutex<HashMap<u64, u32>>>;

fn note(handled: &Handled, number: u64) {
    *handled.lock().unwrap().entry(number).or_default() += 1;
}

/// A gen_server: replies with the number of its incarnation.
struct Counts {
    handled: Handled,
    incarnation: u32,
    /// What it calls in `Do::CallOther`.
    other: Option<ServerRef<Self>>,
}

#[derive(Clone)]
enum Do {
    Handle(u64),
    Wait(u64),
    Fail(u64),
    /// Calls this client in the handler.
    Call(ServerRef<Counts>),
    Know(ServerRef<Counts>),
    CallOther,
    Busy(Duration),
}

impl GenServer for Counts {
    type Call = Do;
    type Reply = u32;
    type Error = String;
    type Cast = u64;
    type Message = ();

    async fn call(&mut self, call: Do, ctx: &mut Context<Self>) -> Result<Response<Self>, BoxError> {
        match call {
            Do::Handle(number) => note(&self.handled, number),
            Do::Wait(number) => {
                note(&self.handled, number);
                std::future::pending::<()>().await;
            }
            Do::Fail(number) => {
                note(&self.handled, number);
                return Err("asked to fail".into());
            }
            Do::Call(client) => return Ok(self.call_in_handler(&client, Do::Handle(0), ctx).await),
            Do::Know(client) => self.other = Some(client),
            Do::CallOther => {
                let client = self.other.clone().expect("it was told");
                return Ok(self.call_in_handler(&client, Do::Call(client.clone()), ctx).await);
            }
            Do::Busy(time) => tokio::time::sleep(time).await,
        }
        Ok(Response::Reply(self.incarnation))
    }

    async fn cast(&mut self, number: u64, _: &mut Context<Self>) -> Result<(), BoxError> {
        note(&self.handled, number);
        Ok(())
    }
}

impl Counts {
    async fn call_in_handler(&self, client: &ServerRef<Self>, call: Do, ctx: &Context<Self>) -> Response<Self> {
        match ctx.client(client).call(call).await {
            Ok(reply) => Response::Reply(reply),
            Err(error) => Response::Error(error.to_string()),
        }
    }
}

type Starts = (Handled, Arc<AtomicU32>);

async fn start(parent: ActorCell, (handled, starts): Starts) -> Result<Child, SpawnErr> {
    let incarnation = 1 + starts.fetch_add(1, Ordering::Relaxed);
    let server = server::builder(Counts { handled, incarnation, other: None });
    server.deadline(Duration::from_millis(300)).start_linked(parent).await.map(Child::from)
}

fn counts(id: &str, handled: &Handled) -> ChildSpec {
    let starts = Arc::new(AtomicU32::new(0));
    ChildSpec::with(id, (handled.clone(), starts), start).backoff(Backoff::constant(Duration::from_millis(50)))
}

fn top() -> SupervisorBuilder {
    Supervisor::builder("top").intensity(u32::MAX, Duration::from_secs(1))
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

fn kill(tree: &SupervisorRef, id: &str) {
    tree.child(id).unwrap().actor().kill();
}

/// Handled numbers with how often, in order.
fn handled_by(handled: &Handled) -> Vec<(u64, u32)> {
    let mut all: Vec<_> = handled.lock().unwrap().iter().map(|(number, times)| (*number, *times)).collect();
    all.sort_unstable();
    all
}

#[tokio::test(start_paused = true)]
async fn a_client_of_a_child_calls_the_incarnation_that_runs() {
    let handled = Handled::default();
    let tree = top().child(counts("a", &handled)).start().await.unwrap();
    let client = tree.server_ref::<Counts>("a").unwrap();
    assert_eq!(client.call(Do::Handle(1)).await, Ok(1));
    client.cast(2).unwrap();
    pass(1).await;
    kill(&tree, "a");
    pass(10).await;
    assert_eq!(client.call(Do::Handle(3)).await, Err(CallError::Restarting));
    assert_eq!(client.cast(4), Err(CastError::Restarting));
    assert!(!client.is_open());
    let (waited, cast) = (client.wait_for_restart(), client.cast_within(6, Duration::from_millis(200)));
    let (call, cast) = tokio::join!(waited.call(Do::Handle(5)), cast);
    assert_eq!((call, cast), (Ok(2), Ok(())));
    pass(1).await;
    assert_eq!(client.call(Do::Handle(7)).await, Ok(2));
    assert!(client.is_open());
    assert_eq!(handled_by(&handled), [(1, 1), (2, 1), (5, 1), (6, 1), (7, 1)]);
    tree.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_in_flight_when_the_child_exits_is_died_and_not_repeated() {
    let handled = Handled::default();
    let tree = top().child(counts("a", &handled)).start().await.unwrap();
    let client = tree.server_ref::<Counts>("a").unwrap().wait_for_restart();
    // One is being handled, one is queued.
    let first = tokio::spawn(client.call(Do::Wait(1)));
    pass(1).await;
    let second = tokio::spawn(client.call(Do::Handle(2)));
    pass(1).await;
    kill(&tree, "a");
    let killed = || Err(CallError::Died(Died::Exit(ExitReason::Killed)));
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (killed(), killed()));
    let failed = client.call(Do::Fail(3)).await;
    assert!(matches!(failed, Err(CallError::Died(Died::Exit(ExitReason::Failed(_))))), "{failed:?}");
    assert_eq!(client.call(Do::Handle(4)).await, Ok(3));
    assert_eq!(handled_by(&handled), [(1, 1), (3, 1), (4, 1)]);
    tree.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_of_a_child_that_is_gone_is_no_process() {
    let handled = Handled::default();
    let temporary = counts("temporary", &handled).restart(Restart::Temporary);
    let tree = top().child(counts("a", &handled)).child(temporary).start().await.unwrap();
    let no_process = || Err(CallError::Died(Died::NoProcess));
    let gone = tree.server_ref::<Counts>("temporary").unwrap().wait_for_restart();
    kill(&tree, "temporary");
    pass(1).await;
    assert_eq!(gone.call(Do::Handle(1)).await, no_process());
    assert_eq!(gone.cast(2), Err(CastError::NoProcess));
    let client = tree.server_ref::<Counts>("a").unwrap().wait_for_restart();
    tree.terminate_child("a").await.unwrap();
    assert_eq!(client.call(Do::Handle(3)).await, no_process());
    tree.restart_child("a").await.unwrap();
    assert_eq!(client.call(Do::Handle(4)).await, Ok(2), "started by hand");
    kill(&tree, "a");
    pass(1).await;
    let waiting = tokio::spawn(client.call_timeout(Do::Handle(5), Duration::from_secs(60)));
    let casting = tokio::spawn({
        let client = client.clone();
        async move { client.cast_within(6, Duration::from_secs(60)).await }
    });
    pass(1).await;
    tree.terminate_child("a").await.unwrap();
    tree.delete_child("a").await.unwrap();
    assert_eq!((waiting.await.unwrap(), casting.await.unwrap()), (no_process(), Err(CastError::NoProcess)));
    tree.start_child(counts("a", &handled)).await.unwrap();
    assert_eq!(client.call(Do::Handle(7)).await, no_process(), "another child of the same id is another child");
    let last = tree.server_ref::<Counts>("a").unwrap().wait_for_restart();
    kill(&tree, "a");
    pass(1).await;
    let waiting = tokio::spawn(last.call_timeout(Do::Handle(8), Duration::from_secs(60)));
    pass(1).await;
    tree.stop().await.unwrap();
    assert_eq!(waiting.await.unwrap(), no_process(), "the tree is gone");
    assert_eq!(handled_by(&handled), [(4, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_while_the_child_restarts_ends_the_wait() {
    let handled = Handled::default();
    let slow = counts("a", &handled).backoff(Backoff::constant(Duration::from_secs(10)));
    let tree = top().child(slow).start().await.unwrap();
    let client = tree.server_ref::<Counts>("a").unwrap().wait_for_restart();
    client.call(Do::Handle(1)).await.unwrap();
    kill(&tree, "a");
    pass(1).await;
    let began = Instant::now();
    let restarting = client.call_timeout(Do::Handle(2), Duration::from_millis(200)).await;
    assert_eq!((restarting, began.elapsed().as_millis() / 10), (Err(CallError::Restarting), 20));
    assert!(CallError::<()>::Restarting.never_ran());
    let began = Instant::now();
    assert_eq!(client.call(Do::Handle(3)).await, Err(CallError::Restarting));
    assert_eq!(began.elapsed().as_millis() / 10, 30, "the default deadline of the last incarnation");
    let began = Instant::now();
    let cast = client.cast_within(4, Duration::from_millis(100)).await;
    assert_eq!((cast, began.elapsed().as_millis() / 10), (Err(CastError::Restarting), 10));
    assert_eq!(client.call_by(Do::Handle(5), Instant::now()).await, Err(CallError::Timeout), "it has passed already");
    assert_eq!(handled_by(&handled), [(1, 1)]);
    tree.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_by_path_survives_restarts_of_the_supervisors_above() {
    let handled = Handled::default();
    let inner = handled.clone();
    let nested = ChildSpec::supervisor("gateway", move || {
        Supervisor::builder("gateway").intensity(u32::MAX, Duration::from_secs(1)).child(counts("sessions", &inner))
    });
    let tree = top().child(nested.backoff(Backoff::constant(Duration::from_millis(50)))).start().await.unwrap();
    let client = tree.server_ref::<Counts>("gateway/sessions").unwrap().wait_for_restart();
    assert!(matches!(tree.server_ref::<Counts>("gateway/nobody"), Err(ChildError::NotFound)));
    assert_eq!(client.call(Do::Handle(1)).await, Ok(1));
    assert!(client.call(Do::Fail(2)).await.is_err());
    assert_eq!(client.call(Do::Handle(3)).await, Ok(2));
    kill(&tree, "gateway");
    pass(10).await;
    assert_eq!(
        tree.server_ref::<Counts>("gateway/sessions").unwrap().call(Do::Handle(4)).await,
        Err(CallError::Restarting)
    );
    assert_eq!(client.call(Do::Handle(5)).await, Ok(1), "a new child of a new supervisor");
    tree.terminate_child("gateway").await.unwrap();
    assert_eq!(client.call(Do::Handle(6)).await, Err(CallError::Died(Died::NoProcess)));
    assert_eq!(handled_by(&handled), [(1, 1), (2, 1), (3, 1), (5, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_client_of_a_dynamic_child_survives_its_restarts() {
    let handled = Handled::default();
    let starts: Starts = (handled.clone(), Arc::new(AtomicU32::new(0)));
    let builder = DynamicSupervisor::builder("many", move |parent, ()| start(parent, starts.clone()));
    let builder = builder.intensity(u32::MAX, Duration::from_secs(1)).restart(Restart::Transient);
    let tree = builder.backoff(Backoff::constant(Duration::from_millis(50))).start().await.unwrap();
    let child = tree.start_child(()).await.unwrap();
    tree.start_child(()).await.unwrap();
    let client = tree.server_ref::<Counts>(child.actor().get_id()).unwrap();
    assert_eq!(client.call(Do::Handle(1)).await, Ok(1));
    child.actor().kill();
    pass(10).await;
    assert_eq!(client.call(Do::Handle(2)).await, Err(CallError::Restarting));
    assert_eq!(client.wait_for_restart().call(Do::Handle(3)).await, Ok(3));
    assert!(matches!(tree.server_ref::<Counts>(child.actor().get_id()), Err(ChildError::NotFound)));
    tree.stop().await.unwrap();
    assert_eq!(client.wait_for_restart().call(Do::Handle(4)).await, Err(CallError::Died(Died::NoProcess)));
    assert_eq!(handled_by(&handled), [(1, 1), (3, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_stopping_incarnation_refuses_goes_to_its_successor() {
    let handled = Handled::default();
    let tree = top().strategy(Strategy::OneForAll).child(counts("a", &handled)).child(counts("b", &handled));
    let tree = tree.start().await.unwrap();
    let (a, b) = (tree.server_ref::<Counts>("a").unwrap(), tree.server_ref::<Counts>("b").unwrap());
    // It drains for a while when its sibling fails.
    let busy = tokio::spawn(a.call(Do::Busy(Duration::from_millis(100))));
    pass(1).await;
    assert!(b.call(Do::Fail(1)).await.is_err());
    pass(1).await;
    assert_eq!(a.call(Do::Handle(2)).await, Err(CallError::ShuttingDown));
    assert_eq!(a.cast(3), Err(CastError::ShuttingDown));
    let (waiting, cast) = (a.wait_for_restart(), a.cast_within(5, Duration::from_secs(1)));
    let (call, cast) = tokio::join!(waiting.call(Do::Handle(4)), cast);
    assert_eq!((busy.await.unwrap(), call, cast), (Ok(1), Ok(2), Ok(())));
    pass(1).await;
    assert_eq!(handled_by(&handled), [(1, 1), (4, 1), (5, 1)]);
    tree.stop().await.unwrap();
}

struct Idle;

impl Actor for Idle {
    type Msg = u32;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<u32>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_through_a_handle_ends_with_its_linked_caller() {
    let handled = Handled::default();
    let tree = top().child(counts("a", &handled)).start().await.unwrap();
    let client = tree.server_ref::<Counts>("a").unwrap().wait_for_restart();
    let (one, _) = Actor::spawn(None, Idle, ()).await.unwrap();
    let (two, _) = Actor::spawn(None, Idle, ()).await.unwrap();
    let (first, second) = (client.bind(&one.get_cell()), client.bind(&two.get_cell()));
    // Bound to two incarnations one after the other.
    assert_eq!(first.call(Do::Handle(1)).await, Ok(1));
    kill(&tree, "a");
    pass(1).await;
    assert_eq!(first.call(Do::Handle(2)).await, Ok(2));
    let call = tokio::spawn(first.call(Do::Wait(3)));
    pass(1).await;
    let began = Instant::now();
    one.kill();
    assert_eq!(call.await.unwrap(), Err(CallError::Cancelled));
    // One that waits for a restart.
    kill(&tree, "a");
    pass(1).await;
    let call = tokio::spawn(second.call(Do::Handle(4)));
    pass(1).await;
    two.kill();
    assert_eq!(call.await.unwrap(), Err(CallError::Cancelled));
    assert!(began.elapsed() < Duration::from_millis(20), "at once");
    assert_eq!(client.call(Do::Handle(5)).await, Ok(3));
    assert_eq!(second.call(Do::Handle(6)).await, Err(CallError::Cancelled));
    assert_eq!(handled_by(&handled), [(1, 1), (2, 1), (3, 1), (5, 1)]);
    tree.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_restart_can_be_dropped() {
    let handled = Handled::default();
    let tree = top().child(counts("a", &handled)).start().await.unwrap();
    let client = tree.server_ref::<Counts>("a").unwrap().wait_for_restart();
    kill(&tree, "a");
    pass(1).await;
    assert!(tokio::time::timeout(Duration::from_millis(5), client.call(Do::Handle(1))).await.is_err());
    assert_eq!(client.call(Do::Handle(2)).await, Ok(2));
    assert_eq!(handled_by(&handled), [(2, 1)]);
    tree.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cycle_of_waits_through_handles_is_a_deadlock() {
    let handled = Handled::default();
    let tree = top().child(counts("a", &handled)).child(counts("b", &handled)).start().await.unwrap();
    let (a, b) = (tree.server_ref::<Counts>("a").unwrap(), tree.server_ref::<Counts>("b").unwrap());
    for _ in 0..2 {
        let Err(CallError::App(itself)) = a.call(Do::Call(a.clone())).await else { panic!("it calls itself") };
        assert!(itself.starts_with("deadlock"), "{itself}");
        // `b` calls `a`, which calls `b` again.
        a.call(Do::Know(b.clone())).await.unwrap();
        let Err(CallError::App(circle)) = a.call(Do::CallOther).await else { panic!("b waits for a") };
        assert!(circle.contains("deadlock"), "{circle}");
        // The same for the next incarnations, which have never been called by these clients.
        kill(&tree, "a");
        kill(&tree, "b");
        pass(100).await;
    }
    assert_eq!(a.call(Do::Handle(1)).await, Ok(3));
    tree.stop().await.unwrap();
}

/// Sends as many items as it is asked for.
struct Range;

impl Service for Range {
    type Request = (u32, Sink<u32>);
    type Reply = u32;
    type Error = Infallible;

    async fn call(&self, _: CallContext, (count, sink): (u32, Sink<u32>)) -> Result<u32, Infallible> {
        for n in 0..count {
            if sink.send(n).await.is_err() {
                break;
            }
        }
        if count == 0 { std::future::pending().await } else { Ok(count) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_through_a_handle_is_one_call() {
    let range = ChildSpec::new("range", |parent| async {
        CallServer::builder(Range).start_linked(parent).await.map(Child::from)
    });
    let tree = top().child(range.backoff(Backoff::constant(Duration::from_millis(50)))).start().await.unwrap();
    let client = tree.call_client::<Range>("range").unwrap();
    assert!(matches!(tree.server_ref::<Counts>("range"), Err(ChildError::WrongType)));
    let wrong = tree.child_handle::<u32>("range").unwrap().server_ref::<Counts>();
    assert_eq!(wrong.call(Do::Handle(1)).await, Err(CallError::Died(Died::NoProcess)));
    let mut endless = client.stream(2, |sink| (0, sink));
    assert!(tokio::time::timeout(Duration::from_millis(1), endless.next()).await.is_err());
    kill(&tree, "range");
    assert_eq!(endless.next().await, Some(Err(CallError::Died(Died::Exit(ExitReason::Killed)))));
    pass(1).await;
    assert_eq!(client.stream(2, |sink| (3, sink)).next().await, Some(Err(CallError::Restarting)));
    let parts: Vec<_> = client.wait_for_restart().stream(2, |sink| (3, sink)).collect().await;
    assert_eq!(parts, [Ok(Part::Item(0)), Ok(Part::Item(1)), Ok(Part::Item(2)), Ok(Part::End(3))]);
    tree.stop().await.unwrap();
}

/// A request without waiting: the result comes as a message, after the restart.
#[tokio::test(start_paused = true)]
async fn a_request_waits_for_the_restart_without_its_sender() {
    let handled = Handled::default();
    let tree = top().child(counts("a", &handled)).start().await.unwrap();
    let client = tree.server_ref::<Counts>("a").unwrap();
    let (to, _) = Actor::spawn(None, Idle, ()).await.unwrap();
    kill(&tree, "a");
    pass(1).await;
    assert_eq!(client.request(Do::Handle(1), &to, |_| 0), Err(CallError::Restarting));
    client.wait_for_restart().request(Do::Handle(2), &to, |result| result.unwrap_or_default()).unwrap();
    pass(100).await;
    assert_eq!(handled_by(&handled), [(2, 1)]);
    tree.stop().await.unwrap();
}

/// Counts what it handles.
struct Notes(Handled);

impl Service for Notes {
    type Request = u64;
    type Reply = u64;
    type Error = Infallible;

    async fn call(&self, _: CallContext, number: u64) -> Result<u64, Infallible> {
        note(&self.0, number);
        tokio::task::yield_now().await;
        Ok(number)
    }
}

const CALLERS: u64 = 8;
const CALLS: u64 = 400;

/// Callers on several threads while the child is killed, stopped and fails again and again. Every call ends once; one with a
/// reply was handled once, and none was handled twice.
async fn storm<P>(tree: SupervisorRef, handled: Handled, client: CallClient<P>, request: fn(u64) -> P::Request)
where
    P: plimsoll::call::Protocol<Reply: Send, Error: std::fmt::Debug>,
{
    let client = client.wait_for_restart();
    let settled = Arc::new(Mutex::new(HashMap::<u64, bool>::new()));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (client, settled) = (client.clone(), settled.clone());
            tokio::spawn(async move {
                for n in 0..CALLS {
                    let number = 1 + caller * CALLS + n;
                    let replied = match client.call_timeout(request(number), Duration::from_secs(30)).await {
                        Ok(_) => true,
                        Err(CallError::Died(Died::Exit(_)) | CallError::ShuttingDown) => false,
                        Err(error) => panic!("call {number}: {error:?}"),
                    };
                    assert!(settled.lock().unwrap().insert(number, replied).is_none(), "settled twice");
                    if n % 16 == 0 {
                        tokio::time::sleep(Duration::from_micros(300)).await;
                    }
                }
            })
        })
        .collect();
    let restarts = tokio::spawn({
        let tree = tree.clone();
        async move {
            for n in 0_u32.. {
                if let Ok(child) = tree.child("a") {
                    match n % 2 {
                        0 => child.actor().kill(),
                        _ => child.actor().stop(None),
                    }
                }
                pass(1).await;
            }
        }
    });
    for caller in callers {
        tokio::time::timeout(Duration::from_secs(60), caller).await.expect("every call ends").unwrap();
    }
    restarts.abort();
    tree.stop().await.unwrap();
    let (settled, handled) = (settled.lock().unwrap(), handled.lock().unwrap());
    assert_eq!(settled.len() as u64, CALLERS * CALLS);
    assert!(handled.values().all(|times| *times == 1), "a request was handled twice");
    assert!(settled.iter().all(|(number, replied)| !replied || handled.contains_key(number)), "a reply from nobody");
    let replies = settled.values().filter(|replied| **replied).count() as u64;
    assert!(replies > CALLERS * CALLS / 4, "only {replies} replies");
}

async fn server_storm() {
    let handled = Handled::default();
    let spec = counts("a", &handled).backoff(Backoff::NONE);
    let tree = top().child(spec).start().await.unwrap();
    let client = tree.server_ref::<Counts>("a").unwrap();
    let request = |number: u64| if number.is_multiple_of(97) { Do::Fail(number) } else { Do::Handle(number) };
    storm(tree, handled, client, request).await;
}

async fn call_server_storm(worker: Worker) {
    let handled = Handled::default();
    let spec = ChildSpec::with("a", handled.clone(), move |parent, handled| async move {
        CallServer::builder(Notes(handled)).worker(worker).queue(4).start_linked(parent).await.map(Child::from)
    });
    let tree = top().child(spec.backoff(Backoff::NONE)).start().await.unwrap();
    let client = tree.call_client::<Notes>("a").unwrap();
    storm(tree, handled, client, |number| number).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_handled_twice_while_a_server_restarts_on_two_threads() {
    server_storm().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_is_handled_twice_while_a_server_restarts_on_four_threads() {
    server_storm().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_handled_twice_while_a_call_server_restarts_on_two_threads() {
    call_server_storm(Worker::Task).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_is_handled_twice_while_a_call_server_restarts_on_four_threads() {
    call_server_storm(Worker::Actor).await;
}

/// A child of which every start but the first takes 100 ms.
fn slow(id: &str, handled: &Handled) -> ChildSpec {
    let starts: Starts = (handled.clone(), Arc::new(AtomicU32::new(0)));
    let start = |parent, starts: Starts| async move {
        if starts.1.load(Ordering::Relaxed) > 0 {
            pass(100).await;
        }
        start(parent, starts).await
    };
    ChildSpec::with(id, starts, start).backoff(Backoff::constant(Duration::from_millis(50)))
}

#[tokio::test(start_paused = true)]
async fn siblings_that_a_restart_will_start_are_restarting_and_no_others() {
    let handled = Handled::default();
    let ids = ["a", "b", "c", "d", "e"];
    let tree = top().strategy(Strategy::RestForOne);
    let tree = ids.iter().fold(tree, |tree, id| tree.child(slow(id, &handled))).start().await.unwrap();
    let clients = ids.map(|id| tree.server_ref::<Counts>(id).unwrap());
    let states = || async {
        let mut states = String::new();
        for client in &clients {
            states.push(match client.call(Do::Handle(1)).await {
                Ok(_) => '+',
                Err(CallError::Restarting) => 'r',
                Err(CallError::Died(Died::NoProcess)) => '-',
                Err(error) => panic!("{error}"),
            });
        }
        states
    };
    tree.terminate_child("a").await.unwrap();
    assert_eq!(states().await, "-++++");
    kill(&tree, "b");
    pass(10).await;
    assert_eq!(states().await, "-rrrr", "in the delay");
    tree.terminate_child("d").await.unwrap();
    assert_eq!(states().await, "-rr-r", "one is terminated by hand");
    // 40 ms later the first start begins.
    pass(90).await;
    assert_eq!(states().await, "-rr-r", "the first one starts");
    pass(100).await;
    assert_eq!(states().await, "-+r-r", "the second one starts");
    tree.terminate_child("b").await.unwrap();
    assert_eq!(states().await, "--r-r", "one that has been started is terminated");
    pass(300).await;
    assert_eq!(states().await, "--+-+");
    tree.stop().await.unwrap();
}
