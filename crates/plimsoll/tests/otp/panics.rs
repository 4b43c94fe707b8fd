//! Panics where nobody looks for one: in a drop, an observer, a payload. They hurt nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    Backoff, BoxError, Child, ChildSpec, Restart, ShutdownCause, StartError, StopFailureKind, Supervisor,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::support::{Do, Puppet, Stage, failures, quiet, tell_id};
use crate::trees::shown;

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped")
        }
    }
}

/// An actor whose own drop, or whose state's, panics.
struct Bombs {
    _own: Option<Bomb>,
    in_state: bool,
}

impl Actor for Bombs {
    type Msg = Do;
    type State = Option<Bomb>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Do>, (): ()) -> Result<Option<Bomb>, ActorProcessingErr> {
        Ok(self.in_state.then(|| Bomb))
    }

    async fn handle(&self, me: ActorRef<Do>, _: Do, _: &mut Option<Bomb>) -> Result<(), ActorProcessingErr> {
        me.stop(None);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn otp_a_drop_that_panics_is_a_failure_with_its_message_and_nobody_elses() {
    for in_state in [true, false] {
        let stage = Stage::default();
        let starts = Arc::new(AtomicUsize::new(0));
        let counted = starts.clone();
        let spec = ChildSpec::new("bomb", move |parent| {
            counted.fetch_add(1, Ordering::Relaxed);
            Bombs::spawn_linked(None, Bombs { _own: (!in_state).then(|| Bomb), in_state }, (), parent)
        });
        let spec = spec.restart(Restart::Transient).backoff(Backoff::NONE);
        let tree = Supervisor::builder("top").child(stage.child("a")).child(spec).start().await.unwrap();
        tell_id(&tree, "bomb", Do::Normal);
        quiet().await;
        // A normal end with a panicking drop is a failure.
        assert_eq!(starts.load(Ordering::Relaxed), 2, "in state: {in_state}");
        assert_eq!(shown(&tree), "a+ bomb+");
        let report = tree.stop().await.unwrap();
        let told = failures(&report);
        assert_eq!(told, [("bomb", &StopFailureKind::Ended(ExitReason::failed("dropped")))], "in state: {in_state}");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_a_start_function_whose_drop_panics_hurts_nobody() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").child(stage.child("a")).start().await.unwrap();
    for restart in [Restart::Permanent, Restart::Temporary] {
        let (bomb, inner) = (Bomb, stage.clone());
        let spec = ChildSpec::new("bomb", move |parent| {
            let _ = &bomb;
            Puppet::spawn_linked(None, inner.puppet("bomb"), (), parent)
        });
        let _ = tokio::spawn({
            let tree = tree.clone();
            async move { tree.start_child(spec.restart(restart)).await }
        })
        .await;
        quiet().await;
        let _ = tree.terminate_child("bomb").await;
        let _ = tokio::spawn({
            let tree = tree.clone();
            async move { tree.delete_child("bomb").await }
        })
        .await;
        assert_eq!(shown(&tree), "a+", "{restart:?}");
    }
    assert!(tree.stop().await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn otp_an_observer_that_panics_hurts_nobody() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let stage = Stage::default();
    let tree = Supervisor::builder("top")
        .intensity(0, Duration::from_secs(1))
        .on_shutdown(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            panic!("observer")
        })
        .child(stage.child("a"))
        .start()
        .await
        .unwrap();
    tell_id(&tree, "a", Do::Panic);
    assert!(matches!(tree.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
    quiet().await;
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        panic!("a payload that panics")
    }
}

#[tokio::test(start_paused = true)]
async fn otp_a_panic_that_is_no_text_is_a_failure_all_the_same() {
    struct Odd;
    impl Actor for Odd {
        type Msg = ();
        type State = ();
        type Arguments = ();
        async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
        async fn handle(&self, _: ActorRef<()>, (): (), _: &mut ()) -> Result<(), ActorProcessingErr> {
            std::panic::panic_any(17_u8)
        }
    }
    let spec = ChildSpec::new("odd", |parent| Odd::spawn_linked(None, Odd, (), parent)).restart(Restart::Transient);
    let tree = Supervisor::builder("top").child(spec.backoff(Backoff::NONE)).start().await.unwrap();
    let odd = tree.child("odd").unwrap();
    odd.actor_ref::<()>().unwrap().cast(()).unwrap();
    quiet().await;
    assert_ne!(tree.child("odd").unwrap(), odd);

    // A start whose panic payload panics when it is dropped.
    let worse = ChildSpec::new("worse", |_| async {
        if true {
            std::panic::panic_any(Payload)
        }
        Err::<Child, BoxError>(StartError::Ignored.into())
    });
    let started = tokio::spawn({
        let tree = tree.clone();
        async move { tokio::time::timeout(Duration::from_secs(5), tree.start_child(worse)).await }
    });
    assert!(matches!(started.await.unwrap(), Ok(Err(StartError::Failed(_)))));
    assert_eq!(shown(&tree), "odd+");
    tree.stop().await.unwrap();
}
