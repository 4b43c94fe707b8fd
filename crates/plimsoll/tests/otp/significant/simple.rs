//! Significant children of a dynamic supervisor.

use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    AutoShutdown, Backoff, BoxError, Child, ChildError, ChildRef, DynamicBuilder, DynamicSupervisor,
    DynamicSupervisorRef, Restart, ShutdownCause, SpecError, StartError,
};
use ractor::{Actor, ActorCell};

use super::{ALL, ANY};
use crate::support::{Begin, Do, Puppet, Stage, quiet, tell};

type Members = DynamicSupervisorRef<&'static str>;

fn members(stage: &Stage, auto_shutdown: AutoShutdown, restart: Restart) -> DynamicBuilder<&'static str> {
    let stage = stage.clone();
    DynamicSupervisor::builder("members", move |parent: ActorCell, id: &'static str| {
        let puppet = stage.puppet(id);
        async move { Ok::<_, BoxError>(Child::from(Puppet::spawn_linked(None, puppet, (), parent).await?)) }
    })
    .restart(restart)
    .significant(true)
    .auto_shutdown(auto_shutdown)
    .intensity(10, Duration::from_secs(60))
    .backoff(Backoff::NONE)
}

async fn three(stage: &Stage, auto_shutdown: AutoShutdown, restart: Restart) -> (Members, [ChildRef; 3]) {
    let members = members(stage, auto_shutdown, restart).start().await.unwrap();
    let mut children = Vec::new();
    for id in ["a", "b", "c"] {
        children.push(members.start_child(id).await.unwrap());
    }
    stage.did();
    (members, children.try_into().unwrap())
}

async fn alive(members: &Members) -> bool {
    quiet().await;
    members.report().is_none()
}

async fn assert_shut_down(members: &Members) {
    let report = members.wait().await.unwrap();
    assert_eq!((&report.cause, &report.reason), (&ShutdownCause::AutoShutdown, &ExitReason::Shutdown));
    assert!(report.is_clean(), "{report}");
}

/// A child that ends by itself counts.
async fn counts(auto_shutdown: AutoShutdown, restart: Restart, what: fn() -> Do) {
    let stage = Stage::default();
    let (members, [a, b, c]) = three(&stage, auto_shutdown, restart).await;
    tell(&a, what());
    if auto_shutdown == ALL {
        assert!(alive(&members).await);
        tell(&b, what());
        assert!(alive(&members).await, "one is left");
        tell(&c, what());
        return assert_shut_down(&members).await;
    }
    assert_shut_down(&members).await;
    let did = stage.did();
    assert!(["stop b", "stop c"].iter().all(|stop| did.iter().any(|event| event == stop)), "{did:?}");
}

/// A transient child that fails is started again, and nothing else happens.
async fn restarts(auto_shutdown: AutoShutdown) {
    let stage = Stage::default();
    let (members, [a, ..]) = three(&stage, auto_shutdown, Restart::Transient).await;
    tell(&a, Do::Panic);
    assert!(alive(&members).await);
    assert_eq!(stage.did(), ["start a"]);
}

/// Termination by hand never triggers it, and one that was terminated does not count.
async fn terminated(auto_shutdown: AutoShutdown, restart: Restart) {
    let stage = Stage::default();
    let (members, [a, b, c]) = three(&stage, auto_shutdown, restart).await;
    members.terminate_child(a.actor()).await.unwrap();
    members.terminate_child(b.actor()).await.unwrap();
    if auto_shutdown == ANY {
        members.terminate_child(c.actor()).await.unwrap();
        return assert!(alive(&members).await, "also without any child");
    }
    assert!(alive(&members).await);
    tell(&c, Do::Normal);
    assert_shut_down(&members).await;
}

cases! {
    otp_significant_simple_any_transient_normal: counts(ANY, Restart::Transient, || Do::Normal);
    otp_significant_simple_any_transient_shutdown: counts(ANY, Restart::Transient, || Do::Stop("shutdown"));
    otp_significant_simple_any_transient_abnormal: restarts(ANY);
    otp_significant_simple_any_transient_terminated: terminated(ANY, Restart::Transient);
    otp_significant_simple_any_temporary_normal: counts(ANY, Restart::Temporary, || Do::Normal);
    otp_significant_simple_any_temporary_shutdown: counts(ANY, Restart::Temporary, || Do::Stop("upgrade"));
    otp_significant_simple_any_temporary_abnormal: counts(ANY, Restart::Temporary, || Do::Panic);
    otp_significant_simple_any_temporary_terminated: terminated(ANY, Restart::Temporary);
    otp_significant_simple_all_transient_normal: counts(ALL, Restart::Transient, || Do::Normal);
    otp_significant_simple_all_transient_shutdown: counts(ALL, Restart::Transient, || Do::Stop("upgrade"));
    otp_significant_simple_all_transient_abnormal: restarts(ALL);
    otp_significant_simple_all_transient_terminated: terminated(ALL, Restart::Transient);
    otp_significant_simple_all_temporary_normal: counts(ALL, Restart::Temporary, || Do::Normal);
    otp_significant_simple_all_temporary_shutdown: counts(ALL, Restart::Temporary, || Do::Stop("shutdown"));
    otp_significant_simple_all_temporary_abnormal: counts(ALL, Restart::Temporary, || Do::Panic);
    otp_significant_simple_all_temporary_terminated: terminated(ALL, Restart::Temporary);
}

#[tokio::test(start_paused = true)]
async fn otp_significant_simple_one_that_is_restarting_or_starting_is_there() {
    let stage = Stage::default();
    let slow = members(&stage, ALL, Restart::Transient).backoff(Backoff::constant(Duration::from_secs(5)));
    let members = slow.start().await.unwrap();
    let a = members.start_child("a").await.unwrap();
    let b = members.start_child("b").await.unwrap();
    tell(&a, Do::Panic);
    quiet().await;
    tell(&b, Do::Normal);
    assert!(alive(&members).await, "a waits for its restart");
    stage.script.next("c", [Begin::Hang]);
    let starting = tokio::spawn({
        let members = members.clone();
        async move { members.start_child("c").await }
    });
    quiet().await;
    members.terminate_child(a.actor()).await.unwrap();
    let d = members.start_child("d").await.unwrap();
    tell(&d, Do::Normal);
    assert!(alive(&members).await, "c starts");
    starting.abort();
    quiet().await;
    let e = members.start_child("e").await.unwrap();
    tell(&e, Do::Normal);
    assert_shut_down(&members).await;
}

#[tokio::test(start_paused = true)]
async fn otp_significant_simple_one_that_is_being_terminated_does_not_count() {
    let stage = Stage::default();
    let staging = stage.clone();
    let builder = DynamicSupervisor::temporary("members", move |parent: ActorCell, id: &'static str| {
        let mut puppet = stage.puppet(id);
        puppet.slow_stop = Duration::from_secs(1);
        async move { Ok::<_, BoxError>(Child::from(Puppet::spawn_linked(None, puppet, (), parent).await?)) }
    });
    let members = builder.significant(true).auto_shutdown(ALL).start().await.unwrap();
    let a = members.start_child("a").await.unwrap();
    let b = members.start_child("b").await.unwrap();
    let terminating = tokio::spawn({
        let members = members.clone();
        async move { members.terminate_child(a.actor()).await }
    });
    quiet().await;
    tell(&b, Do::Panic);
    quiet().await;
    assert_eq!(terminating.await.unwrap(), Err(ChildError::ShuttingDown));
    assert_shut_down(&members).await;
    assert!(staging.did().contains(&"stop a".to_owned()), "in its own time");
}

#[tokio::test(start_paused = true)]
async fn otp_significant_simple_flags_are_checked() {
    let stage = Stage::default();
    let refused = members(&stage, ANY, Restart::Permanent).start().await.map(drop);
    assert_eq!(refused, Err(StartError::Spec(SpecError::SignificantPermanent { id: "members".into() })));
    let refused = members(&stage, AutoShutdown::Never, Restart::Transient).start().await.map(drop);
    assert_eq!(refused, Err(StartError::Spec(SpecError::SignificantNever { id: "members".into() })));
    let plain = members(&stage, ANY, Restart::Permanent).significant(false).start().await.unwrap();
    let child = plain.start_child("a").await.unwrap();
    tell(&child, Do::Normal);
    assert!(alive(&plain).await, "nobody is significant");
    let told = members(&stage, ALL, Restart::Transient).start().await.unwrap();
    let child = told.start_child("a").await.unwrap();
    assert!(told.child_spec(child.actor().get_id()).unwrap().significant);
}
