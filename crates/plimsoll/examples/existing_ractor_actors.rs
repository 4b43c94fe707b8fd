//! Actors that exist already, put under a supervisor without a change: `cargo run --example existing_ractor_actors`.

use std::time::Duration;

use plimsoll::supervisor::{Backoff, BoxError, ChildSpec, Strategy, Supervisor};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

// ---- what was there before: two ordinary ractor actors ----

/// Counts words.
struct Counter;

enum Count {
    Word(String),
    Total(RpcReplyPort<usize>),
}

impl Actor for Counter {
    type Msg = Count;
    type State = usize;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Count>, (): ()) -> Result<usize, ActorProcessingErr> {
        println!("counter: started");
        Ok(0)
    }

    async fn handle(&self, _: ActorRef<Count>, message: Count, total: &mut usize) -> Result<(), ActorProcessingErr> {
        match message {
            Count::Word(word) if word.is_empty() => return Err("an empty word".into()),
            Count::Word(_) => *total += 1,
            Count::Total(reply) => reply.send(*total)?,
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Count>, _: &mut usize) -> Result<(), ActorProcessingErr> {
        println!("counter: stopped");
        Ok(())
    }
}

/// Writes to the counter, which it finds by name.
struct Reader;

impl Actor for Reader {
    type Msg = String;
    type State = ActorRef<Count>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<String>, (): ()) -> Result<ActorRef<Count>, ActorProcessingErr> {
        println!("reader: started");
        Ok(ractor::registry::where_is("counter").ok_or("no counter")?.into())
    }

    async fn handle(
        &self,
        _: ActorRef<String>,
        line: String,
        counter: &mut ActorRef<Count>,
    ) -> Result<(), ActorProcessingErr> {
        for word in line.split(' ') {
            counter.cast(Count::Word(word.to_owned()))?;
        }
        Ok(())
    }
}

// ---- what is new: the tree ----

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let tree = Supervisor::builder("words")
        // The reader depends on the counter: when that is started again, so is the reader.
        .strategy(Strategy::RestForOne)
        .child(
            ChildSpec::new("counter", |parent| Counter::spawn_linked(Some("counter".into()), Counter, (), parent))
                .backoff(Backoff::NONE),
        )
        .child(ChildSpec::new("reader", |parent| Reader::spawn_linked(None, Reader, (), parent)))
        .start()
        .await?;
    let reader = |line: &str| -> Result<(), BoxError> {
        let reader = tree.child("reader")?.actor_ref::<String>().ok_or("a reader")?;
        Ok(reader.cast(line.to_owned())?)
    };
    reader("one two three")?;
    settle().await;
    println!("total: {}", total(&tree).await?);
    reader("a double  space")?; // makes the counter fail
    settle().await;
    println!("total after the crash: {}", total(&tree).await?);
    println!("stopped cleanly: {}", tree.stop().await.unwrap().is_clean());
    Ok(())
}

async fn total(tree: &plimsoll::supervisor::SupervisorRef) -> Result<usize, BoxError> {
    let counter = tree.child("counter")?.actor_ref::<Count>().ok_or("a counter")?;
    Ok(ractor::call_t!(counter, Count::Total, 1_000)?)
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}
