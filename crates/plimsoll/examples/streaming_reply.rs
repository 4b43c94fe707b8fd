//! A reply in parts, no faster than the caller takes them, with one deadline and one end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::StreamExt;
use plimsoll::call::{CallContext, CallServer, NotTaken, Part, Service, Sink};

/// Counts up, and keeps account of how far it came.
struct Count(Arc<AtomicU32>);

struct UpTo {
    end: u32,
    sink: Sink<u32>,
}

impl Service for Count {
    type Request = UpTo;
    type Reply = &'static str;
    type Error = NotTaken<u32>;

    async fn call(&self, _: CallContext, UpTo { end, sink }: UpTo) -> Result<&'static str, NotTaken<u32>> {
        for n in 1..=end {
            sink.send(n).await?;
            self.0.store(n, Ordering::SeqCst);
        }
        Ok("that was all")
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sent = Arc::new(AtomicU32::new(0));
    let server = CallServer::builder(Count(Arc::clone(&sent))).start().await?;

    let mut stream = server.client().stream(2, |sink| UpTo { end: 5, sink });
    while let Some(part) = stream.next().await {
        match part? {
            Part::Item(n) => println!("item {n}"),
            Part::End(end) => println!("end: {end}"),
        }
    }

    // A caller that takes one item and goes away: the worker is never more than the demand ahead, and stops.
    let mut stream = server.client().stream(2, |sink| UpTo { end: 1_000_000, sink });
    if let Some(Ok(Part::Item(n))) = stream.next().await {
        println!("item {n}, and no more");
    }
    drop(stream);
    while server.inspector().inspect().counters["workers"] > 0 {
        tokio::task::yield_now().await;
    }
    println!("the worker stopped within {} items", if sent.load(Ordering::SeqCst) <= 4 { "4" } else { "too many" });
    Ok(())
}
