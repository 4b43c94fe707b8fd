//! Children that cut their link, and trees that are linked to an ordinary actor.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    BoxError, Child, ChildSpec, DynamicSupervisor, DynamicSupervisorRef, Restart, Shutdown, StartError,
    StopFailureKind, Strategy, Supervisor, SupervisorRef,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::time::Instant;

use crate::dynamic::{Id, child, counts, puppets};
use crate::support::{Do, Puppet, Stage, failing, failures, quiet, slow, tell, tell_id};
use crate::trees::shown;

#[tokio::test(start_paused = true)]
async fn otp_child_unlink() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").child(stage.child("a")).start().await.unwrap();
    let child = tree.child("a").unwrap();
    tell_id(&tree, "a", Do::Unlink);
    quiet().await;
    assert!(child.actor().try_get_supervisor().is_none());
    // It is stopped all the same, and waited for.
    let report = tree.stop().await.unwrap();
    assert_eq!(stage.diary.take(), ["start a", "stop a", "drop a"]);
    assert_eq!(report.stragglers().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn otp_child_unlink_is_reported_as_it_ends() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").child(stage.child("clean")).child(stage.child_with("fails", failing));
    let tree = builder.child(stage.child_with("slow", slow(60))).start().await.unwrap();
    for id in ["clean", "fails", "slow"] {
        tell_id(&tree, id, Do::Unlink);
    }
    quiet().await;
    let began = Instant::now();
    let report = tree.stop().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    let told = failures(&report);
    let failed = StopFailureKind::Ended(ExitReason::failed("told to fail"));
    assert_eq!(told, [("slow", &StopFailureKind::Killed), ("fails", &failed)]);
}

#[tokio::test(start_paused = true)]
async fn otp_child_unlink_is_terminated_and_restarted_by_hand() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").child(stage.child("a")).start().await.unwrap();
    tell_id(&tree, "a", Do::Unlink);
    quiet().await;
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    assert_eq!(shown(&tree), "a-");
    tree.restart_child("a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_child_unlink_takes_part_in_a_group_restart() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).child(stage.child("a"));
    let tree = builder.child(stage.child("b")).start().await.unwrap();
    stage.did();
    tell_id(&tree, "b", Do::Unlink);
    quiet().await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stop b", "start a", "start b"]);
}

/// Unlinks itself in its stop hook.
struct Unlinks;

impl Actor for Unlinks {
    type Msg = Do;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Do>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn post_stop(&self, myself: ActorRef<Do>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        if let Some(parent) = myself.try_get_supervisor() {
            myself.unlink(parent);
        }
        Ok(())
    }
}

async fn unlinks(parent: ActorCell) -> Result<(ActorRef<Do>, tokio::task::JoinHandle<()>), BoxError> {
    Ok(Unlinks::spawn_linked(None, Unlinks, (), parent).await?)
}

#[tokio::test(start_paused = true)]
async fn otp_child_unlink_in_its_stop_hook_under_infinity() {
    let spec = ChildSpec::new("unlinks", unlinks).shutdown(Shutdown::Infinity);
    let tree = Supervisor::builder("top").child(spec).start().await.unwrap();
    let limit = Duration::from_secs(3_600);
    assert_eq!(tokio::time::timeout(limit, tree.terminate_child("unlinks")).await, Ok(Ok(())));
    tree.restart_child("unlinks").await.unwrap();
    tokio::time::timeout(limit, tree.stop()).await.expect("the stop ends").unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_simple_child_unlink_in_its_stop_hook_under_infinity() {
    let dynamic: DynamicSupervisorRef<()> = DynamicSupervisor::builder("dynamic", |parent, (): ()| unlinks(parent))
        .restart(Restart::Temporary)
        .shutdown(Shutdown::Infinity)
        .start()
        .await
        .unwrap();
    let limit = Duration::from_secs(3_600);
    let child = dynamic.start_child(()).await.unwrap();
    assert_eq!(tokio::time::timeout(limit, dynamic.terminate_child(child.actor())).await, Ok(Ok(())));
    dynamic.start_child(()).await.unwrap();
    tokio::time::timeout(limit, dynamic.stop()).await.expect("the stop ends").unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_simple_child_unlink() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    let b = child(&dynamic, "b").await;
    tell(&a, Do::Unlink);
    tell(&b, Do::Unlink);
    quiet().await;
    // One that unlinked itself is terminated and stopped all the same.
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    let report = dynamic.stop().await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(stage.did(), ["start a", "start b", "stop a", "stop b"]);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_child_unlinked_and_dead_is_terminated_without_a_wait() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    let b = child(&dynamic, "b").await;
    for child in [&a, &b] {
        tell(child, Do::Unlink);
        tell(child, Do::Normal);
    }
    quiet().await;
    let began = Instant::now();
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    dynamic.stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_unlinked_child_is_refused() {
    let stage = Stage::default();
    let inner = stage.clone();
    let dynamic = DynamicSupervisor::builder("loose", move |_parent, id: Id| Puppet::spawn(None, inner.puppet(id), ()))
        .max_children(1)
        .start()
        .await
        .unwrap();
    for _ in 0..2 {
        assert_eq!(dynamic.start_child("a").await, Err(StartError::NotLinked));
    }
    assert_eq!(counts(&dynamic), (1, 0, 0, 0));
}

struct Parent(Arc<Mutex<Vec<String>>>);

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
        event: ractor::SupervisionEvent,
        _: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let ractor::SupervisionEvent::ActorTerminated(_, _, reason) = event {
            self.0.lock().unwrap().push(format!("{reason:?}"));
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn otp_a_tree_under_a_ractor_actor_ends_with_shutdown_when_it_gives_up() {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let (parent, _) = Parent::spawn(None, Parent(heard.clone()), ()).await.unwrap();
    let stage = Stage::default();
    let builder = Supervisor::builder("tree").intensity(0, Duration::from_secs(1)).child(stage.child("a"));
    let child: Child = builder.start_linked(parent.get_cell()).await.unwrap();
    let tree = child.value_ref::<SupervisorRef>().unwrap();
    tell_id(&tree, "a", Do::Panic);
    tree.wait().await.unwrap();
    quiet().await;
    assert_eq!(*heard.lock().unwrap(), ["Some(\"shutdown\")"]);
}

#[tokio::test(start_paused = true)]
async fn otp_a_tree_dies_with_the_ractor_actor_that_it_is_linked_to() {
    for kill in [true, false] {
        let (parent, ended) = Parent::spawn(None, Parent(Arc::default()), ()).await.unwrap();
        let stage = Stage::default();
        let builder = Supervisor::builder("tree").child(stage.child("a")).child(stage.child_with("b", slow(100)));
        let child: Child = builder.start_linked(parent.get_cell()).await.unwrap();
        let tree = child.value_ref::<SupervisorRef>().unwrap();
        tell_id(&tree, "b", Do::Normal);
        quiet().await;
        stage.diary.take();
        if kill {
            parent.kill()
        } else {
            parent.stop(None)
        }
        ended.await.unwrap();
        tree.wait().await.unwrap();
        let left: BTreeSet<_> = stage.diary.take().into_iter().collect();
        assert_eq!(left, ["drop a".to_owned(), "drop b".to_owned()].into());
    }
}
