//! A first call server: each call has a worker of its own. `cargo run -p plimsoll --example first_call_server`
use plimsoll::call::{CallContext, CallServer, Service};
use plimsoll::supervisor::{BoxError, ChildSpec, Supervisor};

struct WordCount;

impl Service for WordCount {
    type Request = String;
    type Reply = usize;
    type Error = std::convert::Infallible;
    async fn call(&self, _: CallContext, text: String) -> Result<usize, Self::Error> {
        assert!(!text.is_empty(), "no text");
        Ok(text.split_whitespace().count())
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let words =
        ChildSpec::new("words", |parent| CallServer::builder(WordCount).max_in_flight(100).start_linked(parent));
    let tree = Supervisor::builder("app").child(words).start().await?;
    let words = tree.call_client::<WordCount>("words")?;
    println!("{:?}", words.call(String::new()).await.map_err(|error| error.to_string())); // this worker panics
    println!("{}", words.call("to be or not".to_owned()).await?);
    println!("stopped cleanly: {}", tree.stop().await?.is_clean());
    Ok(())
}
