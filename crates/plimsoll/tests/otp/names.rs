//! Children with names: one that is taken, and one that is free again.

use std::time::Duration;

use plimsoll::supervisor::{Backoff, ChildSpec, DynamicBuilder, DynamicSupervisor, StartError, Strategy, Supervisor};
use ractor::Actor;
use ractor::registry::where_is;

use crate::dynamic::{Id, child};
use crate::support::{Begin, Do, Puppet, Stage, quiet, slow, tell_id};
use crate::trees::{shown, start};

/// A child whose actor has this name.
fn named_child(
    stage: &Stage,
    id: &'static str,
    name: &'static str,
    with: impl Fn(Puppet) -> Puppet + Send + Sync + 'static,
) -> ChildSpec {
    let stage = stage.clone();
    ChildSpec::new(id, move |parent| Puppet::spawn_linked(Some(name.to_owned()), with(stage.puppet(id)), (), parent))
}

/// Children whose actors all want this name.
fn named_children(stage: &Stage, name: &'static str) -> DynamicBuilder<Id> {
    let stage = stage.clone();
    DynamicSupervisor::builder("named", move |parent, id: Id| {
        Puppet::spawn_linked(Some(name.to_owned()), stage.puppet(id), (), parent)
    })
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_is_already_started() {
    let stage = Stage::default();
    let child = |id| named_child(&stage, id, "the only one", |puppet| puppet);
    let tree = Supervisor::builder("top").child(child("first")).start().await.unwrap();
    let first = tree.child("first").unwrap();
    assert_eq!(tree.start_child(child("second")).await, Err(StartError::AlreadyStarted(first)));
    assert_eq!(tree.count_children().unwrap().specs, 1);
    tree.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_start_that_takes_too_long_is_gone_and_its_name_free() {
    let stage = Stage::default();
    stage.script.next("slow", [Begin::Hang]);
    let spec = named_child(&stage, "slow", "slow starter", |puppet| puppet).start_timeout(Duration::from_secs(3));
    let tree = Supervisor::builder("top").start().await.unwrap();
    assert_eq!(tree.start_child(spec.clone()).await, Err(StartError::Timeout(Duration::from_secs(3))));
    assert!(where_is("slow starter").is_none());
    tree.start_child(spec).await.unwrap();
    tree.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_restart_whose_name_was_taken_is_tried_again() {
    let stage = Stage::default();
    let spec =
        named_child(&stage, "a", "contested", |puppet| puppet).backoff(Backoff::constant(Duration::from_secs(1)));
    let builder = Supervisor::builder("top").intensity(5, Duration::from_secs(60)).child(spec);
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    let (thief, ended) =
        Puppet::spawn(Some("contested".to_owned()), Stage::default().puppet("thief"), ()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(shown(&tree), "a~");
    thief.stop(None);
    ended.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(shown(&tree), "a+");
    tree.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_simple_global_supervisor_takes_the_name_again() {
    // Named children with a slow stop hook under one_for_all: no name is found taken.
    let stage = Stage::default();
    let child = |id, name| named_child(&stage, id, name, slow(1)).backoff(Backoff::NONE);
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).intensity(3, Duration::from_secs(60));
    let tree = start(&stage, builder.children([child("x", "named x"), child("y", "named y")])).await;
    for what in [|| Do::Panic, || Do::Normal, || Do::Fail] {
        tell_id(&tree, "x", what());
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(shown(&tree), "x+ y+");
    }
    // Three were charged and no more.
    assert!(tree.report().is_none());
    tree.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_simple_start_timeout_frees_the_name() {
    let stage = Stage::default();
    let dynamic =
        named_children(&stage, "slow dynamic starter").start_timeout(Duration::from_secs(1)).start().await.unwrap();
    stage.script.next("a", [Begin::Hang]);
    assert_eq!(dynamic.start_child("a").await, Err(StartError::Timeout(Duration::from_secs(1))));
    assert!(where_is("slow dynamic starter").is_none());
    child(&dynamic, "a").await;
    dynamic.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_simple_taken_name_is_already_started() {
    let stage = Stage::default();
    let dynamic = named_children(&stage, "the only dynamic one").start().await.unwrap();
    let a = child(&dynamic, "a").await;
    assert_eq!(dynamic.start_child("b").await, Err(StartError::AlreadyStarted(a)));
    dynamic.stop().await.unwrap();
}
