//! A first gen_server below a supervisor: `cargo run -p plimsoll --example first_gen_server`
use plimsoll::server::{self, Context, Server};
use plimsoll::supervisor::{BoxError, ChildSpec, Supervisor};

struct Counter(u64);

impl Server for Counter {
    type Call = u64;
    type Reply = u64;
    async fn call(&mut self, add: u64, _: &mut Context<Self>) -> Result<u64, BoxError> {
        self.0 += add;
        Ok(self.0)
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let counter = ChildSpec::new("counter", |parent| server::builder(Counter(40)).start_linked(parent));
    let tree = Supervisor::builder("app").child(counter).start().await?;
    let counter = tree.server_ref::<Counter>("counter")?;
    println!("{}", counter.call(2).await?);
    println!("stopped cleanly: {}", tree.stop().await?.is_clean());
    Ok(())
}
