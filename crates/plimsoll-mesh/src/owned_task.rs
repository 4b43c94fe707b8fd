//! An actor that owns one task: each ends with the other.
//!
//! For loops that wait on streams and sockets, which an actor's handler must not do. However the actor ends, its value is
//! dropped at once (its state may wait for a busy supervisor), and with it the task and the guard. Workers that the task
//! starts are linked to the actor and end with it.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use parking_lot::Mutex;
use plimsoll::mailbox::{Bounded, Delivery, MailboxBuilder};
use plimsoll::ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use plimsoll::supervisor::{BoxError, Child};
use tokio_util::task::AbortOnDropHandle;

/// Starts an actor linked to `parent`, and the task that `run` makes of the actor's cell. `Ok` is a normal end of the task;
/// `Err` and a panic are failures of the actor. `guard` is dropped when the actor is gone.
pub(crate) async fn start<F>(
    parent: ActorCell,
    guard: impl Any + Send + Sync,
    run: impl FnOnce(ActorCell) -> F,
) -> Result<Child, SpawnErr>
where
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let task = Arc::new(Mutex::new(None));
    let owner = Owner { _task: Arc::clone(&task), _guard: Box::new(guard) };
    let (actor, ended) = MailboxBuilder::messages(1).spawn_linked(None, owner, (), parent).await?;
    let (cell, work) = (actor.actor(), AssertUnwindSafe(run(actor.actor())).catch_unwind());
    // No await from here on: the actor is never left without its task.
    let running = tokio::spawn(async move {
        let finished = work.await.unwrap_or_else(|panic| Err(panic_text(&*panic).into()));
        // An actor that is gone already does not need the message.
        let _ = actor.send(Finished(finished));
    });
    *task.lock() = Some(AbortOnDropHandle::new(running));
    Ok(Child::new(cell, ended))
}

struct Owner {
    _task: Arc<Mutex<Option<AbortOnDropHandle<()>>>>,
    _guard: Box<dyn Any + Send + Sync>,
}

/// The result of the task.
struct Finished(Result<(), BoxError>);

impl Actor for Owner {
    type Msg = Bounded<Finished>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let Some(Delivery::Message(Finished(result))) = message.take() {
            result?;
            myself.stop(None);
        }
        Ok(())
    }

    /// A worker's end is counted by the worker; it is no reason for this actor to end.
    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without a message"))
}
