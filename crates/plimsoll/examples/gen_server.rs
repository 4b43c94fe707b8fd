//! A gen_server with all callbacks: a call that is replied to later, a cast, a timer, a last hook.
use std::convert::Infallible;
use std::time::Duration;

use plimsoll::BoxError;
use plimsoll::server::{self, Context, GenServer, Reply, Response};

/// Hands out jobs. A worker that comes before there is a job waits for one.
#[derive(Default)]
struct Jobs {
    job: Option<String>,
    worker: Option<Reply<Self>>,
}

impl GenServer for Jobs {
    type Call = ();
    type Reply = String;
    type Error = Infallible;
    type Cast = String;
    type Message = &'static str;

    async fn init(&mut self, ctx: &mut Context<Self>) -> Result<(), BoxError> {
        ctx.send_after(Duration::from_millis(20), "a job from the timer")?;
        Ok(())
    }

    async fn call(&mut self, (): (), ctx: &mut Context<Self>) -> Result<Response<Self>, BoxError> {
        if let Some(job) = self.job.take() {
            return Ok(Response::Reply(job));
        }
        self.worker = ctx.take_reply();
        Ok(Response::Later)
    }

    async fn cast(&mut self, job: String, _: &mut Context<Self>) -> Result<(), BoxError> {
        match self.worker.take() {
            Some(worker) => drop(worker.ok(job)),
            None => self.job = Some(job),
        }
        Ok(())
    }

    async fn message(&mut self, job: &'static str, ctx: &mut Context<Self>) -> Result<(), BoxError> {
        self.cast(job.to_owned(), ctx).await
    }

    async fn stopped(&mut self, _: &mut Context<Self>) -> Result<(), BoxError> {
        println!("stopped");
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut server = server::builder(Jobs::default()).start().await?;
    let jobs = server.client();
    jobs.cast("a job that was queued".to_owned())?;
    println!("{}", jobs.call(()).await?);
    println!("{}", jobs.call(()).await?);
    server.actor().stop(None);
    server.ended().await;
    println!("{}", jobs.call(()).await.expect_err("it has ended"));
    Ok(())
}
