//! A registry of providers: an entry goes with its lease, or when the actor that owns it exits.
use plimsoll::bounded::{ActorRegistry, Cap, RegistrySettings};
use plimsoll::ractor::{Actor, ActorProcessingErr, ActorRef};
use plimsoll::supervisor::{BoxError, ChildSpec, Supervisor};

struct Resizer;

impl Actor for Resizer {
    type Msg = ();
    type State = ();
    type Arguments = ();
    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let registry = ActorRegistry::new(RegistrySettings { per_name: Cap::of::<2>(), ..RegistrySettings::default() });
    let child = ChildSpec::task_with("registry", registry.clone(), |stop, registry| registry.run(stop));
    let tree = Supervisor::builder("app").child(child).start().await?;
    let mut resizers = Vec::new();
    for port in [4001, 4002, 4003] {
        let (resizer, _) = Actor::spawn(None, Resizer, ()).await?;
        match registry.advertise("resize", &resizer, port, None) {
            Ok(_) => println!("{port}: added"),
            Err(error) => println!("{port}: {error}"),
        }
        resizers.push(resizer);
    }
    println!("providers: {}", registry.providers(&"resize").len());
    for resizer in &resizers {
        resizer.stop_and_wait(None, None).await?;
    }
    while !registry.is_empty() {
        tokio::task::yield_now().await;
    }
    println!("providers: {}", registry.providers(&"resize").len());
    tree.stop().await?;
    Ok(())
}
