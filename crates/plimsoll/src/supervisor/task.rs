//! A plain async function as a child: a small actor that runs it as its only message.

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::child::Child;
use super::child_path;
use super::error::BoxError;
use std::future::Future;
use std::pin::Pin;

pub(crate) type Work = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

struct TaskActor {
    token: CancellationToken,
}

/// The only message: run.
struct Run(Work);

impl Actor for TaskActor {
    type Msg = Run;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Run>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    // A kill drops the work at its next await; a panic or an error in it is the actor's.
    async fn handle(&self, myself: ActorRef<Run>, Run(work): Run, _state: &mut ()) -> Result<(), ActorProcessingErr> {
        // The monitor, woken by this child's start, runs before work that may block the thread.
        tokio::task::yield_now().await;
        work.await?;
        myself.stop(self.token.is_cancelled().then(|| "shutdown".to_owned()));
        Ok(())
    }
}

pub(crate) async fn start(parent: ActorCell, token: CancellationToken, work: Work) -> Result<Child, BoxError> {
    let (actor, ended) = TaskActor::spawn_linked(None, TaskActor { token: token.clone() }, (), parent).await?;
    let span = child_path::span_of(actor.get_id());
    actor.cast(Run(if span.is_disabled() { work } else { Box::pin(work.instrument(span)) }))?;
    let mut child = Child::from((actor, ended));
    child.token = Some(token);
    Ok(child)
}
