//! Callers are linked: when the actor that a call is bound to ends, the call ends, wherever its future is.

use std::convert::Infallible;

use plimsoll::call::{CallContext, CallServer, Service};
use plimsoll::ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;

/// Works until it is told to stop, and says so.
struct Forever(mpsc::Sender<&'static str>);

struct Says(mpsc::Sender<&'static str>);

impl Drop for Says {
    fn drop(&mut self) {
        let _ = self.0.try_send("the worker has ended");
    }
}

impl Service for Forever {
    type Request = ();
    type Reply = ();
    type Error = Infallible;

    async fn call(&self, _: CallContext, (): ()) -> Result<(), Infallible> {
        let _says = Says(self.0.clone());
        let _ = self.0.send("a worker is at it").await;
        std::future::pending().await
    }
}

struct Session;

impl Actor for Session {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (says, mut heard) = mpsc::channel(8);
    let server = CallServer::builder(Forever(says)).start().await?;
    let (session, ended) = Session::spawn(None, Session, ()).await?;

    // The call runs in a task of its own, but it belongs to the session.
    let client = server.client().bind(&session.get_cell());
    let call = tokio::spawn(async move { client.call(()).await });
    println!("{}", heard.recv().await.unwrap_or_default());

    println!("the session is killed");
    session.kill();
    ended.await?;
    match call.await? {
        Ok(()) => println!("the call was answered"),
        Err(error) => println!("{error}"),
    }
    println!("{}", heard.recv().await.unwrap_or_default());
    let counters = server.inspector().inspect().counters;
    println!(
        "in flight {}, timers {}, callers watched {}",
        counters["in_flight"], counters["timers"], counters["bound_callers"]
    );
    Ok(())
}
