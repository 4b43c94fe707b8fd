//! Which children of a dynamic supervisor are started again, and what that costs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::supervisor::{
    Backoff, BoxError, ChildSpec, ChildState, DynamicSupervisor, DynamicSupervisorRef, Restart, ShutdownCause,
    StartError, Strategy, Supervisor,
};
use ractor::Actor;

use super::{Id, child, counts, puppets, states};
use crate::support::{Begin, Do, Puppet, Stage, quiet, tell};

#[tokio::test(start_paused = true)]
async fn otp_simple_restart_types() {
    for (restart, normal, failure) in
        [(Restart::Permanent, "+", "+"), (Restart::Transient, "", "+"), (Restart::Temporary, "", "")]
    {
        let stage = Stage::default();
        for (what, expected) in [
            (Do::Normal, normal),
            (Do::Stop("shutdown"), normal),
            (Do::Stop("upgrade"), normal),
            (Do::Stop("killed"), failure),
            (Do::Fail, failure),
            (Do::Panic, failure),
        ] {
            let dynamic = puppets(&stage).restart(restart).start().await.unwrap();
            let a = child(&dynamic, "a").await;
            let told = format!("{restart:?} {what:?}");
            tell(&a, what);
            quiet().await;
            assert_eq!(states(&dynamic), expected, "{told}");
            assert!(dynamic.stop().await.unwrap().is_clean());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn otp_simple_killed_child_is_restarted() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).restart(Restart::Transient).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    a.actor().kill();
    quiet().await;
    assert_eq!(states(&dynamic), "+");
}

#[tokio::test(start_paused = true)]
async fn otp_simple_child_that_dies_before_its_start_returns() {
    for (restart, expected) in [(Restart::Permanent, "+"), (Restart::Temporary, "")] {
        let stage = Stage::default();
        let (inner, dies) = (stage.clone(), Arc::new(Mutex::new(true)));
        let dynamic = DynamicSupervisor::builder("early", move |parent, id: Id| {
            let (puppet, dies) = (inner.puppet(id), std::mem::take(&mut *dies.lock().unwrap()));
            async move {
                let (actor, ended) = Puppet::spawn_linked(None, puppet, (), parent).await?;
                if dies {
                    actor.cast(Do::Panic)?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok::<_, BoxError>((actor, ended))
            }
        })
        .restart(restart)
        .backoff(Backoff::NONE)
        .start()
        .await
        .unwrap();
        dynamic.start_child("a").await.unwrap();
        quiet().await;
        assert_eq!(states(&dynamic), expected, "{restart:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_hanging_restart_loop_simple() {
    let stage = Stage::default();
    let dynamic = puppets(&stage)
        .intensity(u32::MAX, Duration::from_secs(1))
        .backoff(Backoff::constant(Duration::from_millis(10)))
        .start()
        .await
        .unwrap();
    let a = child(&dynamic, "a").await;
    let b = child(&dynamic, "b").await;
    stage.script.always("a", Begin::Fail);
    tell(&a, Do::Panic);
    tokio::time::sleep(Duration::from_millis(95)).await;
    assert_eq!(states(&dynamic), "~+");
    assert_eq!(counts(&dynamic), (1, 1, 0, 2));
    // Others are started and stopped meanwhile.
    let c = child(&dynamic, "c").await;
    dynamic.terminate_child(b.actor()).await.unwrap();
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    dynamic.terminate_child(c.actor()).await.unwrap();
    assert_eq!(counts(&dynamic), (1, 0, 0, 0));
    assert!(dynamic.stop().await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn otp_simple_restart_that_fails_without_backoff_serves_others() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).intensity(u32::MAX, Duration::from_secs(1)).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    stage.script.always("a", Begin::Fail);
    tell(&a, Do::Panic);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let b = child(&dynamic, "b").await;
    dynamic.terminate_child(b.actor()).await.unwrap();
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    assert!(dynamic.stop().await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn otp_simple_restart_that_fails_is_charged_each_time() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).intensity(3, Duration::from_secs(60)).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    stage.script.next("a", [Begin::Fail, Begin::Panic]);
    tell(&a, Do::Panic);
    quiet().await;
    assert_eq!(states(&dynamic), "+");
    let ChildState::Running(again) = dynamic.which_children().unwrap()[0].state.clone() else { panic!("it runs") };
    again.send_message(Do::Panic).unwrap();
    assert!(matches!(dynamic.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_restart_that_is_ignored_drops_the_child() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).max_children(1).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    stage.script.next("a", [Begin::Ignore]);
    tell(&a, Do::Panic);
    quiet().await;
    assert_eq!(counts(&dynamic), (1, 0, 0, 0));
    child(&dynamic, "b").await;
}

#[tokio::test(start_paused = true)]
async fn otp_simple_one_for_one_escalation() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).intensity(0, Duration::from_secs(1)).start().await.unwrap();
    let a = dynamic.start_child("a").await.unwrap();
    dynamic.start_child("b").await.unwrap();
    tell(&a, Do::Panic);
    assert!(matches!(dynamic.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
    assert_eq!(stage.did(), ["start a", "start b", "stop b"]);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_under_a_supervisor_gives_up_and_is_restarted_empty() {
    let stage = Stage::default();
    let inner = stage.clone();
    let spec = ChildSpec::supervisor("pool", move || puppets(&inner).intensity(0, Duration::from_secs(1)));
    let tree = Supervisor::builder("top")
        .strategy(Strategy::RestForOne)
        .child(spec.backoff(Backoff::NONE))
        .child(stage.child("after"))
        .start()
        .await
        .unwrap();
    let pool = || tree.child("pool").unwrap().value::<DynamicSupervisorRef<Id>>().unwrap();
    let first = pool();
    let a = child(&first, "a").await;
    child(&first, "b").await;
    tell(&a, Do::Panic);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.did(), ["start after", "start a", "start b", "stop b", "stop after", "start after"]);
    assert_eq!(counts(&pool()), (1, 0, 0, 0));
    assert_eq!(first.start_child("c").await, Err(StartError::ShuttingDown));
}
