//! Many workers of one kind, started on demand and never more than so many: `cargo run --example dynamic_workers`.

use std::time::Duration;

use plimsoll::supervisor::{Backoff, BoxError, DynamicSupervisor, Restart, StartError};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};

/// Works on one job and ends.
struct Worker;

#[derive(Clone)]
struct Job {
    name: &'static str,
    steps: u32,
}

struct Step;

impl Actor for Worker {
    type Msg = Step;
    type State = Job;
    type Arguments = Job;

    async fn pre_start(&self, _: ActorRef<Step>, job: Job) -> Result<Job, ActorProcessingErr> {
        println!("{}: started with {} steps", job.name, job.steps);
        Ok(job)
    }

    async fn handle(&self, myself: ActorRef<Step>, _: Step, job: &mut Job) -> Result<(), ActorProcessingErr> {
        match job.steps {
            13 => panic!("thirteen steps are too many"),
            0 => myself.stop(None),
            _ => job.steps -= 1,
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    std::panic::set_hook(Box::new(|panic| println!("panic: {}", panic.payload_as_str().unwrap_or("?"))));
    let workers = DynamicSupervisor::builder("workers", |parent: ActorCell, job: Job| {
        Worker::spawn_linked(None, Worker, job, parent)
    })
    .restart(Restart::Transient) // again after a crash, with the same job; not after the work is done
    .backoff(Backoff::NONE)
    .max_children(2)
    .start()
    .await?;

    let short = workers.start_child(Job { name: "short", steps: 1 }).await?;
    let unlucky = workers.start_child(Job { name: "unlucky", steps: 13 }).await?;
    match workers.start_child(Job { name: "third", steps: 1 }).await {
        Err(StartError::MaxChildren { max }) => println!("third: refused, there are {max} already"),
        other => println!("third: {other:?}"),
    }
    for _ in 0..2 {
        short.actor().send_message(Step)?;
    }
    settle().await;
    println!("running: {}", workers.count_children()?.active);
    unlucky.actor().send_message(Step)?;
    settle().await;
    println!("running: {}", workers.count_children()?.active);
    println!("restarts: {}", workers.inspect().details.counters["restarts"]);
    println!("stopped cleanly: {}", workers.stop().await.unwrap().is_clean());
    Ok(())
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}
