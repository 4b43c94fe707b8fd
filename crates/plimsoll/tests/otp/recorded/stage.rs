//! The children of a recorded case: what each start and stop of theirs does, and the operations asked for meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::supervisor::{
    Backoff, BoxError, Child, ChildCount, ChildEntry, ChildError, ChildRef, ChildSpec, DynamicSupervisorRef, Restart,
    Shutdown, ShutdownReport, StartError, SupervisorRef,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus};

/// What the children of one case share.
#[derive(Clone, Default)]
pub(super) struct Stage(pub(super) Arc<Mutex<Props>>);

#[derive(Default)]
pub(super) struct Props {
    did: Vec<String>,
    pub(super) starts: HashMap<String, VecDeque<String>>,
    pub(super) actors: HashMap<String, ActorRef<Finish>>,
    pub(super) specs: HashMap<String, Vec<String>>,
    pub(super) tree: Option<Tree>,
}

/// One of the two kinds of supervisor.
#[derive(Clone)]
pub(super) enum Tree {
    Static(SupervisorRef),
    Dynamic(DynamicSupervisorRef<String>),
}

impl Tree {
    pub(super) async fn stop(&self) -> Arc<ShutdownReport> {
        match self {
            Self::Static(tree) => tree.stop().await.unwrap(),
            Self::Dynamic(tree) => tree.stop().await.unwrap(),
        }
    }

    pub(super) fn report(&self) -> Option<Arc<ShutdownReport>> {
        match self {
            Self::Static(tree) => tree.report(),
            Self::Dynamic(tree) => tree.report(),
        }
    }

    pub(super) fn children(&self) -> Result<(Vec<ChildEntry>, ChildCount), ChildError> {
        Ok(match self {
            Self::Static(tree) => (tree.which_children()?, tree.count_children()?),
            Self::Dynamic(tree) => (tree.which_children()?, tree.count_children()?),
        })
    }
}

impl Stage {
    fn note(&self, what: String) {
        self.0.lock().unwrap().did.push(what);
    }

    pub(super) fn did(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().did)
    }

    fn next_start(&self, id: &str) -> String {
        let mut props = self.0.lock().unwrap();
        props.starts.get_mut(id).and_then(VecDeque::pop_front).unwrap_or_else(|| "ok".to_owned())
    }

    /// The last actor of `id`.
    fn actor(&self, id: &str) -> Option<ActorRef<Finish>> {
        self.0.lock().unwrap().actors.get(id).cloned()
    }

    fn running(&self, id: &str) -> Option<ActorRef<Finish>> {
        self.actor(id).filter(|actor| actor.get_status() < ActorStatus::Stopping)
    }

    pub(super) fn spec(&self, id: &str) -> ChildSpec {
        let words = self.0.lock().unwrap().specs[id].clone();
        let [_, id, restart, significant, stop, shutdown] = words.try_into().expect("six words");
        let (stage, name) = (self.clone(), id.clone());
        let start = move |parent: ActorCell| start(stage.clone(), name.clone(), stop.clone(), parent);
        ChildSpec::new(id, start)
            .restart(restart_type(&restart))
            .significant(significant == "significant")
            .shutdown(grace(&shutdown))
            .backoff(Backoff::NONE)
    }

    /// Makes a sibling end; answers its actor.
    pub(super) fn end(&self, id: &str, how: &str) -> Option<ActorCell> {
        let actor = self.running(id)?;
        match how {
            "kill" => actor.kill(),
            how => actor.cast(Finish(how.to_owned())).ok()?,
        }
        Some(actor.get_cell())
    }

    /// An operation that is asked for while something else is under way: it stands in the queue when this returns.
    async fn ask(&self, op: &str, id: &str) {
        let (op, id, stage) = (op.to_owned(), id.to_owned(), self.clone());
        let Some(tree) = self.0.lock().unwrap().tree.clone() else { return };
        let mut asked = Box::pin(async move {
            let answer = operate(&tree, &op, &id, &stage).await;
            stage.note(format!("{op}:{id}={answer}"));
        });
        if futures::poll!(&mut asked).is_pending() {
            tokio::spawn(asked);
        }
    }
}

pub(super) fn restart_type(word: &str) -> Restart {
    match word {
        "permanent" => Restart::Permanent,
        "transient" => Restart::Transient,
        _ => Restart::Temporary,
    }
}

pub(super) fn grace(word: &str) -> Shutdown {
    match word {
        "brutal" => Shutdown::Brutal,
        "infinity" => Shutdown::Infinity,
        ms => Shutdown::After(Duration::from_millis(ms.parse().expect("milliseconds"))),
    }
}

pub(super) async fn start(stage: Stage, id: String, stop: String, parent: ActorCell) -> Result<Child, BoxError> {
    let outcome = stage.next_start(&id);
    match outcome.as_str() {
        "ok" => {
            stage.note(format!("+{id}"));
            let member = Member { id: id.clone(), stop, alone: AtomicBool::new(false), stage: stage.clone() };
            let (actor, ended) = Member::spawn_linked(None, member, (), parent).await?;
            stage.0.lock().unwrap().actors.insert(id, actor.clone());
            Ok(Child::from((actor, ended)))
        }
        "ignore" => {
            stage.note(format!("~{id}"));
            Err(StartError::Ignored.into())
        }
        fail => {
            stage.note(format!("!{id}"));
            match fail.split_once('/').and_then(|(_, hook)| hook.split_once('=')) {
                Some((op @ ("restart" | "delete" | "start"), id)) => stage.ask(op, id).await,
                Some((id, how)) => {
                    if let Some(sibling) = stage.end(id, how) {
                        let _ = sibling.wait(None).await;
                    }
                }
                None => {}
            }
            Err("told".into())
        }
    }
}

struct Member {
    id: String,
    stop: String,
    alone: AtomicBool,
    stage: Stage,
}

/// Ends the member so.
pub(super) struct Finish(String);

impl Actor for Member {
    type Msg = Finish;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Finish>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, me: ActorRef<Finish>, Finish(how): Finish, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.alone.store(true, Ordering::Relaxed);
        match how.as_str() {
            "normal" => me.stop(None),
            "crash" => return Err("told to crash".into()),
            other => me.stop(Some(other.to_owned())),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Finish>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        if self.alone.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.stage.note(format!("-{}", self.id));
        match self.stop.split_once('/').map(|(_, hook)| hook.split_once('=').expect("a hook")) {
            Some((op @ ("restart" | "delete" | "start"), id)) => self.stage.ask(op, id).await,
            Some((id, how)) => {
                if let Some(sibling) = self.stage.end(id, how) {
                    let _ = sibling.wait(None).await;
                }
            }
            None if self.stop == "crash" => return Err("told to crash".into()),
            None if self.stop == "linger" => std::future::pending().await,
            None => {}
        }
        Ok(())
    }
}

pub(super) async fn operate(tree: &Tree, op: &str, id: &str, stage: &Stage) -> String {
    match (tree, op) {
        (Tree::Static(tree), "start") => started(tree.start_child(stage.spec(id)).await),
        (Tree::Static(tree), "restart") => match tree.restart_child(id).await {
            Err(ChildError::Start(error)) => started(Err(error)),
            Err(error) => told(Err(error)),
            Ok(done) => started(Ok(done)),
        },
        (Tree::Static(tree), "delete") => told(tree.delete_child(id).await),
        (Tree::Static(tree), _) => told(tree.terminate_child(id).await),
        (Tree::Dynamic(tree), "start") if stage.running(id).is_none() => started(tree.start_child(id.to_owned()).await),
        (Tree::Dynamic(tree), "terminate") => match stage.actor(id) {
            Some(actor) => told(tree.terminate_child(&actor).await),
            None => "none".to_owned(),
        },
        (Tree::Dynamic(_), _) => "none".to_owned(),
    }
}

fn started(answer: Result<ChildRef, StartError>) -> String {
    match answer {
        Ok(_) => "started",
        Err(StartError::Ignored) => "ignored",
        Err(StartError::AlreadyPresent) => "present",
        Err(StartError::AlreadyStarted(_)) => "already",
        Err(StartError::ShuttingDown) => "gone",
        // OTP looks at the spec first, ours too.
        Err(_) => "failed",
    }
    .to_owned()
}

fn told(answer: Result<(), ChildError>) -> String {
    match answer {
        Ok(()) => "ok",
        Err(ChildError::NotFound) => "not_found",
        Err(ChildError::Running) => "running",
        Err(ChildError::Starting) => "starting",
        Err(ChildError::Restarting) => "restarting",
        Err(_) => "gone",
    }
    .to_owned()
}
