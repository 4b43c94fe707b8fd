//! Every call runs in a worker of its own: what it builds up, and how it fails, ends with it.

use plimsoll::call::{CallContext, CallServer, Service};

/// Sums the squares up to a number, with a table that is as large as the number asks for.
struct Squares;

impl Service for Squares {
    type Request = usize;
    type Reply = usize;
    type Error = String;

    async fn call(&self, ctx: CallContext, upto: usize) -> Result<usize, String> {
        assert!(ctx.worker().is_some(), "an actor of its own");
        if upto == 13 {
            panic!("13 is bad luck");
        }
        if upto > 1_000_000 {
            return Err(format!("{upto} is too much"));
        }
        // These megabytes belong to the worker, and go with it.
        let table: Vec<usize> = (1..=upto).map(|n| n * n).collect();
        Ok(table.iter().sum())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The panic is part of the show; the default hook would print it in between.
    std::panic::set_hook(Box::new(|_| ()));
    let server = CallServer::builder(Squares).max_in_flight(64).start().await?;
    let client = server.client();

    for upto in [3, 100_000, 13, 2_000_000, 4] {
        match client.call(upto).await {
            Ok(sum) => println!("squares up to {upto}: {sum}"),
            Err(error) => println!("squares up to {upto}: {error}"),
        }
    }
    let counters = server.inspector().inspect().counters;
    println!("started {}, settled {}, in flight {}", counters["started"], counters["settled"], counters["in_flight"]);
    Ok(())
}
