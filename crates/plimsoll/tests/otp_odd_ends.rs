//! Restarts that take over others, and children that end in odd ways.

mod support;

use std::time::Duration;

use plimsoll::supervisor::{
    Backoff, BoxError, ChildError, ChildSpec, ChildState, DynamicSupervisor, DynamicSupervisorRef, Restart, Shutdown,
    StartError, Started, Strategy, Supervisor, SupervisorRef,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use support::{Begin, Do, Stage, quiet, tell_id};

fn shown(tree: &SupervisorRef) -> String {
    let letter = |state: &ChildState| match state {
        ChildState::Running(_) => '+',
        ChildState::Restarting => '~',
        _ => '-',
    };
    let children = tree.which_children().unwrap().into_iter().rev();
    children.map(|child| format!("{}{}", child.id.unwrap(), letter(&child.state))).collect::<Vec<_>>().join(" ")
}

async fn three(stage: &Stage, strategy: Strategy) -> SupervisorRef {
    let patient = |id| stage.child(id).backoff(Backoff::constant(Duration::from_secs(1)));
    let builder = Supervisor::builder("top").strategy(strategy).intensity(100, Duration::from_secs(1));
    builder.children(["a", "b", "c"].map(patient)).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn otp_rest_for_one_that_takes_over_a_waiting_restart_leaves_it_without_a_child() {
    let stage = Stage::default();
    let tree = three(&stage, Strategy::RestForOne).await;
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    assert_eq!(shown(&tree), "a+ b~ c-");
    stage.script.always("a", Begin::Fail);
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(shown(&tree), "a~ b- c-", "undefined, as after terminate_children");
    assert_eq!(tree.restart_child("a").await, Err(ChildError::Restarting));
    assert!(matches!(tree.restart_child("b").await, Ok(Started::Child(_))));
    assert_eq!(tree.delete_child("c").await, Ok(()));
    stage.script.no_longer("a");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(shown(&tree), "a+ b+");
    assert_eq!(stage.did().last().map(String::as_str), Some("start b"), "the next try stopped it again");
}

#[tokio::test(start_paused = true)]
async fn otp_one_for_all_whose_first_start_fails_leaves_the_one_that_failed_without_a_child() {
    let stage = Stage::default();
    let tree = three(&stage, Strategy::OneForAll).await;
    stage.script.next("a", [Begin::Fail]);
    tell_id(&tree, "c", Do::Panic);
    quiet().await;
    assert_eq!(shown(&tree), "a- b- c~", "before its delay is over");
    tokio::time::sleep(Duration::from_millis(1_001)).await;
    assert_eq!(shown(&tree), "a~ b- c-");
    assert_eq!(tree.delete_child("c").await, Ok(()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(shown(&tree), "a+ b+");
}

#[tokio::test(start_paused = true)]
async fn otp_all_ends_that_waited_for_a_stop_phase_come_before_its_first_start() {
    let stage = Stage::default();
    let slow = stage.child_with("d", |mut puppet| {
        puppet.slow_stop = Duration::from_secs(1);
        puppet
    });
    let builder = Supervisor::builder("top").strategy(Strategy::RestForOne).intensity(10, Duration::from_secs(60));
    let temporary = stage.child("b").restart(Restart::Temporary);
    let tree = builder.children([stage.child("a"), temporary, stage.child("c"), slow]).start().await.unwrap();
    tell_id(&tree, "c", Do::Panic);
    quiet().await;
    stage.did();
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(tree.terminate_child("c").await, Ok(()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.did(), ["stop d", "start a", "start d"], "nothing is started for the narrower restart first");
    assert_eq!(shown(&tree), "a+ c- d+", "c was terminated by hand meanwhile");
}

#[tokio::test(start_paused = true)]
async fn otp_a_task_whose_closure_panics_has_not_started() {
    let stage = Stage::default();
    let spec = ChildSpec::task("task", |_| {
        if true {
            panic!("before there is a future");
        }
        std::future::ready(Ok::<_, BoxError>(()))
    });
    let boot = Supervisor::builder("top").child(stage.child("a")).child(spec.clone()).start().await;
    let Err(StartError::FailedToStart { id, reason }) = boot.map(|_| ()) else { panic!("it must not start") };
    assert_eq!(&*id, "task");
    assert!(matches!(&*reason, StartError::Failed(failure) if &*failure.message == "before there is a future"));
    assert_eq!(stage.did(), ["start a", "stop a"]);
    let tree = Supervisor::builder("top").start().await.unwrap();
    assert!(matches!(tree.start_child(spec).await, Err(StartError::Failed(_))));
    assert_eq!(tree.count_children().unwrap().specs, 0, "the spec is not kept");
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
    assert!(matches!(tree.restart_child("unlinks").await, Ok(Started::Child(_))));
    tokio::time::timeout(limit, tree.stop()).await.expect("the stop ends");
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
    let child = dynamic.start_child(()).await.unwrap().child().unwrap();
    assert_eq!(tokio::time::timeout(limit, dynamic.terminate_child(child.actor())).await, Ok(Ok(())));
    dynamic.start_child(()).await.unwrap();
    tokio::time::timeout(limit, dynamic.stop()).await.expect("the stop ends");
}
