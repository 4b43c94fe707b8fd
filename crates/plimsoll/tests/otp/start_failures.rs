//! Starts that fail: who is told what, and those before it are stopped again.

use std::time::Duration;

use plimsoll::supervisor::{ChildSpec, Restart, Shutdown, StartError, Supervisor};
use ractor::Actor;
use tokio::time::Instant;

use crate::support::{Begin, Puppet, Stage, slow};
use crate::trees::named;

#[tokio::test(start_paused = true)]
async fn otp_sup_start_fail() {
    for begin in [Begin::Fail, Begin::Panic] {
        let stage = Stage::default();
        stage.script.next("c", [begin]);
        let children = ["a", "b", "c", "d"].map(|id| stage.child(id));
        let error = Supervisor::builder("top").children(children).start().await.unwrap_err();
        let StartError::FailedToStart { id, reason } = &error else { panic!("{error}") };
        assert_eq!(&**id, "c");
        let message =
            if begin == Begin::Fail { "the start failed: told to fail" } else { "the start failed: told to panic" };
        assert_eq!(reason.to_string(), message);
        assert_eq!(stage.did(), ["start a", "start b", "stop b", "stop a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_fail_of_the_first_child() {
    let stage = Stage::default();
    stage.script.next("a", [Begin::Fail]);
    let builder = Supervisor::builder("top").children(named(&stage, &["a", "b"]));
    let Err(StartError::FailedToStart { id, .. }) = builder.start().await else { panic!("it fails") };
    assert_eq!(&*id, "a");
    assert!(stage.did().is_empty());
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_fail_of_a_temporary_child_fails_the_supervisor() {
    let stage = Stage::default();
    stage.script.next("b", [Begin::Fail]);
    let builder = Supervisor::builder("top").child(stage.child("a"));
    let builder = builder.child(stage.child("b").restart(Restart::Temporary));
    let Err(StartError::FailedToStart { id, .. }) = builder.start().await else { panic!("it fails") };
    assert_eq!(&*id, "b");
    assert_eq!(stage.did(), ["start a", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_fail_of_a_nested_supervisor_says_both_ids() {
    let stage = Stage::default();
    stage.script.next("x", [Begin::Fail]);
    let inner = stage.clone();
    let nested = ChildSpec::supervisor("nested", move || {
        Supervisor::builder("nested").child(inner.child("y")).child(inner.child("x"))
    });
    let builder = Supervisor::builder("top").child(stage.child("a")).child(nested);
    let Err(StartError::FailedToStart { id, reason }) = builder.start().await else { panic!("it fails") };
    assert_eq!(&*id, "nested");
    let StartError::FailedToStart { id, .. } = *reason else { panic!("{reason}") };
    assert_eq!(&*id, "x");
    assert_eq!(stage.did(), ["start a", "start y", "stop y", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_rolls_back_with_graces() {
    let stage = Stage::default();
    stage.script.next("b", [Begin::Fail]);
    let builder = Supervisor::builder("top");
    let builder = builder.child(stage.child_with("a", slow(60)).shutdown(Shutdown::After(Duration::from_secs(2))));
    let began = Instant::now();
    assert!(builder.child(stage.child("b")).start().await.is_err());
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    assert_eq!(stage.diary.take(), ["start a", "drop b", "stopping a", "drop a"]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_not_linked_is_killed_and_refused() {
    let stage = Stage::default();
    let loose = stage.clone();
    let spec = ChildSpec::new("loose", move |_parent| Puppet::spawn(None, loose.puppet("loose"), ()));
    let tree = Supervisor::builder("top").start().await.unwrap();
    assert_eq!(tree.start_child(spec).await, Err(StartError::NotLinked));
    assert_eq!(stage.diary.take(), ["start loose", "drop loose"]);
}
