//! The supervisor's own actors fail: nobody waits for ever, everybody is told, and no child is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll::supervisor::{
    Backoff, BoxError, ChildError, ChildSpec, DynamicSupervisor, DynamicSupervisorRef, Restart, ShutdownCause,
    StartError, Supervisor, SupervisorRef,
};
use ractor::{Actor, ActorCell, ActorId};
use tracing::span;
use tracing::subscriber::DefaultGuard;

use crate::support::{Begin, Do, Puppet, Stage, quiet, slow, start_meanwhile, stop_meanwhile, tell, tell_id};

const LONG: Duration = Duration::from_secs(3_600);

/// Panics at its n-th call, once; on events only, or on whatever it is told.
struct Touchy {
    calls: AtomicU64,
    panic_at: u64,
    events_only: bool,
    spans: AtomicU64,
}

impl Touchy {
    fn touch(&self) {
        assert!(self.calls.fetch_add(1, Ordering::SeqCst) + 1 != self.panic_at, "the subscriber panics");
    }

    fn touch_span(&self) {
        if !self.events_only {
            self.touch();
        }
    }
}

impl tracing::Subscriber for Touchy {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        self.touch_span();
        span::Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        if !self.events_only || event.metadata().target() == "plimsoll::supervisor" {
            self.touch();
        }
    }

    fn enter(&self, _: &span::Id) {
        self.touch_span();
    }

    fn exit(&self, _: &span::Id) {
        self.touch_span();
    }
}

fn touchy(panic_at: u64, events_only: bool) -> (Arc<Touchy>, DefaultGuard) {
    let touchy = Arc::new(Touchy { calls: AtomicU64::new(0), panic_at, events_only, spans: AtomicU64::new(0) });
    let guard = tracing::subscriber::set_default(touchy.clone());
    (touchy, guard)
}

/// Puppets that were started and not dropped. One that fails to start is only dropped.
fn alive(stage: &Stage) -> usize {
    let mut alive = std::collections::HashSet::new();
    for event in stage.diary.take() {
        match event.split_once(' ') {
            Some(("start", id)) => assert!(alive.insert(id.to_owned()), "a second incarnation of {id}"),
            Some(("drop", id)) => drop(alive.remove(id)),
            _ => {}
        }
    }
    alive.len()
}

/// A life with everything in it: a start, a restart, a restart that fails, a nested supervisor that gives up, operations,
/// a stop.
async fn life(stage: Stage) {
    let inner = stage.clone();
    let nested = ChildSpec::supervisor("nested", move || {
        Supervisor::builder("nested").intensity(0, Duration::from_secs(1)).child(inner.child("deep"))
    });
    let builder = Supervisor::builder("top").intensity(100, Duration::from_secs(1)).child(stage.child("a"));
    let Ok(tree) = builder.child(nested.backoff(Backoff::NONE)).child(stage.child("z")).start().await else { return };
    stage.script.next("a", [Begin::Fail]);
    for id in ["a", "z"] {
        if let Ok(child) = tree.child(id) {
            let _ = child.actor_ref::<Do>().unwrap().cast(Do::Panic);
        }
        quiet().await;
    }
    if let Ok(nested) = tree.child("nested")
        && let Some(nested) = nested.value::<SupervisorRef>()
        && let Ok(deep) = nested.child("deep")
    {
        let _ = deep.actor_ref::<Do>().unwrap().cast(Do::Panic);
        quiet().await;
    }
    let _ = tree.terminate_child("z").await;
    let _ = tree.restart_child("z").await;
    let _ = tree.start_child(stage.child("new")).await;
    let _ = tree.delete_child("new").await;
    tree.stop().await.unwrap();
    tree.wait().await.unwrap();
}

/// Lives as often as the subscriber is called, and panics at another call each time.
async fn panics_everywhere(events_only: bool) -> u64 {
    let mut at = 0;
    loop {
        at += 1;
        let stage = Stage::default();
        let (subscriber, guard) = touchy(at, events_only);
        // The panic may hit this very task: then it ends, too.
        let lived = tokio::time::timeout(LONG, tokio::spawn(life(stage.clone()))).await;
        assert!(lived.is_ok(), "somebody waits for ever after a panic at call {at}");
        quiet().await;
        drop(guard);
        let lost = subscriber.calls.load(Ordering::SeqCst) >= at;
        if events_only {
            assert!(lived.is_ok_and(|lived| lived.is_ok()), "a line of the log costs more than itself, at {at}");
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(alive(&stage), 0, "a child is left behind after a panic at call {at}");
        if !lost {
            return at - 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn otp_a_subscriber_that_panics_costs_its_line_only() {
    assert!(panics_everywhere(true).await > 8);
}

#[tokio::test(start_paused = true)]
async fn otp_a_panic_in_the_supervisors_own_actors_leaves_nobody_waiting_and_nothing_behind() {
    assert!(panics_everywhere(false).await > 100);
}

/// How the supervisor's own actors go.
#[derive(Clone, Copy, Debug)]
enum Blow {
    KillAnchor,
    StopAnchor,
    KillFace,
    StopFace,
}

const BLOWS: [Blow; 4] = [Blow::KillAnchor, Blow::StopAnchor, Blow::KillFace, Blow::StopFace];

impl Blow {
    fn strike(self, anchor: &ActorCell) {
        let face = || anchor.try_get_supervisor();
        match self {
            Self::KillAnchor => anchor.kill(),
            Self::StopAnchor => anchor.stop(None),
            Self::KillFace => face().iter().for_each(ActorCell::kill),
            Self::StopFace => face().iter().for_each(|face| face.stop(None)),
        }
    }
}

/// A child that tells the actor it is linked to, and then hangs or runs.
fn telling(stage: &Stage, id: &'static str, anchors: tokio::sync::mpsc::Sender<ActorCell>) -> ChildSpec {
    let stage = stage.clone();
    ChildSpec::new(id, move |parent: ActorCell| {
        let (puppet, anchors) = (stage.puppet(id), anchors.clone());
        async move {
            let _ = anchors.send(parent.clone()).await;
            Ok::<_, BoxError>(Puppet::spawn_linked(None, puppet, (), parent).await?)
        }
    })
    .backoff(Backoff::NONE)
}

async fn in_time<T>(what: impl Future<Output = T>, blow: Blow) -> T {
    tokio::time::timeout(LONG, what).await.unwrap_or_else(|_| panic!("it waits for ever after {blow:?}"))
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_ends_with_an_error_when_the_supervisors_own_actors_go() {
    for blow in BLOWS {
        let stage = Stage::default();
        let (anchors, mut anchor) = tokio::sync::mpsc::channel(8);
        stage.script.next("b", [Begin::Hang]);
        let builder = Supervisor::builder("top").child(telling(&stage, "a", anchors)).child(stage.child("b"));
        let starting = tokio::spawn(builder.start());
        quiet().await;
        blow.strike(&anchor.recv().await.unwrap());
        let started = in_time(starting, blow).await.unwrap();
        assert!(matches!(started.map(|_| ()), Err(StartError::ShuttingDown)), "{blow:?}");
        quiet().await;
        assert_eq!(alive(&stage), 0, "{blow:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_every_operation_is_answered_when_the_supervisors_own_actors_go() {
    for blow in BLOWS {
        let stage = Stage::default();
        let (anchors, mut anchor) = tokio::sync::mpsc::channel(8);
        let slow = stage.child_with("slow", slow(4));
        let builder = Supervisor::builder("top").child(telling(&stage, "a", anchors)).child(slow);
        let tree = builder.child(stage.child("idle")).start().await.unwrap();
        tree.terminate_child("idle").await.unwrap();
        stage.script.always("hangs", Begin::Hang);
        stage.script.always("idle", Begin::Hang);
        let starts = start_meanwhile(&tree, stage.child("hangs"));
        let [ends, ends_too] = [(); 2].map(|()| {
            let tree = tree.clone();
            tokio::spawn(async move { tree.terminate_child("slow").await })
        });
        let restarts = tokio::spawn({
            let tree = tree.clone();
            async move { tree.restart_child("idle").await.map(|_| ()) }
        });
        let deletes = tokio::spawn({
            let tree = tree.clone();
            async move { tree.delete_child("slow").await }
        });
        let waits = tokio::spawn({
            let tree = tree.clone();
            async move { tree.wait().await.unwrap() }
        });
        quiet().await;
        blow.strike(&anchor.recv().await.unwrap());
        assert_eq!(in_time(starts, blow).await.unwrap(), Err(StartError::ShuttingDown), "{blow:?}");
        assert_eq!(in_time(ends, blow).await.unwrap(), Err(ChildError::ShuttingDown), "{blow:?}");
        assert_eq!(in_time(ends_too, blow).await.unwrap(), Err(ChildError::ShuttingDown), "{blow:?}");
        assert_eq!(in_time(restarts, blow).await.unwrap(), Err(ChildError::ShuttingDown), "{blow:?}");
        assert_eq!(in_time(deletes, blow).await.unwrap(), Err(ChildError::ShuttingDown), "{blow:?}");
        let report = in_time(waits, blow).await.unwrap();
        assert_eq!(in_time(tree.stop(), blow).await.unwrap(), report);
        let cause = if matches!(blow, Blow::StopFace) { ShutdownCause::Stopped } else { ShutdownCause::Killed };
        assert_eq!(report.cause, cause, "{blow:?}");
        assert_eq!(in_time(tree.start_child(stage.child("late")), blow).await, Err(StartError::ShuttingDown));
        assert_eq!(in_time(tree.terminate_child("a"), blow).await, Err(ChildError::ShuttingDown));
        assert_eq!(tree.which_children(), Err(ChildError::ShuttingDown));
        quiet().await;
        let did = stage.diary.take();
        let dropped = did.iter().filter(|event| event.starts_with("drop")).count();
        assert_eq!(dropped, 5, "{blow:?}: {did:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_ends_when_the_supervisors_own_actors_go_meanwhile() {
    for blow in BLOWS {
        let stage = Stage::default();
        let (anchors, mut anchor) = tokio::sync::mpsc::channel(8);
        let slow = stage.child_with("slow", slow(4));
        let builder = Supervisor::builder("top").child(telling(&stage, "a", anchors)).child(slow);
        let tree = builder.start().await.unwrap();
        let stopping = stop_meanwhile(&tree);
        quiet().await;
        blow.strike(&anchor.recv().await.unwrap());
        let report = in_time(stopping, blow).await.unwrap();
        assert_eq!(in_time(tree.wait(), blow).await.unwrap(), report);
        quiet().await;
        assert_eq!(alive(&stage), 0, "{blow:?}");
    }
}

/// Its copy panics when it is made for a restart.
struct Fragile(Arc<AtomicU64>);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        // The first is made in the task of whoever starts the child.
        assert!(self.0.fetch_add(1, Ordering::SeqCst) != 1, "it breaks");
        Self(self.0.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn otp_simple_arguments_whose_copy_panics_fail_the_restart_only() {
    let stage = Stage::default();
    let inner = stage.clone();
    let dynamic: DynamicSupervisorRef<Fragile> = DynamicSupervisor::builder("dynamic", move |parent, _: Fragile| {
        Puppet::spawn_linked(None, inner.puppet("x"), (), parent)
    })
    .restart(Restart::Permanent)
    .intensity(5, Duration::from_secs(5))
    .backoff(Backoff::NONE)
    .start()
    .await
    .unwrap();
    let copies = Arc::new(AtomicU64::new(0));
    let first = dynamic.start_child(Fragile(copies.clone())).await.unwrap();
    tell(&first, Do::Panic);
    quiet().await;
    assert_eq!(copies.load(Ordering::SeqCst), 3, "kept, broken, made for the second try");
    assert_eq!(stage.did(), ["start x", "start x"]);
    assert_eq!(dynamic.count_children().unwrap().active, 1);
    assert!(dynamic.stop().await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn otp_escalation_of_a_nested_supervisor_whose_own_actor_was_killed() {
    let stage = Stage::default();
    let (anchors, mut anchor) = tokio::sync::mpsc::channel(8);
    let inner = stage.clone();
    let nested = ChildSpec::supervisor("nested", move || {
        Supervisor::builder("nested").child(telling(&inner, "deep", anchors.clone()))
    });
    let tree = Supervisor::builder("top").child(nested.backoff(Backoff::NONE)).start().await.unwrap();
    let old: ActorId = tree.child("nested").unwrap().actor().get_id();
    anchor.recv().await.unwrap().kill();
    quiet().await;
    let nested = tree.child("nested").unwrap();
    assert_ne!(nested.actor().get_id(), old, "a failure: it is started again");
    let nested = nested.value::<SupervisorRef>().unwrap();
    tell_id(&nested, "deep", Do::Normal);
    quiet().await;
    assert_eq!(stage.did(), ["start deep", "start deep", "stop deep", "start deep"]);
    assert!(tree.stop().await.unwrap().is_clean());
}
