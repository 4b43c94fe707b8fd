//! What a user would write by hand on ractor, without any of the guarantees.

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

pub type Ask = (u64, oneshot::Sender<u64>);

/// A server that spawns a worker of either kind for each request.
pub struct BareRouter {
    pub actors: bool,
}

struct BareWorker;

impl Actor for BareWorker {
    type Msg = ();
    type State = Option<Ask>;
    type Arguments = Ask;

    async fn pre_start(&self, _: ActorRef<()>, ask: Ask) -> Result<Option<Ask>, ActorProcessingErr> {
        Ok(Some(ask))
    }

    async fn post_start(&self, myself: ActorRef<()>, state: &mut Option<Ask>) -> Result<(), ActorProcessingErr> {
        if let Some((n, reply)) = state.take() {
            let _ = reply.send(n + 1);
        }
        myself.stop(None);
        Ok(())
    }
}

impl Actor for BareRouter {
    type Msg = Ask;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Ask>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Ask>, ask: Ask, (): &mut ()) -> Result<(), ActorProcessingErr> {
        if self.actors {
            BareWorker::spawn_linked(None, BareWorker, ask, myself.get_cell()).await?;
        } else {
            tokio::spawn(async move {
                let _ = ask.1.send(ask.0 + 1);
            });
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Ask>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

pub async fn bare_router(actors: bool) -> (ActorRef<Ask>, JoinHandle<()>) {
    BareRouter::spawn(None, BareRouter { actors }, ()).await.expect("the bare server starts")
}

pub async fn bare_call(server: &ActorRef<Ask>, n: u64) -> u64 {
    let (reply, answer) = oneshot::channel();
    server.send_message((n, reply)).expect("the bare server runs");
    answer.await.expect("the bare server replies")
}
