//! Callers: they wait, give up, are killed, or let the actor that they are bound to die.

use std::sync::Arc;
use std::time::Duration;

use plimsoll::call::{CallError, Calling, Protocol};
use plimsoll_testkit::ledger::{Ledger, REPLY};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use super::fates::Fate;
use super::stage::{Client, Stage};

/// A call's id, noted as given up unless an outcome comes first.
struct Entry {
    id: usize,
    ledger: Arc<Ledger>,
    settled: bool,
}

impl Entry {
    fn settle(mut self, outcome: &str) {
        self.settled = true;
        self.ledger.settled(self.id, outcome);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.settled {
            self.ledger.settled(self.id, "given up");
        }
    }
}

struct Bystander;

impl Actor for Bystander {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// Makes `calls` calls, one after the other.
pub async fn caller(stage: Arc<Stage>, seed: u64, calls: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..calls {
        let (id, fate) = (stage.ledger.issue(), Fate::draw(&mut random));
        let entry = Entry { id, ledger: Arc::clone(&stage.ledger), settled: false };
        match stage.client(&mut random) {
            None => {
                entry.settle("nobody there");
                sleep(Duration::from_micros(200)).await;
            }
            Some(Client::Worked(client)) => {
                let deadline = Instant::now() + Duration::from_micros(random.random_range(0..8_000));
                make(entry, &mut random, |actor| match actor {
                    Some(actor) => client.bind(&actor).unawaited().call_by((id, fate), deadline),
                    None => client.call_by((id, fate), deadline),
                })
                .await;
            }
            Some(Client::Served(client)) => {
                make(entry, &mut random, |actor| match actor {
                    Some(actor) => client.bind(&actor).unawaited().call((id, fate)),
                    None => client.call((id, fate)),
                })
                .await;
            }
        }
    }
}

async fn make<P: Protocol<Reply = usize, Error = ()>>(
    entry: Entry,
    random: &mut StdRng,
    call: impl FnOnce(Option<ractor::ActorCell>) -> Calling<P>,
) {
    let some_time = Duration::from_micros(random.random_range(1..5_000));
    match random.random_range(0..100) {
        0..86 => finish(entry, call(None).await),
        // Gives up in the middle.
        86..92 => {
            let mut calling = call(None);
            if let Ok(outcome) = timeout(some_time, &mut calling).await {
                finish(entry, outcome);
            }
        }
        // Its task is aborted.
        92..96 => {
            let calling = call(None);
            let task = tokio::spawn(async move { finish(entry, calling.await) });
            sleep(some_time).await;
            task.abort();
            let _ = task.await;
        }
        // The actor that it is bound to dies, while its future lives on elsewhere.
        _ => {
            let (actor, ended) = Bystander::spawn(None, Bystander, ()).await.unwrap();
            let calling = call(Some(actor.get_cell()));
            let task = tokio::spawn(async move { finish(entry, calling.await) });
            sleep(some_time).await;
            actor.kill();
            ended.await.unwrap();
            task.await.unwrap();
        }
    }
}

fn finish(entry: Entry, outcome: Result<usize, CallError<()>>) {
    let word = match outcome {
        Ok(id) => {
            assert_eq!(id, entry.id, "another call's reply");
            REPLY
        }
        Err(CallError::App(())) => "app_error",
        Err(CallError::Overloaded(_)) => "overloaded",
        Err(CallError::Timeout) => "timeout",
        Err(CallError::Died(_)) => "died",
        Err(CallError::ShuttingDown) => "shutting_down",
        Err(CallError::Cancelled) => "cancelled",
        Err(CallError::Deadlock(_)) => "deadlock",
        Err(_) => "unknown",
    };
    entry.settle(word);
}
