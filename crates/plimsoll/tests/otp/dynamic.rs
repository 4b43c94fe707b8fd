//! OTP's `simple_one_for_one`: the dynamic supervisor.

mod administration;
mod maximum;
mod restarts;
mod stop;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plimsoll::inspect::Kind;
use plimsoll::supervisor::{
    Backoff, BoxError, Child, ChildRef, ChildState, DynamicBuilder, DynamicSupervisor, DynamicSupervisorRef, Restart,
    Shutdown, ShutdownCause, SpecError, StartError, Supervisor,
};
use ractor::{Actor, ActorCell};

use crate::support::{Do, Puppet, Stage, quiet, tell};
use crate::trees::letter;

pub(crate) type Id = &'static str;

/// A dynamic supervisor of puppets, named by their argument; `slow N` stops slowly, `ignored` is not started.
pub(crate) fn puppets(stage: &Stage) -> DynamicBuilder<Id> {
    let stage = stage.clone();
    DynamicSupervisor::builder("puppets", move |parent: ActorCell, id: Id| {
        let mut puppet = stage.puppet(id);
        let script = stage.script.clone();
        if let Some(seconds) = id.strip_prefix("slow ") {
            puppet.slow_stop = Duration::from_secs(seconds.parse().unwrap());
        }
        async move {
            if id == "ignored" || script.ignores(id) {
                return Err(BoxError::from(StartError::Ignored));
            }
            let child: Child = Puppet::spawn_linked(None, puppet, (), parent).await?.into();
            Ok(child.value(id))
        }
    })
    .backoff(Backoff::NONE)
    .intensity(5, Duration::from_secs(60))
}

pub(crate) async fn child(dynamic: &DynamicSupervisorRef<Id>, id: Id) -> ChildRef {
    dynamic.start_child(id).await.unwrap()
}

pub(crate) fn states(dynamic: &DynamicSupervisorRef<Id>) -> String {
    dynamic.which_children().unwrap().iter().rev().map(|child| letter(&child.state)).collect()
}

pub(crate) fn counts(dynamic: &DynamicSupervisorRef<Id>) -> (usize, usize, usize, usize) {
    let count = dynamic.count_children().unwrap();
    (count.specs, count.active, count.supervisors, count.workers)
}

#[tokio::test(start_paused = true)]
async fn otp_simple_one_for_one() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).intensity(1, Duration::from_secs(60)).start().await.unwrap();
    let first = dynamic.start_child("a").await.unwrap();
    let second = dynamic.start_child("b").await.unwrap();
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
    let report = dynamic.wait().await.unwrap();
    assert!(matches!(report.cause, ShutdownCause::GaveUp { .. }));
    assert_eq!(stage.did(), ["stop b"]);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_flags_are_checked() {
    let stage = Stage::default();
    let error = puppets(&stage).max_children(0).start().await.unwrap_err();
    assert_eq!(error, StartError::Spec(SpecError::ZeroMaxChildren));
    let error = puppets(&stage).intensity(1, Duration::ZERO).start().await.unwrap_err();
    assert_eq!(error, StartError::Spec(SpecError::ZeroPeriod));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_supervisor_children_are_counted_as_such() {
    let stage = Stage::default();
    let inner = stage.clone();
    let dynamic = DynamicSupervisor::builder("trees", move |parent, id: Id| {
        Supervisor::builder(id).child(inner.child(id)).start_linked(parent)
    })
    .kind(Kind::Supervisor)
    .shutdown(Shutdown::Infinity)
    .start()
    .await
    .unwrap();
    let a = child(&dynamic, "a").await;
    child(&dynamic, "b").await;
    assert_eq!(counts(&dynamic), (1, 2, 2, 0));
    dynamic.terminate_child(a.actor()).await.unwrap();
    assert_eq!(stage.did(), ["start a", "start b", "stop a"]);
    assert!(dynamic.stop().await.unwrap().is_clean());
    assert_eq!(stage.did(), ["stop b"]);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_one_for_one_extra() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let child = dynamic.start_child("extra").await.unwrap();
    assert_eq!(*child.value::<&str>().unwrap(), "extra");
    tell(&child, Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["start extra", "start extra"]);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_one_for_one_extra_value_is_read_again_at_a_restart() {
    let starts = Arc::new(AtomicUsize::new(0));
    let stage = Stage::default();
    let (counted, inner) = (starts.clone(), stage.clone());
    let dynamic = DynamicSupervisor::builder("counted", move |parent, (): ()| {
        let (value, puppet) = (counted.fetch_add(1, Ordering::Relaxed), inner.puppet("a"));
        async move {
            let child: Child = Puppet::spawn_linked(None, puppet, (), parent).await?.into();
            Ok::<_, BoxError>(child.value(value))
        }
    })
    .backoff(Backoff::NONE)
    .start()
    .await
    .unwrap();
    let a = dynamic.start_child(()).await.unwrap();
    assert_eq!(*a.value::<usize>().unwrap(), 0);
    tell(&a, Do::Panic);
    quiet().await;
    assert_eq!(starts.load(Ordering::Relaxed), 2);
}

#[derive(Clone)]
struct Args {
    _held: Arc<()>,
}

#[tokio::test(start_paused = true)]
async fn otp_simple_do_not_save_start_parameters_for_temporary_children() {
    for (restart, kept) in [(Restart::Temporary, false), (Restart::Transient, true), (Restart::Permanent, true)] {
        let stage = Stage::default();
        let inner = stage.clone();
        let dynamic = DynamicSupervisor::builder("args", move |parent, args: Args| {
            drop(args);
            Puppet::spawn_linked(None, inner.puppet("a"), (), parent)
        })
        .restart(restart)
        .start()
        .await
        .unwrap();
        let held = Arc::new(());
        let a = dynamic.start_child(Args { _held: held.clone() }).await.unwrap();
        assert_eq!(Arc::strong_count(&held) > 1, kept, "{restart:?}");
        dynamic.terminate_child(a.actor()).await.unwrap();
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
