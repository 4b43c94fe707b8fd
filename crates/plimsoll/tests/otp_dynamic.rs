//! OTP's cases of `simple_one_for_one`: the dynamic supervisor.

mod support;

use std::time::Duration;

use plimsoll::supervisor::{
    Backoff, Child, ChildError, ChildState, DynamicBuilder, DynamicSupervisor, Restart, Shutdown, ShutdownCause, Start,
    StartError, Started,
};
use ractor::{Actor, ActorCell};
use support::{Begin, Do, Puppet, Stage, quiet, tell};

/// A dynamic supervisor of puppets, named by their argument.
fn puppets(stage: &Stage) -> DynamicBuilder<&'static str> {
    let stage = stage.clone();
    DynamicSupervisor::builder("puppets", move |parent: ActorCell, id: &'static str| {
        let puppet = stage.puppet(id);
        async move {
            if id == "ignored" {
                return Ok::<_, plimsoll::supervisor::BoxError>(Start::Ignore);
            }
            let child: Child = Puppet::spawn_linked(None, puppet, (), parent).await?.into();
            Ok(Start::Child(child.value(id)))
        }
    })
    .backoff(Backoff::NONE)
}

#[tokio::test(start_paused = true)]
async fn otp_simple_one_for_one() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).intensity(1, Duration::from_secs(60)).start().await.unwrap();
    let first = dynamic.start_child("a").await.unwrap().child().unwrap();
    let second = dynamic.start_child("b").await.unwrap().child().unwrap();
    assert_eq!(*second.value::<&str>().unwrap(), "b");
    assert_eq!(stage.did(), ["start a", "start b"]);

    tell(&first, Do::Panic);
    quiet().await;
    // Only the one that failed is started again, with its own arguments.
    assert_eq!(stage.did(), ["start a"]);
    let children = dynamic.which_children().unwrap();
    assert_eq!(children.len(), 2);
    assert!(children.iter().all(|child| child.id.is_none()));
    assert_eq!(children[0].state, ChildState::Running(second.actor().clone()));

    let ChildState::Running(again) = &children[1].state else { panic!("{children:?}") };
    assert_ne!(again.get_id(), first.actor().get_id());
    again.send_message(Do::Fail).unwrap();
    let report = dynamic.wait().await;
    assert_eq!(report.cause, ShutdownCause::GaveUp);
    assert_eq!(stage.did(), ["stop b"]);
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_simple() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).max_children(2).start().await.unwrap();
    assert_eq!(dynamic.start_child("ignored").await.unwrap(), Started::Ignored);
    assert_eq!(dynamic.count_children().unwrap().workers, 0);

    let a = dynamic.start_child("a").await.unwrap().child().unwrap();
    stage.script.next("bad", [Begin::Fail]);
    assert!(matches!(dynamic.start_child("bad").await, Err(StartError::Failed(_))));
    let b = dynamic.start_child("b").await.unwrap().child().unwrap();
    assert_eq!(dynamic.start_child("c").await, Err(StartError::MaxChildren { max: 2 }));
    assert_eq!(dynamic.inspect().details.counters["refused_max_children"], 1);
    let count = dynamic.count_children().unwrap();
    assert_eq!((count.specs, count.active, count.workers, count.supervisors), (1, 2, 2, 0));
    assert_eq!(dynamic.child_spec(a.actor().get_id()).unwrap().restart, Restart::Permanent);

    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    assert_eq!(dynamic.count_children().unwrap().active, 1);
    // Any dead actor is fine, a living stranger is not.
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    let (stranger, _) = Puppet::spawn(None, stage.puppet("stranger"), ()).await.unwrap();
    assert_eq!(dynamic.terminate_child(&stranger.get_cell()).await, Err(ChildError::NotFound));
    assert_eq!(dynamic.child_spec(stranger.get_id()), Err(ChildError::NotFound));

    assert!(dynamic.stop().await.is_clean());
    assert_eq!(dynamic.start_child("d").await, Err(StartError::ShuttingDown));
    assert_eq!(dynamic.terminate_child(b.actor()).await, Err(ChildError::ShuttingDown));
    assert_eq!(dynamic.count_children(), Err(ChildError::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_one_for_one_extra() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let child = dynamic.start_child("extra").await.unwrap().child().unwrap();
    assert_eq!(*child.value::<&str>().unwrap(), "extra");
    tell(&child, Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["start extra", "start extra"]);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_one_for_one_escalation() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).intensity(0, Duration::from_secs(1)).start().await.unwrap();
    let a = dynamic.start_child("a").await.unwrap().child().unwrap();
    dynamic.start_child("b").await.unwrap();
    tell(&a, Do::Panic);
    assert_eq!(dynamic.wait().await.cause, ShutdownCause::GaveUp);
    assert_eq!(stage.did(), ["start a", "start b", "stop b"]);
}

#[tokio::test(start_paused = true)]
async fn a_dynamic_supervisor_stops_its_children_at_once_under_one_timer() {
    let stage = Stage::default();
    let slow = stage.clone();
    let dynamic = DynamicSupervisor::builder("slow", move |parent, seconds: u64| {
        let mut puppet = slow.puppet(&seconds.to_string());
        puppet.slow_stop = Duration::from_secs(seconds);
        Puppet::spawn_linked(None, puppet, (), parent)
    })
    .shutdown(Shutdown::After(Duration::from_secs(3)))
    .start()
    .await
    .unwrap();
    for seconds in [1, 2, 60, 61] {
        dynamic.start_child(seconds).await.unwrap();
    }
    let began = tokio::time::Instant::now();
    let report = dynamic.stop().await;
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    assert_eq!(report.stragglers().count(), 2, "{report}");
}
