//! Cases in which a comparison with OTP itself, case by case, found ours to differ.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    AutoShutdown, Backoff, BoxError, Child, ChildSpec, Restart, Shutdown, ShutdownCause, Strategy, Supervisor,
    SupervisorRef, TroubleKind,
};
use ractor::Actor;
use support::{Begin, Do, Puppet, Stage, quiet, tell_id};

async fn ended(tree: &SupervisorRef) -> ShutdownCause {
    tokio::time::timeout(Duration::from_secs(60), tree.wait()).await.expect("it ends").cause
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_of_brutal_children_expects_a_kill_and_nothing_else() {
    let stage = Stage::default();
    let brutal = |id| stage.child(id).shutdown(Shutdown::Brutal);
    let slow = stage.child_with("slow", |mut puppet| {
        puppet.slow_stop = Duration::from_secs(1);
        puppet
    });
    let builder = Supervisor::builder("top")
        .child(brutal("killed"))
        .child(brutal("permanent"))
        .child(brutal("transient").restart(Restart::Transient))
        .child(stage.child("worker"))
        .child(slow);
    let tree = builder.start().await.unwrap();
    let [killed, permanent, transient, worker] =
        ["killed", "permanent", "transient", "worker"].map(|id| tree.child(id).unwrap());
    let stopping = tokio::spawn({
        let tree = tree.clone();
        async move { tree.stop().await }
    });
    quiet().await;
    killed.actor().kill();
    for child in [permanent, transient, worker] {
        child.actor().stop(Some("shutdown".to_owned()));
    }
    let report = stopping.await.unwrap();
    let told: Vec<_> = report.troubles.iter().map(|trouble| (trouble.path[0].to_string(), &trouble.what)).collect();
    assert_eq!(told, [("permanent".to_owned(), &TroubleKind::Ended(ExitReason::Shutdown))]);
}

#[tokio::test(start_paused = true)]
async fn otp_significant_all_counts_nobody_who_has_no_child_between_two_tries() {
    let stage = Stage::default();
    let patient = |id| stage.child(id).backoff(Backoff::constant(Duration::from_secs(1)));
    let significant = |id| patient(id).restart(Restart::Transient).significant(true);
    let builder = Supervisor::builder("top")
        .strategy(Strategy::RestForOne)
        .auto_shutdown(AutoShutdown::AllSignificant)
        .intensity(10, Duration::from_secs(60))
        .children([significant("a"), significant("b"), patient("c"), significant("d")]);
    let tree = builder.start().await.unwrap();
    stage.script.next("c", [Begin::Fail]);
    tell_id(&tree, "c", Do::Panic);
    quiet().await;
    tell_id(&tree, "a", Do::Normal);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(tree.report().is_none(), "b runs");
    tell_id(&tree, "b", Do::Normal);
    assert_eq!(ended(&tree).await, ShutdownCause::AutoShutdown, "d is undefined, c waits for its next try");
}

#[tokio::test(start_paused = true)]
async fn otp_a_try_that_a_siblings_restart_makes_needless_is_not_charged() {
    let stage = Stage::default();
    let (top, starts) = (Arc::new(OnceLock::<SupervisorRef>::new()), Arc::new(AtomicUsize::new(0)));
    let (above, counted, puppets) = (top.clone(), starts.clone(), stage.clone());
    // Its second start fails, and takes a sibling along that has just been started again.
    let b = ChildSpec::new("b", move |parent| {
        let (above, n) = (above.clone(), counted.fetch_add(1, Ordering::SeqCst));
        let puppet = puppets.puppet("b");
        async move {
            if n == 1 {
                let sibling = above.get().expect("it runs").child("a").expect("it runs");
                sibling.actor().kill();
                let _ = sibling.actor().wait(None).await;
                return Err(BoxError::from("told to fail"));
            }
            Ok(Child::from(Puppet::spawn_linked(None, puppet, (), parent).await?))
        }
    });
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).intensity(2, Duration::from_secs(60));
    let tree = builder.child(stage.child("a")).child(b.backoff(Backoff::NONE)).start().await.unwrap();
    top.set(tree.clone()).unwrap();
    tell_id(&tree, "b", Do::Panic);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(tree.report().is_none(), "b's end and a's are charged, and no try: a's restart started b, too");
    assert_eq!(starts.load(Ordering::SeqCst), 3);
    assert_eq!(tree.count_children().unwrap().active, 2);
    tell_id(&tree, "a", Do::Panic);
    assert_eq!(ended(&tree).await, ShutdownCause::GaveUp);
}
