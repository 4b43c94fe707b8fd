//! Ten times as many calls as there is room for: each is served, waits in a bounded queue, or is refused at once.

use std::convert::Infallible;
use std::time::Duration;

use plimsoll::call::{CallContext, CallError, CallServer, Service};
use tokio::sync::Semaphore;

/// Works for as long as the program wants.
struct Busy(&'static Semaphore);

impl Service for Busy {
    type Request = ();
    type Reply = ();
    type Error = Infallible;

    async fn call(&self, _: CallContext, (): ()) -> Result<(), Infallible> {
        let _done = self.0.acquire().await;
        Ok(())
    }
}

static DONE: Semaphore = Semaphore::const_new(0);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server =
        CallServer::builder(Busy(&DONE)).max_in_flight(4).queue(2).deadline(Duration::from_secs(30)).start().await?;

    let calls: Vec<_> = (0..40)
        .map(|_| {
            let client = server.client();
            tokio::spawn(async move { client.call(()).await })
        })
        .collect();
    let inspector = server.inspector();
    let counters = || inspector.inspect().counters;
    while counters()["started"] < 40 {
        tokio::task::yield_now().await;
    }
    let now = counters();
    println!(
        "in flight {} (of them waiting {}), refused {}",
        now["in_flight"], now["waiting"], now["settled_overloaded"]
    );

    DONE.add_permits(1);
    let (mut served, mut refused) = (0, String::new());
    for call in calls {
        match call.await? {
            Ok(()) => served += 1,
            Err(CallError::Overloaded(what)) => refused = what.to_string(),
            Err(error) => println!("unexpected: {error}"),
        }
    }
    println!("served {served}; the others were told: {refused}");
    Ok(())
}
