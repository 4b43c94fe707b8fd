//! A server that stops: admission, queue, owed replies, hooks and exit reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll::call::{CallClient, CallContext, CallError, CallServer, Died, Service};
use plimsoll::exit::ExitReason;
use plimsoll::server::{self, BoxError, Context, Down, DownReason, GenServer, MonitorRef, Reply, Response, ServerRef};
use plimsoll::supervisor::{ChildSpec, DynamicSupervisor, Restart, Shutdown, Supervisor};
use plimsoll_testkit::gate::Gate;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::{Instant, sleep, timeout};

#[derive(Default)]
struct Worker {
    owed: Vec<Reply<Self>>,
    stopped: Arc<Mutex<u32>>,
    settles_when_stopping: bool,
    monitors: Vec<MonitorRef>,
    downs: Vec<(MonitorRef, DownReason)>,
}

enum Job {
    Echo,
    Sleep(Duration),
    Pass(Gate),
    Owe,
    DropAndStop,
    PassAndStop(Gate),
    Monitor(ActorCell),
    Demonitor(usize),
    AwaitDown(Gate, usize),
}

impl GenServer for Worker {
    type Call = Job;
    type Reply = ();
    type Error = String;
    type Cast = ();
    type Message = ();

    async fn call(&mut self, job: Job, ctx: &mut Context<Self>) -> Result<Response<Self>, BoxError> {
        match job {
            Job::Echo => {}
            Job::Sleep(time) => sleep(time).await,
            Job::Pass(gate) => gate.pass().await,
            Job::Owe => {
                self.owed.extend(ctx.take_reply());
                return Ok(Response::Later);
            }
            Job::DropAndStop => {
                drop(ctx.take_reply());
                ctx.stop(None);
                return Ok(Response::Later);
            }
            Job::PassAndStop(gate) => {
                gate.pass().await;
                ctx.stop(None);
            }
            Job::Monitor(actor) => self.monitors.push(ctx.monitor(&actor)?),
            Job::Demonitor(nth) => {
                let there = ctx.demonitor(self.monitors[nth]);
                return Ok(there.then_some(()).ok_or_else(|| "no such monitor".to_owned()).into());
            }
            Job::AwaitDown(gate, n) => {
                gate.pass().await;
                let downs: Vec<_> = self.downs.iter().map(|(_, reason)| reason.to_string()).collect();
                if downs.len() != n {
                    return Ok(Response::Error(downs.join(", ")));
                }
            }
        }
        Ok(Response::Reply(()))
    }

    async fn down(&mut self, down: Down, _: &mut Context<Self>) -> Result<(), BoxError> {
        self.downs.push((down.monitor, down.reason));
        Ok(())
    }

    async fn stopping(&mut self, _: &mut Context<Self>) -> Result<(), BoxError> {
        if self.settles_when_stopping {
            self.owed.drain(..).for_each(|reply| {
                reply.err("stopping".to_owned());
            });
        }
        Ok(())
    }

    async fn stopped(&mut self, _: &mut Context<Self>) -> Result<(), BoxError> {
        *self.stopped.lock() += 1;
        Ok(())
    }
}

fn worker(stopped: &Arc<Mutex<u32>>) -> Worker {
    Worker { stopped: Arc::clone(stopped), ..Worker::default() }
}

/// Callers that return at once do not hold up a stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_notices_a_stop_before_its_next_item() {
    let stopped = Arc::new(Mutex::new(0));
    let mut server = server::builder(worker(&stopped)).start().await.unwrap();
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let client = server.client();
            tokio::spawn(async move {
                loop {
                    if let Err(error) = client.call(Job::Sleep(Duration::from_millis(10))).await {
                        return error;
                    }
                }
            })
        })
        .collect();
    sleep(Duration::from_millis(60)).await;
    server.actor().stop(Some("shutdown".to_owned()));
    timeout(Duration::from_millis(350), server.ended()).await.expect("100 ms of work were queued");
    for caller in callers {
        let error = timeout(Duration::from_secs(1), caller).await.unwrap().unwrap();
        assert!(matches!(error, CallError::ShuttingDown | CallError::Died(Died::NoProcess)), "{error}");
    }
    assert_eq!(*stopped.lock(), 1);
}

/// Admission closes although a handler runs.
#[tokio::test(start_paused = true)]
async fn a_stop_closes_admission_while_a_handler_runs() {
    let mut server = server::builder(Worker::default()).start().await.unwrap();
    let gate = Gate::closed();
    let running = tokio::spawn({
        let (client, gate) = (server.client(), gate.clone());
        async move { client.call(Job::Pass(gate)).await }
    });
    gate.until_waiting(1).await;
    let (client, before) = (server.client(), Instant::now());
    let queued = tokio::spawn(async move { client.call(Job::Echo).await });
    tokio::task::yield_now().await;
    server.actor().stop(None);
    while server.client().is_open() && before.elapsed() < Duration::from_millis(1) {
        sleep(Duration::from_micros(10)).await;
    }
    assert_eq!(server.client().call(Job::Echo).await, Err(CallError::ShuttingDown));
    assert!(before.elapsed() < Duration::from_millis(5), "{:?}", before.elapsed());
    gate.open();
    assert_eq!((running.await.unwrap(), queued.await.unwrap()), (Ok(()), Ok(())));
    server.ended().await;
}

/// A queue that is longer than the grace ends as `ShuttingDown`, in order and with the hook.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_grace_does_not_cover_is_shutting_down_and_the_hook_runs() {
    let stopped = Arc::new(Mutex::new(0));
    let start = {
        let stopped = Arc::clone(&stopped);
        move |parent| server::builder(worker(&stopped)).start_linked(parent)
    };
    let spec = ChildSpec::new("worker", start).shutdown(Shutdown::After(Duration::from_millis(400)));
    let tree = Supervisor::builder("top").child(spec).start().await.unwrap();
    let child = tree.child("worker").unwrap();
    let client = child.value::<ServerRef<Worker>>().unwrap();
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call(Job::Sleep(Duration::from_millis(20))).await })
        })
        .collect();
    sleep(Duration::from_millis(30)).await;
    let report = timeout(Duration::from_secs(2), tree.stop()).await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
    let mut outcomes = BTreeMap::new();
    for call in calls {
        *outcomes.entry(format!("{:?}", call.await.unwrap())).or_insert(0) += 1;
    }
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
    assert!(outcomes["Ok(())"] >= 5, "{outcomes:?}");
    assert!(outcomes["Err(ShuttingDown)"] >= 150, "{outcomes:?}");
    assert_eq!(*stopped.lock(), 1);
}

/// The same for a server below a dynamic supervisor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dynamic_childs_queue_that_the_grace_does_not_cover_is_shutting_down() {
    let stopped = Arc::new(Mutex::new(0));
    let start = |parent, stopped: Arc<Mutex<u32>>| server::builder(worker(&stopped)).start_linked(parent);
    let workers = DynamicSupervisor::builder("workers", start)
        .restart(Restart::Temporary)
        .shutdown(Shutdown::After(Duration::from_millis(400)))
        .start()
        .await
        .unwrap();
    let child = workers.start_child(Arc::clone(&stopped)).await.unwrap();
    let client = child.value::<ServerRef<Worker>>().unwrap();
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call(Job::Sleep(Duration::from_millis(20))).await })
        })
        .collect();
    sleep(Duration::from_millis(30)).await;
    let report = timeout(Duration::from_secs(2), workers.stop()).await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
    for call in calls {
        let outcome = call.await.unwrap();
        assert!(matches!(outcome, Ok(()) | Err(CallError::ShuttingDown)), "{outcome:?}");
    }
    assert_eq!(*stopped.lock(), 1);
}

struct Sleeper;

impl Service for Sleeper {
    type Request = Duration;
    type Reply = ();
    type Error = std::convert::Infallible;

    async fn call(&self, _: CallContext, time: Duration) -> Result<(), Self::Error> {
        sleep(time).await;
        Ok(())
    }
}

/// A call server ends the calls that its grace does not cover, and then itself, before it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_server_ends_in_order_before_its_grace_is_over() {
    let start = |parent| CallServer::builder(Sleeper).start_linked(parent);
    let spec = ChildSpec::new("sleeper", start).shutdown(Shutdown::After(Duration::from_millis(400)));
    let tree = Supervisor::builder("top").child(spec).start().await.unwrap();
    let client = tree.child("sleeper").unwrap().value::<CallClient<Sleeper>>().unwrap();
    let call = |time| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.call(Duration::from_millis(time)).await })
    };
    let (short, long) = (call(150), call(4_000));
    sleep(Duration::from_millis(30)).await;
    let report = timeout(Duration::from_secs(2), tree.stop()).await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!((short.await.unwrap(), long.await.unwrap()), (Ok(()), Err(CallError::ShuttingDown)));
}

/// An owed reply does not delay the stop.
#[tokio::test(start_paused = true)]
async fn an_owed_reply_ends_as_shutdown_after_the_queue() {
    let mut server = server::builder(Worker::default()).start().await.unwrap();
    let client = server.client();
    let owed = tokio::spawn(async move { client.call(Job::Owe).await });
    tokio::task::yield_now().await;
    let before = Instant::now();
    server.actor().stop(Some("shutdown".to_owned()));
    assert_eq!(owed.await.unwrap(), Err(Died::Exit(ExitReason::Shutdown).into()));
    server.ended().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
}

/// The handle was dropped by the handler that stops the server: the server's reason counts.
#[tokio::test(start_paused = true)]
async fn a_server_that_stops_with_the_reply_handle_dropped_is_died_with_its_reason() {
    let server = server::builder(Worker::default()).start().await.unwrap();
    let outcome = server.client().call(Job::DropAndStop).await;
    assert_eq!(outcome, Err(Died::Exit(ExitReason::Normal).into()));
}

/// Reports the exit reason of the first monitored actor.
struct Monitor(tokio::sync::mpsc::UnboundedSender<Option<String>>);

impl Actor for Monitor {
    type Msg = ();
    type State = ();
    type Arguments = ActorCell;

    async fn pre_start(&self, myself: ActorRef<()>, target: ActorCell) -> Result<(), ActorProcessingErr> {
        myself.monitor(target);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorTerminated(_, _, reason) = event {
            let _ = self.0.send(reason);
        }
        Ok(())
    }
}

/// A server that stops itself while a stop is under way exits with its own reason, as in OTP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_itself_while_it_is_asked_to_stop_exits_normal() {
    for _ in 0..50 {
        let mut server = server::builder(Worker::default()).start().await.unwrap();
        let (reasons, mut exited) = tokio::sync::mpsc::unbounded_channel();
        let (monitor, _) = Monitor::spawn(None, Monitor(reasons), server.actor()).await.unwrap();
        let gate = Gate::closed();
        let call = tokio::spawn({
            let (client, gate) = (server.client(), gate.clone());
            async move { client.call(Job::PassAndStop(gate)).await }
        });
        gate.until_waiting(1).await;
        server.actor().stop(Some("shutdown".to_owned()));
        sleep(Duration::from_millis(1)).await;
        gate.open();
        assert_eq!(exited.recv().await, Some(None), "the first event a monitor receives says normal");
        assert_eq!(call.await.unwrap(), Ok(()));
        server.ended().await;
        monitor.stop(None);
    }
}

/// In the `stopping` hook a server settles what it owes, before it handles what is queued.
#[tokio::test(start_paused = true)]
async fn a_server_settles_owed_replies_in_its_stopping_hook() {
    let state = Worker { settles_when_stopping: true, ..Worker::default() };
    let mut server = server::builder(state).start().await.unwrap();
    let client = server.client();
    let owed = tokio::spawn(async move { client.call(Job::Owe).await });
    tokio::task::yield_now().await;
    let gate = Gate::closed();
    let running = tokio::spawn({
        let (client, gate) = (server.client(), gate.clone());
        async move { client.call(Job::Pass(gate)).await }
    });
    gate.until_waiting(1).await;
    let (client, held) = (server.client(), Gate::closed());
    let queued = tokio::spawn({
        let held = held.clone();
        async move { client.call(Job::Pass(held)).await }
    });
    tokio::task::yield_now().await;
    server.actor().stop(Some("shutdown".to_owned()));
    gate.open();
    assert_eq!(owed.await.unwrap(), Err(CallError::App("stopping".to_owned())), "before the queue");
    held.open();
    assert_eq!((running.await.unwrap(), queued.await.unwrap()), (Ok(()), Ok(())));
    server.ended().await;
}

/// A caller that waits for a permit which an owed reply holds is not served, and does not delay the stop.
#[tokio::test(start_paused = true)]
async fn a_caller_behind_an_owed_reply_is_shutting_down() {
    let mut server = server::builder(Worker::default()).mailbox(1).queue(1).start().await.unwrap();
    let owed = tokio::spawn({
        let client = server.client();
        async move { client.call(Job::Owe).await }
    });
    tokio::task::yield_now().await;
    let waiting = tokio::spawn({
        let client = server.client();
        async move { client.call(Job::Echo).await }
    });
    tokio::task::yield_now().await;
    let before = Instant::now();
    server.actor().stop(None);
    assert_eq!(waiting.await.unwrap(), Err(CallError::ShuttingDown));
    assert_eq!(owed.await.unwrap(), Err(Died::Exit(ExitReason::Shutdown).into()));
    server.ended().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
}

/// OTP's `'DOWN'`: with the exit reason, once for each monitor, also when the actor has exited before.
#[tokio::test(start_paused = true)]
async fn otp_a_monitored_actors_exit_arrives_as_down() {
    let server = server::builder(Worker::default()).start().await.unwrap();
    let client = server.client();
    let mut target = server::builder(Worker::default()).start().await.unwrap();
    client.call(Job::Monitor(target.actor())).await.unwrap();
    client.call(Job::Monitor(target.actor())).await.unwrap();
    client.call(Job::Monitor(target.actor())).await.unwrap();
    assert_eq!(client.call(Job::Demonitor(1)).await, Ok(()));
    assert_eq!(client.call(Job::Demonitor(1)).await, Err(CallError::App("no such monitor".to_owned())));
    target.actor().stop(Some("shutdown".to_owned()));
    target.ended().await;
    tokio::task::yield_now().await;
    let gate = Gate::closed();
    gate.open();
    let seen = client.call(Job::AwaitDown(gate.clone(), 0)).await;
    assert_eq!(seen, Err(CallError::App("shutdown, shutdown".to_owned())));
    client.call(Job::Monitor(target.actor())).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    let seen = client.call(Job::AwaitDown(gate.clone(), 0)).await;
    assert_eq!(seen, Err(CallError::App("shutdown, shutdown, no process".to_owned())));
    let counters = server.inspector().inspect().counters;
    assert_eq!(counters["monitors"], 0, "{counters:?}");
    // A monitor of a server that fails has its error.
    let failing = server::builder(Worker::default()).start().await.unwrap();
    client.call(Job::Monitor(failing.actor())).await.unwrap();
    failing.actor().kill();
    sleep(Duration::from_millis(1)).await;
    let seen = client.call(Job::AwaitDown(gate, 0)).await;
    assert_eq!(seen, Err(CallError::App("shutdown, shutdown, no process, killed".to_owned())));
}

/// A `down` that was announced and is demonitored before its handler runs does not run (OTP's `flush`).
#[tokio::test(start_paused = true)]
async fn otp_a_demonitored_actors_down_is_not_delivered() {
    let server = server::builder(Worker::default()).start().await.unwrap();
    let client = server.client();
    let mut target = server::builder(Worker::default()).start().await.unwrap();
    client.call(Job::Monitor(target.actor())).await.unwrap();
    let (gate, after) = (Gate::closed(), Gate::closed());
    let busy = tokio::spawn({
        let (client, gate) = (client.clone(), gate.clone());
        async move { client.call(Job::Pass(gate)).await }
    });
    gate.until_waiting(1).await;
    let client_of_next = client.clone();
    let demonitored = tokio::spawn(async move { client_of_next.call(Job::Demonitor(0)).await });
    tokio::task::yield_now().await;
    target.actor().kill();
    target.ended().await;
    sleep(Duration::from_millis(1)).await;
    gate.open();
    after.open();
    assert_eq!((busy.await.unwrap(), demonitored.await.unwrap()), (Ok(()), Ok(())));
    assert_eq!(client.call(Job::AwaitDown(after, 0)).await, Ok(()));
}

/// Monitors have a cap.
#[tokio::test(start_paused = true)]
async fn monitors_have_a_limit() {
    let mut server = server::builder(Worker::default()).monitors(1).start().await.unwrap();
    let target = server::builder(Worker::default()).start().await.unwrap();
    server.client().call(Job::Monitor(target.actor())).await.unwrap();
    let outcome = server.client().call(Job::Monitor(target.actor())).await;
    assert_eq!(outcome, Err(Died::Exit(ExitReason::failed("1 monitors are set already")).into()));
    server.ended().await;
}

/// A server that ends, in whatever way, keeps neither monitors nor state.
#[tokio::test(start_paused = true)]
async fn a_servers_monitors_end_with_it() {
    let held = Arc::new(Mutex::new(0));
    let target = server::builder(Worker::default()).start().await.unwrap();
    for kill in [false, true] {
        let mut server = server::builder(worker(&held)).start().await.unwrap();
        server.client().call(Job::Monitor(target.actor())).await.unwrap();
        assert_eq!(server.inspector().inspect().counters["monitors"], 1);
        if kill {
            server.actor().kill();
        } else {
            server.actor().stop(None);
        }
        server.ended().await;
        assert_eq!(server.inspector().inspect().counters["monitors"], 0, "killed: {kill}");
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
