//! The same work on bare ractor and on kameo.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kameo::prelude::{Context, Message};
use kameo::supervision::RestartPolicy;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

/// Tells when the next start happened.
pub type Started = Arc<Mutex<Option<oneshot::Sender<Instant>>>>;

pub fn note_start(started: &Started) {
    if let Some(waiting) = started.lock().unwrap().take() {
        let _ = waiting.send(Instant::now());
    }
}

/// What the measured actors are told.
pub enum Do {
    Panic,
    /// Keep the thread busy for 5 us.
    Spin,
}

pub fn spin() {
    let began = Instant::now();
    while began.elapsed() < Duration::from_micros(5) {
        std::hint::spin_loop();
    }
}

/// The child that all supervisors supervise.
pub struct Victim(pub Option<Started>);

impl Actor for Victim {
    type Msg = Do;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Do>, (): ()) -> Result<(), ActorProcessingErr> {
        if let Some(started) = &self.0 {
            note_start(started);
        }
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Do>, what: Do, _: &mut ()) -> Result<(), ActorProcessingErr> {
        match what {
            Do::Panic => panic!("told to panic"),
            Do::Spin => spin(),
        }
        Ok(())
    }
}

/// A bare actor and the handle of its task.
pub type Bare = (ActorRef<Do>, tokio::task::JoinHandle<()>);

/// A bare parent that takes no notice of its children.
pub struct Parent;

impl Actor for Parent {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        _: ractor::SupervisionEvent,
        _: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

pub async fn bare_parent() -> ActorCell {
    Parent::spawn(None, Parent, ()).await.expect("it starts").0.get_cell()
}

pub async fn bare_start(parent: &ActorCell) -> Bare {
    Victim::spawn_linked(None, Victim(None), (), parent.clone()).await.expect("it starts")
}

pub async fn stop_bare(actors: Vec<Bare>) {
    for (actor, ended) in actors {
        actor.stop(None);
        ended.await.expect("it ends");
    }
}

pub async fn bare_start_stop(parent: &ActorCell) {
    let (actor, ended) = bare_start(parent).await;
    actor.stop(None);
    ended.await.expect("it ends");
}

pub struct KameoParent;

impl kameo::Actor for KameoParent {
    type Args = ();
    type Error = kameo::error::Infallible;

    async fn on_start((): (), _: kameo::actor::ActorRef<Self>) -> Result<Self, Self::Error> {
        Ok(Self)
    }
}

#[derive(Clone)]
pub struct KameoVictim(pub Option<Started>);

impl kameo::Actor for KameoVictim {
    type Args = Self;
    type Error = kameo::error::Infallible;

    async fn on_start(args: Self, _: kameo::actor::ActorRef<Self>) -> Result<Self, Self::Error> {
        if let Some(started) = &args.0 {
            note_start(started);
        }
        Ok(args)
    }
}

impl Message<Do> for KameoVictim {
    type Reply = ();

    async fn handle(&mut self, what: Do, _: &mut Context<Self, ()>) {
        match what {
            Do::Panic => panic!("told to panic"),
            Do::Spin => spin(),
        }
    }
}

/// A kameo supervisor with so many children; the first one notes its starts.
pub async fn kameo_tree(
    children: usize,
    started: &Started,
) -> (kameo::actor::ActorRef<KameoParent>, Vec<kameo::actor::ActorRef<KameoVictim>>) {
    use kameo::actor::Spawn;
    let parent = KameoParent::spawn(());
    let mut all = Vec::with_capacity(children);
    for n in 0..children {
        let victim = KameoVictim((n == 0).then(|| started.clone()));
        let child = KameoVictim::supervise(&parent, victim)
            .restart_policy(RestartPolicy::Permanent)
            .restart_limit(u32::MAX, Duration::from_secs(1))
            .spawn()
            .await;
        all.push(child);
    }
    (parent, all)
}
