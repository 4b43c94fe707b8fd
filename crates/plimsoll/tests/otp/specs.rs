//! What is kept of a child: its spec, its place, its count, and nothing of a temporary one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::supervisor::{Backoff, BoxError, Child, ChildError, ChildSpec, Restart, Shutdown, Supervisor};
use ractor::Actor;

use crate::support::{Do, Puppet, Stage, quiet, tell_id};
use crate::trees::{named, shown, start};

#[tokio::test(start_paused = true)]
async fn otp_child_specs() {
    let stage = Stage::default();
    let spec =
        stage.child("a").restart(Restart::Transient).shutdown(Shutdown::Brutal).start_timeout(Duration::from_secs(1));
    let expected = spec.settings().clone();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let child = tree.start_child(spec).await.unwrap();
    assert_eq!(tree.child_spec("a"), Ok(expected.clone()));
    assert_eq!(tree.child_spec_of(child.actor().get_id()), Ok(expected));
    assert_eq!(tree.child_spec_of(tree.actor().get_id()), Err(ChildError::NotFound));
    assert_eq!(tree.child_spec("b"), Err(ChildError::NotFound));
}

#[tokio::test(start_paused = true)]
async fn otp_extra_return() {
    let stage = Stage::default();
    let count = Arc::new(AtomicU32::new(0));
    let spec = ChildSpec::new("a", {
        let stage = stage.clone();
        move |parent| {
            let started = count.fetch_add(1, Ordering::Relaxed);
            let puppet = stage.puppet("a");
            async move {
                let child: Child = Puppet::spawn_linked(None, puppet, (), parent).await?.into();
                Ok::<_, BoxError>(child.value(started))
            }
        }
    })
    .backoff(Backoff::NONE);
    let tree = Supervisor::builder("top").start().await.unwrap();
    let child = tree.start_child(spec).await.unwrap();
    assert_eq!(*child.value::<u32>().unwrap(), 0);
    assert!(child.value::<String>().is_none());
    // Read again at a restart, by the supervisor and by hand.
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(*tree.child("a").unwrap().value::<u32>().unwrap(), 1);
    tree.terminate_child("a").await.unwrap();
    let child = tree.restart_child("a").await.unwrap();
    assert_eq!(*child.value::<u32>().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn otp_count_children() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top")
        .child(stage.child("a"))
        .child(stage.child("ended").restart(Restart::Transient))
        .child(ChildSpec::supervisor("s", || Supervisor::builder("s")))
        .start()
        .await
        .unwrap();
    tell_id(&tree, "ended", Do::Normal);
    quiet().await;
    let count = tree.count_children().unwrap();
    assert_eq!((count.specs, count.active, count.supervisors, count.workers), (3, 2, 1, 2));
    tree.terminate_child("s").await.unwrap();
    let count = tree.count_children().unwrap();
    assert_eq!((count.specs, count.active, count.supervisors, count.workers), (3, 1, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn otp_count_children_supervisor() {
    let stage = Stage::default();
    let nested = |id: &'static str| ChildSpec::supervisor(id, move || Supervisor::builder(id)).backoff(Backoff::NONE);
    let builder = Supervisor::builder("top").children([nested("s1"), nested("s2"), nested("s3")]);
    let tree = start(&stage, builder.child(stage.child("w"))).await;
    let count = || {
        let count = tree.count_children().unwrap();
        (count.specs, count.active, count.supervisors, count.workers)
    };
    assert_eq!(count(), (4, 4, 3, 1));
    tree.terminate_child("s2").await.unwrap();
    assert_eq!(count(), (4, 3, 3, 1));
    tree.delete_child("s2").await.unwrap();
    assert_eq!(count(), (3, 3, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn otp_count_children_while_restarting() {
    let stage = Stage::default();
    let slow = Backoff::constant(Duration::from_secs(10));
    let builder = Supervisor::builder("top").child(stage.child("a").backoff(slow)).child(stage.child("b"));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    let count = tree.count_children().unwrap();
    assert_eq!((count.specs, count.active, count.supervisors, count.workers), (2, 1, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn otp_order_of_children() {
    let stage = Stage::default();
    let tree = start(&stage, Supervisor::builder("top").children(named(&stage, &["a", "b", "c", "d"]))).await;
    let order =
        || tree.which_children().unwrap().into_iter().map(|child| child.id.unwrap().to_string()).collect::<String>();
    assert_eq!(order(), "dcba");
    tree.start_child(stage.child("e")).await.unwrap();
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    tree.terminate_child("c").await.unwrap();
    tree.restart_child("c").await.unwrap();
    assert_eq!(order(), "edcba");
    stage.did();
    tree.stop().await.unwrap();
    assert_eq!(stage.did(), ["stop e", "stop d", "stop c", "stop b", "stop a"]);
}

struct Dropped(Arc<Mutex<bool>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = true;
    }
}

fn holding(stage: &Stage, dropped: &Arc<Mutex<bool>>, restart: Restart) -> ChildSpec {
    let (stage, held) = (stage.clone(), Dropped(dropped.clone()));
    ChildSpec::new("a", move |parent| {
        let _ = &held;
        Puppet::spawn_linked(None, stage.puppet("a"), (), parent)
    })
    .restart(restart)
}

#[tokio::test(start_paused = true)]
async fn otp_do_not_save_start_parameters_for_temporary_children() {
    for at_boot in [true, false] {
        for (restart, gone) in [(Restart::Temporary, true), (Restart::Transient, false), (Restart::Permanent, false)] {
            let stage = Stage::default();
            let dropped = Arc::default();
            let spec = holding(&stage, &dropped, restart);
            let builder = Supervisor::builder("top");
            let tree = if at_boot {
                builder.child(spec).start().await.unwrap()
            } else {
                let tree = builder.start().await.unwrap();
                tree.start_child(spec).await.unwrap();
                tree
            };
            assert_eq!(*dropped.lock().unwrap(), gone, "{restart:?}, at boot: {at_boot}");
            assert_eq!(shown(&tree), "a+");
            assert_eq!(tree.child_spec("a").unwrap().restart, restart);
            if !gone {
                tree.terminate_child("a").await.unwrap();
                assert!(!*dropped.lock().unwrap());
                tree.delete_child("a").await.unwrap();
                assert!(*dropped.lock().unwrap(), "the spec is gone and its closure is not");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn otp_do_not_save_child_specs_for_temporary_children() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let temporary = || stage.child("t").restart(Restart::Temporary);
    tree.start_child(temporary()).await.unwrap();
    tell_id(&tree, "t", Do::Panic);
    quiet().await;
    assert_eq!(tree.restart_child("t").await, Err(ChildError::NotFound));
    assert_eq!(tree.delete_child("t").await, Err(ChildError::NotFound));
    assert_eq!(tree.child_spec("t"), Err(ChildError::NotFound));
    tree.start_child(temporary()).await.unwrap();
    tree.terminate_child("t").await.unwrap();
    assert_eq!(tree.restart_child("t").await, Err(ChildError::NotFound));
    assert_eq!(shown(&tree), "");
}
