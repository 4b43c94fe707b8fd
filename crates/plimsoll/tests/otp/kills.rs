//! Supervisors that are killed, or whose runtime goes: nobody below them is left.

use std::collections::BTreeSet;
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{Backoff, ChildSpec, DynamicSupervisor, Shutdown, ShutdownCause, Supervisor, SupervisorRef};
use ractor::Actor;
use tokio::time::Instant;

use crate::dynamic::{child, puppets};
use crate::support::{Do, Puppet, Stage, quiet, slow, stop_meanwhile, tell, tell_id};
use crate::trees::{shown, start};

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_killed_mid_stop_leaves_nobody() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top")
        .child(stage.child("a").shutdown(Shutdown::Infinity))
        .child(stage.child_with("b", slow(1_000_000)).shutdown(Shutdown::Infinity));
    let tree = start(&stage, builder).await;
    let stopping = stop_meanwhile(&tree);
    quiet().await;
    assert_eq!(stage.diary.take(), ["stopping b"]);
    let began = Instant::now();
    tree.actor().kill();
    let report = stopping.await.unwrap();
    assert_eq!(report.cause, ShutdownCause::Killed);
    assert!(began.elapsed() < Duration::from_millis(10));
    let left: BTreeSet<_> = stage.diary.take().into_iter().collect();
    assert_eq!(left, ["drop a".to_owned(), "drop b".to_owned()].into());
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_killed_supervisor_kills_children_that_drain_or_stop() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top")
        .child(stage.child("drains"))
        .child(stage.child_with("stops", slow(1_000)))
        .child(stage.child("runs"));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "drains", Do::Busy(Duration::from_secs(1_000)));
    tree.child("drains").unwrap().actor().drain().unwrap();
    tell_id(&tree, "stops", Do::Normal);
    quiet().await;
    stage.diary.take();
    tree.actor().kill();
    let report = tree.wait().await.unwrap();
    assert_eq!((&report.cause, &report.reason), (&ShutdownCause::Killed, &ExitReason::Killed));
    let left: BTreeSet<_> = stage.diary.take().into_iter().collect();
    assert_eq!(left, ["drop drains".to_owned(), "drop runs".to_owned(), "drop stops".to_owned()].into());
}

#[tokio::test(start_paused = true)]
async fn otp_nested_supervisor_killed_is_restarted_after_its_children_are_gone() {
    let stage = Stage::default();
    let inner = stage.clone();
    let spec = ChildSpec::supervisor("nested", move || {
        Supervisor::builder("nested").child(inner.child_with("x", slow(100))).child(inner.child("y"))
    });
    let tree = Supervisor::builder("top").child(spec.backoff(Backoff::NONE)).start().await.unwrap();
    let nested = tree.child("nested").unwrap();
    tell_id(&nested.value::<SupervisorRef>().unwrap(), "x", Do::Normal);
    quiet().await;
    stage.diary.take();
    nested.actor().kill();
    quiet().await;
    let events = stage.diary.take();
    let position = |event: &str| events.iter().position(|seen| seen == event).unwrap_or_else(|| panic!("{events:?}"));
    assert!(position("drop x") < position("start x"), "{events:?}");
    assert!(position("drop y") < position("start x"), "{events:?}");
    assert_eq!(shown(&tree), "nested+");
}

#[tokio::test(start_paused = true)]
async fn otp_nested_supervisor_is_brutally_stopped_with_its_children() {
    let stage = Stage::default();
    let inner = stage.clone();
    let spec = ChildSpec::supervisor("nested", move || Supervisor::builder("nested").child(inner.child("x")));
    let tree = Supervisor::builder("top").child(spec.shutdown(Shutdown::Brutal)).start().await.unwrap();
    let report = tree.stop().await.unwrap();
    assert_eq!(stage.diary.take(), ["start x", "drop x"]);
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn otp_nested_supervisor_with_a_grace_is_killed_with_its_children() {
    let stage = Stage::default();
    let inner = stage.clone();
    let spec = ChildSpec::supervisor("nested", move || {
        Supervisor::builder("nested").child(inner.child_with("x", slow(100)).shutdown(Shutdown::Infinity))
    });
    let spec = spec.shutdown(Shutdown::After(Duration::from_secs(1)));
    let tree = Supervisor::builder("top").child(spec).start().await.unwrap();
    let began = Instant::now();
    let report = tree.stop().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert!(report.stragglers().any(|failure| &*failure.path[0] == "nested" && failure.path.len() == 1), "{report}");
    assert_eq!(stage.diary.take(), ["start x", "stopping x", "drop x"]);
}

#[test]
fn otp_a_dropped_runtime_leaves_nobody() {
    let stage = Stage::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let inner = stage.clone();
    let (tree, dynamic) = runtime.block_on(async move {
        let nested = inner.clone();
        let spec = ChildSpec::supervisor("nested", move || Supervisor::builder("nested").child(nested.child("x")));
        let tree = Supervisor::builder("top").child(inner.child("a")).child(spec).start().await.unwrap();
        let dynamic = DynamicSupervisor::builder("dynamic", move |parent, (): ()| {
            Puppet::spawn_linked(None, inner.puppet("d"), (), parent)
        });
        let dynamic = dynamic.start().await.unwrap();
        dynamic.start_child(()).await.unwrap();
        (tree, dynamic)
    });
    drop(runtime);
    let mut left: Vec<_> = stage.diary.take().into_iter().filter(|event| event.starts_with("drop")).collect();
    left.sort();
    assert_eq!(left, ["drop a", "drop d", "drop x"]);
    drop((tree, dynamic));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_killed_supervisor_leaves_nobody() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let drains = child(&dynamic, "drains").await;
    tell(&drains, Do::Busy(Duration::from_secs(1_000)));
    drains.actor().drain().unwrap();
    let stops = child(&dynamic, "slow 1000").await;
    tell(&stops, Do::Normal);
    child(&dynamic, "runs").await;
    quiet().await;
    stage.diary.take();
    dynamic.actor().kill();
    assert_eq!(dynamic.wait().await.unwrap().cause, ShutdownCause::Killed);
    let mut left = stage.diary.take();
    left.sort();
    assert_eq!(left, ["drop drains", "drop runs", "drop slow 1000"]);
}
