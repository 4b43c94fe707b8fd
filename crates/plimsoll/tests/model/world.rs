//! The real thing: a tree of supervisors built from a plan, under paused time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    Backoff, BoxError, Child, ChildError, ChildRef, ChildSpec, ChildState, StartError, StopFailureKind, Supervisor,
    SupervisorBuilder, SupervisorRef,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};

use super::plan::{Begin, End, KidPlan, Op, SupPlan, begin};

/// What the children and those who wait share.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Inner>>);

struct Inner {
    seed: u64,
    events: Vec<String>,
    told: Vec<(u32, String)>,
    starts: HashMap<(String, u32), u32>,
    lives: HashMap<String, u32>,
}

impl Shared {
    pub fn new(seed: u64) -> Self {
        let (events, told) = (Vec::new(), Vec::new());
        Self(Arc::new(Mutex::new(Inner { seed, events, told, starts: HashMap::new(), lives: HashMap::new() })))
    }

    pub fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().events)
    }

    pub fn told(&self) -> Vec<(u32, String)> {
        std::mem::take(&mut self.0.lock().unwrap().told)
    }

    fn note(&self, verb: &str, path: &str) {
        self.0.lock().unwrap().events.push(format!("{verb} {path}"));
    }

    fn begins(&self, path: &str, life: u32) -> Begin {
        let mut inner = self.0.lock().unwrap();
        let n = inner.starts.entry((path.to_owned(), life)).or_default();
        *n += 1;
        let n = *n - 1;
        begin(inner.seed, path, life, n)
    }

    fn new_life(&self, path: &str) -> u32 {
        let mut inner = self.0.lock().unwrap();
        let life = inner.lives.entry(path.to_owned()).or_default();
        *life += 1;
        *life
    }
}

struct Puppet {
    path: String,
    stop_takes: u64,
    /// It ended by itself: the stop hook is for whoever asks.
    alone: AtomicBool,
    shared: Shared,
}

impl Actor for Puppet {
    type Msg = End;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<End>, (): ()) -> Result<(), ActorProcessingErr> {
        self.shared.note("start", &self.path);
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<End>, end: End, _: &mut ()) -> Result<(), ActorProcessingErr> {
        self.alone.store(true, Ordering::Relaxed);
        match end {
            End::Normal => myself.stop(None),
            End::Shutdown => myself.stop(Some("shutdown".to_owned())),
            End::Upgrade => myself.stop(Some("upgrade".to_owned())),
            End::Fail => return Err("told to fail".into()),
            End::Kill => myself.kill(),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<End>, _: &mut ()) -> Result<(), ActorProcessingErr> {
        if self.stop_takes > 0 && !self.alone.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(self.stop_takes)).await;
        }
        self.shared.note("stop", &self.path);
        Ok(())
    }
}

pub fn build(plan: &SupPlan, path: &str, shared: &Shared) -> SupervisorBuilder {
    let life = shared.new_life(path);
    Supervisor::builder(path)
        .strategy(plan.strategy)
        .intensity(plan.intensity, Duration::from_millis(plan.period))
        .auto_shutdown(plan.auto_shutdown)
        .children(plan.kids.iter().map(|kid| spec(kid, path, life, shared)))
}

fn spec(plan: &KidPlan, parent: &str, life: u32, shared: &Shared) -> ChildSpec {
    let path = format!("{parent}/{}", plan.id);
    let (kid, shared) = (plan.clone(), shared.clone());
    let start = move |parent: ActorCell| {
        let (kid, shared, path) = (kid.clone(), shared.clone(), path.clone());
        async move {
            match shared.begins(&path, life) {
                Begin::Run => {}
                Begin::Fail => return Err(BoxError::from("told to fail")),
                Begin::Ignore => return Err(StartError::Ignored.into()),
                Begin::Hang => std::future::pending().await,
            }
            let child = match &kid.sup {
                Some(sup) => build(sup, &path, &shared).start_linked(parent).await?,
                None => {
                    let puppet = Puppet { path, stop_takes: kid.stop_takes, alone: AtomicBool::new(false), shared };
                    Child::from(Puppet::spawn_linked(None, puppet, (), parent).await?)
                }
            };
            Ok(child)
        }
    };
    let backoff = match plan.backoff {
        0 => Backoff::NONE,
        delay => Backoff::constant(Duration::from_millis(delay)),
    };
    ChildSpec::new(plan.id.as_str(), start)
        .restart(plan.restart)
        .significant(plan.significant)
        .shutdown(plan.shutdown)
        .backoff(backoff)
}

fn sup_at(top: &SupervisorRef, path: &[String]) -> SupervisorRef {
    let mut sup = top.clone();
    for id in path {
        let below = sup.child(id).expect("a supervisor that runs").value::<SupervisorRef>().expect("a supervisor");
        sup = (*below).clone();
    }
    sup
}

pub fn end(top: &SupervisorRef, path: &[String], id: &str, end: End) {
    let child = sup_at(top, path).child(id).expect("a child that runs");
    match (end, child.actor_ref::<End>()) {
        (End::Kill, _) => child.actor().kill(),
        (End::Shutdown, None) => child.actor().stop(Some("shutdown".to_owned())),
        (_, Some(puppet)) => puppet.cast(end).expect("a living child"),
        (other, None) => panic!("a supervisor cannot end by {other:?}"),
    }
}

pub fn operate(top: &SupervisorRef, path: &[String], op: u32, what: Op, shared: &Shared) {
    let sup = sup_at(top, path);
    let shared = shared.clone();
    let full = std::iter::once("top").chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join("/");
    let life = shared.0.lock().unwrap().lives[&full];
    tokio::spawn(async move {
        let answer = match what {
            Op::Start(plan) => started(sup.start_child(spec(&plan, &full, life, &shared)).await),
            Op::Terminate(id) => told(sup.terminate_child(&id).await.map(|()| "ok")),
            Op::Delete(id) => told(sup.delete_child(&id).await.map(|()| "ok")),
            Op::Restart(id) => match sup.restart_child(&id).await {
                Ok(done) => started(Ok(done)),
                Err(ChildError::Start(error)) => started(Err(error)),
                Err(error) => told(Err(error)),
            },
        };
        shared.0.lock().unwrap().told.push((op, answer.to_owned()));
    });
}

fn started(answer: Result<ChildRef, StartError>) -> &'static str {
    match answer {
        Ok(_) => "started",
        Err(StartError::Ignored) => "ignored",
        Err(StartError::AlreadyStarted(_)) => "already started",
        Err(StartError::AlreadyPresent) => "already present",
        Err(StartError::Starting) => "starting",
        Err(StartError::ShuttingDown) => "shutting down",
        Err(StartError::Terminated) => "terminated",
        Err(_) => "failed",
    }
}

fn told(answer: Result<&'static str, ChildError>) -> &'static str {
    match answer {
        Ok(ok) => ok,
        Err(ChildError::NotFound) => "not found",
        Err(ChildError::Running) => "running",
        Err(ChildError::Starting) => "starting",
        Err(ChildError::Restarting) => "restarting",
        Err(ChildError::ShuttingDown) => "shutting down",
        Err(error) => panic!("{error}"),
    }
}

pub fn shown(sup: &SupervisorRef) -> String {
    let Ok(children) = sup.which_children() else { return "shutting down".to_owned() };
    let children = children.into_iter().rev().map(|child| {
        let id = child.id.expect("an id");
        let nested = sup.child(&id).ok().and_then(|child| child.value::<SupervisorRef>());
        let state = match (child.state, nested) {
            (ChildState::Running(_), Some(nested)) => format!("({})", shown(&nested)),
            (ChildState::Running(_), None) => "+".to_owned(),
            (ChildState::Restarting, _) => "~".to_owned(),
            _ => "-".to_owned(),
        };
        format!("{id}{state}")
    });
    children.collect::<Vec<_>>().join(" ")
}

/// What a report tells, in the model's words.
pub fn failures(sup: &SupervisorRef) -> Vec<(String, String)> {
    let report = sup.report().expect("it has ended");
    let told = |kind: &StopFailureKind| match kind {
        StopFailureKind::Killed => "killed",
        StopFailureKind::KillTimedOut => "left behind",
        StopFailureKind::Ended(ExitReason::Killed) => "killed by somebody",
        StopFailureKind::Ended(ExitReason::Failed(_)) => "failed",
        StopFailureKind::Ended(_) => "ended",
        _ => "something else",
    };
    report.failures.iter().map(|failure| (failure.path.join("/"), told(&failure.kind).to_owned())).collect()
}
