//! OTP's cases of operations on a running supervisor, in every state.

mod support;

use std::time::Duration;

use plimsoll::inspect::{Kind, Status};
use plimsoll::supervisor::{
    Backoff, BoxError, ChildError, ChildSpec, ChildState, Restart, Shutdown, ShutdownCause, StartError, Started,
    Strategy, Supervisor, SupervisorRef,
};
use support::{Begin, Do, Puppet, Stage, quiet, tell_id};

fn state(tree: &SupervisorRef, id: &str) -> Option<ChildState> {
    let children = tree.which_children().unwrap();
    children.into_iter().find(|child| child.id.as_deref() == Some(id)).map(|child| child.state)
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    // Nothing there.
    assert_eq!(tree.terminate_child("a").await, Err(ChildError::NotFound));
    assert_eq!(tree.restart_child("a").await, Err(ChildError::NotFound));
    assert_eq!(tree.delete_child("a").await, Err(ChildError::NotFound));
    assert_eq!(tree.child_spec("a"), Err(ChildError::NotFound));
    // A start that fails leaves no spec.
    stage.script.next("a", [Begin::Fail]);
    assert!(matches!(tree.start_child(stage.child("a")).await, Err(StartError::Failed(_))));
    assert_eq!(state(&tree, "a"), None);
    // Running.
    let Ok(Started::Child(a)) = tree.start_child(stage.child("a")).await else { panic!("it starts") };
    assert_eq!(tree.start_child(stage.child("a")).await, Err(StartError::AlreadyStarted(a.clone())));
    assert_eq!(tree.restart_child("a").await, Err(ChildError::Running));
    assert_eq!(tree.delete_child("a").await, Err(ChildError::Running));
    assert_eq!(tree.child("a"), Ok(a.clone()));
    // Terminated: the spec is kept.
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    assert_eq!(state(&tree, "a"), Some(ChildState::None));
    assert_eq!(tree.start_child(stage.child("a")).await, Err(StartError::AlreadyPresent));
    stage.script.next("a", [Begin::Fail]);
    assert!(matches!(tree.restart_child("a").await, Err(ChildError::Start(StartError::Failed(_)))));
    assert_eq!(state(&tree, "a"), Some(ChildState::None));
    let Ok(Started::Child(again)) = tree.restart_child("a").await else { panic!("it starts") };
    assert_ne!(again, a);
    // Gone.
    tree.terminate_child("a").await.unwrap();
    assert_eq!(tree.delete_child("a").await, Ok(()));
    assert_eq!(tree.delete_child("a").await, Err(ChildError::NotFound));
    // A temporary child's spec goes with it.
    tree.start_child(stage.child("t").restart(Restart::Temporary)).await.unwrap();
    assert_eq!(tree.terminate_child("t").await, Ok(()));
    assert_eq!(state(&tree, "t"), None);
    assert_eq!(tree.terminate_child("t").await, Err(ChildError::NotFound));
    // One added again later is last.
    for id in ["x", "y"] {
        tree.start_child(stage.child(id)).await.unwrap();
    }
    tree.terminate_child("x").await.unwrap();
    tree.delete_child("x").await.unwrap();
    tree.start_child(stage.child("x")).await.unwrap();
    let ids: Vec<_> = tree.which_children().unwrap().into_iter().filter_map(|child| child.id).collect();
    assert_eq!(ids, ["x".into(), "y".into()]);
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_while_restarting() {
    let stage = Stage::default();
    let slow = Backoff::constant(Duration::from_secs(10));
    let tree = Supervisor::builder("top").child(stage.child("a").backoff(slow)).start().await.unwrap();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(state(&tree, "a"), Some(ChildState::Restarting));
    assert_eq!(tree.start_child(stage.child("a")).await, Err(StartError::AlreadyPresent));
    assert_eq!(tree.restart_child("a").await, Err(ChildError::Restarting));
    assert_eq!(tree.delete_child("a").await, Err(ChildError::Restarting));
    assert_eq!(tree.child("a"), Err(ChildError::Restarting));
    assert_eq!(tree.count_children().unwrap().active, 0);
    assert_eq!(tree.inspect().details.children[0].status, Status::Restarting);
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    assert_eq!(state(&tree, "a"), Some(ChildState::None));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(state(&tree, "a"), Some(ChildState::None));
    assert_eq!(tree.delete_child("a").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_while_a_restart_hangs() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").child(stage.child("a")).child(stage.child("b")).start().await.unwrap();
    stage.script.next("a", [Begin::Hang]);
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(state(&tree, "a"), Some(ChildState::Restarting));
    assert_eq!(tree.restart_child("a").await, Err(ChildError::Restarting));
    // The others are served meanwhile.
    tree.start_child(stage.child("c")).await.unwrap();
    tree.terminate_child("b").await.unwrap();
    tree.restart_child("b").await.unwrap();
    // It can be terminated, and is then startable.
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    assert_eq!(state(&tree, "a"), Some(ChildState::None));
    assert!(matches!(tree.restart_child("a").await, Ok(Started::Child(_))));

    stage.script.next("a", [Begin::Hang]);
    tokio::time::sleep(Duration::from_secs(6)).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    // And the supervisor be stopped.
    assert!(tree.stop().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_while_a_child_takes_its_grace() {
    let stage = Stage::default();
    let slow = |mut puppet: Puppet| {
        puppet.slow_stop = Duration::from_secs(3);
        puppet
    };
    let tree = Supervisor::builder("top")
        .strategy(Strategy::OneForAll)
        .child(stage.child("a"))
        .child(stage.child_with("slow", slow))
        .start()
        .await
        .unwrap();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    let began = tokio::time::Instant::now();
    // Reads and terminate_child act at once, a start waits for the stop phase.
    assert_eq!(state(&tree, "a"), Some(ChildState::Restarting));
    assert!(matches!(state(&tree, "slow"), Some(ChildState::Running(_))));
    tree.terminate_child("a").await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    tree.start_child(stage.child("c")).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(2_990));
    assert_eq!(state(&tree, "a"), Some(ChildState::None));
    // terminate_child waits for the end of the child, and only that.
    let began = tokio::time::Instant::now();
    tree.terminate_child("slow").await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_while_stopping() {
    let stage = Stage::default();
    let slow = |mut puppet: Puppet| {
        puppet.slow_stop = Duration::from_secs(3);
        puppet
    };
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll);
    let tree = builder.child(stage.child("a")).child(stage.child_with("slow", slow)).start().await.unwrap();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    // Queued behind the stop phase, and refused when the supervisor stops.
    let queued = tokio::spawn({
        let (tree, spec) = (tree.clone(), stage.child("queued"));
        async move { tree.start_child(spec).await }
    });
    quiet().await;
    let stopping = tokio::spawn({
        let tree = tree.clone();
        async move { tree.stop().await }
    });
    quiet().await;
    let began = tokio::time::Instant::now();
    assert_eq!(queued.await.unwrap(), Err(StartError::ShuttingDown));
    assert_eq!(tree.start_child(stage.child("b")).await, Err(StartError::ShuttingDown));
    assert_eq!(tree.terminate_child("a").await, Err(ChildError::ShuttingDown));
    assert_eq!(tree.restart_child("a").await, Err(ChildError::ShuttingDown));
    assert_eq!(tree.delete_child("a").await, Err(ChildError::ShuttingDown));
    assert_eq!(tree.child_spec("a"), Err(ChildError::ShuttingDown));
    assert_eq!(tree.count_children(), Err(ChildError::ShuttingDown));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(tree.inspect().status, Status::Stopping);
    assert!(stopping.await.unwrap().is_clean());
    assert_eq!(tree.start_child(stage.child("b")).await, Err(StartError::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn otp_child_specs() {
    let stage = Stage::default();
    let spec =
        stage.child("a").restart(Restart::Transient).shutdown(Shutdown::Brutal).start_timeout(Duration::from_secs(1));
    let expected = spec.settings().clone();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let child = tree.start_child(spec).await.unwrap().child().unwrap();
    assert_eq!(tree.child_spec("a"), Ok(expected.clone()));
    assert_eq!(tree.child_spec_of(child.actor().get_id()), Ok(expected));
    assert_eq!(tree.child_spec_of(tree.actor().get_id()), Err(ChildError::NotFound));
    assert_eq!(tree.child_spec("b"), Err(ChildError::NotFound));
}

#[tokio::test(start_paused = true)]
async fn otp_extra_return() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    let stage = Stage::default();
    let count = Arc::new(AtomicU32::new(0));
    let spec = ChildSpec::new("a", {
        let stage = stage.clone();
        move |parent| {
            use ractor::Actor;
            let started = count.fetch_add(1, Ordering::Relaxed);
            let puppet = stage.puppet("a");
            async move {
                let child: plimsoll::supervisor::Child = Puppet::spawn_linked(None, puppet, (), parent).await?.into();
                Ok::<_, BoxError>(child.value(started))
            }
        }
    })
    .backoff(Backoff::NONE);
    let tree = Supervisor::builder("top").start().await.unwrap();
    let child = tree.start_child(spec).await.unwrap().child().unwrap();
    assert_eq!(*child.value::<u32>().unwrap(), 0);
    assert!(child.value::<String>().is_none());
    // Read again at a restart, by the supervisor and by hand.
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(*tree.child("a").unwrap().value::<u32>().unwrap(), 1);
    tree.terminate_child("a").await.unwrap();
    let child = tree.restart_child("a").await.unwrap().child().unwrap();
    assert_eq!(*child.value::<u32>().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_flags() {
    // The defaults: one_for_one, one restart in five seconds.
    let stage = Stage::default();
    let builder = || Supervisor::builder("top").child(stage.child("a")).child(stage.child("b"));
    let tree = builder().start().await.unwrap();
    stage.did();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["start a"]);
    tokio::time::sleep(Duration::from_millis(4_990)).await;
    tell_id(&tree, "a", Do::Panic);
    assert_eq!(tree.wait().await.cause, ShutdownCause::GaveUp);
    let tree = builder().start().await.unwrap();
    tell_id(&tree, "a", Do::Panic);
    tokio::time::sleep(Duration::from_millis(5_010)).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert!(tree.child("a").is_ok());
}

#[tokio::test(start_paused = true)]
async fn otp_child_unlink() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").child(stage.child("a")).start().await.unwrap();
    let child = tree.child("a").unwrap();
    tell_id(&tree, "a", Do::Unlink);
    quiet().await;
    assert!(child.actor().try_get_supervisor().is_none());
    // It is stopped all the same, and waited for.
    let report = tree.stop().await;
    assert_eq!(stage.diary.take(), ["start a", "stop a", "drop a"]);
    assert_eq!(report.stragglers().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn otp_tree() {
    let stage = Stage::default();
    let inner = stage.clone();
    let leaf = move || {
        Supervisor::builder("leaf").strategy(Strategy::OneForAll).child(inner.child("x")).child(inner.child("y"))
    };
    let middle =
        move || Supervisor::builder("middle").child(ChildSpec::supervisor("leaf", leaf.clone()).backoff(Backoff::NONE));
    let tree = Supervisor::builder("top")
        .child(stage.child("a"))
        .child(ChildSpec::supervisor("middle", middle).backoff(Backoff::NONE))
        .start()
        .await
        .unwrap();
    assert_eq!(stage.did(), ["start a", "start x", "start y"]);
    let leaf = || {
        let middle = tree.child("middle").unwrap().value::<SupervisorRef>().unwrap();
        (*middle.child("leaf").unwrap().value::<SupervisorRef>().unwrap()).clone()
    };
    // A failure deep inside stays there.
    let first = leaf();
    tell_id(&first, "x", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stop y", "start x", "start y"]);
    // One more within the period, and the leaf is replaced as a whole.
    tell_id(&first, "y", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stop x", "start x", "start y"]);
    assert_ne!(leaf().actor().get_id(), first.actor().get_id());
    assert_eq!(first.which_children(), Err(ChildError::ShuttingDown));

    let shown = tree.inspect();
    assert_eq!((shown.id.as_str(), shown.kind), ("top", Kind::Supervisor));
    let middle = &shown.details.children[1];
    assert_eq!((middle.id.as_str(), middle.restarts), ("middle", 0));
    let leaf = &middle.details.children[0];
    assert_eq!((leaf.id.as_str(), leaf.restarts, leaf.details.children.len()), ("leaf", 1, 2));

    let report = tree.stop().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(stage.did(), ["stop y", "stop x", "stop a"]);
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
async fn otp_hanging_restart_loop() {
    let stage = Stage::default();
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let tree = Supervisor::builder("top")
            .strategy(strategy)
            .intensity(u32::MAX, Duration::from_secs(1))
            .child(stage.child("a"))
            .child(stage.child("b"))
            .start()
            .await
            .unwrap();
        stage.script.always("a", Begin::Fail);
        tell_id(&tree, "a", Do::Panic);
        // It fails and is tried again without end, and the supervisor answers all the same.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(state(&tree, "a"), Some(ChildState::Restarting));
        assert_eq!(tree.restart_child("a").await, Err(ChildError::Restarting));
        tree.terminate_child("a").await.unwrap();
        stage.script.no_longer("a");
        tree.restart_child("a").await.unwrap();
        stage.script.always("a", Begin::Fail);
        tell_id(&tree, "a", Do::Panic);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(tree.stop().await.is_clean());
        stage.script.no_longer("a");
    }
}
