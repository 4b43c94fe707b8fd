//! A registry that monitors its owners and sweeps itself.

use std::time::Duration;

use plimsoll::bounded::registry::{ActorRegistry, AdvertiseError, RegistryEvent};
use plimsoll::bounded::{Compact, CompactPolicy, RegistrySettings};
use plimsoll::supervisor::CancellationToken;
use ractor::{Actor, ActorProcessingErr, ActorRef};

struct Idle;

impl Actor for Idle {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

type Registry = ActorRegistry<u32, u32>;

async fn owner() -> ActorRef<()> {
    Actor::spawn(None, Idle, ()).await.unwrap().0
}

async fn end(owner: ActorRef<()>) {
    owner.stop_and_wait(None, None).await.unwrap();
}

/// A running registry, and what stops it.
fn running() -> (Registry, CancellationToken) {
    let (registry, stop) = (Registry::new(RegistrySettings::default()), CancellationToken::new());
    tokio::spawn(registry.clone().run(stop.clone()));
    (registry, stop)
}

async fn until_empty(registry: &Registry) {
    while !registry.is_empty() {
        tokio::task::yield_now().await;
    }
}

fn counted(registry: &Registry, event: RegistryEvent) -> u64 {
    registry.counters().counted(event)
}

/// M-13: the entries of an owner are removed when it exits, however it exits; those of another stay.
#[tokio::test]
async fn an_exit_removes_the_owners_entries() {
    let (registry, _stop) = running();
    let (stays, stops, killed) = (owner().await, owner().await, owner().await);
    for name in 0..10 {
        for owner in [&stays, &stops, &killed] {
            registry.advertise(name, owner, 1, None).unwrap();
        }
    }
    end(stops).await;
    killed.kill();
    while registry.len() > 10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(registry.providers(&3), [(stays.get_id(), 1)]);
    assert_eq!(counted(&registry, RegistryEvent::OwnerRemoved), 20);
    end(stays).await;
    until_empty(&registry).await;
}

/// An actor that has exited owns nothing.
#[tokio::test]
async fn an_owner_that_has_exited_is_refused() {
    let (registry, _stop) = running();
    let exited = owner().await;
    end(exited.clone()).await;
    assert_eq!(registry.advertise(1, &exited, 1, None), Err(AdvertiseError::OwnerExited));
    assert!(registry.is_empty());
}

/// M-9: an expired entry is swept within its lease and a tick, also when the registry was empty when the sweep was scheduled.
#[tokio::test(start_paused = true)]
async fn an_entry_is_swept_although_the_registry_was_empty() {
    let (registry, _stop) = running();
    // The sweep of the empty registry is due in about a minute.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let owner = owner().await;
    registry.advertise(1, &owner, 1, Some(Duration::from_secs(1))).unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(registry.len(), 1);
    tokio::time::sleep(Duration::from_millis(301)).await;
    assert_eq!((registry.len(), counted(&registry, RegistryEvent::Expired)), (0, 1));
}

/// A registry that is restarted monitors all owners again, also those that exited meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_monitors_all_owners_again() {
    let (registry, stop) = running();
    let (first, second) = (owner().await, owner().await);
    registry.advertise(1, &first, 1, None).unwrap();
    registry.advertise(1, &second, 2, None).unwrap();
    tokio::task::yield_now().await;
    stop.cancel();
    end(first).await;
    let again = CancellationToken::new();
    let running = tokio::spawn(registry.clone().run(again.clone()));
    while registry.len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(registry.providers(&1), [(second.get_id(), 2)]);
    end(second).await;
    until_empty(&registry).await;
    again.cancel();
    running.await.unwrap().unwrap();
}

/// Owners without entries are not kept: none is left after thousands have withdrawn.
#[tokio::test]
async fn owners_without_entries_are_not_kept() {
    let (mut registry, _stop) = running();
    let owner = owner().await;
    for name in 0..5_000 {
        let refused = registry.advertise(name, &owner, 1, None).is_err();
        assert_eq!(registry.withdraw(&name, owner.get_id()).is_none(), refused);
        if name % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(registry.is_empty());
    registry.compact(&CompactPolicy::new(1, 0));
    // The rate of the owner is remembered; its cell is not.
    end(owner).await;
    assert_eq!(registry.len(), 0);
}
