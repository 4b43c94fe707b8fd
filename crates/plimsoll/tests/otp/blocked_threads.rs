//! Children that block their threads: named, left behind, never beside a second incarnation, and nobody else suffers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use plimsoll::supervisor::{
    Backoff, BoxError, Child, ChildError, ChildSpec, DynamicSupervisor, DynamicSupervisorRef, Restart, Shutdown,
    ShutdownCause, StartError, Strategy, Supervisor, SupervisorRef,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::support::{Do, Puppet, Stage, tell, tell_id};
use crate::trees::shown;

/// Blocks its thread at its first message, until the sender of its pair is dropped or used.
struct Blocks {
    receiver: Mutex<Option<mpsc::Receiver<()>>>,
    blocked: Arc<AtomicBool>,
    /// In the very poll that tells the supervisor of its start.
    at_once: bool,
}

impl Actor for Blocks {
    type Msg = Do;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Do>, (): ()) -> Result<(), ActorProcessingErr> {
        if self.at_once {
            myself.cast(Do::Normal)?;
        }
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Do>, _: Do, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let receiver = self.receiver.lock().unwrap().take();
        self.blocked.store(true, Ordering::SeqCst);
        let _ = receiver.map(|receiver| receiver.recv());
        Ok(())
    }
}

struct Blocker {
    release: mpsc::Sender<()>,
    blocked: Arc<AtomicBool>,
    starts: Arc<AtomicUsize>,
    spec: ChildSpec,
}

/// The first incarnation blocks when it is told anything, or at once.
fn blocker(at_once: bool) -> Blocker {
    let (release, receiver) = mpsc::channel();
    let receiver = Mutex::new(Some(receiver));
    let (blocked, starts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (seen, counted) = (blocked.clone(), starts.clone());
    let spec = ChildSpec::new("blocks", move |parent| {
        counted.fetch_add(1, Ordering::SeqCst);
        let receiver = Mutex::new(receiver.lock().unwrap().take());
        Blocks::spawn_linked(None, Blocks { receiver, blocked: seen.clone(), at_once }, (), parent)
    });
    let spec = spec.shutdown(Shutdown::After(Duration::from_millis(20))).backoff(Backoff::NONE);
    Blocker { release, blocked, starts, spec }
}

/// Polls real state: a blocked thread knows no paused time.
async fn until(what: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !what() {
        assert!(std::time::Instant::now() < deadline, "it never came");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

const LEAVE: Duration = Duration::from_millis(50);

/// The grace where a released child has to end in order: time for a busy machine to run it.
const AMPLE: Shutdown = Shutdown::After(Duration::from_secs(2));

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_a_blocked_thread_is_named_and_does_not_hold_up_the_rest() {
    let stage = Stage::default();
    let Blocker { release, blocked, spec, .. } = blocker(false);
    let builder = Supervisor::builder("top").kill_timeout(LEAVE).child(stage.child("a")).child(spec);
    let tree = builder.child(stage.child("z")).start().await.unwrap();
    tell_id(&tree, "blocks", Do::Normal);
    until(|| blocked.load(Ordering::SeqCst)).await;
    let report = tokio::time::timeout(Duration::from_secs(5), tree.stop()).await.expect("it is left behind").unwrap();
    assert_eq!(stage.did(), ["start a", "start z", "stop z", "stop a"]);
    let left: Vec<_> = report.kill_timed_out().collect();
    assert_eq!(left.len(), 1, "{report}");
    assert_eq!(&*left[0].path[0], "blocks");
    assert!(left[0].actor.is_some());
    assert!(left[0].waited >= Duration::from_millis(70), "{report}");
    assert_eq!(tree.inspect().details.counters["kill_timed_out"], 1);
    drop(release);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_terminate_of_a_blocked_thread_says_so_and_it_is_startable_once_it_is_gone() {
    let Blocker { release, blocked, spec, starts } = blocker(false);
    let tree = Supervisor::builder("top").kill_timeout(LEAVE).child(spec).start().await.unwrap();
    tell_id(&tree, "blocks", Do::Normal);
    until(|| blocked.load(Ordering::SeqCst)).await;
    assert_eq!(tree.terminate_child("blocks").await, Err(ChildError::KillTimedOut));
    assert_eq!(tree.restart_child("blocks").await, Err(ChildError::KillTimedOut));
    assert_eq!(tree.delete_child("blocks").await, Err(ChildError::KillTimedOut));
    drop(release);
    until(|| shown(&tree) == "blocks-").await;
    tree.restart_child("blocks").await.unwrap();
    assert_eq!(starts.load(Ordering::SeqCst), 2);
    tree.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_a_group_restart_does_not_start_a_second_incarnation_beside_a_blocked_one() {
    let stage = Stage::default();
    let Blocker { release, blocked, spec, starts } = blocker(false);
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).kill_timeout(LEAVE);
    let tree = builder.child(stage.child("a")).child(spec).child(stage.child("z")).start().await.unwrap();
    tell_id(&tree, "blocks", Do::Normal);
    until(|| blocked.load(Ordering::SeqCst)).await;
    stage.did();
    tell_id(&tree, "a", Do::Panic);
    // The others are up again, and it follows when its old task has ended.
    until(|| shown(&tree).contains("a+") && shown(&tree).contains("z+") && stage.did().contains(&"start z".to_owned()))
        .await;
    assert_eq!(starts.load(Ordering::SeqCst), 1);
    drop(release);
    until(|| starts.load(Ordering::SeqCst) == 2).await;
    until(|| shown(&tree) == "a+ blocks+ z+").await;
    tree.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_a_nested_supervisor_is_started_again_only_when_its_blocked_child_is_gone() {
    let Blocker { release, blocked, spec, starts } = blocker(false);
    let stage = Stage::default();
    let inner = stage.clone();
    let nested = ChildSpec::supervisor("nested", move || {
        let builder = Supervisor::builder("nested").intensity(0, Duration::from_secs(1)).kill_timeout(LEAVE);
        builder.child(spec.clone().shutdown(AMPLE)).child(inner.child("x"))
    });
    let tree = Supervisor::builder("top").child(nested.backoff(Backoff::NONE)).start().await.unwrap();
    let first = tree.child("nested").unwrap().value::<SupervisorRef>().unwrap();
    tell_id(&first, "blocks", Do::Normal);
    until(|| blocked.load(Ordering::SeqCst)).await;
    tell_id(&first, "x", Do::Panic);
    let report = first.wait().await.unwrap();
    assert!(matches!(report.cause, ShutdownCause::GaveUp { .. }) && report.kill_timed_out().count() == 1);
    tokio::time::sleep(LEAVE * 3).await;
    assert_eq!(starts.load(Ordering::SeqCst), 1, "its old subtree lingers");
    drop(release);
    until(|| starts.load(Ordering::SeqCst) == 2).await;
    until(|| shown(&tree) == "nested+").await;
    assert!(tree.stop().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_a_blocked_grandchild_is_named_with_its_path() {
    let Blocker { release, blocked, spec, .. } = blocker(false);
    let nested = ChildSpec::supervisor("nested", move || {
        Supervisor::builder("whatever").kill_timeout(LEAVE).child(spec.clone())
    });
    let tree = Supervisor::builder("top").child(nested).start().await.unwrap();
    let nested = tree.child("nested").unwrap().value::<SupervisorRef>().unwrap();
    tell_id(&nested, "blocks", Do::Normal);
    until(|| blocked.load(Ordering::SeqCst)).await;
    let report = tokio::time::timeout(Duration::from_secs(5), tree.stop()).await.expect("it is left behind").unwrap();
    let left: Vec<_> = report.kill_timed_out().map(|failure| failure.path.join("/")).collect();
    assert_eq!(left, ["nested/blocks"]);
    drop(release);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_simple_a_blocked_thread_is_left_behind_and_frees_its_place_when_gone() {
    let (release, receiver) = mpsc::channel();
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let blocked = Arc::new(AtomicBool::new(false));
    let seen = blocked.clone();
    let dynamic: DynamicSupervisorRef<()> = DynamicSupervisor::builder("dynamic", move |parent, (): ()| {
        let receiver = Mutex::new(receiver.lock().unwrap().take());
        Blocks::spawn_linked(None, Blocks { receiver, blocked: seen.clone(), at_once: false }, (), parent)
    })
    .max_children(1)
    .shutdown(AMPLE)
    .kill_timeout(LEAVE)
    .start()
    .await
    .unwrap();
    let child = dynamic.start_child(()).await.unwrap();
    tell(&child, Do::Normal);
    until(|| blocked.load(Ordering::SeqCst)).await;
    assert_eq!(dynamic.terminate_child(child.actor()).await, Err(ChildError::KillTimedOut));
    assert_eq!(dynamic.start_child(()).await, Err(StartError::MaxChildren { max: 1 }));
    drop(release);
    until(|| dynamic.count_children().unwrap().workers == 0).await;
    dynamic.start_child(()).await.unwrap();
    assert!(dynamic.stop().await.unwrap().is_clean());
}

/// A child whose first poll after its start blocks holds back what it has just woken.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_a_task_that_blocks_from_its_first_poll_holds_up_nobody() {
    let stage = Stage::default();
    for _ in 0..20 {
        let (release, receiver) = mpsc::channel::<()>();
        let receiver = Arc::new(Mutex::new(Some(receiver)));
        let blocked = Arc::new(AtomicBool::new(false));
        let seen = blocked.clone();
        let blocks = ChildSpec::task("blocks", move |_| {
            let (receiver, seen) = (receiver.lock().unwrap().take(), seen.clone());
            async move {
                seen.store(true, Ordering::SeqCst);
                let _ = receiver.map(|receiver| receiver.recv());
                Ok::<_, BoxError>(())
            }
        });
        let blocks = blocks.shutdown(Shutdown::Brutal);
        let builder = Supervisor::builder("top").kill_timeout(LEAVE).child(stage.child("x")).child(blocks);
        let tree = builder.start().await.unwrap();
        until(|| blocked.load(Ordering::SeqCst)).await;
        stage.did();
        tell_id(&tree, "x", Do::Panic);
        until(|| stage.did().contains(&"start x".to_owned())).await;
        drop(release);
        tree.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_an_actor_that_blocks_from_its_first_poll_holds_up_nobody_for_long() {
    // Whether the supervisor waits behind the blocked thread is a matter of luck.
    for _ in 0..5 {
        let stage = Stage::default();
        let Blocker { release, blocked, spec, .. } = blocker(true);
        let builder = Supervisor::builder("top").intensity(3, Duration::from_secs(60)).kill_timeout(LEAVE);
        let tree = builder.child(stage.child("x")).child(stage.child("y")).start().await.unwrap();
        tree.start_child(spec.shutdown(AMPLE)).await.unwrap();
        until(|| blocked.load(Ordering::SeqCst)).await;
        stage.did();
        for id in ["x", "y", "x"] {
            let old = tree.child(id).unwrap();
            tell(&old, Do::Panic);
            until(|| tree.child(id).is_ok_and(|child| child != old)).await;
        }
        let counters = tree.inspect().details.counters;
        assert_eq!(counters["restarts"], 3, "each end counted once");
        drop(release);
        // What the first anchor hears at last is old news.
        until(|| shown(&tree) == "x+ y+ blocks+").await;
        assert_eq!(tree.terminate_child("blocks").await, Ok(()));
        assert_eq!(tree.inspect().details.counters["restarts"], 3);
        assert!(tree.stop().await.unwrap().is_clean());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_a_supervisor_held_up_by_a_first_poll_can_be_stopped() {
    let stage = Stage::default();
    let Blocker { release, blocked, spec, .. } = blocker(true);
    let builder = Supervisor::builder("top").kill_timeout(LEAVE).child(stage.child("x")).child(spec);
    let tree = builder.start().await.unwrap();
    until(|| blocked.load(Ordering::SeqCst)).await;
    let report = tokio::time::timeout(Duration::from_secs(10), tree.stop()).await.expect("the stop ends").unwrap();
    let left: Vec<_> = report.kill_timed_out().map(|failure| failure.path.join("/")).collect();
    assert!(left.contains(&"blocks".to_owned()), "{report}");
    drop(release);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_simple_an_actor_that_blocks_from_its_first_poll_holds_up_nobody_for_long() {
    let stage = Stage::default();
    let (release, receiver) = mpsc::channel();
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let blocked = Arc::new(AtomicBool::new(false));
    let (seen, inner) = (blocked.clone(), stage.clone());
    let dynamic: DynamicSupervisorRef<bool> = DynamicSupervisor::builder("dynamic", move |parent, blocks: bool| {
        let (receiver, seen, puppet) = (receiver.clone(), seen.clone(), inner.puppet("x"));
        async move {
            Ok::<Child, BoxError>(if blocks {
                let receiver = Mutex::new(receiver.lock().unwrap().take());
                let blocks = Blocks { receiver, blocked: seen, at_once: true };
                Blocks::spawn_linked(None, blocks, (), parent).await?.into()
            } else {
                Puppet::spawn_linked(None, puppet, (), parent).await?.into()
            })
        }
    })
    .shutdown(AMPLE)
    .kill_timeout(LEAVE)
    .restart(Restart::Temporary)
    .start()
    .await
    .unwrap();
    let x = dynamic.start_child(false).await.unwrap();
    dynamic.start_child(true).await.unwrap();
    until(|| blocked.load(Ordering::SeqCst)).await;
    tell(&x, Do::Normal);
    until(|| dynamic.count_children().unwrap().workers == 1).await;
    drop(release);
    assert!(dynamic.stop().await.unwrap().is_clean());
}
