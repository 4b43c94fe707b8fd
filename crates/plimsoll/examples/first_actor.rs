//! A first supervised actor: `cargo run -p plimsoll --example first_actor`
use plimsoll::ractor::{Actor, ActorProcessingErr, ActorRef};
use plimsoll::supervisor::{BoxError, ChildSpec, StopMode, Supervisor};

struct Greeter;

impl Actor for Greeter {
    type Msg = String;
    type State = ();
    type Arguments = ();
    async fn pre_start(&self, _: ActorRef<String>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
    async fn handle(&self, _: ActorRef<String>, name: String, (): &mut ()) -> Result<(), ActorProcessingErr> {
        println!("hello, {name}");
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let greeter = ChildSpec::new("greeter", |parent| Actor::spawn_linked(None, Greeter, (), parent));
    let tree = Supervisor::builder("app").child(greeter.stop_mode(StopMode::Drain)).start().await?;
    tree.child_handle("greeter")?.send("world".to_owned())?;
    println!("stopped cleanly: {}", tree.stop().await?.is_clean());
    Ok(())
}
