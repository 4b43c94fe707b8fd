//! An actor that owns one task: each ends with the other.
//!
//! For loops that wait on streams and sockets, which an actor's handler must not. However the actor dies, its own value
//! is dropped at once (its state may wait for a busy supervisor), and with it the task and the guard.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use parking_lot::Mutex;
use plimsoll::ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use plimsoll::supervisor::{BoxError, Child};
use tokio_util::task::AbortOnDropHandle;

type Task = futures::future::BoxFuture<'static, Result<(), BoxError>>;

/// Starts `task` in an actor of its own, linked to `parent`. `Ok` is a normal end; `Err` and a panic are failures.
/// `guard` is dropped when the actor is gone.
pub(crate) async fn start(
    parent: ActorCell,
    guard: impl Any + Send + Sync,
    task: impl Future<Output = Result<(), BoxError>> + Send + 'static,
) -> Result<Child, SpawnErr> {
    let owner = Owner { task: Mutex::new(None), _guard: Box::new(guard) };
    Owner::spawn_linked(None, owner, task.boxed(), parent).await.map(Child::from)
}

struct Owner {
    task: Mutex<Option<AbortOnDropHandle<()>>>,
    _guard: Box<dyn Any + Send + Sync>,
}

/// How the task ended.
struct Ended(Result<(), BoxError>);

impl Actor for Owner {
    type Msg = Ended;
    type State = ();
    type Arguments = Task;

    async fn pre_start(&self, myself: ActorRef<Ended>, task: Task) -> Result<(), ActorProcessingErr> {
        let running = tokio::spawn(async move {
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            // An actor that is gone already needs no telling.
            let _ = myself.cast(Ended(ended.unwrap_or_else(|panic| Err(words(&*panic).into()))));
        });
        *self.task.lock() = Some(AbortOnDropHandle::new(running));
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Ended>,
        Ended(ended): Ended,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        ended?;
        myself.stop(None);
        Ok(())
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", words.unwrap_or("without words"))
}
