//! Handles to children: they survive restarts, say when there is no incarnation, and deliver a message once at most.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::supervisor::{
    Backoff, Child, ChildError, ChildHandle, ChildSpec, ChildState, DynamicSupervisor, HandleError, Restart, Shutdown,
    Supervisor, SupervisorRef,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};

/// What was handled, by number, by all incarnations.
type Handled = Arc<Mutex<HashMap<u64, u32>>>;

/// Counts what it handles; fails at number 0.
struct Counts(Handled);

impl Actor for Counts {
    type Msg = u64;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<u64>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<u64>, number: u64, (): &mut ()) -> Result<(), ActorProcessingErr> {
        *self.0.lock().unwrap().entry(number).or_default() += 1;
        if number == 0 { Err("told to fail".into()) } else { Ok(()) }
    }
}

async fn start(parent: ActorCell, handled: Handled) -> Result<Child, ractor::SpawnErr> {
    Counts::spawn_linked(None, Counts(handled), (), parent).await.map(Child::from)
}

fn counts(id: &str, handled: &Handled) -> ChildSpec {
    ChildSpec::with(id, handled.clone(), start).backoff(Backoff::constant(Duration::from_millis(50)))
}

fn top() -> plimsoll::supervisor::SupervisorBuilder {
    Supervisor::builder("top").intensity(u32::MAX, Duration::from_secs(1))
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn handle_finds_the_incarnation_that_runs() {
    let handled = Handled::default();
    let tree = top().child(counts("a", &handled)).start().await.unwrap();
    let handle = tree.child_handle::<u64>("a").unwrap();
    let first = handle.get().unwrap().get_id();
    handle.send(1).unwrap();
    handle.send(0).unwrap();
    pass(10).await;
    assert_eq!(handle.get(), Err(HandleError::Restarting));
    let refused = handle.send(2).unwrap_err();
    assert_eq!((refused.error, refused.message), (HandleError::Restarting, 2));
    assert_eq!(handle.running(Duration::from_millis(10)).await.map(drop), Err(HandleError::Restarting));
    handle.send_within(3, Duration::from_secs(1)).await.unwrap();
    assert_ne!(handle.get().unwrap().get_id(), first);
    pass(10).await;
    assert_eq!(*handled.lock().unwrap(), HashMap::from([(1, 1), (0, 1), (3, 1)]));
    assert!(tree.child_handle::<String>("a").unwrap().get().is_err_and(|error| error == HandleError::WrongType));
    assert!(matches!(tree.child_handle::<u64>("b"), Err(ChildError::NotFound)));
}

#[tokio::test(start_paused = true)]
async fn handle_returns_no_process_once_the_child_is_gone() {
    let handled = Handled::default();
    let temporary = counts("temporary", &handled).restart(Restart::Temporary);
    let tree = top().child(counts("a", &handled)).child(temporary).start().await.unwrap();
    let (handle, gone) = (tree.child_handle::<u64>("a").unwrap(), tree.child_handle::<u64>("temporary").unwrap());
    gone.send(0).unwrap();
    tree.terminate_child("a").await.unwrap();
    pass(10).await;
    assert_eq!(gone.get(), Err(HandleError::NoProcess));
    assert_eq!(handle.get(), Err(HandleError::NoProcess), "terminated: nothing restarts it");
    tree.restart_child("a").await.unwrap();
    assert!(handle.get().is_ok(), "but by hand");
    tree.terminate_child("a").await.unwrap();
    tree.delete_child("a").await.unwrap();
    tree.start_child(counts("a", &handled)).await.unwrap();
    assert_eq!(handle.get(), Err(HandleError::NoProcess), "another child of the same id is another child");
    let last = tree.child_handle::<u64>("a").unwrap();
    let waiting = tokio::spawn(async move { last.send_within(0, Duration::from_secs(60)).await });
    waiting.await.unwrap().unwrap();
    let last = tree.child_handle::<u64>("a").unwrap();
    pass(10).await;
    let waiting = tokio::spawn(async move { last.running(Duration::from_secs(60)).await.map(drop) });
    tree.stop().await.unwrap();
    assert_eq!(waiting.await.unwrap(), Err(HandleError::NoProcess));
}

#[tokio::test(start_paused = true)]
async fn handle_by_path_survives_restarts_of_the_supervisors_above() {
    let handled = Handled::default();
    let inner = handled.clone();
    let nested = ChildSpec::supervisor("gateway", move || {
        Supervisor::builder("gateway").intensity(u32::MAX, Duration::from_secs(1)).child(counts("sessions", &inner))
    });
    let tree = top().child(nested.backoff(Backoff::constant(Duration::from_millis(50)))).start().await.unwrap();
    let handle: ChildHandle<u64> = tree.child_handle("gateway/sessions").unwrap();
    assert!(matches!(tree.child_handle::<u64>("gateway/nobody"), Err(ChildError::NotFound)));
    handle.send(1).unwrap();
    handle.send(0).unwrap();
    pass(10).await;
    handle.send_within(2, Duration::from_secs(1)).await.unwrap();
    pass(10).await;
    let before = handle.running(Duration::from_secs(1)).await.unwrap().get_id();
    tree.child("gateway").unwrap().actor().kill();
    pass(10).await;
    assert_eq!(handle.get(), Err(HandleError::Restarting), "its supervisor is restarting");
    handle.send_within(3, Duration::from_secs(1)).await.unwrap();
    assert_ne!(handle.get().unwrap().get_id(), before);
    pass(10).await;
    assert_eq!(*handled.lock().unwrap(), HashMap::from([(1, 1), (0, 1), (2, 1), (3, 1)]));
    tree.terminate_child("gateway").await.unwrap();
    assert_eq!(handle.get(), Err(HandleError::NoProcess));
}

#[tokio::test(start_paused = true)]
async fn handle_of_a_dynamic_child_survives_its_restarts() {
    let handled = Handled::default();
    let inner = handled.clone();
    let builder = DynamicSupervisor::builder("many", move |parent, ()| start(parent, inner.clone()));
    let builder = builder.intensity(u32::MAX, Duration::from_secs(1)).restart(Restart::Transient);
    let tree = builder.backoff(Backoff::constant(Duration::from_millis(50))).start().await.unwrap();
    for _ in 0..3 {
        tree.start_child(()).await.unwrap();
    }
    let ChildState::Running(actor) = tree.which_children().unwrap().remove(1).state else { panic!("it runs") };
    let handle = tree.child_handle::<u64>(actor.get_id()).unwrap();
    handle.send(0).unwrap();
    pass(10).await;
    assert_eq!(handle.get(), Err(HandleError::Restarting));
    handle.send_within(1, Duration::from_secs(1)).await.unwrap();
    let now = handle.get().unwrap();
    assert_ne!(now.get_id(), actor.get_id());
    tree.terminate_child(&now.get_cell()).await.unwrap();
    assert_eq!(handle.get(), Err(HandleError::NoProcess));
    assert!(matches!(tree.child_handle::<u64>(actor.get_id()), Err(ChildError::NotFound)));
}

/// Senders on several threads while the child is killed again and again: no message is handled twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_message_is_handled_twice_while_the_child_is_killed() {
    let handled = Handled::default();
    let spec = counts("a", &handled).backoff(Backoff::NONE).shutdown(Shutdown::Brutal);
    let tree: SupervisorRef = top().child(spec).start().await.unwrap();
    let senders = (0..4_u64).map(|sender| {
        let handle = tree.child_handle::<u64>("a").unwrap();
        tokio::spawn(async move {
            for n in 0..500 {
                handle.send_within(1 + sender * 1_000 + n, Duration::from_secs(20)).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    for _ in 0..50 {
        if let Ok(child) = tree.child("a") {
            child.actor().kill();
        }
        pass(1).await;
    }
    // The last one that was killed has been replaced before the last message is sent.
    for sender in senders {
        sender.await.unwrap();
    }
    // What comes after the last kill arrives.
    let last = tree.child_handle::<u64>("a").unwrap();
    last.running(Duration::from_secs(20)).await.unwrap();
    last.send_within(10_000, Duration::from_secs(20)).await.unwrap();
    let arrives = async {
        while !handled.lock().unwrap().contains_key(&10_000) {
            pass(1).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), arrives).await.expect("the last message arrives");
    tree.stop().await.unwrap();
    assert!(handled.lock().unwrap().values().all(|times| *times == 1), "a message was handled twice");
}
