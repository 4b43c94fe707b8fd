//! What a shutdown report says of those that did not stop: who, how long they were waited for, and with what in hand.

mod support;

use std::future::pending;
use std::sync::mpsc;
use std::time::Duration;

use plimsoll::server::{self, Context, Server};
use plimsoll::supervisor::{
    BoxError, Child, ChildRef, ChildSpec, CurrentMessage, DynamicSupervisor, Shutdown, ShutdownReport, StopFailureKind,
    Supervisor,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use support::quiet;

const GRACE: Duration = Duration::from_millis(50);

/// Handles what it is given for ever, and says what it is.
struct Busy(CurrentMessage);

enum Job {
    Await(&'static str),
    Block(String, mpsc::Receiver<()>),
    Done(&'static str),
}

impl Actor for Busy {
    type Msg = Job;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Job>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Job>, job: Job, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match job {
            Job::Await(name) => {
                let _held = self.0.set(name);
                pending::<()>().await;
            }
            Job::Block(name, release) => {
                let _held = self.0.set(name);
                let _ = release.recv();
            }
            Job::Done(name) => drop(self.0.set(name)),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Job>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        pending().await
    }
}

async fn busy(parent: ActorCell) -> Result<Child, BoxError> {
    let current_message = CurrentMessage::default();
    let child = Child::from(Busy::spawn_linked(None, Busy(current_message.clone()), (), parent).await?);
    Ok(child.value(current_message.clone()).current_message(current_message))
}

fn tell(child: &ChildRef, job: Job) {
    child.actor_ref::<Job>().expect("a busy one").cast(job).expect("it lives");
}

fn only(report: &ShutdownReport, child: &ActorCell, what: StopFailureKind) -> Option<String> {
    let [failure] = &report.failures[..] else { panic!("{report}") };
    assert_eq!((&failure.kind, failure.actor), (&what, Some(child.get_id())), "{report}");
    assert!(failure.waited >= GRACE, "{report}");
    failure.current_message.as_ref().map(|message| message.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_killed_is_named_with_the_message_that_it_had_in_hand() {
    for (job, expected) in [(Job::Await("resize"), Some("resize")), (Job::Done("resize"), None)] {
        let spec = ChildSpec::new("busy", busy).shutdown(Shutdown::After(GRACE));
        let tree = Supervisor::builder("top").child(spec).start().await.unwrap();
        let child = tree.child("busy").unwrap();
        tell(&child, job);
        quiet().await;
        let report = tree.stop().await.unwrap();
        assert_eq!(only(&report, child.actor(), StopFailureKind::Killed).as_deref(), expected);
        let told = report.to_string();
        assert_eq!(told.contains("busy: killed after 50ms, while handling `resize`"), expected.is_some(), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn so_is_a_dynamic_child() {
    let builder = DynamicSupervisor::temporary("many", |parent: ActorCell, (): ()| busy(parent));
    let tree = builder.shutdown(Shutdown::After(GRACE)).start().await.unwrap();
    let child = tree.start_child(()).await.unwrap();
    tell(&child, Job::Await("resize"));
    quiet().await;
    assert_eq!(only(&tree.stop().await.unwrap(), child.actor(), StopFailureKind::Killed).as_deref(), Some("resize"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_blocks_its_thread_is_left_behind_with_its_message() {
    let spec = ChildSpec::new("busy", busy).shutdown(Shutdown::After(GRACE));
    let builder = Supervisor::builder("top").kill_timeout(Duration::from_millis(50));
    let tree = builder.child(spec).start().await.unwrap();
    let child = tree.child("busy").unwrap();
    let (release, blocked) = mpsc::channel();
    tell(&child, Job::Block("image 17".to_owned(), blocked));
    let current_message = child.value::<CurrentMessage>().unwrap();
    while current_message.get().is_none() {
        tokio::task::yield_now().await;
    }
    let report = tree.stop().await.unwrap();
    drop(release);
    assert_eq!(only(&report, child.actor(), StopFailureKind::KillTimedOut).as_deref(), Some("image 17"));
}

struct Slow;

impl Server for Slow {
    type Call = &'static str;
    type Reply = ();

    async fn call(&mut self, _: &'static str, _: &mut Context<Self>) -> Result<(), BoxError> {
        pending().await
    }

    fn method(call: &&'static str) -> &'static str {
        call
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_writes_down_what_it_serves() {
    let start = |parent| server::builder(Slow).start_linked(parent);
    let spec = ChildSpec::new("slow", start).shutdown(Shutdown::After(GRACE));
    let tree = Supervisor::builder("top").child(spec).start().await.unwrap();
    let child = tree.child("slow").unwrap();
    let client = child.value::<server::ServerRef<Slow>>().expect("its client");
    let asking = tokio::spawn(async move { client.call("reindex").await.is_err() });
    quiet().await;
    assert_eq!(only(&tree.stop().await.unwrap(), child.actor(), StopFailureKind::Killed).as_deref(), Some("reindex"));
    assert!(asking.await.unwrap());
}

/// Entries, counts and settings of children are JSON for an operator's tools.
#[tokio::test(start_paused = true)]
async fn child_entries_and_settings_are_serialized() {
    let spec = ChildSpec::task("idle", |stop| async move {
        stop.cancelled().await;
        Ok(())
    });
    let tree = Supervisor::builder("top").child(spec.shutdown(Duration::from_secs(2))).start().await.unwrap();
    let actor = tree.child("idle").unwrap().actor().get_id().to_string();
    let entries = serde_json::to_value(tree.which_children().unwrap()).unwrap();
    let running = serde_json::json!({"id": "idle", "state": "running", "actor": actor, "kind": "worker"});
    assert_eq!(entries, serde_json::json!([running]));
    let count = serde_json::to_value(tree.count_children().unwrap()).unwrap();
    assert_eq!(count, serde_json::json!({"specs": 1, "active": 1, "supervisors": 0, "workers": 1}));
    let settings = serde_json::to_value(tree.child_spec("idle").unwrap()).unwrap();
    assert_eq!(settings["restart"], "permanent");
    assert_eq!(settings["shutdown"], serde_json::json!({"after": {"secs": 2, "nanos": 0}}));
    tree.terminate_child("idle").await.unwrap();
    let entries = serde_json::to_value(tree.which_children().unwrap()).unwrap();
    assert_eq!(entries, serde_json::json!([{"id": "idle", "state": "none", "kind": "worker"}]));
    tree.stop().await.unwrap();
}
