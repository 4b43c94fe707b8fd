//! An actor that owns one task, stops it in order, and waits until it has ended.
//!
//! The accept loop and the driver of a connection wait on sockets and streams, which an actor's handler must not. Each runs
//! in a task owned by such an actor, which is its place in the supervision tree. On an ordered stop the actor cancels the
//! task's token and waits, so that the supervisor's grace applies to the task; a kill aborts the task at once. The actor
//! receives no messages, so its mailbox needs no bound.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use plimsoll::ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use plimsoll::supervisor::{BoxError, CancellationToken, Child};
use tokio_util::task::AbortOnDropHandle;

type TaskResult = Result<(), BoxError>;

/// Starts `task` under an actor linked to `parent`. The token is cancelled when the task is to stop.
pub(super) async fn start<F>(parent: ActorCell, task: impl FnOnce(CancellationToken) -> F) -> Result<Child, SpawnErr>
where
    F: Future<Output = TaskResult> + Send + 'static,
{
    let stop = CancellationToken::new();
    let task = task(stop.clone()).boxed();
    let owner = TaskOwner { stop, task: Mutex::new(None) };
    TaskOwner::spawn_linked(None, owner, task, parent).await.map(Child::from)
}

struct TaskOwner {
    stop: CancellationToken,
    /// Not in the state: a killed actor's state waits for its supervisor, its own value is dropped at once.
    task: Mutex<Option<AbortOnDropHandle<TaskResult>>>,
}

impl Actor for TaskOwner {
    type Msg = Infallible;
    type State = ();
    type Arguments = BoxFuture<'static, TaskResult>;

    async fn pre_start(
        &self,
        myself: ActorRef<Infallible>,
        task: BoxFuture<'static, TaskResult>,
    ) -> Result<(), ActorProcessingErr> {
        let running = tokio::spawn(async move {
            let result = AssertUnwindSafe(task).catch_unwind().await;
            // The actor takes the result on its way out.
            myself.stop(None);
            result.unwrap_or_else(|panic| Err(panic_message(&*panic).into()))
        });
        *self.task.lock() = Some(AbortOnDropHandle::new(running));
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Infallible>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.stop.cancel();
        let task = self.task.lock().take();
        match task {
            Some(task) => Ok(task.await??),
            None => Ok(()),
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("no message"))
}
