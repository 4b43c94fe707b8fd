//! Every pair of ways in which a call can end, at the same moment on several threads: one of the two wins, the caller
//! gets that outcome, and nothing is left.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{assert_nothing_left, calls_balance};
use plimsoll::call::{CallContext, CallError, CallServer, Died, Service, StartedServer, Worker};
use plimsoll_testkit::gate::Gate;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// What the service does, and what happens around it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Reply,
    Refuse,
    Panic,
    KillWorker,
    Deadline,
    DropFuture,
    CallerDies,
    Kill,
    Stop,
}

use End::{CallerDies, Deadline, DropFuture, Kill, KillWorker, Panic, Refuse, Reply, Stop};

const BY_THE_SERVICE: [End; 4] = [Reply, Refuse, Panic, KillWorker];
const FROM_OUTSIDE: [End; 5] = [Deadline, DropFuture, CallerDies, Kill, Stop];

struct Ends;

impl Service for Ends {
    type Request = (End, Gate);
    type Reply = ();
    type Error = ();

    async fn call(&self, ctx: CallContext, (end, gate): (End, Gate)) -> Result<(), ()> {
        gate.pass().await;
        match end {
            Reply => Ok(()),
            Refuse => Err(()),
            Panic => panic!("as it was told"),
            KillWorker => {
                if let Some(worker) = ctx.worker() {
                    worker.kill();
                    std::future::pending().await
                }
                Err(())
            }
            _ => std::future::pending().await,
        }
    }
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

fn is_outcome_of(outcome: &Result<(), CallError<()>>, end: End) -> bool {
    match end {
        Reply => *outcome == Ok(()),
        Refuse => *outcome == Err(CallError::App(())),
        Panic | Kill => matches!(outcome, Err(CallError::Died(Died::Exit(_)))),
        KillWorker => matches!(outcome, Err(CallError::Died(Died::Exit(_)) | CallError::App(()))),
        Deadline => *outcome == Err(CallError::Timeout),
        CallerDies => *outcome == Err(CallError::Cancelled),
        // The caller that dropped it sees nothing; a stop serves what is in flight.
        DropFuture | Stop => false,
    }
}

/// Brings `end` about once the gate is open.
fn from_outside(end: End, gate: &Gate, server: ActorCell, caller: ActorCell, give_up: Arc<Notify>) -> JoinHandle<()> {
    let gate = gate.clone();
    tokio::spawn(async move {
        gate.pass().await;
        match end {
            Kill => server.kill(),
            Stop => server.stop(None),
            CallerDies => caller.kill(),
            DropFuture => give_up.notify_one(),
            _ => {}
        }
    })
}

async fn race(first: End, second: End, worker: Worker) {
    let mut server: StartedServer<Ends> = CallServer::builder(Ends).worker(worker).start().await.unwrap();
    let (caller, caller_ended) = Bystander::spawn(None, Bystander, ()).await.unwrap();
    let (gate, give_up) = (Gate::closed(), Arc::new(Notify::new()));
    let ends = [first, second];
    let mut troubles = Vec::new();
    for end in ends.into_iter().filter(|end| FROM_OUTSIDE.contains(end)) {
        let (actor, caller) = (server.actor(), caller.get_cell());
        troubles.push(from_outside(end, &gate, actor, caller, Arc::clone(&give_up)));
    }
    let served = ends.into_iter().find(|end| BY_THE_SERVICE.contains(end)).unwrap_or(first);
    let soon = Instant::now() + Duration::from_millis(2);
    let deadline = if ends.contains(&Deadline) { soon } else { soon + Duration::from_secs(60) };
    let bound = server.client().bind(&caller.get_cell()).unawaited();
    let call = tokio::spawn({
        let (gate, give_up) = (gate.clone(), Arc::clone(&give_up));
        async move {
            let calling = bound.call_by((served, gate), deadline);
            tokio::select! {
                outcome = calling => Some(outcome),
                () = give_up.notified() => None,
            }
        }
    });
    // All stand at the gate, but for a call that its deadline ends even before.
    let all = troubles.len() + 1;
    let _ = timeout(Duration::from_millis(if ends.contains(&Deadline) { 2 } else { 10_000 }), gate.until_waiting(all))
        .await;
    if ends.contains(&Deadline) {
        sleep_until(soon).await;
    }
    gate.open();
    for trouble in troubles {
        trouble.await.unwrap();
    }
    if ends == [Stop, Stop] {
        // A stop waits for what is in flight, and nothing else ends this one.
        server.actor().kill();
    }
    let outcome = timeout(Duration::from_secs(20), call).await.unwrap_or_else(|_| panic!("{ends:?} hangs")).unwrap();
    if let Some(outcome) = &outcome {
        let ends = if ends == [Stop, Stop] { [Stop, Kill] } else { ends };
        let expected = ends.iter().any(|end| is_outcome_of(outcome, *end));
        // A call that a stop, a kill or its caller's end forestalls at the door.
        let forestalled = matches!(outcome, Err(CallError::ShuttingDown | CallError::Died(Died::NoProcess)));
        assert!(expected || forestalled, "{ends:?}: {outcome:?}");
    } else {
        assert!(ends.contains(&DropFuture), "{ends:?}");
    }
    calls_balance(&server.inspector().inspect().counters);
    server.actor().kill();
    server.ended().await;
    caller.kill();
    caller_ended.await.unwrap();
    for _ in 0..10_000 {
        // A worker is counted out before its permit is.
        let counters = server.inspector().inspect().counters;
        if counters["workers"] == 0 && counters["permits_used"] == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let counters = server.inspector().inspect().counters;
    assert_nothing_left(&counters);
    // A caller that gives up at once may not even have made its call.
    let made = outcome.is_some() || counters["started"] == 1;
    assert_eq!(counters["settled"], u64::from(made), "{ends:?}: {counters:?}");
}

fn silence() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() != Some("as it was told") {
            hook(panic);
        }
    }));
}

/// E-8, E-9, E-10, R-2, R-20: whichever two ends meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_pair_of_ends_settles_a_call_once() {
    silence();
    for worker in [Worker::Actor, Worker::Task] {
        for first in BY_THE_SERVICE.into_iter().chain(FROM_OUTSIDE) {
            for second in FROM_OUTSIDE {
                for _ in 0..20 {
                    race(first, second, worker).await;
                }
            }
        }
    }
}
