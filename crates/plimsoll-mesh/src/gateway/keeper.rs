//! An actor that keeps one task, asks it to stop, and waits until it has.
//!
//! The accept loop and the pump of a connection wait on sockets and streams, which an actor's handler must not. Each
//! runs in a task; its place in the tree is this actor. An ordered stop is passed on and waited for, so that the
//! supervisor's grace is the task's; a kill aborts the task at once.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use plimsoll::ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use plimsoll::supervisor::{BoxError, CancellationToken, Child};
use tokio_util::task::AbortOnDropHandle;

type Ended = Result<(), BoxError>;

/// Starts `work` under an actor linked to `parent`. It is asked to stop by the token that it is given.
pub(super) async fn keep<F>(parent: ActorCell, work: impl FnOnce(CancellationToken) -> F) -> Result<Child, SpawnErr>
where
    F: Future<Output = Ended> + Send + 'static,
{
    let stop = CancellationToken::new();
    let task = work(stop.clone()).boxed();
    let keeper = Keeper { stop, task: Mutex::new(None) };
    Keeper::spawn_linked(None, keeper, task, parent).await.map(Child::from)
}

struct Keeper {
    stop: CancellationToken,
    /// Here and not in the state: a killed actor's state waits for its supervisor, its own value is dropped at once.
    task: Mutex<Option<AbortOnDropHandle<Ended>>>,
}

/// The task is over.
struct Over;

impl Actor for Keeper {
    type Msg = Over;
    type State = ();
    type Arguments = BoxFuture<'static, Ended>;

    async fn pre_start(
        &self,
        myself: ActorRef<Over>,
        task: BoxFuture<'static, Ended>,
    ) -> Result<(), ActorProcessingErr> {
        let running = tokio::spawn(async move {
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            // Fails only when the actor is stopping already, and then it waits for this task.
            let _ = myself.cast(Over);
            ended.unwrap_or_else(|panic| Err(words(&*panic).into()))
        });
        *self.task.lock() = Some(AbortOnDropHandle::new(running));
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Over>, Over: Over, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.await??;
        }
        myself.stop(None);
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Over>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.stop.cancel();
        let task = self.task.lock().take();
        match task {
            Some(task) => Ok(task.await??),
            None => Ok(()),
        }
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", words.unwrap_or("without words"))
}
