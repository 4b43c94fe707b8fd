//! Children whose behaviour a test chooses, and what they did in order.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::supervisor::{
    Backoff, BoxError, Child, ChildRef, ChildSpec, ShutdownReport, StartError, StopFailureKind, SupervisorRef,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::task::JoinHandle;

/// What children did, in order, as `verb id`.
#[derive(Clone, Default)]
pub struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    pub fn note(&self, event: impl Into<String>) {
        self.0.lock().unwrap().push(event.into());
    }

    /// What was noted since the last look.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// What a child can be told to do.
#[derive(Debug)]
pub enum Do {
    /// End without a reason.
    Normal,
    /// End with this reason.
    Stop(&'static str),
    /// Answer an error.
    Fail,
    /// Panic.
    Panic,
    /// Be busy for so long.
    Busy(Duration),
    /// Link to nobody any more.
    Unlink,
}

/// How the next starts of a child go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Begin {
    Run,
    Fail,
    Panic,
    Hang,
    Ignore,
}

/// Scripted starts by id; a child without a script runs.
#[derive(Clone, Default)]
pub struct Script(Arc<Mutex<HashMap<String, Vec<Begin>>>>);

impl Script {
    /// The next starts of `id`, in order; after them it runs.
    pub fn next(&self, id: &str, begins: impl IntoIterator<Item = Begin>) {
        self.0.lock().unwrap().entry(id.to_owned()).or_default().extend(begins);
    }

    /// Every further start of `id` goes so.
    pub fn always(&self, id: &str, begin: Begin) {
        self.0.lock().unwrap().insert(format!("{id}!"), vec![begin]);
    }

    pub fn no_longer(&self, id: &str) {
        self.0.lock().unwrap().remove(&format!("{id}!"));
    }

    /// Whether the next start of `id` has nothing to run; takes it.
    pub fn ignores(&self, id: &str) -> bool {
        let mut script = self.0.lock().unwrap();
        let next = script.get_mut(id).filter(|begins| begins.first() == Some(&Begin::Ignore));
        next.map(|begins| begins.remove(0)).is_some()
    }

    fn take(&self, id: &str) -> Begin {
        let mut script = self.0.lock().unwrap();
        if let Some(begin) = script.get(&format!("{id}!")) {
            return begin[0];
        }
        match script.get_mut(id) {
            Some(begins) if !begins.is_empty() => begins.remove(0),
            _ => Begin::Run,
        }
    }
}

/// A child that does as it is told.
pub struct Puppet {
    pub id: String,
    pub diary: Diary,
    pub script: Script,
    /// How long its stop hook takes.
    pub slow_stop: Duration,
    pub fail_stop: bool,
}

impl Actor for Puppet {
    type Msg = Do;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Do>, (): ()) -> Result<(), ActorProcessingErr> {
        match self.script.take(&self.id) {
            Begin::Run | Begin::Ignore => {}
            Begin::Fail => return Err("told to fail".into()),
            Begin::Panic => panic!("told to panic"),
            Begin::Hang => std::future::pending().await,
        }
        self.diary.note(format!("start {}", self.id));
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Do>, message: Do, _: &mut ()) -> Result<(), ActorProcessingErr> {
        match message {
            Do::Normal => myself.stop(None),
            Do::Stop(reason) => myself.stop(Some(reason.to_owned())),
            Do::Fail => return Err("told to fail".into()),
            Do::Panic => panic!("told to panic"),
            Do::Busy(time) => tokio::time::sleep(time).await,
            Do::Unlink => {
                if let Some(parent) = myself.try_get_supervisor() {
                    myself.unlink(parent);
                }
            }
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Do>, _: &mut ()) -> Result<(), ActorProcessingErr> {
        if !self.slow_stop.is_zero() {
            self.diary.note(format!("stopping {}", self.id));
            tokio::time::sleep(self.slow_stop).await;
        }
        if self.fail_stop {
            return Err("told to fail".into());
        }
        self.diary.note(format!("stop {}", self.id));
        Ok(())
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.diary.note(format!("drop {}", self.id));
    }
}

/// Its stop hook takes so many seconds.
pub fn slow(seconds: u64) -> impl Fn(Puppet) -> Puppet + Send + Sync + 'static {
    move |mut puppet| {
        puppet.slow_stop = Duration::from_secs(seconds);
        puppet
    }
}

/// Its stop hook fails.
pub fn failing(mut puppet: Puppet) -> Puppet {
    puppet.fail_stop = true;
    puppet
}

/// Puppets with one diary and one script.
#[derive(Clone, Default)]
pub struct Stage {
    pub diary: Diary,
    pub script: Script,
}

impl Stage {
    pub fn puppet(&self, id: &str) -> Puppet {
        Puppet {
            id: id.to_owned(),
            diary: self.diary.clone(),
            script: self.script.clone(),
            slow_stop: Duration::ZERO,
            fail_stop: false,
        }
    }

    /// A puppet without backoff.
    pub fn child(&self, id: &str) -> ChildSpec {
        self.child_with(id, |puppet| puppet)
    }

    pub fn child_with(&self, id: &str, with: impl Fn(Puppet) -> Puppet + Send + Sync + 'static) -> ChildSpec {
        let (stage, name) = (self.clone(), id.to_owned());
        ChildSpec::new(id, move |parent: ActorCell| {
            let (puppet, script, name) = (with(stage.puppet(&name)), stage.script.clone(), name.clone());
            async move {
                let ignored =
                    matches!(script.0.lock().unwrap().get(&name).and_then(|next| next.first()), Some(Begin::Ignore))
                        || script.0.lock().unwrap().get(&format!("{name}!")) == Some(&vec![Begin::Ignore]);
                if ignored {
                    script.take(&name);
                    return Err(BoxError::from(StartError::Ignored));
                }
                let child: Child = Puppet::spawn_linked(None, puppet, (), parent).await?.into();
                Ok(child)
            }
        })
        .backoff(Backoff::NONE)
    }

    /// What children did since the last look, without the drops.
    pub fn did(&self) -> Vec<String> {
        self.diary.take().into_iter().filter(|event| !event.starts_with("drop")).collect()
    }
}

/// Tells a child to do something.
pub fn tell(child: &ChildRef, what: Do) {
    child.actor_ref::<Do>().expect("a puppet").cast(what).expect("a living puppet");
}

/// Tells the running child `id` to do something.
pub fn tell_id(tree: &SupervisorRef, id: &str, what: Do) {
    tell(&tree.child(id).expect("a running child"), what);
}

/// Starts a child in a task of its own.
pub fn start_meanwhile(tree: &SupervisorRef, spec: ChildSpec) -> JoinHandle<Result<ChildRef, StartError>> {
    let tree = tree.clone();
    tokio::spawn(async move { tree.start_child(spec).await })
}

/// Stops the tree in a task of its own.
pub fn stop_meanwhile(tree: &SupervisorRef) -> JoinHandle<Arc<ShutdownReport>> {
    let tree = tree.clone();
    tokio::spawn(async move { tree.stop().await.unwrap() })
}

/// Who gave failure, by the first step of the path, and what it was.
pub fn failures(report: &ShutdownReport) -> Vec<(&str, &StopFailureKind)> {
    report.failures.iter().map(|failure| (&*failure.path[0], &failure.kind)).collect()
}

/// Lets everything that can happen without time passing happen. Only under paused time.
pub async fn quiet() {
    // Paused time moves only when every task waits: a millisecond passes when nothing else can.
    tokio::time::sleep(Duration::from_millis(1)).await;
}
